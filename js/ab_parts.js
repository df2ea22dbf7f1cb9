/**
 * What the A/B Test node and its full screen have in common: two pictures side by side, the choices below, the keys.
 */

import { keyMeaning } from "./ab_state.js";
import { button, element } from "./score_gallery_parts.js";

/** Smaller pictures than this are drawn with their pixels' edges, instead of blurred. */
const SMALL = 256;

/**
 * Two pictures side by side.
 * @param {Document} document
 * @param {(name: string) => string} addressOf
 * @param {{label: string, onPress: () => void, onMissing: () => void, signal: AbortSignal}} outside
 * @returns {{root: HTMLElement, show: (pair: {key: string, left: string, right: string, width: number, height: number,
 *            prompt: string}|null) => void, ready: () => boolean}} ready = both pictures are seen
 */
export function createStage(document, addressOf, { label, onPress, onMissing, signal }) {
    const sides = ["left", "right"].map((side) => {
        const image = element(document, "img", "");
        image.draggable = false;
        image.alt = side === "left" ? "Left picture" : "Right picture";
        const place = button(document, "attune-ab-picture", "", label);
        place.append(image);
        place.dataset.side = side;
        place.addEventListener("click", onPress, { signal });
        image.addEventListener("error", () => image.getAttribute("src") && onMissing(), { signal });
        return { side, place, image };
    });
    const root = element(document, "div", "attune-ab-stage", ...sides.map(({ place }) => place));
    let key = "";
    return {
        root,
        show(pair) {
            for (const { side, place, image } of sides) {
                if (!pair) {
                    image.removeAttribute("src");
                    continue;
                }
                const address = addressOf(pair[side]);
                if (image.getAttribute("src") !== address) image.src = address;
                image.style.imageRendering = Math.max(pair.width, pair.height) < SMALL ? "pixelated" : "auto";
                if (pair.key === key) continue;
                // Taking the class away and asking for a measure starts the animation anew.
                place.classList.remove("new");
                void place.offsetWidth;
                place.classList.add("new");
            }
            key = pair?.key ?? "";
        },
        ready: () => sides.every(({ image }) => image.complete && image.naturalWidth > 0),
    };
}

/** The three choices, each with its key. */
export function createChoices(document, onChoice, signal) {
    const made = [
        ["left", "Left is better", "←"],
        ["tie", "No difference", "Space"],
        ["right", "Right is better", "→"],
    ].map(([side, text, key]) => {
        const choice = button(document, "attune-ab-choice", "", `${text} (${key})`);
        const shown = element(document, "span", "attune-ab-key", key);
        choice.append(...(side === "right" ? [text, shown] : [shown, text]));
        choice.dataset.side = side;
        choice.addEventListener("click", () => onChoice(side), { signal });
        return choice;
    });
    return element(document, "div", "attune-ab-choices", ...made);
}

/**
 * Listen to the keys. The page has shortcuts of its own, which must not hear them.
 * @param {(meaning: string) => void} onMeaning   gets what `meaningOf` makes of a key
 * @param {(key: string) => string} [meaningOf]   "" for a key that means nothing; of the A/B Test unless said otherwise
 */
export function listenToKeys(root, onMeaning, signal, meaningOf = keyMeaning) {
    const own = (event) => !event.ctrlKey && !event.metaKey && !event.altKey;
    root.addEventListener("keydown", (event) => {
        if (!own(event)) return;
        if (event.key !== "Tab") event.stopPropagation();
        const meaning = meaningOf(event.key);
        // Enter on a button presses it.
        if (!meaning || (event.key === "Enter" && event.target.closest("button"))) return;
        event.preventDefault();
        if (!event.repeat) onMeaning(meaning);
    }, { signal });
    // A button that has the focus would be pressed when the space bar comes up.
    root.addEventListener("keyup", (event) => {
        if (own(event) && event.key === " ") event.preventDefault();
        if (own(event)) event.stopPropagation();
    }, { signal });
}
