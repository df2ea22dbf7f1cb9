"""The timeline inside Session Report: rounds and branches, one of them large, keys, a resize, fifty rounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from attune.nodes.picture_folder import picture_hash
from attune.nodes.refinement.records import Feedback, Picture, Schedule, SessionState, Weights
from attune.nodes.refinement.store import SessionStore
from attune.tests.hosting import HostServer
from attune.tests.refinement_sessions import opened

PICTURES = Path(__file__).resolve().parents[2] / ".host" / "screenshots"
NODE = "window.app.graph.nodes.find((node) => node.type === 'AttuneSessionReport')"
OPEN = f"""async ([key, width, height]) => {{
    const {{ LiteGraph, app }} = window;
    app.graph.clear();
    const node = LiteGraph.createNode("AttuneSessionReport");
    app.graph.add(node);
    node.properties.attune_timeline = {{ key }};
    node.setSize([width, height]);
    await app.loadGraphData(app.graph.serialize(), true, true, app.extensionManager.workflow.activeWorkflow);
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [200 - {NODE}.pos[0], 110 - {NODE}.pos[1]];
    app.canvas.setDirty(true, true);
}}"""
# Boxes of the node and of its timeline on the screen, and whether what scrolls lies in the timeline.
BOXES = f"""() => {{
    const {{ ds }} = window.app.canvas;
    const [x, y, width, height] = {NODE}.getBounding();
    const canvas = window.app.canvas.canvas.getBoundingClientRect();
    const inside = document.querySelector(".attune-report").getBoundingClientRect();
    const rail = document.querySelector(".attune-report-rail").getBoundingClientRect();
    return {{
        width: inside.width, height: inside.height,
        right: inside.right <= canvas.left + x + width + ds.offset[0] + 1,
        bottom: inside.bottom <= canvas.top + y + height + ds.offset[1] + 1,
        rail: rail.left >= inside.left && rail.right <= inside.right && rail.bottom <= inside.bottom,
        lead: document.querySelector(".attune-report-card.path .attune-report-lead").getBoundingClientRect().width,
    }};
}}"""
# Where the node is taken to be resized.
CORNER = f"""() => {{
    const box = document.querySelector(".lg-node")?.getBoundingClientRect();
    if (box) return [box.right - 4, box.bottom - 4];
    const [x, y, width, height] = {NODE}.getBounding();
    const canvas = window.app.canvas.canvas.getBoundingClientRect();
    const {{ offset }} = window.app.canvas.ds;
    return [canvas.left + x + width + offset[0] - 4, canvas.top + y + height + offset[1] - 4];
}}"""
ATTACK = "no hat <img src=x onerror=window.attuneHacked=1>"
COLOURS = {"red": (200, 40, 40), "blue": (40, 60, 200), "green": (50, 170, 70), "sand": (214, 190, 140)}


@pytest.fixture(scope="module")
def sessions(host: HostServer) -> SessionStore:
    """The host's own sessions, without a run."""
    return opened(host.user_dir / "attune")


def picture(colour: str, mark: int) -> np.ndarray:
    """A disc on a ground of this colour."""
    y, x = np.mgrid[:64, :64] - 31.5
    pixels = np.full((64, 64, 3), COLOURS[colour], np.uint8)
    pixels[x**2 + y**2 < 18**2] = (240, 240, 220)
    pixels[31, 31] = (mark % 256, mark // 256, 0)
    return pixels


def propose(sessions: SessionStore, state: SessionState, prompt: str, count: int = 4) -> str:
    turn = len(sessions.tree(state.key).rounds)
    pixels = [picture(list(COLOURS)[place % 4], 64 * turn + place) for place in range(count)]
    pictures = [
        Picture(picture_hash(image), place, {"fits": 0.1 * turn + 0.05 * place, "differs": 0.5 - 0.01 * place})
        for place, image in enumerate(pixels)
    ]
    share = 1 / (1 + turn)
    round_ = sessions.propose(
        state.key, state.revision, prompt=prompt, schedule=Schedule("karras", 8, 1.0, tuple(range(count))),
        weights=Weights("rule", {"fits": 0.5, "differs": 0.5}, {"fits": 1 - share, "differs": share}),
        pictures=pictures, pixels=dict(zip((each.hash for each in pictures), pixels, strict=True)), seconds=2.5,
    )  # fmt: skip
    return round_.key


def play(
    sessions: SessionStore, state: SessionState, prompt: str, comment: str, liked: int, **said: object
) -> SessionState:
    key = propose(sessions, state, prompt)
    return sessions.commit(state.key, state.revision, key, Feedback(comment, liked=(liked,), **said))


@pytest.fixture(scope="module")
def branched(sessions: SessionStore) -> SessionState:
    """Two rounds and one that waits; beside them a branch of two."""
    state = sessions.create("the moon <b>rises</b>", "a moon")
    state = play(sessions, state, "a moon", "on a dark sky", 1, rating=2)
    first = state.last.key
    state = play(sessions, state, "a moon, on a dark sky", ATTACK, 2, disliked=(0,))
    state = play(sessions, state, "a large moon, on a dark sky", "brighter", 0, rating=3)
    state = sessions.branch(state.key, state.revision, first)
    state = play(sessions, state, "a small moon", "closer", 3, rating=5)
    propose(sessions, state, "a small moon, closer", 6)
    return sessions.state(state.key)


def look(page: Page, key: str, width: int = 700, height: int = 760) -> Locator:
    page.evaluate(OPEN, [key, width, height])
    view = page.locator(".attune-report").filter(visible=True)
    expect(view.locator(".attune-report-card").first).to_be_visible()
    return view


def wait_for_pictures(page: Page) -> None:
    page.wait_for_function(
        "() => [...document.querySelectorAll('.attune-report-lead img')].every((i) => i.complete && i.naturalWidth)"
    )


def test_the_rounds_lie_as_a_tree_and_each_is_shown_large(
    renderer: str, page: Page, branched: SessionState, page_errors: list[str]
):  # fmt: skip
    view = look(page, branched.key)
    cards = view.locator(".attune-report-card")
    expect(cards).to_have_count(5)
    assert [cards.nth(place).get_attribute("class").split()[1] for place in range(5)] == [
        "path", "path", "open", "other", "other"
    ]  # fmt: skip
    expect(view.locator(".attune-report-elbow")).to_have_count(1)
    expect(view.locator(".attune-report-name")).to_have_text("the moon <b>rises</b> · not accepted yet")
    expect(view.locator(".attune-report-figures")).to_contain_text("3.5 ★")
    expect(cards.nth(1).locator("ins")).to_have_text("small ")
    expect(cards.nth(1)).to_contain_text("“closer”")
    expect(cards.nth(0).locator(".attune-report-others img")).to_have_count(3)
    expect(view.locator(".attune-report-notes")).to_contain_text("Fairness: too few rounds")
    wait_for_pictures(page)
    page.screenshot(path=PICTURES / f"timeline_{renderer}.png")

    # Keys: the Tab key comes to the newest round; arrows follow the tree; Enter shows it large, Escape comes back.
    cards.nth(2).focus()
    page.keyboard.press("ArrowLeft")
    expect(cards.nth(1)).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(cards.nth(3)).to_be_focused()
    page.keyboard.press("Delete")
    assert page.evaluate("() => window.app.graph.nodes.length") == 1
    page.keyboard.press("Enter")
    large = page.locator("dialog.attune-report-large")
    expect(large.locator("h2")).to_have_text("Round 2, on another branch")
    expect(large.locator("figure")).to_have_count(4)
    expect(large.locator("figure.chosen")).to_contain_text("3, chosen")
    expect(large.locator("figure.disliked")).to_have_count(1)
    expect(large.locator("blockquote")).to_have_text(ATTACK)
    expect(large).to_contain_text("differs 0.49")
    expect(large).to_contain_text("karras, 8 steps")
    page.wait_for_function(
        "() => [...document.querySelectorAll('dialog figure img')].every((i) => i.naturalWidth === 64)"
    )
    page.screenshot(path=PICTURES / f"timeline_large_{renderer}.png")
    page.keyboard.press("ArrowRight")
    expect(large.locator("h2")).to_have_text("Round 3, on another branch")
    page.keyboard.press("ArrowUp")
    expect(large.locator("h2")).to_have_text("Round 3, waits for an answer")
    expect(large.locator("figure")).to_have_count(6)
    expect(large.get_by_role("button", name="The round after")).to_be_disabled()
    page.keyboard.press("Escape")
    expect(large).to_have_count(0)
    expect(cards.nth(2)).to_be_focused()
    cards.nth(0).click()
    expect(large.locator("h2")).to_have_text("Round 1")
    large.get_by_role("button", name="Close").click()
    assert (
        page.evaluate("() => window.attuneHacked") is None
        and page.locator(".attune-report b >> text=rises").count() == 0
    )
    assert page_errors == []


def test_two_people_rate_a_round_and_the_report_says_how_far_they_agree(
    renderer: str, page: Page, sessions: SessionStore, page_errors: list[str]
):
    state = play(sessions, sessions.create(f"rated {renderer}", "a moon"), "a moon", "darker", 1)
    view = look(page, state.key)
    expect(view.locator(".attune-report-notes")).not_to_contain_text("alpha")
    view.locator(".attune-report-card").first.click()
    large = page.locator("dialog.attune-report-large")
    expect(large.locator(".attune-report-give")).to_have_count(0)
    large.get_by_role("button", name="Rate as").click()
    expect(large.locator(".attune-report-give")).to_have_count(4)
    expect(large.locator(".attune-report-scores").first).to_be_hidden()
    expect(large.locator("figure.chosen")).to_have_count(0)
    boxes = [large.locator(part).first.bounding_box() for part in ("figure > div", ".attune-report-give")]
    assert boxes[1]["height"] < 40 < 3 * boxes[1]["height"] < boxes[0]["height"], "the stars are a line below"
    large.get_by_role("button", name="Picture 1: 3 of 5 stars").click()
    expect(large.get_by_role("status")).to_have_text("Type who rates first.")
    expect(large.get_by_label("Name of who rates")).to_be_focused()
    for who, given in (("Ann", "4152"), ("Bob", "4153")):
        large.get_by_label("Name of who rates").fill(who)
        expect(large.locator(".attune-report-give").first).to_have_text("☆☆☆☆☆")
        for place, stars in enumerate(given):
            # One stop of the Tab key per picture; a digit gives the stars, without leaving the round.
            row = large.locator(".attune-report-give").nth(place)
            row.locator("[tabindex='0']").focus()
            page.keyboard.press(stars)
            expect(row).to_have_text("★" * int(stars) + "☆" * (5 - int(stars)))
            expect(row.locator("button").nth(int(stars) - 1)).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(large.locator("h2")).to_have_text("Round 1")
    assert sessions.ratings(state.key)[(state.last.key, 1)] == {"Ann": 1, "Bob": 1}
    expect(large.get_by_role("status")).to_contain_text("alpha 0.9")
    page.screenshot(path=PICTURES / f"timeline_rating_{renderer}.png")
    page.keyboard.press("Escape")
    expect(view.locator(".attune-report-notes")).to_contain_text("of 2 raters and 4 pictures. The raters agree.")
    assert page_errors == []


def test_two_branches_are_shown_side_by_side(
    renderer: str, page: Page, branched: SessionState, sessions: SessionStore, page_errors: list[str]
):
    view = look(page, branched.key)
    large = page.locator("dialog.attune-report-large")
    compare = view.get_by_role("button", name="Compare branches")
    compare.focus()
    page.keyboard.press("Enter")
    expect(large.locator("figure")).to_have_count(2)
    expect(large.locator("figure").first).to_contain_text("First: round 3")
    expect(large.locator("figure").last).to_contain_text("Second: round 2")
    expect(large).to_contain_text("1 round in common")
    expect(large).to_contain_text("First: 2 rounds of its own")
    expect(large.locator("del").first).to_contain_text("large")
    page.wait_for_function(
        "() => [...document.querySelectorAll('dialog figure img')].every((i) => i.naturalWidth === 64)"
    )
    page.screenshot(path=PICTURES / f"timeline_compare_{renderer}.png")
    page.keyboard.press("Escape")
    expect(large).to_have_count(0)
    expect(compare).to_be_focused()

    # With three ends the second one is chosen; others cannot be.
    state = sessions.create(f"three {renderer}", "a moon")
    state = play(sessions, state, "a moon", "a", 0)
    first = state.last.key
    for turn in range(3):
        state = play(sessions, state, f"a moon, {turn}", "b", turn)
        state = sessions.branch(state.key, state.revision, first) if turn < 2 else state
    view = look(page, state.key)
    view.get_by_role("button", name="Compare branches").click()
    expect(view.locator(".attune-report-card.compared")).to_have_count(1)
    expect(view.locator(".attune-report-card.end")).to_have_count(3)
    page.screenshot(path=PICTURES / f"timeline_choose_{renderer}.png")
    view.locator(".attune-report-card").first.click()
    expect(large).to_have_count(0)
    view.locator(".attune-report-card.end:not(.compared)").last.click()
    expect(large.locator("figure")).to_have_count(2)
    large.get_by_role("button", name="Close").click()
    expect(view.locator(".attune-report-card.compared")).to_have_count(0)
    assert page_errors == []


def test_a_resize_keeps_it_in_the_node_and_makes_pictures_larger(renderer: str, page: Page, branched: SessionState):
    look(page, branched.key, 500, 300)
    wait_for_pictures(page)
    small = page.evaluate(BOXES)
    # A busy machine may not have looked yet what is below the mouse when it is pressed: then the canvas moves instead.
    for _ in range(4):
        x, y = page.evaluate(CORNER)
        page.mouse.move(x, y)
        page.wait_for_timeout(300)
        page.mouse.down()
        page.mouse.move(x + 150, y + 50, steps=5)
        page.mouse.move(x + 320, y + 110, steps=5)
        page.mouse.up()
        page.wait_for_timeout(1000)
        if page.evaluate(BOXES)["width"] > small["width"] + 200:
            break
    large = page.evaluate(BOXES)
    assert large["lead"] > small["lead"] + 20 and large["height"] > small["height"] + 80
    for boxes in (small, large):
        assert boxes["rail"] and boxes["right"] and boxes["bottom"], boxes
    page.screenshot(path=PICTURES / f"timeline_resized_{renderer}.png")


def test_it_follows_the_session_without_a_run(
    page: Page, host: HostServer, sessions: SessionStore, page_errors: list[str]
):
    state = play(sessions, sessions.create("followed", "a moon"), "a moon", "darker", 1)
    key = propose(sessions, state, "a dark moon")
    view = look(page, state.key)
    expect(view.locator(".attune-report-card.open")).to_have_count(1)
    told = {"key": state.key, "revision": state.revision, "round": key, "liked": [2], "accepted": True}
    host.post("/attune/refinement/commit", told)
    expect(view.locator(".attune-report-card.accepted")).to_have_count(1)
    expect(view.locator(".attune-report-name")).to_contain_text("accepted")
    # A reward to judge by, and how many rounds are enough, count at once.
    page.evaluate(
        f"""() => {{
            const widget = {NODE}.widgets.find(({{ name }}) => name === "judge");
            widget.value = "differs";
            widget.callback("differs");
        }}"""
    )
    expect(view.locator(".attune-report-level").first).to_contain_text("differs")
    host.post("/attune/refinement/delete", {"key": state.key})
    expect(view).to_contain_text("The session is deleted.")
    assert not view.locator("img").count() and page.evaluate(f"() => {NODE}.properties.attune_timeline ?? null") is None
    assert page_errors == []


def test_fifty_rounds_are_light_and_scroll_inside_the_node(page: Page, sessions: SessionStore, page_errors: list[str]):
    """The chosen pictures are red in all rounds, which fairness is to tell."""
    state = sessions.create("fifty", "a moon")
    for turn in range(50):
        state = play(sessions, state, f"a moon, try {turn}", f"again {turn}", 0, rating=1 + turn % 5)
    view = look(page, state.key)
    expect(view.locator(".attune-report-card")).to_have_count(50)
    expect(view.locator(".attune-report-card").last).to_be_in_viewport()
    expect(view.locator(".attune-report-notes .warn").last).to_contain_text("Choices lean to one look: ")
    expect(view.locator(".attune-report-notes")).to_contain_text("red, 100 % (25 % of what was shown)")
    assert page.evaluate("() => document.querySelectorAll('.attune-report *').length") < 1500
    loaded = "(all) => all.filter((image) => image.complete && image.naturalWidth).length"
    assert view.locator("img").evaluate_all(loaded) < 100, "what is out of sight is not asked for"
    rail = view.locator(".attune-report-rail")
    before = page.evaluate("() => [window.app.canvas.ds.scale, ...window.app.canvas.ds.offset]")
    end = rail.evaluate("(rail) => rail.scrollLeft")
    rail.hover()
    page.mouse.wheel(0, -400)
    page.wait_for_function("(end) => document.querySelector('.attune-report-rail').scrollLeft < end - 200", arg=end)
    assert page.evaluate("() => [window.app.canvas.ds.scale, ...window.app.canvas.ds.offset]") == before
    view.locator(".attune-report-card").last.focus()
    page.keyboard.press("Home")
    expect(view.locator(".attune-report-card").first).to_be_in_viewport()
    page.screenshot(path=PICTURES / "timeline_fifty.png")
    assert page_errors == []
