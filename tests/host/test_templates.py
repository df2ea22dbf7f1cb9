"""Every template runs through the real server, by comfy-cli, to its end, and leaves the pictures it promises."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from attune.tests.tiny_vlm import CHAT_TEMPLATE, write_tiny_vlm

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
TEMPLATES = sorted(file.stem for file in WORKFLOWS.glob("*.json"))

# Shorter runs of the long ones: the same graph with fewer updates. Every override must match an input of the graph.
OVERRIDES: dict[str, dict[str, Any]] = {
    "align_with_dag": {"AttuneTrainLora.steps": 2},
    "align_with_reward": {"AttuneTrainLora.steps": 2},
    "align_with_refl": {"AttuneTrainLora.steps": 2},
    "train_on_my_choices": {"AttuneTrainLora.steps": 2, "KSampler.steps": 3},
    "train_from_pairs_dpo": {"AttuneTrainLora.steps": 2, "KSampler.steps": 3},
    "compare_loras": {"AttuneTrainLora.steps": 8, "AttuneABTest.steps": 4},
    "train_style_lora": {"AttuneTrainLora.steps": 4},
    "train_one_step": {"AttuneTrainLora.steps": 2, "KSampler.steps": 3},
    "train_user_adapter": {"AttuneTrainLora.steps": 2},
    "describe_my_taste": {
        "AttuneDescribePreference.model_folder": "tiny_vlm", "AttuneDescribePreference.max_new_tokens": 8,
        "KSampler.steps": 3,
    },
    "train_reward_model": {
        "AttuneTrainRewardModel.model_folder": "tiny_vlm", "AttuneTrainRewardModel.steps": 4,
        "AttuneTrainRewardModel.evaluate_every": 2,
    },
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def vision_language_model(host) -> None:
    """The one thing that a template needs and the pack does not bring along; here a tiny one."""
    write_tiny_vlm(host.models_dir / "rewards" / "tiny_vlm", chat_template=CHAT_TEMPLATE)


def test_there_are_templates():
    assert len(TEMPLATES) >= 8
    assert set(OVERRIDES) <= set(TEMPLATES)


def test_every_training_has_a_run_name_of_its_own():
    """Two templates of one run name would resume each other's run."""
    widgets = [
        node["widgets_values"][0]
        for name in TEMPLATES
        for node in json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))["nodes"]
        if node["type"] == "AttuneTrainLora"
    ]
    assert len(widgets) >= 7 and sorted(set(widgets)) == sorted(widgets)


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_runs(host, name: str):
    result = host.run(WORKFLOWS / f"{name}.json", OVERRIDES.get(name))
    images = host.images(result)
    assert images, f"{name} shows no picture"
    for file in images:
        pixels = host.pixels(file)
        assert min(pixels.shape[:2]) >= 64
        assert pixels.std() > 0.01, f"{file.name} is one flat colour"


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_holds_only_known_nodes_and_no_path_of_a_machine(host, name: str):
    workflow = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    known = host.object_info().keys() | {"MarkdownNote", "Note", "Reroute", "PrimitiveNode"}
    assert [node["type"] for node in workflow["nodes"] if node["type"] not in known] == []
    machine_paths = [text for text in _strings(workflow) if re.match(r"/\w+/|[A-Za-z]:\\|https?://", text)]
    assert machine_paths == [], "a template must run on every machine, without the network"


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for entry in value.values() for text in _strings(entry)]
    return [text for entry in value for text in _strings(entry)] if isinstance(value, list) else []
