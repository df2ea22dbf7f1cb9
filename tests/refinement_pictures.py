"""Make the pictures of the refinement nodes' help pages afresh: the nodes at work, on a real host in a real browser.

    .venv/bin/python scripts/module.py attune.tests.refinement_pictures [NODE …]

The rounds are played by the template `refine_in_rounds`, the weights by `weights_and_pareto`. Look at the pictures
before you commit them.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from attune.nodes.drawing import BACKGROUND
from attune.scripts import browser as chromium
from attune.scripts.environment import Environment
from attune.scripts.server import WorkflowResult

from .help_pictures import FOLDER
from .hosting import HostServer, comfyui_folder
from .thumbnails import COMMIT, RUNS, WORKFLOWS, answer_round

REPORT, WEIGHTS = "AttuneSessionReport", "AttuneDynamicWeights"
ROUNDS, PARETO = "refine_in_rounds", "weights_and_pareto"
# Of a node on the screen. The page's own bars end above and to the left of it.
SIZES = {COMMIT: (500, 690), REPORT: (680, 760)}
LEFT, TOP, TITLE = 120, 190, 30
VIEWPORT = {"width": 1500, "height": 1100}
CHARTS_WIDTH = 640
QUALITY, LARGEST = 72, 60_000
WAIT_MILLISECONDS = 120_000
# What is said to the rounds before a branch begins at the first, and on it.
FIRST, OTHER = ("make the background blue", "in a flat style"), ("make the background red",)
NEXT = "on a green background"
SHOW = """async ([workflow, type, [width, height], [left, top]]) => {
    const { app } = window;
    await app.loadGraphData(workflow);
    // Beside its neighbours and their wires it would be lost.
    for (const node of [...app.graph.nodes]) if (node.type !== type) app.graph.remove(node);
    for (const group of [...app.graph._groups]) app.graph.remove(group);
    const [node] = app.graph.nodes;
    node.setSize([width, height]);
    app.canvas.ds.scale = 1;
    const { x, y } = app.canvas.canvas.getBoundingClientRect();
    app.canvas.ds.offset = [left - x - node.pos[0], top - y - node.pos[1]];
    app.canvas.deselectAll?.();
    app.canvas.setDirty(true, true);
}"""


@contextmanager
def opened(host: HostServer) -> Iterator[Page]:
    """The host's page, once it can be used."""
    executable = chromium.find(host.environment)
    if executable is None:
        sys.exit("There is no Chromium. `python run.py test` installs one; or set ATTUNE_CHROMIUM to one.")
    host.post("/api/settings", {"Comfy.TutorialCompleted": True, "Comfy.Workflow.ShowMissingModelsWarning": False})
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(executable), args=list(chromium.FLAGS))
        page = browser.new_page(viewport=VIEWPORT, locale="en-US")
        page.goto(host.url, timeout=WAIT_MILLISECONDS)
        page.wait_for_function("window.app?.graph && window.app?.extensionManager", timeout=WAIT_MILLISECONDS)
        yield page
        browser.close()


def session_of(result: WorkflowResult) -> dict[str, Any]:
    return result.ui(COMMIT, "attune_round")[0]


def play(host: HostServer) -> str:
    """Three rounds, then another way from the first on; its round waits. The session's key."""
    template = WORKFLOWS / f"{ROUNDS}.json"
    result = host.run(template)
    key = session_of(result)["key"]
    for comment in FIRST:
        answer_round(host, session_of(result), comment)
        result = host.run(template)
    answer_round(host, session_of(result), "")
    session = host.get(f"/attune/refinement/session/{key}")
    told = {"key": key, "revision": session["revision"], "round": session["path"][0]}
    session = host.post("/attune/refinement/branch", told)
    # The pictures that were answered before would wait for another answer.
    told = {"key": key, "revision": session["revision"], "round": session["open"]["key"]}
    host.post("/attune/refinement/again", told)
    result = host.run(template)
    for comment in OTHER:
        answer_round(host, session_of(result), comment)
        result = host.run(template)
    return key


def show(page: Page, kind: str, property_: str, key: str) -> None:
    """The node alone, with its session."""
    workflow = json.loads((WORKFLOWS / f"{ROUNDS}.json").read_text(encoding="utf-8"))
    for node in workflow["nodes"]:
        if node["type"] == kind:
            node.setdefault("properties", {})[property_] = {"key": key}
    page.evaluate(SHOW, [workflow, kind, SIZES[kind], [LEFT, TOP]])


def shot(page: Page, kind: str) -> Image.Image:
    """The node as it is on the screen, once its pictures are there."""
    page.wait_for_function(
        "() => [...document.querySelectorAll('.attune-round img, .attune-report img')]"
        ".every((image) => image.complete && image.naturalWidth)"
    )
    page.mouse.move(5, 5)
    page.wait_for_timeout(500)
    width, height = SIZES[kind]
    clip = {"x": LEFT, "y": TOP - TITLE, "width": width, "height": height + TITLE}
    return Image.open(BytesIO(page.screenshot(clip=clip))).convert("RGB")


def commit_picture(page: Page, key: str) -> Image.Image:
    """A round with what is about to be said of it."""
    show(page, COMMIT, "attune_round", key)
    view = page.locator(".attune-round")
    expect(view.locator(".attune-round-cell").first).to_be_visible()
    view.get_by_role("button", name="Like picture 2", exact=True).click()
    view.get_by_role("button", name="Dislike picture 4").click()
    view.get_by_label("What should change").fill(NEXT)
    view.get_by_role("button", name="4 stars").click()
    expect(view.locator(".attune-round-cell.liked")).to_have_count(1)
    expect(view.get_by_role("button", name="Refine")).to_be_enabled()
    page.evaluate("document.activeElement.blur()")
    return shot(page, COMMIT)


def report_picture(page: Page, key: str) -> Image.Image:
    """The timeline with both ways."""
    show(page, REPORT, "attune_timeline", key)
    view = page.locator(".attune-report")
    expect(view.locator(".attune-report-card.other").first).to_be_visible()
    expect(view.locator(".attune-report-card.open")).to_be_visible()
    expect(view.locator(".attune-report-card.path ins").first).to_be_visible()
    return shot(page, REPORT)


def weights_picture(host: HostServer) -> Image.Image:
    """The charts of Dynamic Weights, one below the other."""
    for _ in range(RUNS[PARETO]):
        result = host.run(WORKFLOWS / f"{PARETO}.json")
    shown = [Image.open(file).convert("RGB") for file in host.images(result)]
    # The third picture is the report's, which is wider.
    charts = sorted((image for image in shown if image.width < max(other.width for other in shown)), key=image_height)
    if len(charts) != 2:
        sys.exit(f"The charts of the weights were not found among pictures of {[image.size for image in shown]}.")
    sheet = Image.new("RGB", (charts[0].width, sum(image.height for image in charts)), BACKGROUND)
    for place, image in enumerate(charts):
        sheet.paste(image, (0, place * charts[0].height))
    return sheet.resize((CHARTS_WIDTH, round(sheet.height * CHARTS_WIDTH / sheet.width)), Image.Resampling.LANCZOS)


def image_height(image: Image.Image) -> int:
    return image.height


def save(picture: Image.Image, kind: str) -> None:
    path = FOLDER / f"{kind}.jpg"
    picture.save(path, quality=QUALITY, optimize=True)
    size = path.stat().st_size
    print(f"{path.name}: {picture.size}, {size} bytes", flush=True)
    if size > LARGEST:
        sys.exit(f"{path.name} is larger than {LARGEST} bytes.")


def main(nodes: Sequence[str]) -> None:
    """Those of the named nodes, or all."""
    wanted = set(nodes) or {COMMIT, REPORT, WEIGHTS}
    environment = Environment(Path(sys.executable), comfyui_folder(), own=True)
    with tempfile.TemporaryDirectory() as folder, HostServer(environment, Path(folder), force_cpu=True) as host:
        if wanted & {COMMIT, REPORT}:
            key = play(host)
            with opened(host) as page:
                for kind, made in ((COMMIT, commit_picture), (REPORT, report_picture)):
                    if kind in wanted:
                        save(made(page, key), kind)
        if WEIGHTS in wanted:
            save(weights_picture(host), WEIGHTS)


if __name__ == "__main__":
    main(sys.argv[1:])
