/**
 * The profiles that the Preference Profile node lists: what is shown, said, and being typed. Runs under Node.
 *
 * @typedef {{key: string, name: string, choices: number, skipped: number, waiting: number, embeddings: number, imported: number}} Profile  as
 *          the server's routes give it (nodes/preferences/nodes_routes.py)
 * @typedef {{profiles: Profile[]|null, name: string, newName: string, editing: string, deleting: string, busy: boolean,
 *            note: string, wrong: boolean}} State   profiles = null until the server has answered; name, newName = of the
 *          node's widgets; editing, deleting = key of the profile whose name is typed, or that is asked about
 */

/** Always among the choices, and made where it is first used: as in nodes/preferences/choosing.py. */
export const FIRST_NAME = "my taste";

/** @returns {State} */
export function initialState() {
    return { profiles: null, name: "", newName: "", editing: "", deleting: "", busy: false, note: "", wrong: false };
}

/** @returns {State} */
export function reduce(state, action) {
    switch (action.kind) {
        case "profiles": {
            const there = (key) => (action.profiles.some((profile) => profile.key === key) ? key : "");
            const [editing, deleting] = [there(state.editing), there(state.deleting)];
            return { ...state, profiles: action.profiles, editing, deleting };
        }
        case "node":
            return { ...state, name: action.name, newName: action.newName };
        case "edit":
            return { ...state, editing: action.key, deleting: "", note: "", wrong: false };
        case "ask":
            return { ...state, editing: "", deleting: action.key, note: "", wrong: false };
        case "rest":
            return { ...state, editing: "", deleting: "", note: "", wrong: false };
        case "busy":
            return { ...state, busy: true, note: "", wrong: false };
        case "done":
            return { ...state, busy: false, editing: "", deleting: "", note: action.note ?? "", wrong: false };
        case "failed":
            return { ...state, busy: false, note: action.text, wrong: true };
        default:
            return state;
    }
}

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

/** Names differ in more than the case of their letters. */
const folded = (name) => name.trim().toLowerCase();

/** The profile that the node means; null = there is none of that name (yet). */
export function meant({ profiles, name, newName }) {
    const wanted = folded(newName) || folded(name);
    return profiles?.find((profile) => folded(profile.name) === wanted || profile.key === name) ?? null;
}

/** How much is in a profile. */
export function countsText({ choices, skipped, waiting, imported }) {
    const parts = [imported && !choices ? "an imported taste" : plural(choices, "choice")];
    if (skipped) parts.push(`${skipped} skipped`);
    if (waiting) parts.push(`${waiting} waiting`);
    return parts.join("  ·  ");
}

/** The node's line: {name, text, wrong}. */
export function lineOf(state) {
    const profile = meant(state);
    if (profile) return { name: profile.name, text: countsText(profile), wrong: false };
    if (!state.profiles) return { name: "", text: state.wrong ? state.note : "", wrong: state.wrong };
    if (state.newName.trim()) return { name: state.newName.trim(), text: "is made by the next run", wrong: false };
    const name = state.name.trim();
    if (folded(name) === FIRST_NAME) return { name, text: "no choices yet", wrong: false };
    return { name, text: "is not there any more: choose another", wrong: true };
}

/** What goes when a profile is deleted, and what stays. */
export function deletionText({ choices, skipped, waiting, embeddings }) {
    const others = skipped + waiting;
    const goes = [choices ? `its ${plural(choices, "choice")}` : "", others ? `${plural(others, "question")} without one` : ""];
    if (choices || others) goes.push("the pictures that no other profile uses");
    if (embeddings) goes.push("what was learned of it");
    const named = goes.filter(Boolean);
    const list = named.length > 1 ? `${named.slice(0, -1).join(", ")} and ${named.at(-1)}` : named[0];
    const first = list ? `Gone for good: ${list}.` : "There is nothing in it.";
    return `${first} LoRAs that were trained from it and files that you exported stay. This cannot be undone.`;
}

/**
 * What becomes of a name that was read from a workflow: a renamed profile is the same one.
 * @param {{key: string, name: string}[]} seen   every name that a profile has had, the newest last
 * @param {Profile[]} now
 * @param {string} name   in a widget
 * @returns {string} the name it has now
 */
export function followed(seen, now, name) {
    const known = seen.findLast((profile) => folded(profile.name) === folded(name));
    // Another profile may have taken the name since: then that one is meant.
    if (!known || now.some((profile) => folded(profile.name) === folded(name))) return name;
    return now.find((profile) => profile.key === known.key)?.name ?? name;
}

/**
 * What becomes of a name in a node when the list is read anew: it goes with a profile that was renamed while it stood there.
 * One that was typed since may be another person's, who is to have a profile of that name.
 * @param {{key: string, name: string}[]|null} before   the list that was read before; null = none
 * @param {Profile[]} now
 * @param {string|undefined} held   what the widget held when `before` was read
 * @param {string} name   in the widget
 * @returns {string} the name it has now
 */
export function renamed(before, now, held, name) {
    return before && held === name ? followed(before, now, name) : name;
}

/** `seen` without a name that was typed and that no profile has: from now on it is not the one that had it before. */
export function disowning(seen, now, name) {
    const has = (profiles) => profiles.some((profile) => folded(profile.name) === folded(name));
    return has(now) || !has(seen) ? seen : seen.filter((profile) => folded(profile.name) !== folded(name));
}

/** `seen` with the names of a list that were not in it. */
export function remembering(seen, profiles) {
    const fresh = profiles.filter(({ key, name }) => !seen.some((each) => each.key === key && each.name === name));
    return fresh.length ? [...seen, ...fresh.map(({ key, name }) => ({ key, name }))] : seen;
}

/** The names to choose from in the node: as the server lists them, the newest first; the one that is chosen stays. */
export function choicesOf(listed, profiles, chosen) {
    const names = profiles.map((profile) => profile.name);
    const kept = listed.filter((name) => names.includes(name));
    const fresh = names.filter((name) => !kept.includes(name));
    const found = [...fresh, ...kept];
    const has = (wanted) => found.some((name) => folded(name) === folded(wanted));
    if (!has(FIRST_NAME)) found.push(FIRST_NAME);
    if (chosen && !has(chosen)) found.push(chosen);
    return found;
}
