/** The two buttons of Diff-Instruct* Objective, without page or host: `node --test tests/js`. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { applied, changesOf, effort, inputsOf, PRESETS, timeText, trainersBehind } from "../../js/one_step_presets.js";

const [FAST, LONG] = PRESETS;
const inputs = (values, fed = []) => ({ values, fed });
/** Nodes as the host has them, and who feeds whom: [from, to]. */
function graphOf(nodes, wires, listed = false) {
    const made = Object.fromEntries(nodes.map(([id, type]) => [id, { id, type, outputs: [{ links: [] }] }]));
    const links = wires.map(([from, to], id) => {
        made[from].outputs[0].links.push(id);
        return [id, { target_id: to }];
    });
    const graph = { links: listed ? Object.fromEntries(links) : new Map(links), getNodeById: (id) => made[id] };
    for (const node of Object.values(made)) node.graph = graph;
    return made;
}

test("a preset says what it sets and how long it takes beside the other", () => {
    const found = applied(FAST, inputs({ prompts_per_update: 32 }), [inputs({ steps: 7, ema: 0 })]);
    assert.deepEqual(found.objective, { prompts_per_update: 16 });
    assert.deepEqual(found.trainers, [{ steps: 100 }]);
    assert.match(found.text, /^Fast and rough: 100 updates of 16 pictures; takes about 1\/\d+ of the time of long and good\.$/);
    assert.equal(found.wrong, false);
});

test("times are each other's inverse, and grow with updates, pictures and the generator's share", () => {
    const ratio = effort(LONG) / effort(FAST);
    assert.ok(ratio > 10);
    const shown = Number(/about (\d+) times/.exec(timeText(LONG))[1]);
    assert.ok(Math.abs(shown - ratio) <= 5);
    assert.match(timeText(FAST), new RegExp(`1/${shown} `));
    const changed = (node, values) => effort({ ...FAST, [node]: { ...FAST[node], ...values } }) / effort(FAST);
    assert.equal(changed("train", { steps: 200 }), 2);
    assert.equal(changed("objective", { prompts_per_update: 32 }), 2);
    assert.ok(changed("objective", { assistant_updates: 2 }) < 1);
});

test("without Train LoRA the line says what to do", () => {
    const found = applied(LONG, inputs({}), []);
    assert.match(found.text, /connect it to Train LoRA and press again/);
    assert.equal(found.wrong, true);
    assert.deepEqual(found.trainers, []);
});

test("what another node feeds is left alone and named", () => {
    const found = applied(LONG, inputs({ reward_from: 3 }, ["reward_from"]), [inputs({ steps: 5, ema: 0 }, ["steps"])]);
    assert.deepEqual(found.objective, {});
    assert.deepEqual(found.trainers, [{ ema: 0.99 }]);
    assert.match(found.text, /Not set, as another node feeds it: reward_from, steps\.$/);
    assert.equal(found.wrong, true);
});

test("only what a node has and what differs is changed", () => {
    assert.deepEqual(changesOf({ a: 1, b: 2, c: 3 }, inputs({ a: 1, b: 1 })), { b: 2 });
});

test("Train LoRA is found behind reroutes, each once, and other nodes are passed by", () => {
    const nodes = [[1, "AttuneDiffInstructObjective"], [2, "Reroute"], [3, "AttuneTrainLora"], [4, "AttuneTrainLora"], [5, "Other"]];
    const wires = [[1, 2], [2, 3], [1, 3], [2, 4], [1, 5], [5, 4], [2, 2]];
    for (const listed of [false, true]) {
        assert.deepEqual(trainersBehind(graphOf(nodes, wires, listed)[1]).map(({ id }) => id), [3, 4]);
    }
    assert.deepEqual(trainersBehind({ outputs: [{ links: null }] }), []);
});

test("a node's widgets, and which of them are fed", () => {
    const node = {
        widgets: [{ name: "steps", value: 3 }, { name: "ema", value: 0 }],
        inputs: [{ name: "model", link: 4 }, { widget: { name: "steps" }, link: 0 }, { widget: { name: "ema" }, link: null }],
    };
    assert.deepEqual(inputsOf(node), inputs({ steps: 3, ema: 0 }, ["steps"]));
});
