/**
 * What the last run said, inside the node: the formula of Combine Rewards, the figures of Calibrate Reward, and what
 * Rank and Keep Best kept. The node's output holds it as text: [string], in Markdown; its tables are left to the output
 * "report".
 */

import { app } from "/scripts/app.js";

const HINTS = {
    AttuneCalibrateReward: "The figures appear here after a run.",
    AttuneCombineRewards: "The formula appears here after a run.",
    AttuneRankAndKeepBest: "What was kept appears here after a run.",
};
const HEIGHT = 66;
const WIDTH = 300;
const STYLE =
    "box-sizing: border-box; width: 100%; height: 100%; min-height: 54px; overflow: auto; border-radius: 8px; padding: 6px 8px; " +
    "background: #1e1f22; color: #e8e9ec; font: 12px/1.35 system-ui, sans-serif; white-space: pre-wrap; overflow-wrap: anywhere; " +
    "user-select: text;";

/** Markdown as plain lines: without marks, empty lines and tables. */
function plain(text) {
    const lines = String(text).replaceAll("**", "").split("\n");
    return lines.filter((line) => line.trim() && !line.startsWith("|")).join("\n");
}

function attach(node, hint) {
    const root = document.createElement("div");
    root.className = "attune-words";
    root.style.cssText = STYLE;
    root.textContent = hint;
    const widget = node.addDOMWidget("attune_words", "ATTUNE_WORDS", root, {
        serialize: false,
        hideOnZoom: false,
        getMinHeight: () => HEIGHT,
        getValue: () => "",
        setValue: () => {},
    });
    widget.serialize = false;
    // The node has taken its size before the widget came; classic nodes would leave it hanging below.
    const [width, height] = node.computeSize();
    node.setSize([Math.max(node.size[0], width, WIDTH), Math.max(node.size[1], height)]);
    const executed = node.onExecuted;
    node.onExecuted = function (output) {
        executed?.apply(this, arguments);
        if (Array.isArray(output?.text)) root.textContent = output.text.map(plain).join("\n");
    };
}

app.registerExtension({
    name: "Attune.Words",
    nodeCreated(node) {
        const hint = HINTS[node.comfyClass];
        if (hint) attach(node, hint);
    },
});
