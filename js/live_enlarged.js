/**
 * Sample pictures as large as the page: before training beside a later moment, with a slider through time. Knows no host.
 */

import { sampleAt, sampleBeside, sampleCaption } from "./live_state.js";

/** Smaller pictures than this are drawn with their pixels' edges, instead of blurred. */
const SMALL = 256;

const CSS = `
.attune-moments { position: fixed; inset: 0; box-sizing: border-box; width: 100%; height: 100%; max-width: none;
  max-height: none; margin: 0; padding: 18px 22px; border: 0; background: #0e1013f5; color: #eceef2;
  font: 13px/1.4 system-ui, sans-serif; overflow: hidden; }
.attune-moments[open] { display: flex; flex-direction: column; gap: 12px; }
.attune-moments:focus-visible { outline: none; }
.attune-moments-pair { flex: 1; min-height: 0; display: grid; grid-template: minmax(0, 1fr) / minmax(0, 1fr) minmax(0, 1fr);
  gap: 18px; }
.attune-moments-pair figure { display: flex; flex-direction: column; gap: 8px; min-width: 0; min-height: 0; margin: 0; }
.attune-moments-pair img { flex: 1; min-height: 0; width: 100%; object-fit: contain; object-position: bottom; }
.attune-moments-pair figcaption { flex: none; text-align: center; font-variant-numeric: tabular-nums; }
.attune-moments-pair figure:first-child figcaption { color: #9aa4b2; }
.attune-moments-foot { flex: none; display: flex; align-items: center; gap: 14px; color: #9aa4b2; }
.attune-moments-foot input { flex: 1; min-width: 0; accent-color: #4fb6f5; }
.attune-moments-foot button { border: 0; border-radius: 6px; padding: 6px 14px; background: #2d333d; color: #eceef2;
  font: inherit; cursor: pointer; }
.attune-moments-foot button:hover { background: #3a424e; }
.attune-moments :is(button, input):focus-visible { outline: 2px solid #9cc7ff; outline-offset: 2px; }
@media (max-aspect-ratio: 1) {
  .attune-moments-pair { grid-template: minmax(0, 1fr) minmax(0, 1fr) / minmax(0, 1fr); }
}
`;

function injectStyle(document) {
    if (document.getElementById("attune-moments-style")) return;
    const style = document.createElement("style");
    style.id = "attune-moments-style";
    style.textContent = CSS;
    document.head.append(style);
}

/**
 * @param {Document} document
 * @param {(step: number|null) => void} onClose gets the step that was looked at last, null = the latest
 * @returns {{open: (step: number|null) => void, render: (samples: object[], best: number|null) => void, dispose: () => void}}
 */
export function createEnlargedSamples(document, onClose) {
    injectStyle(document);
    const listening = new AbortController();
    const { signal } = listening;
    const dialog = document.createElement("dialog");
    dialog.className = "attune-moments";
    dialog.tabIndex = -1;
    dialog.setAttribute("aria-label", "Sample pictures over time");
    const [before, now] = [figure(), figure()];
    const pair = document.createElement("div");
    pair.className = "attune-moments-pair";
    const slider = document.createElement("input");
    slider.type = "range";
    slider.min = "0";
    slider.setAttribute("aria-label", "Moment of the training");
    const keys = document.createElement("span");
    keys.textContent = "← → through time  ·  Esc close";
    const close = document.createElement("button");
    close.type = "button";
    close.textContent = "Close";
    const foot = document.createElement("div");
    foot.className = "attune-moments-foot";
    foot.append(slider, keys, close);
    dialog.append(pair, foot);

    let samples = [];
    let best = null;
    let step = null;

    function figure() {
        const root = document.createElement("figure");
        const image = document.createElement("img");
        const caption = document.createElement("figcaption");
        image.addEventListener("load", () => {
            const small = Math.max(image.naturalWidth, image.naturalHeight) < SMALL;
            image.style.imageRendering = small ? "pixelated" : "auto";
        }, { signal });
        root.append(image, caption);
        return { root, image, caption };
    }

    close.addEventListener("click", () => dialog.close(), { signal });
    slider.addEventListener("input", () => {
        const sample = samples[Number(slider.value)];
        step = sample === samples.at(-1) ? null : sample.step;
        draw();
    }, { signal });
    dialog.addEventListener("click", ({ target }) => [dialog, pair].includes(target) && dialog.close(), { signal });
    dialog.addEventListener("close", () => {
        dialog.remove();
        onClose(step);
    }, { signal });
    dialog.addEventListener("keydown", (event) => {
        // The page behind has shortcuts of its own.
        event.stopPropagation();
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        const places = { ArrowLeft: -1, ArrowRight: 1, Home: -samples.length, End: samples.length };
        if (!(event.key in places)) return;
        step = sampleBeside(samples, step, places[event.key]);
        event.preventDefault();
        draw();
    }, { signal });

    function show({ image, caption }, sample, note) {
        if (image.getAttribute("src") !== sample.image) image.src = sample.image;
        caption.textContent = sampleCaption(sample) + note;
        image.alt = caption.textContent;
    }

    function draw() {
        const sample = sampleAt(samples, step);
        show(before, samples[0], "");
        show(now, sample, sample === samples.at(-1) ? "  ·  latest" : sample.step === best ? "  ·  best" : "");
        pair.replaceChildren(...(samples.length > 1 ? [before.root, now.root] : [before.root]));
        slider.max = String(samples.length - 1);
        slider.value = String(samples.indexOf(sample));
        slider.hidden = samples.length < 2;
    }

    return {
        open(at) {
            if (!samples.length) return;
            step = at === samples.at(-1).step ? null : at;
            document.body.append(dialog);
            draw();
            dialog.showModal();
            dialog.focus();
        },
        render(next, bestStep) {
            [samples, best] = [next, bestStep];
            if (!dialog.open) return;
            if (samples.length) draw();
            else dialog.close();
        },
        dispose() {
            listening.abort();
            if (dialog.open) dialog.close();
            dialog.remove();
        },
    };
}
