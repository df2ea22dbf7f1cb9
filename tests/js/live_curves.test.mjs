/** Which curves the live view draws, and how: `node --test tests/js`. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import {
    HEIGHT,
    WIDTH,
    choiceOf,
    chosenPanels,
    curves,
    figureOf,
    formatNumber,
    formatValue,
    isSparse,
    niceTicks,
    panels,
    readingAt,
    smoothed,
    span,
    switched,
} from "../../js/live_curves.js";
import { FIGURES } from "../../js/live_figures.js";
import { MOST_SAMPLES, initialState, reduce, thinned, thinnedSamples } from "../../js/live_state.js";

// Written by tests/live_golden.py, whose side is tested against it too.
const golden = JSON.parse(readFileSync(new URL("./live_golden.json", import.meta.url)));

const NONE = { on: [], off: [] };

function run(rows, { total = rows.length, first = [], over = false } = {}) {
    const start = { node: "8", workflow: "one", run: "warm", kind: "start", method: "m", first_curves: first, step: 0, total, history: [], note: "" };
    let state = reduce(initialState(), start, 0);
    rows.forEach((metrics, index) => (state = reduce(state, { kind: "report", step: index + 1, total, metrics }, index)));
    return over ? reduce(state, { kind: "end", status: "finished", file: "", message: "" }, 1) : state;
}

const close = (one, two) => assert.ok(Math.abs(one - two) < 1e-9 * Math.max(1, Math.abs(two)), `${one} is not ${two}`);

test("titles and meanings agree with the report's", () => {
    for (const [name, expected] of Object.entries(golden.figures)) {
        const { title, meaning, better, format } = figureOf(name);
        assert.deepEqual({ title, meaning, better, format }, expected);
    }
    assert.ok(Object.keys(FIGURES).length > 15);
});

test("the choice of the first curves agrees with the report's", () => {
    for (const { names, first, shown, all } of golden.panels) assert.deepEqual(panels(names, first), { shown, all });
});

test("averages, ticks, thinning agree with the report's", () => {
    for (const { values, result } of golden.smoothed) smoothed(values).forEach((value, index) => close(value, result[index]));
    for (const { low, high, result } of golden.ticks) {
        const found = niceTicks(low, high, 3);
        assert.equal(found.length, result.length);
        found.forEach((value, index) => close(value, result[index]));
    }
    for (const [points, rows, expected] of golden.sparse) assert.equal(isSparse(points, rows), expected);
    const { count, ...expected } = golden.thinned;
    const rows = Array.from({ length: count }, (_, n) => ({ step: n + 1, loss: n, ...(n % 100 === 7 && { rare: n }) }));
    const left = thinned(rows);
    const ends = [...left.slice(0, 3), ...left.slice(-3)].map((row) => row.step);
    assert.deepEqual({ left: left.length, ends, rare: left.filter((row) => "rare" in row) }, expected);
    const samples = Array.from({ length: 3 * MOST_SAMPLES }, (_, index) => ({ step: 7 * index, image: "" }));
    assert.deepEqual(thinnedSamples(samples).map((sample) => sample.step), golden.samples);
});

test("the average leaves constants and straight lines as they are, to both ends", () => {
    smoothed(Array(200).fill(0.7)).forEach((value) => close(value, 0.7));
    smoothed(Array.from({ length: 50 }, (_, index) => 3 - 0.1 * index)).forEach((value, index) => close(value, 3 - 0.1 * index));
    assert.deepEqual(smoothed([1, 5]), [1, 5]);
    const noisy = Array.from({ length: 100 }, (_, index) => (index % 2 ? 1 : -1));
    assert.ok(Math.max(...smoothed(noisy).slice(20, 80).map(Math.abs)) < 0.1, "noise is taken out");
});

test("a curve lies in its box by its axis, whose marks are round", () => {
    const state = run([4, 2, 3].map((loss) => ({ loss })), { over: true });
    const [curve] = curves(state, ["loss"]);
    assert.deepEqual(curve.ticks.map(({ text }) => text), ["2", "4"]);
    // Marks at the least and the greatest value: the axis ends there.
    assert.equal(curve.raw, `M0 0L${WIDTH / 2} ${HEIGHT}L${WIDTH} ${HEIGHT / 2}`);
    assert.deepEqual(curve.ticks.map(({ y }) => y), [1, 0]);
    assert.deepEqual([curve.first, curve.last], [1, 3]);
});

test("an axis shows the values that make a small change look small", () => {
    const state = run([0.3, 0.29, 0.31].map((diversity) => ({ diversity })), { over: true });
    const [curve] = curves(state, ["diversity"]);
    assert.equal(curve.ticks[0].text, "0");
    const accuracy = curves(run([0.61, 0.62].map((value) => ({ accuracy: value })), { over: true }), ["accuracy"])[0];
    assert.equal(accuracy.value, "62 %");
    assert.ok(accuracy.line, "chance is marked");
    assert.ok(accuracy.ticks.some(({ text }) => text === "100 %"));
});

test("every axis has two marks at least, whatever its values", () => {
    for (const scale of [1e-6, 0.013, 1, 7, 12345]) {
        for (const base of [0, 1, -3]) {
            const state = run([0, 0.37, 0.92].map((share) => ({ loss: scale * (base + share) })), { over: true });
            assert.ok(curves(state, ["loss"])[0].ticks.length >= 2, `${scale} ${base}`);
        }
    }
});

test("a figure that comes now and then is drawn as points joined by lines, without an average", () => {
    const rows = Array.from({ length: 40 }, (_, index) => ({ loss: index, ...((index + 1) % 10 === 0 && { held_out_accuracy: 0.5 + index / 100 }) }));
    const [sparse, dense] = curves(run(rows, { over: true }), ["held_out_accuracy", "loss"]);
    assert.equal(sparse.dots.match(/h0/g).length, 4);
    assert.equal(sparse.mean.match(/[ML]/g).length, 4);
    assert.equal(sparse.raw, "");
    assert.equal(dense.dots, "");
    assert.equal(dense.raw.match(/[ML]/g).length, 40);
});

test("what grows without noise is not averaged: its last value is exact", () => {
    const [curve] = curves(run([32, 64, 512].map((rollouts) => ({ rollouts })), { over: true }), ["rollouts"]);
    assert.equal(curve.raw, "");
    assert.equal(curve.value, "512");
});

test("an evaluation is drawn in the panel of the figure that it repeats", () => {
    const state = run([{ reward: 1 }, { reward: 1, evaluation_reward: 3 }], { first: ["reward"], over: true });
    assert.deepEqual(chosenPanels(state, NONE), { shown: ["reward"], all: ["reward"] });
    const [curve] = curves(state, ["reward"]);
    assert.equal(curve.test, "3");
    assert.equal(curve.testDots, `M${WIDTH} 0h0`, "the axis reaches to it");
});

test("a running curve has some room, in steps, and never more than the run", () => {
    const rows = Array.from({ length: 25 }, () => ({ loss: 1 }));
    assert.deepEqual(span(run(rows.slice(0, 3), { total: 5000 })), { first: 1, last: 20 });
    assert.deepEqual(span(run(rows, { total: 5000 })), { first: 1, last: 40 });
    assert.deepEqual(span(run(rows, { total: 30 })), { first: 1, last: 30 });
    assert.deepEqual(span(run(rows, { total: 5000, over: true })), { first: 1, last: 25 });
    assert.deepEqual(span(initialState()), { first: 0, last: 1 });
});

test("the best update is marked where it was", () => {
    const rows = [{ reward: 1 }, { reward: 2, best_step: 2 }, { reward: 1, best_step: 2 }];
    assert.equal(curves(run(rows, { over: true }), ["reward"])[0].best, 0.5);
    assert.equal(curves(run([{ reward: 1 }], { over: true }), ["reward"])[0].best, null);
    assert.deepEqual(panels(["step", "reward", "best_step"], []).all, ["reward"]);
});

test("curves are switched on and off, and back to what they were", () => {
    const state = run([{ reward: 1, loss: 1, diversity: 1, zebra: 1 }], { first: ["reward", "loss"] });
    assert.deepEqual(chosenPanels(state, NONE).shown, ["reward", "loss"]);
    let choice = switched(NONE, "zebra", true);
    choice = switched(choice, "reward", false);
    assert.deepEqual(chosenPanels(state, choice).shown, ["loss", "zebra"]);
    choice = switched(switched(choice, "zebra", false), "reward", true);
    assert.deepEqual(chosenPanels(state, choice).shown, ["reward", "loss"]);
    assert.deepEqual(NONE, { on: [], off: [] });
});

test("a choice out of a damaged workflow is none", () => {
    for (const saved of [undefined, null, 3, "x", [], { on: "reward", off: [1, {}] }]) assert.deepEqual(choiceOf(saved), NONE);
    assert.deepEqual(choiceOf({ on: ["loss"] }), { on: ["loss"], off: [] });
});

test("the pointer reads the nearest update that has the figure", () => {
    const state = run([{ loss: 1, accuracy: 0.5 }, { loss: 2 }, { loss: 3, accuracy: 0.75 }], { over: true });
    assert.deepEqual(readingAt(state, "loss", 0.6), { step: 2, x: 0.5, text: "2" });
    assert.deepEqual(readingAt(state, "accuracy", 0.6), { step: 3, x: 1, text: "75 %" });
    assert.equal(readingAt(state, "reward", 0.6), null);
});

test("numbers read well", () => {
    assert.equal(formatNumber(0.123456), "0.1235");
    assert.equal(formatNumber(0.00001234), "0.000012");
    assert.equal(formatNumber(-12), "-12");
    assert.equal(formatNumber(0), "0");
    assert.equal(formatValue("percent", 0.1234), "12.3 %");
    assert.equal(formatValue("count", 12800), "12\u202f800");
});
