/**
 * The curves of the live view: one small panel per figure, and a chip for each to show or hide it. Knows no host.
 */

import { HEIGHT, WIDTH, chosenPanels, curves, figureOf, readingAt, span } from "./live_curves.js";

const SVG = "http://www.w3.org/2000/svg";
const STROKES = { line: 1, raw: 1, mean: 2, dots: 5, tests: 1, testDots: 6, testHoles: 3, end: 7 };

export const CSS = `
.attune-live-chips { display: flex; flex-wrap: wrap; gap: 4px; flex: none; }
.attune-live button.attune-live-chip { display: flex; align-items: center; gap: 5px; max-width: 100%; height: 20px;
  padding: 0 7px 0 6px; border-radius: 10px; background: #1c2027; color: #9aa4b2; font-size: 11px; white-space: nowrap; }
.attune-live button.attune-live-chip:hover { color: #eceef2; background: #262b34; }
.attune-live button.attune-live-chip[aria-pressed="true"] { background: #2d333d; color: #eceef2; }
.attune-live button.attune-live-more { padding: 0 6px; background: none; }
.attune-live-chip i { flex: none; box-sizing: border-box; width: 8px; height: 8px; border-radius: 50%;
  border: 1.5px solid var(--own); }
.attune-live-chip[aria-pressed="true"] i { background: var(--own); }
.attune-live-curves { display: grid; gap: 6px; flex: 1 0 auto; grid-auto-rows: minmax(90px, 1fr);
  grid-template-columns: repeat(auto-fit, minmax(min(100%, max(178px, 100% / var(--columns) - 6px)), 1fr)); }
.attune-live-curves:empty::before { content: "The curves begin with the first update."; margin: auto; color: #7d8796; }
.attune-live-curve { display: flex; flex-direction: column; gap: 3px; min-width: 0; max-height: 180px;
  box-sizing: border-box; padding: 5px 8px 4px; container-type: inline-size;
  border-radius: 6px; background: #1c2027; font-variant-numeric: tabular-nums; }
.attune-live-label { display: flex; align-items: baseline; gap: 5px; flex: none; }
.attune-live-name { color: var(--own); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.attune-live-better { flex: 1; color: #7d8796; font-size: 11px; }
.attune-live-value { flex: none; font-weight: 600; white-space: nowrap; }
.attune-live-value small { margin-left: 6px; font-size: 11px; font-weight: 400; color: #9aa4b2; }
@container (max-width: 225px) { .attune-live-value small { display: none; } }
.attune-live-plot { position: relative; flex: 1; min-height: 44px; margin: 3px 3px 0 38px; cursor: crosshair; }
.attune-live-plot svg { position: absolute; inset: 0; display: block; width: 100%; height: 100%; overflow: visible; }
.attune-live-tick { position: absolute; left: 0; right: -3px; height: 0; border-top: 1px solid #2d333d; }
.attune-live-tick span { position: absolute; right: calc(100% + 5px); top: -6px; color: #8a94a3; font-size: 10px;
  line-height: 11px; white-space: nowrap; }
.attune-live-best { position: absolute; top: -2px; bottom: 0; width: 0; border-left: 1px dashed #6ecb8b; }
.attune-live-best::before { content: ""; position: absolute; left: -4px; top: -4px; width: 7px; height: 7px;
  background: #6ecb8b; rotate: 45deg; border-radius: 1px; }
.attune-live-cursor { position: absolute; top: 0; bottom: 0; width: 0; border-left: 1px solid #eceef280; }
.attune-live-steps { display: flex; justify-content: space-between; flex: none; margin-left: 38px; color: #8a94a3;
  font-size: 10px; line-height: 12px; }
.attune-live-steps .here { color: #eceef2; }
.attune-live [hidden] { display: none !important; }
`;

/**
 * @param {Document} document
 * @param {(name: string, on: boolean) => void} onSwitch called when a chip is pressed
 * @returns {{chips: HTMLElement, panels: HTMLElement, render: (state: object, choice: object) => void,
 *            pointAtStep: (step: number|null) => void, dispose: () => void}}
 */
export function createCharts(document, onSwitch) {
    const listening = new AbortController();
    const { signal } = listening;
    const chips = element(document, "div", "attune-live-chips");
    chips.setAttribute("role", "group");
    chips.setAttribute("aria-label", "Curves");
    const panels = element(document, "div", "attune-live-curves");
    const chipOf = new Map();
    const panelOf = new Map();
    const more = element(document, "button", "attune-live-chip attune-live-more");
    more.type = "button";
    more.addEventListener("click", () => {
        unfolded = !unfolded;
        render(state, choice);
    }, { signal });
    let unfolded = false;
    let state = null;
    let choice = null;
    /** Where the pointer is over the curves, as a share of their width; null = elsewhere. */
    let pointer = null;

    function chip(name) {
        if (chipOf.has(name)) return chipOf.get(name);
        const { title, meaning, colour } = figureOf(name);
        const made = element(document, "button", "attune-live-chip", element(document, "i", ""), title);
        made.type = "button";
        made.title = meaning;
        made.dataset.figure = name;
        made.style.setProperty("--own", colour);
        made.addEventListener("click", () => onSwitch(name, made.getAttribute("aria-pressed") !== "true"), { signal });
        chipOf.set(name, made);
        return made;
    }

    function panel(name) {
        if (panelOf.has(name)) return panelOf.get(name);
        const make = (className, ...children) => element(document, "span", className, ...children);
        const parts = {
            name: make("attune-live-name"), better: make("attune-live-better"), value: make("attune-live-value"),
            ticks: element(document, "div", ""), best: element(document, "div", "attune-live-best"),
            cursor: element(document, "div", "attune-live-cursor"), from: make(""), to: make(""), paths: {},
        };
        const svg = document.createElementNS(SVG, "svg");
        svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
        svg.setAttribute("preserveAspectRatio", "none");
        for (const [kind, width] of Object.entries(STROKES)) {
            const line = document.createElementNS(SVG, "path");
            const settings = {
                class: `attune-live-${kind}`, fill: "none", "vector-effect": "non-scaling-stroke", "stroke-width": width,
                "stroke-linecap": "round", "stroke-linejoin": "round",
            };
            for (const [key, value] of Object.entries(settings)) line.setAttribute(key, value);
            parts.paths[kind] = line;
            svg.append(line);
        }
        const plot = element(document, "div", "attune-live-plot", parts.ticks, parts.best, svg, parts.cursor);
        const label = element(document, "div", "attune-live-label", parts.name, parts.better, parts.value);
        const steps = element(document, "div", "attune-live-steps", parts.from, parts.to);
        const box = element(document, "section", "attune-live-curve", label, plot, steps);
        box.dataset.series = name;
        plot.addEventListener("pointermove", ({ clientX }) => {
            const { left, width } = plot.getBoundingClientRect();
            pointAt(width ? Math.min(1, Math.max(0, (clientX - left) / width)) : null);
        }, { signal });
        plot.addEventListener("pointerleave", () => pointAt(null), { signal });
        const made = { box, parts, curve: null };
        panelOf.set(name, made);
        return made;
    }

    function pointAt(x) {
        pointer = x;
        for (const box of panels.children) renderReading(panelOf.get(box.dataset.series));
    }

    /** The latest value, or the one under the pointer. */
    function renderReading({ parts, curve }) {
        const reading = pointer === null ? null : readingAt(state, curve.name, pointer);
        parts.cursor.hidden = !reading;
        parts.to.textContent = `update ${reading ? reading.step : curve.last}`;
        parts.to.classList.toggle("here", Boolean(reading));
        if (reading) parts.cursor.style.left = `${100 * reading.x}%`;
        const test = curve.test && !reading ? [element(document, "small", "", `test ${curve.test}`)] : [];
        parts.value.replaceChildren(reading ? reading.text : curve.value, ...test);
    }

    function renderPanel(made, curve) {
        const { box, parts } = made;
        made.curve = curve;
        box.style.setProperty("--own", curve.colour);
        box.title = curve.meaning + (curve.test ? " Rings: measured on fixed prompts and seeds." : "");
        parts.name.textContent = curve.title;
        parts.better.textContent = { up: "↑", down: "↓" }[curve.better] ?? "";
        parts.better.title = { up: "Higher is better.", down: "Lower is better." }[curve.better] ?? "";
        parts.from.textContent = String(curve.first);
        parts.ticks.replaceChildren(...curve.ticks.map(({ y, text }) => {
            const tick = element(document, "div", "attune-live-tick", element(document, "span", "", text));
            tick.style.top = `${100 * y}%`;
            return tick;
        }));
        parts.best.hidden = curve.best === null;
        if (curve.best !== null) parts.best.style.left = `${100 * curve.best}%`;
        const data = { ...curve, testHoles: curve.testDots };
        for (const [kind, line] of Object.entries(parts.paths)) {
            line.setAttribute("d", data[kind]);
            const colour = { line: "#6b7482", tests: "#eceef2", testDots: "#eceef2", testHoles: "#1c2027" }[kind];
            line.setAttribute("stroke", colour ?? curve.colour);
            line.setAttribute("stroke-opacity", { raw: 0.35, tests: 0.45 }[kind] ?? 1);
        }
        parts.paths.line.setAttribute("stroke-dasharray", "3 4");
        renderReading(made);
    }

    /** Show what the curves say at an update; null = nowhere. */
    function pointAtStep(step) {
        if (!state || step === null) return pointAt(null);
        const { first, last } = span(state);
        pointAt(step >= first && step <= last ? (step - first) / (last - first) : null);
    }

    function renderChips(shown, all) {
        const minor = all.filter((name) => figureOf(name).minor && !shown.includes(name));
        const folded = !unfolded && minor.length > 1;
        const seen = folded ? all.filter((name) => !minor.includes(name)) : all;
        more.textContent = folded ? `+ ${minor.length} more` : "fewer";
        more.setAttribute("aria-expanded", String(!folded));
        keep(chips, [...seen.map(chip), ...(minor.length > 1 ? [more] : [])]);
        for (const name of all) chip(name).setAttribute("aria-pressed", String(shown.includes(name)));
        // One curve needs no switch.
        chips.hidden = all.length < 2;
    }

    function render(next, nextChoice) {
        [state, choice] = [next, nextChoice];
        const { shown, all } = chosenPanels(state, choice);
        renderChips(shown, all);
        panels.style.setProperty("--columns", String(columnsOf(shown.length)));
        const wanted = curves(state, shown);
        keep(panels, wanted.map(({ name }) => panel(name).box));
        for (const curve of wanted) renderPanel(panel(curve.name), curve);
    }

    return { chips, panels, render, pointAtStep, dispose: () => listening.abort() };
}

/** No row should be left with a single panel where it can be helped. */
function columnsOf(count) {
    return count > 4 || count === 3 ? 3 : Math.max(1, Math.min(2, count));
}

/** Give a box these children, and touch nothing where it has them. */
function keep(box, children) {
    if (children.length === box.children.length && children.every((child, index) => child === box.children[index])) return;
    box.replaceChildren(...children);
}

export function element(document, tag, className, ...children) {
    const made = document.createElement(tag);
    made.className = className;
    made.append(...children);
    return made;
}
