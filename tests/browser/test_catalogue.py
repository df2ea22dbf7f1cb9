"""The LoRA Catalogue tab in a real page: search, tag, compare, promote, roll back, trash, undo; a reload keeps all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Locator, Page, expect

from attune.training.adapters import LoraMetadata, LoraParent, load_lora, save_lora, weights_id

PICTURES = Path(__file__).resolve().parents[2] / ".host" / "screenshots"
MARKUP = "<img src=x onerror=attuneHacked=1>"
LAYERS = {"attn2_to_q": "down_blocks.0.attn2.to_q", "ff_net_2": "up_blocks.1.ff.net.2"}


def write(folder: Path, name: str, seed: int, *, parents: Any = (), **facts: Any) -> str:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in LAYERS.values():
        tensors[f"{layer}.lora_up.weight"] = torch.randn(8, 4, generator=generator)
        tensors[f"{layer}.lora_down.weight"] = torch.randn(4, 8, generator=generator)
        tensors[f"{layer}.alpha"] = torch.tensor(4.0)
    run = name.rpartition("_")[0]
    metadata = LoraMetadata(title=run, run=run, parents=parents, base_model="attune_demo", **facts)
    path = folder / f"{name}.safetensors"
    save_lora(path, tensors, metadata=metadata)
    return weights_id(load_lora(path)[0])


@pytest.fixture(scope="module", autouse=True)
def folder(host) -> Path:
    """Three runs as an artist would have them."""
    place = host.models_dir / "loras" / "attune"
    day = "2026-03-{:02d}T10:00:00+00:00".format
    settings = {"training": {"learning_rate": 0.0003}, "objective": {"steps": 20}}
    common = {"method": "ddpo", "settings": settings, "base_hash": "b" * 16, "data_hash": "d" * 16}
    scores = ((0.21, 0.35), (0.31, 0.44), (0.28, 0.52))
    for number, (held_out, reward) in enumerate(scores, 1):
        metrics = {"held_out_reward": held_out, "reward": reward, "loss": 0.1 / number}
        warm = write(place, f"warm light_{number:03d}", number, date=day(number), metrics=metrics, steps=100 * number,
                     reward="0.7 × PickScore + 0.3 × colourfulness", **common)  # fmt: skip
    changed = common | {
        "method": "dag_db",
        "settings": {"training": {"learning_rate": 0.001}, "objective": {"steps": 20}},
    }
    sharp = write(place, "sharp edges_001", 7, date=day(5), metrics={"held_out_reward": 0.4, "reward": 0.5}, **changed)
    soup = [LoraParent(warm, "", 0.6), LoraParent(sharp, "", 0.4)]
    write(place, "warm and sharp_001", 9, date=day(6), parents=soup, method="merge")
    write(place, "warm and sharp_002", 10, date=day(7), parents=soup, method="merge")
    return place


def open_tab(page: Page) -> Locator:
    button = page.locator(".attune-lora-catalogue-tab-button")
    view = page.locator(".attune-cat")
    if not view.count():
        button.click()
    expect(view).to_have_attribute("data-status", "ready")
    return view


def row(view: Locator, run: str, number: str) -> Locator:
    family = view.locator(".attune-cat-family").filter(has=view.page.get_by_role("heading", name=run, exact=True))
    return family.locator(".attune-cat-row").filter(has=view.page.locator(".attune-cat-number", has_text=number))


def line(view: Locator, run: str, number: str) -> Locator:
    return row(view, run, number).locator(".attune-cat-line")


def keep_picture(page: Page, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")


def test_tags_notes_and_promotions_survive_a_reload(page: Page, page_errors: list[str]):
    view = open_tab(page)
    expect(view.locator(".attune-cat-family h3")).to_have_text(["sharp edges", "warm light", "warm and sharp"])
    line(view, "warm light", "002").click()
    opened = row(view, "warm light", "002")
    expect(opened.locator("dl")).to_contain_text("0.7 × PickScore + 0.3 × colourfulness")
    tag = opened.get_by_label("Add tags, separated by commas")
    tag.fill("poster, soft light")
    tag.press("Enter")
    expect(opened.locator(".attune-cat-details .attune-cat-tag")).to_have_text(["poster", "soft light"])
    tag.fill(MARKUP)
    tag.press("Enter")
    expect(opened.locator(".attune-cat-details .attune-cat-tag")).to_have_count(3)
    opened.get_by_label("Note").fill("The best so far")
    opened.get_by_label("Note").blur()
    opened.get_by_role("button", name="Promote", exact=True).click()
    expect(opened).to_have_class(re.compile("promoted"))
    keep_picture(page, "catalogue_open")
    opened.get_by_role("button", name="Remove the tag <img").click()
    expect(opened.locator(".attune-cat-details .attune-cat-tag")).to_have_count(2)
    line(view, "warm light", "003").click()
    row(view, "warm light", "003").get_by_role("button", name="Promote", exact=True).click()
    expect(row(view, "warm light", "003")).to_have_class(re.compile("promoted"))
    view.get_by_role("button", name="Roll back").click()
    expect(row(view, "warm light", "002")).to_have_class(re.compile("promoted"))
    expect(view.get_by_role("button", name="Roll back")).to_have_count(0)

    page.reload()
    page.wait_for_function("window.app?.graph && window.app?.extensionManager")
    view = open_tab(page)
    expect(row(view, "warm light", "002")).to_have_class(re.compile("promoted"))
    line(view, "warm light", "002").click()
    expect(row(view, "warm light", "002").get_by_label("Note")).to_have_value("The best so far")
    expect(view.locator(".attune-cat-head .attune-cat-tag")).to_have_text(["poster", "soft light"])
    assert page.evaluate("() => window.attuneHacked") is None
    assert page_errors == []


def test_search_and_tags_narrow_the_list(page: Page, page_errors: list[str]):
    view = open_tab(page)
    view.get_by_label("Search the catalogue").fill("dag sharp")
    expect(view.locator(".attune-cat-family h3")).to_have_text(["sharp edges"])
    view.get_by_label("Search the catalogue").fill("nothing like this")
    expect(view.locator(".attune-cat-hint")).to_have_text("Nothing matches the search.")
    view.get_by_label("Search the catalogue").fill("")
    chip = view.locator(".attune-cat-head").get_by_role("button", name="poster")
    chip.click()
    expect(view.locator(".attune-cat-row")).to_have_count(1)
    view.locator(".attune-cat-head").get_by_role("button", name="poster").click()
    expect(view.locator(".attune-cat-row")).to_have_count(6)
    assert page_errors == []


def test_two_are_compared(page: Page, page_errors: list[str]):
    view = open_tab(page)
    for run, number in (("warm light", "003"), ("sharp edges", "001")):
        line(view, run, number).click()
        row(view, run, number).get_by_role("button", name="Compare", exact=True).click()
    keep_picture(page, "catalogue_picked")
    view.get_by_role("button", name="Compare these").click()
    expect(view.locator("h2")).to_have_text("Compare two")
    figures, settings, apart = (view.locator("table").nth(index) for index in range(3))
    expect(figures.locator("tbody tr").first).to_have_text(re.compile(r"Held-out reward0\.280\.4\+0\.12"))
    expect(settings).to_contain_text("training: learning rate")
    expect(apart.locator("tbody tr")).to_have_count(3)
    keep_picture(page, "catalogue_compared")
    view.get_by_role("button", name="All LoRAs").click()
    expect(view.locator(".attune-cat-row")).to_have_count(6)
    assert page_errors == []


def test_what_is_gone_is_named_and_can_be_forgotten_and_long_names_stay_inside(
    page: Page, folder: Path, page_errors: list[str]
):
    long = "a_very_long_name_without_any_blank_" * 3
    for number in (1, 2):
        facts = {"metrics": {"reward": 0.1 * number}, "settings": {"training": {"run": f"{long}{number}"}}}
        write(folder, f"{long}_{number:03d}", 30 + number, method="draft", **facts)
    view = open_tab(page)
    view.get_by_role("button", name="Look into the folder again").click()
    for number in ("001", "002"):
        line(view, long, number).click()
        opened = row(view, long, number)
        opened.get_by_role("button", name="Promote", exact=True).click()
        opened.get_by_role("button", name="Compare", exact=True).click()
    view.get_by_role("button", name="Compare these").click()
    expect(view.locator("table").nth(2)).to_be_visible()
    sideways = """() => [...document.querySelectorAll(".attune-cat, .attune-cat-body, .attune-cat-foot")]
        .filter((found) => found.scrollWidth > found.clientWidth).map((found) => found.className)"""
    assert page.evaluate(sideways) == []
    view.get_by_role("button", name="All LoRAs").click()
    assert page.evaluate(sideways) == []

    (folder / f"{long}_002.safetensors").unlink()
    view.get_by_role("button", name="Look into the folder again").click()
    expect(view.locator(".attune-cat-gone")).to_contain_text(f"Roll back to {long} 001")
    row(view, long, "002").get_by_role("button", name="Forget", exact=True).click()
    expect(row(view, long, "002")).to_have_count(0)
    expect(view.locator(".attune-cat-gone")).to_have_count(0)
    (folder / f"{long}_001.safetensors").unlink()
    view.get_by_role("button", name="Look into the folder again").click()
    line(view, long, "001").click()
    row(view, long, "001").get_by_role("button", name="Forget", exact=True).click()
    expect(view.locator(".attune-cat-row")).to_have_count(6)
    assert page_errors == []


def test_trash_undo_restore_and_empty(page: Page, folder: Path, page_errors: list[str]):
    view = open_tab(page)
    file = folder / "warm light_001.safetensors"
    content = file.read_bytes()
    line(view, "warm light", "001").click()
    row(view, "warm light", "001").get_by_role("button", name="Trash", exact=True).click()
    expect(row(view, "warm light", "001")).to_have_count(0)
    expect(view.get_by_role("status")).to_contain_text("warm light 001 is in the trash.")
    assert not file.exists()
    keep_picture(page, "catalogue_undo")
    view.get_by_role("button", name="Undo").click()
    expect(row(view, "warm light", "001")).to_have_count(1)
    assert file.read_bytes() == content

    nodes = page.evaluate("() => window.app.graph.nodes.length")
    line(view, "warm light", "001").press("Delete")
    expect(row(view, "warm light", "001")).to_have_count(0)
    assert page.evaluate("() => window.app.graph.nodes.length") == nodes
    page.reload()
    page.wait_for_function("window.app?.graph && window.app?.extensionManager")
    view = open_tab(page)
    view.get_by_role("button", name="Trash (1)").click()
    keep_picture(page, "catalogue_trash")
    view.get_by_role("button", name="Restore").click()
    expect(view.locator(".attune-cat-hint")).to_have_text("The trash is empty.")
    assert file.read_bytes() == content

    write(folder, "failed try_001", 20, method="refl")
    view.get_by_role("button", name="All LoRAs").click()
    view.get_by_role("button", name="Look into the folder again").click()
    line(view, "failed try", "001").press("Delete")
    view.get_by_role("button", name="Trash (1)").click()
    view.get_by_role("button", name="Empty trash").click()
    view.get_by_role("button", name="Keep").click()
    view.get_by_role("button", name="Empty trash").click()
    view.get_by_role("button", name="Delete this file for good").click()
    expect(view.locator(".attune-cat-hint")).to_have_text("The trash is empty.")
    assert not list((folder / ".trash").iterdir())
    assert page_errors == []


def test_the_keyboard_goes_through_the_list_and_what_is_typed_stays(page: Page, folder: Path, page_errors: list[str]):
    view = open_tab(page)
    line(view, "sharp edges", "001").focus()
    for _ in range(2):
        page.keyboard.press("ArrowDown")
    expect(line(view, "warm light", "002")).to_be_focused()
    page.keyboard.press("Enter")
    expect(line(view, "warm light", "002")).to_have_attribute("aria-expanded", "true")
    note = row(view, "warm light", "002").get_by_label("Note")
    note.fill("half a sent")
    # What the page hears when a run has ended: the list is read anew, with one LoRA more.
    write(folder, "late_001", 30, method="ddpo")
    page.evaluate("""async () => {
        const { api } = await import("/scripts/api.js");
        api.dispatchEvent(new CustomEvent("attune.training", { detail: { kind: "end" } }));
    }""")
    expect(view.locator(".attune-cat-family h3", has_text="late")).to_have_count(1)
    expect(note).to_be_focused()
    expect(note).to_have_value("half a sent")
    (folder / "late_001.safetensors").unlink()
    view.get_by_role("button", name="Look into the folder again").click()
    expect(view.get_by_text("file missing")).to_have_count(1)
    assert page_errors == []


def test_the_light_theme_is_legible(page: Page, host, page_errors: list[str]):
    host.post("/api/settings", {"Comfy.ColorPalette": "light"})
    try:
        page.reload()
        page.wait_for_function("window.app?.graph && window.app?.extensionManager")
        view = open_tab(page)
        line(view, "warm light", "002").click()
        keep_picture(page, "catalogue_light")
        colours = view.evaluate("(root) => [getComputedStyle(root).color, getComputedStyle(root).backgroundColor]")
        ink, ground = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)
        assert ground - ink > 300, colours
    finally:
        host.post("/api/settings", {"Comfy.ColorPalette": "dark"})
    assert page_errors == []


def test_closing_the_tab_takes_its_listeners_along(page: Page, page_errors: list[str]):
    view = open_tab(page)
    page.locator(".attune-lora-catalogue-tab-button").click()
    expect(view).to_have_count(0)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/attune/catalogue" in request.url else None)
    page.evaluate("""async () => {
        const { api } = await import("/scripts/api.js");
        api.dispatchEvent(new CustomEvent("attune.training", { detail: { kind: "end" } }));
    }""")
    page.wait_for_timeout(1000)
    assert asked == []
    assert page_errors == []
