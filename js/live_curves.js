/**
 * Which curves of a run are drawn, and how: titles, axes, paths. No host, no page: runs under Node.
 */

import { EVALUATION, FIGURES, MOST_FIRST, NOT_DRAWN, PREFIXES } from "./live_figures.js";
import { bestStep, isActive } from "./live_state.js";

/** The box that the paths are drawn in; the page stretches it. */
export const WIDTH = 400;
export const HEIGHT = 100;
/** More points than this are joined without dots. */
const MOST_DOTS = 80;
/** How much of the run, to either side, is in one average. */
const REACH = 0.08;
/** A running curve has room for this many updates, then for twice as many, and so on. */
const ROOM = 20;

/** How the figure of this name is shown; one that the table lacks goes by its plain name. The same as in Python. */
export function figureOf(name) {
    if (Object.hasOwn(FIGURES, name)) return FIGURES[name];
    for (const { prefix, title, meaning } of PREFIXES) {
        if (!name.startsWith(prefix) || name === prefix) continue;
        const known = figureOf(name.slice(prefix.length));
        const lower = known.title.slice(0, 1).toLowerCase() + known.title.slice(1);
        return { ...known, title: title.replace("{}", lower), meaning: meaning.replace("{}", known.meaning).trim() };
    }
    const words = name.replaceAll("_", " ").trim();
    return {
        title: words.slice(0, 1).toUpperCase() + words.slice(1), meaning: "", better: "", format: "number", smooth: true,
        includes: [], line: null, minor: false, colour: "#aab3c0",
    };
}

/**
 * Which panels a run with these figures has. A figure of an evaluation is drawn in the panel of the one that it repeats.
 * @returns {{shown: string[], all: string[]}} those shown first, and all, in order
 */
export function panels(names, first) {
    const drawn = [...names].filter((name) => !NOT_DRAWN.includes(name));
    const own = drawn.filter((name) => !(name.startsWith(EVALUATION) && drawn.includes(name.slice(EVALUATION.length))));
    const known = [...first, ...Object.keys(FIGURES)].filter((name) => own.includes(name));
    const all = [...new Set([...known, ...own.sort()])];
    const shown = all.filter((name) => first.includes(name)).slice(0, MOST_FIRST);
    return { shown: shown.length ? shown : all.slice(0, MOST_FIRST), all };
}

/** All figures of a run. */
export function namesOf(state) {
    return new Set(state.history.flatMap(Object.keys));
}

/**
 * What a person changed about the panels of a node: figures that are shown besides, and such that are not.
 * @typedef {{on: string[], off: string[]}} Choice
 */

/** A choice out of a saved workflow, where anything may stand. */
export function choiceOf(saved) {
    const words = (list) => (Array.isArray(list) ? list.filter((name) => typeof name === "string") : []);
    return { on: words(saved?.on), off: words(saved?.off) };
}

/** The panels that are shown, in order, and all there are. */
export function chosenPanels(state, choice) {
    const { shown, all } = panels(namesOf(state), state.firstCurves);
    return { shown: all.filter((name) => choice.on.includes(name) || (shown.includes(name) && !choice.off.includes(name))), all };
}

/** The choice after a figure was switched on or off. */
export function switched(choice, name, on) {
    const without = (list) => list.filter((other) => other !== name);
    const [add, drop] = on ? ["on", "off"] : ["off", "on"];
    return { [drop]: without(choice[drop]), [add]: [...without(choice[add]), name] };
}

/** Four significant digits without a tail of zeros. */
export function formatNumber(value) {
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size < 1e-4 || size >= 1e6) return String(Number(value.toPrecision(2)));
    return String(Number(value.toPrecision(4)));
}

/** A value of a figure as people read it. */
export function formatValue(format, value) {
    if (format === "percent") return `${Number((100 * value).toFixed(1))} %`;
    if (format === "count") return Math.round(value).toLocaleString("en").replaceAll(",", "\u202f");
    return formatNumber(value);
}

/**
 * A straight line fitted around each value, and read there: the same as in the report picture. Constants and straight lines
 * come out as they are.
 */
export function smoothed(values) {
    const reach = Math.max(1, roundHalfEven(REACH * values.length));
    return values.map((_, here) => {
        const first = Math.max(0, here - reach);
        const last = Math.min(values.length - 1, here + reach);
        const middle = (first + last) / 2;
        let [sum, spread, product] = [0, 0, 0];
        for (let place = first; place <= last; place++) sum += values[place];
        const mean = sum / (last - first + 1);
        for (let place = first; place <= last; place++) {
            spread += (place - middle) ** 2;
            product += (place - middle) * (values[place] - mean);
        }
        return mean + (product / (spread || 1)) * (here - middle);
    });
}

/** As Python rounds. */
function roundHalfEven(value) {
    const whole = Math.round(value);
    return Math.abs(value % 1) === 0.5 && whole % 2 ? whole - 1 : whole;
}

/** About `count` round numbers that lie within [low, high]; equal bounds are widened first. The same as in Python. */
export function niceTicks(low, high, count) {
    if (!(high > low)) {
        const margin = Math.abs(low) * 0.1 || 1;
        [low, high] = [low - margin, high + margin];
    }
    const raw = (high - low) / Math.max(1, count - 1);
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((factor) => power * factor).find((size) => size >= raw * 0.999);
    const first = Math.ceil(low / step - 1e-9);
    const last = Math.floor(high / step + 1e-9);
    return Array.from({ length: last - first + 1 }, (_, index) => Number(((first + index) * step).toFixed(12)));
}

/** The updates that the curves span: of a running one with some room, so that its scale changes only now and then. */
export function span(state) {
    const rows = state.history;
    const first = rows.length ? rows[0].step : 0;
    let last = rows.length ? rows.at(-1).step : 1;
    if (isActive(state)) {
        let room = ROOM;
        while (room < last) room *= 2;
        last = Math.max(last, Math.min(room, state.total));
    }
    return { first, last: Math.max(last, first + 1) };
}

/**
 * The curves to draw: SVG path data in a box of WIDTH × HEIGHT, and places as shares of it from left and top.
 *
 * @returns {{name: string, title: string, meaning: string, better: string, colour: string, value: string, raw: string,
 *            mean: string, dots: string, end: string, tests: string, testDots: string, line: string,
 *            ticks: {y: number, text: string}[], first: number, last: number, best: number|null}[]}
 *            mean = the line to read, raw = the scattered values behind it ("" where there is no average)
 */
export function curves(state, names) {
    const { first, last } = span(state);
    const x = (step) => (step - first) / (last - first);
    const best = bestStep(state);
    return names.map((name) => {
        const figure = figureOf(name);
        const own = pointsOf(state, name);
        const tests = pointsOf(state, EVALUATION + name);
        const values = own.map(([, value]) => value);
        const sparse = isSparse(own.length, state.history.length);
        const averaged = figure.smooth && !sparse;
        const line = averaged ? smoothed(values) : values;
        const axis = axisOf([...values, ...tests.map(([, value]) => value), ...figure.includes]);
        const place = ([step, value]) => [x(step) * WIDTH, axis.y(value) * HEIGHT];
        const points = own.map(place);
        const read = own.map(([step], index) => place([step, line[index]]));
        const test = tests.map(place);
        const latest = tests.at(-1);
        return {
            name,
            title: figure.title,
            meaning: figure.meaning,
            better: figure.better,
            colour: figure.colour,
            value: formatValue(figure.format, line.at(-1)),
            test: latest ? formatValue(figure.format, latest[1]) : "",
            raw: averaged ? path(points) : "",
            mean: path(read),
            dots: sparse && points.length <= MOST_DOTS ? dots(points) : "",
            end: dots(read.slice(-1)),
            tests: path(test),
            testDots: test.length <= MOST_DOTS ? dots(test) : "",
            line: figure.line === null ? "" : path([[0, axis.y(figure.line) * HEIGHT], [WIDTH, axis.y(figure.line) * HEIGHT]]),
            ticks: axis.ticks.map((tick) => ({ y: axis.y(tick), text: formatValue(figure.format, tick) })),
            first,
            last,
            best: best !== null && best >= first ? x(best) : null,
        };
    });
}

/** Whether a figure comes only now and then, so that its points are drawn and no average of them. */
export function isSparse(points, rows) {
    return 2 * points <= rows;
}

function pointsOf(state, name) {
    return state.history.filter((row) => name in row).map((row) => [row.step, row[name]]);
}

/** Round marks for these values, and where a value lies: 0 at the top, 1 at the bottom. */
function axisOf(values) {
    const [least, most] = [Math.min(...values), Math.max(...values)];
    const margin = (most - least) * 0.04 || Math.abs(least) * 0.05 || 0.5;
    // Few marks, but two at least, or the scale could not be read.
    const ticks = [3, 4, 5].map((count) => niceTicks(least - margin, most + margin, count)).find((found) => found.length > 1);
    const low = Math.min(ticks[0], least);
    const high = Math.max(ticks.at(-1), most);
    return { ticks, y: (value) => 1 - (value - low) / (high - low || 1) };
}

/** What the curves say where the pointer is: x as a share of the panel → the nearest update with a figure of that name. */
export function readingAt(state, name, x) {
    const { first, last } = span(state);
    const step = first + x * (last - first);
    const nearest = (points) => points.reduce((best, point) => (Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best));
    const own = pointsOf(state, name);
    if (!own.length) return null;
    const [at, value] = nearest(own);
    return { step: at, x: (at - first) / (last - first), text: formatValue(figureOf(name).format, value) };
}

function path(points) {
    return points.map(([x, y], index) => `${index ? "L" : "M"}${round(x)} ${round(y)}`).join("");
}

/** Lines without length: with round ends they are dots that stay round in a stretched picture. */
function dots(points) {
    return points.map(([x, y]) => `M${round(x)} ${round(y)}h0`).join("");
}

function round(value) {
    return Math.round(value * 100) / 100;
}
