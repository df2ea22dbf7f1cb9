/**
 * The page inside Commit Round. The only file of it that knows the host's page.
 *
 * The node keeps the session's key and what is about to be said in its properties, which the workflow saves; rounds, pictures
 * and answers are the server's. So all is there again after a reload and after a restart, before anything is run.
 */

import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";
import { shareWithCanvas } from "./canvas_events.js";
import { addPage, makeRoom, onConfigured } from "./node_widget.js";
import { createRequest } from "./requests.js";
import { commitBody, initialState, missing, reduce, saved, savedBy, waits } from "./round_state.js";
import { createRoundPage } from "./round_view.js";

const NODE = "AttuneCommitRound";
const PROPERTY = "attune_round";
const EVENT = "attune.refinement";
const ROUTES = "/attune/refinement";
const HEIGHT = 420;
const WIDTH = 460;

const request = createRequest(api);
/** Every page of this kind; the host keeps only the shown tab's nodes. */
const views = new Set();

function attach(node) {
    let state = initialState();
    let removed = false;
    let turn = Promise.resolve();
    const listening = new AbortController();

    const apply = (action) => {
        if (removed) return;
        state = reduce(state, action);
        const keep = saved(state);
        if (keep) node.properties[PROPERTY] = keep;
        page.render(state);
    };
    const failed = (error) => apply({ kind: error.status === 404 ? "gone" : "failed", text: error.message });
    /** One thing after the other, each from what the one before has left. */
    const inTurn = (work) => (turn = turn.then(() => (removed ? undefined : work())).catch(failed));

    const load = (key, how = {}) => inTurn(async () => {
        const session = await request(`${ROUTES}/session/${key}`);
        apply({ kind: "session", session, ...how });
    });
    const run = () => Promise.resolve(app.queuePrompt(0, 1));
    const tell = (action, body, words, { again = false } = {}) => inTurn(async () => {
        apply({ kind: "busy", what: words });
        try {
            apply({ kind: "session", session: await request(`${ROUTES}/${action}`, body) });
            if (again) await run();
        } catch (error) {
            // Another page has moved the session: show what it is now.
            if (error.status === 409) load(body.key);
            throw error;
        } finally {
            apply({ kind: "busy", what: "" });
        }
    });
    const moved = (extra = {}) => ({ key: state.session.key, revision: state.session.revision, ...extra });
    const doing = {
        refine: () => waits(state) && !missing(state) && tell("commit", commitBody(state, false), "Making the next round …", { again: true }),
        accept: () => waits(state) && tell("commit", commitBody(state, true), "Accepted."),
        again: () => waits(state) && tell("again", moved({ round: state.session.open.key }), "Making other pictures …", { again: true }),
        undo: () => tell("undo", moved(), "", { again: false }),
        redo: () => tell("redo", moved(), "", { again: false }),
        branch: () => state.at && tell("branch", moved({ round: state.at }), "Making the next round from here …", { again: true }),
    };
    const page = createRoundPage(document, {
        onAction: (action) => (doing[action.kind] ? state.session && !state.busy && doing[action.kind]() : apply(action)),
        urlOf: (session, hash, small) => api.apiURL(`${ROUTES}/picture/${session}/${hash}${small ? "?small=1" : ""}`),
    });
    const view = {
        id: () => String(node.id),
        take: (key) => load(key),
        asked: (question) => question.key === state.session?.key && apply({ kind: "question", question }),
        /** Somebody has moved the session, perhaps in another tab. */
        changed({ session, revision }) {
            if (session === state.session?.key && revision !== state.session.revision) load(session, { stay: true });
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
        apply({ kind: "restored", of: before.of, said: before.said });
        load(before.key);
    });
    makeRoom(node, WIDTH);
}

app.registerExtension({
    name: "Attune.CommitRound",
    setup() {
        api.addEventListener("executed", ({ detail }) => {
            const found = detail?.output?.attune_round?.[0];
            const id = String(detail?.display_node ?? detail?.node);
            if (found) for (const view of views) if (view.id() === id) view.take(found.key);
            const question = detail?.output?.attune_question?.[0];
            if (question) for (const view of views) view.asked(question);
        });
        api.addEventListener(EVENT, ({ detail }) => views.forEach((view) => view.changed(detail ?? {})));
        api.addEventListener("reconnected", () => views.forEach((view) => view.refresh()));
    },
    nodeCreated(node) {
        if (node.comfyClass === NODE) attach(node);
    },
});
