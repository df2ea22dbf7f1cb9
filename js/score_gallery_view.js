/**
 * The gallery's elements: one card per image, built once per result, then only changed. Takes the document from outside;
 * knows no host.
 */

import { ORDER, advice, cards, commonPrompt, counts, directionText, moved, placeRatio, summary } from "./score_gallery_state.js";
import { createEnlarged } from "./score_gallery_enlarged.js";
import { COLOURS, bars, button, element, icon, injectStyle } from "./score_gallery_parts.js";

/** More cards than this do not travel to their new place, they are simply there. */
const MOST_MOVING = 80;
const MOVING_MILLISECONDS = 220;
/** From this many images on, cards are smaller. */
const MANY = 24;

/**
 * @param {Document} document
 * @param {(action: object) => void} onAction what the user wants, as `reduce` takes it
 * @param {(file: object) => string} addressOf the address of one of the host's pictures
 * @returns {{root: HTMLElement, render: (state: object) => void, dispose: () => void}}
 */
export function createGallery(document, onAction, addressOf) {
    injectStyle(document);
    // The host tells this element's events apart by its own listeners; ours go with it.
    const listening = new AbortController();
    const { signal } = listening;
    const make = (tag, className, ...children) => element(document, tag, className, ...children);

    const hint = make("p", "attune-gallery-hint");
    const chips = make("div", "attune-gallery-chips");
    chips.setAttribute("role", "group");
    chips.setAttribute("aria-label", "Sort by");
    const total = make("span", "attune-gallery-total");
    total.setAttribute("aria-live", "polite");
    const undo = button(document, "attune-gallery-plain", "Undo", "Takes back your last choice");
    const keepAll = button(document, "attune-gallery-plain", "Keep all", "Keeps every image shown here");
    const advised = make("span", "attune-gallery-advice");
    advised.setAttribute("role", "status");
    const prompt = make("p", "attune-gallery-prompt");
    const head = make("div", "attune-gallery-head", chips, prompt);
    // Below the images: what appears here while one discards must not move them.
    const foot = make("div", "attune-gallery-foot", total, advised, undo, keepAll);
    const grid = make("ul", "attune-gallery-grid");
    grid.setAttribute("aria-label", "Images");
    // Nodes 2.0 gives the wheel to the canvas unless an element says that it wants it.
    grid.dataset.captureWheel = "true";
    // Nodes 2.0 lets a widget of this class grow with its node.
    const root = make("div", "attune-gallery widget-expands", hint, head, grid, foot);
    const enlarged = createEnlarged(document, { onAction, addressOf, onClose: (place) => focus(place) });

    let state = null;
    let shown = [];
    let images = null;
    let rewards = null;
    /** Cards by the image's position, and the place of the one that Tab leads to. */
    let made = [];
    let current = 0;

    undo.addEventListener("click", () => onAction({ kind: "undo" }), { signal });
    keepAll.addEventListener("click", () => onAction({ kind: "keepAll" }), { signal });
    chips.addEventListener("click", (event) => {
        const chip = event.target.closest("button");
        if (chip) onAction({ kind: "sort", key: Number(chip.dataset.key) });
    }, { signal });
    grid.addEventListener("click", (event) => {
        const place = placeOf(event.target);
        if (place < 0) return;
        if (event.target.closest(".attune-gallery-toggle")) onAction({ kind: "toggle", hash: shown[place].image.hash });
        else if (event.target.closest(".attune-gallery-picture")) enlarged.open(place);
    }, { signal });
    grid.addEventListener("focusin", (event) => {
        const place = placeOf(event.target);
        if (place >= 0) setCurrent(place);
    }, { signal });
    root.addEventListener("keydown", pressed, { signal });

    function placeOf(target) {
        const card = target.closest(".attune-gallery-card");
        return card ? shown.findIndex(({ position }) => made[position].card === card) : -1;
    }

    function pressed(event) {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        const place = placeOf(event.target);
        const target = place < 0 ? null : moved(event.key, place, shown.length, columns());
        if (target !== null) {
            focus(target);
            event.preventDefault();
        } else if (place >= 0 && ["x", "X", "Delete", "Backspace"].includes(event.key)) {
            if (!event.repeat) onAction({ kind: "toggle", hash: shown[place].image.hash });
            event.preventDefault();
        }
        // The page has shortcuts of its own: Delete would remove the node.
        if (event.key !== "Tab") event.stopPropagation();
    }

    function columns() {
        const top = made[shown[0].position].card.offsetTop;
        return Math.max(1, shown.filter(({ position }) => made[position].card.offsetTop === top).length);
    }

    function setCurrent(place) {
        current = Math.max(0, Math.min(place, shown.length - 1));
        // One stop for Tab in the whole gallery, and the arrow keys within it.
        shown.forEach(({ position }, index) => {
            const { picture, toggle } = made[position];
            picture.tabIndex = toggle.tabIndex = index === current ? 0 : -1;
        });
    }

    function focus(place) {
        const card = shown[place];
        if (!card) return;
        setCurrent(place);
        made[card.position].picture.focus();
    }

    function buildChips() {
        const names = state.rewards.map(({ name, formula }, key) => ({ key, name, title: sortTitle(name, formula) }));
        names.push({ key: ORDER, name: "Order", title: "Sort as the images came" });
        chips.replaceChildren(
            ...names.map(({ key, name, title }) => {
                const chip = button(document, "attune-gallery-chip", "", title);
                const dot = make("span", "attune-gallery-dot");
                if (key !== ORDER) dot.style.background = COLOURS[key % COLOURS.length];
                chip.dataset.key = String(key);
                chip.append(...(key === ORDER ? [] : [dot]), make("span", "attune-gallery-name", name), icon(document, "arrow"));
                return chip;
            }),
        );
    }

    function sortTitle(name, formula) {
        return formula && formula !== name ? `Sort by ${name}\n${formula}` : `Sort by ${name}`;
    }

    function renderChips() {
        for (const chip of chips.children) {
            const key = Number(chip.dataset.key);
            const chosen = key === state.sort.key;
            const name = chip.querySelector(".attune-gallery-name").textContent;
            chip.setAttribute("aria-pressed", String(chosen));
            chip.setAttribute("aria-label", chosen ? `${name}, ${directionText(state.sort)}` : name);
            chip.classList.toggle("reversed", chosen && state.sort.reversed);
        }
    }

    function buildCards() {
        made = state.images.map((image) => {
            const thumbnail = make("img", "");
            thumbnail.loading = "lazy";
            thumbnail.decoding = "async";
            thumbnail.draggable = false;
            thumbnail.alt = "";
            thumbnail.width = image.width;
            thumbnail.height = image.height;
            thumbnail.src = addressOf(image.thumbnail);
            const picture = button(document, "attune-gallery-picture", "", image.prompt);
            const rank = make("span", "attune-gallery-rank");
            picture.append(thumbnail, rank, make("span", "attune-gallery-out", "discarded"));
            const toggle = button(document, "attune-gallery-toggle", "", "");
            toggle.append(icon(document, "cross"), icon(document, "back"));
            const figures = bars(document);
            const text = make("p", "attune-gallery-words", image.prompt);
            text.title = image.prompt;
            const card = make("li", "attune-gallery-card", picture, toggle, figures.root, text);
            card.dataset.index = String(image.index);
            return { card, picture, toggle, rank, figures, text };
        });
        const ratio = placeRatio(state.images);
        grid.style.setProperty("--attune-ratio", String(ratio));
        grid.style.setProperty("--attune-cell", state.images.length > MANY ? "104px" : ratio > 1.3 ? "136px" : "128px");
        // A single picture is to be seen whole, with its bars.
        grid.style.setProperty("--attune-least", state.images.length === 1 ? "128px" : "200px");
        grid.scrollTop = 0;
        current = 0;
    }

    function renderCard({ position, image, discarded, rank, bars: figures }) {
        const { card, picture, toggle, rank: badge, figures: rows } = made[position];
        const number = `image ${image.index}`;
        card.classList.toggle("discarded", discarded);
        card.classList.toggle("best", rank === 1);
        badge.textContent = String(rank);
        const scores = figures.map((bar) => bar.text).join("; ");
        picture.setAttribute("aria-label", `Enlarge ${number}, rank ${rank}, ${discarded ? "discarded, " : ""}${scores}`);
        toggle.setAttribute("aria-pressed", String(discarded));
        toggle.setAttribute("aria-label", `${discarded ? "Keep" : "Discard"} ${number}`);
        toggle.title = discarded ? "Keep (X)" : "Discard (X)";
        rows.render(figures, state.sort.key);
    }

    /** Put the cards in order; those that stay on the page travel there. */
    function arrange() {
        const wanted = shown.map(({ position }) => made[position].card);
        if (wanted.length === grid.children.length && wanted.every((card, index) => card === grid.children[index])) return;
        const calm = document.defaultView.matchMedia("(prefers-reduced-motion: reduce)").matches;
        const moving = calm || wanted.length > MOST_MOVING ? [] : wanted.filter((card) => card.parentElement === grid);
        const before = moving.map((card) => [card, card.offsetLeft, card.offsetTop]);
        grid.replaceChildren(...wanted);
        for (const [card, left, top] of before) {
            const from = `translate(${left - card.offsetLeft}px, ${top - card.offsetTop}px)`;
            card.animate([{ transform: from }, { transform: "none" }], { duration: MOVING_MILLISECONDS, easing: "ease-out" });
        }
    }

    function render(next) {
        const sorted = state && (state.sort.key !== next.sort.key || state.sort.reversed !== next.sort.reversed);
        state = next;
        shown = cards(state);
        if (rewards !== state.rewards) buildChips();
        if (images !== state.images) buildCards();
        if (sorted) {
            current = 0;
            grid.scrollTop = 0;
        }
        ({ rewards, images } = state);
        renderChips();
        shown.forEach(renderCard);
        arrange();
        setCurrent(current);
        const { total: count, discarded } = counts(state);
        const common = commonPrompt(state);
        root.classList.toggle("empty", !count);
        root.classList.toggle("alike", Boolean(common));
        hint.textContent = count ? "" : advice(state);
        total.textContent = summary(state);
        undo.hidden = !state.undo.length;
        keepAll.hidden = !discarded;
        advised.textContent = count ? advice(state) : "";
        prompt.textContent = prompt.title = common;
        enlarged.render(shown, state);
    }

    function dispose() {
        listening.abort();
        enlarged.dispose();
    }

    return { root, render, dispose };
}
