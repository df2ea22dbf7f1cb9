"""The model learns along with a refinement, in the real server: a version per round, roll back, replay, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from attune.tests.host.graphs import finished, lora_file, node, shown_error, train_node, with_changes, write_checkpoint
from attune.tests.host.test_refinement import drawn, graph, key_of, seen, told
from attune.tests.hosting import HostServer


@pytest.fixture(scope="module", autouse=True)
def checkpoint(host: HostServer) -> Path:
    return write_checkpoint(host)


def learning(name: str, learner: str = "refl", **changes: Any) -> dict[str, Any]:
    """The whole loop with learning in it: the weights come before the pictures, and the model is the trained one.

    Args:
        changes: as of `graph`, whose other nodes are "objective", "train" and "shape" here.
    """
    made = graph(name, rewards=True)
    made["objective"] = node(
        "AttuneMultiRoundObjective", session=["weights", 0], clip=["ckpt", 1], vae=["ckpt", 2], latent=["latent", 0],
        reward=["weights", 1], learner=learner, images_per_prompt=2, sampler_steps=2, cfg=1.0, stop_from=0, stop_to=1,
        margin=100.0, trained_steps=0, updates_per_rollout=2, chunk=4, weight=0.001, clip_range=0.0001,
        step_weights="balanced",
    )  # fmt: skip
    made["shape"] = node(
        "AttuneLoraSettings", rank=2, alpha=0.0, dropout=0.0, cross_attention=True, self_attention=True,
        feed_forward=False, projection=False, convolution=False, timestep=False, everything=False, part="up path",
    )  # fmt: skip
    made["train"] = train_node(f"{name} learns", steps=2, preview_every=0, lora_settings=["shape", 0])
    made["weights"]["inputs"]["session"] = ["schedule", 0]
    made["sampler"]["inputs"] |= {"session": ["weights", 0], "model": ["train", 0]}
    made["commit"]["inputs"]["session"] = ["sampler", 0]
    for change, value in changes.items():
        where, _, what = change.partition("__")
        made[where]["inputs"][what] = value
    return made


def report_of(record: dict[str, Any]) -> dict[str, Any]:
    """Of Train LoRA; {} where the host took its result from the cache."""
    assert record["status"]["status_str"] == "success", record["status"]
    shown = record["outputs"].get("train", {}).get("attune_report")
    return json.loads(shown[0]) if shown else {}


def versions(host: HostServer, name: str) -> list[Path]:
    return sorted((host.models_dir / "loras" / "attune").glob(f"{name} learns_*.safetensors"))


def header(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def answer(host: HostServer, key: str, **body: Any) -> dict[str, Any]:
    view = seen(host, key)
    return told(host, "commit", view, round=view["open"]["key"], **({"liked": [0]} | body))


@pytest.mark.parametrize("learner", ["refl", "ppo"])
def test_every_round_learns_once_and_goes_on_from_the_last(host: HostServer, learner: str):
    name = f"goes on by {learner}"
    made = learning(name, learner)
    first = finished(host, made)
    report, key = report_of(first), key_of(first)
    assert report["status"] == "not trained" and "nobody has said anything yet" in report["live"]["message"]
    assert versions(host, name) == []
    plain = drawn(host, finished(host, graph(f"{name} without")))
    assert drawn(host, first).shape == plain.shape

    answer(host, key, comment="brighter", rating=3)
    second = finished(host, made)
    report = report_of(second)
    assert report["status"] == "finished" and report["steps"] == 2 and report["method"] == f"multi-round-{learner}"
    (one,) = versions(host, name)
    about = header(one)
    assert "attune.parents" not in about and about["attune.method"] == f"multi-round-{learner}"
    settings = json.loads(about["attune.settings"])
    assert settings["objective"]["session"] == key and settings["objective"]["round"] == 2
    assert settings["lora"]["part"] == "up path"
    assert f"Round 2 of '{name}' begins with a fresh LoRA" in report["live"]["note"]

    # Queued again, the round is not learned again: neither out of the host's cache, nor anew.
    assert report_of(finished(host, made)) == {}
    again = report_of(finished(host, with_changes(made, "train", preview_every=1)))
    assert again["status"] == "learned before" and again["lora_name"] == report["lora_name"]
    assert again["metrics"]["reward"] == pytest.approx(report["kept_metrics"]["reward"])
    view = seen(host, key)
    told(host, "again", view, round=view["open"]["key"])
    others = finished(host, made)
    assert report_of(others)["status"] == "learned before" and versions(host, name) == [one]
    assert not np.array_equal(drawn(host, others), drawn(host, second))

    answer(host, key)
    third = finished(host, made)
    assert report_of(third)["status"] == "finished"
    one, two = versions(host, name)
    (parent,) = json.loads(header(two)["attune.parents"])
    assert parent["weights_id"] == header(one)["attune.weights_id"] and Path(parent["name"]).name == one.name
    assert "goes on from the LoRA of round 2" in report_of(third)["live"]["note"]


@pytest.mark.parametrize("margin", [0.0, -1.0])
def test_a_round_learns_unless_its_pictures_reach_a_margin(host: HostServer, margin: float):
    """The reward is a brightness as it is, and so above −1: its one picture a round tells no deviation."""
    name = f"margin {margin:g}"
    made = learning(name, objective__margin=margin, schedule__pictures=1)
    del made["weights"]["inputs"]["other"]
    answer(host, key_of(finished(host, made)), comment="brighter")
    report = report_of(finished(host, made))
    (one,) = versions(host, name)
    with safe_open(one, "pt") as file:
        learned = max(file.get_tensor(key).abs().max().item() for key in file.keys() if "lora_up" in key)  # noqa: SIM118
    assert (learned > 0) == (margin == 0)
    below = report["metrics"].get("below_margin")
    assert below == (None if margin == 0 else 0), "the report says that no picture taught anything"


def test_what_is_kept_is_learned_without_a_reward(host: HostServer):
    name = "keeps"
    made = learning(name, "kept")
    del made["objective"]["inputs"]["reward"]
    key = key_of(finished(host, made))
    answer(host, key, comment="brighter")
    report = report_of(finished(host, made))
    assert report["status"] == "not trained" and "nothing is to be kept" in report["live"]["message"]
    assert versions(host, name) == []

    answer(host, key, comment="brighter, keep the background")
    third = finished(host, made)
    report = report_of(third)
    assert report["status"] == "finished" and report["steps"] == 2 and report["method"] == "multi-round-kept"
    (one,) = versions(host, name)
    about = header(one)
    settings = json.loads(about["attune.settings"])["objective"]
    assert (settings["round"], settings["rounds"], settings["lowest_noise"]) == (3, 1, 0.75)
    assert "learns what you want to keep of one round" in report["live"]["note"]

    answer(host, key, comment="darker, keep everything else")
    fourth = finished(host, made)
    assert report_of(fourth)["status"] == "finished"
    one, two = versions(host, name)
    assert "attune.parents" not in header(two), "what is kept is learned anew"
    assert json.loads(header(two)["attune.settings"])["objective"]["rounds"] == 2

    told(host, "undo", seen(host, key))
    assert report_of(finished(host, with_changes(made, "train", preview_every=1)))["status"] == "learned before"
    answer(host, key, comment="the background may change")
    assert report_of(finished(host, made))["status"] == "not trained"


def test_undo_rolls_the_lora_back_and_a_replay_uses_the_one_it_had(host: HostServer):
    name = "rolls back"
    made = learning(name, train__training_seed=5)  # no other session of these tests learns the same weights
    key = key_of(finished(host, made))
    answer(host, key)
    second = finished(host, made)
    answer(host, key)
    third = finished(host, made)
    answer(host, key)
    one, two = versions(host, name)

    # Round 3 undone, then round 2: each is at once what it was, with the LoRA that it had.
    for expected, file in ((third, two), (second, one)):
        told(host, "undo", seen(host, key))
        record = finished(host, made)
        assert Path(report_of(record)["lora_name"]).name == file.name
        assert np.array_equal(drawn(host, record), drawn(host, expected))
    assert versions(host, name) == [one, two], "nothing was trained for that"

    # Another answer to round 2: its third round goes on from the second's LoRA, not from the undone one.
    answer(host, key, liked=[1], comment="darker")
    report_of(finished(host, made))
    *_, three = versions(host, name)
    assert three not in (one, two)
    (parent,) = json.loads(header(three)["attune.parents"])
    assert parent["weights_id"] == header(one)["attune.weights_id"]
    assert header(three)["attune.weights_id"] != header(two)["attune.weights_id"]

    replay = finished(host, with_changes(made, "session", replay_round=2))
    assert "is made again with the LoRA it had" in report_of(replay)["live"]["message"]
    assert "bit by bit the same" in replay["outputs"]["commit"]["text"][0]
    assert len(versions(host, name)) == 3

    # Without its file there is no going on, and the words say what to do.
    hidden = one.rename(one.with_suffix(".hidden"))
    where, words = shown_error(host, with_changes(made, "objective", cfg=2.0))
    assert where == "objective" and "cannot go on from round 2" in words and "trash" in words
    where, words = shown_error(host, with_changes(made, "session", replay_round=2))
    assert where == "objective" and "Round 2 cannot be made again as it was" in words
    hidden.rename(one)
    assert report_of(finished(host, with_changes(made, "objective", cfg=2.0)))["status"] == "finished"


def test_rounds_that_are_repeated_in_one_run_learn_from_each_other(host: HostServer):
    name = "in one run"
    made = learning(name, commit__decides="the rewards")
    made["repeat"] = node("AttuneRepeatRounds", session=["commit", 0], rounds=3)
    record = finished(host, made)
    assert record["status"]["status_str"] == "success", record["status"]
    assert len(seen(host, key_of(record))["path"]) == 3
    one, two = map(header, versions(host, name))
    assert [json.loads(about["attune.settings"])["objective"]["round"] for about in (one, two)] == [2, 3]
    (parent,) = json.loads(two["attune.parents"])
    assert "attune.parents" not in one and parent["weights_id"] == one["attune.weights_id"]


def test_the_lora_of_a_part_is_one_for_every_loader(host: HostServer):
    name = "part"
    made = learning(name)
    answer(host, key_of(finished(host, made)))
    report = report_of(finished(host, made))
    picture = {"positive": ["words", 1], "negative": ["words", 2], "latent_image": ["latent", 0], "seed": 4, "steps": 2,
               "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}  # fmt: skip
    made["stock"] = node("LoraLoaderModelOnly", model=["ckpt", 0], lora_name=report["lora_name"], strength_model=1.0)
    shown = {}
    for model in ("train", "stock", "ckpt"):
        made["sampled"] = node("KSampler", model=[model, 0], **picture)
        made["picture"] = node("VAEDecode", samples=["sampled", 0], vae=["ckpt", 2])
        made["saved"] = node("PreviewImage", images=["picture", 0])
        record = finished(host, made)
        shown[model] = host.pixels(host.output_path(record["outputs"]["saved"]["images"][0]))
    assert np.array_equal(shown["stock"], shown["train"]) and not np.array_equal(shown["stock"], shown["ckpt"])
    with safe_open(lora_file(host, report["lora_name"]), "pt") as file:
        assert all(key.startswith("lora_unet_up_blocks_") for key in file.keys())  # noqa: SIM118


def test_what_cannot_be_learned_is_refused_with_what_to_do(host: HostServer):
    made = learning("refused to learn")
    made["bright"] = node("AttuneImageStatisticsReward", statistic="JPEG size", goal="as low as possible", target=0.5)
    where, words = shown_error(host, made)
    assert where == "objective" and "Set learner to ppo" in words
    where, words = shown_error(host, with_changes(made, "objective", learner="ppo", stop_to=0, images_per_prompt=1))
    assert where == "objective" and "images_per_prompt must be at least 2" in words
    del made["objective"]["inputs"]["reward"]
    where, words = shown_error(host, made)
    assert where == "objective" and "Connect the reward output of Dynamic Weights" in words
    assert versions(host, "refused to learn") == []
