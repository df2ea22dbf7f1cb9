/** The list of profiles without page or host: `node --test tests/js`. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
    choicesOf, countsText, deletionText, disowning, followed, initialState, lineOf, meant, reduce,
    remembering, renamed,
} from "../../js/profile_state.js";

const profile = (key, name, more = {}) => ({ key, name, choices: 0, skipped: 0, waiting: 0, embeddings: 0, imported: 0, ...more });
const ANN = profile("a", "Ann", { choices: 4, waiting: 2 });
const BOB = profile("b", "Bob");
const withNode = (name, newName = "", profiles = [ANN, BOB]) => ({ ...initialState(), profiles, name, newName });

test("a node means its new name before its choice, whatever the letters' case", () => {
    assert.equal(meant(withNode("ann")), ANN);
    assert.equal(meant(withNode("Ann", " bob ")), BOB);
    assert.equal(meant(withNode("a")), ANN, "by its key, as job files name it");
    assert.equal(meant(withNode("Ann", "Carla")), null);
    assert.equal(meant(withNode("Ann", "", null)), null);
});

test("the line says how much is in it, or that there is none", () => {
    assert.deepEqual(lineOf(withNode("Ann")), { name: "Ann", text: "4 choices  ·  2 waiting", wrong: false });
    assert.deepEqual(lineOf(withNode("Ann", "Carla")), { name: "Carla", text: "is made by the next run", wrong: false });
    assert.deepEqual(lineOf(withNode("my taste")), { name: "my taste", text: "no choices yet", wrong: false });
    assert.equal(lineOf(withNode("Dora")).wrong, true);
    assert.deepEqual(lineOf(initialState()), { name: "", text: "", wrong: false });
    const away = reduce(initialState(), { kind: "failed", text: "The server does not answer." });
    assert.deepEqual(lineOf(away), { name: "", text: "The server does not answer.", wrong: true });
});

test("counts are said in words", () => {
    assert.equal(countsText(profile("a", "A", { choices: 1, skipped: 3 })), "1 choice  ·  3 skipped");
    assert.equal(countsText(profile("a", "A", { embeddings: 1, imported: 1 })), "an imported taste");
    assert.equal(countsText(profile("a", "A", { embeddings: 1, imported: 1, skipped: 2 })), "an imported taste  ·  2 skipped");
    assert.equal(countsText(profile("a", "A", { embeddings: 2, imported: 1, choices: 2 })), "2 choices");
    assert.equal(countsText(profile("a", "A", { embeddings: 1 })), "0 choices", "of choices that were taken back");
});

test("a deletion says what goes and what stays", () => {
    const all = deletionText(profile("a", "A", { choices: 1, skipped: 1, waiting: 1, embeddings: 1 }));
    assert.match(all, /^Gone for good: its 1 choice, 2 questions without one, the pictures that no other profile uses and what was/);
    assert.match(all, /LoRAs that were trained from it and files that you exported stay\. This cannot be undone\.$/);
    assert.match(deletionText(BOB), /^There is nothing in it\./);
    assert.match(deletionText(profile("a", "A", { embeddings: 1 })), /^Gone for good: what was learned of it\./);
});

test("one thing at a time is typed or asked, and it ends when its profile goes", () => {
    let state = reduce(withNode("Ann"), { kind: "edit", key: "a" });
    state = reduce(state, { kind: "ask", key: "b" });
    assert.deepEqual([state.editing, state.deleting], ["", "b"]);
    state = reduce(state, { kind: "profiles", profiles: [ANN] });
    assert.deepEqual([state.editing, state.deleting], ["", ""]);
    state = reduce(reduce(state, { kind: "edit", key: "a" }), { kind: "failed", text: "taken" });
    assert.deepEqual([state.editing, state.note, state.wrong], ["a", "taken", true], "what was typed can be put right");
    state = reduce(state, { kind: "done" });
    assert.deepEqual([state.editing, state.note, state.busy], ["", "", false]);
});

test("a name that was read follows its profile, unless another has taken it", () => {
    const anna = { ...ANN, name: "Anna" };
    assert.equal(followed([ANN, BOB], [anna, BOB], "ann"), "Anna");
    assert.equal(followed([ANN, BOB], [anna, { ...BOB, name: "Ann" }], "Ann"), "Ann");
    assert.equal(followed([ANN], [BOB], "Ann"), "Ann", "a deleted one is not replaced by another");
    assert.equal(followed([], [ANN], "Bob"), "Bob");
    const seen = remembering(remembering([], [ANN, BOB]), [anna]);
    assert.deepEqual(seen.map(({ name }) => name), ["Ann", "Bob", "Anna"]);
    assert.equal(remembering(seen, [anna]), seen);
    const hannah = { ...ANN, name: "Hannah" };
    assert.deepEqual(["Ann", "Anna"].map((name) => followed(seen, [hannah], name)), ["Hannah", "Hannah"], "renamed twice");
    assert.equal(followed([ANN], [anna], "Zoe"), "Zoe");
});

test("a name in a node goes with its profile only if it stood there when that still had it", () => {
    const old = { ...ANN, name: "Ann old" };
    assert.equal(renamed([ANN, BOB], [old, BOB], "Ann", "Ann"), "Ann old");
    assert.equal(renamed([old, BOB], [old, BOB], "Ann", "Ann"), "Ann", "typed after the renaming: another Ann");
    assert.equal(renamed([ANN, BOB], [old, BOB], "Bob", "Ann"), "Ann", "typed while the renaming was on its way");
    assert.equal(renamed([ANN, BOB], [old, BOB], undefined, "Ann"), "Ann", "a new node");
    assert.equal(renamed(null, [old, BOB], "Ann", "Ann"), "Ann");
});

test("a name that is typed where no profile has it is nobody's earlier name any more", () => {
    const old = { ...ANN, name: "Ann old" };
    const seen = remembering(remembering([], [ANN, BOB]), [old, BOB]);
    assert.equal(followed(seen, [old, BOB], "Ann"), "Ann old", "as a workflow from before is read");
    assert.equal(followed(disowning(seen, [old, BOB], "ann"), [old, BOB], "Ann"), "Ann");
    assert.equal(disowning(seen, [old, BOB], "bob"), seen, "that is Bob");
    assert.equal(disowning(seen, [old, BOB], "Zoe"), seen);
    assert.equal(disowning(seen, [old, BOB], ""), seen);
});

test("the choices keep their order, new names come first, and what is chosen stays", () => {
    assert.deepEqual(choicesOf(["my taste", "Bob", "gone"], [ANN, BOB], "Bob"), ["Ann", "Bob", "my taste"]);
    assert.deepEqual(choicesOf([], [profile("c", "My Taste")], "gone"), ["My Taste", "gone"]);
});
