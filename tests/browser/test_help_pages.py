"""The help of an objective, opened as people open it: by the button over the selected node."""

from __future__ import annotations

from playwright.sync_api import Page, expect

SELECT = """(type) => {
    const node = window.LiteGraph.createNode(type);
    window.app.graph.add(node);
    const { canvas } = window.app;
    canvas.ds.scale = 1;
    canvas.ds.offset = [700 - node.pos[0], 200 - node.pos[1]];
    canvas.selectNode(node);
    canvas.setDirty(true, true);
}"""


def test_help_of_an_objective_shows_its_picture(page: Page):
    page.evaluate(SELECT, "AttuneReFLObjective")
    page.get_by_test_id("info-button").click()
    panel = page.locator(".node-help-content")
    picture = panel.locator("img")
    expect(picture).to_be_visible()
    page.wait_for_function("() => document.querySelector('.node-help-content img').complete")
    assert picture.evaluate("(image) => [image.naturalWidth, image.naturalHeight]") == [720, 360]
    assert picture.evaluate("(image) => image.clientWidth <= image.closest('.node-help-content').clientWidth")
    table = panel.locator("h2", has_text="Which objective?").locator("xpath=following-sibling::table[1]")
    expect(table.locator("tbody tr")).to_have_count(9)
    table.scroll_into_view_if_needed()
    assert table.evaluate("(table) => table.clientWidth <= table.closest('.node-help-content').clientWidth")
