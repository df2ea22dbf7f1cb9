/**
 * What the last run said, inside the nodes that `NODES` lists: the formula of Combine Rewards, the figures of Calibrate
 * Reward, what Rank and Keep Best kept and Safety Gate blocked. The only file of it that knows the host's page.
 */

import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";
import { addPage, makeRoom } from "./node_widget.js";
import { NODES, inOrder, isFor, mayHaveWords, recordOfRun, resultOf, wordsOf } from "./run_results.js";
import { remembered } from "./score_gallery_state.js";
import { separateShown, workflowId } from "./workflow_tabs.js";

const WIDTH = 300;
/** What the host takes off a widget's height. */
const MARGINS = 20;
const STYLE =
    "box-sizing: border-box; width: 100%; height: 100%; min-height: 36px; overflow: auto; border-radius: 8px; padding: 6px 8px; " +
    "background: #1e1f22; color: #e8e9ec; font: 12px/1.35 system-ui, sans-serif; white-space: pre-wrap; overflow-wrap: anywhere; " +
    "user-select: text;";

/** Every such box on the page: {identity(), show(result)}. The host keeps only the shown tab's nodes. */
const boxes = new Set();
/** The newest result per node and workflow, of all tabs. */
let results = [];
/** The run that was asked about last, and the answer: a run has many results. */
let asked = { id: "", record: undefined };

async function read(path) {
    const response = await api.fetchApi(path);
    if (!response.ok) throw new Error(`${path}: ${response.status}`);
    return response.json();
}

async function recordOf(id) {
    if (asked.id === id && asked.record) return asked.record;
    try {
        asked = { id, record: await recordOfRun(read, id) };
    } catch (error) {
        console.warn("Attune: the host did not say whose run this is.", error);
        asked = { id, record: undefined };
    }
    return asked.record;
}

/** The host hands a result to whatever node of that id is shown; this one goes to the workflow that was run. */
const received = inOrder(async (detail) => {
    const result = resultOf(detail, await recordOf(detail.prompt_id));
    // Other nodes have a text too.
    if (result.kind && !NODES[result.kind]) return;
    results = remembered(results, result);
    for (const box of boxes) if (isFor(result, box.identity())) box.show(result);
});

/** Fill the boxes of a workflow whose tab is shown again. */
function restore() {
    for (const box of boxes) {
        const own = box.identity();
        const result = results.findLast((earlier) => earlier.workflow && earlier.workflow === own.workflow && isFor(earlier, own));
        if (result) box.show(result);
    }
}

function attach(node, { hint, height: least, scrolls }) {
    const root = document.createElement("div");
    root.className = "attune-words";
    root.style.cssText = STYLE;
    root.textContent = hint;
    if (scrolls) {
        // In Nodes 2.0 a box is as high as its content, unless its size is its own; and the wheel is the canvas'.
        root.classList.add("widget-expands");
        root.style.containerType = "size";
        root.style.minHeight = `${least - MARGINS}px`;
        root.dataset.captureWheel = "true";
    }
    const box = {
        identity: () => ({ node: String(node.id), workflow: workflowId(app), kind: node.comfyClass }),
        show(result) {
            root.textContent = wordsOf(node.comfyClass, result.output) ?? root.textContent;
        },
    };
    boxes.add(box);
    const onRemoved = () => boxes.delete(box);
    addPage(node, { root }, { name: "attune_words", kind: "ATTUNE_WORDS", height: () => least, onRemoved });
    makeRoom(node, WIDTH);
}

app.registerExtension({
    name: "Attune.Words",
    setup() {
        api.addEventListener("executed", ({ detail }) => {
            if (mayHaveWords(detail?.output)) received(detail);
        });
        // The host says nothing when a tab is fully open.
        setInterval(() => boxes.size && separateShown(app), 1000);
    },
    nodeCreated(node) {
        const shown = NODES[node.comfyClass];
        if (shown) attach(node, shown);
    },
    afterConfigureGraph() {
        restore();
    },
});
