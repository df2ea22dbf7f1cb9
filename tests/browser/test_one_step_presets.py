"""The two buttons of Diff-Instruct* Objective: they set it and the Train LoRA behind it, and one undo takes it back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / ".host" / "screenshots"
FAST, LONG = json.loads(
    re.search(
        r"^export const PRESETS = (\[.*?^\]);$",
        (ROOT / "js" / "one_step_presets.js").read_text(encoding="utf-8"),
        re.M | re.S,
    )[1]
)
ADD = """async (wired) => {
    const { LiteGraph, app } = window;
    app.graph.clear();
    const [objective, train] = ["AttuneDiffInstructObjective", "AttuneTrainLora"].map((type) => {
        const node = LiteGraph.createNode(type);
        app.graph.add(node);
        return node;
    });
    train.pos = [objective.pos[0] + 520, objective.pos[1]];
    objective.widgets.find((each) => each.name === "reward_weight").value = 0.7;
    if (wired) objective.connect(0, train, train.inputs.findIndex(({ name }) => name === "objective"));
    await app.loadGraphData(app.graph.serialize(), true, true, app.extensionManager.workflow.activeWorkflow);
    app.canvas.ds.scale = 0.7;
    app.canvas.ds.offset = [160 - objective.pos[0], 160 - objective.pos[1]];
    app.canvas.setDirty(true, true);
}"""
VALUES = """() => Object.fromEntries(window.app.graph.nodes.map((node) => [node.type, {
    values: Object.fromEntries(node.widgets.map((each) => [each.name, each.value])),
    saved: node.serialize().widgets_values, height: node.size[1], least: node.computeSize()[1],
}]))"""
UNDO = "() => window.app.extensionManager.workflow.activeWorkflow.changeTracker.undo()"
ORDER = """() => window.app.graph.nodes.find(({ type }) => type === "AttuneDiffInstructObjective").widgets.map((each) =>
    [each.name, each.serialize])"""


def values(page: Page) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the objective and of Train LoRA, by widget."""
    found = page.evaluate(VALUES)
    return found["AttuneDiffInstructObjective"]["values"], found["AttuneTrainLora"]["values"]


def picked(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in wanted}


def press(page: Page, name: str) -> None:
    page.locator(".attune-starts").get_by_role("button", name=name).click()


def test_a_preset_sets_both_nodes_and_is_undone_in_one_step(renderer: str, page: Page, page_errors: list[str]):
    page.evaluate(ADD, True)
    line = page.locator(".attune-starts p")
    expect(line).to_contain_text("reward_weight and cfg stay as they are")
    before = values(page)
    press(page, LONG["name"])
    expect(line).to_contain_text(
        f"{LONG['train']['steps']} updates of {LONG['objective']['prompts_per_update']} pictures"
    )
    expect(line).to_contain_text(re.compile(r"takes about \d+ times as long as fast and rough\.$"))
    objective, train = values(page)
    assert picked(objective, LONG["objective"]) == LONG["objective"]
    assert picked(train, LONG["train"]) == LONG["train"]
    assert objective["reward_weight"] == 0.7, "what was chosen stays"
    if renderer == "Nodes 2.0":
        shown = page.locator(".lg-node").filter(has_text="Train LoRA").locator("input")
        assert str(LONG["train"]["steps"]) in [each.input_value() for each in shown.all()], "and is shown"
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"one_step_presets_{renderer}.png")

    page.evaluate(UNDO)
    expect(line).to_contain_text("reward_weight and cfg stay as they are")
    assert values(page) == before, "one undo takes all of it back"

    press(page, LONG["name"])
    press(page, FAST["name"])
    objective, train = values(page)
    assert picked(objective, FAST["objective"]) == FAST["objective"]
    assert picked(train, FAST["train"]) == FAST["train"]
    page.evaluate(UNDO)
    assert values(page)[1]["steps"] == LONG["train"]["steps"], "each press is a step of its own"
    assert page_errors == []


def test_alone_the_node_says_what_is_missing_and_saves_no_line(renderer: str, page: Page, page_errors: list[str]):
    page.evaluate(ADD, False)
    train_before = values(page)[1]
    press(page, FAST["name"])
    line = page.locator(".attune-starts p")
    expect(line).to_contain_text("connect it to Train LoRA and press again")
    objective, train = values(page)
    assert picked(objective, FAST["objective"]) == FAST["objective"] and train == train_before
    inside = line.evaluate("(line) => line.scrollHeight <= line.parentElement.getBoundingClientRect().height")
    assert inside, "the longest line has room"
    found = page.evaluate(VALUES)["AttuneDiffInstructObjective"]
    assert found["height"] >= found["least"], "the buttons lie inside the node"
    saved = [name for name, serialize in page.evaluate(ORDER) if serialize is not False]
    assert len(found["saved"]) == len(saved), "the buttons are not saved"
    assert page_errors == []
