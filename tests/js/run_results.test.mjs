/** Whose a run's results are and what nodes show of them, without page or host: `node --test tests/js`. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { NODES, inOrder, isFor, mayHaveWords, plain, recordOfRun, resultOf, wordsOf } from "../../js/run_results.js";

const COMBINE = "AttuneCombineRewards";
const GATE = "AttuneSafetyGate";

/** A run of the host as in its queue: node "3" is of the class, queued from the workflow. */
const record = (id, workflow, kind = COMBINE) => [
    0, id, { 3: { class_type: kind, inputs: {} } }, { extra_pnginfo: workflow ? { workflow: { id: workflow } } : {} },
];
const detail = (output, node = "3") => ({ node, display_node: node, output, prompt_id: "run" });
const own = (workflow, kind = COMBINE, node = "3") => ({ node, workflow, kind });

/** A host that answers for these runs, and notes what it was asked. */
function host(running, history) {
    const asked = [];
    const read = async (path) => {
        asked.push(path);
        return path === "/queue" ? { queue_running: running } : history;
    };
    return { asked, read };
}

test("words are plain lines, without marks, empty lines and tables", () => {
    assert.equal(plain("**0.7·z(<b>A</b>)** + z(B)\n\n| rank |\n| ---: |\nend"), "0.7·z(<b>A</b>) + z(B)\nend");
});

test("every class shows its own part of the output", () => {
    const output = { text: ["**long** report", "more"], attune_safety: ["2 of 8 images blocked"] };
    assert.equal(wordsOf(COMBINE, output), "long report\nmore");
    assert.equal(wordsOf(GATE, output), "2 of 8 images blocked");
    assert.equal(wordsOf(GATE, { text: ["only a report"] }), null);
    assert.equal(wordsOf("PreviewAny", output), null);
    const prompts = "2 prompts\na **bold** cat\n| a {red|green} dog";
    assert.equal(wordsOf("AttunePromptTemplate", { attune_prompts: [prompts] }), prompts, "a prompt is shown as it is");
    assert.equal(wordsOf(COMBINE, undefined), null);
    for (const { hint, height } of Object.values(NODES)) assert.ok(hint.endsWith("after a run.") && height > 0);
});

test("what a node says of every entry of a list is shown once; prompts are as many as there are", () => {
    const said = ["**1 step**", "1 step", "2 steps", "1 step"];
    assert.equal(wordsOf("AttuneOneStepSampler", { text: said }), "1 step\n2 steps");
    assert.equal(wordsOf("AttunePromptLines", { attune_prompts: ["a cat", "a cat"] }), "a cat\na cat");
});

test("outputs without words are not asked about", () => {
    assert.ok(mayHaveWords({ text: ["a"] }) && mayHaveWords({ attune_safety: ["a"] }));
    assert.ok(!mayHaveWords({ images: [] }) && !mayHaveWords(undefined) && !mayHaveWords({ text: "a" }));
});

test("a result goes to the workflow that was run, not to another tab's node of that id", () => {
    const result = resultOf(detail({ text: ["a"] }), record("run", "one"));
    assert.deepEqual(result, { node: "3", workflow: "one", kind: COMBINE, output: { text: ["a"] } });
    assert.ok(isFor(result, own("one")));
    assert.ok(!isFor(result, own("two")));
    assert.ok(!isFor(result, own("one", COMBINE, "13")));
});

test("a node of another class and the same id is not the one that was run", () => {
    const result = resultOf(detail({ text: ["a"] }), record("run", "", "PreviewAny"));
    assert.ok(!isFor(result, own("one")));
});

test("what is not known does not stand in the way", () => {
    const unknown = resultOf(detail({ text: ["a"] }), undefined);
    assert.deepEqual([unknown.workflow, unknown.kind], ["", ""]);
    assert.ok(isFor(unknown, own("one")) && !isFor(unknown, own("one", COMBINE, "4")));
    assert.ok(isFor(resultOf(detail({ text: ["a"] }), record("run", "one")), own("")));
});

test("inside a subgraph the host writes the outer node's number before the inner one's", () => {
    const inner = record("run", "one");
    inner[2] = { "7:3": { class_type: GATE, inputs: {} } };
    const result = resultOf(detail({ attune_safety: ["a"] }, "7:3"), inner);
    assert.ok(isFor(result, own("one", GATE)) && !isFor(result, own("one", COMBINE)));
});

test("a run is looked up in the queue, then in the history", async () => {
    const [running, finished] = [record("run", "one"), record("earlier", "two")];
    const { asked, read } = host([running], { earlier: { prompt: finished } });
    assert.equal(await recordOfRun(read, "run"), running);
    assert.deepEqual(asked, ["/queue"]);
    assert.equal(await recordOfRun(read, "earlier"), finished);
    assert.equal(await recordOfRun(read, "unknown"), undefined);
    assert.deepEqual(asked.slice(1), ["/queue", "/history/earlier", "/queue", "/history/unknown"]);
});

test("results are shown in the order in which they came, also where the host answers the older one last", async () => {
    const shown = [];
    const answers = {};
    const answer = (item) => new Promise((resolve, reject) => (answers[item] = { resolve, reject }));
    const received = inOrder(async (item) => {
        await answer(item);
        shown.push(item);
    });
    const [older, failing, newer] = ["older", "failing", "newer"].map(received);
    const told = [];
    const { error } = console;
    console.error = (...words) => told.push(words.join(" "));
    try {
        for (const item of ["newer", "failing", "older"]) {
            await new Promise((resolve) => setTimeout(resolve));
            answers[item]?.resolve();
        }
        await older;
        await new Promise((resolve) => setTimeout(resolve));
        answers.failing.reject(new Error("the host is gone"));
        await failing;
        await new Promise((resolve) => setTimeout(resolve));
        answers.newer.resolve();
        await newer;
    } finally {
        console.error = error;
    }
    assert.deepEqual(shown, ["older", "newer"]);
    assert.deepEqual(told, ["Attune: Error: the host is gone"]);
});

test("a host that does not answer holds up one result for a while, and its late answer changes nothing", async () => {
    const shown = [];
    let answer;
    const { read } = host([record("second", "two")]);
    const hanging = () => new Promise((resolve) => (answer = resolve));
    const received = inOrder(async ({ id, ask }) => {
        shown.push([id, await recordOfRun(ask, id, 20).then((found) => found?.[1] ?? "no record", (error) => error.message)]);
    });
    const first = received({ id: "first", ask: hanging });
    await received({ id: "second", ask: read });
    await first;
    assert.deepEqual(shown, [["first", "no answer within 0.02 s"], ["second", "second"]]);
    answer({ queue_running: [record("first", "one")] });
    await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(shown.length, 2);
});

test("a look-up that is answered leaves nothing running", { timeout: 3000 }, async () => {
    const before = process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length;
    await recordOfRun(host([record("run", "one")]).read, "run");
    assert.equal(process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length, before);
});
