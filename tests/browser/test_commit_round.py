"""The page inside Commit Round: choose, say what should change, Refine; undo, a reload, other pictures, acceptance; a
question with its round, two tabs, another name, deletion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, Route, expect

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
PICTURES = Path(__file__).resolve().parents[2] / ".host" / "screenshots"
COMMENT = "make the background blue.\n🐈 <img src=x onerror=hacked=1>"


ACTIVE = "window.app.extensionManager.workflow.activeWorkflow?.path"
SAYS = """(type) => window.app.graph.nodes.find((each) => each.type === type).widgets
    .filter(({ name }) => ["session", "new_name"].includes(name)).map(({ value }) => value)"""
KEPT = "() => window.app.graph.nodes.find((node) => node.type === 'AttuneCommitRound').properties.attune_round ?? null"


def opened(page: Page, name: str) -> Locator:
    """The page of the round of a new session, once its first pictures are there."""
    open_template(page, name)
    press_run(page)
    round_ = shown(page)
    expect(round_.locator(".attune-round-cell")).to_have_count(4, timeout=120_000)
    return round_


def shown(page: Page) -> Locator:
    return page.locator(".attune-round").filter(visible=True)


def press_run(page: Page) -> None:
    page.get_by_test_id("queue-button").get_by_role("button").first.click()


def open_template(page: Page, name: str) -> None:
    """In a new tab, for a session of that name. Without rewards and with few steps, to be quick."""
    workflow = json.loads((WORKFLOWS / "refine_with_local_llm.json").read_text(encoding="utf-8"))
    schedule = next(node for node in workflow["nodes"] if node["type"] == "AttuneRoundSchedule")
    schedule["widgets_values"][:2] = [4, 4]
    page.evaluate(OPEN, [workflow, name])
    expect(shown(page)).to_have_count(1)


def switch_to(page: Page, path: str) -> None:
    """Press the tab of an open workflow."""
    name = path.removeprefix("workflows/").removesuffix(".json")
    page.locator(".workflow-tabs").get_by_text(name, exact=True).click()
    page.wait_for_function(f"(path) => {ACTIVE} === path", arg=path)
    expect(shown(page)).to_have_count(1)


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
    round_ = shown(page)
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
    round_ = opened(page, "another try")
    before = session_of(host, "another try")["open"]["pictures"]
    round_.get_by_role("textbox").fill("a red hat")
    round_.get_by_role("button", name="Like picture 1", exact=True).click()
    round_.get_by_role("button", name="Other pictures").click()
    page.wait_for_function("() => window.ended >= 2", timeout=120_000)
    expect(round_.locator(".attune-round-cell")).to_have_count(4)
    expect(round_.locator(".attune-round-cell.liked")).to_have_count(0)
    expect(round_.get_by_role("textbox")).to_have_value("a red hat")
    round_.get_by_role("textbox").fill("")
    session = session_of(host, "another try")
    assert session["attempt"] == 1 and session["open"]["pictures"] != before
    expect(round_.get_by_role("button", name="This is it")).to_be_disabled()
    round_.get_by_role("button", name="Like picture 3", exact=True).click()
    round_.get_by_role("button", name="This is it").click()
    expect(round_.locator(".attune-round-name")).to_contain_text("accepted")
    expect(round_.locator(".attune-round-stop.accepted")).to_have_count(1)
    assert session_of(host, "another try")["accepted"] and page_errors == []


def test_a_question_is_shown_with_its_round_alone(page: Page, page_errors: list[str]):
    round_ = opened(page, "a question")
    asks = round_.locator(".attune-round-ask")
    expect(asks).to_be_hidden()
    round_.get_by_role("textbox").fill("rainy weather")
    round_.get_by_role("button", name="Refine").click()
    expect(asks).to_contain_text("Round 2:", timeout=120_000)
    expect(asks).to_contain_text("was not understood")
    stops = round_.locator(".attune-round-stop")
    expect(stops).to_have_count(2)
    stops.first.click()
    expect(round_.locator(".attune-round-name")).to_contain_text("round 1")
    expect(asks).to_be_hidden()
    stops.last.click()
    expect(asks).to_be_visible()
    page.evaluate(AGAIN)
    expect(asks).to_contain_text("Round 2:")
    round_.get_by_role("textbox").fill("no hat")
    kept = "() => window.app.extensionManager.workflow.activeWorkflow.activeState.nodes.find((node) => "
    kept += "node.type === 'AttuneCommitRound').properties.attune_round.comment === 'no hat'"
    page.wait_for_function(kept, timeout=5_000)
    page.reload()
    expect(asks).to_contain_text("Round 2:", timeout=60_000)
    expect(round_.get_by_role("textbox")).to_have_value("no hat")
    round_.get_by_role("textbox").fill("")
    said = asks.get_by_role("button").first.get_attribute("title")
    asks.get_by_role("button").first.click()
    expect(asks).to_be_hidden()
    expect(round_.get_by_role("textbox")).to_have_value("" if said == "Change nothing" else said)
    round_.get_by_role("button", name="Undo").click()
    expect(round_.locator(".attune-round-name")).to_contain_text("round 1")
    expect(asks).to_be_hidden()
    assert page_errors == []


def test_a_run_fills_the_tab_that_was_run(page: Page, host: HostServer, page_errors: list[str]):
    """Both tabs have the same numbers of nodes; the host hands a result to whichever of them is shown."""
    open_template(page, "tab one")
    first = page.evaluate(f"() => {ACTIVE}")
    open_template(page, "tab two")
    page.wait_for_function(f"(path) => {ACTIVE} !== path", arg=first)
    page.wait_for_timeout(1500)  # A tab that is still being opened comes back to the front.
    second = page.evaluate(f"() => {ACTIVE}")
    switch_to(page, first)
    # The run begins only when the other tab is shown, however fast the machine is.
    held: list[Route] = []
    page.route("**/prompt", lambda route: held.append(route) if route.request.method == "POST" else route.continue_())
    with page.expect_request(lambda request: request.url.endswith("/prompt") and request.method == "POST"):
        press_run(page)
    switch_to(page, second)
    with page.expect_response(lambda response: response.url.endswith("/prompt")):
        held[0].continue_()
    page.wait_for_function("() => window.ended >= 1", timeout=120_000)
    page.wait_for_timeout(500)  # The last message and what it sets off; nothing may show here.
    expect(shown(page)).to_contain_text("Press Run: the round's pictures appear here.")
    expect(page.locator(".attune-report")).to_contain_text("appear here after a run")
    assert page.evaluate(KEPT) is None
    switch_to(page, first)
    expect(shown(page).locator(".attune-round-cell")).to_have_count(4)
    expect(shown(page).locator(".attune-round-title")).to_have_text("tab one")
    expect(page.locator(".attune-report-name")).to_contain_text("tab one")
    expect(page.locator(".attune-report-card.open")).to_have_count(1)
    assert page.evaluate(KEPT)["key"] == session_of(host, "tab one")["key"] and page_errors == []


def test_another_name_and_deletion_for_good(renderer: str, page: Page, host: HostServer, page_errors: list[str]):
    name, later = f"to be renamed {renderer}", f"renamed {renderer}"
    round_ = opened(page, name)
    key = session_of(host, name)["key"]
    round_.get_by_role("button", name=name).click()
    typed = round_.get_by_label("The session's name")
    expect(typed).to_be_focused()
    typed.fill("not this")
    typed.press("Escape")
    expect(round_.locator(".attune-round-title")).to_have_text(name)
    round_.get_by_role("button", name=name).click()
    typed.fill(f"  {later} ")
    typed.press("Enter")
    expect(round_.locator(".attune-round-title")).to_have_text(later)
    assert session_of(host, later)["key"] == key
    # The next run goes on with this session, instead of beginning another one by the old name.
    assert page.evaluate(SAYS, "AttuneRefinementSession") == ["my session", later]

    # It is not deleted by a key, a second Enter, or by going on.
    round_.get_by_role("button", name=later).click()
    round_.get_by_role("button", name="Delete …").dblclick()
    asked = round_.get_by_role("alertdialog")
    expect(asked).to_contain_text(f"Delete “{later}”? Everything of it goes: its one round with its pictures")
    expect(asked).to_contain_text("cannot be brought back")
    expect(asked.get_by_role("button", name="Keep it")).to_be_focused()
    page.screenshot(path=PICTURES / f"delete_{renderer}.png")
    page.keyboard.press("Enter")
    expect(asked).to_be_hidden()
    round_.get_by_role("button", name=later).click()
    round_.get_by_role("button", name="Delete …").click()
    page.keyboard.press("Escape")
    expect(asked).to_be_hidden()
    assert session_of(host, later)["key"] == key

    round_.get_by_role("button", name=later).click()
    round_.get_by_role("button", name="Delete …").click()
    asked.get_by_role("button", name="Delete for good").click()
    expect(round_).to_contain_text("The session is deleted.")
    assert not round_.locator("img").count() and page.evaluate(KEPT) is None
    assert key not in [entry["key"] for entry in host.get("/attune/refinement/sessions")["sessions"]]
    assert not (host.user_dir / "attune" / "sessions" / key).exists()
    assert page_errors == []
