/**
 * The live view inside the Train LoRA node. The only file of it that knows the host's page.
 */

import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";
import { choiceOf, switched } from "./live_curves.js";
import { initialState, isActive, isFor, isForNode, reduce, snapshotFor, snapshotOfResult } from "./live_state.js";
import { createView } from "./live_view.js";
import { addPage, makeRoom } from "./node_widget.js";
import { separateCopy, workflowId } from "./workflow_tabs.js";

const NODE = "AttuneTrainLora";
const EVENT = "attune.training";
const HEIGHT = 520;
/** Where a workflow keeps which curves a person switched on or off. */
const CHOICE = "attune_curves";

/** Every live view on the page: {identity(), apply(message), tick()}. The host keeps only the shown tab's nodes. */
const views = new Set();
/** Ids of the workflows in which Run was pressed. */
const queued = new Set();
/** Ids of the nodes that the running prompt does not run again. */
let cached = [];

/** Under which name this tab of the browser remembers whose cached result a node showed, so that a reload shows it again. */
const originKey = ({ workflow, node, run }) => `attune.origin/${workflow}/${node}/${run}`;

function originOf(own) {
    try {
        return sessionStorage.getItem(originKey(own)) ?? "";
    } catch {
        return ""; // a browser may forbid it
    }
}

function rememberOrigin(own, origin) {
    try {
        sessionStorage.setItem(originKey(own), origin);
    } catch (error) {
        console.warn("Attune: a reload will not show this result again.", error);
    }
}

function dispatch(message) {
    for (const view of views) if (isFor(message, view.identity())) view.apply(message);
    // A resumed run's earlier pictures are on the server.
    if (message.kind === "start" && message.step > 0) restore();
}

/** @param {boolean} again whether the server was away meanwhile, and may have forgotten what it did */
async function restore(again = false) {
    let runs;
    try {
        const response = await api.fetchApi("/attune/training/state");
        if (!response.ok) return;
        ({ runs } = await response.json());
    } catch (error) {
        console.warn("Attune: the state of earlier runs could not be read.", error);
        return;
    }
    // A copy is loaded again under an id of its own, and comes back here.
    if (views.size && separateCopy(app)) return;
    for (const view of views) {
        const own = view.identity();
        const snapshot = snapshotFor(Object.values(runs), own, originOf(own));
        if (snapshot) view.apply(snapshot);
        else if (again) view.apply({ kind: "lost" });
    }
}

/**
 * Whether a result that the host brings from its cache is for this view, although another workflow made it. The host hands
 * results to whatever node of that id is shown; one that was made just now belongs only to the workflow that made it.
 */
function isCachedFor(result, own) {
    return result.run === own.run && queued.has(own.workflow) && cached.some((id) => isForNode(id, own.node));
}

async function stopAndSave(identity) {
    try {
        const body = JSON.stringify(identity);
        const headers = { "Content-Type": "application/json" };
        const response = await api.fetchApi("/attune/training/stop", { method: "POST", headers, body });
        if (response.ok) return;
        console.warn("Attune: the run could not be stopped.", (await response.json()).error);
    } catch (error) {
        console.warn("Attune: the run could not be stopped.", error);
    }
    // It may be over already; if not, the button is ready again.
    restore(true);
}

function attach(node) {
    let state = initialState();
    const onStop = () => {
        const asked = state.identity;
        view.apply({ kind: "stopping" });
        stopAndSave(asked);
    };
    const onSwitch = (name, on) => {
        node.setProperty(CHOICE, switched(choiceOf(node.properties?.[CHOICE]), name, on));
        // The host looks for changes before a click takes effect.
        app.extensionManager?.workflow?.activeWorkflow?.changeTracker?.checkState?.();
        draw();
    };
    const page = createView(document, { onStop, onSwitch });
    const draw = () => page.render(state, choiceOf(node.properties?.[CHOICE]), Date.now());
    const view = {
        identity: () => ({
            node: String(node.id),
            workflow: workflowId(app),
            run: String(node.widgets?.find((widget) => widget.name === "run_name")?.value ?? "").trim(),
        }),
        apply(message) {
            state = reduce(state, message, Date.now());
            draw();
        },
        tick: () => isActive(state) && draw(),
    };
    const onRemoved = () => views.delete(view);
    const widget = addPage(node, page, { name: "attune_live", kind: "ATTUNE_LIVE", height: () => HEIGHT, onRemoved });
    widget.beforeQueued = () => queued.add(workflowId(app));
    views.add(view);
    draw();

    const executed = node.onExecuted;
    node.onExecuted = function (output) {
        executed?.apply(this, arguments);
        const own = view.identity();
        const [report] = output?.attune_report ?? [];
        const [job] = output?.attune_job ?? [];
        if (!report && !job) return;
        const result = report
            ? snapshotOfResult(state, JSON.parse(report).live, own.node)
            : { kind: "job", node: own.node, ...JSON.parse(job) };
        const fromCache = !isFor(result, own) && isCachedFor(result, own);
        if (!fromCache && !isFor(result, own)) return;
        if (fromCache && report) rememberOrigin(own, result.workflow);
        view.apply(result);
    };
    makeRoom(node, 420);
}

app.registerExtension({
    name: "Attune.Live",
    setup() {
        api.addEventListener(EVENT, (event) => dispatch(event.detail));
        api.addEventListener("reconnected", () => restore(true));
        api.addEventListener("execution_cached", (event) => (cached = event.detail?.nodes ?? []));
        setInterval(() => {
            // The remaining time goes on falling between two messages.
            views.forEach((view) => view.tick());
            // The host says nothing when a tab is fully open, so that a look at loading time may come too early.
            if (views.size) separateCopy(app);
        }, 1000);
    },
    nodeCreated(node) {
        if (node.comfyClass === NODE) attach(node);
    },
    afterConfigureGraph() {
        if (views.size) restore();
    },
});
