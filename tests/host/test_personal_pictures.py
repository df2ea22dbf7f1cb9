"""From choices to pictures in the real host: embedding, blend, adapter, and what it changed, by the stock sampler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from attune.tests.host.choices import light_and_dark, put_choices
from attune.tests.host.graphs import base_graph, finished, node, shown_error, with_changes, write_checkpoint
from attune.tests.hosting import HostServer
from attune.training.adapters.user_attention import (
    UserAdapter,
    UserAdapterConfig,
    UserAdapterMetadata,
    save_user_adapter,
)
from attune.training.demo import networks
from attune.training.preference.set_encoder import SetEncoder, SetEncoderConfig, features_id, save_set_encoder

REWARD = Path(__file__).resolve().parents[2] / "workflows" / "demo" / "attune_demo_reward.safetensors"
ADAPTER, ENCODER, OTHER_ENCODER = "test_adapter.safetensors", "test_encoder.safetensors", "other_encoder.safetensors"


@pytest.fixture(scope="module", autouse=True)
def files(host: HostServer) -> None:
    """A checkpoint, an encoder and an adapter of random weights that belong together, and an encoder that does not."""
    write_checkpoint(host)
    folder = host.models_dir / "user_adapters"
    torch.manual_seed(4)
    encoders = [
        SetEncoder(SetEncoderConfig(tokens=2, width=8, hidden=32), features_id(REWARD)).eval() for _ in range(2)
    ]
    for name, encoder in zip((ENCODER, OTHER_ENCODER), encoders, strict=True):
        save_set_encoder(folder / name, encoder)
    adapter = UserAdapter.fresh(networks.build_unet(), UserAdapterConfig(tokens=2, width=8, start="text"))
    save_user_adapter(
        folder / ADAPTER, adapter.tensors(), adapter.config, UserAdapterMetadata(encoders[0].encoder_id),
        rename=networks.unet_key_to_host,
    )  # fmt: skip


def personal_graph(name: str, *, seed: int = 5, **changes: dict[str, Any]) -> dict[str, Any]:
    """Four pictures without and four with the taste of a profile; changes of inputs by node."""
    graph = base_graph()
    graph["latent"]["inputs"]["batch_size"] = 4
    settings = {
        "seed": seed, "steps": 3, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
        "positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["latent", 0],
    }  # fmt: skip
    graph |= {
        "positive": node("CLIPTextEncode", clip=["ckpt", 1], text="a cat"),
        "negative": node("CLIPTextEncode", clip=["ckpt", 1], text=""),
        "profile": node("AttunePreferenceProfile", profile="my taste", new_name=name),
        "eyes": node(
            "AttuneLoadReward", reward_name="attune_demo_reward.safetensors", device="default", precision="fp32"
        ),
        "embed": node("AttunePreferenceEmbedding", profile=["profile", 0], features=["eyes", 0], encoder=ENCODER,
                      most_choices=32, least_stars=1),
        "embedded": node("PreviewAny", source=["embed", 1]),
        "apply": node("AttuneApplyPreference", model=["ckpt", 0], preference=["embed", 0], adapter=ADAPTER,
                      strength=1.0, start_percent=0.0, end_percent=1.0),
        "sample": node("KSampler", model=["ckpt", 0], **settings),
        "sample_with": node("KSampler", model=["apply", 0], **settings),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["ckpt", 2]),
        "decode_with": node("VAEDecode", samples=["sample_with", 0], vae=["ckpt", 2]),
        "saved": node("SaveImage", images=["decode", 0], filename_prefix="without"),
        "saved_with": node("SaveImage", images=["decode_with", 0], filename_prefix="with"),
        "inspect": node("AttuneInspectPreference", without=["decode", 0], with_taste=["decode_with", 0],
                        preference=["embed", 0], features=["eyes", 0], words="a cat\na dog", recognition=False,
                        encoder=ENCODER),
        "chart": node("PreviewImage", images=["inspect", 0]),
        "found": node("PreviewAny", source=["inspect", 1]),
    }  # fmt: skip
    for changed, inputs in changes.items():
        graph = with_changes(graph, changed, **inputs)
    return graph


def ran(host: HostServer, graph: dict[str, Any]) -> dict[str, Any]:
    record = finished(host, graph)
    assert record["status"]["status_str"] == "success", record["status"]
    return record


def pictures(host: HostServer, record: dict[str, Any], name: str) -> np.ndarray:
    """uint8 [count, h, w, 3] of what a node showed."""
    files = [host.output_path(entry) for entry in record["outputs"][name]["images"]]
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])


def text_of(record: dict[str, Any], name: str) -> str:
    return record["outputs"][name]["text"][0]


def test_choices_change_pictures_and_another_taste_changes_them_otherwise(host: HostServer):
    put_choices(host, "personal light", light_and_dark(4))
    put_choices(host, "personal dark", [(dark, light, words) for light, dark, words in light_and_dark(4)])
    found, without = {}, np.zeros(0)
    for name in ("personal light", "personal dark"):
        record = ran(host, personal_graph(name, seed=20))
        assert f"The taste of {name}, from 4 choices." in text_of(record, "embedded")
        found[name] = pictures(host, record, "saved_with")
        # The host tells of what it has in its cache only once.
        without = pictures(host, record, "saved") if name == "personal light" else without
        assert f"What {name} changed, 4 pairs" in text_of(record, "found")
        assert pictures(host, record, "chart").shape[2] == 960
    assert not np.array_equal(found["personal light"], without) and not np.array_equal(
        found["personal light"], found["personal dark"]
    )


def test_a_new_choice_shows_in_the_next_run_and_nothing_else_runs_again(host: HostServer):
    pairs = light_and_dark(6, seed=3)
    put_choices(host, "personal growing", pairs[:4])
    first = ran(host, personal_graph("personal growing"))
    again = ran(host, personal_graph("personal growing"))
    told = again["status"]["messages"]
    cached = {name for kind, data in told if kind == "execution_cached" for name in data["nodes"]}
    assert {"embed", "apply", "sample_with"} <= cached
    put_choices(host, "personal growing", pairs[4:])
    later = ran(host, personal_graph("personal growing"))
    cached = {
        name for kind, data in later["status"]["messages"] if kind == "execution_cached" for name in data["nodes"]
    }
    assert "embed" not in cached and {"ckpt", "sample", "decode"} <= cached
    assert "from 6 choices" in text_of(later, "embedded")
    assert not np.array_equal(pictures(host, first, "saved_with"), pictures(host, later, "saved_with"))


def test_nobody_and_no_strength_change_no_bit(host: HostServer):
    record = ran(host, personal_graph("nobody yet", seed=21))
    assert "no choice between two pictures yet" in text_of(record, "embedded")
    assert np.array_equal(pictures(host, record, "saved"), pictures(host, record, "saved_with"))
    assert "nothing changed" in text_of(record, "found")
    put_choices(host, "personal somebody", light_and_dark(4))
    record = ran(host, personal_graph("personal somebody", seed=22, apply={"strength": 0.0}))
    assert np.array_equal(pictures(host, record, "saved"), pictures(host, record, "saved_with"))


def test_two_tastes_blend_both_ways(host: HostServer):
    put_choices(host, "personal light", light_and_dark(4))
    put_choices(host, "personal dark", [(dark, light, words) for light, dark, words in light_and_dark(4)])
    graph = personal_graph("personal light")
    graph |= {
        "profile_2": node("AttunePreferenceProfile", profile="my taste", new_name="personal dark"),
        "embed_2": node("AttunePreferenceEmbedding", **(graph["embed"]["inputs"] | {"profile": ["profile_2", 0]})),
        "blend": node("AttuneBlendPreferences", preference_1=["embed", 0], weight_1=0.5, preference_2=["embed_2", 0],
                      weight_2=0.5, weight_3=0.0, weight_4=0.0, blend="one taste in between"),
    }  # fmt: skip
    alone = pictures(host, ran(host, personal_graph("personal light")), "saved_with")
    graph["apply"]["inputs"]["preference"] = ["blend", 0]
    between = pictures(host, ran(host, graph), "saved_with")
    graph["blend"]["inputs"]["blend"] = "each acts by itself"
    beside = pictures(host, ran(host, graph), "saved_with")
    assert not np.array_equal(between, beside) and not np.array_equal(between, alone)
    graph["blend"]["inputs"] |= {"weight_1": 1.0, "weight_2": 0.0}
    only_one = pictures(host, ran(host, graph), "saved_with")
    assert np.array_equal(only_one, alone), "one taste of weight 1 is that taste"


def test_recognition_needs_people_and_tells_them(host: HostServer):
    for number in range(3):
        put_choices(host, f"person {number}", light_and_dark(8, seed=10 + number))
    record = ran(host, personal_graph("person 0", inspect={"recognition": True}))
    assert "Linkage: by an embedding of half of their choices" in text_of(record, "found")


def ran_anew(host: HostServer, graph: dict[str, Any]) -> set[str]:
    """The nodes that were not taken from the cache."""
    told = ran(host, graph)["status"]["messages"]
    return set(graph) - {name for kind, data in told if kind == "execution_cached" for name in data["nodes"]}


def test_recognition_runs_again_with_every_choice_and_another_encoder_file_and_the_rest_does_not(host: HostServer):
    for number in range(3):
        put_choices(host, f"person {number}", light_and_dark(8, seed=10 + number))
    file = "third_encoder.safetensors"
    save_encoder(host, file, seed=5)
    # The cache holds one graph at a time.
    for seed, on in enumerate((True, False)):
        graph = personal_graph("person 0", inspect={"recognition": on, "encoder": file})
        ran(host, graph)
        assert "inspect" not in ran_anew(host, graph)
        put_choices(host, "person 1", light_and_dark(1, seed=20 + seed))
        expected = {"inspect"} if on else set()
        assert ran_anew(host, graph) & {"inspect", "embed", "sample"} == expected
        assert "inspect" not in ran_anew(host, graph)
        save_encoder(host, file, seed=6 + seed)
        assert ran_anew(host, graph) & {"inspect", "embed", "sample"} == expected


def save_encoder(host: HostServer, name: str, *, seed: int) -> None:
    torch.manual_seed(seed)
    encoder = SetEncoder(SetEncoderConfig(tokens=2, width=8, hidden=32), features_id(REWARD)).eval()
    save_set_encoder(host.models_dir / "user_adapters" / name, encoder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"embed": {"encoder": OTHER_ENCODER}}, "trained with another encoder"),
        ({"embed": {"encoder": ADAPTER}}, "holds no taste encoder"),
        ({"apply": {"adapter": ENCODER}}, "holds no user adapter"),
        ({"apply": {"adapter": "../../secret.safetensors"}}, "is not in"),
        ({"inspect": {"without": ["latent_picture", 0]}}, "1 pictures without the taste and 4 with it"),
    ],
)
def test_what_does_not_belong_together_is_refused(host: HostServer, changes: dict[str, Any], words: str):
    put_choices(host, "personal light", light_and_dark(4))
    graph = personal_graph("personal light", **changes)
    graph["latent_picture"] = node("EmptyImage", width=64, height=64, batch_size=1, color=0)
    assert words in shown_error(host, graph)[1]


def test_an_adapter_of_another_model_is_refused(host: HostServer):
    put_choices(host, "personal light", light_and_dark(4))
    folder = host.models_dir / "user_adapters"
    from attune.training.adapters.user_attention import load_user_adapter

    adapter, metadata = load_user_adapter(folder / ADAPTER)
    half = dict(list(adapter.tensors().items())[:2])
    save_user_adapter(folder / "half.safetensors", half, adapter.config, metadata)
    _, words = shown_error(host, personal_graph("personal light", apply={"adapter": "half.safetensors"}))
    assert "trained for another architecture" in words and "not in the adapter" in words
