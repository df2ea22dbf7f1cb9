/**
 * The picker: a question with its pictures, or the answers so far; in the node, and as large as the page. Takes the document
 * from outside; knows no host.
 */

import { listenToKeys } from "./ab_parts.js";
import { createAnswers, createChoices, createLegend, createStage } from "./choose_parts.js";
import { counts, current, isChanged, newest, upcoming } from "./choose_state.js";
import { injectStyle } from "./choose_style.js";
import { actionOf, isWrong, keyMeaning, noteOf, picturePath, progressText, questionText, rate } from "./choose_words.js";
import { button, element, icon } from "./score_gallery_parts.js";

const HINT = "Press Run: the pictures appear here, and you say which you like better.";
const GONE = "A picture is not kept any more. Press Run, and it is there again; or skip it.";

/**
 * @param {Document} document
 * @param {{onAction: (action: object) => void, urlOf: (path: string) => string}} outside   onAction gets what `reduce` takes,
 *        and {kind: "say", choice | stars}, {kind: "undo"}, {kind: "run"}, {kind: "more"}
 * @returns {{root: HTMLElement, render: (state: object) => void, dispose: () => void}}
 */
export function createPicker(document, { onAction, urlOf }) {
    injectStyle(document);
    const listening = new AbortController();
    const { signal } = listening;
    const outside = { onAction, urlOf, signal };
    const hint = element(document, "p", "attune-choose-hint", HINT);
    const inside = createPanel(document, { ...outside, large: false, onSize: () => open() });
    const over = createPanel(document, { ...outside, large: true, onSize: () => dialog.close() });
    // Nodes 2.0 lets a widget of this class grow with its node.
    const root = element(document, "div", "attune-choose widget-expands", hint, ...inside.parts);
    root.tabIndex = 0;
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", "Choose images by keys; Enter shows them large");
    const dialog = element(document, "dialog", "attune-choose-large", ...over.parts);
    dialog.setAttribute("aria-label", "Choose images");
    dialog.tabIndex = -1;
    const focus = () => root.focus({ preventScroll: true });
    let state = null;

    inside.listen(root, focus);
    over.listen(dialog, () => dialog.focus());
    root.addEventListener("pointerdown", (event) => event.target.closest("button") || focus(), { signal });
    dialog.addEventListener("close", () => {
        dialog.remove();
        over.render(null);
        focus();
    }, { signal });

    function open() {
        if (dialog.open || !state?.profile) return;
        document.body.append(dialog);
        dialog.showModal();
        dialog.focus();
        over.render(state);
    }

    function render(next) {
        state = next;
        root.classList.toggle("empty", !state.profile);
        hint.textContent = state.profile ? "" : state.error || HINT;
        inside.render(state.profile ? state : null);
        if (dialog.open && !state.profile) dialog.close();
        else if (dialog.open) over.render(state);
        for (const { pictures } of upcoming(state)) {
            for (const { hash } of pictures) {
                new document.defaultView.Image().src = urlOf(picturePath(hash, { small: !dialog.open }));
            }
        }
    }

    function dispose() {
        listening.abort();
        if (dialog.open) dialog.close();
        dialog.remove();
    }

    return { root, render, dispose };
}

/** What the node and the large view both show. */
function createPanel(document, { onAction, urlOf, signal, large, onSize }) {
    const make = (tag, className, ...children) => element(document, tag, className, ...children);
    const text = make("span", "");
    text.setAttribute("aria-live", "polite");
    const name = make("span", "attune-choose-name");
    const fill = make("div", "");
    const progress = make("div", "attune-choose-progress", make("div", "", text, name), make("div", "attune-choose-bar", fill));
    const toggle = button(document, "attune-choose-plain", "", "");
    const size = button(document, "attune-choose-plain", large ? "" : "Large view", large ? "Close (Esc)" : "As large as the page (Enter)");
    if (large) {
        size.className = "attune-choose-close";
        size.setAttribute("aria-label", "Close");
        size.append(icon(document, "cross"));
    }
    const top = make("div", "attune-choose-top", progress, toggle, size);
    const asks = make("span", "attune-choose-quiet");
    const prompt = make("span", "");
    const words = make("p", "attune-choose-words", asks, prompt);
    const stage = createStage(document, {
        onPress: (place) => press(place),
        onStars: (place, stars) => act(rate(state, stars, place)),
        onMissing: () => onAction({ kind: "failed", text: GONE }),
        urlOf, small: !large, signal,
    });
    const choices = createChoices(document, (meaning) => meant(meaning), signal);
    const answers = createAnswers(document, {
        onGo: (question) => act({ kind: "go", question }),
        onRun: () => run(),
        onMore: () => act({ kind: "more" }),
        urlOf, signal,
    });
    const legend = createLegend(document);
    const note = make("p", "attune-choose-note");
    note.setAttribute("role", "status");
    const undo = button(document, "attune-choose-plain", "Undo ", "Takes your last answer back (Z)");
    undo.append(make("kbd", "", "Z"));
    const foot = make("div", "attune-choose-foot", note, undo);
    const parts = [top, words, stage.root, choices.root, answers.root, legend.root, foot];
    let state = null;
    let refocus = () => {};

    toggle.addEventListener("click", () => act({ kind: "show", what: state.showing === "ask" ? "answers" : "ask" }), { signal });
    undo.addEventListener("click", () => meant("undo"), { signal });
    size.addEventListener("click", onSize, { signal });

    function run() {
        if (large) onSize();
        onAction({ kind: "run" });
    }

    function press(place) {
        const question = current(state);
        if (question?.kind === "stars") act({ kind: "mark", place });
        else if (question) act({ kind: "say", choice: question.pictures[place].hash });
    }

    function meant(meaning) {
        if (state) act(actionOf(state, meaning, stage.columns()));
    }

    function act(action) {
        if (!action || !state) return;
        if (action.kind === "enlarge") {
            if (!large) onSize();
            return;
        }
        // An opinion of a picture that is not there yet would be one of nothing.
        const opinion = action.kind === "say" && action.choice !== "skip";
        if (!opinion || stage.ready()) onAction(action);
        // The button that was pressed may be gone, and the keys with it.
        const done = !current(state) && !answers.run.hidden;
        if (done && large) answers.run.focus();
        else refocus();
    }

    function render(next) {
        state = next;
        for (const part of parts) part.hidden = !state;
        if (!state) {
            stage.show(null, -1);
            return;
        }
        const question = current(state);
        const { answered, total, earlier, open } = counts(state);
        for (const part of [words, stage.root, choices.root]) part.hidden = !question;
        answers.root.hidden = Boolean(question);
        text.textContent = progressText(state);
        name.textContent = state.profile.name;
        fill.style.width = `${total ? (100 * answered) / total : 0}%`;
        toggle.hidden = question ? !answered : !open;
        toggle.textContent = question ? "Answers" : "Go on choosing";
        toggle.title = question ? "What you have said so far, to look at and to change" : "";
        if (!large) size.hidden = !question;
        if (question) {
            asks.textContent = questionText(question);
            prompt.textContent = words.title = question.prompt;
            stage.root.setAttribute("aria-label", `${questionText(question)} ${question.prompt}`);
            choices.show(question);
        } else {
            answers.render(state, { open, total, earlier, changed: isChanged(state) });
        }
        legend.show(question, large);
        // Last, since it measures the room that the others leave.
        stage.show(question, state.mark);
        note.textContent = noteOf(state);
        note.classList.toggle("wrong", isWrong(state));
        undo.disabled = !newest(state);
    }

    return {
        parts,
        render,
        listen(root, focus) {
            refocus = focus;
            listenToKeys(root, meant, signal, keyMeaning);
        },
    };
}
