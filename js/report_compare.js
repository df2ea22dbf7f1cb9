/**
 * Two branches of a session side by side: the pictures at their ends, what differs in the prompt, scores, and how many rounds
 * each took. A dialog of the page itself. Knows no host.
 */

import { shareText, short } from "./report_state.js";
import { createGrid, diffOf, pictureOf } from "./round_parts.js";
import { button, element, icon } from "./score_gallery_parts.js";

const CAPTION = 60;

/**
 * @param {Document} document
 * @param {{urlOf: (session: string, hash: string, small: boolean) => string, onClose: () => void}} outside
 * @returns {{open: (session: string, compared: object) => void, dispose: () => void}}   compared = the server's document
 */
export function createComparison(document, { urlOf, onClose }) {
    const make = (tag, className, ...children) => element(document, tag, className, ...children);
    const stage = make("div", "attune-report-stage");
    const grid = createGrid(stage, CAPTION);
    const close = button(document, "attune-report-close", "", "Close (Esc)");
    close.setAttribute("aria-label", "Close");
    close.append(icon(document, "cross"));
    const told = make("div", "attune-report-told");
    const top = make("div", "attune-report-top", make("h2", "", "Two branches"), close);
    const dialog = make("dialog", "attune-report-large", stage, make("div", "attune-report-side", top, told));
    dialog.setAttribute("aria-label", "Two branches side by side");
    dialog.tabIndex = -1;

    close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
        dialog.remove();
        grid.show([]);
        onClose();
    });
    // The page behind has shortcuts of its own.
    for (const kind of ["keydown", "keyup"]) dialog.addEventListener(kind, (event) => event.stopPropagation());

    function sideOf(session, round, label) {
        const picture = round.pictures.find(({ chosen }) => chosen) ?? round.pictures[0];
        const image = grid.watch(pictureOf(document, urlOf(session, picture.hash, false)));
        image.alt = `${label}, round ${round.number}`;
        const scores = Object.entries(picture.scores).map(([name, score]) => `${name} ${short(score)}`).join("  ·  ");
        const words = make("span", "attune-report-scores", scores);
        words.title = scores;
        const accepted = round.feedback?.accepted ? ", ✓ this is it" : "";
        const caption = make("figcaption", "", make("span", "", `${label}: round ${round.number}${accepted}`), words);
        return make("figure", "", make("div", "", image), caption);
    }

    return {
        open(session, compared) {
            const { first_end: first, second_end: second, rounds, judge } = compared;
            const row = (label, level, own) => make("li", "", `${label}: ${shareText(own)} of its own${
                level === null ? "" : `, ${judge} ${short(level)}`}`);
            told.replaceChildren(
                make("h3", "", "The prompt, from the first to the second"),
                make("p", "attune-report-diff", ...diffOf(document, compared.diff)),
                make("h3", "", `${shareText(rounds.common)} in common`),
                make("ul", "",
                    row("First", compared.first_level, rounds.first), row("Second", compared.second_level, rounds.second)),
            );
            document.body.append(dialog);
            if (!dialog.open) dialog.showModal();
            dialog.focus();
            grid.show([sideOf(session, first, "First"), sideOf(session, second, "Second")]);
        },
        dispose() {
            grid.dispose();
            if (dialog.open) dialog.close();
            dialog.remove();
        },
    };
}
