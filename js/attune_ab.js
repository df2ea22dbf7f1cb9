/**
 * The blind test inside the A/B Test node. The only file of it that knows the host's page.
 *
 * The node keeps the id of its test in its properties, which the workflow saves; pairs and votes are the server's. So the test
 * is there again after a reload and after a restart, before anything is run.
 */

import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";
import { createOutbox, Unanswered } from "./outbox.js";
import { initialState, messageOf, reduce, testOf } from "./ab_state.js";
import { createTest } from "./ab_view.js";
import { shareWithCanvas } from "./canvas_events.js";
import { createResults } from "./node_results.js";
import { addPage, keepLow, makeRoom, onConfigured } from "./node_widget.js";
import { createRequest, PATIENCE_MILLISECONDS } from "./requests.js";
import { keepShown, separateShown, workflowId } from "./workflow_tabs.js";

const NODE = "AttuneABTest";
const PROPERTY = "attune_ab";
const BOXES = ["prompts", "negative"];
const BOX_HEIGHT = 70;
const HEIGHT = 360;
const WIDTH = 460;

const request = createRequest(api);
const results = createResults(request, (output) => testOf(output) || null);
/** Every test on the page, besides what `createResults` asks for: {unsent(), refused(vote, error), again()}. */
const { views } = results;
/** The page's votes, of all tests: they outlive the node in which they were given, which goes with its tab. */
const outbox = createOutbox({
    post: ({ test, pair, side }, leaving) =>
        request("/attune/ab/vote", { test, pair, side }, {
            // Other requests end with the page.
            keepalive: leaving,
            signal: leaving ? undefined : AbortSignal.timeout(PATIENCE_MILLISECONDS),
        }),
    onChange: () => views.forEach((view) => view.unsent()),
    onRefused: (vote, error) => views.forEach((view) => view.refused(vote, error)),
});

function attach(node) {
    let state = initialState();
    let removed = false;
    /** What was asked for in vain while the server was away. */
    let missed = new Set();
    /** Some votes arrive later than a result that was asked for after them. */
    let late = false;
    const listening = new AbortController();

    const apply = (action) => {
        const before = state;
        state = reduce(state, action);
        page.render(state);
        // What stands is asked for when it is looked at.
        const looking = state.test && state.showing === "result";
        const same = before.showing === "result" && before.test === state.test && before.pairs === state.pairs;
        const arrived = late && state.unsent.length === 0;
        late = state.unanswered || (late && !arrived);
        if (looking && (!same || arrived)) later(askResult);
    };
    /** Votes, loads and results go one after the other, so that each knows of those before it. */
    const later = (work) =>
        outbox.inTurn(() => (removed ? undefined : work())).catch((error) => {
            if (removed) return;
            if (error instanceof Unanswered) missed.add(work);
            apply({ kind: "failed", text: error.message });
        });
    const askResult = async () => {
        const { test } = state;
        apply({ kind: "result", result: await request(`/attune/ab/result/${test}`) });
    };
    const load = (test, ran) => later(() => reload(test, ran));
    const reload = async (test, ran) => {
        // Another run may have brought another test meanwhile.
        if (test !== node.properties[PROPERTY]) return;
        const shown = await request(`/attune/ab/test/${test}`);
        apply({ kind: "test", shown, ran, unsent: outbox.of(test), unanswered: outbox.unanswered() });
    };
    const act = (action) => {
        const message = messageOf(state, action);
        if (message) {
            const before = state.pairs.find(({ key }) => key === message.pair)?.choice ?? null;
            outbox.add({ test: state.test, ...message, before });
        }
        apply(action);
    };
    const page = createTest(document, {
        onAction: act,
        onForget: () => {
            const { test } = state;
            const given = outbox.of(test);
            // Done even if the node is gone by then.
            const forgotten = outbox.inTurn(async () => {
                await request("/attune/ab/forget", { test });
                outbox.drop(given);
            });
            forgotten.then(() => load(test, false), (error) => removed || apply({ kind: "failed", text: error.message }));
        },
        urlOf: (path) => api.apiURL(path),
    });
    const view = {
        identity: () => ({ node: String(node.id), workflow: workflowId(app), kind: node.comfyClass }),
        take(test) {
            if (node.properties[PROPERTY] !== test) {
                node.properties[PROPERTY] = test;
                keepShown(app);
            }
            load(test, true);
        },
        unsent() {
            apply({ kind: "unsent", votes: outbox.of(state.test), unanswered: outbox.unanswered() });
            if (!outbox.unanswered()) view.again();
        },
        refused({ test, pair, before }, error) {
            if (test !== state.test) return;
            apply({ kind: "unsent", votes: outbox.of(test), unanswered: false });
            apply({ kind: "refused", pair, before, text: error.message });
            // What the server has is looked up, and what it said stays to be read.
            const said = () => apply({ kind: "failed", text: error.message });
            later(() => reload(test, false).then(said, said));
        },
        again() {
            const works = missed;
            missed = new Set();
            works.forEach(later);
        },
    };
    shareWithCanvas(app, page.root, listening.signal);
    const onRemoved = () => {
        removed = true;
        views.delete(view);
        listening.abort();
    };
    addPage(node, page, { name: "attune_ab", kind: "ATTUNE_AB", height: () => HEIGHT, onRemoved });
    views.add(view);
    page.render(state);
    keepLow(node, BOXES, BOX_HEIGHT);
    onConfigured(node, () => {
        const test = node.properties?.[PROPERTY];
        if (typeof test === "string" && /^[0-9a-f]{32}$/.test(test)) load(test, false);
    });
    makeRoom(node, WIDTH);
}

app.registerExtension({
    name: "Attune.ABTest",
    setup() {
        api.addEventListener("executed", results.received);
        api.addEventListener("reconnected", () => {
            outbox.flush();
            views.forEach((view) => view.again());
        });
        window.addEventListener("pagehide", () => outbox.leave());
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
