/**
 * The live view's elements: built once, then only changed. Takes the document from outside; knows no host.
 */

import { CSS as CHARTS_CSS, createCharts, element } from "./live_charts.js";
import { CSS as SAMPLES_CSS, createSamples } from "./live_samples.js";
import { bestStep, describe, isActive } from "./live_state.js";

// In Nodes 2.0 the box around a widget is as high as its content: the least height keeps an idle view from collapsing. It is
// what the host leaves of the widget's height (attune_live.js) after its margins.
const CSS = `
.attune-live { display: flex; flex-direction: column; gap: 6px; box-sizing: border-box; width: 100%; height: 100%;
  min-height: 500px; contain: inline-size;
  padding: 8px; border-radius: 8px; background: #14171c; color: #eceef2; font: 12px/1.35 system-ui, sans-serif;
  overflow: hidden auto; scrollbar-width: thin; scrollbar-color: #39404b transparent; }
.attune-live button { border: 0; font: inherit; cursor: pointer; }
.attune-live button:focus-visible { outline: 2px solid #9cc7ff; outline-offset: 1px; }
.attune-live-head { display: flex; align-items: center; gap: 8px; flex: none; }
.attune-live-title { flex: 1; font-weight: 600; font-size: 13px; font-variant-numeric: tabular-nums; }
.attune-live-below { display: flex; align-items: baseline; gap: 10px; flex: none; }
.attune-live-detail { flex: 1; color: #9aa4b2; overflow-wrap: anywhere; white-space: pre-line; min-height: 16px; }
.attune-live-kept { flex: none; color: #6ecb8b; font-variant-numeric: tabular-nums; }
.attune-live button.attune-live-stop { flex: none; border-radius: 5px; padding: 4px 10px; background: #8f3d3d; color: #fff; }
.attune-live button.attune-live-stop:hover { background: #a94a4a; }
.attune-live button.attune-live-stop:disabled { background: #39404b; color: #9aa4b2; cursor: default; }
.attune-live-bar { position: relative; height: 4px; border-radius: 2px; background: #2d333d; flex: none; }
.attune-live-fill { height: 100%; width: 0; border-radius: 2px; background: #4fb6f5; }
.attune-live-bar:is(.finished, .ended) > .attune-live-fill { background: #6ecb8b; }
.attune-live-bar.stopped > .attune-live-fill { background: #f2a65a; }
.attune-live-bar.failed > .attune-live-fill { background: #ef7d7d; }
.attune-live-mark { position: absolute; top: -2px; width: 8px; height: 8px; margin-left: -4px; border-radius: 1px;
  background: #6ecb8b; box-shadow: 0 0 0 1.5px #14171c; rotate: 45deg; }
.attune-live[data-status="failed"] .attune-live-detail { color: #f0a0a0; }
.attune-live[data-status="idle"] { justify-content: center; text-align: center; }
.attune-live[data-status="idle"] :is(.attune-live-bar, .attune-live-curves, .attune-live-chips, .attune-live-kept) { display: none; }
.attune-live[data-status="idle"] .attune-live-head { justify-content: center; }
.attune-live[data-status="idle"] .attune-live-title { flex: none; }
${CHARTS_CSS}${SAMPLES_CSS}`;

function injectStyle(document) {
    if (document.getElementById("attune-live-style")) return;
    const style = document.createElement("style");
    style.id = "attune-live-style";
    style.textContent = CSS;
    document.head.append(style);
}

/**
 * @param {Document} document
 * @param {{onStop: () => void, onSwitch: (name: string, on: boolean) => void}} outside
 *        onStop is called when "Stop and save" is pressed, onSwitch when a curve is switched on or off
 * @returns {{root: HTMLElement, render: (state: object, choice: object, now: number) => void, dispose: () => void}}
 */
export function createView(document, { onStop, onSwitch }) {
    injectStyle(document);
    const title = element(document, "div", "attune-live-title");
    const stop = element(document, "button", "attune-live-stop", "Stop and save");
    stop.type = "button";
    stop.title = "Ends this run after its present update and saves it. The nodes behind go on with the LoRA so far, and the "
        + "same run name goes on from here. (Cancel ends everything at once.)";
    const detail = element(document, "div", "attune-live-detail");
    const kept = element(document, "div", "attune-live-kept");
    const fill = element(document, "div", "attune-live-fill");
    const mark = element(document, "div", "attune-live-mark");
    const bar = element(document, "div", "attune-live-bar", fill, mark);
    const charts = createCharts(document, onSwitch);
    const samples = createSamples(document, charts.pointAtStep);
    const head = element(document, "div", "attune-live-head", title, stop);
    const below = element(document, "div", "attune-live-below", detail, kept);
    const root = element(document, "div", "attune-live", head, bar, below, charts.chips, charts.panels, samples.root);
    stop.addEventListener("click", onStop);

    function renderBar(state, best) {
        const share = (step) => `${state.total ? Math.min(100, (100 * step) / state.total) : 0}%`;
        bar.className = `attune-live-bar ${state.status}`;
        fill.style.width = share(state.step);
        mark.hidden = best === null;
        mark.style.left = share(best ?? 0);
        kept.textContent = best === null ? "" : `◆ best ${best}`;
        kept.title = best === null ? "" : `The best weights so far are those after update ${best}.`;
    }

    function render(state, choice, now) {
        const { headline, detail: line } = describe(state, now);
        const best = bestStep(state);
        title.textContent = headline;
        detail.textContent = line;
        stop.disabled = state.status !== "running";
        stop.hidden = !isActive(state);
        root.dataset.status = state.status;
        renderBar(state, best);
        charts.render(state, choice);
        samples.render(state.samples, best);
    }

    function dispose() {
        stop.removeEventListener("click", onStop);
        charts.dispose();
        samples.dispose();
    }

    return { root, render, dispose };
}
