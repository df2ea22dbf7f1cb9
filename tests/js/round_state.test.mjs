import assert from "node:assert/strict";
import { test } from "node:test";
import {
    asked, commitBody, deletionText, initialState, missing, questionOf, reduce, saved, savedBy, shown, timeline, waits,
} from "../../js/round_state.js";
import { choicesAfter, renamedIn } from "../../js/session_names.js";

const KEY = "0".repeat(32);
const round = (key, parent, number, feedback = null) => ({
    key, parent, number, prompt: "a cat", changes: [], weights: null, feedback,
    pictures: ["a", "b", "c"].map((hash) => ({ hash: `${key}${hash}`, seed: "1", scores: {} })),
});
const said = { comment: "bigger", liked: [1], disliked: [], rating: 3, accepted: false };
const session = (more = {}) => ({
    key: KEY, name: "s", revision: 1, number: 1, attempt: 0, prompt: "a cat", accepted: false, path: [], rounds: [],
    open: round("one", null, 1), can_redo: false, ...more,
});
const at = (more) => reduce(initialState(), { kind: "session", session: session(more) });

test("marks of a picture exclude each other and go when pressed again", () => {
    let state = reduce(at(), { kind: "like", place: 1 });
    state = reduce(state, { kind: "dislike", place: 1 });
    assert.deepEqual([state.said.liked, state.said.disliked], [[], [1]]);
    state = reduce(state, { kind: "dislike", place: 1 });
    assert.deepEqual(state.said.disliked, []);
});

test("a round without a choice or words cannot be refined", () => {
    assert.match(missing(at()), /Choose a picture/);
    assert.equal(missing(reduce(at(), { kind: "like", place: 0 })), "");
    assert.equal(missing(reduce(at(), { kind: "comment", text: "bigger" })), "");
    assert.match(missing(reduce(at(), { kind: "comment", text: "  " })), /Choose/);
});

test("what was begun to be said stays with its round and goes with it", () => {
    let state = reduce(reduce(at(), { kind: "like", place: 2 }), { kind: "comment", text: "no hat" });
    state = reduce(state, { kind: "session", session: session({ revision: 2 }) });
    assert.equal(state.said.comment, "no hat");
    const next = session({ revision: 3, path: ["one"], rounds: [round("one", null, 1, said)], open: round("two", "one", 2) });
    state = reduce(state, { kind: "session", session: next });
    assert.deepEqual(state.said, { liked: [], disliked: [], comment: "", rating: null });
});

test("words outlive other pictures of the same round, marks do not", () => {
    let state = reduce(reduce(at(), { kind: "like", place: 2 }), { kind: "comment", text: "no hat" });
    for (const open of [null, round("again", null, 1)]) {
        state = reduce(state, { kind: "session", session: session({ revision: 2, attempt: 1, open }) });
    }
    assert.deepEqual(state.said, { liked: [], disliked: [], comment: "no hat", rating: null });
    state = reduce(state, { kind: "session", session: session({ key: "1".repeat(32) }) });
    assert.equal(state.said.comment, "", "another session's words are not these");
});

test("words outlive a reload while other pictures are made", () => {
    const said = reduce(reduce(at(), { kind: "like", place: 2 }), { kind: "comment", text: "no hat" });
    const kept = savedBy(JSON.parse(JSON.stringify(saved(said))));
    const back = reduce(initialState(), { kind: "restored", ...kept });
    const others = reduce(back, { kind: "session", session: session({ attempt: 1, open: round("again", null, 1) }) });
    assert.deepEqual(others.said, { liked: [], disliked: [], comment: "no hat", rating: null });
    const next = session({ path: ["one"], rounds: [round("one", null, 1)], open: round("two", "one", 2) });
    assert.equal(reduce(back, { kind: "session", session: next }).said.comment, "", "they were said to the round before");
    const another = session({ key: "1".repeat(32), open: round("again", null, 1) });
    assert.equal(reduce(back, { kind: "session", session: another }).said.comment, "", "another session's");
    const { head, ...older } = kept;
    const unknown = reduce(initialState(), { kind: "restored", ...savedBy({ ...older, ...older.said }) });
    assert.equal(reduce(unknown, { kind: "session", session: session({ open: round("again", null, 1) }) }).said.comment, "");
});

test("a question is there again with its draft", () => {
    const question = { key: KEY, revision: 1, round: 1, text: "Which hat?", choices: [{ label: "red", feedback: "the red hat" }] };
    const kept = savedBy(JSON.parse(JSON.stringify(saved(reduce(at(), { kind: "question", question })))));
    assert.deepEqual(kept.question, question);
    const back = reduce(initialState(), { kind: "restored", ...kept });
    assert.deepEqual(asked(reduce(back, { kind: "session", session: session(), question: kept.question })), question);
    assert.equal(savedBy({ key: KEY, question: { key: 7, text: "?" } }).question, null);
});

test("marks of pictures that are gone go with them", () => {
    const state = reduce(reduce(at(), { kind: "like", place: 2 }), { kind: "session", session: session({ open: { ...round("one", null, 1), pictures: [] } }) });
    assert.deepEqual(state.said.liked, []);
});

test("a round that was undone comes back with its answer", () => {
    const state = at({ open: { ...round("one", null, 1), feedback: said } });
    assert.deepEqual(state.said, { liked: [1], disliked: [], comment: "bigger", rating: 3 });
});

test("a saved draft is restored for its own round only, and rubbish is nobody's", () => {
    const state = reduce(reduce(at(), { kind: "like", place: 1 }), { kind: "rate", stars: 5 });
    const kept = savedBy(JSON.parse(JSON.stringify(saved(state))));
    const own = { liked: [1], disliked: [], comment: "", rating: 5 };
    assert.deepEqual(kept, { key: KEY, name: "s", of: "one", head: "", question: null, said: own });
    let back = reduce(initialState(), { kind: "restored", of: kept.of, said: kept.said });
    back = reduce(back, { kind: "session", session: session() });
    assert.deepEqual(back.said.liked, [1]);
    const other = reduce(reduce(initialState(), { kind: "restored", of: "three", said: kept.said }), { kind: "session", session: session() });
    assert.deepEqual(other.said.liked, []);
    for (const value of [null, 7, {}, { key: "../.." }, { key: KEY, liked: "all", rating: 9, comment: {} }]) {
        const found = savedBy(value);
        if (found) assert.deepEqual(found.said, { liked: [], disliked: [], comment: "", rating: null });
    }
});

test("a look at an earlier round shows its answer and changes nothing", () => {
    const one = round("one", null, 1, said);
    let state = at({ path: ["one"], rounds: [one], open: round("two", "one", 2) });
    assert.equal(shown(state).key, "two");
    state = reduce(state, { kind: "look", at: "one" });
    assert.equal(shown(state), one);
    assert.equal(waits(state), false);
    assert.equal(reduce(state, { kind: "like", place: 0 }), state);
    assert.equal(shown(reduce(state, { kind: "look", at: "two" })).key, "two");
});

test("the timeline has the way, what waits, and other branches last", () => {
    const rounds = [round("one", null, 1, said), round("aside", "one", 2, said)];
    const found = timeline(session({ path: ["one"], rounds, open: round("two", "one", 2) }));
    assert.deepEqual(found.map(({ round: { key }, kind }) => [key, kind]), [["one", "path"], ["two", "open"], ["aside", "other"]]);
});

test("what is sent names the round and the revision that were seen", () => {
    const state = reduce(at({ revision: 9 }), { kind: "like", place: 0 });
    assert.deepEqual(commitBody(state, true), {
        key: KEY, revision: 9, round: "one", liked: [0], disliked: [], comment: "", rating: null, accepted: true,
    });
});

const question = (more = {}) => ({
    key: KEY, revision: 4, round: 2, text: "Which cat?", choices: [{ label: "the left one", feedback: "the left cat bigger" }], ...more,
});
const second = (more = {}) =>
    session({ revision: 4, path: ["one"], rounds: [round("one", null, 1, said)], open: round("two", "one", 2), ...more });

test("a question is shown with the round it was asked about, and with no other", () => {
    let state = reduce(initialState(), { kind: "session", session: second(), question: question() });
    assert.equal(asked(state)?.round, 2);
    assert.equal(asked(reduce(state, { kind: "look", at: "one" })), null, "an earlier round is only looked at");
    assert.equal(asked(reduce(reduce(state, { kind: "look", at: "one" }), { kind: "look", at: "two" }))?.round, 2);
    for (const later of [second({ revision: 5 }), second({ revision: 4, open: null })]) {
        const moved = reduce(state, { kind: "session", session: later, question: question() });
        assert.equal(asked(moved), null, "the round was answered, undone or made anew since");
    }
    assert.equal(asked(reduce(state, { kind: "question", question: question({ key: "1".repeat(32) }) })), null, "another session");
    state = reduce(state, { kind: "session", session: second() });
    assert.equal(asked(state), null, "the last run asked nothing");
});

test("an answer joins the comment, and the question goes", () => {
    let state = reduce(initialState(), { kind: "session", session: second(), question: question() });
    state = reduce(reduce(state, { kind: "comment", text: "darker " }), { kind: "answer", feedback: "the left cat bigger" });
    assert.deepEqual([state.said.comment, asked(state)], ["darker, the left cat bigger", null]);
    const back = reduce(reduce(state, { kind: "look", at: "one" }), { kind: "answer", feedback: "x" });
    assert.equal(back.said.comment, "darker, the left cat bigger", "nothing is said to a round that is looked at");
});

test("only a run that says which round it asks about has a question", () => {
    assert.deepEqual(questionOf({ attune_question: [question()] }), question());
    for (const wrong of [undefined, {}, { attune_question: [] }, { attune_question: [question({ revision: "4" })] },
        { attune_question: [question({ choices: null })] }]) assert.equal(questionOf(wrong), null);
});

test("deleting is asked once, says all that goes, and is taken back by anything else", () => {
    let state = reduce(at(second()), { kind: "manage" });
    assert.equal(state.managing, "manage");
    state = reduce(state, { kind: "ask" });
    assert.equal(state.managing, "ask");
    assert.match(deletionText(state.session), /^Delete “s”\? Everything of it goes: all 2 rounds .* cannot be brought back\.$/);
    assert.match(deletionText(session({ open: null })), /goes: your words and ratings/);
    const learned = session({ rounds: [{ ...round("a", null, 1, said), version: "abc" }] });
    assert.match(deletionText(learned), /LoRA files .* stay in the LoRA catalogue: delete them there\.$/);
    assert.equal(reduce(state, { kind: "rest" }).managing, "");
    const other = reduce(state, { kind: "session", session: session({ key: "1".repeat(32) }) });
    assert.equal(other.managing, "", "the question does not pass on to another session");
    const gone = reduce(state, { kind: "deleted", left: "Files of the session are in use." });
    assert.deepEqual([gone.session, saved(gone)], [null, null]);
    assert.match(gone.note, /is deleted.*Files of the session are in use\./);
    assert.equal(reduce(initialState(), { kind: "ask" }).managing, "", "there is nothing to delete");
});

test("nodes that mean a session by its name go with it", () => {
    assert.deepEqual(renamedIn({ session: "Cats", new_name: "" }, "cats", "dogs"), { session: "dogs", new_name: "" });
    assert.deepEqual(renamedIn({ session: "x", new_name: " CATS " }, "cats", "dogs"), { session: "x", new_name: "dogs" });
    assert.equal(renamedIn({ session: "cats", new_name: "birds" }, "cats", "dogs"), null);
    assert.deepEqual(choicesAfter(["cats", "birds"], "cats", "dogs"), ["dogs", "birds"]);
    assert.deepEqual(choicesAfter(["my session"], "my session", "dogs"), ["dogs", "my session"]);
});
