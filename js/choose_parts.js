/**
 * What the Choose Images node and its large view are made of: the pictures of a question, the answers so far. Knows no host.
 */

import { answerTexts, columnsFor, legend, picturePath, verdictText } from "./choose_words.js";
import { MOST_STARS } from "./choose_state.js";
import { button, element } from "./score_gallery_parts.js";

/** Smaller pictures than this are drawn with their pixels' edges, instead of blurred. */
const SMALL = 256;
/** Height of the stars below a picture, in pixels. */
const STARS_HEIGHT = 34;

/**
 * The pictures of the question, as large as fits; each is a button.
 * @param {{onPress: (place: number) => void, onStars: (place: number, stars: number) => void, onMissing: () => void,
 *          urlOf: (path: string) => string, small: boolean, signal: AbortSignal}} outside   small = thumbnails will do
 * @returns {{root: HTMLElement, show: (question: object|null, mark: number) => void, ready: () => boolean,
 *            columns: () => number}} ready = all pictures are seen
 */
export function createStage(document, { onPress, onStars, onMissing, urlOf, small, signal }) {
    const root = element(document, "div", "attune-choose-stage");
    root.setAttribute("role", "group");
    let question = null;
    let cells = [];
    let columns = 1;

    function cellOf(picture, place, { kind, pictures }) {
        const image = element(document, "img", "");
        image.draggable = false;
        image.alt = "";
        image.style.imageRendering = Math.max(picture.width, picture.height) < SMALL ? "pixelated" : "auto";
        image.addEventListener("error", onMissing, { signal });
        image.src = urlOf(picturePath(picture.hash, { small }));
        const number = element(document, "span", "attune-choose-number", String(place + 1));
        const pressed = button(document, "attune-choose-picture", "", "");
        pressed.append(image, number);
        const what = kind === "stars" ? "Mark" : "Choose";
        pressed.setAttribute("aria-label", `${what} picture ${place + 1} of ${pictures.length}`);
        // The second click of a double click would answer the next question.
        pressed.addEventListener("click", (event) => event.detail < 2 && onPress(place), { signal });
        const root = element(document, "div", "attune-choose-cell new", pressed);
        const stars = kind === "stars" ? starsOf(place) : [];
        if (stars.length) {
            const row = element(document, "div", "attune-choose-stars", ...stars);
            row.setAttribute("role", "group");
            row.setAttribute("aria-label", `Stars of picture ${place + 1}`);
            root.append(row);
        }
        return { root, pressed, image, stars, hash: picture.hash };
    }

    function starsOf(place) {
        return Array.from({ length: MOST_STARS }, (_, index) => {
            const star = button(document, "", "★", `${index + 1} of ${MOST_STARS} stars (${index + 1})`);
            star.setAttribute("aria-label", `${index + 1} stars for picture ${place + 1}`);
            star.addEventListener("click", (event) => event.detail < 2 && onStars(place, index + 1), { signal });
            return star;
        });
    }

    function layOut() {
        if (!question || !root.clientWidth) return;
        const { width, height } = question.pictures[0];
        const extra = question.kind === "stars" ? STARS_HEIGHT : 0;
        columns = columnsFor(question.pictures.length, root.clientWidth, root.clientHeight, width / height, { extra });
        root.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
    }

    const watching = new ResizeObserver(layOut);
    watching.observe(root);
    signal.addEventListener("abort", () => watching.disconnect());

    return {
        root,
        show(next, mark) {
            if (next?.key !== question?.key) {
                cells = (next?.pictures ?? []).map((picture, place) => cellOf(picture, place, next));
                root.replaceChildren(...cells.map((cell) => cell.root));
            }
            question = next;
            if (!question) return;
            const { decision } = question;
            cells.forEach(({ root: cell, pressed, stars, hash }, place) => {
                const chosen = decision?.choice === hash;
                cell.classList.toggle("marked", place === mark && question.pictures.length > 1);
                cell.classList.toggle("chosen", chosen);
                if (question.kind !== "stars") pressed.setAttribute("aria-pressed", String(chosen));
                stars.forEach((star, index) => {
                    const given = decision?.stars?.[hash] ?? 0;
                    star.classList.toggle("given", index < given);
                    star.setAttribute("aria-pressed", String(index + 1 === given));
                });
            });
            layOut();
        },
        ready: () => cells.length > 0 && cells.every(({ image }) => image.complete && image.naturalWidth > 0),
        columns: () => columns,
    };
}

/** The answers that are no picture, and for a pair its two sides, each with its keys. */
export function createChoices(document, onMeaning, signal) {
    const made = [
        ["left", ["1", "←"], "Left", "The left picture is better"],
        ["tie", ["Space"], "No difference", "Neither is better"],
        ["right", ["→", "2"], "Right", "The right picture is better"],
        ["skip", ["S"], "Skip", "Says nothing about these pictures"],
    ].map(([meaning, keys, text, title]) => {
        const choice = button(document, "attune-choose-choice", "", title);
        const shown = keys.map((key) => element(document, "kbd", "", key));
        choice.append(...(meaning === "right" ? [text, ...shown] : [...shown, text]));
        choice.dataset.meaning = meaning;
        choice.addEventListener("click", (event) => event.detail < 2 && onMeaning(meaning), { signal });
        return choice;
    });
    const root = element(document, "div", "attune-choose-choices", ...made);
    return {
        root,
        show({ kind, decision }) {
            root.dataset.kind = kind;
            for (const choice of made) {
                const { meaning } = choice.dataset;
                choice.hidden = meaning === "tie" ? kind === "stars" : meaning !== "skip" && kind !== "pair";
                if (meaning === "tie" || meaning === "skip") choice.setAttribute("aria-pressed", String(decision?.choice === meaning));
            }
        },
    };
}

/** What the keys do, in a line. */
export function createLegend(document) {
    const root = element(document, "p", "attune-choose-legend");
    let shown = "";
    return {
        root,
        show(question, large) {
            const entries = legend(question, large);
            const text = JSON.stringify(entries);
            if (text === shown) return;
            shown = text;
            root.replaceChildren(...entries.map(([keys, what]) => {
                const parts = keys.map((key) => (key === "…" ? key : element(document, "kbd", "", key)));
                return element(document, "span", "", ...parts, ` ${what}`);
            }));
        },
    };
}

/**
 * The answers so far: in numbers, and question by question, to look at and to change.
 * @param {{onGo: (key: string) => void, onRun: () => void, onMore: () => void, urlOf: (path: string) => string,
 *          signal: AbortSignal}} outside
 */
export function createAnswers(document, { onGo, onRun, onMore, urlOf, signal }) {
    const make = (tag, className, ...children) => element(document, tag, className, ...children);
    const headline = make("p", "attune-choose-headline");
    const line = make("p", "attune-choose-quiet");
    const run = button(document, "attune-choose-run", "Run again", "Queues the workflow: your choices go on");
    const more = button(document, "attune-choose-plain", "", "Questions of other runs that you have not answered");
    const list = make("ul", "attune-choose-list");
    const head = make("div", "attune-choose-summary", make("div", "", headline, line), run, more);
    const root = make("div", "attune-choose-answers", head, list);
    // Nodes 2.0 gives the wheel to the canvas unless an element says that it wants it.
    list.dataset.captureWheel = "true";
    run.addEventListener("click", onRun, { signal });
    more.addEventListener("click", onMore, { signal });
    list.addEventListener("click", (event) => {
        const card = event.target.closest("button");
        if (card) onGo(card.dataset.question);
    }, { signal });
    let shown = null;

    function cardOf(question) {
        const { pictures, decision, prompt, key } = question;
        const best = decision?.stars ? Math.max(...Object.values(decision.stars)) : 0;
        const pieces = pictures.slice(0, 9).map(({ hash, width, height }) => {
            const image = make("img", "");
            image.loading = "lazy";
            image.alt = "";
            image.style.imageRendering = Math.max(width, height) < SMALL ? "pixelated" : "auto";
            image.src = urlOf(picturePath(hash, { small: true }));
            const stars = decision?.stars?.[hash];
            const won = decision?.choice === hash || (best > 0 && stars === best);
            return make("span", won ? "won" : "", image, ...(stars ? [make("span", "attune-choose-given", "★".repeat(stars))] : []));
        });
        const card = button(document, "attune-choose-card", "", "Answer again");
        const words = { tie: "no difference", skip: "skipped" }[decision?.choice] ?? (question.open ? "not answered" : "");
        card.append(make("span", "attune-choose-row", ...pieces), make("span", "attune-choose-quiet", words || prompt || " "));
        card.dataset.question = key;
        card.classList.toggle("undecided", Boolean(words));
        card.setAttribute("aria-label", `Answer again: ${prompt || "no prompt"}, ${verdictText(question)}`);
        return make("li", "", card);
    }

    return {
        root,
        run,
        render(state, { open, total, earlier, changed }) {
            const texts = answerTexts(state);
            headline.textContent = texts.headline;
            line.textContent = texts.line;
            run.hidden = open > 0 || !total || !changed || state.waits;
            run.disabled = state.queued;
            more.hidden = !earlier || state.queued;
            more.textContent = `${earlier} more from other runs`;
            if (shown === state.shown) return;
            shown = state.shown;
            list.replaceChildren(...shown.map(cardOf));
        },
    };
}
