/** Votes on their way, without page or host: `node --test tests/js`. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { createOutbox, Unanswered } from "../../js/outbox.js";

const vote = (pair, side = "left", name = "t1") => ({ test: name, pair, side, before: null });
const SOON = 5;

/** An outbox whose server can be away, slow, or refuse some pairs, and what becomes of its votes. */
function bench() {
    const seen = { stored: [], left: [], refused: [], changes: 0, away: false, refuses: "", gate: Promise.resolve() };
    const outbox = createOutbox({
        retryMilliseconds: SOON,
        async post({ pair, side }, leaving) {
            if (leaving) return seen.left.push([pair, side]);
            await seen.gate;
            if (seen.away) throw new Unanswered("away");
            if (pair === seen.refuses) throw new Error("no such pair");
            return seen.stored.push([pair, side]);
        },
        onChange: () => (seen.changes += 1),
        onRefused: ({ pair }, error) => seen.refused.push([pair, error.message]),
    });
    return { seen, outbox };
}

async function until(condition) {
    for (let round = 0; round < 400 && !condition(); round += 1) await new Promise((done) => setTimeout(done, SOON));
    assert.ok(condition());
}

test("votes arrive in their order, and are kept until they have", async () => {
    const { seen, outbox } = bench();
    const first = outbox.add(vote("k0"));
    outbox.add(vote("k1", "tie", "t2"));
    assert.deepEqual([outbox.of("t1").length, outbox.of("t2").length, outbox.of("t3").length], [1, 1, 0]);
    await first;
    await outbox.flush();
    assert.deepEqual(seen.stored, [["k0", "left"], ["k1", "tie"]]);
    assert.deepEqual([outbox.of("t1"), outbox.of("t2"), outbox.unanswered()], [[], [], false]);
    assert.ok(seen.changes >= 4);
});

test("without an answer they are sent again: with the next one, and after a while", async () => {
    const { seen, outbox } = bench();
    seen.away = true;
    await outbox.add(vote("k0"));
    assert.deepEqual([outbox.of("t1").length, outbox.unanswered(), seen.stored], [1, true, []]);
    seen.away = false;
    await outbox.add(vote("k1"));
    assert.deepEqual(seen.stored, [["k0", "left"], ["k1", "left"]]);
    seen.away = true;
    await outbox.add(vote("k2"));
    seen.away = false;
    await until(() => seen.stored.length === 3);
    assert.deepEqual([outbox.of("t1"), outbox.unanswered(), seen.refused], [[], false, []]);
});

test("of a pair only the newest vote counts, and what the server has is remembered", async () => {
    const { seen, outbox } = bench();
    seen.away = true;
    await outbox.add({ ...vote("k0"), before: "tie" });
    await outbox.add(vote("k1"));
    await outbox.add({ ...vote("k0", null), before: "left" });
    assert.deepEqual(outbox.of("t1").map(({ pair, side, before }) => [pair, side, before]), [["k1", "left", null], ["k0", null, "tie"]]);
    seen.away = false;
    await outbox.flush();
    assert.deepEqual(seen.stored, [["k1", "left"], ["k0", null]]);
});

test("a vote that is changed while it is on its way is sent as changed", async () => {
    const { seen, outbox } = bench();
    let open;
    seen.gate = new Promise((done) => (open = done));
    outbox.add(vote("k0"));
    await Promise.resolve();
    const last = outbox.add(vote("k0", "right"));
    open();
    await last;
    assert.deepEqual(seen.stored, [["k0", "left"], ["k0", "right"]]);
    assert.deepEqual(outbox.of("t1"), []);
});

test("a refused vote is told of and does not hold up the others", async () => {
    const { seen, outbox } = bench();
    seen.refuses = "k0";
    outbox.add(vote("k0"));
    await outbox.add(vote("k1"));
    assert.deepEqual([seen.refused, seen.stored, outbox.of("t1")], [[["k0", "no such pair"]], [["k1", "left"]], []]);
});

test("work waits for the votes before it, and an error in it stops nothing", async () => {
    const { seen, outbox } = bench();
    let open;
    seen.gate = new Promise((done) => (open = done));
    outbox.add(vote("k0"));
    const known = outbox.inTurn(() => seen.stored.length);
    const failing = outbox.inTurn(() => Promise.reject(new Error("broken")));
    outbox.add(vote("k1"));
    open();
    assert.ok((await known) >= 1);
    await assert.rejects(failing, /broken/);
    await outbox.flush();
    assert.equal(seen.stored.length, 2);
});

test("votes taken back otherwise are dropped; those of a page that closes are sent at once", async () => {
    const { seen, outbox } = bench();
    seen.away = true;
    await outbox.add(vote("k0"));
    await outbox.add(vote("k1"));
    outbox.drop(outbox.of("t1").slice(0, 1));
    outbox.leave();
    assert.deepEqual(seen.left, [["k1", "left"]]);
    outbox.drop(outbox.of("t1"));
    assert.deepEqual([outbox.of("t1"), outbox.unanswered()], [[], false]);
});

test("where nothing takes another's place, everything is sent in its order", async () => {
    const stored = [];
    const outbox = createOutbox({
        post: async ({ side }) => stored.push(side), onChange: () => {}, onRefused: assert.fail, replaces: () => false,
    });
    outbox.add(vote("k0", "left"));
    outbox.add(vote("k0", "tie"));
    assert.equal(outbox.all().length, 2);
    await outbox.add(vote("k0", "right"));
    await outbox.flush();
    assert.deepEqual(stored, ["left", "tie", "right"]);
});
