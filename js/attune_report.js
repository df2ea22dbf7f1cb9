/**
 * The timeline inside Session Report. The only file of it that knows the host's page.
 *
 * The node keeps the session's key in its properties, which the workflow saves; the report is the server's, so that it is there
 * again after a reload, and follows the session without another run.
 */

import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";
import { shareWithCanvas } from "./canvas_events.js";
import { createResults } from "./node_results.js";
import { addPage, makeRoom, onConfigured } from "./node_widget.js";
import { comparePath, keyOf, reportPath } from "./report_state.js";
import { createTimeline } from "./report_view.js";
import { createRequest } from "./requests.js";
import { keepShown, separateShown, workflowId } from "./workflow_tabs.js";

const NODE = "AttuneSessionReport";
const PROPERTY = "attune_timeline";
const EVENT = "attune.refinement";
const ROUTES = "/attune/refinement";
const SETTINGS = ["judge", "most_rounds", "figures"];
const HEIGHT = 460;
const WIDTH = 460;
/** Changes come one after the other: the report is asked for once they pause. */
const PAUSE_MILLISECONDS = 250;

const request = createRequest(api);
const results = createResults(request, (output) => keyOf(output?.attune_timeline?.[0]));
const { views } = results;

function attach(node) {
    let removed = false;
    let shown = "";
    let timer = 0;
    const listening = new AbortController();
    const page = createTimeline(document, {
        urlOf: (session, hash, small) => api.apiURL(`${ROUTES}/picture/${session}/${hash}${small ? "?small=1" : ""}`),
        rate: (session, round, rater, stars) => request(`${ROUTES}/rate`, { key: session, round, rater, stars }),
        compare: (session, ends) => request(comparePath(session, ends, settings())),
    });
    const key = () => keyOf(node.properties[PROPERTY]);
    const settings = () => Object.fromEntries(SETTINGS.map((name) =>
        [name, String(node.widgets?.find((each) => each.name === name)?.value ?? "")]));

    async function load() {
        const asked = key();
        if (!asked) return;
        let report;
        try {
            report = await request(reportPath(asked, settings()));
        } catch (error) {
            // What was shown of a session that is gone must not stay; of one that cannot be read now it may.
            if (!removed && asked === key() && (error.status === 404 || !shown)) show(null, { text: error.message, wrong: true });
            return;
        }
        // The session may be another one meanwhile.
        if (!removed && asked === key()) show(report);
    }

    function show(report, told) {
        const text = JSON.stringify(report);
        if (report && text === shown) return;
        shown = report ? text : "";
        page.render(report, told);
    }

    function loadSoon() {
        clearTimeout(timer);
        timer = setTimeout(load, PAUSE_MILLISECONDS);
    }

    const view = {
        identity: () => ({ node: String(node.id), workflow: workflowId(app), kind: node.comfyClass }),
        take(session) {
            if (session !== key()) {
                node.properties[PROPERTY] = { key: session };
                keepShown(app);
            }
            load();
        },
        changed({ session, action }) {
            if (session !== key()) return;
            if (action !== "delete") return loadSoon();
            // Nothing of a deleted session stays in the workflow.
            delete node.properties[PROPERTY];
            show(null, { text: "The session is deleted." });
        },
        loadSoon,
    };
    shareWithCanvas(app, page.root, listening.signal);
    const onRemoved = () => {
        removed = true;
        clearTimeout(timer);
        views.delete(view);
        listening.abort();
    };
    addPage(node, page, { name: PROPERTY, kind: "ATTUNE_TIMELINE", height: () => HEIGHT, onRemoved });
    views.add(view);
    page.render(null);
    for (const name of SETTINGS) onValue(node, name, loadSoon);
    onConfigured(node, () => {
        // A workflow that was saved before the timeline was there has no room for it.
        makeRoom(node, WIDTH);
        load();
    });
    makeRoom(node, WIDTH);
}

/** Do something when a widget gets another value. */
function onValue(node, name, work) {
    const widget = node.widgets?.find((each) => each.name === name);
    if (!widget) return;
    const { callback } = widget;
    widget.callback = function () {
        const answer = callback?.apply(this, arguments);
        work();
        return answer;
    };
}

app.registerExtension({
    name: "Attune.SessionReport",
    setup() {
        api.addEventListener("executed", results.received);
        api.addEventListener(EVENT, ({ detail }) => views.forEach((view) => view.changed(detail ?? {})));
        api.addEventListener("reconnected", () => views.forEach((view) => view.loadSoon()));
        // The host says nothing when a tab is fully open.
        setInterval(() => views.size && separateShown(app), 1000);
    },
    nodeCreated(node) {
        if (node.comfyClass === NODE) attach(node);
    },
    afterConfigureGraph() {
        results.restore();
    },
});
