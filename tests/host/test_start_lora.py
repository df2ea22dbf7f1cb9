"""Train LoRA that goes on from the LoRA of another one, in the real host: Diff-Instruct*, first without a reward."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from attune.tests.host.graphs import (
    PROMPTS,
    base_graph,
    finished,
    lora_file,
    node,
    shown_error,
    train_node,
    with_changes,
    write_checkpoint,
)

FIRST, SECOND = "distilled", "preferred"


@pytest.fixture(scope="module", autouse=True)
def checkpoint(host) -> Path:
    return write_checkpoint(host)


@pytest.fixture(scope="module")
def graph(host) -> dict[str, Any]:
    """Two runs in a row; the second hardly learns, so that it is seen what it begins with."""
    inputs = host.object_info()["AttuneDiffInstructObjective"]["input"]
    widgets = inputs["required"] | inputs.get("optional", {})
    values = {name: entry[1]["default"] for name, entry in widgets.items() if len(entry) > 1 and "default" in entry[1]}
    values |= {"prompts": PROMPTS, "prompts_per_update": 1, "images_per_prompt": 2, "sampler_steps": 2}
    values |= {"clip": ["ckpt", 1], "vae": ["ckpt", 2], "latent": ["latent", 0], "reward": ["reward", 0]}
    made = base_graph() | {
        "distilling": node("AttuneDiffInstructObjective", **values),
        "objective": node("AttuneDiffInstructObjective", **(values | {"reward_weight": 1.0})),
        "first": train_node(FIRST, preview_every=0),
        "train": train_node(SECOND, preview_every=0, learning_rate=1e-7, start_lora=["first", 1]),
    }
    return with_changes(made, "first", objective=["distilling", 0])


def reports(host: Any, graph: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Name of a node → the report of its run, if it was played now."""
    record = finished(host, graph)
    assert record["status"]["status_str"] == "success", record["status"]
    shown = {name: record["outputs"].get(name, {}) for name in ("first", "train")}
    return {name: json.loads(told["attune_report"][0]) for name, told in shown.items() if told}


def test_the_second_run_begins_with_the_lora_of_the_first_and_says_so(host, graph):
    found = reports(host, graph)
    before, after = (load_file(lora_file(host, found[name]["lora_name"])) for name in ("first", "train"))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before), "it has learned something"
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-5, rtol=0)
    with safe_open(lora_file(host, found["train"]["lora_name"]), "pt") as file:
        (parent,) = json.loads(file.metadata()["attune.parents"])
    assert Path(parent["name"]).name == Path(found["first"]["lora_name"]).name and parent["strength"] == 1
    assert found["train"]["start_lora"] == parent["weights_id"]
    teachers = [found[name]["metrics"]["teacher_reward"] for name in ("first", "train")]
    assert teachers[0] == teachers[1], "the teacher is the model without the LoRA"


def test_a_file_is_gone_on_with_too_and_the_run_is_another_one(host, graph):
    reports(host, graph)
    files = graph | {"file": node("AttuneLoraCatalogue", lora=f"{FIRST} (newest)", strength=1.0)}
    by_file = with_changes(files, "train", start_lora=["file", 1], steps=3)
    del by_file["first"], by_file["distilling"]
    assert reports(host, by_file)["train"]["steps"] == 3, "the same weights: the run goes on"
    del by_file["train"]["inputs"]["start_lora"]
    name, words = shown_error(host, by_file)
    assert name == "train" and "another LoRA to go on from than now, or none (start_lora)" in words


def test_a_model_with_a_one_step_lora_is_refused_as_a_teacher(host, graph):
    on_model = with_changes(graph, "train", model=["first", 0], run_name="its own teacher")
    del on_model["train"]["inputs"]["start_lora"]
    name, words = shown_error(host, on_model)
    assert name == "train" and "carries the one-step LoRA" in words and FIRST in words
    assert "connect the LoRA to start_lora" in words
    assert not (host.user_dir / "attune" / "runs" / "its own teacher").exists()


def test_another_timestep_and_another_rank_are_refused(host, graph):
    elsewhere = with_changes(with_changes(graph, "objective", init_timestep=999), "train", run_name="elsewhere")
    name, words = shown_error(host, elsewhere)
    assert name == "train" and "was trained at timestep 625" in words and "Set init_timestep to 625" in words
    wide = with_changes(graph, "train", run_name="wide", lora_settings=["settings", 0])
    wide["settings"] = node(
        "AttuneLoraSettings", rank=3, alpha=0.0, dropout=0.0, cross_attention=True, self_attention=True,
        feed_forward=False, projection=False, convolution=False, timestep=False, everything=False,
    )  # fmt: skip
    name, words = shown_error(host, wide)
    assert name == "train" and "Its rank is 8: set rank in LoRA Settings to that" in words
