/**
 * The line inside the Safety Gate node. Shows what the last run found, as the node's output holds it:
 * attune_safety: [string], e.g. "2 of 8 images blocked: images 1, 5".
 */

import { app } from "/scripts/app.js";

const NODE = "AttuneSafetyGate";
const HEIGHT = 48;
const STYLE =
    "box-sizing: border-box; width: 100%; height: 100%; min-height: 36px; overflow: auto; border-radius: 8px; padding: 6px 8px; " +
    "background: #1e1f22; color: #e8e9ec; font: 12px/1.35 system-ui, sans-serif; overflow-wrap: anywhere;";

function attach(node) {
    const root = document.createElement("div");
    root.className = "attune-safety";
    root.style.cssText = STYLE;
    root.textContent = "What was blocked appears here after a run.";
    const widget = node.addDOMWidget("attune_safety", "ATTUNE_SAFETY", root, {
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
        if (Array.isArray(output?.attune_safety)) root.textContent = output.attune_safety.join("\n");
    };
}

app.registerExtension({
    name: "Attune.Safety",
    nodeCreated(node) {
        if (node.comfyClass === NODE) attach(node);
    },
});
