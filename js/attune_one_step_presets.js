/**
 * "Fast and rough" and "Long and good" in Diff-Instruct* Objective: two buttons that set it and the Train LoRA behind it. The
 * only file of it that knows the host's page.
 */

import { app } from "/scripts/app.js";
import { shareWithCanvas } from "./canvas_events.js";
import { addPage, keepLow, makeRoom } from "./node_widget.js";
import { applied, inputsOf, PRESETS, timeText, trainersBehind } from "./one_step_presets.js";
import { button, element } from "./score_gallery_parts.js";

const NODE = "AttuneDiffInstructObjective";
const HEIGHT = 112;
const WIDTH = 340;
const HINT = "Sets this node and the Train LoRA behind it. reward_weight and cfg stay as they are.";
const STYLE = `
.attune-starts { display: flex; flex-direction: column; gap: 6px; box-sizing: border-box; width: 100%; height: 100%;
  min-height: 92px; padding: 8px; border-radius: 8px; background: #1e1f22; color: #9a9fa8;
  font: 12px/1.35 system-ui, sans-serif; overflow: hidden; }
.attune-starts-row { flex: none; display: flex; gap: 6px; }
.attune-starts button { flex: 1; height: 26px; box-sizing: border-box; border: 0; padding: 0 8px; border-radius: 5px;
  background: #36393e; color: #e8e9ec; font: inherit; white-space: nowrap; cursor: pointer; }
.attune-starts button:hover { background: #45494f; }
.attune-starts button:focus-visible { outline: 2px solid #9cc7ff; outline-offset: 1px; }
.attune-starts p { margin: 0; overflow-wrap: anywhere; }
.attune-starts p.wrong { color: #f0b254; }
`;

function injectStyle() {
    if (document.getElementById("attune-starts-style")) return;
    const style = document.createElement("style");
    style.id = "attune-starts-style";
    style.textContent = STYLE;
    document.head.append(style);
}

/** What the page's undo goes back by: everything that changed since it looked last. */
function remember() {
    app.extensionManager?.workflow?.activeWorkflow?.changeTracker?.checkState?.();
}

function set(node, changes) {
    for (const [name, value] of Object.entries(changes)) {
        const widget = node.widgets.find((each) => each.name === name);
        widget.value = value;
        widget.callback?.(value, app.canvas, node);
    }
}

function attach(node) {
    injectStyle();
    const listening = new AbortController();
    const note = element(document, "p", "", HINT);
    note.setAttribute("role", "status");
    const press = (preset) => {
        const trainers = trainersBehind(node);
        const found = applied(preset, inputsOf(node), trainers.map(inputsOf));
        remember();
        set(node, found.objective);
        trainers.forEach((trainer, place) => set(trainer, found.trainers[place]));
        remember();
        app.canvas?.setDirty?.(true, true);
        note.textContent = found.text;
        note.classList.toggle("wrong", found.wrong);
    };
    const buttons = PRESETS.map((preset) => {
        const made = button(document, "", preset.name, `${preset.about}: ${timeText(preset)}`);
        made.addEventListener("click", () => press(preset), { signal: listening.signal });
        return made;
    });
    const root = element(document, "div", "attune-starts", element(document, "div", "attune-starts-row", ...buttons), note);
    shareWithCanvas(app, root, listening.signal);
    const onRemoved = () => listening.abort();
    addPage(node, { root }, { name: "attune_starts", kind: "ATTUNE_STARTS", height: () => HEIGHT, onRemoved });
    keepLow(node, ["attune_starts", "negative"], HEIGHT);
    makeRoom(node, WIDTH);
}

app.registerExtension({
    name: "Attune.OneStepStarts",
    nodeCreated(node) {
        if (node.comfyClass === NODE) attach(node);
    },
});
