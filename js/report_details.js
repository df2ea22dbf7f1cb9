/**
 * One round of the timeline as large as the page: all its pictures, and everything that is known of it. A dialog of the page
 * itself, over everything else. Knows no host.
 */

import { createRating } from "./report_rating.js";
import { beside, factsOf, rewardsOf, short, signed, titleOf, weightsOf } from "./report_state.js";
import { createGrid, diffOf, pictureOf } from "./round_parts.js";
import { button, COLOURS, element, icon } from "./score_gallery_parts.js";

/** Height of what stands below a picture, in pixels. */
const CAPTION = 60;
const ARROWS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"];

/**
 * @param {Document} document
 * @param {{urlOf: (session: string, hash: string, small: boolean) => string, rate: Function, onClose: (key: string) => void}}
 *        outside   rate = see `createRating`; onClose gets the round that was looked at last
 * @returns {{open: (key: string) => void, render: (report: object|null, places: object[]) => void, dispose: () => void}}
 */
export function createDetails(document, { urlOf, rate, onClose }) {
    const make = (tag, className, ...children) => element(document, tag, className, ...children);
    const stage = make("div", "attune-report-stage");
    const grid = createGrid(stage, CAPTION);
    const title = make("h2", "");
    title.setAttribute("aria-live", "polite");
    const close = button(document, "attune-report-close", "", "Close (Esc)");
    close.setAttribute("aria-label", "Close");
    close.append(icon(document, "cross"));
    const step = (name, key, words) => {
        const made = button(document, "attune-report-step", "", words);
        made.setAttribute("aria-label", words);
        made.append(icon(document, name));
        made.addEventListener("click", () => go(beside(places, at, key)));
        return made;
    };
    const before = step("left", "ArrowLeft", "The round before (←)");
    const after = step("right", "ArrowRight", "The round after (→)");
    const told = make("div", "attune-report-told");
    const keys = make("p", "attune-report-keys", "← → rounds  ·  ↑ ↓ branches  ·  Esc close");
    const rating = createRating(document, { rate, onToggle: () => draw() });
    const top = make("div", "attune-report-top", before, after, title, close);
    const side = make("div", "attune-report-side", top, told, rating.root, keys);
    const dialog = make("dialog", "attune-report-large", stage, side);
    dialog.setAttribute("aria-label", "A round of the session");
    dialog.tabIndex = -1;

    let report = null;
    let places = [];
    let at = "";
    let drawn = "";

    close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
        dialog.remove();
        grid.show([]);
        drawn = "";
        onClose(at);
    });
    dialog.addEventListener("keyup", (event) => event.stopPropagation());
    dialog.addEventListener("keydown", (event) => {
        // The page behind has shortcuts of its own.
        event.stopPropagation();
        if (event.ctrlKey || event.metaKey || event.altKey || !ARROWS.includes(event.key)) return;
        event.preventDefault();
        go(beside(places, at, event.key));
    });

    function go(key) {
        at = key;
        draw();
    }

    function cellOf(picture, place) {
        const image = grid.watch(pictureOf(document, urlOf(report.session.key, picture.hash, false)));
        image.alt = `Picture ${place + 1}`;
        // Who rates should not see what somebody else has chosen.
        const mark = rating.on() ? "" : picture.chosen ? "chosen" : picture.liked ? "liked" : picture.disliked ? "disliked" : "";
        const first = ([name]) => (name === report.kpis.judge ? -1 : 0);
        const entries = Object.entries(picture.scores).sort((one, other) => first(one) - first(other));
        const scores = entries.map(([name, score]) => `${name} ${short(score)}`).join("  ·  ");
        const words = make("span", "attune-report-scores", scores || `seed ${picture.seed}`);
        words.title = [scores, `seed ${picture.seed}`].filter(Boolean).join("\n");
        const caption = make("figcaption", "", make("span", "", mark ? `${place + 1}, ${mark}` : String(place + 1)), words);
        return make("figure", mark, make("div", "", image), caption);
    }

    function weightRow({ name, weight, before: was, share }, rewards) {
        const bar = make("i", "");
        bar.style.cssText = `width: ${100 * share}%; background: ${COLOURS[rewards.indexOf(name) % COLOURS.length]}`;
        const figures = was === null ? short(weight) : `${short(was)} → ${short(weight)}`;
        return [make("span", "", name), make("span", "attune-report-track", bar), make("span", "", figures)];
    }

    function draw() {
        const place = places.find(({ round }) => round.key === at);
        if (!place) {
            if (dialog.open) dialog.close();
            return;
        }
        const { round } = place;
        // Stars change while somebody rates: the pictures stay as they are then.
        const seen = (key, value) => (key === "stars" ? null : value);
        const content = JSON.stringify([report.session.key, place, rating.on()], seen);
        if (content === drawn) return rating.refresh(report, round);
        drawn = content;
        stage.classList.toggle("rating", rating.on());
        const cells = round.pictures.map(cellOf);
        rating.rowsOf(report, round).forEach((row, index) => cells[index].append(row));
        rating.refresh(report, round);
        grid.show(cells);
        title.textContent = titleOf({ ...place, round: { ...round, feedback: null } });
        const said = round.feedback;
        const parts = [make("p", "attune-report-diff", ...diffOf(document, round.diff, round.negative))];
        if (said?.accepted) parts.push(make("p", "attune-report-good", "✓ This is it"));
        if (said?.rating) parts.push(make("p", "attune-report-stars", "★".repeat(said.rating) + "☆".repeat(5 - said.rating)));
        if (said?.comment.trim()) {
            const who = said.rater ? make("b", "", `${said.rater}: `) : "";
            parts.push(make("blockquote", "", who, said.comment));
        }
        if (round.level !== null) {
            const gained = round.gain === null ? "" : ` (${signed(round.gain)} to the round before)`;
            parts.push(make("p", "", `${report.kpis.judge} of the choice: ${short(round.level)}${gained}`));
        }
        const rewards = rewardsOf(places);
        const rows = weightsOf(round).flatMap((row) => weightRow(row, rewards));
        if (rows.length) {
            parts.push(make("h3", "", `Weights (${round.weights.rule})`), make("div", "attune-report-weights", ...rows));
        }
        parts.push(make("h3", "", "Made with"), make("ul", "", ...factsOf(round).map((fact) => make("li", "", fact))));
        told.replaceChildren(...parts);
        told.scrollTop = 0;
        // A disabled button loses the focus, and with it the keys.
        const focused = document.activeElement;
        before.disabled = beside(places, at, "ArrowLeft") === at;
        after.disabled = beside(places, at, "ArrowRight") === at;
        if (focused?.disabled) dialog.focus();
    }

    return {
        open(key) {
            if (dialog.open || !places.some(({ round }) => round.key === key)) return;
            at = key;
            document.body.append(dialog);
            dialog.showModal();
            dialog.focus();
            draw();
        },
        render(next, nextPlaces) {
            [report, places] = [next, nextPlaces];
            if (dialog.open) draw();
        },
        dispose() {
            grid.dispose();
            if (dialog.open) dialog.close();
            dialog.remove();
        },
    };
}
