/**
 * The sample pictures of the live view over time: before training beside the moment that is looked at, and a strip of all
 * moments to go through. Knows no host.
 */

import { element } from "./live_charts.js";
import { createEnlargedSamples } from "./live_enlarged.js";
import { sampleAt, sampleBeside, sampleCaption } from "./live_state.js";

export const CSS = `
.attune-live-samples { display: flex; flex-direction: column; gap: 5px; flex: none; border-radius: 6px; }
.attune-live-samples:focus-visible { outline: 2px solid #9cc7ff; outline-offset: 2px; }
.attune-live-stage { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 6px; height: 136px; }
.attune-live-stage figure { display: flex; flex-direction: column; gap: 2px; min-width: 0; min-height: 0; margin: 0;
  cursor: zoom-in; }
.attune-live-stage figure:only-child { grid-column: 1 / -1; }
.attune-live-stage img { display: block; flex: 1; min-height: 0; width: 100%; object-fit: contain; }
.attune-live-stage figcaption { flex: none; overflow: hidden; text-align: center; text-overflow: ellipsis;
  white-space: nowrap; color: #9aa4b2; font-size: 11px; line-height: 14px;
  font-variant-numeric: tabular-nums; }
.attune-live-stage figure.now figcaption { color: #eceef2; }
.attune-live-strip { display: flex; gap: 2px; height: 40px; }
.attune-live button.attune-live-moment { position: relative; flex: 1 1 0; min-width: 0; max-width: 64px; padding: 0;
  border-radius: 3px; background: #1c2027; overflow: hidden; cursor: zoom-in; container-type: inline-size;
  opacity: .55; }
.attune-live button.attune-live-moment:is(:hover, [aria-current="true"]) { opacity: 1; }
.attune-live button.attune-live-moment[aria-current="true"] { box-shadow: inset 0 -3px #4fb6f5; }
.attune-live-moment img { position: absolute; inset: 0 0 12px; width: 100%; height: calc(100% - 12px); object-fit: cover; }
.attune-live-moment span { position: absolute; inset: auto 0 1px; color: #9aa4b2; font-size: 9px; line-height: 10px;
  text-align: center; font-variant-numeric: tabular-nums; }
.attune-live button.attune-live-moment.best span { color: #6ecb8b; }
@container (max-width: 22px) { .attune-live-moment span { display: none; } }
`;

/**
 * @param {Document} document
 * @param {(step: number|null) => void} onPoint called with the step of the picture under the pointer, null = none
 * @returns {{root: HTMLElement, render: (samples: object[], best: number|null) => void, dispose: () => void}}
 */
export function createSamples(document, onPoint) {
    const listening = new AbortController();
    const { signal } = listening;
    const before = figure("before");
    const now = figure("now");
    const stage = element(document, "div", "attune-live-stage", before.root, now.root);
    const strip = element(document, "div", "attune-live-strip");
    const root = element(document, "div", "attune-live-samples", stage, strip);
    root.tabIndex = 0;
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", "Sample pictures over time. Arrow keys go through time, Enter enlarges.");
    const enlarged = createEnlargedSamples(document, (step) => {
        picked = step;
        draw();
        root.focus();
    });
    const moments = new Map();

    let samples = [];
    let best = null;
    /** The step that is looked at, null = the latest; and the one under the pointer, null = none. */
    let picked = null;
    let pointed = null;

    function figure(kind) {
        const image = document.createElement("img");
        const caption = element(document, "figcaption", "");
        const made = element(document, "figure", kind, image, caption);
        made.addEventListener("click", () => enlarged.open(picked), { signal });
        return { root: made, image, caption };
    }

    function moment(sample) {
        const known = moments.get(sample.step);
        if (known?.image === sample.image) return known.root;
        const picture = document.createElement("img");
        picture.src = sample.image;
        picture.alt = "";
        picture.draggable = false;
        const made = element(document, "button", "attune-live-moment", picture, element(document, "span", "", String(sample.step)));
        made.type = "button";
        // One stop for the keyboard, which goes through them with the arrow keys.
        made.tabIndex = -1;
        made.title = sampleCaption(sample);
        made.setAttribute("aria-label", sampleCaption(sample));
        made.addEventListener("pointerenter", () => point(sample.step), { signal });
        made.addEventListener("click", () => enlarged.open(sample.step), { signal });
        moments.set(sample.step, { root: made, image: sample.image });
        return made;
    }

    function point(step) {
        pointed = step;
        draw();
        onPoint(step);
    }

    strip.addEventListener("pointerleave", () => point(null), { signal });
    root.addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.metaKey || event.altKey || !samples.length) return;
        const steps = {
            ArrowLeft: () => sampleBeside(samples, picked, -1), ArrowRight: () => sampleBeside(samples, picked, 1),
            Home: () => samples[0].step, End: () => null,
        };
        if (event.key in steps) picked = steps[event.key]();
        else if (event.key === "Enter" || event.key === " ") enlarged.open(picked);
        else return;
        // The page behind has shortcuts of its own.
        event.stopPropagation();
        event.preventDefault();
        pointed = null;
        draw();
    }, { signal });

    function show({ root: box, image, caption }, sample, note) {
        if (image.getAttribute("src") !== sample.image) image.src = sample.image;
        image.alt = `Samples after ${sample.step} updates`;
        caption.textContent = sampleCaption(sample) + note;
        box.title = "Click to enlarge.";
    }

    function draw() {
        if (!samples.length) return;
        const looked = sampleAt(samples, pointed ?? picked);
        show(before, samples[0], "");
        // One picture is compared with nothing.
        now.root.remove();
        if (samples.length > 1) {
            show(now, looked, looked === samples.at(-1) ? "  ·  latest" : looked.step === best ? "  ·  best" : "");
            stage.append(now.root);
        }
        strip.hidden = samples.length < 2;
        for (const [step, { root: made }] of moments) {
            made.setAttribute("aria-current", String(step === looked.step));
            made.classList.toggle("best", step === best);
        }
    }

    function render(next, bestStep) {
        if (next === samples && bestStep === best) return;
        if (next[0]?.image !== samples[0]?.image) picked = null; // another run
        [samples, best] = [next, bestStep];
        const wanted = samples.map(moment);
        const steps = new Set(samples.map((sample) => sample.step));
        for (const step of [...moments.keys()]) if (!steps.has(step)) moments.delete(step);
        if (wanted.length !== strip.children.length || wanted.some((child, index) => child !== strip.children[index])) {
            strip.replaceChildren(...wanted);
        }
        root.hidden = !samples.length;
        draw();
        enlarged.render(samples, best);
    }

    function dispose() {
        listening.abort();
        enlarged.dispose();
    }

    return { root, render, dispose };
}
