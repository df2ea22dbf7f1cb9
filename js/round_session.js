/**
 * The line with the session's name over Commit Round's page: to rename it in place, and to delete it, which is asked once. Knows
 * no host.
 */

import { deletionText } from "./round_state.js";
import { button, element } from "./score_gallery_parts.js";

/** As in nodes/refinement/checks.py. */
const LONGEST_NAME = 60;

/**
 * @param {Document} document
 * @param {(action: object) => void} onAction   gets {kind: "manage" | "ask" | "rest" | "delete"} and {kind: "rename", name}
 * @param {HTMLElement[]} acts   buttons that stand beside the name
 * @returns {{root: HTMLElement, render: (state: object, told: string) => void}} told = what is said of the session behind its name
 */
export function createSessionLine(document, onAction, acts) {
    const make = (tag, className, ...children) => element(document, tag, className, ...children);
    const press = (className, text, title, action) => {
        const made = button(document, `attune-round-plain ${className}`.trim(), text, title);
        // The second click of a double click would answer the question that the first has asked.
        made.addEventListener("click", (event) => event.detail < 2 && onAction(action()));
        return made;
    };
    const words = make("span", "attune-round-title");
    const told = make("span", "attune-round-told");
    const name = button(document, "attune-round-name", "", "Rename this session, or delete it");
    name.append(words, told, make("span", "attune-round-pen", "✎"));
    name.addEventListener("click", (event) => event.detail < 2 && onAction({ kind: "manage" }));
    const shown = make("div", "attune-round-top", name, ...acts);

    const typed = make("input", "attune-round-typed");
    typed.type = "text";
    typed.maxLength = LONGEST_NAME;
    typed.setAttribute("aria-label", "The session's name");
    const save = press("", "Save", "Keep this name (Enter)", () => ({ kind: "rename", name: typed.value }));
    const cancel = press("", "Cancel", "Keep the old name (Esc)", () => ({ kind: "rest" }));
    const remove = press("attune-round-risk", "Delete …", "Asks whether to delete this session", () => ({ kind: "ask" }));
    const naming = make("div", "attune-round-top", typed, save, cancel, remove);

    const warning = make("p", "");
    const sure = press("attune-round-danger", "Delete for good", "", () => ({ kind: "delete" }));
    const keep = press("", "Keep it", "Esc", () => ({ kind: "rest" }));
    const asking = make("div", "attune-round-erase", warning, make("div", "attune-round-top", keep, sure));
    asking.setAttribute("role", "alertdialog");
    asking.setAttribute("aria-label", "Delete this session?");

    // The second press of a double click would take the focus, and with it the keys, from "Keep it".
    asking.addEventListener("mousedown", (event) => event.target.closest("button") || event.preventDefault());

    const root = make("div", "attune-round-session", shown, naming, asking);
    let before = "";
    // The keys of the canvas would delete nodes.
    root.addEventListener("keyup", (event) => event.stopPropagation());
    root.addEventListener("keydown", (event) => {
        event.stopPropagation();
        if (event.key === "Escape" && before) onAction({ kind: "rest" });
        if (event.key === "Enter" && event.target === typed && !event.isComposing) onAction({ kind: "rename", name: typed.value });
    });

    return {
        root,
        render(state, said) {
            const { session, managing } = state;
            words.textContent = session.name;
            told.textContent = said;
            shown.hidden = Boolean(managing);
            naming.hidden = managing !== "manage";
            asking.hidden = managing !== "ask";
            warning.textContent = managing === "ask" ? deletionText(session) : "";
            for (const each of [name, typed, save, cancel, remove, sure, keep]) each.disabled = Boolean(state.busy);
            if (managing === before) return;
            before = managing;
            if (managing === "manage") {
                typed.value = session.name;
                typed.focus();
                typed.select();
            }
            // What cannot be undone takes more than a second Enter.
            if (managing === "ask") keep.focus();
        },
    };
}
