/**
 * What opens below a LoRA in the catalogue tab: what it is, figures, tags, note, actions. What is being typed stays when the
 * list is read anew.
 */

import { badge, button, element, icon } from "./catalogue_parts.js";
import { facts, figureName, typedTags } from "./catalogue_state.js";
import { formatNumber } from "./live_curves.js";

/**
 * @param {Document} document
 * @param {number} id
 * @param {(action: string, body: object) => void} ask   the server, see `listing.ACTIONS`
 * @param {{pick: (id: number) => void, go: (id: number) => void, trash: (id: number) => void}} page   what the tab does itself
 * @returns {{root: HTMLElement, render: (lora: object, state: object) => void}}
 */
export function createDetails(document, id, ask, page) {
    let tags = [];
    const promote = button(document, "Promote", {
        kind: "main",
        picture: "star",
        title: "Make this the version of its run that counts: what 'promoted' means in the LoRA Catalogue node.",
    });
    const pick = button(document, "Compare", { picture: "compare", title: "Choose two to see them side by side." });
    const trash = button(document, "Trash", { picture: "trash", title: "Move the file into the trash (Delete). It can be restored." });
    const forget = button(document, "Forget", { picture: "cross", title: "Take it off this list. Its file is gone already." });
    const list = element(document, "dl", "");
    const chips = element(document, "div", "attune-cat-tags");
    const typed = element(document, "input", "");
    typed.placeholder = "Add a tag, then Enter";
    typed.maxLength = 200;
    typed.setAttribute("aria-label", "Add tags, separated by commas");
    const note = element(document, "textarea", "");
    note.placeholder = "Note";
    note.maxLength = 2000;
    note.setAttribute("aria-label", "Note");
    const root = element(
        document, "div", "attune-cat-details",
        element(document, "div", "attune-cat-actions", promote, pick, trash, forget), list, chips, typed, note,
    );

    promote.addEventListener("click", () => ask("promote", { id }));
    pick.addEventListener("click", () => page.pick(id));
    trash.addEventListener("click", () => page.trash(id));
    forget.addEventListener("click", () => ask("forget", { ids: [id] }));
    typed.addEventListener("keydown", (event) => {
        if (event.key !== "Enter") return;
        const added = typedTags(typed.value).filter((tag) => !tags.includes(tag));
        typed.value = "";
        if (added.length) ask("tag", { id, tags: [...tags, ...added] });
    });
    note.addEventListener("change", () => ask("note", { id, note: note.value }));

    function renderTags() {
        chips.hidden = !tags.length;
        chips.replaceChildren(
            ...tags.map((tag) => {
                const chip = element(document, "button", "attune-cat-tag", element(document, "span", "", tag), icon(document, "cross"));
                chip.type = "button";
                chip.setAttribute("aria-label", `Remove the tag ${tag}`);
                chip.title = "Remove this tag";
                chip.addEventListener("click", () => ask("tag", { id, tags: tags.filter((other) => other !== tag) }));
                return chip;
            }),
        );
    }

    function parent({ id: other, name, strength }) {
        const text = `${name || "a LoRA that is not listed"} (${formatNumber(strength)})`;
        if (other === null) return element(document, "div", "", text);
        const link = element(document, "button", "attune-cat-link", text);
        link.type = "button";
        link.addEventListener("click", () => page.go(other));
        return element(document, "div", "", link);
    }

    function renderFacts(lora, state) {
        const figures = Object.entries(lora.metrics).map(([name, value]) => [figureName(name), formatNumber(value)]);
        const from = lora.parents.length ? [["Came from", element(document, "div", "", ...lora.parents.map(parent))]] : [];
        list.replaceChildren(
            ...[...figures, ...from, ...facts(lora, state.data.folder)].flatMap(([label, value]) => [
                element(document, "dt", "", label),
                element(document, "dd", "", value),
            ]),
        );
    }

    let shown = "";
    function render(lora, state) {
        promote.disabled = lora.missing || lora.status === "promoted";
        promote.lastChild.textContent = lora.status === "promoted" ? "Promoted" : "Promote";
        trash.hidden = lora.missing;
        forget.hidden = !lora.missing;
        const picked = state.picked.includes(id);
        pick.setAttribute("aria-pressed", String(picked));
        pick.lastChild.textContent = picked ? "Picked" : "Compare";
        const text = JSON.stringify(lora);
        if (text === shown) return;
        shown = text;
        ({ tags } = lora);
        renderTags();
        renderFacts(lora, state);
        if (document.activeElement !== note) note.value = lora.note;
    }
    return { root, render };
}

/** The marks behind a LoRA's number: its method, and what is special about it. */
export function marks(document, lora, colour) {
    const found = [badge(document, lora.method_name, colour)];
    if (lora.status === "promoted") found.push(badge(document, "promoted", "#3f9d5f"));
    if (lora.stopped) found.push(badge(document, "stopped", "#c08a3a"));
    if (lora.missing) found.push(badge(document, "file missing", "#d05a5a"));
    const few = element(document, "span", "attune-cat-few", [...lora.tags, lora.note].filter(Boolean).join(" · "));
    return [...found, few];
}
