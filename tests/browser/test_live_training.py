"""Train LoRA in a real page: the template opens, Run is pressed, curves and pictures appear, Stop saves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

PICTURES = Path(__file__).resolve().parents[2] / ".host" / "screenshots"
TRAINING_MILLISECONDS = 300_000
# A page asks a server that is busy training what has happened.
RELOAD_MILLISECONDS = 60_000
# The template's own graph, with less of everything.
FEWER: dict[str, dict[str, Any]] = {
    "AttuneDDPOObjective": {"prompts_per_update": 2, "images_per_prompt": 2, "sampler_steps": 4, "trained_steps": 2},
    "AttuneTrainLora": {"preview_every": 1},
    "AttuneCompareAB": {"images_per_prompt": 2, "steps": 4},
}
SET_WIDGETS = """([type, values]) => {
    for (const node of window.app.graph.nodes.filter((node) => node.type === type))
        for (const [name, value] of Object.entries(values)) {
            const widget = node.widgets.find((widget) => widget.name === name);
            widget.value = value;
            widget.callback?.(value);
        }
}"""
UNKNOWN_NODES = """() => window.app.graph.nodes.map((node) => node.type)
    .filter((type) => !(type in window.LiteGraph.registered_node_types) && type !== "MarkdownNote")"""
ACTIVE = "window.app.extensionManager.workflow.activeWorkflow?.path"
WORKFLOW_ID = "() => window.app.graph.id"
SHOWN_PICTURES = "() => window.app.graph.nodes.filter((node) => node.imgs?.length).map((node) => node.type)"


def open_template(page: Page, name: str) -> None:
    """Through the template browser, as a user does."""
    page.evaluate("() => window.app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text("ComfyUI-Attune", exact=True).first.click()
    page.get_by_test_id(f"template-workflow-{name}").click()
    page.wait_for_function("() => window.app.graph.nodes.some((node) => node.type === 'AttuneTrainLora')")
    expect(page.locator(".attune-live")).to_have_count(1)


def switch_to(page: Page, path: str) -> None:
    """Press the tab of an open workflow."""
    name = path.removeprefix("workflows/").removesuffix(".json")
    page.locator(".workflow-tabs").get_by_text(name, exact=True).click()
    page.wait_for_function(f"(path) => {ACTIVE} === path", arg=path)
    expect(page.locator(".attune-live")).to_have_count(1)


def set_widgets(page: Page, changes: dict[str, dict[str, Any]]) -> None:
    for node_type, values in changes.items():
        page.evaluate(SET_WIDGETS, [node_type, values])


def look_at_training(page: Page) -> None:
    """Bring the node into view, so that a screenshot shows it."""
    page.evaluate(
        """() => {
            const node = window.app.graph.nodes.find((node) => node.type === "AttuneTrainLora");
            const { ds } = window.app.canvas;
            ds.scale = 0.8;
            ds.offset = [120 - node.pos[0], 110 - node.pos[1]];
            window.app.canvas.setDirty(true, true);
        }"""
    )


def keep_picture(page: Page, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")


@pytest.fixture
def template(page: Page, page_errors: list[str]) -> Page:
    """The page with align_with_reward open and shortened."""
    open_template(page, "align_with_reward")
    assert page.evaluate(UNKNOWN_NODES) == []
    set_widgets(page, FEWER)
    look_at_training(page)
    return page


def press_run(page: Page) -> None:
    page.get_by_test_id("queue-button").get_by_role("button").first.click()


def test_live_curves_survive_a_reload_and_end_in_pictures(template: Page, page_errors: list[str]):
    page = template
    view = page.locator(".attune-live")
    expect(view.locator(".attune-live-title")).to_have_text("Not trained yet")
    set_widgets(page, {"AttuneTrainLora": {"run_name": "browser run", "steps": 12}})
    press_run(page)
    expect(view).to_have_attribute("data-status", "running", timeout=TRAINING_MILLISECONDS)
    for series in ("reward", "held_out_reward", "loss"):
        line = view.locator(f"[data-series={series}] .attune-live-mean")
        expect(line).to_have_attribute("d", _two_points(), timeout=TRAINING_MILLISECONDS)
    expect(view.get_by_alt_text("Samples after 0 updates")).to_be_visible()
    keep_picture(page, "live_training_running")

    page.reload()
    page.wait_for_function("() => window.app?.graph?.nodes?.some((node) => node.type === 'AttuneTrainLora')")
    curve = view.locator("[data-series=reward] .attune-live-mean")
    expect(curve).to_have_attribute("d", _two_points(), timeout=RELOAD_MILLISECONDS)
    expect(view.get_by_alt_text("Samples after 0 updates")).to_have_count(1)

    expect(view).to_have_attribute("data-status", "finished", timeout=TRAINING_MILLISECONDS)
    expect(view.locator(".attune-live-title")).to_contain_text("Finished")
    expect(view.locator(".attune-live-detail")).to_contain_text("browser run_001.safetensors")
    expect(view.get_by_role("button", name="Stop and save")).to_be_hidden()
    page.wait_for_function(
        f"() => ['PreviewImage', 'SaveImage'].every((type) => ({SHOWN_PICTURES})().includes(type))",
        timeout=TRAINING_MILLISECONDS,
    )
    look_at_training(page)
    keep_picture(page, "live_training_finished")
    assert page_errors == []


def _two_points() -> re.Pattern[str]:
    return re.compile(r"^M[\d.]+ [\d.]+L")


def test_stop_and_save_keeps_the_lora(template: Page, host, page_errors: list[str]):
    page = template
    view = page.locator(".attune-live")
    set_widgets(page, {"AttuneTrainLora": {"run_name": "stopped in the page", "steps": 5000}})
    press_run(page)
    line = view.locator("[data-series=loss] .attune-live-mean")
    expect(line).to_have_attribute("d", _two_points(), timeout=TRAINING_MILLISECONDS)
    view.get_by_role("button", name="Stop and save").click()
    expect(view).to_have_attribute("data-status", "stopped", timeout=60_000)
    expect(view.locator(".attune-live-detail")).to_contain_text("stopped in the page_stopped_001.safetensors")
    assert (host.models_dir / "loras" / "attune" / "stopped in the page_stopped_001.safetensors").is_file()
    assert page_errors == []


@pytest.mark.parametrize("copy", ["template opened twice", "tab duplicated"])
def test_two_tabs_with_the_same_node_and_run_name_do_not_mix(template: Page, page_errors: list[str], copy: str):
    """The second tab stays empty while the first trains, then runs on its own; each keeps its run over a reload."""
    page = template
    view = page.locator(".attune-live")
    pictures = view.get_by_alt_text("Samples after 0 updates")
    endless = {"AttuneTrainLora": {"run_name": copy, "steps": 5000, "if_run_exists": "start fresh"}}
    set_widgets(page, endless)
    first, first_id = page.evaluate(f"() => {ACTIVE}"), page.evaluate(WORKFLOW_ID)
    press_run(page)
    expect(pictures).to_have_count(1, timeout=TRAINING_MILLISECONDS)

    if copy == "tab duplicated":
        page.evaluate("() => window.app.extensionManager.command.execute('Comfy.DuplicateWorkflow')")
    else:
        open_template(page, "align_with_reward")
    page.wait_for_function(f"([path, id]) => {ACTIVE} !== path && window.app.graph.id !== id", arg=[first, first_id])
    second, second_id = page.evaluate(f"() => {ACTIVE}"), page.evaluate(WORKFLOW_ID)
    set_widgets(page, FEWER)
    set_widgets(page, endless)
    page.wait_for_timeout(4000)  # Messages of the first tab's run arrive all the time; none may show here.
    expect(view).to_have_attribute("data-status", "idle")
    expect(pictures).to_have_count(0)

    switch_to(page, first)
    assert page.evaluate(WORKFLOW_ID) == first_id
    expect(view).to_have_attribute("data-status", "running", timeout=RELOAD_MILLISECONDS)
    expect(pictures).to_have_count(1)
    view.get_by_role("button", name="Stop and save").click()
    expect(view).to_have_attribute("data-status", "stopped", timeout=TRAINING_MILLISECONDS)

    switch_to(page, second)
    assert page.evaluate(WORKFLOW_ID) == second_id
    expect(view).to_have_attribute("data-status", "idle")
    press_run(page)
    expect(view).to_have_attribute("data-status", "running", timeout=TRAINING_MILLISECONDS)
    page.reload()
    page.wait_for_function("() => window.app?.graph?.nodes?.some((node) => node.type === 'AttuneTrainLora')")
    assert page.evaluate(WORKFLOW_ID) == second_id
    expect(view).to_have_attribute("data-status", "running", timeout=RELOAD_MILLISECONDS)
    view.get_by_role("button", name="Stop and save").click()
    expect(view).to_have_attribute("data-status", "stopped", timeout=TRAINING_MILLISECONDS)
    assert page_errors == []


def test_text_of_the_user_is_shown_as_text(template: Page, host, page_errors: list[str]):
    """A run name is data: markup in it must never become part of the page."""
    page = template
    view = page.locator(".attune-live")
    set_widgets(page, {"AttuneTrainLora": {"run_name": "<img src=x onerror=window.attuneHacked=1>", "steps": 1}})
    press_run(page)
    expect(view).to_have_attribute("data-status", "finished", timeout=TRAINING_MILLISECONDS)
    assert view.locator(".attune-live-detail img").count() == 0
    assert page.evaluate("() => window.attuneHacked") is None
    assert page_errors == []


def test_removing_the_node_removes_its_view(template: Page, page_errors: list[str]):
    page = template
    page.evaluate(
        "() => window.app.graph.remove(window.app.graph.nodes.find((node) => node.type === 'AttuneTrainLora'))"
    )
    expect(page.locator(".attune-live")).to_have_count(0)
    assert page_errors == []
