"""The vision-language reward in the real host: train, cancel, go on, load, score; what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from attune.nodes.rewards.vlm import load_vlm_reward
from attune.tests.host.graphs import node, shown_error, with_changes
from attune.tests.tiny_vlm import write_tiny_vlm
from attune.training.vlm_reward import load_trained

MODEL = "tiny_vlm"
PROMPTS = ("a cat", "a dog", "a rose", "a fox", "a house")
PAIRS = 10


@pytest.fixture(scope="module", autouse=True)
def model(host) -> Path:
    return write_tiny_vlm(host.models_dir / "rewards" / MODEL)


@pytest.fixture(scope="module", autouse=True)
def pictures(host) -> dict[str, list[torch.Tensor]]:
    """Bright pictures in the input folder "attune_chosen", dark ones in "attune_rejected"."""
    rng = np.random.default_rng(0)
    found: dict[str, list[torch.Tensor]] = {}
    for name, low in (("chosen", 128), ("rejected", 0)):
        folder = host.input_dir / f"attune_{name}"
        folder.mkdir(parents=True, exist_ok=True)
        found[name] = []
        for index in range(PAIRS):
            pixels = rng.integers(low, low + 128, (32, 32 + index, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index:02d}.png")
            found[name].append(torch.from_numpy(pixels).float() / 255)
    return found


def training(run_name: str, **changes: Any) -> dict[str, Any]:
    widgets = {
        "model_folder": MODEL, "prompts": "\n".join(PROMPTS[index % 5] for index in range(PAIRS)), "run_name": run_name,
        "if_run_exists": "resume", "steps": 8, "learning_rate": 0.003, "rank": 2, "held_out": 0.2, "training_seed": 0,
        "precision": "auto", "device": "default", "pairs_per_step": 2, "accumulation": 1, "layers": "language",
        "alpha": 0.0, "dropout": 0.0, "evaluate_every": 2, "patience": 0, "warmup_steps": 1, "schedule": "cosine",
        "clip_norm": 1.0, "weight_decay": 0.0, "save_memory": False, "save_state_seconds": 60.0,
    }  # fmt: skip
    pairs = {"chosen": ["good", 0], "rejected": ["bad", 0]}
    return {
        "good": node("LoadImageDataSetFromFolder", folder="attune_chosen"),
        "bad": node("LoadImageDataSetFromFolder", folder="attune_rejected"),
        "train": node("AttuneTrainRewardModel", **(pairs | widgets | changes)),
        "name": node("PreviewAny", source=["train", 3]),
    }


def scoring(reward: list[Any]) -> dict[str, Any]:
    return {
        "one": node("LoadImage", image="attune_chosen/00.png"),
        "score": node("AttuneScoreImages", images=["one", 0], reward=reward, prompt="a cat"),
        "scores": node("PreviewAny", source=["score", 0]),
    }


def loading(**changes: Any) -> dict[str, Any]:
    widgets = {"model_folder": MODEL, "trained_reward": "", "precision": "fp32", "device": "default"}
    return {"reward": node("AttuneLoadVLMReward", **(widgets | changes))}


def file_of(host: Any, name: str) -> Path:
    return host.models_dir / "rewards" / name


@pytest.fixture(scope="module")
def trained(host, model, pictures) -> tuple[str, str, float]:
    """One finished run, made once: the file's name, the report, and the first picture's score."""
    graph = training("taste") | scoring(["train", 0]) | {"chart": node("PreviewImage", images=["train", 2])}
    result = host.run(graph)
    assert host.pixels(host.output_path(result.outputs["chart"]["images"][0])).shape[1] > 600
    report = result.ui("AttuneTrainRewardModel", "text")[0]
    return result.outputs["name"]["text"][0], report, float(result.outputs["scores"]["text"][0])


def test_training_saves_a_file_and_says_how_good_it_is(host, trained):
    name, report, _ = trained
    assert name == "attune/taste_001.safetensors"
    found = load_trained(file_of(host, name))
    assert (found.name, found.base, found.rank) == ("taste", MODEL, 2)
    assert found.metrics["held_out_pairs"] == 2
    assert "**taste**: finished after 8 updates on 8 pairs" in report
    assert "of 2 (chance: 50 %)" in report
    info = host.object_info()
    listed = info["AttuneLoadVLMReward"]["input"]["required"]
    assert name in listed["trained_reward"][1]["options"]
    assert MODEL in listed["model_folder"][1]["options"]
    others = info["AttuneLoadReward"]["input"]["required"]["reward_name"][1]["options"]
    assert [file for file in others if file == name or file.startswith(MODEL)] == []


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_the_file_scores_as_the_training_did(host, model, pictures, trained, precision):
    name, _, score = trained
    graph = loading(trained_reward=name, precision=precision) | scoring(["reward", 0])
    found = float(host.run(graph).outputs["scores"]["text"][0])
    # Pixels come from a file of 8 bits in both.
    expected = load_vlm_reward(model, file_of(host, name), precision=precision)
    picture = pictures["chosen"][0][None]
    assert found == pytest.approx(expected(picture, ["a cat"]).item(), abs=1e-4)
    if precision == "fp32":
        assert found == pytest.approx(score, abs=1e-4)


def test_a_finished_run_is_only_loaded(host, trained):
    before = sorted(path.name for path in file_of(host, "attune").iterdir())
    host.free()
    result = host.run(training("taste"))
    assert result.outputs["name"]["text"][0] == trained[0]
    assert sorted(path.name for path in file_of(host, "attune").iterdir()) == before


def test_cancel_keeps_the_work_and_run_goes_on(host):
    interrupted = []

    def cancel(event: dict) -> None:
        if not interrupted and event.get("type") == "progress" and event.get("node") == "train":
            interrupted.append(event)
            host.interrupt()

    graph = training("stopped early", steps=400, schedule="constant", evaluate_every=50)
    with pytest.raises(RuntimeError):
        host.run(graph, on_event=cancel)
    assert interrupted
    stopped = load_trained(file_of(host, "attune/stopped early_stopped_001.safetensors"))
    done = stopped.metrics["steps"]
    assert 1 <= done < 400
    states = host.user_dir / "attune" / "runs" / "reward stopped early"
    assert (states / f"state-{done}.safetensors").is_file()
    result = host.run(with_changes(graph, "train", steps=done + 2))
    assert f"finished after {done + 2} updates" in result.ui("AttuneTrainRewardModel", "text")[0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prompts": "a cat"}, "All pairs have the same prompt"),
        ({"prompts": "a cat\na dog"}, "There are 2 prompts for 10 images"),
        ({"model_folder": "gone"}, "There is no model folder 'gone'"),
        ({"rejected": ["good", 0]}, "Pair 1 has the same picture"),
    ],
)
def test_bad_input_is_a_clear_error_and_nothing_is_written(host, changes, says):
    where, words = shown_error(host, training("refused", **changes))
    assert where == "train"
    assert says in words
    assert not (host.user_dir / "attune" / "runs" / "reward refused").exists()


def test_other_settings_do_not_go_on_with_a_finished_run(host, trained):
    where, words = shown_error(host, training("taste", rank=4))
    assert where == "train"
    assert "LoRA rank = 2, now it is 4" in words


def test_what_cannot_be_loaded_says_why(host, model, trained):
    reward = scoring(["reward", 0])
    where, words = shown_error(host, loading(trained_reward="none (train one first)") | reward)
    assert (where, "Train one with Train Reward Model" in words) == ("reward", True)
    where, words = shown_error(host, loading(trained_reward="gone.safetensors") | reward)
    assert (where, "'gone.safetensors' is not in" in words) == ("reward", True)
    other = write_tiny_vlm(host.models_dir / "rewards" / "other_vlm", seed=9)
    where, words = shown_error(host, loading(model_folder=other.name, trained_reward=trained[0]) | reward)
    assert (where, f"was trained on the model folder '{MODEL}'" in words) == ("reward", True)
    pickled = host.models_dir / "rewards" / "pickled_vlm"
    pickled.mkdir()
    shutil.copy(model / "config.json", pickled)
    (pickled / "pytorch_model.bin").write_bytes(b"never opened")
    where, words = shown_error(host, loading(model_folder="pickled_vlm", trained_reward=trained[0]) | reward)
    assert (where, "a pickle" in json.dumps(words)) == ("reward", True)
