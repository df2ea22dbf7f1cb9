/** The live view's logic, without page or host: `node --test tests/js`. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
    MOST_ROWS,
    MOST_SAMPLES,
    bestStep,
    describe,
    formatDuration,
    initialState,
    isActive,
    isFor,
    isForNode,
    reduce,
    sampleAt,
    sampleBeside,
    sampleCaption,
    secondsLeft,
    snapshotFor,
    snapshotOfResult,
    thinned,
} from "../../js/live_state.js";

const START = {
    node: "8", workflow: "one", run: "warm", kind: "start", method: "DDPO", first_curves: ["reward"], step: 0, total: 10, history: [],
    note: "320 MB",
};
const report = (step, metrics, total = 10) => ({ node: "8", kind: "report", step, total, metrics });
const play = (...messages) => messages.reduce((state, [message, now]) => reduce(state, message, now), initialState());

test("a run from start to end", () => {
    let state = play([START, 1000], [report(1, { loss: 0.5, reward: 0.2, gradient_norm: 3 }), 3000]);
    assert.equal(state.status, "running");
    assert.deepEqual(state.history, [{ step: 1, loss: 0.5, reward: 0.2, gradient_norm: 3 }]);
    assert.deepEqual(state.firstCurves, ["reward"]);
    assert.deepEqual(state.identity, { node: "8", workflow: "one", run: "warm" });
    // One of ten updates took 2 s, so nine more take 18 s.
    assert.equal(secondsLeft(state, 3000), 18);
    assert.equal(describe(state, 3000).headline, "Training  ·  1 / 10  ·  18 s left");
    state = reduce(state, { node: "8", kind: "end", status: "finished", file: "attune/warm_001.safetensors", message: "" }, 4000);
    assert.equal(describe(state, 4000).headline, "Finished  ·  1 / 10");
    assert.equal(describe(state, 4000).detail, "attune/warm_001.safetensors");
    assert.equal(secondsLeft(state, 4000), null);
});

test("no reduction changes the state it is given", () => {
    const state = play([START, 0], [report(1, { loss: 1 }), 10]);
    const before = structuredClone(state);
    for (const message of [START, report(2, { loss: 2 }), { kind: "samples", step: 1, image: "data:," }, { kind: "stopping" }]) {
        reduce(state, message, 20);
        assert.deepEqual(state, before);
    }
});

test("a figure that is null, missing or not a number is left out", () => {
    const state = play([START, 0], [report(1, { loss: null, reward: NaN, held_out_reward: 0.3 }), 1]);
    assert.deepEqual(state.history, [{ step: 1, held_out_reward: 0.3 }]);
});

test("stopping is shown until the server says that it has stopped, whatever arrives in between", () => {
    let state = play([START, 0], [{ kind: "stopping" }, 1], [report(1, { loss: 1 }), 2]);
    assert.equal(state.status, "stopping");
    state = reduce(state, { kind: "end", status: "stopped", file: "attune/warm_stopped_001.safetensors", message: "saved" }, 3);
    assert.equal(state.status, "stopped");
    assert.equal(reduce(state, { kind: "stopping" }, 4).status, "stopped");
    assert.equal(describe(state, 5).detail, "saved");
});

test("a resumed run counts its time from where it went on, and keeps its pictures", () => {
    const first = play([START, 0], [{ kind: "samples", step: 0, image: "data:a" }, 1], [report(4, { loss: 1 }), 2]);
    const state = reduce(first, { ...START, step: 4, history: [{ step: 4, loss: 1 }] }, 10_000);
    assert.equal(state.samples.length, 1);
    assert.equal(secondsLeft(reduce(state, report(5, { loss: 1 }), 11_000), 11_000), 5);
    const other = reduce(first, { ...START, run: "cold", step: 4 }, 10_000);
    assert.equal(other.samples.length, 0);
});

test("a snapshot restores what a page had before its reload", () => {
    const snapshot = {
        node: "8", workflow: "one", kind: "snapshot", status: "running", run: "warm", method: "DDPO", first_curves: ["reward"],
        step: 5, first: 0, total: 10,
        elapsed: 50, history: [{ step: 5, loss: 1, learning_rate: 2 }], samples: [{ step: 0, image: "data:a" }],
        note: "", file: "", message: "",
    };
    const state = reduce(initialState(), snapshot, 100_000);
    assert.equal(secondsLeft(state, 100_000), 50);
    assert.deepEqual(state.history, [{ step: 5, loss: 1, learning_rate: 2 }]);
    assert.deepEqual(state.identity, { node: "8", workflow: "one", run: "warm" });
    assert.equal(reduce(state, report(6, { loss: 2 }), 110_000).history.length, 2);
});

test("a repeated report replaces its row instead of doubling it", () => {
    const state = play([START, 0], [report(1, { loss: 1 }), 1], [report(2, { loss: 2 }), 2], [report(2, { loss: 3 }), 3]);
    assert.deepEqual(state.history.map((row) => row.loss), [1, 3]);
});

test("long histories are thinned, and the last update always stays", () => {
    const rows = Array.from({ length: 4 * MOST_ROWS + 3 }, (_, index) => ({ step: index + 1, loss: index }));
    const rest = thinned(rows);
    assert.ok(rest.length <= MOST_ROWS && rest.length > MOST_ROWS / 4);
    assert.equal(rest.at(-1).step, rows.length);
});

test("a figure that comes now and then survives the thinning of the others", () => {
    const rows = Array.from({ length: 4 * MOST_ROWS }, (_, index) => ({ step: index + 1, loss: index, ...((index + 1) % 100 === 1 && { rare: index + 1 }) }));
    const rest = thinned(rows);
    const rare = rest.filter((row) => "rare" in row);
    assert.equal(rare.length, 40);
    for (const row of rare) assert.ok(row.step - row.rare >= 0 && row.step - row.rare < 8, "it moves by less than a pixel");
});

test("of too many pictures those stay that spread evenly over the run, the first and the latest among them", () => {
    let state = play([START, 0]);
    for (let step = 0; step <= 100; step++) state = reduce(state, { kind: "samples", step, image: `${step}` }, step);
    const steps = state.samples.map((sample) => sample.step);
    assert.equal(steps.length, MOST_SAMPLES);
    assert.deepEqual([steps[0], steps.at(-1)], [0, 100]);
    const gaps = steps.slice(1).map((step, index) => step - steps[index]);
    assert.ok(Math.max(...gaps) <= 8, `no gap is much longer than 100 / ${MOST_SAMPLES}: ${gaps}`);
});

test("the strip is gone through in time, and its end follows the latest picture", () => {
    const samples = [0, 10, 20].map((step) => ({ step, image: `${step}` }));
    assert.equal(sampleAt(samples, null).step, 20);
    assert.equal(sampleAt(samples, 15).step, 10, "the picture of a moment is the one made before");
    assert.equal(sampleBeside(samples, null, -1), 10);
    assert.equal(sampleBeside(samples, 10, -5), 0);
    assert.equal(sampleBeside(samples, 10, 1), null);
    assert.deepEqual(samples.map(sampleCaption), ["before training", "after 10 updates", "after 20 updates"]);
});

test("the best weights so far are those of the latest report that names them", () => {
    const state = play([START, 0], [report(1, { loss: 1 }), 1], [report(2, { loss: 1, best_step: 2 }), 2], [report(3, { loss: 1 }), 3]);
    assert.equal(bestStep(state), 2);
    assert.equal(bestStep(play([START, 0], [report(1, { loss: 1 }), 1])), null);
    assert.equal(bestStep(initialState()), null);
});

test("a run that a rule ended says why", () => {
    const end = { kind: "end", status: "ended", file: "a.safetensors", message: "The model has drifted 12 nats." };
    const state = play([START, 0], [report(3, { loss: 1 }), 1], [end, 2]);
    assert.equal(isActive(state), false);
    assert.deepEqual(describe(state, 3), { headline: "Ended early  ·  3 / 10", detail: "The model has drifted 12 nats." });
});

test("a run that the server has forgotten is not at work any more; one that is over stays as it was", () => {
    const running = play([START, 0], [report(3, { loss: 1 }), 1], [{ kind: "lost" }, 2]);
    assert.equal(running.status, "stopped");
    assert.match(describe(running, 3).detail, /restarted/);
    const over = play([START, 0], [{ kind: "end", status: "finished", file: "a", message: "" }, 1]);
    assert.equal(reduce(over, { kind: "lost" }, 2), over);
});

test("durations read well", () => {
    assert.equal(formatDuration(0), "0 s");
    assert.equal(formatDuration(59.6), "1 min 00 s");
    assert.equal(formatDuration(185), "3 min 05 s");
    assert.equal(formatDuration(7440), "2 h 04 min");
});

test("messages find their node, also inside a subgraph", () => {
    assert.ok(isForNode("8", 8));
    assert.ok(isForNode("3:8", 8));
    assert.ok(!isForNode("18", 8));
    assert.ok(!isForNode("3:18", 8));
});

test("two workflows with the same node and the same run name do not mix", () => {
    const own = { node: "8", workflow: "one", run: "warm" };
    assert.ok(isFor({ node: "8", workflow: "one", run: "warm" }, own));
    assert.ok(isFor({ node: "3:8", workflow: "one", run: "renamed since" }, own));
    assert.ok(!isFor({ node: "8", workflow: "two", run: "warm" }, own));
    assert.ok(!isFor({ node: "9", workflow: "one", run: "warm" }, own));
});

test("where one side does not know the workflow, the run name has to do", () => {
    const known = { node: "8", workflow: "one", run: "warm" };
    const unknown = { ...known, workflow: "" };
    assert.ok(isFor(unknown, known));
    assert.ok(isFor(known, unknown));
    assert.ok(!isFor({ ...unknown, run: "cold" }, known));
});

test("after a reload each workflow gets its own run, and a run without a workflow comes second", () => {
    const snapshots = [
        { node: "8", workflow: "two", run: "warm", step: 1 },
        { node: "8", workflow: "", run: "warm", step: 2 },
        { node: "8", workflow: "one", run: "warm", step: 3 },
    ];
    assert.equal(snapshotFor(snapshots, { node: "8", workflow: "one", run: "warm" }).step, 3);
    assert.equal(snapshotFor(snapshots, { node: "8", workflow: "three", run: "warm" }).step, 2);
    assert.equal(snapshotFor(snapshots, { node: "8", workflow: "three", run: "cold" }), undefined);
    // Two instances of one subgraph: the one that began last is at the end.
    const twice = [{ node: "3:8", workflow: "one", run: "a" }, { node: "5:8", workflow: "one", run: "b" }];
    assert.equal(snapshotFor(twice, { node: "8", workflow: "one", run: "b" }).node, "5:8");
});

test("a cached result of another workflow is found again after a reload, and only where it was shown", () => {
    const own = { node: "8", workflow: "copy", run: "warm" };
    const made = { node: "8", workflow: "one", run: "warm", status: "finished", step: 3 };
    assert.equal(snapshotFor([made], own), undefined);
    assert.equal(snapshotFor([made], own, "one").step, 3);
    assert.equal(snapshotFor([{ ...made, status: "running" }], own, "one"), undefined);
    assert.equal(snapshotFor([{ ...made, run: "cold" }], own, "one"), undefined);
    assert.equal(snapshotFor([made, { ...made, workflow: "copy", step: 5 }], own, "one").step, 5);
});

test("a result brings its last picture where the page has none of that run", () => {
    const last = [{ step: 10, image: "last" }];
    const live = { status: "finished", workflow: "one", run: "warm", method: "DDPO", step: 10, first: 0, total: 10, history: [],
        samples: last, note: "", file: "warm.safetensors", message: "" };
    assert.deepEqual(reduce(initialState(), snapshotOfResult(initialState(), live, "8"), 0).samples, last);
    const seen = play([START, 0], [{ kind: "samples", step: 5, image: "a" }, 1], [{ kind: "samples", step: 10, image: "b" }, 2]);
    assert.equal(snapshotOfResult(seen, live, "8").samples.length, 2);
    assert.deepEqual(snapshotOfResult(seen, { ...live, run: "cold" }, "8").samples, last);
});

test("where only a job file was written, the view says where it is", () => {
    const state = reduce(play([START, 0]), { kind: "job", text: "Job file: /runs/warm/job.json" }, 1);
    const { headline, detail } = describe(state, 2);
    assert.match(headline, /nothing trained/);
    assert.equal(detail, "Job file: /runs/warm/job.json");
    assert.ok(!isActive(state));
});

test("an unknown message changes nothing", () => {
    const state = play([START, 0]);
    assert.equal(reduce(state, { kind: "weather" }, 1), state);
});
