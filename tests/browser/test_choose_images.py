"""Choose Images in a real page: choices by keys, in the node and large; reload, two tabs, a server that is away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect

from attune.tests.browser.conftest import READY_MILLISECONDS
from attune.tests.host.graphs import CHECKPOINT, write_checkpoint
from attune.tests.hosting import HostServer

PICTURES = Path(__file__).resolve().parents[2] / ".host" / "screenshots"
RUN_MILLISECONDS = 300_000
NODE = "window.app.graph.nodes.find((node) => node.type === 'AttuneChooseImages')"
PAIRS = 4
# A small graph of the page itself: two prompts, four pictures each.
BUILD = """async ([checkpoint, profile, mode]) => {
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
    const wire = (from, slot, to, name) => from.connect(slot, to, to.inputs.findIndex((each) => each.name === name));
    const loader = add("CheckpointLoaderSimple", [0, 0], { ckpt_name: checkpoint });
    const size = add("EmptyLatentImage", [0, 200], { width: 64, height: 64, batch_size: 4 });
    const lines = add("AttunePromptLines", [0, 400], {
        text: "a cat <b>here</b>\\na rose <img src=x onerror=window.attuneHacked=1>",
    });
    const positive = add("CLIPTextEncode", [420, 0]);
    const negative = add("CLIPTextEncode", [420, 200]);
    const sampler = add("KSampler", [420, 400], { seed: 5, control_after_generate: "fixed", steps: 2, cfg: 1 });
    const decode = add("VAEDecode", [420, 800]);
    const taste = add("AttunePreferenceProfile", [0, 800], { new_name: profile });
    const choose = add("AttuneChooseImages", [900, 0], { mode });
    const preview = add("PreviewImage", [1600, 0]);
    wire(loader, 1, positive, "clip");
    wire(loader, 1, negative, "clip");
    wire(lines, 1, positive, "text");
    wire(loader, 0, sampler, "model");
    wire(positive, 0, sampler, "positive");
    wire(negative, 0, sampler, "negative");
    wire(size, 0, sampler, "latent_image");
    wire(sampler, 0, decode, "samples");
    wire(loader, 2, decode, "vae");
    wire(taste, 0, choose, "profile");
    wire(decode, 0, choose, "images");
    wire(lines, 1, choose, "prompts");
    wire(choose, 0, preview, "images");
    // As the host opens a file: every way to draw nodes knows of all sizes and values then.
    await app.loadGraphData(app.graph.serialize(), true, true, app.extensionManager.workflow.activeWorkflow);
}"""
LOOK = f"""() => {{
    const node = {NODE};
    node.setSize([Math.max(node.size[0], 540), Math.max(node.size[1], 900)]);
    const {{ ds }} = window.app.canvas;
    ds.scale = 0.85;
    ds.offset = [240 - node.pos[0], 110 - node.pos[1]];
    window.app.canvas.setDirty(true, true);
}}"""
OPEN = "(graph) => window.app.loadGraphData(graph, true, true, window.app.extensionManager.workflow.activeWorkflow)"


def build(page: Page, host: HostServer, profile: str, mode: str = "pairs") -> None:
    """The graph, its node in view, for a profile of this test's own, and its first run."""
    write_checkpoint(host)
    page.evaluate(BUILD, [CHECKPOINT, profile, mode])
    expect(view(page)).to_have_count(1)
    page.evaluate(LOOK)
    expect(view(page)).to_contain_text("Press Run")
    run(page)


def view(page: Page) -> Locator:
    return page.locator(".attune-choose")


def large(page: Page) -> Locator:
    return page.locator("dialog.attune-choose-large")


def keep_picture(page: Page, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")


def wait_for_queue(page: Page) -> None:
    page.wait_for_function(
        "async () => { const { api } = await import('/scripts/api.js');"
        " const queue = await (await api.fetchApi('/queue')).json();"
        " return queue.queue_running.length + queue.queue_pending.length === 0; }",
        timeout=RUN_MILLISECONDS,
    )


def run(page: Page) -> None:
    """Press Run and wait until the queue is empty."""
    with page.expect_response(lambda response: response.url.endswith("/prompt")):
        page.get_by_test_id("queue-button").get_by_role("button").first.click()
    wait_for_queue(page)


def handed_on(host: HostServer) -> dict[str, Any] | None:
    """What the newest run showed: {"text": the node's report, "images": how many chosen pictures}."""
    newest = max(host.get("/history").values(), key=lambda record: record["prompt"][0])
    outputs = newest["outputs"].values()
    told = [output for output in outputs if "attune_choose" in output]
    images = [output["images"] for output in outputs if "images" in output]
    return {"text": told[0]["text"][0], "images": len(images[0]) if images else 0} if told else None


def wait_for_run(page: Page, host: HostServer, text: str, images: int) -> None:
    """Until the newest run has handed on as much."""
    expected = {"text": text, "images": images}
    for _ in range(600):
        if handed_on(host) == expected:
            return
        page.wait_for_timeout(100)
    assert handed_on(host) == expected


def wait_for_pictures(place: Locator) -> None:
    expect(place.locator(".attune-choose-stage img").first).to_be_visible()
    handle = place.element_handle()
    place.page.wait_for_function(
        "(root) => [...root.querySelectorAll('.attune-choose-stage img')]"
        ".every((i) => i.complete && i.naturalWidth === 64)",
        arg=handle,
    )


def press(place: Locator, key: str, then: str) -> None:
    """A key that answers, once its pictures are there."""
    wait_for_pictures(place)
    place.page.keyboard.press(key)
    expect(place.locator(".attune-choose-progress")).to_contain_text(then)


def standing(host: HostServer, page: Page) -> list[Any]:
    """What the server has of the node's questions: place of the chosen picture, "tie", "skip", stars, or None."""
    kept = page.evaluate(f"() => {NODE}.properties.attune_choose")
    body = {"profile": kept["profile"], "questions": kept["questions"]}
    found = []
    for question in host.post("/attune/preferences/questions", body)["questions"]:
        decision = question["decision"]
        hashes = [picture["hash"] for picture in question["pictures"]]
        if decision is None:
            found.append(None)
        elif decision["stars"]:
            found.append([decision["stars"].get(name) for name in hashes])
        else:
            choice = decision["choice"]
            found.append(hashes.index(choice) if choice in hashes else choice)
    return found


def wait_for(host: HostServer, page: Page, expected: list[Any]) -> None:
    for _ in range(100):
        if standing(host, page) == expected:
            return
        page.wait_for_timeout(100)
    assert standing(host, page) == expected


def test_four_choices_by_keys_and_what_the_next_run_hands_on(
    renderer: str, page: Page, host: HostServer, page_errors: list[str]
):  # fmt: skip
    build(page, host, f"keys {renderer}")
    expect(view(page)).to_contain_text(f"0 of {PAIRS}", timeout=READY_MILLISECONDS)
    expect(view(page)).to_contain_text("a cat <b>here</b>")
    wait_for_run(page, host, "0 of 4 questions answered. 4 waiting for you.", 0)
    wait_for_pictures(view(page))
    keep_picture(page, f"choose_pair_{renderer}")

    view(page).locator(".attune-choose-words").click()
    expect(view(page)).to_be_focused()
    before = page.evaluate("() => JSON.stringify([...window.app.canvas.ds.offset, window.app.graph.nodes.length])")
    press(view(page), "2", f"1 of {PAIRS}")
    press(view(page), "Space", f"2 of {PAIRS}")
    press(view(page), "z", f"1 of {PAIRS}")
    wait_for(host, page, [1, None, None, None])
    page.keyboard.press("Delete")
    after = page.evaluate("() => JSON.stringify([...window.app.canvas.ds.offset, window.app.graph.nodes.length])")
    assert after == before, "the keys are the node's alone"

    page.reload()
    page.wait_for_function(f"() => window.app?.graph?.nodes?.length && {NODE}", timeout=RUN_MILLISECONDS)
    page.evaluate(LOOK)
    expect(view(page)).to_contain_text(f"1 of {PAIRS}")
    view(page).locator(".attune-choose-words").click()
    page.keyboard.press("Enter")
    expect(large(page)).to_be_visible()
    wait_for_pictures(large(page))
    keep_picture(page, f"choose_large_{renderer}")
    press(large(page), "ArrowLeft", f"2 of {PAIRS}")
    press(large(page), "s", f"3 of {PAIRS}")
    press(large(page), "1", f"4 of {PAIRS}")
    wait_for(host, page, [1, 0, "skip", 0])
    expect(large(page)).to_contain_text("All 4 answered")
    expect(large(page).get_by_role("button", name="Run again")).to_be_focused()
    expect(large(page)).to_contain_text("3 chosen")
    keep_picture(page, f"choose_done_{renderer}")
    with page.expect_response(lambda response: response.url.endswith("/prompt")):
        page.keyboard.press("Enter")
    expect(large(page)).to_have_count(0)
    wait_for_run(page, host, "4 of 4 questions answered.", 3)
    expect(view(page).get_by_role("button", name="Run again")).to_be_hidden()
    expect(view(page).locator(".attune-choose-card")).to_have_count(PAIRS)
    expect(view(page).locator(".won")).to_have_count(3)
    keep_picture(page, f"choose_answers_{renderer}")

    # Another word on the first question; the next run follows it.
    view(page).locator(".attune-choose-card").first.click()
    wait_for_pictures(view(page))
    view(page).get_by_role("button", name="No difference").click()
    wait_for(host, page, ["tie", 0, "skip", 0])
    with page.expect_response(lambda response: response.url.endswith("/prompt")):
        view(page).get_by_role("button", name="Run again").click()
    wait_for_run(page, host, "4 of 4 questions answered.", 2)
    assert page.evaluate("() => window.attuneHacked") is None
    assert page.locator(".attune-choose b, img[onerror]").count() == 0
    assert page_errors == []


def test_two_pages_at_once_agree(page: Page, host: HostServer, page_errors: list[str]):
    build(page, host, "two pages")
    expect(view(page)).to_contain_text(f"0 of {PAIRS}", timeout=READY_MILLISECONDS)
    other = page.context.new_page()
    other.on("pageerror", lambda error: page_errors.append(str(error)))
    other.goto(host.url, timeout=READY_MILLISECONDS)
    other.wait_for_function("window.app?.graph && window.app?.extensionManager", timeout=READY_MILLISECONDS)
    other.evaluate(OPEN, page.evaluate("() => window.app.graph.serialize()"))
    other.evaluate(LOOK)
    expect(view(other)).to_contain_text(f"0 of {PAIRS}", timeout=READY_MILLISECONDS)
    for place in (view(page), view(other)):
        place.locator(".attune-choose-words").click()

    press(view(page), "1", f"1 of {PAIRS}")
    expect(view(other)).to_contain_text(f"1 of {PAIRS}")
    press(view(other), "2", f"2 of {PAIRS}")
    expect(view(page)).to_contain_text(f"2 of {PAIRS}")
    # Both answer the third question at the same moment: the last word holds, and both show it.
    wait_for_pictures(view(page))
    wait_for_pictures(view(other))
    page.keyboard.press("1")
    other.keyboard.press("2")
    for place in (view(page), view(other)):
        expect(place.locator(".attune-choose-note")).to_contain_text("Saved.")
        expect(place.locator(".attune-choose-progress")).not_to_contain_text(f"2 of {PAIRS}")
    page.wait_for_timeout(500)
    held = standing(host, page)
    assert held[:2] == [0, 1] and held[2] in (0, 1)
    shown = [tab.locator(".attune-choose-progress").text_content() for tab in (view(page), view(other))]
    assert shown[0] == shown[1]
    if held[3] is None:
        for place in (view(page), view(other)):
            place.get_by_role("button", name="Answers").click()
    marks = [
        tab.locator(".attune-choose-row > span").evaluate_all("(all) => all.map((one) => one.className)")
        for tab in (view(page), view(other))
    ]
    assert marks[0] == marks[1] and marks[0].count("won") == sum(value in (0, 1) for value in held)

    # What one takes back the other asks again.
    answered = sum(value is not None for value in held)
    view(other).get_by_role("button", name="Undo").click()
    expect(view(page).locator(".attune-choose-progress")).not_to_have_text(shown[0] if answered == PAIRS else "")
    page.wait_for_timeout(500)
    again = standing(host, page)
    for place in (view(page), view(other)):
        done = sum(value is not None for value in again)
        expect(place.locator(".attune-choose-progress")).to_contain_text(f"{done} of {PAIRS}")
    assert page_errors == []


def test_best_and_stars_and_a_server_that_is_away(page: Page, host: HostServer, page_errors: list[str]):
    build(page, host, "best", "best of each prompt")
    expect(view(page)).to_contain_text("0 of 2", timeout=READY_MILLISECONDS)
    view(page).locator(".attune-choose-words").click()
    wait_for_pictures(view(page))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(view(page).locator(".attune-choose-cell").nth(1)).to_have_class("attune-choose-cell new marked")
    keep_picture(page, "choose_best")
    page.route("**/attune/preferences/decide", lambda route: route.abort())
    press(view(page), "Enter", "1 of 2, 1 not saved")
    expect(view(page)).to_contain_text("The server does not answer; your choice is not saved yet.")
    keep_picture(page, "choose_away")
    page.unroute("**/attune/preferences/decide")
    press(view(page), "4", "2 of 2")
    wait_for(host, page, [1, 3])
    expect(view(page)).to_contain_text("Saved. Run again hands your choices on.")

    page.evaluate(f"() => ({NODE}.widgets.find((widget) => widget.name === 'mode').value = 'stars')")
    run(page)
    expect(view(page)).to_contain_text("0 of 2", timeout=READY_MILLISECONDS)
    view(page).locator(".attune-choose-words").click()
    for stars in "352":
        wait_for_pictures(view(page))
        page.keyboard.press(stars)
    wait_for(host, page, [[3, 5, 2, None], None])
    keep_picture(page, "choose_stars")
    press(view(page), "4", "1 of 2")
    page.keyboard.press("Enter")
    wait_for_pictures(large(page))
    keep_picture(page, "choose_stars_large")
    press(large(page), "s", "2 of 2")
    page.keyboard.press("Escape")
    expect(view(page)).to_be_focused()
    wait_for(host, page, [[3, 5, 2, 4], "skip"])
    page.route(
        "**/attune/preferences/decide", lambda route: route.fulfill(status=400, json={"error": "The disk is full."})
    )
    view(page).locator(".attune-choose-card").nth(1).click()
    wait_for_pictures(view(page))
    page.keyboard.press("1")
    expect(view(page)).to_contain_text("The disk is full.")
    page.unroute("**/attune/preferences/decide")
    wait_for(host, page, [[3, 5, 2, 4], "skip"])
    assert page_errors == []


def test_inside_a_subgraph_it_asks_and_hands_on(page: Page, host: HostServer, page_errors: list[str]):
    write_checkpoint(host)
    page.evaluate(BUILD, [CHECKPOINT, "inside", "pairs"])
    page.evaluate(
        """() => {
            const { graph, canvas } = window.app;
            const inner = graph.nodes.filter((node) => /^Attune(Choose|PreferenceP)/.test(node.type));
            const { subgraph, node } = graph.convertToSubgraph(new Set(inner));
            canvas.openSubgraph(subgraph, node);
        }"""
    )
    inner = "window.app.canvas.graph.nodes.find((node) => node.type === 'AttuneChooseImages')"
    page.evaluate(LOOK.replace(NODE, inner))
    expect(view(page)).to_contain_text("Press Run")
    run(page)
    expect(view(page)).to_contain_text(f"0 of {PAIRS}", timeout=READY_MILLISECONDS)
    wait_for_run(page, host, "0 of 4 questions answered. 4 waiting for you.", 0)
    view(page).locator(".attune-choose-words").click()
    press(view(page), "2", f"1 of {PAIRS}")
    press(view(page), "1", f"2 of {PAIRS}")
    keep_picture(page, "choose_subgraph")
    press(view(page), "1", f"3 of {PAIRS}")
    press(view(page), "s", f"4 of {PAIRS}")
    view(page).get_by_role("button", name="Run again").click()
    wait_for_run(page, host, "4 of 4 questions answered.", 3)
    assert page_errors == []
