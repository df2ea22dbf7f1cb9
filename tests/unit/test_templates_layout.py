"""The templates as they are laid out: nothing covers anything else, and what belongs to a group lies inside it."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import pytest

TEMPLATES = sorted((Path(__file__).resolve().parents[2] / "workflows").glob("*.json"))
TITLE, MARGIN = 30, 10
# As tall as the page makes these nodes at least, whatever a file says: seen in a host.
LEAST_HEIGHT = {
    "AttuneTrainLora": 1186, "AttuneLoadReward": 154, "CLIPTextEncode": 88, "AttunePreferenceProfile": 158,
    "AttuneChooseImages": 728, "AttuneOneStepPreset": 258, "AttuneOneStepSampler": 402,
    "AttuneDiffInstructObjective": 1105,
}  # fmt: skip


class Box(NamedTuple):
    """A rectangle on the canvas, in pixels."""

    name: str
    left: float
    top: float
    right: float
    bottom: float


def box_of(node: dict) -> Box:
    (left, top), (width, height) = node["pos"], node["size"]
    height = max(height, LEAST_HEIGHT.get(node["type"], 0))
    return Box(f"{node['type']} #{node['id']}", left, top - TITLE, left + width, top + height)


def touch(a: Box, b: Box, margin: float = 0) -> bool:
    return (
        a.left < b.right + margin
        and b.left < a.right + margin
        and a.top < b.bottom + margin
        and b.top < a.bottom + margin
    )


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda file: file.stem)
def test_no_node_covers_another(template: Path):
    boxes = [box_of(node) for node in json.loads(template.read_text(encoding="utf-8"))["nodes"]]
    assert [(a.name, b.name) for a, b in combinations(boxes, 2) if touch(a, b, MARGIN)] == []


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda file: file.stem)
def test_a_node_lies_inside_its_group_or_outside_of_all(template: Path):
    workflow = json.loads(template.read_text(encoding="utf-8"))
    problems = []
    for title, (left, top, width, height) in ((g["title"], g["bounding"]) for g in workflow.get("groups", [])):
        group = Box(title, left, top, left + width, top + height)
        for box in map(box_of, workflow["nodes"]):
            inside = (
                group.left <= box.left
                and group.top <= box.top
                and box.right <= group.right
                and box.bottom <= group.bottom
            )
            if touch(box, group) and not inside:
                problems.append((box.name, title))
    assert problems == []
