/**
 * The LoRA Catalogue tab's elements. Takes the document from outside; knows no host.
 */

import { createDetails, marks } from "./catalogue_details.js";
import { button, curve, element, icon, iconButton, injectStyle, methodColour, table } from "./catalogue_parts.js";
import { ageText, barLength, distanceText, figureName, goneText, loraOf, order, shownFamilies, sizeText, sparkline, tagsInUse } from "./catalogue_state.js";
import { formatNumber } from "./live_curves.js";

const CURVE = Object.freeze([42, 14]);

/**
 * @param {Document} document
 * @param {{act: (action: object) => void, ask: (action: string, body: object) => void, refresh: () => void,
 *          compare: () => void}} page   act: see `reduce`; ask: the server
 * @returns {{root: HTMLElement, render: (state: object, now: number) => void, dispose: () => void}}
 */
export function createCatalogue(document, page) {
    injectStyle(document);
    const listening = new AbortController();
    const { signal } = listening;
    let state = null;
    /** Rows by id: their elements stay, so that what is typed and focused stays. */
    const rows = new Map();

    const refresh = iconButton(document, "refresh", "Look into the folder again");
    const search = element(document, "input", "attune-cat-search");
    search.type = "search";
    search.placeholder = "Search runs, tags, notes, rewards";
    search.setAttribute("aria-label", "Search the catalogue");
    const tags = element(document, "div", "attune-cat-tags");
    const title = element(document, "h2", "", "LoRA Catalogue");
    const head = element(document, "div", "attune-cat-head", element(document, "div", "attune-cat-title", title, refresh), search, tags);
    const problem = element(document, "div", "attune-cat-problem");
    problem.setAttribute("role", "alert");
    const body = element(document, "div", "attune-cat-body");
    const picks = element(document, "div", "attune-cat-foot");
    const undo = element(document, "div", "attune-cat-foot");
    undo.setAttribute("role", "status");
    const foot = element(document, "div", "attune-cat-foot");
    const root = element(document, "div", "attune-cat", head, problem, body, picks, undo, foot);

    refresh.addEventListener("click", () => page.refresh(), { signal });
    search.addEventListener("input", () => page.act({ kind: "search", text: search.value }), { signal });
    root.addEventListener("keydown", keyed, { signal });

    /** The host has keys of its own, such as Delete for nodes; what is typed here is not for it. */
    function keyed(event) {
        event.stopPropagation();
        const line = event.target.closest?.(".attune-cat-line");
        if (!line) return;
        const id = Number(line.dataset.id);
        const all = order(state);
        const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
        if (step) {
            event.preventDefault();
            rows.get(all[all.indexOf(id) + step])?.line.focus();
        } else if (event.key === "Delete" && !loraOf(state, id)?.missing) {
            event.preventDefault();
            const next = all[all.indexOf(id) + 1] ?? all[all.indexOf(id) - 1];
            trash(id);
            rows.get(next)?.line.focus();
        }
    }

    function trash(id) {
        page.ask("trash", { ids: [id] });
    }

    function go(id) {
        if (state.open !== id) page.act({ kind: "open", id });
        rows.get(id)?.line.scrollIntoView({ block: "nearest" });
        rows.get(id)?.line.focus();
    }

    // ---- the list ----

    function row(id) {
        let made = rows.get(id);
        if (made) return made;
        const line = element(document, "button", "attune-cat-line");
        line.type = "button";
        line.dataset.id = String(id);
        line.addEventListener("click", () => page.act({ kind: "open", id }));
        const details = createDetails(document, id, page.ask, { pick: (other) => page.act({ kind: "pick", id: other }), go, trash });
        made = { item: element(document, "li", "attune-cat-row", line, details.root), line, details };
        rows.set(id, made);
        return made;
    }

    function renderRow(lora, family, now) {
        const { item, line, details } = row(lora.id);
        const open = state.open === lora.id;
        for (const [name, on] of Object.entries({
            open, promoted: lora.status === "promoted", missing: lora.missing, picked: state.picked.includes(lora.id),
        })) item.classList.toggle(name, on);
        line.setAttribute("aria-expanded", String(open));
        line.title = `${lora.file}\nArrow keys: next. Enter: open. Delete: trash.`;
        const number = lora.version ? String(lora.version).padStart(3, "0") : lora.file.replace(/^.*\/|\.safetensors$/g, "");
        line.replaceChildren(
            element(document, "span", "attune-cat-dot"),
            element(document, "span", "attune-cat-number", number),
            element(document, "span", "attune-cat-badges", ...marks(document, lora, methodColour(lora.method))),
            value(lora, family, now),
        );
        details.root.hidden = !open;
        if (open) details.render(lora, state);
        return item;
    }

    function value(lora, family, now) {
        const figure = lora.metrics[family.figure];
        if (!Number.isFinite(figure)) return element(document, "span", "attune-cat-figure", ageText(lora.created, now));
        const fill = element(document, "div", "");
        fill.style.width = `${(100 * barLength(family, lora)).toFixed(1)}%`;
        const bar = element(document, "span", "attune-cat-bar", fill);
        const made = element(document, "span", "attune-cat-value", formatNumber(Number(figure.toPrecision(3))), bar);
        made.title = `${figureName(family.figure)}, ${ageText(lora.created, now)}`;
        return made;
    }

    function renderFamily(family, now) {
        const name = element(document, "h3", "", family.run);
        name.title = family.run;
        const line = element(document, "div", "attune-cat-run", ...(family.depth ? [element(document, "span", "attune-cat-branch")] : []), name);
        const data = sparkline(family, ...CURVE);
        if (family.figure) {
            const label = `${figureName(family.figure)} from the oldest version to the newest`;
            const drawn = data ? [curve(document, data, ...CURVE, label)] : [];
            line.append(element(document, "span", "attune-cat-figure", figureName(family.figure), ...drawn));
        }
        if (family.roll_back !== null) {
            const target = loraOf(state, family.roll_back);
            const back = button(document, "Roll back", {
                picture: "back", kind: "attune-cat-small", title: `Promote ${target?.title ?? "the earlier version"} again.`,
            });
            back.addEventListener("click", () => page.ask("rollback", { run: family.run }));
            line.append(back);
        }
        const list = element(document, "ul", "attune-cat-rows", ...family.versions.map((lora) => renderRow(lora, family, now)));
        const gone = goneText(state, family);
        const notice = gone ? [element(document, "p", "attune-cat-gone", gone)] : [];
        const made = element(document, "section", "attune-cat-family", line, ...notice, list);
        made.style.setProperty("--depth", String(Math.min(family.depth, 4)));
        return made;
    }

    function renderList(now) {
        const families = shownFamilies(state);
        for (const id of rows.keys()) if (!loraOf(state, id)) rows.delete(id);
        if (families.length) {
            body.replaceChildren(...families.map((family) => renderFamily(family, now)));
            return;
        }
        const words = state.data.loras.length
            ? "Nothing matches the search."
            : `No LoRA yet. What Train LoRA and Merge LoRAs save appears here, and any LoRA file you put into models/loras/${state.data.folder}.`;
        body.replaceChildren(element(document, "p", "attune-cat-hint", state.status === "loading" ? "Reading the folder …" : words));
    }

    // ---- comparison, trash ----

    function backButton() {
        const back = button(document, "All LoRAs", { picture: "left", kind: "attune-cat-small" });
        back.addEventListener("click", () => page.act({ kind: "view", view: "list" }));
        return element(document, "div", "attune-cat-section", back);
    }

    function section(heading, ...children) {
        return element(document, "section", "attune-cat-section", element(document, "h3", "", heading), ...children);
    }

    function renderComparison() {
        const found = state.comparison;
        if (!found) {
            body.replaceChildren(backButton(), element(document, "p", "attune-cat-hint", "Comparing …"));
            return;
        }
        const names = [found.a, found.b].map((id) => loraOf(state, id)?.title ?? "gone");
        const number = (figure) => (figure === null ? "–" : formatNumber(figure));
        const metrics = found.metrics.map(({ name, a, b, change }) => [figureName(name), number(a), number(b), changed(name, change)]);
        const settings = found.settings.map(({ name, a, b }) => [name, a || "–", b || "–"]);
        const apart = found.distances.map((entry) => [
            entry.group === "all" ? "all layers" : entry.group, distanceText(entry)]);
        body.replaceChildren(
            backButton(),
            section("Figures", found.metrics.length
                ? table(document, ["", ...names, "change"], metrics)
                : element(document, "p", "", "Neither file holds figures.")),
            section("Settings that differ", settings.length
                ? table(document, ["", ...names], settings)
                : element(document, "p", "", "Nothing differs in what the files say.")),
            section("How far the weights lie apart", found.problem
                ? element(document, "p", "", found.problem)
                : table(document, ["", "difference"], apart)),
        );
    }

    /** A change in green or red where it is clear which way is better. */
    function changed(name, change) {
        if (change === null) return "–";
        const text = `${change > 0 ? "+" : ""}${formatNumber(change)}`;
        const better = /reward|accuracy|diversity/.test(name) ? change > 0 : /loss|error/.test(name) ? change < 0 : null;
        const known = better !== null && change !== 0 && !/deviation/.test(name);
        return element(document, "span", known ? (better ? "attune-cat-good" : "attune-cat-bad") : "", text);
    }

    function renderTrash() {
        const items = state.data.trash.map((lora) => {
            const restore = button(document, "Restore", { kind: "attune-cat-small", title: `Put ${lora.file} back.` });
            restore.addEventListener("click", () => page.ask("restore", { ids: [lora.id] }));
            const name = element(document, "span", "attune-cat-number", lora.title);
            const line = element(document, "div", "attune-cat-line", icon(document, "trash"), name,
                element(document, "span", "attune-cat-figure", sizeText(lora.size)), restore);
            return element(document, "li", "attune-cat-row", line);
        });
        const list = items.length
            ? element(document, "ul", "attune-cat-rows", ...items)
            : element(document, "p", "attune-cat-hint", "The trash is empty.");
        body.replaceChildren(backButton(), list);
        if (items.length) body.append(emptying());
    }

    function emptying() {
        const ids = state.data.trash.map((lora) => lora.id);
        const words = ids.length === 1 ? "this file" : `these ${ids.length} files`;
        if (!state.emptying) {
            const empty = button(document, "Empty trash", { title: `Deletes ${words}. Asks once more.` });
            empty.addEventListener("click", () => page.act({ kind: "emptying", on: true }));
            return element(document, "div", "attune-cat-foot", empty);
        }
        const sure = button(document, `Delete ${words} for good`, { kind: "danger" });
        sure.addEventListener("click", () => page.ask("empty", { ids }));
        const keep = button(document, "Keep");
        keep.addEventListener("click", () => page.act({ kind: "emptying", on: false }));
        return element(document, "div", "attune-cat-foot", sure, keep);
    }

    // ---- bars above and below ----

    function renderHead() {
        head.querySelector(".attune-cat-search").hidden = state.view !== "list";
        title.textContent = { list: "LoRA Catalogue", compare: "Compare two", trash: "Trash" }[state.view];
        if (search.value !== state.search) search.value = state.search;
        const used = state.view === "list" ? tagsInUse(state) : [];
        tags.hidden = !used.length;
        tags.replaceChildren(
            ...used.map((tag) => {
                const chip = element(document, "button", "attune-cat-tag", element(document, "span", "", tag));
                chip.type = "button";
                chip.title = "Show only LoRAs with this tag";
                chip.setAttribute("aria-pressed", String(state.tag === tag));
                chip.addEventListener("click", () => page.act({ kind: "tag", tag }));
                return chip;
            }),
        );
        const words = [state.message, ...state.data.problems].filter(Boolean).join("\n");
        problem.hidden = !words;
        const close = iconButton(document, "cross", "Hide");
        close.hidden = !state.message;
        close.addEventListener("click", () => page.act({ kind: "dismissed" }));
        problem.replaceChildren(element(document, "span", "", words), close);
    }

    function renderPicks() {
        picks.hidden = !state.picked.length || state.view === "compare";
        const names = state.picked.map((id) => loraOf(state, id)?.title);
        const words = names.length < 2 ? `${names[0]} is picked. Pick a second one.` : `${names[0]} and ${names[1]}`;
        const show = button(document, "Compare these", { kind: "main" });
        show.disabled = names.length < 2;
        show.addEventListener("click", () => page.compare());
        picks.replaceChildren(element(document, "span", "", words), show);
    }

    function renderFoot() {
        undo.hidden = !state.undo;
        if (state.undo && undo.dataset.shown !== state.undo.text) {
            const take = button(document, "Undo", { kind: "main" });
            take.addEventListener("click", () => page.ask("restore", { ids: state.undo.ids }));
            undo.replaceChildren(element(document, "span", "", state.undo.text), take);
        }
        undo.dataset.shown = state.undo?.text ?? "";
        const count = state.data.trash.length;
        foot.hidden = state.view !== "list" || !count;
        const bin = button(document, `Trash (${count})`, { picture: "trash", kind: "attune-cat-small" });
        bin.addEventListener("click", () => page.act({ kind: "view", view: "trash" }));
        foot.replaceChildren(bin);
    }

    function render(next, now) {
        state = next;
        const focused = root.contains(document.activeElement) ? document.activeElement : null;
        const top = body.scrollTop;
        renderHead();
        ({ list: () => renderList(now), compare: renderComparison, trash: renderTrash })[state.view]();
        renderPicks();
        renderFoot();
        root.dataset.status = state.status;
        body.scrollTop = top;
        // Moving an element through the page takes its focus away.
        if (focused?.isConnected && focused !== document.activeElement) focused.focus({ preventScroll: true });
    }

    return { root, render, dispose: () => listening.abort() };
}
