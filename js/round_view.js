/**
 * The page inside Commit Round: the session's rounds, the pictures that wait, and what is said of them. Takes the document from
 * outside; knows no host.
 */

import { diffOf, createGrid, pictureOf } from "./round_parts.js";
import { createSessionLine } from "./round_session.js";
import { asked, MOST_STARS, missing, said, shown, timeline, waits } from "./round_state.js";
import { injectStyle } from "./round_style.js";
import { button, element } from "./score_gallery_parts.js";

const HINT = "Press Run: the round's pictures appear here. Choose what you like, say what should change, and press Refine.";

/**
 * @param {Document} document
 * @param {{onAction: (action: object) => void, urlOf: (session: string, hash: string, small: boolean) => string}} outside
 *        onAction gets what `reduce` takes, and {kind: "refine" | "accept" | "again" | "undo" | "redo" | "branch" | "delete"},
 *        {kind: "rename", name}
 * @returns {{root: HTMLElement, render: (state: object) => void, dispose: () => void}}
 */
export function createRoundPage(document, { onAction, urlOf }) {
    injectStyle(document);
    const make = (tag, className, ...children) => element(document, tag, className, ...children);
    const press = (className, text, title, kind) => {
        const made = button(document, className, text, title);
        made.dataset.kind = kind;
        made.addEventListener("click", (event) => event.detail < 2 && onAction({ kind }));
        return made;
    };
    const hint = make("p", "attune-round-hint", HINT);
    const undo = press("attune-round-plain", "Undo", "Takes the last round back: its pictures wait for another answer", "undo");
    const redo = press("attune-round-plain", "Redo", "Takes the last Undo back", "redo");
    const top = createSessionLine(document, onAction, [undo, redo]);
    const line = make("div", "attune-round-line");
    line.setAttribute("role", "group");
    line.setAttribute("aria-label", "The rounds of this session");
    const words = make("p", "attune-round-words");
    const stage = createStage(document, { onAction, urlOf });
    const ask = make("div", "attune-round-ask");
    const comment = make("textarea", "");
    comment.placeholder = "What should change? For example: make the background blue, no hat please";
    comment.setAttribute("aria-label", "What should change");
    comment.addEventListener("input", () => onAction({ kind: "comment", text: comment.value }));
    comment.addEventListener("keydown", (event) => {
        event.stopPropagation();
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) onAction({ kind: "refine" });
    });
    const stars = Array.from({ length: MOST_STARS }, (_, index) => {
        const star = button(document, "", "★", `${index + 1} of ${MOST_STARS} stars for this round`);
        star.setAttribute("aria-label", `${index + 1} stars for this round`);
        star.addEventListener("click", () => onAction({ kind: "rate", stars: index + 1 }));
        return star;
    });
    const row = make("div", "attune-round-stars", ...stars);
    const again = press("attune-round-act", "Other pictures", "Makes other pictures of the same words", "again");
    const accept = press("attune-round-act", "This is it", "The liked picture is what you meant", "accept");
    const refine = press("attune-round-act attune-round-main", "Refine", "Makes the next round from this (Ctrl+Enter)", "refine");
    const branch = press("attune-round-act attune-round-main", "Go on from here", "The next round builds on this one; the others stay", "branch");
    const acts = make("div", "attune-round-acts", row, again, accept, refine, branch);
    const note = make("p", "attune-round-note");
    note.setAttribute("role", "status");
    const parts = [top.root, line, words, stage.root, ask, comment, acts, note];
    const root = make("div", "attune-round widget-expands", hint, ...parts);
    let state = null;

    function stop({ round, kind }) {
        const { session } = state;
        const made = button(document, `attune-round-stop ${kind}`, "", stopTitle(round, kind));
        const place = round.feedback?.liked[0] ?? 0;
        made.append(pictureOf(document, urlOf(session.key, round.pictures[place].hash, true)), make("span", "", String(round.number)));
        made.classList.toggle("accepted", Boolean(round.feedback?.accepted));
        made.setAttribute("aria-current", String(round === shown(state)));
        made.addEventListener("click", () => onAction({ kind: "look", at: round.key }));
        return made;
    }

    function render(next) {
        state = next;
        const round = shown(state);
        hint.hidden = Boolean(state.session);
        hint.textContent = state.error || state.note || HINT;
        for (const part of parts) part.hidden = !state.session;
        if (!state.session) {
            // Nothing of a session that was deleted stays in the page.
            stage.show(null, null, null);
            for (const part of [line, words, ask]) part.replaceChildren();
            comment.value = "";
            return;
        }
        const { session } = state;
        const open = waits(state);
        const own = said(state);
        top.render(state, ` · round ${round?.number ?? session.number}${session.accepted ? " · accepted" : ""}`);
        undo.disabled = Boolean(state.busy) || !session.path.length;
        redo.disabled = Boolean(state.busy) || !session.can_redo;
        line.replaceChildren(...timeline(session).map(stop));
        words.replaceChildren(...(round ? diffOf(document, changesOf(round), round.negative) : []));
        stage.show(session.key, round, own, open);
        const question = asked(state);
        ask.hidden = !question;
        ask.replaceChildren(...(question ? answers(question) : []));
        if (comment.value !== own.comment) comment.value = own.comment;
        comment.disabled = !open;
        comment.hidden = !open && !own.comment;
        stars.forEach((star, index) => {
            star.classList.toggle("given", index < (own.rating ?? 0));
            star.disabled = !open;
        });
        for (const act of [again, refine]) act.hidden = !open;
        accept.hidden = !open;
        branch.hidden = open || !state.at;
        const lacks = missing(state);
        refine.disabled = Boolean(state.busy || lacks);
        accept.disabled = Boolean(state.busy) || !own.liked.length;
        again.disabled = branch.disabled = Boolean(state.busy);
        note.textContent = state.error || state.busy || (open ? lacks : state.at ? "" : "Press Run for the next round.");
        note.classList.toggle("wrong", Boolean(state.error));
    }

    function answers({ round, text, choices }) {
        const given = choices.map(({ label, feedback }) => {
            const made = button(document, "", label, feedback || "Change nothing");
            made.addEventListener("click", () => onAction({ kind: "answer", feedback }));
            return made;
        });
        return [make("span", "", `Round ${round}: ${text}`), ...given];
    }

    return { root, render, dispose: stage.dispose };
}

function stopTitle(round, kind) {
    const what = kind === "open" ? "waits for you" : kind === "other" ? "on another branch" : "";
    return [`Round ${round.number}`, what, round.feedback?.comment].filter(Boolean).join(": ");
}

/** The parts of a round's prompt; all are the same where nothing was changed. */
function changesOf({ changes, prompt }) {
    return changes.length ? changes : [["same", prompt]];
}

/** The pictures of a round, as large as fits. */
function createStage(document, { onAction, urlOf }) {
    const root = element(document, "div", "attune-round-stage");
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", "The pictures of this round");
    let of = "";
    let cells = [];
    const grid = createGrid(root);

    function cellOf(session, picture, place) {
        const image = grid.watch(pictureOf(document, urlOf(session, picture.hash, false)));
        const liked = button(document, "attune-round-picture", "", `I like picture ${place + 1}`);
        liked.append(image);
        liked.setAttribute("aria-label", `Like picture ${place + 1}`);
        liked.addEventListener("click", (event) => event.detail < 2 && onAction({ kind: "like", place }));
        const no = button(document, "attune-round-no", "✕", `Not like picture ${place + 1}`);
        no.setAttribute("aria-label", `Dislike picture ${place + 1}`);
        no.addEventListener("click", () => onAction({ kind: "dislike", place }));
        const number = element(document, "span", "attune-round-number", String(place + 1));
        return { root: element(document, "div", "attune-round-cell", liked, number, no), liked, no };
    }

    return {
        root,
        show(session, round, own, open) {
            const key = round ? `${round.key} ${round.pictures.map(({ hash }) => hash).join()}` : "";
            if (key !== of) {
                of = key;
                cells = (round?.pictures ?? []).map((picture, place) => cellOf(session, picture, place));
                grid.show(cells.map((cell) => cell.root));
            }
            cells.forEach(({ root: cell, liked, no }, place) => {
                cell.classList.toggle("liked", own.liked.includes(place));
                cell.classList.toggle("disliked", own.disliked.includes(place));
                liked.setAttribute("aria-pressed", String(own.liked.includes(place)));
                no.setAttribute("aria-pressed", String(own.disliked.includes(place)));
                no.hidden = !open && !own.disliked.includes(place);
            });
            grid.layOut();
        },
        dispose: grid.dispose,
    };
}
