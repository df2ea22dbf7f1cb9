"""Train LoRA in a real page: the template opens, Run is pressed, curves and pictures appear, Stop saves and goes on."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from attune.tests.hosting import HostServer

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
IDLE = "async () => (await (await fetch('/queue')).json()).queue_running.length === 0"
# A second Train LoRA with the same inputs, which is put into a subgraph.
SECOND_IN_SUBGRAPH = """() => {
    const { graph, canvas } = window.app;
    const first = graph.nodes.find((node) => node.type === "AttuneTrainLora");
    const second = window.LiteGraph.createNode("AttuneTrainLora");
    graph.add(second);
    second.pos = [first.pos[0], first.pos[1] + first.size[1] + 200];
    for (const [index, input] of first.inputs.entries()) {
        const link = input.link === null ? null : graph.links.get?.(input.link) ?? graph.links[input.link];
        if (link) graph.getNodeById(link.origin_id).connect(link.origin_slot, second, index);
    }
    for (const [index, widget] of first.widgets.entries()) {
        if (widget.name !== "attune_live") second.widgets[index].value = widget.value;
    }
    second.widgets.find((widget) => widget.name === "run_name").value = "inner";
    second.widgets.find((widget) => widget.name === "steps").value = 5000;
    graph.convertToSubgraph(new Set([second]));
}"""
OPEN_SUBGRAPH = """() => {
    const node = window.app.graph.nodes.find((node) => node.isSubgraphNode?.());
    window.app.canvas.openSubgraph(node.subgraph, node);
}"""
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
            const { ds, graph } = window.app.canvas;
            const node = graph.nodes.find((node) => node.type === "AttuneTrainLora");
            ds.scale = 0.8;
            ds.offset = [120 - node.pos[0], 110 - node.pos[1]];
            window.app.canvas.setDirty(true, true);
        }"""
    )


def keep_picture(page: Page, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")


@pytest.fixture(autouse=True)
def _idle_afterwards(host: HostServer) -> Iterator[None]:
    """A test that failed in the middle of an endless run must not take the next ones with it."""
    yield
    host.cancel()


@pytest.fixture
def nodes_2(host: HostServer) -> Iterator[None]:
    """The host's newer way to draw nodes. To be asked for before `page`, which opens with what is set."""
    host.post("/api/settings", {"Comfy.VueNodes.Enabled": True})
    yield
    host.post("/api/settings", {"Comfy.VueNodes.Enabled": False})


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


def line_of(view: Locator, figure: str) -> Locator:
    return view.locator(f"[data-series={figure}] .attune-live-mean")


def chip_of(view: Locator, figure: str) -> Locator:
    return view.locator(f".attune-live-chip[data-figure={figure}]")


def reload(page: Page) -> None:
    page.reload()
    page.wait_for_function("() => window.app?.graph?.nodes?.some((node) => node.type === 'AttuneTrainLora')")


def test_live_curves_survive_a_reload_and_end_in_pictures(template: Page, page_errors: list[str]):
    page = template
    view = page.locator(".attune-live")
    expect(view.locator(".attune-live-title")).to_have_text("Not trained yet")
    set_widgets(page, {"AttuneTrainLora": {"run_name": "browser run", "steps": 12}})
    press_run(page)
    expect(view).to_have_attribute("data-status", "running", timeout=TRAINING_MILLISECONDS)
    for figure in ("reward", "held_out_reward"):
        expect(line_of(view, figure)).to_have_attribute("d", _two_points(), timeout=TRAINING_MILLISECONDS)
    expect(view.get_by_alt_text("Samples after 0 updates")).to_be_visible()
    look_at_training(page)
    keep_picture(page, "live_training_running")

    reload(page)
    expect(line_of(view, "reward")).to_have_attribute("d", _two_points(), timeout=RELOAD_MILLISECONDS)
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

    # Another page, which has never seen the run: everything comes from the server.
    other = page.context.new_page()
    other.goto(page.url)
    other.wait_for_function("() => window.app?.graph?.nodes?.some((node) => node.type === 'AttuneTrainLora')")
    expect(line_of(other.locator(".attune-live"), "reward")).to_have_attribute("d", _two_points())
    other.close()
    assert page_errors == []


def test_curves_are_switched_by_chips_and_pictures_gone_through_in_time(template: Page, page_errors: list[str]):
    page = template
    view = page.locator(".attune-live")
    set_widgets(page, {"AttuneTrainLora": {"run_name": "chips and strip", "steps": 4}})
    press_run(page)
    expect(view).to_have_attribute("data-status", "finished", timeout=TRAINING_MILLISECONDS)
    look_at_training(page)

    # Curves: one more, one less, and so after a reload.
    expect(chip_of(view, "reward")).to_have_attribute("aria-pressed", "true")
    expect(line_of(view, "learning_rate")).to_have_count(0)
    view.locator(".attune-live-more").click()
    chip_of(view, "learning_rate").click()
    chip_of(view, "reward").click()
    expect(line_of(view, "learning_rate")).to_have_attribute("d", _two_points())
    expect(view.locator("[data-series=reward]")).to_have_count(0)
    keep_picture(page, "live_training_chips")
    page.wait_for_timeout(2000)  # The host keeps a changed workflow after a moment.
    reload(page)
    expect(line_of(view, "learning_rate")).to_have_attribute("d", _two_points(), timeout=RELOAD_MILLISECONDS)
    expect(view.locator("[data-series=reward]")).to_have_count(0)
    chip_of(view, "reward").click()
    expect(view.locator("[data-series=reward]")).to_have_count(1)

    # All curves are read where the pointer is.
    look_at_training(page)
    plot = view.locator("[data-series=reward] .attune-live-plot")
    plot.hover(position={"x": 3, "y": 10})
    for figure in ("reward", "held_out_reward", "learning_rate"):
        expect(view.locator(f"[data-series={figure}] .attune-live-steps .here")).to_have_text("update 1")

    # Pictures: the latest, one under the pointer, one by the arrow keys, and enlarged.
    now = view.locator(".attune-live-stage .now")
    expect(view.locator(".attune-live-moment")).to_have_count(5)
    expect(now.locator("figcaption")).to_contain_text("after 4 updates")
    latest = now.locator("img").get_attribute("src")
    view.get_by_role("button", name="after 2 updates").hover()
    expect(now.locator("figcaption")).to_have_text("after 2 updates")
    assert now.locator("img").get_attribute("src") != latest
    view.locator(".attune-live-title").hover()
    expect(now.locator("figcaption")).to_contain_text("after 4 updates")
    view.locator(".attune-live-samples").focus()
    page.keyboard.press("ArrowLeft")
    expect(now.locator("figcaption")).to_have_text("after 3 updates")
    view.get_by_role("button", name="after 1 update").click()
    dialog = page.locator("dialog.attune-moments")
    expect(dialog.locator("figcaption")).to_have_text(["before training", "after 1 update"])
    page.keyboard.press("ArrowRight")
    expect(dialog.locator("figcaption")).to_have_text(["before training", "after 2 updates"])
    dialog.get_by_role("slider").fill("4")
    expect(dialog.locator("figcaption").last).to_contain_text("after 4 updates")
    keep_picture(page, "live_training_enlarged")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert page_errors == []


def test_nodes_2_shows_curves_pictures_and_the_button(nodes_2, page: Page, page_errors: list[str]):
    open_template(page, "align_with_reward")
    assert page.locator(".lg-node").count() > 0
    set_widgets(page, FEWER)
    set_widgets(page, {"AttuneTrainLora": {"run_name": "nodes 2", "steps": 5000}})
    view = page.locator(".attune-live")
    press_run(page)
    expect(line_of(view, "reward")).to_have_attribute("d", _two_points(), timeout=TRAINING_MILLISECONDS)
    look_at_training(page)
    page.mouse.wheel(0, 0)
    chip_of(view, "loss").click()
    expect(view.locator("[data-series=loss]")).to_be_visible()
    expect(view.locator(".attune-live-moment").first).to_be_visible()
    heights = view.locator(".attune-live-plot").evaluate_all("(all) => all.map((plot) => plot.clientHeight)")
    assert len(heights) == 5 and min(heights) >= 40
    keep_picture(page, "live_training_nodes_2")
    view.get_by_role("button", name="Stop and save").click()
    expect(view).to_have_attribute("data-status", "stopped", timeout=TRAINING_MILLISECONDS)
    page.wait_for_function(IDLE, timeout=TRAINING_MILLISECONDS)
    assert page_errors == []


def test_two_training_nodes_one_in_a_subgraph_each_show_and_stop_their_own_run(
    template: Page, host: HostServer, page_errors: list[str]
):
    """Stop and save ends the first run; the second one, inside a subgraph, begins and is shown there."""
    page = template
    page.evaluate(SECOND_IN_SUBGRAPH)
    outer = page.locator(".attune-live").first
    set_widgets(page, {"AttuneTrainLora": {"run_name": "outer", "steps": 5000}})
    press_run(page)
    order = []
    for _ in range(2):
        state = None
        for _ in range(1200):
            runs = host.get("/attune/training/state")["runs"].values()
            state = next((run for run in runs if run["run"] in ("outer", "inner") and run["status"] == "running"), None)
            if state is not None and state["step"] >= 1 and state["run"] not in order:
                break
            page.wait_for_timeout(250)
        assert state is not None
        order.append(state["run"])
        if state["run"] == "outer":
            expect(outer.locator(".attune-live-title")).to_contain_text("Training")
            outer.get_by_role("button", name="Stop and save").click()
            expect(outer).to_have_attribute("data-status", "stopped", timeout=TRAINING_MILLISECONDS)
        else:
            assert ":" in state["node"], "a node of a subgraph has the ids of both"
            page.evaluate(OPEN_SUBGRAPH)
            look_at_training(page)
            inner = page.locator(".attune-live:visible")
            expect(inner).to_have_count(1)
            expect(inner).to_have_attribute("data-status", "running", timeout=RELOAD_MILLISECONDS)
            inner.get_by_role("button", name="Stop and save").click()
            expect(inner).to_have_attribute("data-status", "stopped", timeout=TRAINING_MILLISECONDS)
            expect(inner.locator(".attune-live-detail")).to_contain_text("inner_stopped_001.safetensors")
            keep_picture(page, "live_training_subgraph")
            page.evaluate("() => window.app.canvas.setGraph(window.app.rootGraph ?? window.app.graph)")
            look_at_training(page)
    assert sorted(order) == ["inner", "outer"]
    page.wait_for_function(IDLE, timeout=TRAINING_MILLISECONDS)
    assert page_errors == []


def _two_points() -> re.Pattern[str]:
    return re.compile(r"^M[\d.]+ [\d.]+L")


def test_stop_and_save_hands_the_lora_on_and_run_goes_on_from_there(template: Page, host, page_errors: list[str]):
    page = template
    view = page.locator(".attune-live")
    set_widgets(page, {"AttuneTrainLora": {"run_name": "stopped in the page", "steps": 5000}})
    earlier, done = set(host.get("/history")), 0
    for number in ("001", "002"):
        press_run(page)
        expect(view).to_have_attribute("data-status", "running", timeout=TRAINING_MILLISECONDS)
        expect(line_of(view, "reward")).to_have_attribute("d", _two_points(), timeout=TRAINING_MILLISECONDS)
        before = _updates(view)
        assert before >= done, "the second run goes on where the first one stopped"
        page.wait_for_function(
            "(step) => parseInt(document.querySelector('.attune-live-title').textContent.split('·')[1]) > step",
            arg=before,
            timeout=TRAINING_MILLISECONDS,
        )
        view.get_by_role("button", name="Stop and save").click()
        expect(view).to_have_attribute("data-status", "stopped", timeout=TRAINING_MILLISECONDS)
        done = _updates(view)
        file = f"stopped in the page_stopped_{number}.safetensors"
        expect(view.locator(".attune-live-detail")).to_contain_text(file)
        assert (host.models_dir / "loras" / "attune" / file).is_file()
        page.wait_for_function(
            f"() => ['PreviewImage', 'SaveImage'].every((type) => ({SHOWN_PICTURES})().includes(type))",
            timeout=TRAINING_MILLISECONDS,
        )
        # The nodes behind have run: the prompt has come to its end.
        page.wait_for_function(IDLE, timeout=TRAINING_MILLISECONDS)
    # The page may hear of the end a moment before the host has written its history.
    deadline = time.monotonic() + 20
    while len(found := [run for id, run in host.get("/history").items() if id not in earlier]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert [run["status"]["status_str"] for run in found] == ["success"] * 2
    assert page_errors == []


def _updates(view: Locator) -> int:
    return int(view.locator(".attune-live-title").inner_text().split("·")[1].split("/")[0])


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
