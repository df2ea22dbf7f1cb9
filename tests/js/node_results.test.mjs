/** Whose page a result reaches, without page or host: `node --test tests/js`. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { createResults } from "../../js/node_results.js";

const KIND = "AttuneCommitRound";
/** Both tabs have a node "3"; each run is of one of them. */
const runs = { first: "tab one", second: "tab two" };
const read = async (path) => {
    if (path === "/queue") return { queue_running: [] };
    const id = path.split("/").at(-1);
    return { [id]: { prompt: [0, id, { 3: { class_type: KIND, inputs: {} } }, { extra_pnginfo: { workflow: { id: runs[id] } } }] } };
};
const event = (run, value, node = "3") => ({ detail: { node, display_node: node, output: { value }, prompt_id: run } });
const page = (workflow, node = "3") => {
    const taken = [];
    return { taken, identity: () => ({ node, workflow, kind: KIND }), take: (value) => taken.push(value) };
};
const made = (asks = read) => createResults(asks, (output) => output?.value ?? null);

test("a result reaches the node of its own workflow, not another tab's of the same number", async () => {
    const results = made();
    const [shown, beside] = [page("tab two"), page("tab two", "4")];
    results.views.add(shown).add(beside);
    await results.received(event("first", "one"));
    assert.deepEqual(shown.taken, []);
    await results.received(event("second", "two"));
    assert.deepEqual([shown.taken, beside.taken], [["two"], []]);
    // The tab of the first run is shown again.
    results.views.clear();
    const back = page("tab one");
    results.views.add(back);
    results.restore();
    assert.deepEqual(back.taken, ["one"]);
});

test("what is for no such page asks the host nothing", () => {
    const results = made(() => assert.fail("nothing was to be asked"));
    assert.equal(results.received(event("first", undefined)), null);
    assert.equal(results.received({ detail: null }), null);
});

test("where the host does not say whose run it is, the number has to do", async (context) => {
    context.mock.method(console, "warn", () => {});
    const results = made(async () => Promise.reject(new Error("away")));
    const shown = page("tab two");
    results.views.add(shown);
    await results.received(event("first", "one"));
    assert.deepEqual(shown.taken, ["one"]);
});
