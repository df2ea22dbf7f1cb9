/** The picker's logic, without page or host: `node --test tests/js`. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
    answerOf,
    askedBy,
    counts,
    current,
    initialState,
    isChanged,
    newest,
    outputOf,
    parting,
    reduce,
    undoOf,
    upcoming,
} from "../../js/choose_state.js";
import {
    actionOf, answerTexts, columnsFor, isWrong, keyMeaning, legend, noteOf, picturePath, progressText, questionText, rate, verdictText,
} from "../../js/choose_words.js";

const picture = (name) => ({ hash: name, width: 64, height: 64, seed: "5" });

/** A question of `size` pictures; said = a choice or stars. */
function question(key, { kind = "pair", size = 2, said = null, id = 1 } = {}) {
    const pictures = Array.from({ length: size }, (_, place) => picture(`${key}${place}`));
    const stars = said && typeof said === "object" ? said : null;
    const decision = said ? { id, choice: stars ? null : said, stars, made: 0 } : null;
    const open = !decision || Boolean(stars && pictures.some(({ hash }) => !stars[hash]));
    return { id: 1, key, kind, prompt: `prompt ${key}`, pictures, open, decision };
}

const profile = (revision = 0, waiting = 0) => ({ key: "p", name: "my taste", revision, waiting });

function started(questions, { revision = 0, ran = 0, ...more } = {}) {
    const waiting = questions.filter(({ open }) => open).length;
    return reduce(initialState(), { kind: "questions", profile: profile(revision, waiting), questions, missing: 0, ran, ...more });
}

let serial = 0;

/** As the page does it: the answer is on its way, and the next question comes. */
function say(state, said) {
    const item = answerOf(state, said);
    const items = item ? [...state.unsent, { ...item, serial: (serial += 1) }] : state.unsent;
    const stay = Boolean(said.stars) && !current(state).open;
    const sent = reduce(state, { kind: "unsent", items, unanswered: false });
    return reduce(sent, { kind: "advance", question: state.at, stay });
}

function undo(state) {
    const item = undoOf(state);
    const sent = reduce(state, { kind: "unsent", items: [...state.unsent, { ...item, serial: (serial += 1) }], unanswered: false });
    return reduce(sent, { kind: "undone", question: item.question });
}

/** The server has everything, as it is shown. */
function saved(state, revision) {
    const answered = state.shown.reduce(
        (now, own, place) => reduce(now, { kind: "answered", profile: profile(revision), question: { ...own, decision: own.decision && { ...own.decision, id: place + 10 } } }),
        state,
    );
    return reduce(answered, { kind: "unsent", items: [], unanswered: false });
}

test("the first open question is asked, then the next, round the end, then the answers are shown", () => {
    assert.equal(current(initialState()), null);
    assert.equal(current(started([])), null);
    let state = started([question("a", { said: "a0" }), question("b"), question("c")]);
    assert.equal(current(state).key, "b");
    assert.deepEqual(upcoming(state).map(({ key }) => key), ["c"]);
    state = reduce(state, { kind: "go", question: "c" });
    state = say(state, { choice: "c1" });
    assert.equal(current(state).key, "b");
    state = say(state, { choice: "skip" });
    assert.deepEqual([current(state), state.showing], [null, "answers"]);
    assert.equal(answerOf(state, { choice: "tie" }), null, "nothing is asked");
    assert.deepEqual(state.shown.map(({ decision }) => decision.choice), ["a0", "skip", "c1"]);
    assert.deepEqual([counts(state).answered, counts(state).open], [3, 0]);
});

test("an answer says what stood before; the same again says nothing new", () => {
    const state = reduce(started([question("a", { said: "a0", id: 7 }), question("b")]), { kind: "go", question: "a" });
    assert.equal(answerOf(state, { choice: "a0" }), null);
    const { kind, profile: key, question: name, choice, before } = answerOf(state, { choice: "tie" });
    assert.deepEqual([kind, key, name, choice, before.id], ["decide", "p", "a", "tie", 7]);
});

test("undo takes back the newest answer, on its way or saved, in whichever tab it was given", () => {
    let state = started([question("a", { said: "a0", id: 9 }), question("b", { said: "tie", id: 4 }), question("c")]);
    assert.equal(newest(state).key, "a");
    state = say(state, { choice: "c1" });
    const first = undoOf(state);
    assert.deepEqual([first.question, first.decision, first.of.choice, first.back], ["c", 0, "c1", null]);
    state = undo(state);
    assert.equal(current(state).key, "c");
    assert.equal(current(state).open, true);
    const second = undoOf(state);
    assert.deepEqual([second.question, second.decision, second.of], ["a", 9, null]);
    state = undo(undo(state));
    assert.equal(undoOf(state), null);
    assert.equal(counts(state).open, 3);
});

test("a changed answer that is taken back shows what stood before", () => {
    let state = reduce(started([question("a", { said: "a0", id: 9 })]), { kind: "go", question: "a" });
    state = say(state, { choice: "a1" });
    assert.equal(state.shown[0].decision.choice, "a1");
    state = undo(state);
    assert.equal(state.shown[0].decision.choice, "a0");
    assert.equal(undoOf(state).decision, 9);
});

test("stars are given picture by picture, then the next question comes", () => {
    let state = started([question("a", { kind: "stars", size: 3, said: { a1: 4 } }), question("b")]);
    assert.deepEqual([current(state).key, state.mark], ["a", 0]);
    state = say(state, { stars: { a0: 2 } });
    assert.equal(state.mark, 2);
    assert.equal(current(state).open, true);
    assert.deepEqual(current(state).decision.stars, { a1: 4, a0: 2 });
    assert.deepEqual(undo(state).shown[0].decision.stars, { a1: 4 });
    state = say(state, { stars: { a2: 5 } });
    assert.equal(current(state).key, "b");
    state = reduce(state, { kind: "go", question: "a" });
    state = say(state, { stars: { a0: 1 } });
    assert.deepEqual([current(state).key, state.mark], ["a", 1], "complete ones are changed one by one");
    assert.equal(answerOf(state, { stars: { a0: 1 } }), null);
});

test("another tab answers: what is asked here goes on; what it takes back is asked again", () => {
    let state = started([question("a"), question("b")]);
    state = reduce(state, { kind: "answered", profile: profile(1), question: question("a", { said: "a0" }) });
    assert.equal(current(state).key, "b");
    state = reduce(state, { kind: "answered", profile: profile(2), question: question("b", { said: "b0" }) });
    assert.equal(state.showing, "answers");
    state = reduce(state, { kind: "answered", profile: profile(3), question: question("a") });
    assert.equal(current(state).key, "a");
    assert.equal(reduce(state, { kind: "answered", profile: { ...profile(4), key: "q" }, question: question("a") }), state);
    const looking = reduce(started([question("a", { said: "a0" }), question("b")]), { kind: "go", question: "a" });
    const changed = reduce(looking, { kind: "answered", profile: profile(5), question: question("a", { said: "tie" }) });
    assert.equal(current(changed).key, "a", "looked at on purpose");
});

test("what is not saved is said, and what the last run did not hand on", () => {
    let state = started([question("a"), question("b")]);
    assert.equal(isChanged(state), false);
    state = say(state, { choice: "a0" });
    assert.equal(noteOf(state), "Saving …");
    const away = reduce(state, { kind: "unsent", items: state.unsent, unanswered: true });
    assert.equal(isWrong(away), true);
    assert.equal(progressText(away), "1 of 2, 1 not saved");
    assert.match(noteOf(away), /your choice is not saved yet/);
    state = saved(state, 1);
    assert.deepEqual([noteOf(state), isChanged(state), progressText(state)], ["Saved.", true, "1 of 2"]);
    state = saved(say(state, { choice: "tie" }), 2);
    assert.match(noteOf(state), /Run again hands your choices on/);
    const queued = reduce(state, { kind: "queued", on: true });
    assert.equal(noteOf(queued), "In the queue …");
    state = reduce(queued, {
        kind: "questions", profile: profile(2), questions: state.questions, missing: 0, ran: 2, finished: true,
    });
    assert.deepEqual([noteOf(state), isChanged(state), state.queued], ["", false, false]);
    const failed = reduce(state, { kind: "failed", text: "The disk is full." });
    assert.deepEqual([noteOf(failed), isWrong(failed)], ["The disk is full.", true]);
    assert.equal(reduce(state, { kind: "gone", text: "No such profile." }).profile, null);
});

test("new pictures after choices that no run has handed on: the seed was not kept", () => {
    const state = saved(say(started([question("a")]), { choice: "a0" }), 1);
    const next = { kind: "questions", profile: profile(1), questions: [question("x")], missing: 0, ran: 1 };
    const told = reduce(state, next);
    assert.match(noteOf(told), /keep the sampler's seed fixed/);
    assert.match(noteOf(reduce(told, { ...next, finished: true })), /seed fixed/, "the same run again, ended");
    assert.doesNotMatch(noteOf(saved(say(told, { choice: "x0" }), 2)), /seed/);
    const handed = reduce(state, { ...next, questions: state.questions });
    assert.doesNotMatch(noteOf(reduce(handed, next)), /seed/);
});

test("a run that waits says so until all are answered", () => {
    let state = reduce(started([question("a")]), { kind: "waits", on: true });
    assert.match(noteOf(state), /run waits for you/);
    state = saved(say(state, { choice: "a0" }), 1);
    assert.doesNotMatch(noteOf(state), /waits/);
});

test("questions of other runs can be asked, too, each once", () => {
    let state = reduce(initialState(), { kind: "questions", profile: profile(0, 3), questions: [question("a")], missing: 1, ran: 0 });
    assert.equal(counts(state).earlier, 2);
    assert.match(noteOf(state), /1 question not kept any more/);
    state = reduce(state, { kind: "more", profile: profile(0, 3), questions: [question("c"), question("b"), question("a")] });
    assert.deepEqual([counts(state).earlier, counts(state).total], [0, 3]);
});

test("a closing page sends the last word on each question", () => {
    const item = (name, more) => ({ kind: "decide", question: name, ...more });
    const items = [
        item("a", { choice: "a0" }), item("a", { choice: "tie" }), item("s", { stars: { s0: 1 } }), item("s", { stars: { s1: 2 } }),
        item("u", { choice: "u0" }), item("u", { kind: "undo", decision: 0 }), item("o", { kind: "undo", decision: 8 }),
        // Its answer has come meanwhile.
        item("m", { kind: "undo", decision: 0, of: { made: 7 } }),
    ];
    const sent = parting(items);
    assert.deepEqual(sent.map(({ question: name }) => name), ["a", "s", "o", "m"]);
    assert.equal(sent[0].choice, "tie");
    assert.deepEqual(sent[1].stars, { s0: 1, s1: 2 });
    assert.equal(sent[2].decision, 8);
});

test("keys: numbers, arrows, space, skip, undo", () => {
    const pair = started([question("a")]);
    assert.deepEqual(actionOf(pair, keyMeaning("1")), { kind: "say", choice: "a0" });
    assert.deepEqual(actionOf(pair, keyMeaning("ArrowRight")), { kind: "say", choice: "a1" });
    assert.equal(actionOf(pair, keyMeaning("3")), null);
    assert.deepEqual(actionOf(pair, keyMeaning(" ")), { kind: "say", choice: "tie" });
    assert.deepEqual(actionOf(pair, keyMeaning("S")), { kind: "say", choice: "skip" });
    assert.deepEqual(actionOf(pair, keyMeaning("Enter")), { kind: "enlarge" });
    for (const key of ["a", "0", "F1", "12", "Escape"]) assert.equal(keyMeaning(key), "");

    let best = started([question("b", { kind: "best", size: 6 })]);
    assert.deepEqual(actionOf(best, keyMeaning("6")), { kind: "say", choice: "b5" });
    assert.deepEqual(actionOf(best, "enter"), { kind: "enlarge" }, "nothing is marked");
    best = reduce(best, actionOf(best, keyMeaning("ArrowLeft"), 3));
    best = reduce(best, actionOf(best, keyMeaning("ArrowDown"), 3));
    assert.equal(best.mark, 3);
    assert.equal(actionOf(best, keyMeaning("ArrowDown"), 3), null);
    assert.deepEqual(actionOf(best, "enter"), { kind: "say", choice: "b3" });

    const stars = started([question("s", { kind: "stars", size: 2 })]);
    assert.deepEqual(actionOf(stars, keyMeaning("5")), { kind: "say", stars: { s0: 5 } });
    assert.deepEqual([actionOf(stars, "6"), actionOf(stars, "tie"), rate(stars, 3, 7)], [null, null, null]);
    assert.deepEqual(rate(stars, 3, 1), { kind: "say", stars: { s1: 3 } });
    assert.equal(actionOf(started([]), "1"), null);
    assert.deepEqual(actionOf(started([]), keyMeaning("z")), { kind: "undo" });
});

test("words: what is asked, what was said, what the keys do", () => {
    const kinds = [question("a"), question("b", { kind: "best", size: 3 }), question("s", { kind: "stars", size: 2 })];
    assert.equal(new Set(kinds.map(questionText)).size, 3);
    for (const kind of kinds) {
        const keys = legend(kind, true).flatMap(([names]) => names);
        assert.ok(keys.includes("S") && keys.includes("Z") && keys.includes("Esc"));
        assert.equal(keys.includes("Space"), kind.kind !== "stars");
        assert.ok(legend(kind, false).some(([, what]) => what === "large view"));
    }
    assert.equal(verdictText(question("a", { said: "a1" })), "picture 2 chosen");
    assert.equal(verdictText(question("s", { kind: "stars", size: 1, said: { s0: 3 } })), "picture 1: 3 stars");
    assert.deepEqual([verdictText(kinds[0]), verdictText(question("a", { said: "tie" }))], ["not answered", "no difference"]);
    const state = started([question("a", { said: "a1" }), question("b", { said: "tie" }), question("c", { said: "skip" })]);
    assert.deepEqual(answerTexts(state), { headline: "All 3 answered", line: "1 chosen  ·  1 no difference  ·  1 skipped" });
    assert.equal(answerTexts(started([question("a")])).headline, "1 of 1 question open");
    assert.equal(picturePath("ab", { small: true }), "/attune/preferences/picture/ab?small=1");
});

test("pictures are laid out as large as fits", () => {
    assert.equal(columnsFor(2, 800, 400, 1), 2);
    assert.equal(columnsFor(2, 400, 900, 1), 1);
    assert.equal(columnsFor(4, 500, 500, 1), 2);
    assert.equal(columnsFor(4, 1600, 400, 1), 4);
    assert.equal(columnsFor(2, 800, 700, 2), 1, "wide pictures one above the other");
    assert.equal(columnsFor(1, 100, 100, 1), 1);
});

test("a run's word is taken only if it is whole", () => {
    const [key, name] = ["a".repeat(32), "b".repeat(64)];
    const told = { profile: key, revision: 3, questions: [name], name: "x", answered: 0, waiting: 1 };
    assert.deepEqual(outputOf({ attune_choose: [told] }), { profile: key, revision: 3, questions: [name] });
    for (const wrong of [undefined, {}, { ...told, profile: "../x" }, { ...told, questions: ["b"] }, { ...told, questions: "b" }]) {
        assert.equal(askedBy(wrong), null);
    }
    assert.equal(outputOf({ text: ["x"] }), null);
});
