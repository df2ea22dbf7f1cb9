/**
 * The page inside Commit Round. The only file of it that knows the host's page.
 *
 * The node keeps the session's key and what is about to be said in its properties, which the workflow saves; rounds, pictures
 * and answers are the server's. So all is there again after a reload and after a restart, before anything is run.
 */

import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";
import { shareWithCanvas } from "./canvas_events.js";
import { createResults } from "./node_results.js";
import { addPage, makeRoom, onConfigured } from "./node_widget.js";
import { createRequest } from "./requests.js";
import { commitBody, initialState, missing, questionOf, reduce, saved, savedBy, waits } from "./round_state.js";
import { createRoundPage } from "./round_view.js";
import { choicesAfter, renamedIn } from "./session_names.js";
import { keepShown, separateShown, workflowId } from "./workflow_tabs.js";

const NODE = "AttuneCommitRound";
const SESSION_NODE = "AttuneRefinementSession";
const PROPERTY = "attune_round";
const EVENT = "attune.refinement";
const ROUTES = "/attune/refinement";
/** What a person says, and is asked, in the page. */
const SAYING = new Set(["like", "dislike", "comment", "rate", "answer", "question"]);
/** Milliseconds after the last of it. */
const KEEP_AFTER = 1500;
const HEIGHT = 420;
const WIDTH = 460;

const request = createRequest(api);
const results = createResults(request, (output) => output?.attune_round?.[0]?.key ?? null);
const { views } = results;
/** What was asked last about each session, by its key: a node that is shown again finds it here. */
const questions = new Map();

function hear(question) {
    if (question.text) questions.set(question.key, question);
    else questions.delete(question.key);
    views.forEach((view) => view.asked(question));
}

function* nodesOf(graph) {
    for (const node of graph?.nodes ?? []) {
        yield node;
        yield* nodesOf(node.subgraph);
    }
}

/** The nodes of the shown workflow that mean a session by its earlier name would begin another one by it. */
function follow(before, after) {
    for (const node of nodesOf(app.rootGraph ?? app.graph)) {
        if (node.comfyClass !== SESSION_NODE) continue;
        const box = (name) => node.widgets?.find((each) => each.name === name);
        const said = { session: String(box("session")?.value ?? ""), new_name: String(box("new_name")?.value ?? "") };
        const now = renamedIn(said, before, after);
        if (!now) continue;
        const { options } = box("session") ?? {};
        if (Array.isArray(options?.values)) options.values = choicesAfter(options.values, before, after);
        for (const name of Object.keys(now)) {
            if (now[name] === said[name]) continue;
            box(name).value = now[name];
            box(name).callback?.(now[name]);
        }
    }
}

function attach(node) {
    let state = initialState();
    let removed = false;
    let waiting = 0;
    let turn = Promise.resolve();
    const listening = new AbortController();

    const apply = (action) => {
        if (removed) return;
        const { of } = state;
        state = reduce(state, action);
        const keep = saved(state);
        if (keep) node.properties[PROPERTY] = keep;
        page.render(state);
        if (SAYING.has(action.kind) || (action.kind === "session" && state.of !== of)) keepSoon();
    };
    /** The host looks for changes after clicks and its own keys, not after what is typed here. */
    const keepSoon = () => {
        clearTimeout(waiting);
        waiting = setTimeout(() => removed || keepShown(app), KEEP_AFTER);
    };
    const take = (session, how = {}) => {
        const before = savedBy(node.properties[PROPERTY]);
        apply({ kind: "session", session, question: questions.get(session.key) ?? null, ...how });
        // It was renamed since: here, in another tab, or before this workflow was opened.
        if (before?.key === session.key && before.name && before.name !== session.name) follow(before.name, session.name);
    };
    const failed = (error) => apply({ kind: error.status === 404 ? "gone" : "failed", text: error.message });
    /** One thing after the other, each from what the one before has left. */
    const inTurn = (work) => (turn = turn.then(() => (removed ? undefined : work())).catch(failed));

    const load = (key, how = {}) => inTurn(async () => {
        const session = await request(`${ROUTES}/session/${key}`);
        take(session, how);
    });
    const run = () => Promise.resolve(app.queuePrompt(0, 1));
    const tell = (action, body, words, { again = false } = {}) => inTurn(async () => {
        apply({ kind: "busy", what: words });
        try {
            take(await request(`${ROUTES}/${action}`, body));
            if (again) await run();
        } catch (error) {
            // Another page has moved the session: show what it is now, and what was said of it.
            if (error.status === 409) load(body.key, { error: error.message });
            throw error;
        } finally {
            apply({ kind: "busy", what: "" });
        }
    });
    const rename = (name) => inTurn(async () => {
        if (name.trim() === state.session.name) return apply({ kind: "rest" });
        const session = await request(`${ROUTES}/rename`, { key: state.session.key, name });
        apply({ kind: "rest" });
        return take(session, { stay: true });
    });
    const erase = () => inTurn(async () => {
        const { key } = state.session;
        apply({ kind: "busy", what: "Deleting …" });
        forget(await request(`${ROUTES}/delete`, { key }));
    });
    /** Nothing of a deleted session stays in the workflow. */
    const forget = ({ key, left }) => {
        if (state.session && state.session.key !== key) return;
        questions.delete(key);
        delete node.properties[PROPERTY];
        apply({ kind: "deleted", left });
    };
    const moved = (extra = {}) => ({ key: state.session.key, revision: state.session.revision, ...extra });
    const doing = {
        refine: () => waits(state) && !missing(state) && tell("commit", commitBody(state, false), "Making the next round …", { again: true }),
        accept: () => waits(state) && tell("commit", commitBody(state, true), "Accepted."),
        again: () => waits(state) && tell("again", moved({ round: state.session.open.key }), "Making other pictures …", { again: true }),
        undo: () => tell("undo", moved(), "", { again: false }),
        redo: () => tell("redo", moved(), "", { again: false }),
        rename: ({ name }) => rename(name),
        delete: erase,
        answer: (action) => {
            questions.delete(state.session.key);
            apply(action);
        },
        branch: () => state.at && tell("branch", moved({ round: state.at }), "Making the next round from here …", { again: true }),
    };
    const page = createRoundPage(document, {
        onAction: (action) => (doing[action.kind] ? state.session && !state.busy && doing[action.kind](action) : apply(action)),
        urlOf: (session, hash, small) => api.apiURL(`${ROUTES}/picture/${session}/${hash}${small ? "?small=1" : ""}`),
    });
    const view = {
        identity: () => ({ node: String(node.id), workflow: workflowId(app), kind: node.comfyClass }),
        take(key) {
            if (savedBy(node.properties[PROPERTY])?.key !== key) {
                node.properties[PROPERTY] = { key };
                keepShown(app);
            }
            load(key);
        },
        asked: (question) => question.key === state.session?.key && apply({ kind: "question", question }),
        /** Somebody has moved, renamed or deleted the session, perhaps in another tab. */
        changed({ action, session, revision }) {
            if (session !== state.session?.key) return;
            if (action === "delete") forget({ key: session, left: "" });
            else if (["rename", "propose"].includes(action) || revision !== state.session.revision) load(session, { stay: true });
        },
        refresh: () => state.session && load(state.session.key, { stay: true }),
    };
    shareWithCanvas(app, page.root, listening.signal);
    const onRemoved = () => {
        removed = true;
        views.delete(view);
        listening.abort();
    };
    addPage(node, page, { name: PROPERTY, kind: "ATTUNE_ROUND", height: () => HEIGHT, onRemoved });
    views.add(view);
    page.render(state);
    onConfigured(node, () => {
        const before = savedBy(node.properties[PROPERTY]);
        if (!before) return;
        // What was asked since, while another workflow was shown, is newer.
        if (before.question && !questions.has(before.key)) questions.set(before.key, before.question);
        apply({ kind: "restored", ...before });
        load(before.key);
    });
    makeRoom(node, WIDTH);
}

app.registerExtension({
    name: "Attune.CommitRound",
    setup() {
        api.addEventListener("executed", (event) => {
            results.received(event);
            const question = questionOf(event.detail?.output);
            if (question) hear(question);
        });
        api.addEventListener(EVENT, ({ detail }) => views.forEach((view) => view.changed(detail ?? {})));
        api.addEventListener("reconnected", () => views.forEach((view) => view.refresh()));
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
