/** What the timeline of Session Report shows, without page or host: `node --test tests/js`. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
    agreementText, beside, comparePath, endsOf, factsOf, figuresOf, keyOf, leadOf, notesOf, placesOf, reportPath, rewardsOf, short,
    signed, titleOf, weightsOf,
} from "../../js/report_state.js";

const KEY = "0".repeat(32);
const round = (key, parent, number, more = {}) => ({
    key, parent, number, prompt: "", negative: "", diff: [], pictures: [], weights: null, feedback: null, level: null, gain: null, ...more,
});
/** a–b–c is the way, d waits; b–e–f and a–g are branches that were left. */
const tree = () => ({
    rounds: [round("a", null, 1), round("b", "a", 2), round("e", "b", 3), round("f", "e", 4), round("c", "b", 3), round("g", "a", 2)],
    path: ["a", "b", "c"], open: round("d", "c", 4),
    branches: [{ rounds: ["a", "b", "e", "f"] }, { rounds: ["a", "b", "c"] }, { rounds: ["a", "g"] }],
});
const kpis = (more = {}) => ({
    accepted: false, rounds: 3, rounds_to_accept: null, regenerations: 1, satisfaction: 3.5, seconds_per_round: 12.34, pictures: 12,
    advice: "go on", reason: "go on with it", ...more,
});
const report = (more = {}) => ({
    kpis: kpis(), fairness: { warns: false, words: "few" }, agreement: { units: 0, words: "" }, audit: { sound: true, problems: [] },
    several: null, ...more,
});

test("the way lies in the first lane, every branch in the first one with room", () => {
    const found = placesOf(tree()).map(({ round: { key }, kind, column, lane }) => [key, kind, column, lane]);
    assert.deepEqual(found, [
        ["a", "path", 0, 0], ["b", "path", 1, 0], ["c", "path", 2, 0], ["d", "open", 3, 0],
        ["e", "other", 2, 1], ["f", "other", 3, 1], ["g", "other", 1, 2],
    ]);
    const apart = tree();
    apart.rounds.push(...[5, 6].map((number) => round(`x${number}`, number === 5 ? "d" : "x5", number)));
    apart.branches.push({ rounds: ["a", "x6"] });
    assert.equal(placesOf(apart).at(-1).lane, 1, "there is room behind the first branch");
});

test("arrow keys follow the tree, and stay where there is nothing", () => {
    const places = placesOf(tree());
    const walk = (from, ...arrows) => arrows.reduce((key, arrow) => beside(places, key, arrow), from);
    assert.equal(walk("a", "ArrowRight"), "b", "the way goes before other branches");
    assert.equal(walk("b", "ArrowRight", "ArrowRight"), "d");
    assert.equal(walk("c", "ArrowDown", "ArrowRight", "ArrowUp"), "d");
    assert.equal(walk("e", "ArrowLeft", "ArrowDown", "ArrowLeft"), "a");
    assert.equal(walk("f", "ArrowRight"), "f");
    assert.equal(walk("f", "Home", "End"), "d");
    assert.equal(walk("a", "x"), "a");
    assert.equal(beside([], "a", "ArrowLeft"), null);
});

test("numbers are as short as they are worth", () => {
    assert.deepEqual([0.12345, -2, 12.34, 123456, 0.00001, 0, null].map(short), ["0.123", "−2", "12.3", "1.2e+5", "1.0e−5", "0", "–"]);
    assert.deepEqual([0.1234, -0.00937, 0].map(signed), ["+0.12", "−0.0094", "±0"]);
});

test("the figures say what there is, and leave out what nobody knows", () => {
    assert.deepEqual(figuresOf(report()).map(([value]) => value), ["3", "–", "1", "3.5 ★", "12.3 s", "12"]);
    const several = { accepted: 2, sessions: 5, words: "", tests: [] };
    const empty = kpis({ satisfaction: null, seconds_per_round: null, rounds_to_accept: 4 });
    assert.deepEqual(figuresOf(report({ kpis: empty, several })).map(([value]) => value), ["3", "4", "1", "–", "–", "12", "2/5"]);
});

test("what warns is marked, and an edited record comes first", () => {
    assert.deepEqual(notesOf(report()), [{ kind: "", text: "go on with it" }, { kind: "", text: "few" }]);
    const wrong = report({
        audit: { sound: false, problems: ["Row 3 was edited."] }, kpis: kpis({ advice: "stop", reason: "enough" }),
        fairness: { warns: true, words: "they lean" }, several: { words: "2 sessions", tests: [{ words: "A against B" }] },
    });
    assert.deepEqual(notesOf(wrong).map(({ kind }) => kind), ["bad", "warn", "warn", "", ""]);
    assert.match(notesOf(wrong)[0].text, /Row 3 was edited/);
    assert.equal(notesOf(report({ kpis: kpis({ accepted: true }) })).length, 1, "nothing is advised once it is accepted");
});

test("weights share a bar, whatever they sum to", () => {
    const weights = { rule: "learned", before: { a: 1 }, after: { a: 3, b: -1 } };
    assert.deepEqual(weightsOf(round("a", null, 1, { weights })), [
        { name: "a", weight: 3, before: 1, share: 0.75 }, { name: "b", weight: -1, before: null, share: 0.25 },
    ]);
    assert.deepEqual(weightsOf(round("a", null, 1)), []);
    assert.equal(weightsOf({ weights: { rule: "", before: {}, after: { a: 0 } } })[0].share, 0);
    assert.deepEqual(rewardsOf([{ round: { weights } }, { round: { weights: { after: { c: 1, a: 2 } } } }]), ["a", "b", "c"]);
});

test("a round is known by its chosen picture", () => {
    const pictures = [{ chosen: false }, { chosen: true }, { chosen: false }];
    assert.deepEqual(leadOf({ pictures }), { lead: 1, others: [0, 2] });
    assert.deepEqual(leadOf({ pictures: pictures.slice(0, 1) }), { lead: -1, others: [0] });
});

test("a round is told to those who do not see it", () => {
    const feedback = { comment: "bigger", rating: 4, accepted: true };
    assert.equal(titleOf({ round: round("a", null, 1, { feedback }), kind: "other" }), "Round 1, on another branch, accepted, 4 stars, “bigger”");
    assert.equal(titleOf({ round: round("a", null, 2), kind: "open" }), "Round 2, waits for an answer");
});

test("only a session's key is asked for, with the node's settings", () => {
    assert.equal(keyOf({ key: KEY }), KEY);
    for (const wrong of [null, undefined, {}, { key: "../.." }, { key: `${KEY}0` }, "x"]) assert.equal(keyOf(wrong), null);
    const path = reportPath(KEY, { judge: "a & b", most_rounds: "6", figures: "all sessions" });
    assert.equal(path, `/attune/refinement/report/${KEY}?judge=a+%26+b&most_rounds=6&all=1`);
    assert.match(reportPath(KEY, { judge: "", most_rounds: "", figures: "this session" }), /all=$/);
});

test("branches can be compared where there are several, at their last rounds", () => {
    assert.deepEqual(endsOf(tree()), ["f", "c", "g"]);
    assert.deepEqual(endsOf({ branches: [{ rounds: ["a", "b"] }] }), []);
    assert.equal(comparePath(KEY, ["f", "c"], { judge: "a b" }), `/attune/refinement/compare/${KEY}/f/c?judge=a+b`);
});

test("agreement is told as a number where there is one", () => {
    assert.equal(agreementText({ alpha: null, raters: 0, units: 0, words: "nobody" }), "nobody");
    assert.match(agreementText({ alpha: 0.8765, raters: 2, units: 3, words: "They agree." }), /alpha 0\.88, of 2 raters and 3 .* They agree\./);
});

test("a round says in which test it is and which LoRA of the session it has", () => {
    const schedule = { type: "linear", steps: 4, strength: 1, guidance: 7, sampler: "euler", fresh: true, arm: "B", test: "type karras" };
    const facts = factsOf({ schedule, seconds: 1, regenerations: 0, version: "0123456789abcdef" });
    assert.deepEqual(facts.slice(-2), ["arm B of “type karras”", "with the session's own LoRA, version 0123456789ab"]);
    assert.equal(factsOf({ schedule: { ...schedule, arm: "" }, seconds: 1, regenerations: 0, version: "" }).length, 3);
});
