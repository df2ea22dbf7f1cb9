/**
 * Choose Images in words and keys: what is said, which key does what, how pictures are laid out. Runs under Node.
 */

import { counts, current, isChanged, MOST_STARS } from "./choose_state.js";

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

const isUnsaved = (state) => state.unanswered && state.unsent.length > 0;

export function isWrong(state) {
    return Boolean(state.error) || isUnsaved(state);
}

/** The line over the pictures. */
export function progressText(state) {
    const { answered, total } = counts(state);
    const text = total ? `${answered} of ${total}` : "No questions";
    return isUnsaved(state) ? `${text}, ${state.unsent.length} not saved` : text;
}

/** What is asked. */
export function questionText({ kind, pictures }) {
    if (kind === "stars") return pictures.length > 1 ? "How good is each?" : "How good is it?";
    return kind === "pair" ? "Which do you like better?" : "Which do you like best?";
}

/** The line under the pictures: what went wrong, what is saved, what is to be done. */
export function noteOf(state) {
    if (isUnsaved(state)) {
        const { length } = state.unsent;
        const choices = length === 1 ? "your choice is" : `${length} choices are`;
        return `The server does not answer; ${choices} not saved yet. Keep this page open.`;
    }
    if (state.error) return state.error;
    if (state.queued) return "In the queue …";
    if (state.unsent.length) return "Saving …";
    const notes = [];
    const { open, total } = counts(state);
    if (state.missing) notes.push(`${plural(state.missing, "question")} not kept any more. Press Run to be asked again.`);
    if (state.waits && open) notes.push("The run waits for you: it goes on when all are answered.");
    else if (state.fresh) notes.push("All pictures are new. To hand on what you chose, keep the sampler's seed fixed.");
    else if (total && isChanged(state)) notes.push(open ? "Saved." : "Saved. Run again hands your choices on.");
    return notes.join(" ");
}

/** What the answers come to: {headline, line}. */
export function answerTexts(state) {
    const { total, open } = counts(state);
    if (!total) return { headline: "Nothing to choose", line: "" };
    const done = state.shown.filter((question) => !question.open);
    const having = (test) => done.filter(({ decision }) => test(decision)).length;
    const rated = having(({ stars }) => stars);
    const ties = having(({ choice }) => choice === "tie");
    const skipped = having(({ choice }) => choice === "skip");
    const chosen = done.length - rated - ties - skipped;
    const parts = [[chosen, "chosen"], [rated, "rated"], [ties, "no difference"], [skipped, "skipped"]];
    const line = parts.filter(([count]) => count).map(([count, word]) => `${count} ${word}`).join("  ·  ");
    return { headline: open ? `${open} of ${plural(total, "question")} open` : `All ${total} answered`, line };
}

/** What was said to a question, for those who cannot see it. */
export function verdictText({ decision, pictures, open }) {
    if (open) return "not answered";
    if (decision.stars) return pictures.map(({ hash }, place) => `picture ${place + 1}: ${decision.stars[hash]} stars`).join(", ");
    if (decision.choice === "tie") return "no difference";
    if (decision.choice === "skip") return "skipped";
    return `picture ${pictures.findIndex(({ hash }) => hash === decision.choice) + 1} chosen`;
}

/** What the keys do: [[keys, what], …]; in the node only those that no button shows. */
export function legend(question, large) {
    const shown = large ? [[["S"], "skip"], [["Z"], "undo"], [["Esc"], "close"]] : [[["Enter"], "large view"]];
    if (!question) return large ? shown.slice(1) : [];
    const { kind, pictures } = question;
    const tie = large ? [[["Space"], "no difference"]] : [];
    if (kind === "pair") return [...(large ? [[["1", "←"], "left"], [["2", "→"], "right"]] : []), ...tie, ...shown];
    if (kind === "stars") {
        const arrows = pictures.length > 1 ? [[["←", "→"], "other picture"]] : [];
        return [[["1", "…", String(MOST_STARS)], "stars"], ...arrows, ...shown];
    }
    const numbers = ["1", "…", String(Math.min(9, pictures.length))];
    return [[numbers, "choose"], [["←", "→", "Enter"], "mark, choose"], ...tie, ...shown];
}

/** What a key means, whatever is asked: "" for a key that means nothing. */
export function keyMeaning(key) {
    if (/^[1-9]$/.test(key)) return key;
    const keys = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down", " ": "tie", Enter: "enter" };
    return keys[key] ?? { s: "skip", z: "undo" }[key.toLowerCase()] ?? "";
}

/**
 * What a key's meaning does now: {kind: "say", choice | stars}, {kind: "mark", place}, {kind: "undo"}, {kind: "enlarge"}, or null.
 * @param {number} columns   pictures in a row
 */
export function actionOf(state, meaning, columns = 1) {
    if (meaning === "undo") return { kind: "undo" };
    const question = current(state);
    if (!question) return null;
    const { kind, pictures } = question;
    const choose = (place) => (pictures[place] ? { kind: "say", choice: pictures[place].hash } : null);
    if (/^\d$/.test(meaning)) return kind === "stars" ? rate(state, Number(meaning)) : choose(Number(meaning) - 1);
    if (meaning === "skip") return { kind: "say", choice: "skip" };
    if (meaning === "tie") return kind === "stars" ? null : { kind: "say", choice: "tie" };
    if (meaning === "enter") return kind === "best" && pictures[state.mark] ? choose(state.mark) : { kind: "enlarge" };
    if (kind === "pair") return meaning === "left" ? choose(0) : meaning === "right" ? choose(1) : null;
    const steps = { left: -1, right: 1, up: -columns, down: columns };
    if (!(meaning in steps)) return null;
    const place = state.mark < 0 ? 0 : state.mark + steps[meaning];
    return pictures[place] ? { kind: "mark", place } : null;
}

/** The marked picture, or the one at `place`, gets that many stars. */
export function rate(state, stars, place = state.mark) {
    const picture = current(state)?.pictures[place];
    return picture && stars <= MOST_STARS ? { kind: "say", stars: { [picture.hash]: stars } } : null;
}

/**
 * In how many columns pictures are largest.
 * @param {number} ratio   a picture's width by its height
 * @param {{gap?: number, extra?: number}} [space]   between pictures, and below each, in pixels
 */
export function columnsFor(count, width, height, ratio, { gap = 8, extra = 0 } = {}) {
    let best = 1;
    let largest = -1;
    for (let columns = 1; columns <= count; columns += 1) {
        const rows = Math.ceil(count / columns);
        const across = (width - gap * (columns - 1)) / columns;
        const down = (height - gap * (rows - 1)) / rows - extra;
        const size = Math.min(across, down * ratio);
        if (size > largest + 0.5) [best, largest] = [columns, size];
    }
    return best;
}

export function picturePath(hash, { small = false } = {}) {
    return `/attune/preferences/picture/${encodeURIComponent(hash)}${small ? "?small=1" : ""}`;
}
