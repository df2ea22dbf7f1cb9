"""A/B Test in a real page: votes by keys, undo, reload, restart of the page, full screen, the result; both "
"renderers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from attune.tests.host.graphs import CHECKPOINT, write_checkpoint
from attune.tests.hosting import HostServer

PICTURES = Path(__file__).resolve().parents[2] / ".host" / "screenshots"
RUN_MILLISECONDS = 300_000
NODE = "window.app.graph.nodes.find((node) => node.type === 'AttuneABTest')"
PAIRS = 4
# A small graph of the page itself: two checkpoints as the two models.
BUILD = """async ([first, second]) => {
    const { LiteGraph, app } = window;
    app.graph.clear();
    const add = (type, position, values = {}) => {
        const node = LiteGraph.createNode(type);
        app.graph.add(node);
        node.pos = position;
        const widget = (name) => node.widgets.find((each) => each.name === name);
        for (const [name, value] of Object.entries(values)) widget(name).value = value;
        return node;
    };
    const one = add("CheckpointLoaderSimple", [0, 0], { ckpt_name: first });
    const two = add("CheckpointLoaderSimple", [0, 200], { ckpt_name: second });
    const size = add("EmptyLatentImage", [0, 400], { width: 64, height: 64 });
    const reward = add("AttuneImageStatisticsReward", [0, 600], { statistic: "brightness" });
    const test = add("AttuneABTest", [420, 0], {
        prompts: "a cat <b>here</b>\\na rose <img src=x onerror=window.attuneHacked=1>",
        images_per_prompt: 2, steps: 2, cfg: 1, name_a: "<i>base</i>", name_b: "other",
    });
    const preview = add("PreviewImage", [1100, 0]);
    const input = (name) => test.inputs.findIndex((each) => each.name === name);
    one.connect(0, test, input("model_a"));
    two.connect(0, test, input("model_b"));
    one.connect(1, test, input("clip"));
    one.connect(2, test, input("vae"));
    size.connect(0, test, input("latent"));
    reward.connect(0, test, input("reward"));
    test.connect(0, preview, 0);
    // As the host opens a file: every way to draw nodes knows of all sizes and values then.
    await app.loadGraphData(app.graph.serialize(), true, true, app.extensionManager.workflow.activeWorkflow);
}"""
LOOK = f"""() => {{
    const node = {NODE};
    node.setSize([Math.max(node.size[0], 520), Math.max(node.size[1], 1000)]);
    const {{ ds }} = window.app.canvas;
    ds.scale = 0.75;
    ds.offset = [240 - node.pos[0], 130 - node.pos[1]];
    window.app.canvas.setDirty(true, true);
}}"""
OTHER = "ab_browser.safetensors"
VOTES = "**/attune/ab/vote"


@pytest.fixture(scope="module", autouse=True)
def checkpoints(host: HostServer) -> None:
    write_checkpoint(host)
    write_checkpoint(host, OTHER, seed=8)


@pytest.fixture
def graph(renderer: str, page: Page) -> Page:
    """The page with the graph, its node in view, without votes of earlier tests."""
    page.evaluate(BUILD, [CHECKPOINT, OTHER])
    expect(page.locator(".attune-ab")).to_have_count(1)
    page.evaluate(LOOK)
    return page


def view(page: Page) -> Locator:
    return page.locator(".attune-ab")


def large(page: Page) -> Locator:
    return page.locator("dialog.attune-ab-large")


def progress(page: Page) -> Locator:
    return view(page).locator(".attune-ab-progress")


def keep_picture(page: Page, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")


def current_test(page: Page) -> str:
    return page.evaluate(f"() => {NODE}.properties.attune_ab ?? ''")


def run(page: Page) -> None:
    """Press Run and wait until the queue is empty."""
    with page.expect_response(lambda response: response.url.endswith("/prompt")):
        page.get_by_test_id("queue-button").get_by_role("button").first.click()
    page.wait_for_function(
        "async () => { const { api } = await import('/scripts/api.js');"
        " const queue = await (await api.fetchApi('/queue')).json();"
        " return queue.queue_running.length + queue.queue_pending.length === 0; }",
        timeout=RUN_MILLISECONDS,
    )


def begin(page: Page, host: HostServer) -> None:
    """Run, and take back the votes of earlier tests: they are on the same pictures."""
    run(page)
    expect(view(page).locator(".attune-ab-top")).to_be_visible(timeout=RUN_MILLISECONDS)
    host.post("/attune/ab/forget", {"test": current_test(page)})
    run(page)
    expect(progress(page)).to_contain_text(f"0 of {PAIRS} pairs judged")
    wait_for_pictures(page)


def wait_for_pictures(page: Page) -> None:
    """Until votes are taken. An image has its earlier picture's size while the next one is fetched."""
    page.wait_for_function(
        "() => [...document.querySelectorAll('.attune-ab .attune-ab-stage img')]"
        ".every((i) => i.complete && i.naturalWidth === 64)"
    )


def press(page: Page, *keys: str) -> None:
    for key in keys:
        wait_for_pictures(page)
        before = progress(page).text_content()
        page.keyboard.press(key)
        expect(progress(page)).not_to_have_text(before)


def choices(host: HostServer, page: Page) -> list[Any]:
    return [pair["choice"] for pair in host.get(f"/attune/ab/test/{current_test(page)}")["pairs"]]


def wait_for_choices(host: HostServer, page: Page, expected: list[Any]) -> None:
    for _ in range(100):
        if choices(host, page) == expected:
            return
        page.wait_for_timeout(50)
    assert choices(host, page) == expected


def test_voting_by_keys_undo_reload_and_result(graph: Page, host: HostServer, renderer: str, page_errors: list[str]):
    page = graph
    expect(view(page)).to_contain_text("Press Run")
    begin(page, host)
    assert "base" not in view(page).inner_text() and "other" not in view(page).inner_text()
    keep_picture(page, f"ab_vote_{renderer}")

    view(page).locator(".attune-ab-words").click()
    expect(view(page)).to_be_focused()
    press(page, "ArrowLeft", "Space", "ArrowRight")
    wait_for_choices(host, page, ["left", "tie", "right", None])
    expect(view(page)).to_contain_text("Saved. Press Run to hand the result on.")
    press(page, "z")
    wait_for_choices(host, page, ["left", "tie", None, None])

    page.reload()
    page.wait_for_function(f"() => window.app?.graph?.nodes?.length && {NODE}", timeout=RUN_MILLISECONDS)
    page.evaluate(LOOK)
    expect(progress(page)).to_contain_text(f"2 of {PAIRS} pairs judged")
    view(page).locator(".attune-ab-words").click()
    press(page, "z")
    wait_for_choices(host, page, ["left", None, None, None])
    press(page, "Space", "ArrowRight", "ArrowRight")
    expect(progress(page)).to_contain_text(f"All {PAIRS} pairs judged")
    wait_for_choices(host, page, ["left", "tie", "right", "right"])

    result = view(page).locator(".attune-ab-result")
    expect(result).to_contain_text(f"of {PAIRS} votes")
    expect(result).to_contain_text("<i>base</i>")
    expect(result.locator(".attune-ab-decided")).to_have_count(PAIRS)
    standing = host.get(f"/attune/ab/result/{current_test(page)}")["standing"]
    expect(result).to_contain_text(f"<i>base</i> {standing['a']} : {standing['b']} other, 1 tie")
    won = result.locator(".attune-ab-decided button.won")
    expect(won).to_have_count(3)
    keep_picture(page, f"ab_result_{renderer}")
    run(page)
    expect(view(page)).not_to_contain_text("Press Run to hand")
    assert page.evaluate("() => window.attuneHacked") is None
    assert page.locator(".attune-ab b, .attune-ab i, img[onerror]").count() == 0
    assert page_errors == []


def test_buttons_full_screen_and_starting_over(graph: Page, host: HostServer, renderer: str, page_errors: list[str]):
    page = graph
    begin(page, host)
    view(page).get_by_role("button", name="Left is better").click()
    wait_for_choices(host, page, ["left", None, None, None])
    wait_for_pictures(page)
    view(page).locator(".attune-ab-picture").first.click()
    expect(large(page)).to_be_visible()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.attune-ab-large img')].every((i) => i.complete && i.naturalWidth === 64)"
    )
    expect(large(page)).to_contain_text(f"1 of {PAIRS} pairs judged")
    keep_picture(page, f"ab_large_{renderer}")
    page.keyboard.press("ArrowRight")
    expect(large(page)).to_contain_text(f"2 of {PAIRS} pairs judged")
    page.keyboard.press("z")
    expect(large(page)).to_contain_text(f"1 of {PAIRS} pairs judged")
    page.keyboard.press("Escape")
    expect(large(page)).to_have_count(0)
    expect(view(page)).to_be_focused()
    wait_for_choices(host, page, ["left", None, None, None])

    view(page).get_by_role("button", name="Result", exact=True).click()
    decided = view(page).locator(".attune-ab-decided")
    expect(decided).to_have_count(1)
    decided.get_by_role("button").first.click()
    expect(large(page)).to_contain_text("preferred")
    keep_picture(page, f"ab_decided_{renderer}")
    page.keyboard.press("Escape")
    view(page).get_by_role("button", name="Go on voting").click()
    wait_for_pictures(page)

    view(page).get_by_role("button", name="Start over").click()
    expect(view(page)).to_contain_text("Really?")
    assert choices(host, page)[0] == "left"
    view(page).get_by_role("button", name="Really?").click()
    expect(progress(page)).to_contain_text(f"0 of {PAIRS} pairs judged")
    wait_for_choices(host, page, [None] * PAIRS)
    assert page_errors == []


def test_a_reward_votes_and_a_person_takes_over(graph: Page, host: HostServer, renderer: str, page_errors: list[str]):
    page = graph
    voter = f"(who) => {NODE}.widgets.find((widget) => widget.name === 'voter').value = who"
    page.evaluate(voter, "reward")
    run(page)
    expect(view(page)).to_contain_text(f"{PAIRS} pairs, judged by a reward", timeout=RUN_MILLISECONDS)
    expect(view(page).locator(".attune-ab-decided")).to_have_count(PAIRS)
    expect(view(page)).to_contain_text("set voter to “person”")
    expect(view(page).get_by_role("button", name="Undo")).to_be_hidden()
    keep_picture(page, f"ab_reward_{renderer}")
    page.evaluate(voter, "person")
    begin(page, host)
    assert page_errors == []


def test_keys_and_the_node_do_not_reach_the_page(graph: Page, host: HostServer, page_errors: list[str]):
    """Space would begin to move the canvas; removing the node ends everything of it."""
    page = graph
    begin(page, host)
    page.evaluate(f"() => window.app.canvas.selectNode({NODE})")
    view(page).locator(".attune-ab-words").click()
    place = "() => JSON.stringify([...window.app.canvas.ds.offset, window.app.graph.nodes.length])"
    before = page.evaluate(place)
    press(page, "Space")
    page.keyboard.press("Delete")
    page.keyboard.press("x")
    assert page.evaluate(place) == before
    page.keyboard.press("Enter")
    expect(large(page)).to_be_visible()
    page.evaluate("() => (window.attuneOld = document.querySelector('.attune-ab'))")
    page.evaluate(f"() => window.app.graph.remove({NODE})")
    expect(large(page)).to_have_count(0)
    expect(view(page)).to_have_count(0)
    page.evaluate("() => window.attuneOld.querySelectorAll('button').forEach((button) => button.click())")
    page.wait_for_timeout(300)
    assert page_errors == []


def test_a_vote_that_cannot_be_saved_is_not_shown_as_saved(graph: Page, host: HostServer, page_errors: list[str]):
    page = graph
    begin(page, host)
    page.route(VOTES, lambda route: route.fulfill(status=400, body=json.dumps({"error": "The disk is full."})))
    view(page).get_by_role("button", name="Right is better").click()
    expect(view(page)).to_contain_text("The disk is full.")
    expect(progress(page)).to_contain_text(f"0 of {PAIRS} pairs judged")
    page.unroute(VOTES)
    wait_for_pictures(page)
    # The next pair is looked at by now, and stays.
    view(page).get_by_role("button", name="Right is better").click()
    wait_for_choices(host, page, [None, "right", None, None])
    assert page_errors == []


def away(route: Route) -> None:
    """No answer, as when the server is gone."""
    route.abort()


def test_votes_that_are_not_answered_are_kept_and_sent_again(graph: Page, host: HostServer, page_errors: list[str]):
    """With the next vote that gets through, after a while by themselves, and when the page is closed."""
    page = graph
    begin(page, host)
    test = current_test(page)
    page.route(VOTES, away)
    view(page).locator(".attune-ab-words").click()
    page.keyboard.press("ArrowLeft")
    expect(view(page)).to_contain_text("The server does not answer; your vote is not saved yet.")
    expect(progress(page)).to_contain_text(f"1 of {PAIRS} pairs judged, 1 not saved")
    press(page, "Space")
    expect(view(page)).to_contain_text("2 votes are not saved yet.")
    keep_picture(page, "ab_not_saved")
    assert choices(host, page) == [None] * PAIRS
    page.unroute(VOTES)
    press(page, "ArrowRight")
    wait_for_choices(host, page, ["left", "tie", "right", None])
    expect(view(page)).to_contain_text("Saved. Press Run to hand the result on.")
    expect(progress(page)).not_to_contain_text("not saved")

    page.route(VOTES, away)
    press(page, "z")
    expect(view(page)).to_contain_text("your vote is not saved yet.")
    assert choices(host, page)[2] == "right"
    page.unroute(VOTES)
    expect(view(page)).to_contain_text("Saved.", timeout=15_000)
    assert choices(host, page) == ["left", "tie", None, None]

    page.route(VOTES, away)
    press(page, "ArrowLeft")
    expect(view(page)).to_contain_text("your vote is not saved yet.")
    page.unroute(VOTES)
    page.goto("about:blank")
    for _ in range(100):
        found = [pair["choice"] for pair in host.get(f"/attune/ab/test/{test}")["pairs"]]
        if found == ["left", "tie", "left", None]:
            break
        page.wait_for_timeout(50)
    assert found == ["left", "tie", "left", None]
    assert page_errors == []
