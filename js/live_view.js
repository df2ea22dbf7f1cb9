/**
 * The live view's elements: built once, then only changed. Takes the document from outside; knows no host.
 */

import { curves, describe, formatNumber, isActive } from "./live_state.js";

const SVG = "http://www.w3.org/2000/svg";
const CURVE_WIDTH = 400;
const CURVE_HEIGHT = 44;

// In Nodes 2.0 the box around a widget is as high as its content: the least height keeps an idle view from collapsing. It is
// what the host leaves of the widget's height (attune_live.js) after its margins.
const CSS = `
.attune-live { display: flex; flex-direction: column; gap: 6px; box-sizing: border-box; width: 100%; height: 100%;
  min-height: 340px; contain: inline-size;
  padding: 8px; border-radius: 8px; background: #14171c; color: #eceef2; font: 12px/1.35 system-ui, sans-serif;
  overflow: hidden auto; }
.attune-live-head { display: flex; align-items: center; gap: 8px; }
.attune-live-title { flex: 1; font-weight: 600; font-size: 13px; font-variant-numeric: tabular-nums; }
.attune-live-detail { color: #9aa4b2; overflow-wrap: anywhere; min-height: 16px; }
.attune-live-stop { border: 0; border-radius: 5px; padding: 4px 10px; background: #8f3d3d; color: #fff; font: inherit;
  cursor: pointer; }
.attune-live-stop:hover { background: #a94a4a; }
.attune-live-stop:disabled { background: #39404b; color: #9aa4b2; cursor: default; }
.attune-live-bar { height: 4px; border-radius: 2px; background: #2d333d; overflow: hidden; flex: none; }
.attune-live-bar > div { height: 100%; width: 0; background: #4fb6f5; }
.attune-live-bar.finished > div { background: #6ecb8b; }
.attune-live-bar.stopped > div { background: #f2a65a; }
.attune-live-bar.failed > div { background: #ef7d7d; }
.attune-live-curves { display: flex; flex-direction: column; gap: 6px; flex: 1 0 auto; }
.attune-live-curve { display: flex; flex-direction: column; flex: 1 0 auto; max-height: 160px; padding: 5px 8px 6px;
  border-radius: 6px; background: #1c2027; }
.attune-live-label { display: flex; justify-content: space-between; font-variant-numeric: tabular-nums; }
.attune-live-range { color: #9aa4b2; }
.attune-live-curve svg { display: block; flex: 1 0 ${CURVE_HEIGHT}px; width: 100%; height: ${CURVE_HEIGHT}px;
  overflow: visible; }
.attune-live-samples { display: flex; gap: 6px; overflow: auto hidden; flex: none; }
.attune-live-samples:empty { display: none; }
.attune-live-samples figure { margin: 0; flex: none; }
.attune-live-samples figure:first-child { position: sticky; left: 0; background: #14171c; box-shadow: 6px 0 #14171c; }
.attune-live-samples img { display: block; height: 122px; border-radius: 4px; }
.attune-live-samples figcaption { text-align: center; color: #9aa4b2; font-size: 11px; }
.attune-live[data-status="idle"] { justify-content: center; text-align: center; }
.attune-live[data-status="idle"] :is(.attune-live-bar, .attune-live-curves) { display: none; }
.attune-live[data-status="idle"] .attune-live-head { justify-content: center; }
`;

function injectStyle(document) {
    if (document.getElementById("attune-live-style")) return;
    const style = document.createElement("style");
    style.id = "attune-live-style";
    style.textContent = CSS;
    document.head.append(style);
}

function element(document, tag, className, ...children) {
    const made = document.createElement(tag);
    made.className = className;
    made.append(...children);
    return made;
}

/**
 * @param {Document} document
 * @param {() => void} onStop called when "Stop and save" is pressed
 * @returns {{root: HTMLElement, render: (state: object, now: number) => void, dispose: () => void}}
 */
export function createView(document, onStop) {
    injectStyle(document);
    const title = element(document, "div", "attune-live-title");
    const stop = element(document, "button", "attune-live-stop", "Stop and save");
    stop.type = "button";
    stop.title = "Ends the run after the current step. The LoRA so far is saved, and the same run name goes on from here.";
    const detail = element(document, "div", "attune-live-detail");
    const fill = element(document, "div", "");
    const bar = element(document, "div", "attune-live-bar", fill);
    const charts = element(document, "div", "attune-live-curves");
    const samples = element(document, "div", "attune-live-samples");
    const root = element(document, "div", "attune-live", element(document, "div", "attune-live-head", title, stop), bar, detail, charts, samples);
    stop.addEventListener("click", onStop);
    const rows = new Map();

    function curveRow(key) {
        let row = rows.get(key);
        if (row) return row;
        const name = element(document, "span", "");
        const range = element(document, "span", "attune-live-range");
        const svg = document.createElementNS(SVG, "svg");
        svg.setAttribute("viewBox", `0 -3 ${CURVE_WIDTH} ${CURVE_HEIGHT + 6}`);
        svg.setAttribute("preserveAspectRatio", "none");
        const lines = ["raw", "mean", "now"].map((kind) => {
            const line = document.createElementNS(SVG, "path");
            line.setAttribute("class", `attune-live-${kind}`);
            line.setAttribute("fill", "none");
            line.setAttribute("vector-effect", "non-scaling-stroke");
            line.setAttribute("stroke-width", { raw: "1", mean: "2", now: "7" }[kind]);
            line.setAttribute("stroke-linecap", "round");
            line.setAttribute("stroke-opacity", kind === "raw" ? "0.35" : "1");
            svg.append(line);
            return line;
        });
        const box = element(document, "div", "attune-live-curve", element(document, "div", "attune-live-label", name, range), svg);
        box.dataset.series = key;
        row = { box, name, range, lines };
        rows.set(key, row);
        return row;
    }

    function renderCurves(state) {
        const wanted = curves(state, CURVE_WIDTH, CURVE_HEIGHT);
        for (const curve of wanted) {
            const row = curveRow(curve.key);
            row.name.textContent = `${curve.title}  ${formatNumber(curve.last)}`;
            row.name.style.color = curve.colour;
            row.range.textContent = `${formatNumber(curve.low)} … ${formatNumber(curve.high)}`;
            row.range.title = "Lowest and highest so far: the bottom and the top of the curve.";
            row.box.title = curve.hint;
            // A line without length and with round ends is a dot, which stays round in a stretched picture.
            [curve.raw, curve.mean, `M${curve.end.join(" ")}h0`].forEach((data, index) => {
                row.lines[index].setAttribute("d", data);
                row.lines[index].setAttribute("stroke", curve.colour);
            });
        }
        const boxes = wanted.map((curve) => rows.get(curve.key).box);
        if (boxes.length !== charts.children.length || boxes.some((box, index) => box !== charts.children[index])) {
            charts.replaceChildren(...boxes);
        }
    }

    function renderSamples(state) {
        const signature = state.samples.map((sample) => sample.step).join(",");
        if (samples.dataset.shown === signature) return;
        samples.dataset.shown = signature;
        samples.replaceChildren(
            ...state.samples.map((sample) => {
                const image = document.createElement("img");
                // A picture has no width before it is read, so that only then the newest can be brought into view.
                image.addEventListener("load", showNewest, { once: true });
                image.src = sample.image;
                image.alt = `Samples after ${sample.step} updates`;
                const caption = element(document, "figcaption", "", sample.step === 0 ? "before" : `after ${sample.step}`);
                return element(document, "figure", "", image, caption);
            }),
        );
    }

    function showNewest() {
        samples.scrollLeft = samples.scrollWidth;
    }

    function render(state, now) {
        const { headline, detail: line } = describe(state, now);
        title.textContent = headline;
        detail.textContent = line;
        bar.className = `attune-live-bar ${state.status}`;
        fill.style.width = `${state.total ? Math.min(100, (100 * state.step) / state.total) : 0}%`;
        stop.disabled = state.status !== "running";
        stop.style.display = isActive(state) ? "" : "none";
        root.dataset.status = state.status;
        renderCurves(state);
        renderSamples(state);
    }

    return { root, render, dispose: () => stop.removeEventListener("click", onStop) };
}
