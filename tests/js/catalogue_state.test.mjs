/** The catalogue tab's logic, without page or host: `node --test tests/js`. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
    ageText,
    barLength,
    distanceText,
    facts,
    figureName,
    goneText,
    initialState,
    loraOf,
    matches,
    order,
    reduce,
    shownFamilies,
    sizeText,
    sparkline,
    tagsInUse,
    typedTags,
} from "../../js/catalogue_state.js";

const lora = (id, run, version, more = {}) => ({
    id, run, version, title: `${run} 00${version}`, file: `${run}_00${version}.safetensors`, method: "ddpo", method_name: "DDPO",
    base_model: "", base_hash: "", data_hash: "", reward: "", steps: 0, rank: 0, size: 10, created: 0, metrics: {}, status: "new",
    missing: false, note: "", tags: [], parents: [], stopped: false, ...more,
});
const DATA = {
    revision: 3,
    folder: "attune",
    problems: [],
    loras: [
        lora(1, "warm", 1, { metrics: { reward: 0.2 }, tags: ["keep", "blue"] }),
        lora(2, "warm", 2, { metrics: { reward: 0.4 }, tags: ["keep"], note: "For the Poster" }),
        lora(3, "soup", 1, { method: "merge", method_name: "merged", parents: [{ id: 2, name: "warm 002", strength: 0.5 }] }),
    ],
    families: [
        { run: "warm", depth: 0, figure: "reward", versions: [2, 1], roll_back: null },
        { run: "soup", depth: 1, figure: "", versions: [3], roll_back: null },
    ],
    trash: [lora(9, "old", 1)],
};
const play = (...actions) => actions.reduce(reduce, initialState());
const ready = (...actions) => play({ kind: "listed", data: DATA }, ...actions);

test("from loading to the list, and back to words when the server does not answer", () => {
    assert.equal(initialState().status, "loading");
    assert.equal(play({ kind: "failed", message: "no server" }).status, "error");
    const state = ready({ kind: "failed", message: "disk full" });
    assert.deepEqual([state.status, state.message], ["ready", "disk full"]);
    assert.equal(reduce(state, { kind: "dismissed" }).message, "");
    assert.equal(reduce(state, { kind: "listed", data: DATA }).message, "");
});

test("no action changes the state it is given", () => {
    const state = ready({ kind: "pick", id: 1 });
    const before = structuredClone(state);
    for (const action of [
        { kind: "listed", data: { ...DATA, loras: [] } }, { kind: "search", text: "x" }, { kind: "tag", tag: "keep" },
        { kind: "open", id: 2 }, { kind: "pick", id: 2 }, { kind: "comparing" }, { kind: "view", view: "trash" },
        { kind: "trashed", ids: [1], text: "gone" }, { kind: "emptying", on: true },
    ]) {
        reduce(state, action);
        assert.deepEqual(state, before);
    }
});

test("a search looks for every word everywhere; a tag narrows it; families without a match are left out", () => {
    assert.deepEqual(order(ready()), [2, 1, 3]);
    assert.deepEqual(order(ready({ kind: "search", text: " POSTER warm " })), [2]);
    assert.deepEqual(order(ready({ kind: "search", text: "merged" })), [3]);
    assert.deepEqual(order(ready({ kind: "tag", tag: "blue" })), [1]);
    assert.deepEqual(order(ready({ kind: "tag", tag: "blue" }, { kind: "tag", tag: "blue" })), [2, 1, 3]);
    assert.deepEqual(shownFamilies(ready({ kind: "search", text: "soup" })).map((family) => family.run), ["soup"]);
    assert.deepEqual(order(ready({ kind: "search", text: "nowhere" })), []);
    assert.equal(matches(DATA.loras[0], "", ""), true);
});

test("a deleted promoted version is named with the way back", () => {
    const loras = DATA.loras.map((found) => (found.id === 2 ? { ...found, missing: true, status: "promoted" } : found));
    const shown = (roll_back) => {
        const families = DATA.families.map((family) => (family.run === "warm" ? { ...family, roll_back } : family));
        const state = play({ kind: "listed", data: { ...DATA, loras, families } });
        return shownFamilies(state).map((family) => goneText(state, family));
    };
    assert.deepEqual(shown(1), [
        "The file of warm 002, the promoted version, is gone. Roll back to warm 001, or put the file back.", ""]);
    assert.match(shown(null)[0], /Promote another version/);
});

test("figures are called as in the live view", () => {
    const names = ["held_out_reward", "kl_to_reference", "relative_error"].map(figureName);
    assert.deepEqual(names, ["Held-out reward", "Drift from base", "Relative error"]);
});

test("tags in use come by how often they are used", () => {
    assert.deepEqual(tagsInUse(ready()), ["keep", "blue"]);
});

test("one is open at a time, and pressing it again closes it", () => {
    assert.equal(ready({ kind: "open", id: 2 }, { kind: "open", id: 1 }).open, 1);
    assert.equal(ready({ kind: "open", id: 2 }, { kind: "open", id: 2 }).open, null);
    assert.equal(ready({ kind: "view", view: "trash" }, { kind: "open", id: 2 }).view, "list");
});

test("two are picked for comparing; a third takes the second's place; pressing one again lets it go", () => {
    assert.deepEqual(ready({ kind: "pick", id: 1 }, { kind: "pick", id: 2 }, { kind: "pick", id: 3 }).picked, [1, 3]);
    assert.deepEqual(ready({ kind: "pick", id: 1 }, { kind: "pick", id: 2 }, { kind: "pick", id: 1 }).picked, [2]);
});

test("what is gone is neither open, nor picked, nor filtered by any more", () => {
    const busy = ready({ kind: "open", id: 1 }, { kind: "pick", id: 1 }, { kind: "pick", id: 2 }, { kind: "tag", tag: "blue" },
        { kind: "comparing" });
    const state = reduce(busy, { kind: "listed", data: { ...DATA, loras: DATA.loras.slice(1), trash: [] } });
    assert.deepEqual([state.open, state.picked, state.tag, state.view], [null, [2], "", "list"]);
    assert.equal(loraOf(state, 2).note, "For the Poster");
});

test("deleting for good is asked for twice, and forgotten when one looks elsewhere", () => {
    const asked = ready({ kind: "view", view: "trash" }, { kind: "emptying", on: true });
    assert.equal(asked.emptying, true);
    assert.equal(reduce(asked, { kind: "view", view: "list" }).emptying, false);
    assert.equal(reduce(asked, { kind: "listed", data: { ...DATA, trash: [] } }).emptying, false);
});

test("what was put into the trash can be taken back until the offer is over", () => {
    const state = ready({ kind: "trashed", ids: [1], text: "warm 001 is in the trash" });
    assert.deepEqual(state.undo, { ids: [1], text: "warm 001 is in the trash" });
    assert.equal(reduce(state, { kind: "settled" }).undo, null);
});

test("a family's curve runs from its oldest version to its newest", () => {
    const [warm, soup] = shownFamilies(ready());
    assert.equal(sparkline(warm, 40, 10), "M0 10L40 0");
    assert.equal(sparkline(soup, 40, 10), "");
    assert.equal(sparkline({ figure: "reward", all: [DATA.loras[0], DATA.loras[0]] }, 40, 10), "M0 5L40 5");
    // The curve does not change with the search.
    assert.equal(sparkline(shownFamilies(ready({ kind: "search", text: "poster" }))[0], 40, 10), "M0 10L40 0");
});

test("bars begin at zero", () => {
    const [warm, soup] = shownFamilies(ready());
    assert.deepEqual(warm.versions.map((version) => barLength(warm, version)), [1, 0.5]);
    assert.equal(barLength(soup, soup.versions[0]), 0);
    const below = { figure: "reward", all: [lora(1, "a", 1, { metrics: { reward: -1 } }), lora(2, "a", 2, { metrics: { reward: 1 } })] };
    assert.deepEqual(below.all.map((version) => barLength(below, version)), [0, 1]);
});

test("sizes and ages as people say them", () => {
    assert.deepEqual([300, 45_000, 3_440_000, 1_200_000_000].map(sizeText), ["1 kB", "45 kB", "3.4 MB", "1.2 GB"]);
    const noon = new Date(2026, 2, 10, 12).getTime();
    const at = (...moment) => new Date(2026, 2, ...moment).getTime() / 1000;
    assert.equal(ageText(at(10, 1), noon), "today");
    assert.equal(ageText(at(9, 23), noon), "yesterday");
    assert.equal(ageText(at(5, 12), noon), "5 days ago");
    assert.equal(ageText(at(1, 12), noon, "en-GB"), "1 Mar 2026");
});

test("facts leave out what is not known", () => {
    assert.deepEqual(facts(lora(1, "warm", 1, { rank: 4, steps: 12 }), "attune"), [
        ["Updates", "12"], ["Size", "1 kB, rank 4"], ["File", "attune/warm_001.safetensors"],
    ]);
});

test("distances in words", () => {
    assert.equal(distanceText({ relative: 0, cosine: 1 }), "the same");
    assert.equal(distanceText({ relative: 0.5, cosine: 0.95 }), "50 % apart, same direction");
    assert.equal(distanceText({ relative: 0.9, cosine: 0.5 }), "90 % apart, similar direction");
    assert.equal(distanceText({ relative: 1.4, cosine: 0.01 }), "140 % apart, unrelated");
    assert.equal(distanceText({ relative: 2, cosine: -1 }), "200 % apart, opposite");
    assert.equal(distanceText({ relative: 1, cosine: null }), "only one of them changes this");
});

test("tags are typed with commas", () => {
    assert.deepEqual(typedTags(" soft  light, good ,,"), ["soft light", "good"]);
});
