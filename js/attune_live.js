/**
 * The live view inside the Train LoRA node. The only file of it that knows the host's page.
 */

import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";
import { initialState, isActive, isForNode, reduce } from "./live_state.js";
import { createView } from "./live_view.js";

const NODE = "AttuneTrainLora";
const EVENT = "attune.training";
const HEIGHT = 360;

/** Every live view on the page: {node, apply(message), tick()}. */
const views = new Set();

function dispatch(message) {
    for (const view of views) if (isForNode(message.node, view.node.id)) view.apply(message);
    // A resumed run's earlier pictures are on the server.
    if (message.kind === "start" && message.step > 0) restore();
}

async function restore() {
    let runs;
    try {
        const response = await api.fetchApi("/attune/training/state");
        if (!response.ok) return;
        ({ runs } = await response.json());
    } catch (error) {
        console.warn("Attune: the state of earlier runs could not be read.", error);
        return;
    }
    for (const snapshot of Object.values(runs)) {
        for (const view of views) {
            // Another workflow may use the same node id: its run has another name.
            if (isForNode(snapshot.node, view.node.id) && view.runName() === snapshot.run) view.apply(snapshot);
        }
    }
}

function attach(node) {
    let state = initialState();
    const stop = () => {
        view.apply({ kind: "stopping" });
        api.fetchApi("/interrupt", { method: "POST" });
    };
    const page = createView(document, stop);
    const draw = () => page.render(state, Date.now());
    const view = {
        node,
        runName: () => String(node.widgets?.find((widget) => widget.name === "run_name")?.value ?? ""),
        apply(message) {
            state = reduce(state, message, Date.now());
            draw();
        },
        tick: () => isActive(state) && draw(),
    };
    const widget = node.addDOMWidget("attune_live", "ATTUNE_LIVE", page.root, {
        serialize: false,
        hideOnZoom: false,
        getMinHeight: () => HEIGHT,
        getValue: () => "",
        setValue: () => {},
    });
    widget.serialize = false;
    views.add(view);
    draw();

    const executed = node.onExecuted;
    node.onExecuted = function (output) {
        executed?.apply(this, arguments);
        const text = output?.attune_report?.[0];
        if (text) view.apply({ kind: "snapshot", node: String(node.id), samples: state.samples, elapsed: 0, ...JSON.parse(text).live });
    };
    const removed = node.onRemoved;
    node.onRemoved = function () {
        views.delete(view);
        page.dispose();
        removed?.apply(this, arguments);
    };
    const [width, height] = node.computeSize();
    node.setSize([Math.max(width, 420, node.size[0]), Math.max(height, node.size[1])]);
}

app.registerExtension({
    name: "Attune.Live",
    setup() {
        api.addEventListener(EVENT, (event) => dispatch(event.detail));
        // The remaining time goes on falling between two messages.
        setInterval(() => views.forEach((view) => view.tick()), 1000);
    },
    nodeCreated(node) {
        if (node.comfyClass === NODE) attach(node);
    },
    afterConfigureGraph() {
        if (views.size) restore();
    },
});
