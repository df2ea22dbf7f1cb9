/** The gallery's logic, without page or host: `node --test tests/js`. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
    MOST_DISCARDED,
    MOST_REMEMBERED,
    MOST_UNDO,
    ORDER,
    SHORTEST,
    advice,
    barsOf,
    cards,
    choiceText,
    commonPrompt,
    counts,
    directionText,
    galleryOf,
    initialState,
    moved,
    originOf,
    parseChoice,
    placeRatio,
    ranksOf,
    reduce,
    remembered,
    resultsIn,
    sorted,
    summary,
    viewPath,
} from "../../js/score_gallery_state.js";

const hashOf = (index) => index.toString(16).padStart(16, "0");
const FILE = { filename: "a.png", subfolder: "attune", type: "temp" };

/** A gallery of columns of scores: [[of reward 0 …], [of reward 1 …]]. */
function gallery(columns, { lower = [], percentiles = [], prompts = [] } = {}) {
    const count = columns[0].length;
    const ranks = ranksOf(columns[0], !lower.includes(0));
    return {
        rewards: columns.map((_, column) => ({
            name: `reward ${column}`, formula: "", higher_is_better: !lower.includes(column), calibrated: Boolean(percentiles[column]),
        })),
        images: Array.from({ length: count }, (_, index) => ({
            index, hash: hashOf(index), prompt: prompts[index] ?? "a cat", width: 512, height: 512, file: FILE, thumbnail: FILE,
            scores: columns.map((scores) => scores[index]),
            labels: columns.map((scores) => String(scores[index])),
            percentiles: columns.map((_, column) => percentiles[column]?.[index] ?? null),
            rank: ranks[index],
        })),
    };
}

const shown = (...arguments_) => reduce(initialState(), { kind: "result", gallery: gallery(...arguments_), used: "" });
const play = (state, ...actions) => actions.reduce(reduce, state);
const toggle = (index) => ({ kind: "toggle", hash: hashOf(index) });
const order = (state) => cards(state).map((card) => card.image.index);

test("a fresh result is shown best first, by the first reward", () => {
    assert.deepEqual(order(shown([[1, 3, 2], [9, 1, 5]])), [1, 2, 0]);
});

test("a reward whose low values are good puts the lowest first", () => {
    const state = shown([[1, 3, 2]], { lower: [0] });
    assert.deepEqual(order(state), [0, 2, 1]);
    assert.deepEqual(cards(state).map((card) => card.rank), [1, 2, 3]);
});

test("the same key again turns the order round, another one begins with the best", () => {
    let state = play(shown([[1, 3, 2], [9, 1, 5]]), { kind: "sort", key: 0 });
    assert.deepEqual(order(state), [0, 2, 1]);
    state = play(state, { kind: "sort", key: 1 });
    assert.deepEqual(order(state), [0, 2, 1]);
    assert.equal(directionText(state.sort), "best first");
    state = play(state, { kind: "sort", key: 1 });
    assert.deepEqual(order(state), [1, 2, 0]);
    assert.equal(directionText(state.sort), "worst first");
});

test("by image order, and backwards", () => {
    let state = play(shown([[1, 3, 2]]), { kind: "sort", key: ORDER });
    assert.deepEqual(order(state), [0, 1, 2]);
    assert.deepEqual(cards(state).map((card) => card.rank), [3, 1, 2]);
    assert.equal(directionText(state.sort), "as they came");
    state = play(state, { kind: "sort", key: ORDER });
    assert.deepEqual(order(state), [2, 1, 0]);
    assert.equal(directionText(state.sort), "backwards");
});

test("ties keep the images' order, also among 200", () => {
    const scores = Array.from({ length: 200 }, (_, index) => Math.floor(index / 3) % 4);
    const places = sorted(shown([scores]));
    for (let place = 1; place < 200; place++) {
        const [before, here] = [places[place - 1], places[place]];
        assert.ok(scores[before] > scores[here] || (scores[before] === scores[here] && before < here));
    }
});

test("the rank is by the reward that sorts, and stays when the order is turned round", () => {
    const state = play(shown([[1, 3, 2], [9, 1, 5]]), { kind: "sort", key: 1 }, { kind: "sort", key: 1 });
    assert.deepEqual(cards(state).map((card) => card.rank), [3, 2, 1]);
});

test("a score that is not a number is last and has no bar", () => {
    const state = shown([[null, 2, 1]]);
    assert.deepEqual(order(state), [1, 2, 0]);
    assert.deepEqual(barsOf([null, 2, 1], true), [0, 1, SHORTEST]);
});

test("bars run from the worst to the best of those shown, whatever the sign", () => {
    const half = SHORTEST + (1 - SHORTEST) / 2;
    assert.deepEqual(barsOf([1, 3, 2], true), [SHORTEST, 1, half]);
    assert.deepEqual(barsOf([-1, -3, -2], true), [1, SHORTEST, half]);
    assert.deepEqual(barsOf([1, 3, 2], false), [1, SHORTEST, half]);
    assert.deepEqual(barsOf([-2, 0, 2], false), [1, half, SHORTEST]);
});

test("equal scores and a single image have the bar of their percentile, else half of it", () => {
    assert.deepEqual(barsOf([0.3, 0.3], true), [0.5, 0.5]);
    assert.deepEqual(barsOf([-7], true), [0.5]);
    assert.deepEqual(barsOf([0.3], true, [80]), [0.8]);
    assert.deepEqual(barsOf([0.3], true, [0]), [SHORTEST]);
    // Where scores differ, percentiles that are all alike must not hide it.
    assert.deepEqual(barsOf([1, 2], true, [99, 99]), [SHORTEST, 1]);
});

test("percentiles are shown where a reward is calibrated", () => {
    const [best] = cards(shown([[1, 2], [1, 2]], { percentiles: [[12.4, 87.6]] }));
    assert.deepEqual(best.bars.map((bar) => bar.percentile), ["88 %", ""]);
    assert.equal(best.bars[0].text, "reward 0 2, better than 88 % of its reference images");
    assert.equal(best.bars[1].text, "reward 1 2");
});

test("discarding marks the image where it is, and writes its hash", () => {
    const state = play(shown([[1, 3, 2]]), toggle(2));
    assert.deepEqual(cards(state).map((card) => card.discarded), [false, true, false]);
    assert.equal(choiceText(state), hashOf(2));
    assert.equal(summary(state), "2 of 3 images kept");
    assert.equal(choiceText(play(state, toggle(2))), "");
});

test("two images with the same pixels share their fate", () => {
    const twins = gallery([[1, 2, 3]]);
    twins.images[1].hash = twins.images[0].hash;
    const state = play(initialState(), { kind: "result", gallery: twins, used: "" }, toggle(0));
    assert.equal(counts(state).discarded, 2);
    assert.equal(choiceText(state), hashOf(0));
});

test("undo takes back one choice after the other, keep all is one of them", () => {
    let state = play(shown([[1, 3, 2]]), toggle(0), toggle(1), { kind: "keepAll" });
    assert.equal(choiceText(state), "");
    state = play(state, { kind: "undo" });
    assert.equal(choiceText(state), `${hashOf(0)} ${hashOf(1)}`);
    state = play(state, { kind: "undo" });
    assert.equal(choiceText(state), hashOf(0));
    state = play(state, { kind: "undo" }, { kind: "undo" });
    assert.equal(choiceText(state), "");
    assert.deepEqual(state.undo, []);
});

test("keep all of nothing discarded is no step to undo, and undo has an end", () => {
    let state = play(shown([[1, 2]]), { kind: "keepAll" });
    assert.equal(state.undo.length, 0);
    for (let round = 0; round < 2 * MOST_UNDO; round++) state = play(state, toggle(0));
    assert.equal(state.undo.length, MOST_UNDO);
});

test("hashes that are not shown stay, also when all are kept", () => {
    let state = play(shown([[1, 2]]), { kind: "choice", text: "feed feed beef" }, toggle(1));
    assert.equal(choiceText(state), `feed beef ${hashOf(1)}`);
    assert.deepEqual([counts(state).discarded, counts(state).elsewhere], [1, 2]);
    state = play(state, { kind: "keepAll" });
    assert.equal(choiceText(state), "feed beef");
});

test("the list is cut at its oldest end", () => {
    const many = Array.from({ length: MOST_DISCARDED }, (_, index) => `f${index}`).join(" ");
    const state = play(shown([[1, 2]]), { kind: "choice", text: many }, toggle(0));
    assert.equal(state.discarded.length, MOST_DISCARDED);
    assert.equal(state.discarded[0], "f1");
    assert.equal(state.discarded.at(-1), hashOf(0));
});

test("a choice that the last run did not know asks for a run; one that it knew does not", () => {
    let state = shown([[1, 2, 3]]);
    assert.equal(advice(state), "");
    state = play(state, toggle(0));
    assert.equal(advice(state), "Press Run to use your choice.");
    state = play(state, { kind: "result", gallery: gallery([[1, 2, 3]]), used: hashOf(0) });
    assert.equal(advice(state), "");
    // Changed again while that run was under way.
    state = play(state, toggle(1), { kind: "result", gallery: gallery([[1, 2, 3]]), used: hashOf(0) });
    assert.equal(advice(state), "Press Run to use your choice.");
    assert.equal(advice(play(state, toggle(1))), "");
});

test("where the run's choice is not known, it counts as the present one", () => {
    const state = play(initialState(), { kind: "choice", text: hashOf(1) }, { kind: "result", gallery: gallery([[1, 2]]), used: null });
    assert.equal(counts(state).changed, false);
    assert.equal(counts(state).discarded, 1);
});

test("all discarded is said, and what follows from it", () => {
    const state = play(shown([[1, 2]]), toggle(0), toggle(1));
    assert.equal(summary(state), "2 images, all discarded");
    assert.match(advice(state), /nothing goes on/);
});

test("a saved choice is there before any run, and says so", () => {
    assert.equal(advice(initialState()), "Press Run: the images appear here, best first.");
    const state = play(initialState(), { kind: "choice", text: " feed\nbeef " });
    assert.match(advice(state), /2 discarded images are remembered/);
    assert.equal(choiceText(state), "feed beef");
    assert.equal(summary(play(state, { kind: "result", gallery: gallery([[1]]), used: "feed beef" })), "1 image");
});

test("the host's own undo of the widget is followed, and ends the gallery's", () => {
    const state = play(shown([[1, 2]]), toggle(0), { kind: "choice", text: "" });
    assert.equal(counts(state).discarded, 0);
    assert.deepEqual(state.undo, []);
    const same = play(shown([[1, 2]]), toggle(0));
    assert.equal(reduce(same, { kind: "choice", text: hashOf(0) }), same);
});

test("a new result keeps sort and choice, unless the reward is gone", () => {
    const state = play(shown([[1, 2], [2, 1]]), { kind: "sort", key: 1 }, toggle(0));
    const again = play(state, { kind: "result", gallery: gallery([[5, 6, 7], [7, 6, 5]]), used: "" });
    assert.deepEqual(order(again), [0, 1, 2]);
    assert.equal(counts(again).discarded, 1);
    const fewer = play(state, { kind: "result", gallery: gallery([[5, 6, 7]]), used: "" });
    assert.deepEqual(order(fewer), [2, 1, 0]);
});

test("no action changes the state it is given", () => {
    const state = play(shown([[1, 2]]), toggle(0));
    const before = structuredClone(state);
    const actions = [{ kind: "sort", key: ORDER }, toggle(1), toggle(0), { kind: "keepAll" }, { kind: "undo" }, { kind: "choice", text: "a" }];
    for (const action of actions) {
        reduce(state, action);
        assert.deepEqual(state, before);
    }
    assert.equal(reduce(state, { kind: "weather" }), state);
});

test("one prompt for all is found, several are not", () => {
    assert.equal(commonPrompt(shown([[1, 2]])), "a cat");
    assert.equal(commonPrompt(shown([[1, 2]], { prompts: ["a", "b"] })), "");
    assert.equal(commonPrompt(initialState()), "");
});

test("pictures of one shape get places of that shape, within reason", () => {
    const size = (width, height) => ({ width, height });
    assert.equal(placeRatio([size(300, 200), size(600, 400)]), 1.5);
    assert.equal(placeRatio([size(300, 200), size(200, 300)]), 1);
    assert.equal(placeRatio([size(1000, 100)]), 2);
    assert.equal(placeRatio([]), 1);
});

test("arrow keys move within the rows and stop at the edges", () => {
    assert.equal(moved("ArrowRight", 1, 5, 2), 2);
    assert.equal(moved("ArrowDown", 1, 5, 2), 3);
    assert.equal(moved("ArrowDown", 3, 5, 2), 3);
    assert.equal(moved("ArrowUp", 1, 5, 2), 1);
    assert.equal(moved("ArrowLeft", 0, 5, 2), 0);
    assert.equal(moved("End", 0, 5, 2), 4);
    assert.equal(moved("Home", 4, 5, 2), 0);
    assert.equal(moved("Enter", 1, 5, 2), null);
});

test("file names reach the host whole", () => {
    assert.equal(viewPath({ filename: "a b&c#.png", subfolder: "x/y", type: "temp" }), "/view?filename=a%20b%26c%23.png&subfolder=x%2Fy&type=temp");
});

test("outputs without a gallery are left alone", () => {
    for (const output of [undefined, null, {}, { attune_gallery: [] }, { attune_gallery: [{ rewards: [] }] }]) assert.equal(galleryOf(output), null);
    const own = gallery([[1]]);
    assert.equal(galleryOf({ attune_gallery: [own] }), own);
});

test("a hash is read once, whatever stands between", () => {
    assert.deepEqual(parseChoice(" a\n b  a\t"), ["a", "b"]);
    assert.deepEqual(parseChoice(undefined), []);
});

test("the host's record tells whose a run was, and which choice it used", () => {
    const record = [1, "id", { "3:10": { inputs: { discarded: "feed" } } }, { extra_pnginfo: { workflow: { id: "one" } } }];
    assert.deepEqual(originOf(record, "3:10"), { workflow: "one", used: "feed" });
    assert.deepEqual(originOf(record, "10"), { workflow: "one", used: null });
    assert.deepEqual(originOf([1, "id", { 10: { inputs: { discarded: ["7", 0] } } }, {}], "10"), { workflow: "", used: null });
    assert.deepEqual(originOf(undefined, "10"), { workflow: "", used: null });
});

test("after a reload a workflow finds its own results in the host's history, and no other's", () => {
    const run = (workflow, scores) => ({
        prompt: [1, "id", { 10: { inputs: { discarded: "" } } }, workflow ? { extra_pnginfo: { workflow: { id: workflow } } } : {}],
        outputs: { 10: { attune_gallery: [gallery([scores])] }, 11: { images: [] } },
    });
    const history = { a: run("one", [1]), b: run("two", [2]), c: run("one", [3]), d: run("", [4]) };
    assert.deepEqual(resultsIn(history, "one").map((result) => result.gallery.images[0].scores), [[1], [3]]);
    assert.deepEqual(resultsIn(history, ""), []);
    assert.deepEqual(resultsIn(undefined, "one"), []);
});

test("the newest result of a node is remembered, and not too many", () => {
    let results = [];
    for (let round = 0; round < 2 * MOST_REMEMBERED; round++) results = remembered(results, { node: "10", workflow: "one", round });
    assert.deepEqual(results.map((result) => result.round), [2 * MOST_REMEMBERED - 1]);
    results = remembered(results, { node: "10", workflow: "two", round: 0 });
    assert.deepEqual(results.map((result) => result.workflow), ["one", "two"]);
    for (let node = 0; node < 2 * MOST_REMEMBERED; node++) results = remembered(results, { node: String(node), workflow: "two" });
    assert.equal(results.length, MOST_REMEMBERED);
});
