/**
 * One picture of the gallery, as large as the page: a dialog of the page itself, over everything else. Knows no host.
 */

import { bars, button, element, icon } from "./score_gallery_parts.js";

/** Smaller pictures than this are drawn with their pixels' edges, instead of blurred. */
const SMALL = 256;

const CSS = `
.attune-enlarged { position: fixed; inset: 0; box-sizing: border-box; width: 100%; height: 100%; max-width: none;
  max-height: none; margin: 0; padding: 0; border: 0; background: #101113; overflow: hidden; }
.attune-enlarged[open] { display: grid; grid-template: minmax(0, 1fr) / minmax(0, 1fr) 300px; }
.attune-enlarged:focus-visible { outline: none; }
.attune-enlarged::backdrop { background: none; }
.attune-enlarged-stage { position: relative; display: grid; grid-template: minmax(0, 1fr) / minmax(0, 1fr);
  padding: 28px 72px; }
.attune-enlarged-stage img { width: 100%; height: 100%; object-fit: contain; }
.attune-enlarged.discarded img { opacity: .4; filter: grayscale(1); }
.attune-enlarged button.attune-enlarged-step { position: absolute; top: 50%; translate: 0 -50%; display: grid;
  place-items: center; width: 44px; height: 64px; border-radius: 8px; color: #e8e9ec; opacity: .7; }
.attune-enlarged button.attune-enlarged-step:is(:hover, :focus-visible) { background: #ffffff14; opacity: 1; }
.attune-enlarged-step:first-of-type { left: 14px; }
.attune-enlarged-step:last-of-type { right: 14px; }
.attune-enlarged button:disabled { opacity: .15 !important; cursor: default; }
.attune-enlarged-step svg { width: 24px !important; height: 24px !important; }
.attune-enlarged-side { display: flex; flex-direction: column; gap: 14px; min-height: 0; padding: 16px;
  background: var(--ground); overflow: hidden auto; font-size: 13px; }
.attune-enlarged-top { display: flex; align-items: center; gap: 8px; }
.attune-enlarged-count { flex: 1; color: var(--quiet); font-variant-numeric: tabular-nums; }
.attune-enlarged button.attune-enlarged-close { display: grid; place-items: center; width: 30px; height: 30px;
  border-radius: 50%; }
.attune-enlarged-close svg { width: 20px !important; height: 20px !important; }
.attune-enlarged button.attune-enlarged-close:hover { background: var(--track); }
.attune-enlarged-rank { font-size: 26px; font-weight: 600; line-height: 1.1; }
.attune-enlarged.best .attune-enlarged-rank { color: var(--accent); }
.attune-enlarged .attune-bars { gap: 5px; font-size: 12px; }
.attune-enlarged .attune-bar { flex: none; height: 24px; padding: 0 9px; line-height: 24px; background: #2a2c30; }
.attune-enlarged-words { white-space: pre-wrap; overflow-wrap: anywhere; }
.attune-enlarged-size { color: var(--quiet); font-variant-numeric: tabular-nums; }
.attune-enlarged button.attune-enlarged-toggle { flex: none; height: 34px; border-radius: 7px; background: var(--track);
  font-weight: 600; }
.attune-enlarged button.attune-enlarged-toggle:hover { background: #8f3d3d; }
.attune-enlarged.discarded button.attune-enlarged-toggle:hover { background: #3f6b4c; }
.attune-enlarged-keys { margin-top: auto !important; color: var(--quiet); font-size: 12px; }
@media (max-width: 820px) {
  .attune-enlarged[open] { grid-template: minmax(0, 1fr) minmax(0, 42%) / minmax(0, 1fr); }
  .attune-enlarged-stage { padding: 16px 56px; }
}
`;

function injectStyle(document) {
    if (document.getElementById("attune-enlarged-style")) return;
    const style = document.createElement("style");
    style.id = "attune-enlarged-style";
    style.textContent = CSS;
    document.head.append(style);
}

/**
 * @param {Document} document
 * @param {{onAction: (action: object) => void, addressOf: (file: object) => string, onClose: (place: number) => void}} outside
 *        onClose gets the place, in the order shown, of the picture that was looked at last
 * @returns {{open: (place: number) => void, render: (shown: object[], state: object) => void, dispose: () => void}}
 */
export function createEnlarged(document, { onAction, addressOf, onClose }) {
    injectStyle(document);
    const make = (tag, className, ...children) => element(document, tag, className, ...children);
    const listening = new AbortController();
    const { signal } = listening;
    const picture = make("img", "");
    const before = button(document, "attune-enlarged-step", "", "Previous image (←)");
    const after = button(document, "attune-enlarged-step", "", "Next image (→)");
    const close = button(document, "attune-enlarged-close", "", "Close (Esc)");
    [[before, "left"], [after, "right"], [close, "cross"]].forEach(([place, name]) => {
        place.append(icon(document, name));
        place.setAttribute("aria-label", place.title);
    });
    const count = make("span", "attune-enlarged-count");
    count.setAttribute("aria-live", "polite");
    const rank = make("div", "attune-enlarged-rank");
    const figures = bars(document);
    const words = make("p", "attune-enlarged-words");
    const size = make("p", "attune-enlarged-size");
    const toggle = button(document, "attune-enlarged-toggle", "", "X");
    const keys = make("p", "attune-enlarged-keys", "← → other images  ·  X discard  ·  Esc close");
    const stage = make("div", "attune-enlarged-stage", picture, before, after);
    const top = make("div", "attune-enlarged-top", count, close);
    const side = make("div", "attune-enlarged-side", top, rank, figures.root, toggle, words, size, keys);
    const dialog = make("dialog", "attune-enlarged", stage, side);
    dialog.setAttribute("aria-label", "Enlarged image");

    let shown = [];
    let state = null;
    /** The picture that is looked at: by position, since the order may change. */
    let position = -1;

    const place = () => shown.findIndex((card) => card.position === position);
    const discard = () => onAction({ kind: "toggle", hash: shown[place()].image.hash });

    function go(target) {
        if (!shown[target]) return;
        position = shown[target].position;
        draw();
    }

    before.addEventListener("click", () => go(place() - 1), { signal });
    after.addEventListener("click", () => go(place() + 1), { signal });
    close.addEventListener("click", () => dialog.close(), { signal });
    toggle.addEventListener("click", discard, { signal });
    stage.addEventListener("click", (event) => event.target === stage && dialog.close(), { signal });
    picture.addEventListener("click", (event) => isBeside(event) && dialog.close(), { signal });
    dialog.addEventListener("close", () => {
        const last = place();
        dialog.remove();
        position = -1;
        picture.removeAttribute("src");
        if (last >= 0) onClose(last);
    }, { signal });
    dialog.addEventListener("keydown", (event) => {
        // The page behind has shortcuts of its own.
        event.stopPropagation();
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        const steps = { ArrowLeft: place() - 1, ArrowRight: place() + 1, Home: 0, End: shown.length - 1 };
        if (event.key in steps) go(steps[event.key]);
        else if (["x", "X", "Delete", "Backspace"].includes(event.key)) event.repeat || discard();
        else return;
        event.preventDefault();
    }, { signal });

    /** The element is larger than the picture in it, unless both have the same shape. */
    function isBeside({ offsetX, offsetY }) {
        const scale = Math.min(picture.clientWidth / picture.naturalWidth, picture.clientHeight / picture.naturalHeight);
        const across = Math.abs(offsetX - picture.clientWidth / 2) > (scale * picture.naturalWidth) / 2;
        return across || Math.abs(offsetY - picture.clientHeight / 2) > (scale * picture.naturalHeight) / 2;
    }

    function draw() {
        const here = place();
        if (here < 0) {
            dialog.close();
            return;
        }
        const { image, discarded, rank: number, bars: rows } = shown[here];
        const address = addressOf(image.file);
        if (picture.getAttribute("src") !== address) picture.src = address;
        picture.alt = image.prompt || `Image ${image.index}`;
        picture.style.imageRendering = Math.max(image.width, image.height) < SMALL ? "pixelated" : "auto";
        // The neighbours are ready when the arrow key is pressed.
        for (const next of [shown[here - 1], shown[here + 1]]) {
            if (next) new document.defaultView.Image().src = addressOf(next.image.file);
        }
        dialog.classList.toggle("discarded", discarded);
        dialog.classList.toggle("best", number === 1);
        count.textContent = `${here + 1} of ${shown.length}`;
        rank.textContent = discarded ? `Rank ${number}, discarded` : `Rank ${number}`;
        toggle.textContent = discarded ? "Keep" : "Discard";
        words.textContent = image.prompt;
        size.textContent = `Image ${image.index}  ·  ${image.width} × ${image.height}`;
        // A disabled button loses the focus, and with it the keys.
        const focused = document.activeElement;
        before.disabled = here === 0;
        after.disabled = here === shown.length - 1;
        if (focused?.disabled) dialog.focus();
        figures.render(rows, state.sort.key, true);
    }

    return {
        open(target) {
            if (!shown[target]) return;
            position = shown[target].position;
            document.body.append(dialog);
            dialog.tabIndex = -1;
            dialog.showModal();
            dialog.focus();
            draw();
        },
        render(next, nextState) {
            [shown, state] = [next, nextState];
            if (dialog.open) draw();
        },
        dispose() {
            listening.abort();
            if (dialog.open) dialog.close();
            dialog.remove();
        },
    };
}
