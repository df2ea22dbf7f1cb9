/**
 * What Commit Round's page and Session Report's timeline are both made of. Knows no host.
 */

import { columnsFor } from "./choose_words.js";
import { element } from "./score_gallery_parts.js";

/** Smaller pictures than this are drawn with their pixels' edges, instead of blurred. */
const SMALL = 256;

/**
 * A prompt with what was changed in it, to be put into an element.
 * @param {[string, string][]} parts   "same", "added" or "removed", and the words
 * @param {string} [negative]   what the picture is not to show
 * @returns {(string|HTMLElement)[]}
 */
export function diffOf(document, parts, negative = "") {
    const tags = { added: "ins", removed: "del" };
    const shown = parts.map(([kind, text]) => (tags[kind] ? element(document, tags[kind], "", text) : text));
    return negative ? [...shown, element(document, "span", "", "  without: "), element(document, "del", "", negative)] : shown;
}

/** A picture that the words beside it, or its button, speak of. */
export function pictureOf(document, address, { lazy = false } = {}) {
    const image = element(document, "img", "");
    image.alt = "";
    image.draggable = false;
    if (lazy) image.loading = "lazy";
    image.src = address;
    return image;
}

/**
 * Cells of pictures in as many columns as make them largest.
 * @param {HTMLElement} root   a grid
 * @param {number} extra   height below each picture, in pixels
 * @returns {{show: (cells: HTMLElement[]) => void, watch: (image: HTMLImageElement) => HTMLImageElement, layOut: () => void,
 *          dispose: () => void}} watch = the cells' pictures, whose shape decides
 */
export function createGrid(root, extra = 0) {
    let cells = [];
    let ratio = 1;

    function layOut() {
        if (!cells.length || !root.clientWidth) return;
        const columns = columnsFor(cells.length, root.clientWidth, root.clientHeight, ratio, { extra });
        root.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
    }

    const watching = new ResizeObserver(layOut);
    watching.observe(root);

    return {
        show(next) {
            cells = next;
            root.replaceChildren(...cells);
            layOut();
        },
        watch(image) {
            image.addEventListener("load", () => {
                ratio = image.naturalWidth / image.naturalHeight;
                image.style.imageRendering = Math.max(image.naturalWidth, image.naturalHeight) < SMALL ? "pixelated" : "auto";
                layOut();
            });
            return image;
        },
        layOut,
        dispose: () => watching.disconnect(),
    };
}
