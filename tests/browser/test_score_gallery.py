"""Score Images in a real page: its gallery sorts, enlarges and discards, with classic nodes and with Nodes 2.0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

PICTURES = Path(__file__).resolve().parents[2] / ".host" / "screenshots"
RUN_MILLISECONDS = 300_000
IMAGES = 8
NODE = "window.app.graph.nodes.find((node) => node.type === 'AttuneScoreImages')"
CHOICE = f"() => {NODE}.widgets.find((widget) => widget.name === 'discarded').value"
ACTIVE = "window.app.extensionManager.workflow.activeWorkflow?.path"
OPEN_TEMPLATE = """async () => {
    const { api } = await import("/scripts/api.js");
    const template = await (await api.fetchApi("/workflow_templates/ComfyUI-Attune/score_images.json")).json();
    await window.app.loadGraphData(template, true, true, "score_images");
}"""
# Behind the output `kept`, so that a run shows what goes on from there.
ADD_PREVIEW = f"""() => {{
    const preview = window.LiteGraph.createNode("PreviewImage");
    preview.title = "Kept";
    window.app.graph.add(preview);
    preview.pos = [2100, 40];
    const node = {NODE};
    node.connect(node.outputs.findIndex((output) => output.name === "kept"), preview, 0);
    return String(preview.id);
}}"""
LOOK = f"""() => {{
    const node = {NODE};
    const {{ ds }} = window.app.canvas;
    ds.scale = 1;
    ds.offset = [120 - node.pos[0], 60 - node.pos[1]];
    window.app.canvas.setDirty(true, true);
}}"""
# What the server sends when the node has run. Every picture has an address of its own, which the browser has not seen.
SEND_MANY = f"""async ([count, file]) => {{
    const {{ api }} = await import("/scripts/api.js");
    const id = String({NODE}.id);
    const images = Array.from({{ length: count }}, (_, index) => ({{
        index, rank: index + 1, hash: `f${{index}}`, prompt: "<img src=x onerror=window.attuneHacked=1>",
        width: 64, height: 64, file, thumbnail: {{ ...file, subfolder: file.subfolder + "/.".repeat(index) }},
        scores: [-index], labels: [String(-index)], percentiles: [null],
    }}));
    const rewards = [{{ name: "<b>plain</b>", formula: "", higher_is_better: true, calibrated: false }}];
    const output = {{ attune_gallery: [{{ rewards, images }}] }};
    api.dispatchCustomEvent("executed", {{ node: id, display_node: id, output, prompt_id: "of another page" }});
}}"""


@pytest.fixture
def template(renderer: str, page: Page) -> Page:
    """The page with score_images open, its node in view."""
    open_template(page)
    assert page.locator(".lg-node").count() == 0 or renderer == "Nodes 2.0"
    return page


def open_template(page: Page) -> None:
    """As the template browser does it; that one itself is opened in test_live_training."""
    page.evaluate(OPEN_TEMPLATE)
    expect(page.locator(".attune-gallery")).to_have_count(1)
    page.evaluate(LOOK)


def switch_to(page: Page, path: str) -> None:
    """Press the tab of an open workflow."""
    name = path.removeprefix("workflows/").removesuffix(".json")
    page.locator(".workflow-tabs").get_by_text(name, exact=True).click()
    page.wait_for_function(f"(path) => {ACTIVE} === path", arg=path)
    expect(page.locator(".attune-gallery")).to_have_count(1)


def press_run(page: Page) -> None:
    page.get_by_test_id("queue-button").get_by_role("button").first.click()


def run(page: Page) -> None:
    """Press Run and wait for the pictures."""
    press_run(page)
    expect(page.locator(".attune-gallery-card")).to_have_count(IMAGES, timeout=RUN_MILLISECONDS)
    page.evaluate(LOOK)


def keep_picture(page: Page, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")


def ranks(page: Page) -> list[int]:
    return [int(text) for text in page.locator(".attune-gallery-rank").all_text_contents()]


def numbers(page: Page) -> list[int]:
    """The images' numbers, in the order in which they are shown."""
    return page.locator(".attune-gallery-card").evaluate_all(
        "(cards) => cards.map((card) => Number(card.dataset.index))"
    )


def scores(page: Page) -> list[float]:
    return [float(text) for text in page.locator(".attune-bar > span:nth-of-type(1)").all_text_contents()]


def enlarged(page: Page) -> Any:
    return page.locator("dialog.attune-enlarged")


def test_images_are_ranked_sorted_and_enlarged(template: Page, renderer: str, page_errors: list[str]):
    page = template
    gallery = page.locator(".attune-gallery")
    expect(gallery).to_contain_text("Press Run")
    run(page)
    expect(gallery.locator(".attune-gallery-total")).to_have_text("8 images")
    page.wait_for_function(
        "() => document.querySelector('.attune-gallery-picture img').naturalWidth === 64", timeout=RUN_MILLISECONDS
    )
    keep_picture(page, f"score_gallery_{renderer}")

    assert ranks(page) == list(range(1, IMAGES + 1))
    best_first = numbers(page)
    assert scores(page) == sorted(scores(page), reverse=True)
    gallery.get_by_role("button", name="Order", exact=True).click()
    assert numbers(page) == list(range(IMAGES))
    assert ranks(page) == [best_first.index(number) + 1 for number in range(IMAGES)]
    gallery.get_by_role("button", name="Order, as they came", exact=True).click()
    assert numbers(page) == list(range(IMAGES))[::-1]
    gallery.get_by_role("button", name="Demo CLIP", exact=True).click()
    assert numbers(page) == best_first
    gallery.get_by_role("button", name="Demo CLIP, best first", exact=True).click()
    assert numbers(page) == best_first[::-1]
    gallery.get_by_role("button", name="Demo CLIP, worst first", exact=True).click()

    gallery.locator(".attune-gallery-picture").nth(1).click()
    expect(enlarged(page)).to_be_visible()
    expect(enlarged(page)).to_contain_text("2 of 8")
    page.keyboard.press("ArrowRight")
    expect(enlarged(page)).to_contain_text("Rank 3")
    keep_picture(page, f"score_gallery_enlarged_{renderer}")
    for _ in range(IMAGES):
        page.keyboard.press("ArrowLeft")
    expect(enlarged(page)).to_contain_text("1 of 8")
    expect(enlarged(page).get_by_role("button", name="Previous image")).to_be_disabled()
    page.keyboard.press("Escape")
    expect(enlarged(page)).to_have_count(0)
    expect(gallery.locator(".attune-gallery-picture").nth(0)).to_be_focused()
    assert page_errors == []


def test_discarded_images_do_not_go_on_and_the_choice_survives_a_reload(template: Page, page_errors: list[str]):
    page = template
    gallery = page.locator(".attune-gallery")
    preview = page.evaluate(ADD_PREVIEW)
    kept = f"() => window.app.nodeOutputs['{preview}']?.images?.length"
    run(page)
    page.wait_for_function(f"{kept} === {IMAGES}", timeout=RUN_MILLISECONDS)
    assert page.evaluate(CHOICE) == ""

    gallery.get_by_role("button", name="Discard image").nth(1).click()
    gallery.get_by_role("button", name="Discard image").nth(2).click()
    expect(gallery.locator(".attune-gallery-card.discarded")).to_have_count(2)
    expect(gallery.locator(".attune-gallery-total")).to_have_text("6 of 8 images kept")
    expect(gallery.locator(".attune-gallery-advice")).to_have_text("Press Run to use your choice.")
    assert len(page.evaluate(CHOICE).split()) == 2
    gallery.get_by_role("button", name="Undo").click()
    expect(gallery.locator(".attune-gallery-total")).to_have_text("7 of 8 images kept")
    choice = page.evaluate(CHOICE)
    assert len(choice.split()) == 1
    press_run(page)
    page.wait_for_function(f"{kept} === {IMAGES - 1}", timeout=RUN_MILLISECONDS)
    expect(gallery.locator(".attune-gallery-advice")).to_have_text("")

    page.reload()
    page.wait_for_function(f"() => window.app?.graph?.nodes?.length && {NODE}", timeout=RUN_MILLISECONDS)
    page.evaluate(LOOK)
    assert page.evaluate(CHOICE) == choice
    expect(gallery.locator(".attune-gallery-card")).to_have_count(IMAGES)
    expect(gallery.locator(".attune-gallery-card.discarded")).to_have_count(1)
    expect(gallery.locator(".attune-gallery-advice")).to_have_text("")

    gallery.get_by_role("button", name="Keep all").click()
    assert page.evaluate(CHOICE) == ""
    press_run(page)
    page.wait_for_function(f"{kept} === {IMAGES}", timeout=RUN_MILLISECONDS)
    assert page_errors == []


def test_the_choice_has_no_field_and_no_socket_of_its_own(template: Page, renderer: str):
    page = template
    assert page.evaluate(f"() => {NODE}.inputs.map((input) => input.name)").count("discarded") == 0
    widgets = f"() => {NODE}.widgets.map((widget) => widget.name)"
    assert page.evaluate(widgets)[-2:] == ["discarded", "attune_gallery"]
    if renderer == "Nodes 2.0":
        shown = page.locator(".lg-node", has=page.locator(".attune-gallery")).locator(".lg-node-widget")
        expect(shown).to_have_count(len(page.evaluate(widgets)) - 1)
    else:
        page.wait_for_function(f"() => {NODE}.widgets.at(-1).y === {NODE}.widgets.at(-2).y")
        assert page.evaluate(f"() => {NODE}.isWidgetVisible({NODE}.widgets.at(-2))") is False


def test_keys_and_the_wheel_stay_in_the_gallery(template: Page, page_errors: list[str]):
    """Delete would remove the node, and the wheel would move the canvas."""
    page = template
    gallery = page.locator(".attune-gallery")
    run(page)
    grid = gallery.locator(".attune-gallery-grid")
    page.evaluate(f"() => window.app.canvas.selectNode({NODE})")
    gallery.get_by_role("button", name="Order", exact=True).focus()
    page.keyboard.press("Tab")
    pictures = gallery.locator(".attune-gallery-picture")
    expect(pictures.nth(0)).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(pictures.nth(1)).to_be_focused()
    page.keyboard.press("Delete")
    expect(gallery.locator(".attune-gallery-card").nth(1)).to_have_class("attune-gallery-card discarded")
    page.keyboard.press("x")
    expect(gallery.locator(".attune-gallery-card.discarded")).to_have_count(0)
    page.keyboard.press("Tab")
    expect(gallery.get_by_role("button", name="Discard image").nth(1)).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(enlarged(page)).to_contain_text("2 of 8")
    page.keyboard.press("x")
    expect(enlarged(page)).to_contain_text("discarded")
    page.keyboard.press("Escape")
    expect(pictures.nth(1)).to_be_focused()
    assert len(page.evaluate(CHOICE).split()) == 1

    grid.hover()
    before = page.evaluate("() => [window.app.canvas.ds.scale, ...window.app.canvas.ds.offset]")
    page.mouse.wheel(0, 150)
    page.wait_for_function("() => document.querySelector('.attune-gallery-grid').scrollTop > 50")
    assert page.evaluate("() => [window.app.canvas.ds.scale, ...window.app.canvas.ds.offset]") == before
    assert page_errors == []


@pytest.mark.parametrize("copy", ["template opened twice", "tab duplicated"])
def test_a_result_goes_to_the_tab_that_was_run(page: Page, page_errors: list[str], copy: str):
    """The host hands it to whatever node of that id is shown."""
    open_template(page)
    cards = page.locator(".attune-gallery-card")
    first, first_id = page.evaluate(f"() => {ACTIVE}"), page.evaluate("() => window.app.graph.id")
    if copy == "tab duplicated":
        page.evaluate("() => window.app.extensionManager.command.execute('Comfy.DuplicateWorkflow')")
    else:
        open_template(page)
    page.wait_for_function(f"([path, id]) => {ACTIVE} !== path && window.app.graph.id !== id", arg=[first, first_id])
    page.wait_for_timeout(1500)  # A tab that is still being opened comes back to the front.
    second, second_id = page.evaluate(f"() => {ACTIVE}"), page.evaluate("() => window.app.graph.id")
    switch_to(page, first)
    assert page.evaluate("() => window.app.graph.id") == first_id
    # The run begins only when the other tab is shown, however fast the machine is.
    held: list[Route] = []
    page.route("**/prompt", lambda route: held.append(route) if route.request.method == "POST" else route.continue_())
    with page.expect_request(lambda request: request.url.endswith("/prompt") and request.method == "POST"):
        press_run(page)
    switch_to(page, second)
    assert page.evaluate("() => window.app.graph.id") == second_id
    with page.expect_response(lambda response: response.url.endswith("/prompt")):
        held[0].continue_()
    page.wait_for_function(
        "async () => { const { api } = await import('/scripts/api.js');"
        " const queue = await (await api.fetchApi('/queue')).json();"
        " return queue.queue_running.length + queue.queue_pending.length === 0; }",
        timeout=RUN_MILLISECONDS,
    )
    page.wait_for_timeout(500)  # The last message and what it sets off; nothing may show here.
    expect(cards).to_have_count(0)
    switch_to(page, first)
    expect(cards).to_have_count(IMAGES, timeout=RUN_MILLISECONDS)
    assert page_errors == []


def test_many_images_and_foreign_text(template: Page, page_errors: list[str]):
    """Pictures out of sight are not fetched, and markup in names and prompts never becomes part of the page."""
    page = template
    gallery = page.locator(".attune-gallery")
    run(page)
    address = gallery.locator(".attune-gallery-picture img").first.get_attribute("src")
    name = address.split("filename=")[1].split("&")[0]
    page.evaluate(SEND_MANY, [200, {"filename": name, "subfolder": "attune", "type": "temp"}])
    expect(gallery.locator(".attune-gallery-card")).to_have_count(200)
    page.wait_for_function("() => document.querySelector('.attune-gallery-picture img').naturalWidth === 64")
    loaded = "(all) => all.filter((image) => image.complete && image.naturalWidth).length"
    assert gallery.locator(".attune-gallery-picture img").evaluate_all(loaded) < 120
    gallery.locator(".attune-gallery-picture").first.click()
    expect(enlarged(page)).to_contain_text("<img src=x onerror=window.attuneHacked=1>")
    expect(enlarged(page)).to_contain_text("<b>plain</b>")
    assert page.locator(".attune-gallery b, .attune-enlarged b, img[onerror]").count() == 0
    assert page.evaluate("() => window.attuneHacked") is None
    assert page_errors == []


def test_removing_the_node_removes_gallery_and_enlarged_picture(template: Page, page_errors: list[str]):
    page = template
    run(page)
    page.locator(".attune-gallery-picture").first.click()
    expect(enlarged(page)).to_be_visible()
    # What stays of it must not answer any more.
    page.evaluate("() => (window.attuneOld = document.querySelector('.attune-gallery'))")
    page.evaluate(f"() => window.app.graph.remove({NODE})")
    expect(enlarged(page)).to_have_count(0)
    expect(page.locator(".attune-gallery")).to_have_count(0)
    before = page.evaluate("() => window.attuneOld.outerHTML")
    page.evaluate("() => window.attuneOld.querySelectorAll('button').forEach((button) => button.click())")
    assert page.evaluate("() => window.attuneOld.outerHTML") == before
    expect(enlarged(page)).to_have_count(0)
    press_run(page)
    page.wait_for_timeout(1000)
    assert page_errors == []
