/**
 * What the A/B Test node knows, and how each action changes it. No host, no page: runs under Node.
 *
 * From the server (nodes/training/ab_book.py):
 * @typedef {{key: string, prompt: string, left: string, right: string, width: number, height: number,
 *            choice: "left"|"right"|"tie"|null, made: number}} Pair   left and right name pictures; nothing says whose they are;
 *            made = when the vote was given, only to be compared
 * @typedef {{test: string, voter: "person"|"reward", pairs: Pair[], alike: number, blurred: number}} Shown
 * @typedef {{names: string[], voter: string, reward: string, pairs: number, blurred: number, missing: number, votes: number,
 *            a: number, b: number, ties: number, win_rate: number|null, interval: number[], p_value: number,
 *            still_needed: number|null, decision: "A"|"B"|"even"|"open"}} Standing
 *            still_needed: null = too few votes to say
 * @typedef {{prompt: string, seed: number, a: string, b: string, width: number, height: number,
 *            choice: "a"|"b"|"tie"}} Decided
 * @typedef {{test: string, standing: Standing, pairs: Decided[]}} Result
 *
 * Actions:
 * @typedef {{kind: "test", shown: Shown, ran?: boolean, unsent?: object[], unanswered?: boolean}} TestAction   ran = it comes
 *            from a run, which knows of all votes that the server has; unsent, unanswered: see UnsentAction
 * @typedef {{kind: "vote", side: "left"|"right"|"tie"} | {kind: "undo"}} VoteAction
 * @typedef {{kind: "result", result: Result} | {kind: "show", what: "vote"|"result"}} ShowAction
 * @typedef {{kind: "unsent", votes: {pair: string, side: string|null}[], unanswered: boolean}} UnsentAction   votes that the
 *            server may not have; unanswered = it was asked and did not answer
 * @typedef {{kind: "refused", pair: string, before: string|null, text: string}} RefusedAction   a vote that it did not take,
 *            and the choice that it has
 * @typedef {{kind: "failed", text: string}} OtherAction
 *
 * In the state, asked = the result is shown since somebody wants to see it, and not since there is nothing to vote on.
 */

export function initialState() {
    return Object.freeze({
        test: "",
        voter: "person",
        pairs: [],
        alike: 0,
        blurred: 0,
        position: -1,
        history: [],
        result: null,
        showing: "vote",
        asked: false,
        changed: false,
        unsent: [],
        unanswered: false,
        error: "",
    });
}

export function reduce(state, action) {
    switch (action.kind) {
        case "test":
            return withTest(state, action);
        case "vote": {
            const pair = current(state);
            if (!pair || state.voter !== "person" || state.showing !== "vote") return state;
            const voted = withChoice(state, state.position, action.side);
            const history = [...state.history, { key: pair.key, before: pair.choice }];
            const position = nextOpen(voted.pairs, state.position);
            return { ...voted, history, position, showing: position < 0 ? "result" : "vote" };
        }
        case "undo": {
            const last = state.history.at(-1);
            const position = last ? state.pairs.findIndex((pair) => pair.key === last.key) : -1;
            if (position < 0) return state;
            const history = state.history.slice(0, -1);
            return { ...withChoice(state, position, last.before), history, position, showing: "vote", asked: false };
        }
        case "result":
            return action.result.test === state.test ? { ...state, result: action.result } : state;
        case "show": {
            if (action.what === "result") return { ...state, showing: "result", asked: true };
            const position = current(state) ? state.position : nextOpen(state.pairs, -1);
            return { ...state, position, showing: position < 0 ? "result" : "vote", asked: false };
        }
        case "unsent":
            return withUnsent(state, action);
        case "refused":
            return withRefused(state, action);
        case "failed":
            return { ...state, error: action.text };
        default:
            return state;
    }
}

function withTest(state, { shown, ran = false, unsent = [], unanswered = false }) {
    const { test, voter, alike, blurred } = shown;
    const same = test === state.test;
    const sides = new Map(unsent.map(({ pair, side }) => [pair, side]));
    const pairs = shown.pairs.map((pair) => (sides.has(pair.key) ? { ...pair, choice: sides.get(pair.key) } : pair));
    const sent = pairs.filter(({ key, choice }) => choice !== null && !sides.has(key)).sort((one, other) => one.made - other.made);
    const keys = [...sent.map(({ key }) => key), ...[...sides.keys()].filter((key) => sides.get(key) !== null)];
    // What is looked at does not change under somebody's hands; a test whose votes were all taken back begins anew.
    const anew = state.history.length > 0 && keys.length === 0;
    const shownNow = same && !anew ? pairs.findIndex(({ key, choice }) => choice === null && key === current(state)?.key) : -1;
    const position = shownNow >= 0 ? shownNow : nextOpen(pairs, -1);
    const finished = voter === "reward" || position < 0;
    return {
        ...state,
        test,
        voter,
        pairs,
        alike,
        blurred,
        history: same && state.history.length === keys.length ? state.history : keys.map((key) => ({ key, before: null })),
        position,
        result: same ? state.result : null,
        showing: finished || (same && state.asked) ? "result" : "vote",
        asked: same && state.asked,
        changed: sides.size > 0 || (!ran && same && state.changed),
        unsent,
        unanswered,
        error: "",
    };
}

function withUnsent(state, { votes, unanswered }) {
    const answers = state.unanswered && !unanswered;
    return { ...state, unsent: votes, unanswered, error: answers ? "" : state.error };
}

function withRefused(state, { pair: key, before, text }) {
    const position = state.pairs.findIndex((pair) => pair.key === key);
    const newer = state.unsent.some(({ pair }) => pair === key);
    if (position < 0 || newer) return { ...state, error: text };
    const last = state.history.findLastIndex((vote) => vote.key === key);
    return {
        ...withChoice(state, position, before),
        history: state.history.filter((_, index) => index !== last),
        position: state.position < 0 ? position : state.position,
        showing: state.asked ? state.showing : "vote",
        error: text,
    };
}

function withChoice(state, position, choice) {
    const pairs = state.pairs.map((pair, index) => (index === position ? { ...pair, choice } : pair));
    return { ...state, pairs, changed: true, error: "" };
}

/** The pair that is voted on now, or null. */
export function current(state) {
    return state.pairs[state.position] ?? null;
}

/** The first pair without a vote behind `position`, going round; −1 if there is none. */
export function nextOpen(pairs, position) {
    for (let step = 1; step <= pairs.length; step += 1) {
        const place = (position + step) % pairs.length;
        if (pairs[place].choice === null) return place;
    }
    return -1;
}

/** The pairs that come next, for loading their pictures early. */
export function upcoming(state, count = 2) {
    const open = state.pairs.filter((pair, index) => pair.choice === null && index !== state.position);
    return open.slice(0, count);
}

/** What the server is to be told of an action: {pair, side}, or null. */
export function messageOf(before, action) {
    if (action.kind === "vote") {
        const pair = current(before);
        return reduce(before, action) === before ? null : { pair: pair.key, side: action.side };
    }
    if (action.kind === "undo") {
        const last = before.history.at(-1);
        return last ? { pair: last.key, side: last.before } : null;
    }
    return null;
}

export function counts(state) {
    const judged = state.pairs.filter((pair) => pair.choice !== null).length;
    return { judged, total: state.pairs.length, missing: state.pairs.length - judged };
}

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

/** Whether votes are shown that the server did not answer to. */
function isUnsaved(state) {
    return state.unanswered && state.unsent.length > 0;
}

export function isWrong(state) {
    return Boolean(state.error) || isUnsaved(state);
}

/** The line over the pictures. */
export function progressText(state) {
    const { judged, total, missing } = counts(state);
    if (state.voter === "reward") return `${plural(total, "pair")}, judged by a reward`;
    if (!total) return "No pairs to vote on";
    const text = missing ? `${judged} of ${plural(total, "pair")} judged` : `All ${plural(total, "pair")} judged`;
    return isUnsaved(state) ? `${text}, ${state.unsent.length} not saved` : text;
}

/** The line under the pictures: what was set aside, what is to be done, or what went wrong. */
export function noteOf(state) {
    if (isUnsaved(state)) {
        const { length } = state.unsent;
        const votes = length === 1 ? "your vote is" : `${length} votes are`;
        return `The server does not answer; ${votes} not saved yet. Keep this page open.`;
    }
    if (state.error) return state.error;
    const notes = [];
    if (state.blurred) notes.push(`${plural(state.blurred, "pair")} held back by the safety gate.`);
    if (state.alike) notes.push(`${plural(state.alike, "pair")} alike: a tie without a vote.`);
    if (state.voter === "reward") notes.push("To vote yourself, set voter to “person” and press Run.");
    else if (state.unsent.length) notes.push("Saving …");
    else if (state.changed) notes.push("Saved. Press Run to hand the result on.");
    return notes.join(" ");
}

const percent = (share) => `${Math.round(100 * share)} %`;

/** What stands, in words: {headline, decision, lines}. */
export function resultTexts(standing) {
    const [a, b] = standing.names;
    if (standing.win_rate === null) {
        return { headline: "No votes yet", decision: "open", lines: [`${plural(standing.missing, "vote")} missing`] };
    }
    const headlines = { A: `${a} is better`, B: `${b} is better`, even: "Hardly a difference", open: "Still open" };
    const [low, high] = standing.interval;
    const votes = plural(standing.votes, "vote");
    const chance = standing.p_value < 0.001 ? "p < 0.001" : `p = ${Number(standing.p_value.toPrecision(2))}`;
    const lines = [
        `${b} gets ${percent(standing.win_rate)} of ${votes} (95 % interval ${percent(low)} to ${percent(high)})`,
        `${a} ${standing.a} : ${standing.b} ${b}, ${plural(standing.ties, "tie")}`,
        `Chance alone would do as much with ${chance}`,
    ];
    const needed = standing.still_needed;
    if (needed === null) lines.push("Too early to say how many more votes it takes");
    else if (needed) lines.push(`About ${plural(needed, "more vote")} for an answer, at this rate`);
    if ((needed ?? 1) > standing.missing) lines.push("For more votes raise images_per_prompt, or add prompts.");
    return { headline: headlines[standing.decision] ?? "Still open", decision: standing.decision, lines };
}

/** Which vote a key gives: "left", "right", "tie", "undo", "enlarge"; "" for any other. */
export function keyMeaning(key) {
    const keys = { ArrowLeft: "left", ArrowRight: "right", " ": "tie", z: "undo", Z: "undo", Enter: "enlarge" };
    return keys[key] ?? "";
}

export function picturePath(name, { small = false } = {}) {
    return `/attune/ab/picture/${encodeURIComponent(name)}${small ? "?small=1" : ""}`;
}

/** The test in a node's output, or "". */
export function testOf(output) {
    const test = output?.attune_ab?.[0]?.test;
    return typeof test === "string" ? test : "";
}
