/**
 * The Preference Profile node's line, and the list of all profiles over the page. Takes the document from outside; knows no
 * host.
 */

import { injectStyle } from "./profile_style.js";
import { countsText, deletionText, lineOf, meant } from "./profile_state.js";
import { button, element, icon } from "./score_gallery_parts.js";

/** As in nodes/preferences/records.py. */
const LONGEST_NAME = 60;
const NONE = "There are no profiles yet. The first one is made when you press Run.";

/**
 * @param {Document} document
 * @param {{onAction: (action: object) => void}} outside   gets what `reduce` takes, and {kind: "open"}, {kind: "use", name},
 *        {kind: "rename", key, name}, {kind: "delete", key}
 * @returns {{root: HTMLElement, render: (state: object) => void, dispose: () => void}}
 */
export function createProfiles(document, { onAction }) {
    injectStyle(document);
    const listening = new AbortController();
    const { signal } = listening;
    const make = (tag, className, ...children) => element(document, tag, className, ...children);
    const name = make("span", "attune-profile-name");
    const text = make("span", "attune-profile-text");
    const open = button(document, "attune-profile-plain", "Profiles", "All profiles: to choose, rename and delete");
    open.setAttribute("aria-haspopup", "dialog");
    const root = make("div", "attune-profile", make("span", "attune-profile-words", name, text), open);
    const list = createList(document, onAction, signal);
    const close = button(document, "attune-profile-close", "", "Close (Esc)");
    close.setAttribute("aria-label", "Close");
    close.append(icon(document, "cross"));
    const note = make("p", "attune-profile-note");
    note.setAttribute("role", "status");
    const head = make("div", "attune-profile-head", make("h2", "", "Profiles"), close);
    const kept = make("p", "attune-profile-quiet", "Kept on this computer only.");
    const dialog = make("dialog", "attune-profiles", head, list.root, note, kept);
    dialog.setAttribute("aria-label", "Profiles");
    let state = null;

    open.addEventListener("click", () => {
        if (dialog.open) return;
        document.body.append(dialog);
        dialog.showModal();
        dialog.focus();
        onAction({ kind: "open" });
        list.render(state);
    }, { signal });
    close.addEventListener("click", () => dialog.close(), { signal });
    // A click beside it hits the dialog itself: what is in it fills it.
    dialog.addEventListener("pointerdown", (event) => event.target === dialog && dialog.close(), { signal });
    dialog.addEventListener("cancel", (event) => {
        if (!state.editing && !state.deleting) return;
        event.preventDefault();
        onAction({ kind: "rest" });
    }, { signal });
    dialog.addEventListener("close", () => {
        dialog.remove();
        onAction({ kind: "rest" });
        open.focus({ preventScroll: true });
    }, { signal });
    // The keys of the canvas would delete nodes.
    for (const kind of ["keydown", "keyup"]) dialog.addEventListener(kind, (event) => event.stopPropagation(), { signal });

    return {
        root,
        render(next) {
            state = next;
            const line = lineOf(state);
            name.textContent = line.name;
            text.textContent = line.text;
            root.title = [line.name, line.text].filter(Boolean).join(": ");
            root.classList.toggle("wrong", line.wrong);
            note.textContent = state.note;
            note.classList.toggle("wrong", state.wrong);
            if (dialog.open) list.render(state);
        },
        close: () => dialog.close(),
        dispose() {
            listening.abort();
            if (dialog.open) dialog.close();
            dialog.remove();
        },
    };
}

/** The list itself, drawn anew when something in it has changed; what is being typed stays. */
function createList(document, onAction, signal) {
    const make = (tag, className, ...children) => element(document, tag, className, ...children);
    const root = make("ul", "attune-profile-list");
    let shown = "";

    function press(text, title, className, work) {
        const made = button(document, `attune-profile-plain ${className}`.trim(), text, title);
        made.addEventListener("click", work, { signal });
        return made;
    }

    function nameBox(profile, { busy }) {
        const typed = make("input", "attune-profile-typed");
        typed.type = "text";
        typed.value = profile.name;
        typed.maxLength = LONGEST_NAME;
        typed.disabled = busy;
        typed.setAttribute("aria-label", `New name of ${profile.name}`);
        const save = () => onAction({ kind: "rename", key: profile.key, name: typed.value });
        typed.addEventListener("keydown", (event) => event.key === "Enter" && !event.isComposing && save(), { signal });
        const buttons = [
            press("Save", "Keep this name (Enter)", "main", save),
            press("Cancel", "Keep the old name (Esc)", "", () => onAction({ kind: "rest" })),
        ];
        return { parts: [typed, ...buttons], first: typed, buttons };
    }

    function rowOf(profile, state) {
        const { key } = profile;
        const row = make("li", "attune-profile-row");
        row.dataset.key = key;
        const used = meant(state)?.key === key;
        row.classList.toggle("used", used);
        if (state.editing === key) {
            const { parts, first, buttons } = nameBox(profile, state);
            for (const each of buttons) each.disabled = state.busy;
            row.append(make("div", "attune-profile-line", ...parts));
            return { row, first };
        }
        const title = used ? "The node uses this profile" : "Use this profile in the node";
        const use = button(document, "attune-profile-use", "", title);
        use.append(make("span", "attune-profile-name", profile.name), make("span", "attune-profile-text", countsText(profile)));
        use.setAttribute("aria-pressed", String(used));
        use.addEventListener("click", () => onAction({ kind: "use", name: profile.name }), { signal });
        const asked = state.deleting === key;
        const rename = press("Rename", "", "", () => onAction({ kind: "edit", key }));
        rename.setAttribute("aria-label", `Rename ${profile.name}`);
        const remove = press("Delete", "", "", () => onAction({ kind: "ask", key }));
        remove.setAttribute("aria-label", `Delete ${profile.name}`);
        for (const each of [rename, remove]) each.disabled = state.busy;
        row.append(make("div", "attune-profile-line", use, ...(asked ? [] : [rename, remove])));
        if (!asked) return { row, first: null };
        row.classList.add("asked");
        const sure = press("Delete for good", "", "danger", () => onAction({ kind: "delete", key }));
        const keep = press("Keep it", "Esc", "", () => onAction({ kind: "rest" }));
        for (const each of [sure, keep]) each.disabled = state.busy;
        row.append(
            make("p", "attune-profile-warning", `Delete “${profile.name}”? ${deletionText(profile)}`),
            make("div", "attune-profile-line", sure, keep),
        );
        // What cannot be undone takes more than a second Enter.
        return { row, first: keep };
    }

    return {
        root,
        render(state) {
            const { profiles, editing, deleting, busy, name, newName } = state;
            const text = JSON.stringify([profiles, editing, deleting, busy, name, newName]);
            if (text === shown && root.isConnected) return;
            const before = shown && JSON.parse(shown);
            shown = text;
            const typed = root.querySelector(".attune-profile-typed");
            const top = root.scrollTop;
            const rows = (profiles ?? []).map((profile) => rowOf(profile, state));
            const empty = profiles && !profiles.length ? [make("li", "attune-profile-quiet", NONE)] : [];
            root.replaceChildren(...rows.map(({ row }) => row), ...empty);
            root.scrollTop = top;
            const first = rows.find((row) => row.first)?.first;
            if (!first) {
                // The button that was pressed is gone.
                if (before && (before[1] || before[2])) root.closest("dialog")?.focus();
                return;
            }
            const same = before && before[1] === editing && before[2] === deleting;
            if (typed && same && editing) first.value = typed.value;
            first.focus();
            if (!same && editing) first.select();
        },
    };
}
