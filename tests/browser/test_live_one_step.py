"""Live drawing in a real page: with Run on "On Change", typing into the prompt draws anew, without a click."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import Page, expect

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"

OPEN = """async (workflow) => {
    const { api } = await import("/scripts/api.js");
    window.ended = 0;
    api.addEventListener("execution_success", () => (window.ended += 1));
    await window.app.loadGraphData(workflow);
}"""
SHOWN = """() => {
    const preview = window.app.graph.nodes.find((node) => node.type === "PreviewImage");
    return window.app.nodeOutputs[preview.id]?.images?.map((image) => image.filename) ?? [];
}"""
# Where the page puts the box of a node is the renderer's own business; its element is not.
FOCUS = """() => {
    const prompt = window.app.graph.nodes.find((node) => node.type === "CLIPTextEncode");
    const { ds } = window.app.canvas;
    ds.scale = 1;
    ds.offset = [200 - prompt.pos[0], 160 - prompt.pos[1]];
    window.app.canvas.setDirty(true, true);
}"""


def runs(page: Page, count: int) -> list[str]:
    """The pictures that are shown once that many runs have ended."""
    page.wait_for_function("(count) => window.ended >= count", arg=count, timeout=60_000)
    return page.evaluate(SHOWN)


def test_typing_draws_anew(renderer: str, page: Page):
    page.evaluate(OPEN, json.loads((WORKFLOWS / "live_one_step.json").read_text(encoding="utf-8")))
    button = page.get_by_test_id("queue-button").get_by_role("button")
    button.first.click()
    first = runs(page, 1)
    assert len(first) == 8
    page.evaluate(FOCUS)
    prompt = page.locator("textarea").filter(visible=True).first
    expect(prompt).to_have_value("a cat, cartoon style on a green background")
    prompt.click()
    prompt.press("End")
    prompt.press_sequentially(", red")
    page.wait_for_timeout(1500)
    assert page.evaluate("window.ended") == 1, "nothing is drawn by itself unless Run is set to it"
    button.last.click()
    page.get_by_text("On Change").last.click()
    prompt.click()
    prompt.press("End")
    prompt.press_sequentially(" hat")
    second = runs(page, 2)
    assert len(second) == 8 and second != first
    # What the nodes themselves show is no change: it would draw for ever.
    page.wait_for_timeout(2000)
    ended = page.evaluate("window.ended")
    page.wait_for_timeout(2000)
    assert page.evaluate("window.ended") == ended
