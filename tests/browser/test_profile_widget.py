"""The profiles in the Preference Profile node: how much is in them, renaming, deleting, and what another page sees."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Locator, Page, expect

from attune.nodes.preferences.embedding import PreferenceEmbedding
from attune.tests.browser.conftest import READY_MILLISECONDS
from attune.tests.host.choices import light_and_dark, put_choices, put_questions, store_of
from attune.tests.hosting import HostServer

PICTURES = Path(__file__).resolve().parents[2] / ".host" / "screenshots"
MARKUP = "<img src=x onerror=attuneHacked=1>"
ADD = """async (name) => {
    const { LiteGraph, app } = window;
    app.graph.clear();
    const node = LiteGraph.createNode("AttunePreferenceProfile");
    app.graph.add(node);
    node.widgets.find((each) => each.name === "profile").value = name;
    await app.loadGraphData(app.graph.serialize(), true, true, app.extensionManager.workflow.activeWorkflow);
    const made = app.graph.nodes[0];
    const { ds } = app.canvas;
    ds.scale = 1.2;
    ds.offset = [160 - made.pos[0], 160 - made.pos[1]];
    app.canvas.setDirty(true, true);
}"""
VALUES = """() => {
    const node = window.app.graph.nodes[0];
    const { profile, new_name } = Object.fromEntries(node.widgets.map((each) => [each.name, each]));
    return { profile: profile.value, new_name: new_name.value, listed: profile.options.values,
             saved: node.serialize().widgets_values, height: node.size[1], least: node.computeSize()[1] };
}"""


@pytest.fixture(scope="module", autouse=True)
def profiles(host: HostServer) -> None:
    """One with choices, one with questions that wait, one that was imported, one whose name is markup."""
    put_choices(host, "Ann", light_and_dark(12, seed=1))
    put_questions(host, "Ann", light_and_dark(3, seed=2))
    put_questions(host, "client A", light_and_dark(2, seed=3))
    store = store_of(host)
    store.create(MARKUP)
    store.adopt("warm light", [PreferenceEmbedding(torch.ones(2, 4), "set:x", choices=6)])
    store.store.close()


def names(host: HostServer) -> list[str]:
    return [entry["name"] for entry in host.get("/attune/preferences/profiles")["profiles"]]


def line(page: Page) -> Locator:
    return page.locator(".attune-profile")


def listed(page: Page) -> Locator:
    return page.locator("dialog.attune-profiles")


def row(page: Page, name: str) -> Locator:
    return listed(page).locator(".attune-profile-row").filter(has=page.get_by_text(name, exact=True))


def values(page: Page) -> dict[str, Any]:
    return page.evaluate(VALUES)


def keep_picture(page: Page, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")


def other_page(page: Page, host: HostServer, page_errors: list[str]) -> Page:
    other = page.context.new_page()
    other.on("pageerror", lambda error: page_errors.append(str(error)))
    other.goto(host.url, timeout=READY_MILLISECONDS)
    other.wait_for_function("window.app?.graph && window.app?.extensionManager", timeout=READY_MILLISECONDS)
    return other


def choices_in_the_node(page: Page, name: str) -> None:
    """The node's own list offers a profile that was made after the page was opened, and does not call it missing."""
    expect(page.locator(".lg-node").get_by_role("combobox").first).to_have_text(name)
    colours = page.locator(".lg-node [role=combobox]").first.evaluate(
        "(box) => [getComputedStyle(box).color, getComputedStyle(document.querySelector('.lg-node input')).color]"
    )
    assert colours[0] == colours[1], "red is for what is not listed"
    page.locator(".lg-node").get_by_role("combobox").first.click()
    expect(page.get_by_role("option", name=name, exact=True)).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("option").first).to_be_hidden()


def test_profiles_are_chosen_renamed_and_deleted(
    renderer: str, page: Page, host: HostServer, page_errors: list[str]
):  # fmt: skip
    name = f"Carla {renderer}"
    profile = put_choices(host, name, light_and_dark(5, seed=len(renderer)))
    page.evaluate(ADD, name)
    expect(line(page)).to_have_count(1)
    expect(line(page)).to_contain_text(f"{name}5 choices")
    found = values(page)
    assert found["height"] >= found["least"] and found["saved"] == [name, ""], "the line lies inside, and is not saved"
    other = other_page(page, host, page_errors)
    other.evaluate(ADD, name)
    expect(line(other)).to_contain_text("5 choices")
    assert name in values(page)["listed"]
    if renderer == "Nodes 2.0":
        choices_in_the_node(page, name)
    keep_picture(page, f"profile_line_{renderer}")

    line(page).get_by_role("button", name="Profiles").click()
    expect(row(page, "Ann")).to_contain_text("12 choices  ·  3 waiting")
    expect(row(page, "client A")).to_contain_text("0 choices  ·  2 waiting")
    expect(row(page, "warm light")).to_contain_text("an imported taste")
    expect(row(page, name)).to_have_class(re.compile("used"))
    keep_picture(page, f"profile_list_{renderer}")

    # Another name: both pages show it, and their nodes follow.
    before = page.evaluate("() => window.app.graph.nodes.length")
    row(page, name).get_by_role("button", name=f"Rename {name}").click()
    typed = listed(page).get_by_role("textbox")
    expect(typed).to_be_focused()
    typed.fill("Ann")
    page.keyboard.press("Enter")
    expect(listed(page)).to_contain_text("Another profile is called 'Ann'")
    expect(typed).to_have_value("Ann")
    keep_picture(page, f"profile_rename_{renderer}")
    typed.fill(f"{name} at work")
    page.keyboard.press("Delete")
    page.keyboard.press("Enter")
    expect(row(page, f"{name} at work")).to_have_count(1)
    assert f"{name} at work" in names(host) and name not in names(host)
    for tab in (page, other):
        expect(line(tab)).to_contain_text(f"{name} at work5 choices")
        assert values(tab)["profile"] == f"{name} at work" and f"{name} at work" in values(tab)["listed"]
    assert page.evaluate("() => window.app.graph.nodes.length") == before, "keys are the list's alone"
    if renderer == "Nodes 2.0":
        choices_in_the_node(other, f"{name} at work")

    # Deleting asks first, and says what goes.
    row(page, f"{name} at work").get_by_role("button", name="Delete").click()
    asked = listed(page).locator(".attune-profile-warning")
    expect(asked).to_contain_text("Gone for good: its 5 choices and the pictures that no other profile uses.")
    expect(asked).to_contain_text(
        "LoRAs that were trained from it and files that you exported stay. This cannot be undone."
    )
    expect(listed(page).get_by_role("button", name="Keep it")).to_be_focused()
    keep_picture(page, f"profile_delete_{renderer}")
    page.keyboard.press("Escape")
    expect(asked).to_have_count(0)
    expect(listed(page)).to_be_visible()
    assert f"{name} at work" in names(host)
    row(page, f"{name} at work").get_by_role("button", name="Delete").click()
    listed(page).get_by_role("button", name="Delete for good").click()
    expect(row(page, f"{name} at work")).to_have_count(0)
    expect(listed(page)).to_contain_text("Deleted.")
    assert f"{name} at work" not in names(host)
    for tab in (page, other):
        expect(line(tab)).to_contain_text("is not there any more: choose another")
    keep_picture(page, f"profile_deleted_{renderer}")
    for file in (host.user_dir / "attune").rglob("*"):
        assert not file.is_file() or profile.key.encode() not in file.read_bytes(), file.name

    # The other page goes on with another profile.
    line(other).get_by_role("button", name="Profiles").click()
    row(other, "warm light").get_by_role("button", name="warm light").first.click()
    expect(listed(other)).to_have_count(0)
    expect(line(other)).to_contain_text("warm lightan imported taste")
    assert values(other)["profile"] == "warm light" and values(other)["saved"] == ["warm light", ""]
    page.keyboard.press("Escape")
    expect(listed(page)).to_have_count(0)
    assert page.evaluate("() => window.attuneHacked") is None
    assert page.locator("img[onerror]").count() == 0
    assert page_errors == []


def test_a_workflow_that_was_saved_before_follows_a_new_name(page: Page, host: HostServer, page_errors: list[str]):
    put_choices(host, "Dora", light_and_dark(2, seed=8))
    page.evaluate(ADD, "Dora")
    expect(line(page)).to_contain_text("2 choices")
    saved = page.evaluate("() => window.app.graph.serialize()")
    line(page).get_by_role("button", name="Profiles").click()
    row(page, "Dora").get_by_role("button", name="Rename Dora").click()
    listed(page).get_by_role("textbox").fill("Dorothea")
    listed(page).get_by_role("button", name="Save").click()
    expect(row(page, "Dorothea")).to_have_count(1)
    listed(page).get_by_role("button", name="Close").click()
    open_again = (
        "(graph) => window.app.loadGraphData(graph, true, true, window.app.extensionManager.workflow.activeWorkflow)"
    )
    page.evaluate(open_again, saved)
    expect(line(page)).to_contain_text("Dorothea2 choices")
    assert values(page)["profile"] == "Dorothea"
    assert page_errors == []


def test_an_earlier_name_that_is_typed_again_is_another_profile(
    renderer: str, page: Page, host: HostServer, page_errors: list[str]
):  # fmt: skip
    name = f"Frida {renderer}"
    first = put_choices(host, name, light_and_dark(2, seed=20 + len(renderer)))
    page.evaluate(ADD, "Ann")
    expect(line(page)).to_contain_text("Ann")
    type_name = "(name) => { window.app.graph.nodes[0].widgets.find((each) => each.name === 'new_name').value = name; }"
    page.evaluate(type_name, name)
    expect(line(page)).to_contain_text("2 choices")
    page.wait_for_timeout(1000)
    host.post("/attune/preferences/rename", {"profile": first.key, "name": f"{name} before"})
    expect(line(page)).to_contain_text(f"{name} before2 choices")
    assert values(page)["new_name"] == f"{name} before", "the name stood there while the profile got another"

    page.evaluate(type_name, name)
    expect(line(page)).to_contain_text("is made by the next run")
    with page.expect_response("**/attune/preferences/profiles"):
        host.post("/attune/preferences/create", {"name": f"someone {renderer}"})
    page.wait_for_timeout(1000)
    assert values(page)["new_name"] == name, "no list takes it to the profile that had it once"
    saved = page.evaluate("() => window.app.graph.serialize()")
    page.evaluate(
        "(graph) => window.app.loadGraphData(graph, true, true, window.app.extensionManager.workflow.activeWorkflow)",
        saved,
    )
    expect(line(page)).to_contain_text("is made by the next run")
    page.wait_for_timeout(1000)
    assert values(page)["new_name"] == name, "nor does opening the workflow again, or its tab"
    assert page_errors == []


def test_a_profile_that_another_page_has_deleted_and_a_server_that_is_away(
    page: Page, host: HostServer, page_errors: list[str]
):
    put_choices(host, "Emil", light_and_dark(1, seed=9))
    page.evaluate(ADD, "Emil")
    line(page).get_by_role("button", name="Profiles").click()
    expect(row(page, "Emil")).to_have_count(1)
    page.route("**/attune/preferences/rename", lambda route: route.abort())
    row(page, "Emil").get_by_role("button", name="Rename Emil").click()
    listed(page).get_by_role("textbox").fill("Emilia")
    page.keyboard.press("Enter")
    expect(listed(page)).to_contain_text("The server does not answer.")
    expect(listed(page).get_by_role("textbox")).to_have_value("Emilia")
    page.unroute("**/attune/preferences/rename")
    page.keyboard.press("Escape")
    row(page, "Emil").get_by_role("button", name="Delete Emil").click()
    store = store_of(host)
    store.delete(store.find("Emil").key)  # as another program would, telling no page
    store.store.close()
    listed(page).get_by_role("button", name="Delete for good").click()
    expect(listed(page)).to_contain_text("This profile is not there any more")
    expect(row(page, "Emil")).to_have_count(0)
    assert page_errors == []
