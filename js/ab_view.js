/**
 * The A/B Test's elements inside its node: a pair to vote on, or what stands. Takes the document from outside; knows no host.
 */

import { createLarge } from "./ab_large.js";
import { createChoices, createStage, listenToKeys } from "./ab_parts.js";
import { counts, current, isWrong, noteOf, picturePath, progressText, resultTexts, upcoming } from "./ab_state.js";
import { injectStyle } from "./ab_style.js";
import { button, element } from "./score_gallery_parts.js";

const HINT = "Press Run: the pictures of both models appear here in pairs. Nobody says which is which; you choose.";

/**
 * @param {Document} document
 * @param {{onAction: (action: object) => void, onForget: () => void, urlOf: (path: string) => string}} outside
 *        onAction gets what `reduce` takes; onForget = all votes are to be taken back, after asking
 * @returns {{root: HTMLElement, render: (state: object) => void, dispose: () => void}}
 */
export function createTest(document, { onAction, onForget, urlOf }) {
    injectStyle(document);
    const make = (tag, className, ...children) => element(document, tag, className, ...children);
    const listening = new AbortController();
    const { signal } = listening;
    const addressOf = (name) => urlOf(picturePath(name));
    const missing = "A picture is not kept any more. Press Run, and it is drawn again.";
    const onMissing = () => onAction({ kind: "failed", text: missing });

    const hint = make("p", "attune-ab-hint", HINT);
    const words = make("p", "attune-ab-words");
    const text = make("span", "");
    text.setAttribute("aria-live", "polite");
    const fill = make("div", "");
    const toggle = button(document, "attune-ab-plain", "Result", "");
    const progress = make("div", "attune-ab-progress", text, make("div", "attune-ab-bar", fill));
    const top = make("div", "attune-ab-top", progress, toggle);
    const stage = createStage(document, addressOf, { label: "Enlarge (Enter)", onPress: () => large.open(), onMissing, signal });
    const choices = createChoices(document, (side) => meant(side, stage.ready()), signal);
    const result = createResult(document, {
        thumbnailOf: (name) => urlOf(picturePath(name, { small: true })),
        onLook: (place) => large.open(place),
        signal,
    });
    const note = make("p", "attune-ab-note");
    note.setAttribute("role", "status");
    const undo = button(document, "attune-ab-plain", "Undo", "Takes your last vote back (Z)");
    const forget = button(document, "attune-ab-plain", "Start over", "Takes back all votes of this test");
    const foot = make("div", "attune-ab-foot", note, undo, forget);
    // Nodes 2.0 lets a widget of this class grow with its node.
    const root = make("div", "attune-ab widget-expands", hint, top, stage.root, words, choices, result.root, foot);
    root.tabIndex = 0;
    root.setAttribute("aria-label", "Blind test: arrow keys choose, Space for no difference, Z takes back");
    const focus = () => root.focus({ preventScroll: true });
    const large = createLarge(document, { onMeaning: meant, onMissing, addressOf, onClose: focus });

    let state = null;
    let sure = 0;

    toggle.addEventListener("click", () => {
        onAction({ kind: "show", what: state.showing === "vote" ? "result" : "vote" });
        focus();
    }, { signal });
    undo.addEventListener("click", () => meant("undo"), { signal });
    forget.addEventListener("click", () => {
        // Asked for a second time, within a while: a dialog would stop the page.
        if (document.defaultView.performance.now() < sure) onForget();
        sure = sure ? 0 : document.defaultView.performance.now() + 4000;
        forget.textContent = sure ? "Really?" : "Start over";
    }, { signal });
    forget.addEventListener("blur", calm, { signal });
    root.addEventListener("pointerdown", (event) => event.target.closest("button") || focus(), { signal });
    listenToKeys(root, (meaning) => (meaning === "enlarge" ? enlarge() : meant(meaning, stage.ready())), signal);

    function calm() {
        sure = 0;
        forget.textContent = "Start over";
    }

    function enlarge() {
        if (state.showing === "vote" && current(state)) large.open();
    }

    function meant(meaning, ready = false) {
        if (meaning === "undo") onAction({ kind: "undo" });
        // A vote on a picture that is not there yet would be a vote on nothing.
        else if (ready && state.showing === "vote") onAction({ kind: "vote", side: meaning });
        // The button that was pressed may be gone, and the keys with it.
        if (!large.isOpen()) focus();
    }

    function render(next) {
        const fresh = state?.test !== next.test;
        state = next;
        const pair = current(state);
        const voting = state.showing === "vote" && Boolean(pair);
        const { judged, total } = counts(state);
        hint.hidden = Boolean(state.test);
        for (const part of [top, foot]) part.hidden = !state.test;
        for (const part of [stage.root, words, choices]) part.hidden = !state.test || !voting;
        result.root.hidden = !state.test || voting;
        text.textContent = progressText(state);
        fill.parentElement.hidden = state.voter === "reward";
        fill.style.width = `${total ? (100 * judged) / total : 0}%`;
        toggle.hidden = state.voter === "reward" || (!voting && !pair);
        toggle.textContent = voting ? "Result" : "Go on voting";
        toggle.title = voting ? "What stands so far; pairs without a vote stay blind" : "";
        stage.show(voting ? pair : null);
        words.textContent = words.title = voting ? pair.prompt : "";
        if (voting) {
            for (const { left, right } of upcoming(state)) {
                for (const name of [left, right]) new document.defaultView.Image().src = addressOf(name);
            }
        }
        result.render(state.result);
        note.textContent = noteOf(state);
        note.classList.toggle("wrong", isWrong(state));
        undo.hidden = forget.hidden = state.voter === "reward";
        undo.disabled = !state.history.length;
        forget.disabled = !judged;
        if (fresh) calm();
        large.render(state);
    }

    function dispose() {
        listening.abort();
        large.dispose();
    }

    return { root, render, dispose };
}

/** What stands: the headline, the win rate on a line from A to B, and the decided pairs, A left and B right. */
function createResult(document, { thumbnailOf, onLook, signal }) {
    const make = (tag, className, ...children) => element(document, tag, className, ...children);
    const headline = make("p", "attune-ab-headline");
    const range = make("div", "attune-ab-scale-range");
    const dot = make("div", "attune-ab-scale-dot");
    const ends = [make("span", ""), make("span", "")];
    ends[0].style.left = ends[1].style.right = "0";
    const [track, half] = ["track", "half"].map((part) => make("div", `attune-ab-scale-${part}`));
    const scale = make("div", "attune-ab-scale", track, range, half, dot, ...ends);
    const lines = make("div", "attune-ab-lines");
    const pairs = make("ul", "attune-ab-pairs");
    const root = make("div", "attune-ab-result", headline, scale, lines, pairs);
    // Nodes 2.0 gives the wheel to the canvas unless an element says that it wants it.
    root.dataset.captureWheel = "true";
    let shown;

    pairs.addEventListener("click", (event) => {
        const card = event.target.closest("button")?.closest("li");
        if (card) onLook([...pairs.children].indexOf(card));
    }, { signal });

    function cardOf({ prompt, seed, a, b, choice }, names) {
        const pictures = ["a", "b"].map((side, index) => {
            const image = make("img", "");
            image.loading = "lazy";
            image.alt = "";
            image.src = thumbnailOf({ a, b }[side]);
            const verdict = choice === side ? "won" : choice === "tie" ? "tie" : "";
            const place = button(document, verdict, "", `${names[index]}${verdict === "won" ? ": preferred" : ""}`);
            place.append(image);
            place.setAttribute("aria-label", `Enlarge ${place.title}, ${prompt}, seed ${seed}`);
            return place;
        });
        const words = make("p", "", prompt);
        words.title = prompt;
        return make("li", "attune-ab-decided", ...pictures, ...names.map((name) => make("span", "", name)), words);
    }

    function render(result) {
        if (result === shown) return;
        shown = result;
        if (!result) {
            headline.textContent = "…";
            for (const part of [scale, lines, pairs]) part.hidden = true;
            return;
        }
        const { standing } = result;
        const texts = resultTexts(standing);
        headline.textContent = texts.headline;
        root.dataset.decision = texts.decision;
        lines.hidden = pairs.hidden = false;
        scale.hidden = standing.win_rate === null;
        if (standing.win_rate !== null) {
            const [low, high] = standing.interval;
            range.style.left = `${100 * low}%`;
            range.style.width = `${100 * (high - low)}%`;
            dot.style.left = `${100 * standing.win_rate}%`;
            standing.names.forEach((name, index) => (ends[index].textContent = `always ${name}`));
        }
        lines.replaceChildren(...texts.lines.map((line) => make("p", "", line)));
        pairs.replaceChildren(...result.pairs.map((pair) => cardOf(pair, standing.names)));
    }

    return { root, render };
}
