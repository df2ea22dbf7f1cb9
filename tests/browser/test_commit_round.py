"""The page inside Commit Round: choose, say what should change, Refine; undo, a reload, other pictures, acceptance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect

from attune.tests.hosting import HostServer

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
OPEN = """async ([workflow, name]) => {
    const session = workflow.nodes.find((node) => node.type === "AttuneRefinementSession");
    session.widgets_values[2] = name;
    const { api } = await import("/scripts/api.js");
    window.ended = 0;
    api.addEventListener("execution_success", () => (window.ended += 1));
    await window.app.loadGraphData(workflow);
    const node = window.app.graph.nodes.find((each) => each.type === "AttuneCommitRound");
    const { ds } = window.app.canvas;
    ds.scale = 1;
    ds.offset = [300 - node.pos[0], 120 - node.pos[1]];
    window.app.canvas.setDirty(true, true);
}"""
AGAIN = """async () => {
    const { app } = window;
    await app.loadGraphData(app.graph.serialize(), true, true, app.extensionManager.workflow.activeWorkflow);
    const node = app.graph.nodes.find((each) => each.type === "AttuneCommitRound");
    app.canvas.ds.offset = [300 - node.pos[0], 120 - node.pos[1]];
}"""
COMMENT = "make the background blue.\n🐈 <img src=x onerror=hacked=1>"


def opened(page: Page, name: str) -> Locator:
    """The page of the round of a new session, once its first pictures are there. Without rewards, to be quick."""
    workflow = json.loads((WORKFLOWS / "refine_with_local_llm.json").read_text(encoding="utf-8"))
    schedule = next(node for node in workflow["nodes"] if node["type"] == "AttuneRoundSchedule")
    schedule["widgets_values"][:2] = [4, 4]
    page.evaluate(OPEN, [workflow, name])
    page.get_by_test_id("queue-button").get_by_role("button").first.click()
    round_ = page.locator(".attune-round").filter(visible=True)
    expect(round_.locator(".attune-round-cell")).to_have_count(4, timeout=120_000)
    return round_


def session_of(host: HostServer, name: str) -> dict[str, Any]:
    found = next(entry for entry in host.get("/attune/refinement/sessions")["sessions"] if entry["name"] == name)
    return host.get(f"/attune/refinement/session/{found['key']}")


def test_a_round_is_refined_by_clicks_and_words(renderer: str, page: Page, host: HostServer, page_errors: list[str]):
    name = f"clicks {renderer}"
    round_ = opened(page, name)
    refine = round_.get_by_role("button", name="Refine")
    expect(refine).to_be_disabled()
    round_.get_by_role("button", name="Like picture 2", exact=True).click()
    round_.get_by_role("button", name="Dislike picture 1").click()
    round_.get_by_role("textbox").fill(COMMENT)
    round_.get_by_role("button", name="4 stars").click()
    expect(round_.locator(".attune-round-cell.liked")).to_have_count(1)

    # What was not sent yet is there after the workflow is read anew.
    page.evaluate(AGAIN)
    round_ = page.locator(".attune-round").filter(visible=True)
    expect(round_.get_by_role("textbox")).to_have_value(COMMENT)
    expect(round_.locator(".attune-round-cell.liked")).to_have_count(1)

    round_.get_by_role("button", name="Refine").click()
    expect(round_.locator(".attune-round-stop")).to_have_count(2, timeout=120_000)
    expect(round_.locator(".attune-round-words ins").first).to_contain_text("blue")
    session = session_of(host, name)
    said = session["rounds"][0]["feedback"]
    assert said == {"comment": COMMENT, "liked": [1], "disliked": [0], "rating": 4, "accepted": False}
    assert "blue background" in session["open"]["prompt"]

    round_.get_by_role("button", name="Undo").click()
    expect(round_.locator(".attune-round-stop.open")).to_contain_text("1")
    expect(round_.get_by_role("textbox")).to_have_value(COMMENT)
    round_.get_by_role("button", name="Redo").click()
    expect(round_.locator(".attune-round-name")).to_contain_text("round 2")
    assert page.evaluate("window.hacked") is None and page_errors == []


def test_other_pictures_and_this_is_it(page: Page, host: HostServer, page_errors: list[str]):
    round_ = opened(page, "other pictures")
    before = session_of(host, "other pictures")["open"]["pictures"]
    round_.get_by_role("button", name="Other pictures").click()
    page.wait_for_function("() => window.ended >= 2", timeout=120_000)
    expect(round_.locator(".attune-round-cell")).to_have_count(4)
    session = session_of(host, "other pictures")
    assert session["attempt"] == 1 and session["open"]["pictures"] != before
    expect(round_.get_by_role("button", name="This is it")).to_be_disabled()
    round_.get_by_role("button", name="Like picture 3", exact=True).click()
    round_.get_by_role("button", name="This is it").click()
    expect(round_.locator(".attune-round-name")).to_contain_text("accepted")
    expect(round_.locator(".attune-round-stop.accepted")).to_have_count(1)
    assert session_of(host, "other pictures")["accepted"] and page_errors == []
