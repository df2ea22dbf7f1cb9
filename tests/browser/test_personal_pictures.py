"""The template choose_and_personalize as an artist uses it: choices by keys, Run again, pictures that lean that way."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect

from attune.tests.browser.test_choose_images import NODE, OPEN, keep_picture, view, wait_for_pictures
from attune.tests.hosting import HostServer

TEMPLATE = Path(__file__).resolve().parents[2] / "workflows" / "choose_and_personalize.json"
CHOICES = 4
LOOK = f"""() => {{
    const node = {NODE};
    const {{ ds }} = window.app.canvas;
    ds.scale = 0.85;
    ds.offset = [240 - node.pos[0], 110 - node.pos[1]];
    window.app.canvas.setDirty(true, true);
}}"""
# Warmth of the two pictures that are shown, from their pixels.
WARMTH = """(root) => [...root.querySelectorAll('.attune-choose-stage img')].map((image) => {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
    let sum = 0;
    for (let place = 0; place < pixels.length; place += 4) sum += pixels[place] - pixels[place + 2];
    return sum;
})"""


def pictures(host: HostServer, page: Page, runs: int) -> dict[str, np.ndarray]:
    """What the newest runs, so many, have shown in the two previews of the new pictures.

    Returns:
        Title of the node → [count, h, w, 3] in 0 … 255.
    """
    nodes = page.evaluate("() => window.app.graph.nodes.map((node) => [String(node.id), node.title])")
    titles = {id: title for id, title in nodes if title in ("Without", "With your taste")}
    found: dict[str, np.ndarray] = {}
    # The host tells of what it has in its cache only once.
    for record in sorted(host.get("/history").values(), key=lambda record: record["prompt"][0])[-runs:]:
        assert record["status"]["status_str"] == "success", record["status"]
        for id, title in titles.items():
            shown = record["outputs"].get(id, {}).get("images")
            if shown:
                files = [host.output_path(entry) for entry in shown]
                found[title] = np.stack([np.asarray(Image.open(file).convert("RGB"), dtype=float) for file in files])
    return found


def run(host: HostServer, page: Page) -> float:
    """Press Run and wait until the host has done it; seconds."""
    before, started = len(host.get("/history")), time.monotonic()
    page.get_by_test_id("queue-button").get_by_role("button").first.click()
    while len(host.get("/history")) == before:
        assert time.monotonic() - started < 240, "the run does not end"
        page.wait_for_timeout(100)
    return time.monotonic() - started


def warmth(images: np.ndarray) -> np.ndarray:
    return (images[..., 0] - images[..., 2]).mean((1, 2))


def test_four_choices_by_keys_change_the_pictures_within_seconds(host: HostServer, page: Page, page_errors: list[str]):
    graph = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    (profile,) = (node for node in graph["nodes"] if node["type"] == "AttunePreferenceProfile")
    profile["widgets_values"] = ["my taste", "warm by keys"]
    page.evaluate(OPEN, graph)
    expect(view(page)).to_have_count(1)
    page.evaluate(LOOK)
    run(host, page)
    before = pictures(host, page, 1)
    assert np.array_equal(before["Without"], before["With your taste"]), "nobody has chosen yet"
    view(page).locator(".attune-choose-words").click()
    for _ in range(CHOICES):
        wait_for_pictures(view(page))
        first, second = view(page).evaluate(WARMTH)
        was = view(page).inner_text()
        page.keyboard.press("1" if first > second else "2")
        expect(view(page)).not_to_have_text(was)
    keep_picture(page, "personal-chosen")
    seconds = run(host, page)
    after = pictures(host, page, 2)
    change = warmth(after["With your taste"]) - warmth(before["Without"])
    print(f"warmer by {change.mean():.1f} of 255, in {seconds:.1f} s")
    assert np.array_equal(after["Without"], before["Without"])
    assert change.mean() > 0 and (change > 0).mean() > 0.6, change
    assert seconds < 20
    page.evaluate("() => { const { ds } = window.app.canvas; ds.scale = 0.5; ds.offset = [-880, 60]; }")
    page.wait_for_timeout(2000)
    keep_picture(page, "personal-pictures")
    assert not page_errors
