"""Public reward models through the node, in the real host: found, told apart, scored, remembered."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attune.nodes.rewards import load_reward
from attune.nodes.rewards.load import Companions
from attune.tests import public_models as models

PICTURE = "attune_public.png"


@pytest.fixture(scope="module")
def files(host) -> dict[str, Path]:
    """One small file per form, where an artist would put it."""
    rewards = host.models_dir / "rewards" / "public"
    clip = models.transformers_clip("quick_gelu", seed=7)
    return {
        "hps": models.save(rewards / "HPS_v2_1.pt", models.open_clip_clip(False, seed=8).state_dict(), epoch=1),
        "pickscore": models.save(rewards / "PickScore_v1" / "model.safetensors", clip.state_dict()),
        "aesthetic": models.save(rewards / "sac+logos+ava1-l14-linearMSE.pth", models.head(32, seed=9)),
        "clip": models.save(host.models_dir / "clip_vision" / "eyes.safetensors", clip.state_dict()),
        "image reward": models.save(rewards / "ImageReward.pt", models.blip()),
        "words": models.write_vocabulary(host.models_dir / "rewards" / "bert-base-uncased"),
    }


@pytest.fixture(scope="module")
def picture(host) -> torch.Tensor:
    """45 × 70 pixels in the host's input folder."""
    pixels = np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)
    host.input_dir.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(host.input_dir / PICTURE)
    return torch.from_numpy(pixels)[None].float() / 255


def graph(host, file: Path, prompt: str, **widgets: str) -> dict[str, dict]:
    name = file.relative_to(host.models_dir / "rewards").as_posix()
    return {
        "image": {"class_type": "LoadImage", "inputs": {"image": PICTURE}},
        "reward": {
            "class_type": "AttuneLoadReward",
            "inputs": {"reward_name": name, "device": "default", "precision": "fp32"} | widgets,
        },
        "score": {
            "class_type": "AttuneScoreImages",
            "inputs": {"images": ["image", 0], "reward": ["reward", 0], "prompt": prompt},
        },
        "show": {"class_type": "PreviewAny", "inputs": {"source": ["score", 0]}},
    }


def test_types_and_clips_are_offered_behind_the_older_widgets(host, files):
    inputs = host.object_info()["AttuneLoadReward"]["input"]
    assert list(inputs["required"]) == ["reward_name", "device", "precision"]
    assert list(inputs["optional"]) == ["model_type", "clip_name"]
    kinds, clips = (inputs["optional"][name][1]["options"] for name in ("model_type", "clip_name"))
    assert kinds[0] == clips[0] == "auto"
    assert "HPS v2.1" in kinds
    assert {"clip_vision/eyes.safetensors", "rewards/public/PickScore_v1/model.safetensors"} <= set(clips)


@pytest.mark.parametrize(
    ("name", "model_type", "clip_name"),
    [
        ("hps", "HPS v2.0", None),
        ("pickscore", "PickScore v1", None),
        ("aesthetic", "auto", None),
        ("aesthetic", "auto", "clip_vision/eyes.safetensors"),
        ("image reward", "auto", None),
    ],
)
def test_the_node_scores_as_the_loader_does(host, files, picture, name, model_type, clip_name):
    prompt = f"an owl {uuid.uuid4()}"
    widgets = {"model_type": model_type} | ({"clip_name": clip_name} if clip_name else {})
    result = host.run(graph(host, files[name], prompt, **widgets))
    companions = Companions(folders=(host.models_dir / "rewards",), candidates=(files["clip"],))
    reward = load_reward(files[name], "cpu", model_type=model_type, companions=companions)
    expected = reward.reward(picture, [prompt]).item()
    assert float(result.outputs["show"]["text"][0]) == pytest.approx(expected, abs=1e-4)
    table = result.outputs["score"]["text"][0]
    assert {"hps": "HPS v2.0", "aesthetic": "LAION aesthetic v2 (on eyes.safetensors)", "pickscore": "PickScore v1",
            "image reward": "ImageReward"}[name] in table  # fmt: skip


def test_loading_again_finds_the_scores_by_the_digest(host, files, picture):
    """The host logs when it places a network; a score that is remembered places none."""
    prompt = f"a cafe {uuid.uuid4()}"

    def placed(model_type: str) -> int:
        host.free()
        before = host.log().count("Requested to load ModuleDict")
        host.run(graph(host, files["pickscore"], prompt, model_type=model_type))
        return host.log().count("Requested to load ModuleDict") - before

    assert [placed("PickScore v1"), placed("PickScore v1")] == [1, 0]
    assert placed("CLIPScore (LAION, GELU)") == 1


@pytest.mark.parametrize(
    ("name", "widgets", "says"),
    [
        ("hps", {}, "do not tell which reward it is. Choose its model_type"),
        ("hps", {"model_type": "ImageReward"}, "layout of open_clip (such as HPS), by the keys of its tensors"),
        ("aesthetic", {"clip_name": "rewards/public/ImageReward.pt"}, "does not hold a CLIP picture network with 32"),
    ],
)
def test_what_cannot_be_loaded_is_a_clear_error(host, files, picture, name, widgets, says):
    with pytest.raises(RuntimeError) as caught:
        host.run(graph(host, files[name], "an owl", **widgets))
    assert says in json.dumps(caught.value.details) + str(caught.value)
