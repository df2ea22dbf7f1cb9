/** The A/B Test's logic, without page or host: `node --test tests/js`. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
    counts,
    current,
    initialState,
    isWrong,
    keyMeaning,
    messageOf,
    nextOpen,
    noteOf,
    picturePath,
    progressText,
    reduce,
    resultTexts,
    testOf,
    upcoming,
} from "../../js/ab_state.js";

const pair = (index, choice = null, made = 0) => ({
    key: `k${index}`, prompt: `prompt ${index}`, left: `l${index}`, right: `r${index}`, width: 64, height: 64, choice, made,
});

function shown(choices, { test: name = "t1", voter = "person", alike = 0, blurred = 0 } = {}) {
    return { test: name, voter, alike, blurred, pairs: choices.map((choice, index) => pair(index, ...[choice].flat())) };
}

const started = (choices, options) => reduce(initialState(), { kind: "test", shown: shown(choices, options) });
const after = (state, ...sides) => sides.reduce((now, side) => reduce(now, { kind: "vote", side }), state);

const STANDING = Object.freeze({
    names: ["base", "tuned"], voter: "person", reward: "", pairs: 20, blurred: 0, missing: 4, votes: 16, a: 3, b: 12, ties: 1,
    win_rate: 12.5 / 16, interval: [0.52, 0.93], p_value: 0.0344, still_needed: 0, decision: "B",
});

test("the first pair without a vote comes first", () => {
    assert.equal(current(started([null, null])).key, "k0");
    assert.equal(current(started(["left", null, "tie", null])).key, "k1");
    assert.equal(started(["left", "tie"]).showing, "result");
    assert.equal(started([]).showing, "result");
    assert.equal(current(initialState()), null);
});

test("voting goes on to the next open pair, round the end, then to the result", () => {
    let state = started([null, "tie", null]);
    assert.deepEqual(messageOf(state, { kind: "vote", side: "left" }), { pair: "k0", side: "left" });
    state = after(state, "left");
    assert.equal(current(state).key, "k2");
    assert.deepEqual(state.pairs.map(({ choice }) => choice), ["left", "tie", null]);
    assert.equal(state.changed, true);
    state = after(state, "right");
    assert.equal(state.showing, "result");
    assert.deepEqual(counts(state), { judged: 3, total: 3, missing: 0 });
    assert.equal(after(state, "left"), state, "nothing is left to vote on");
    assert.equal(messageOf(state, { kind: "vote", side: "left" }), null);
    assert.equal(nextOpen([pair(0), pair(1, "tie"), pair(2, "tie")], 1), 0);
    assert.equal(nextOpen([], -1), -1);
});

test("undo takes votes back one by one, in this page and after a reload", () => {
    let state = after(started([null, null, null]), "left", "tie");
    assert.deepEqual(messageOf(state, { kind: "undo" }), { pair: "k1", side: null });
    state = reduce(state, { kind: "undo" });
    assert.equal(current(state).key, "k1");
    assert.deepEqual(state.pairs.map(({ choice }) => choice), ["left", null, null]);

    let reloaded = started([["left", 30], ["right", 10], ["tie", 20]]);
    const undone = [];
    for (let step = 0; step < 4; step += 1) {
        const message = messageOf(reloaded, { kind: "undo" });
        if (message) undone.push(message.pair);
        reloaded = reduce(reloaded, { kind: "undo" });
    }
    assert.deepEqual(undone, ["k0", "k2", "k1"], "newest first");
    assert.equal(reloaded.showing, "vote");
    assert.equal(messageOf(reloaded, { kind: "undo" }), null);
});

test("an undone vote can be given anew and undone to what it was", () => {
    let state = after(started([null]), "left");
    state = reduce(state, { kind: "undo" });
    state = after(state, "right");
    assert.deepEqual(state.history, [{ key: "k0", before: null }]);
    state = reduce(reduce(state, { kind: "undo" }), { kind: "undo" });
    assert.equal(state.pairs[0].choice, null);
});

test("a reward's test is not voted on", () => {
    const state = started([null, null], { voter: "reward" });
    assert.equal(state.showing, "result");
    assert.equal(after(reduce(state, { kind: "show", what: "vote" }), "left").changed, false);
    assert.equal(progressText(state), "2 pairs, judged by a reward");
    assert.match(noteOf(state), /set voter to “person”/);
});

test("a run of the same test keeps what is looked at and knows of all votes", () => {
    let state = after(started([null, null, null]), "left");
    assert.match(noteOf(state), /Press Run/);
    state = reduce(state, { kind: "show", what: "result" });
    state = reduce(state, { kind: "test", shown: shown([["left", 5], null, null]), ran: true });
    assert.equal(state.showing, "result");
    assert.equal(noteOf(state), "");
    state = reduce(state, { kind: "show", what: "vote" });
    assert.equal(current(state).key, "k1");
    const finished = after(state, "left", "left");
    assert.equal(finished.showing, "result");
    const begun = reduce(finished, { kind: "test", shown: shown([null, null, null]) });
    assert.equal(begun.showing, "vote", "nobody asked for the result; it was all that there was");
    const other = reduce(state, { kind: "test", shown: shown([null], { test: "t2" }) });
    assert.equal(other.showing, "vote");
    assert.equal(other.result, null);
});

test("a test whose votes were all taken back elsewhere begins at its first pair", () => {
    const voted = after(started([null, null, null]), "left", "right");
    assert.equal(current(voted).key, "k2");
    const begun = reduce(voted, { kind: "test", shown: shown([null, null, null]), ran: true });
    assert.equal(current(begun).key, "k0");
});

test("a result of another test is not taken", () => {
    const state = started([null]);
    assert.equal(reduce(state, { kind: "result", result: { test: "t2", standing: STANDING, pairs: [] } }), state);
    assert.equal(reduce(state, { kind: "result", result: { test: "t1", standing: STANDING, pairs: [] } }).result.standing, STANDING);
});

test("votes that the server may not have", () => {
    const state = reduce(after(started([null, null, null]), "left"), { kind: "unsent", votes: [{ pair: "k0", side: "left" }], unanswered: false });
    assert.equal(noteOf(state), "Saving …");
    assert.equal(progressText(state), "1 of 3 pairs judged");
    assert.equal(isWrong(state), false);
    const away = reduce(state, { kind: "unsent", votes: state.unsent, unanswered: true });
    assert.match(noteOf(away), /^The server does not answer; your vote is not saved yet\./);
    assert.equal(progressText(away), "1 of 3 pairs judged, 1 not saved");
    assert.equal(isWrong(away), true);
    const votes = [...away.unsent, { pair: "k1", side: "tie" }];
    const both = reduce(after(away, "tie"), { kind: "unsent", votes, unanswered: true });
    assert.match(noteOf(both), /; 2 votes are not saved yet\./, "a further vote does not clear what is wrong");
    const failed = reduce(both, { kind: "failed", text: "The server does not answer." });
    const there = reduce(failed, { kind: "unsent", votes: [], unanswered: false });
    assert.equal(noteOf(there), "Saved. Press Run to hand the result on.");
    assert.equal(isWrong(there), false);
});

test("a test that is loaded shows votes that the server does not have yet", () => {
    const unsent = [{ pair: "k2", side: "right" }, { pair: "k0", side: null }, { pair: "k1", side: "left" }];
    const action = { kind: "test", shown: shown([["tie", 5], null, null, ["tie", 3]]), ran: true, unsent, unanswered: true };
    const state = reduce(initialState(), action);
    assert.deepEqual(state.pairs.map(({ choice }) => choice), [null, "left", "right", "tie"]);
    assert.equal(current(state).key, "k0");
    assert.deepEqual(state.history.map(({ key }) => key), ["k3", "k2", "k1"], "undo takes the newest first");
    assert.equal(progressText(state), "3 of 4 pairs judged, 3 not saved");
    assert.equal(state.changed, true, "the run did not know of them");
});

test("a vote that the server refuses is not shown as given", () => {
    const refusal = { kind: "refused", pair: "k0", before: null, text: "The disk is full." };
    const last = reduce(after(started([null]), "left"), refusal);
    assert.deepEqual([last.showing, current(last).key, last.history, noteOf(last)], ["vote", "k0", [], "The disk is full."]);
    const changed = reduce(after(started([null, null]), "left"), { ...refusal, before: "tie" });
    assert.deepEqual([changed.pairs[0].choice, current(changed).key], ["tie", "k1"]);
    const newer = { ...after(started([null, null]), "left"), unsent: [{ pair: "k0", side: "left" }] };
    assert.equal(reduce(newer, refusal).pairs[0].choice, "left", "a newer vote on the same pair is on its way");
    assert.equal(noteOf(reduce(newer, { ...refusal, pair: "gone" })), "The disk is full.");
});

test("what is said", () => {
    assert.equal(progressText(started([null, "tie", null])), "1 of 3 pairs judged");
    assert.equal(progressText(started(["tie"])), "All 1 pair judged");
    assert.equal(progressText(started([])), "No pairs to vote on");
    assert.equal(noteOf(started([null], { alike: 1, blurred: 2 })), "2 pairs held back by the safety gate. 1 pair alike: a tie without a vote.");
    const failed = reduce(started([null]), { kind: "failed", text: "The vote was not saved." });
    assert.equal(noteOf(failed), "The vote was not saved.");
    assert.equal(noteOf(after(failed, "left")), "Saved. Press Run to hand the result on.");
});

test("the result in words", () => {
    const { headline, decision, lines } = resultTexts(STANDING);
    assert.equal(headline, "tuned is better");
    assert.equal(decision, "B");
    assert.equal(lines[0], "tuned gets 78 % of 16 votes (95 % interval 52 % to 93 %)");
    assert.equal(lines[1], "base 3 : 12 tuned, 1 tie");
    assert.equal(lines[2], "Chance alone would do as much with p = 0.034");
    assert.equal(lines.length, 3);
    const open = resultTexts({ ...STANDING, decision: "open", still_needed: 30, p_value: 1e-5 });
    assert.equal(open.headline, "Still open");
    assert.match(open.lines[2], /p < 0.001/);
    assert.match(open.lines[3], /About 30 more votes/);
    assert.match(open.lines[4], /raise images_per_prompt/);
    assert.equal(resultTexts({ ...STANDING, decision: "open", still_needed: 3 }).lines.length, 4);
    const early = { ...STANDING, decision: "open", still_needed: null };
    assert.deepEqual(resultTexts(early).lines.slice(3), ["Too early to say how many more votes it takes"]);
    assert.match(resultTexts({ ...early, missing: 0 }).lines[4], /raise images_per_prompt/);
    assert.deepEqual(resultTexts({ ...STANDING, win_rate: null, missing: 1 }), { headline: "No votes yet", decision: "open", lines: ["1 vote missing"] });
});

test("keys, addresses, outputs", () => {
    assert.deepEqual(["ArrowLeft", "ArrowRight", " ", "z", "Z", "Enter", "x"].map(keyMeaning), ["left", "right", "tie", "undo", "undo", "enlarge", ""]);
    assert.equal(picturePath("ab/../c"), "/attune/ab/picture/ab%2F..%2Fc");
    assert.equal(picturePath("ab", { small: true }), "/attune/ab/picture/ab?small=1");
    assert.equal(testOf({ attune_ab: [{ test: "t1" }] }), "t1");
    for (const output of [undefined, {}, { attune_ab: [] }, { attune_ab: [{ test: 3 }] }]) assert.equal(testOf(output), "");
    assert.deepEqual(upcoming(started([null, "tie", null, null, null])).map(({ key }) => key), ["k2", "k3"]);
});
