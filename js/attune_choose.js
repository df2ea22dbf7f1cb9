/**
 * The questions inside the Choose Images node. The only file of it that knows the host's page.
 *
 * The node keeps the keys of its questions in its properties, which the workflow saves; pictures and decisions are the
 * server's. So the questions are there again after a reload and after a restart, before anything is run.
 */

import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";
import { createOutbox, Unanswered } from "./outbox.js";
import { shareWithCanvas } from "./canvas_events.js";
import { answerOf, askedBy, current, initialState, outputOf, parting, reduce, undoOf } from "./choose_state.js";
import { createPicker } from "./choose_view.js";
import { addPage, keepLow, makeRoom, onConfigured } from "./node_widget.js";
import { createRequest, PATIENCE_MILLISECONDS } from "./requests.js";
import { isFor, recordOfRun, resultOf } from "./run_results.js";
import { remembered } from "./score_gallery_state.js";
import { keepShown, separateShown, workflowId } from "./workflow_tabs.js";

const NODE = "AttuneChooseImages";
const PROPERTY = "attune_choose";
const EVENT = "attune.preferences";
const BOX_HEIGHT = 60;
const HEIGHT = 380;
const WIDTH = 460;
const IDLE_MILLISECONDS = 1500;
const ROUTES = "/attune/preferences";

const request = createRequest(api);
/** Every picker on the page; the host keeps only the shown tab's nodes. */
const views = new Set();
/** What runs told last, per node and workflow, of all tabs. */
let results = [];
let serial = 0;
/** What the server told of this page's own answers, so that its event about them asks for nothing. */
const own = new Set();
const nameOf = (profile, revision, question) => `${profile} ${revision} ${question}`;
/** The page's answers, of all nodes: they outlive the node in which they were given, which goes with its tab. */
const outbox = createOutbox({
    post: send,
    onChange: () => views.forEach((view) => view.unsent()),
    onRefused: (item, error) => views.forEach((view) => view.refused(item, error)),
    replaces: () => false,
});

/** Hand an answer, or the taking back of one, to the server. Both do nothing a second time. */
async function send(item, leaving) {
    const { profile, question } = item;
    // Other requests end with the page.
    const how = { keepalive: leaving, signal: leaving ? undefined : AbortSignal.timeout(PATIENCE_MILLISECONDS) };
    let answer;
    if (item.kind === "undo") {
        const decision = item.decision || item.of?.made;
        if (!decision) return;
        answer = await request(`${ROUTES}/undo`, { profile, decision }, how);
        // It was taken back already: what stands is not said.
        answer.question ??= (await request(`${ROUTES}/questions`, { profile, questions: [question] }, how)).questions[0];
    } else {
        item.attempted = true;
        const said = item.stars ? { stars: item.stars } : { choice: item.choice };
        answer = await request(`${ROUTES}/decide`, { profile, question, ...said }, how);
        item.made = answer.question.decision?.id;
    }
    if (!answer.question) return;
    own.add(nameOf(profile, answer.profile.revision, question));
    views.forEach((view) => view.answered(answer));
}

/** What a run told goes to the node of the workflow that was run, in whichever tab it is. */
function hand(result, asked, more) {
    results = remembered(results, { ...result, asked });
    for (const view of views) if (isFor(result, view.identity())) view.take(asked, more);
}

async function executed({ detail }) {
    const asked = outputOf(detail?.output);
    if (!asked) return;
    let record;
    try {
        record = await recordOfRun(request, detail.prompt_id);
    } catch (error) {
        console.warn("Attune: the host did not say whose run this is.", error);
    }
    hand(resultOf(detail, record), asked, { finished: true });
}

async function changed({ detail }) {
    if (detail?.action !== "ask") {
        views.forEach((view) => view.changed(detail));
        return;
    }
    const asked = askedBy(detail);
    if (!asked) return;
    // The run that asks is the one that runs.
    const record = await request("/queue").then((queue) => queue.queue_running?.[0], () => undefined);
    hand(resultOf({ node: detail.node, output: {} }, record), asked, { waits: Boolean(detail.waits) });
}

/** Bring the pickers of a workflow whose tab is shown again up to date. */
function restore() {
    for (const view of views) {
        const own = view.identity();
        const result = results.findLast((earlier) => earlier.workflow && earlier.workflow === own.workflow && isFor(earlier, own));
        if (result) view.take(result.asked, {});
    }
}

function attach(node) {
    let state = initialState();
    let removed = false;
    /** What was asked for in vain while the server was away. */
    let missed = new Set();
    const listening = new AbortController();

    const apply = (action) => {
        if (removed) return;
        state = reduce(state, action);
        page.render(state);
    };
    const failed = (error, work) => {
        if (error instanceof Unanswered && work) missed.add(work);
        if (error.status === 404) apply({ kind: "gone", text: error.message });
        else apply({ kind: "failed", text: error.message });
    };
    /** Answers and questions go one after the other, so that each knows of those before it. */
    const later = (work) => outbox.inTurn(() => (removed ? undefined : work())).catch((error) => removed || failed(error, work));
    const unsent = () => outbox.all().filter(({ profile }) => profile === state.profile?.key);
    const load = (more) => later(async () => {
        const asked = askedBy(node.properties[PROPERTY]);
        if (!asked) return;
        const { profile, questions } = asked;
        const found = await request(`${ROUTES}/questions`, { profile, questions });
        // Another run may have asked something else meanwhile.
        if (asked.questions.join() !== askedBy(node.properties[PROPERTY])?.questions.join()) return;
        apply({ kind: "questions", ...found, missing: found.missing.length, ran: asked.revision, ...more });
        apply({ kind: "unsent", items: unsent(), unanswered: outbox.unanswered() });
        if ("waits" in more) apply({ kind: "waits", on: more.waits });
    });
    const say = ({ choice, stars }) => {
        const question = state.at;
        const stay = Boolean(stars) && !current(state)?.open;
        const item = answerOf(state, stars ? { stars } : { choice });
        if (item) outbox.add({ ...item, serial: (serial += 1) });
        apply({ kind: "advance", question, stay });
    };
    const undo = () => {
        const item = undoOf(state);
        if (!item) return;
        if (item.of && !item.of.attempted) outbox.drop([item.of]);
        else outbox.add({ ...item, serial: (serial += 1) });
        apply({ kind: "undone", question: item.question });
    };
    const runAgain = async () => {
        apply({ kind: "queued", on: true });
        await outbox.flush();
        if (outbox.unanswered()) return apply({ kind: "queued", on: false });
        // What goes wrong in the queue the host shows itself.
        return Promise.resolve(app.queuePrompt(0, 1)).then(
            (taken) => taken === false && apply({ kind: "queued", on: false }),
            (error) => apply({ kind: "failed", text: error.message }),
        );
    };
    const more = () => later(async () => {
        const { key } = state.profile;
        apply({ kind: "more", ...(await request(`${ROUTES}/waiting?profile=${key}&limit=500`)) });
    });
    const doing = { say, undo, more, run: runAgain };
    const page = createPicker(document, {
        onAction: (action) => (doing[action.kind] ?? apply)(action),
        urlOf: (path) => api.apiURL(path),
    });
    const view = {
        identity: () => ({ node: String(node.id), workflow: workflowId(app), kind: node.comfyClass }),
        take(asked, how) {
            if (JSON.stringify(node.properties[PROPERTY]) !== JSON.stringify(asked)) {
                node.properties[PROPERTY] = asked;
                keepShown(app);
            }
            load(how);
        },
        answered: (answer) => apply({ kind: "answered", ...answer }),
        /** Another tab has decided, taken back, renamed or deleted. */
        changed({ profile, revision, question, action }) {
            if (profile !== state.profile?.key) return;
            if (!state.questions.some(({ key }) => key === question)) {
                if (action !== "decide" && action !== "undo") load({});
                return;
            }
            later(async () => {
                if (own.delete(nameOf(profile, revision, question))) return;
                const found = await request(`${ROUTES}/questions`, { profile, questions: [question] });
                if (found.questions[0]) apply({ kind: "answered", profile: found.profile, question: found.questions[0] });
            });
        },
        unsent() {
            apply({ kind: "unsent", items: unsent(), unanswered: outbox.unanswered() });
            if (!outbox.unanswered()) view.again();
        },
        refused({ profile, question }, error) {
            if (profile !== state.profile?.key) return;
            if (error.status === 404) {
                load({}).then(() => apply({ kind: "failed", text: error.message }));
                return;
            }
            apply({ kind: "undone", question });
            apply({ kind: "failed", text: error.message });
        },
        again() {
            const works = missed;
            missed = new Set();
            works.forEach(later);
        },
        refresh: () => load({}),
        idle() {
            if (state.waits) apply({ kind: "waits", on: false });
            if (state.queued) apply({ kind: "queued", on: false });
        },
    };
    shareWithCanvas(app, page.root, listening.signal);
    const onRemoved = () => {
        removed = true;
        views.delete(view);
        listening.abort();
    };
    addPage(node, page, { name: PROPERTY, kind: "ATTUNE_CHOOSE", height: () => HEIGHT, onRemoved });
    views.add(view);
    page.render(state);
    keepLow(node, ["prompts"], BOX_HEIGHT);
    onConfigured(node, () => load({}));
    makeRoom(node, WIDTH);
}

app.registerExtension({
    name: "Attune.ChooseImages",
    setup() {
        api.addEventListener("executed", executed);
        api.addEventListener(EVENT, changed);
        api.addEventListener("status", ({ detail }) => {
            // What the last run told is being asked for.
            if (detail?.exec_info?.queue_remaining === 0) setTimeout(() => views.forEach((view) => view.idle()), IDLE_MILLISECONDS);
        });
        api.addEventListener("reconnected", () => {
            outbox.flush();
            views.forEach((view) => view.refresh());
        });
        window.addEventListener("pagehide", () => parting(outbox.all()).forEach((item) => send(item, true).catch(() => {})));
        // The host says nothing when a tab is fully open.
        setInterval(() => views.size && separateShown(app), 1000);
    },
    nodeCreated(node) {
        if (node.comfyClass === NODE) attach(node);
    },
    afterConfigureGraph() {
        restore();
    },
});
