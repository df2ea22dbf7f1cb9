/**
 * How much is in the profile of a Preference Profile node, and the list of all of them: to choose, rename and delete. The only
 * file of it that knows the host's page.
 */

import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";
import { shareWithCanvas } from "./canvas_events.js";
import { addPage, makeRoom, onConfigured } from "./node_widget.js";
import { choicesOf, disowning, followed, initialState, meant, reduce, remembering, renamed } from "./profile_state.js";
import { createProfiles } from "./profile_view.js";
import { createRequest } from "./requests.js";

const NODE = "AttunePreferenceProfile";
const EVENT = "attune.preferences";
const ROUTES = "/attune/preferences";
/** The widgets that name a profile. */
const NAMES = ["profile", "new_name"];
const HEIGHT = 52;
const WIDTH = 320;
/** Choices come one after the other: the list is asked for once they pause. */
const PAUSE_MILLISECONDS = 150;

const request = createRequest(api);
/** Every such node on the page; the host keeps only the shown tab's nodes. */
const views = new Set();
/** The server's list as it was told last and before, and every name that a profile has had meanwhile. */
let known = null;
let before = null;
let seen = [];
let asking = null;
let timer = 0;

/** Take a list of the server to all nodes. */
function take(profiles) {
    [before, known] = [known, profiles];
    seen = remembering(seen, profiles);
    views.forEach((view) => view.take());
}

/** Ask the server, once for all that want it now. */
function load() {
    asking ??= request(`${ROUTES}/profiles`)
        .then(({ profiles }) => take(profiles), (error) => views.forEach((view) => view.failed(error)))
        .finally(() => {
            asking = null;
        });
    return asking;
}

function loadSoon() {
    clearTimeout(timer);
    timer = setTimeout(() => views.size && load(), PAUSE_MILLISECONDS);
}

/** The list after something that was asked of the server before may be the one from before. */
async function loadAnew() {
    await asking;
    await load();
}

function attach(node) {
    let state = initialState();
    let removed = false;
    /** Its values have just been read from a workflow, which may know a profile by an earlier name. */
    let opened = false;
    /** What its widgets held when the list was told last. */
    let held = {};
    const listening = new AbortController();
    /** Every list of choices that the node has had. */
    const lists = new Set();
    const widget = (name) => node.widgets?.find((each) => each.name === name);
    const valueOf = (name) => String(widget(name)?.value ?? "");

    const apply = (action) => {
        if (removed) return;
        state = reduce(state, action);
        page.render(state);
    };
    const look = () => {
        if (opened && known) follow((name) => followed(seen, known, name));
        const [name, newName] = NAMES.map(valueOf);
        if (name === state.name && newName === state.newName) return;
        apply({ kind: "node", name, newName });
        if (!known) return;
        for (const typed of [name, newName]) seen = disowning(seen, known, typed);
        // The next list finds the name in the node, which goes with its profile from then on.
        if (meant({ profiles: known, name, newName })) loadSoon();
    };
    const set = (name, value) => {
        const box = widget(name);
        if (!box || box.value === value) return;
        box.value = value;
        box.callback?.(value);
        app.extensionManager?.workflow?.activeWorkflow?.changeTracker?.checkState?.();
    };
    const follow = (nameNow) => {
        opened = false;
        for (const name of NAMES) set(name, nameNow(valueOf(name), name));
    };
    /** What there is to choose from in the node, which the host else reads at a refresh of the page. */
    const list = (box) => {
        const listed = box?.options?.values;
        if (!Array.isArray(listed)) return;
        const names = choicesOf(listed, known, box.value);
        if (names.join("\n") === listed.join("\n")) return;
        // Nodes 2.0 copies the options: at first anew when the list of widgets changes, and compares what it finds; after a
        // value was set no more, but what it copied last holds the list that was the widget's then.
        lists.add(listed);
        for (const each of lists) each.splice(0, each.length, ...names);
        box.options.values = names;
        node.widgets.push(node.widgets.pop());
    };
    /** Ask for a change; the list comes with it, or is asked for afterwards. */
    const change = async (action, body, note = () => "") => {
        if (state.busy) return;
        apply({ kind: "busy" });
        try {
            const answer = await request(`${ROUTES}/${action}`, body);
            if (answer.profiles) take(answer.profiles);
            else await loadAnew();
            apply({ kind: "done", note: note(answer) });
        } catch (error) {
            apply({ kind: "failed", text: error.message });
            // It may be gone since, by another tab.
            if (error.status === 404) loadAnew();
        }
    };
    const doing = {
        open: () => load(),
        use: ({ name }) => {
            set("new_name", "");
            set("profile", name);
            look();
            page.close();
        },
        rename: ({ key, name }) => {
            const same = state.profiles?.some((profile) => profile.key === key && profile.name === name.trim());
            return same ? apply({ kind: "rest" }) : change("rename", { profile: key, name });
        },
        delete: ({ key }) => change("delete", { profile: key }, ({ note }) => note || "Deleted."),
    };
    const page = createProfiles(document, { onAction: (action) => (doing[action.kind] ?? apply)(action) });
    const view = {
        look,
        take() {
            if (removed) return;
            if (!opened) follow((value, name) => renamed(before, known, held[name], value));
            look();
            list(widget("profile"));
            held = Object.fromEntries(NAMES.map((name) => [name, valueOf(name)]));
            apply({ kind: "profiles", profiles: known });
        },
        failed: (error) => apply({ kind: "failed", text: error.message }),
    };
    shareWithCanvas(app, page.root, listening.signal);
    const onRemoved = () => {
        removed = true;
        views.delete(view);
        listening.abort();
    };
    addPage(node, page, { name: "attune_profile", kind: "ATTUNE_PROFILES", height: () => HEIGHT, onRemoved });
    views.add(view);
    page.render(state);
    look();
    onConfigured(node, () => {
        opened = true;
    });
    makeRoom(node, WIDTH);
    if (known) apply({ kind: "profiles", profiles: known });
    loadSoon();
}

app.registerExtension({
    name: "Attune.Profile",
    setup() {
        api.addEventListener(EVENT, ({ detail }) => detail?.action !== "ask" && loadSoon());
        // A run makes the profile that is named for the first time.
        api.addEventListener("executed", ({ detail }) => views.size && detail?.output && loadSoon());
        api.addEventListener("reconnected", loadSoon);
        // What is typed or chosen in the node the host tells in as many ways as it has of drawing nodes.
        setInterval(() => views.forEach((view) => view.look()), 400);
    },
    nodeCreated(node) {
        if (node.comfyClass === NODE) attach(node);
    },
});
