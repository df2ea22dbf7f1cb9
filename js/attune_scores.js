/**
 * The table inside the Score Images node. Shows the last result as the node's output holds it:
 * attune_scores: [{rank: number, image: number, score: string, prompt: string}], best first.
 */

import { app } from "/scripts/app.js";

const NODE = "AttuneScoreImages";
const COLUMNS = ["rank", "image", "score"];
const HEIGHT = 150;

// In Nodes 2.0 the box around a widget is as high as its content, hence the least height: HEIGHT without the host's margins.
const CSS = `
.attune-scores { box-sizing: border-box; width: 100%; height: 100%; min-height: 130px; overflow: auto; border-radius: 8px; padding: 4px 8px;
  background: #1e1f22; color: #e8e9ec; font: 12px/1.35 system-ui, sans-serif; }
.attune-scores table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
.attune-scores th { position: sticky; top: -4px; background: #1e1f22; color: #9a9fa8; font-weight: 500; }
.attune-scores th, .attune-scores td { padding: 2px 8px 2px 0; text-align: right; white-space: nowrap; }
.attune-scores :is(th, td):last-child { width: 100%; max-width: 0; padding: 2px 0 2px 8px; text-align: left;
  overflow: hidden; text-overflow: ellipsis; }
.attune-scores tbody tr:first-child { color: #f0b254; }
.attune-scores-hint { color: #9a9fa8; }
.attune-scores-prompt { overflow-wrap: anywhere; }
.attune-scores .alike { width: auto; }
.attune-scores .alike :is(th, td) { width: auto; max-width: none; padding: 2px 16px 2px 0; text-align: right; }
`;

function injectStyle() {
    if (document.getElementById("attune-scores-style")) return;
    const style = document.createElement("style");
    style.id = "attune-scores-style";
    style.textContent = CSS;
    document.head.append(style);
}

function row(cell, texts) {
    const line = document.createElement("tr");
    for (const text of texts) {
        const field = document.createElement(cell);
        field.textContent = String(text);
        field.title = String(text);
        line.append(field);
    }
    return line;
}

function render(root, rows) {
    if (!rows.length) {
        const hint = document.createElement("div");
        hint.className = "attune-scores-hint";
        hint.textContent = "The scores appear here after a run.";
        root.replaceChildren(hint);
        return;
    }
    const [table, head, body] = ["table", "thead", "tbody"].map((name) => document.createElement(name));
    // One prompt for all pictures is read once, in full, instead of cut short in every row.
    const alike = rows.every((entry) => entry.prompt === rows[0].prompt);
    const columns = alike ? COLUMNS : [...COLUMNS, "prompt"];
    const prompt = document.createElement("div");
    prompt.className = "attune-scores-prompt";
    prompt.textContent = alike ? rows[0].prompt : "";
    table.className = alike ? "alike" : "";
    head.append(row("th", columns));
    body.append(...rows.map((entry) => row("td", columns.map((name) => entry[name]))));
    table.append(head, body);
    root.replaceChildren(prompt, table);
}

function attach(node) {
    injectStyle();
    const root = document.createElement("div");
    root.className = "attune-scores";
    render(root, []);
    const widget = node.addDOMWidget("attune_scores", "ATTUNE_SCORES", root, {
        serialize: false,
        hideOnZoom: false,
        getMinHeight: () => HEIGHT,
        getValue: () => "",
        setValue: () => {},
    });
    widget.serialize = false;
    const executed = node.onExecuted;
    node.onExecuted = function (output) {
        executed?.apply(this, arguments);
        if (Array.isArray(output?.attune_scores)) render(root, output.attune_scores);
    };
    const [width, height] = node.computeSize();
    node.setSize([Math.max(width, 360, node.size[0]), Math.max(height, node.size[1])]);
}

app.registerExtension({
    name: "Attune.Scores",
    nodeCreated(node) {
        if (node.comfyClass === NODE) attach(node);
    },
});
