/**
 * The gallery inside the Score Images node. The only file of it that knows the host's page.
 */

import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";
import { shareWithCanvas } from "./canvas_events.js";
import { addPage, keepLow, makeRoom, onConfigured } from "./node_widget.js";
import { inOrder, isFor, recordOfRun } from "./run_results.js";
import { choiceText, galleryOf, initialState, originOf, reduce, remembered, resultsIn, viewPath } from "./score_gallery_state.js";
import { createGallery } from "./score_gallery_view.js";
import { separateShown, workflowId } from "./workflow_tabs.js";

const NODE = "AttuneScoreImages";
const CHOICE = "discarded";
const PROMPT = "prompt";
const PROMPT_HEIGHT = 100;
const HEIGHT = 320;
const WIDTH = 420;
/** Runs of the host's history to look through after a reload. */
const RUNS = 32;

/** Every gallery on the page: {identity(), show(result), isEmpty(), follow()}. The host keeps only the shown tab's nodes. */
const galleries = new Set();
/** The newest result per node and workflow, of all tabs: {node, workflow, gallery, used}. */
let results = [];
/** Workflows whose runs before the reload were asked for. */
const asked = new Set();

async function read(path) {
    const response = await api.fetchApi(path);
    if (!response.ok) throw new Error(`${path}: ${response.status}`);
    return response.json();
}

/** Whose a run is. */
async function originOfRun(id, node) {
    try {
        return originOf(await recordOfRun(read, id), node);
    } catch (error) {
        console.warn("Attune: the host did not say whose run this is.", error);
        return originOf(undefined, node);
    }
}

/** The host hands a result to whatever node of that id is shown; this one goes to the workflow that was run. */
const received = inOrder(async (detail) => {
    const gallery = galleryOf(detail?.output);
    if (!gallery) return;
    const node = String(detail.display_node ?? detail.node);
    const result = { node, gallery, ...(await originOfRun(detail.prompt_id, String(detail.node))) };
    results = remembered(results, result);
    for (const view of galleries) if (isFor(result, view.identity())) view.show(result);
});

/** Fill the galleries of a workflow that was just opened, or opened again. */
async function restore() {
    if (!galleries.size) return;
    galleries.forEach((view) => view.follow());
    const workflow = workflowId(app);
    if (workflow && !asked.has(workflow)) {
        asked.add(workflow);
        try {
            const earlier = resultsIn(await read(`/history?max_items=${RUNS}`), workflow);
            // What this page saw itself is newer.
            results = [...results].reduce(remembered, earlier.reduce(remembered, []));
        } catch (error) {
            console.warn("Attune: the host's earlier runs could not be read.", error);
        }
    }
    for (const view of galleries) {
        const own = view.identity();
        const result = results.findLast((earlier) => earlier.workflow && earlier.workflow === own.workflow && isFor(earlier, own));
        if (result && view.isEmpty()) view.show(result);
    }
}

/**
 * The gallery writes this widget, nobody else. Classic nodes look at `hidden` and `computeSize`, Nodes 2.0 at the option.
 */
function hide(widget) {
    widget.hidden = true;
    widget.options = { ...widget.options, hidden: true };
    widget.computeSize = () => [0, -4];
}

/** A hidden widget must not catch a link either. */
function removeSlot(node) {
    const slot = node.inputs?.findIndex((input) => input.widget?.name === CHOICE && input.link == null) ?? -1;
    if (slot >= 0) node.removeInput(slot);
}

function attach(node) {
    let state = initialState();
    const listening = new AbortController();
    const choice = node.widgets?.find((widget) => widget.name === CHOICE);

    const apply = (action) => {
        state = reduce(state, action);
        page.render(state);
    };
    const follow = () => apply({ kind: "choice", text: choice?.value });
    const write = () => {
        const text = choiceText(state);
        if (!choice || choice.value === text) return;
        choice.value = text;
        choice.callback?.(text);
        node.graph?.setDirtyCanvas(true, true);
        // The host looks for changes when the mouse goes up, which is before the click.
        app.extensionManager?.workflow?.activeWorkflow?.changeTracker?.checkState?.();
    };
    const page = createGallery(
        document,
        (action) => {
            apply(action);
            write();
        },
        (file) => api.apiURL(viewPath(file)),
    );
    const view = {
        identity: () => ({ node: String(node.id), workflow: workflowId(app) }),
        isEmpty: () => !state.images.length,
        follow,
        show(result) {
            follow();
            apply({ ...result, kind: "result" });
        },
    };
    shareWithCanvas(app, page.root, listening.signal);
    const onRemoved = () => {
        galleries.delete(view);
        listening.abort();
    };
    addPage(node, page, { name: "attune_gallery", kind: "ATTUNE_GALLERY", height: () => HEIGHT, onRemoved });
    galleries.add(view);
    page.render(state);
    keepLow(node, [PROMPT], PROMPT_HEIGHT);

    if (choice) {
        hide(choice);
        removeSlot(node);
        const called = choice.callback;
        choice.callback = function () {
            called?.apply(this, arguments);
            follow();
        };
    }
    onConfigured(node, () => {
        removeSlot(node);
        follow();
    });
    makeRoom(node, WIDTH);
}

app.registerExtension({
    name: "Attune.Scores",
    setup() {
        api.addEventListener("executed", ({ detail }) => received(detail));
        // The host says nothing when a tab is fully open.
        setInterval(() => galleries.size && separateShown(app), 1000);
    },
    nodeCreated(node) {
        if (node.comfyClass === NODE) attach(node);
    },
    afterConfigureGraph() {
        restore();
    },
});
