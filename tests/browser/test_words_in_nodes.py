"""The nodes that show words: the formula of Combine Rewards in a real page, with classic nodes and with Nodes 2.0."""

from __future__ import annotations

from playwright.sync_api import Page, expect

ADD = """() => {
    const node = window.LiteGraph.createNode("AttuneCombineRewards");
    window.app.graph.add(node);
    const { ds } = window.app.canvas;
    ds.scale = 1;
    ds.offset = [160 - node.pos[0], 120 - node.pos[1]];
    window.app.canvas.setDirty(true, true);
    return String(node.id);
}"""
SEND = """async ([node, text]) => {
    const { api } = await import("/scripts/api.js");
    api.dispatchCustomEvent("executed", { node, display_node: node, output: { text: [text] }, prompt_id: "a run" });
}"""

STATE = """() => {
    const node = window.app.graph.nodes.find((node) => node.type === "AttuneCombineRewards");
    return [node.size[1], node.computeSize()[1], node.serialize().widgets_values];
}"""


def test_the_formula_stands_in_the_node_as_plain_text(renderer: str, page: Page):
    node = page.evaluate(ADD)
    words = page.locator(".attune-words")
    expect(words).to_have_text("The formula appears here after a run.")
    page.evaluate(SEND, [node, "**0.7·z(<b>A</b>)** + 0.3·z(B)\n\n| rank |\n| ---: |"])
    expect(words).to_have_text("0.7·z(<b>A</b>) + 0.3·z(B)")
    expect(words).to_be_visible()
    size, least, saved = page.evaluate(STATE)
    assert size >= least, "the words lie inside the node"
    assert saved == ["weighted sum", 1, 1, 1, 1, "z-scores", 0, "standard deviations", 10], "words are not saved"
