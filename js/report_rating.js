/**
 * "Rate as …" in a round that is looked at: several people give stars to the same pictures, one after the other, so that the
 * report can say how far they agree. While somebody rates, scores, choices and others' stars are out of sight. Knows no host.
 */

import { agreementText } from "./report_state.js";
import { button, element } from "./score_gallery_parts.js";

const STARS = [1, 2, 3, 4, 5];
/** Letters of a rater's name, as the store takes them. */
const LONGEST_NAME = 200;

/**
 * @param {Document} document
 * @param {{rate: (session: string, round: string, rater: string, stars: Object<string, number>) => Promise<any>, onToggle: () =>
 *        void}} outside
 * @returns {{root: HTMLElement, on: () => boolean, rowsOf: (report: object, round: object) => HTMLElement[], refresh: (report:
 *          object, round: object) => void}}   rowsOf = of stars, one per picture; refresh = what they and the agreement show
 */
export function createRating(document, { rate, onToggle }) {
    const make = (tag, className, ...children) => element(document, tag, className, ...children);
    const toggle = button(document, "attune-report-toggle", "Rate as …",
        "Several people give stars to these pictures: the report then says how far they agree");
    toggle.setAttribute("aria-expanded", "false");
    const name = make("input", "attune-report-rater");
    name.type = "text";
    name.maxLength = LONGEST_NAME;
    name.placeholder = "who rates";
    name.setAttribute("aria-label", "Name of who rates");
    const note = make("p", "attune-report-agreement");
    note.setAttribute("role", "status");
    const keys = make("p", "attune-report-keys", "Tab comes to each picture; 1 … 5 give its stars.");
    const open = make("div", "attune-report-raters", name, keys, note);
    open.hidden = true;
    const root = make("div", "attune-report-rating", toggle, open);

    let rows = [];
    let shown = null;
    let told = "";
    let wrong = "";

    const who = () => name.value.trim();

    toggle.addEventListener("click", () => {
        open.hidden = !open.hidden;
        toggle.setAttribute("aria-expanded", String(!open.hidden));
        wrong = "";
        say();
        onToggle();
        if (!open.hidden) name.focus();
    });
    name.addEventListener("input", () => {
        wrong = "";
        say();
        mark();
    });
    // Arrows move in the text, not to other rounds.
    name.addEventListener("keydown", (event) => event.key !== "Escape" && event.key !== "Tab" && event.stopPropagation());

    function say() {
        note.textContent = wrong || told;
        note.classList.toggle("bad", Boolean(wrong));
    }

    /** The stars that this person gave. */
    function mark() {
        rows.forEach((row, place) => {
            const given = shown?.pictures[place]?.stars?.[who()] ?? 0;
            [...row.children].forEach((star, index) => {
                star.textContent = index < given ? "★" : "☆";
                star.setAttribute("aria-pressed", String(index + 1 === given));
                star.tabIndex = index + 1 === (given || 1) ? 0 : -1;
            });
        });
    }

    async function give(session, round, place, stars) {
        if (!who()) {
            wrong = "Type who rates first.";
            say();
            name.focus();
            return;
        }
        wrong = "";
        try {
            await rate(session, round, who(), { [place]: stars });
        } catch (error) {
            wrong = error.message;
        }
        say();
    }

    function rowOf(session, round, place) {
        const row = make("span", "attune-report-give", ...STARS.map((stars) => {
            const star = button(document, "", "☆", `${stars} of 5 stars`);
            star.setAttribute("aria-label", `Picture ${place + 1}: ${stars} of 5 stars`);
            star.addEventListener("click", () => give(session, round.key, place, stars));
            return star;
        }));
        row.setAttribute("role", "group");
        row.setAttribute("aria-label", `Stars for picture ${place + 1}`);
        row.addEventListener("keydown", (event) => {
            const at = [...row.children].indexOf(document.activeElement);
            const digit = STARS.indexOf(Number(event.key));
            const next = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: STARS.length - 1 }[event.key] ?? digit;
            if (event.ctrlKey || event.metaKey || event.altKey || (next < 0 && event.key !== "ArrowLeft")) return;
            event.preventDefault();
            event.stopPropagation();
            row.children[next]?.focus();
            if (digit >= 0) row.children[digit].click();
        });
        return row;
    }

    return {
        root,
        on: () => !open.hidden,
        rowsOf(report, round) {
            rows = open.hidden ? [] : round.pictures.map((_, place) => rowOf(report.session.key, round, place));
            shown = round;
            mark();
            return rows;
        },
        refresh(report, round) {
            told = agreementText(report.agreement);
            say();
            shown = round;
            mark();
        },
    };
}
