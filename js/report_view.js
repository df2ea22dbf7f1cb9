/**
 * The timeline inside Session Report: the figures, the rounds as a tree, and what is to be said of them. Takes the document from
 * outside; knows no host.
 */

import { createComparison } from "./report_compare.js";
import { createDetails } from "./report_details.js";
import {
    beside, endsOf, figuresOf, leadOf, notesOf, placesOf, rewardsOf, short, signed, titleOf, weightsOf,
} from "./report_state.js";
import { injectStyle } from "./report_style.js";
import { diffOf, pictureOf } from "./round_parts.js";
import { button, COLOURS, element } from "./score_gallery_parts.js";

const HINT = "The rounds of the session appear here after a run.";
/** Pictures beside the chosen one; of a round without a choice, so many in its place. */
const MOST_OTHERS = 5;
const MOST_EQUAL = 4;

export const colourOf = (rewards, name) => COLOURS[rewards.indexOf(name) % COLOURS.length];

/**
 * @param {Document} document
 * @param {{urlOf: (session: string, hash: string, small: boolean) => string, rate: Function, compare: (session: string, ends:
 *        string[]) => Promise<object>}} outside   rate = see `createRating`; compare = two rounds side by side
 * @returns {{root: HTMLElement, render: (report: object|null, told?: {text: string, wrong: boolean}) => void, dispose: () =>
 *          void}}   told = what stands there without a report
 */
export function createTimeline(document, { urlOf, rate, compare }) {
    injectStyle(document);
    const make = (tag, className, ...children) => element(document, tag, className, ...children);
    const hint = make("p", "attune-round-hint", HINT);
    const name = make("div", "attune-report-name");
    const figures = make("div", "attune-report-figures");
    const rail = make("div", "attune-report-rail");
    rail.setAttribute("role", "group");
    rail.setAttribute("aria-label", "The rounds of this session; arrow keys go from one to the next, Enter shows one large");
    rail.dataset.captureWheel = "across";
    const legend = make("div", "attune-report-legend");
    const notes = make("ul", "attune-report-notes");
    notes.dataset.captureWheel = "true";
    const comparing = button(document, "attune-report-toggle", "Compare branches",
        "Choose the ends of two branches to see them side by side");
    const top = make("div", "attune-report-line", name, comparing);
    const parts = [top, figures, make("div", "attune-report-frame", rail), legend, notes];
    const root = make("div", "attune-report widget-expands", hint, ...parts);
    const details = createDetails(document, { urlOf, rate, onClose: (key) => focus(key) });
    const comparison = createComparison(document, { urlOf, onClose: () => choose(null) });

    let session = "";
    let places = [];
    /** Key of a round → its card, and what it was drawn from. */
    let cards = new Map();
    let rewards = [];
    let judge = "";
    /** Rounds on which none builds; of these the ones chosen for a comparison, null = none is being made. */
    let ends = [];
    let chosen = null;
    /** The round that the Tab key comes to. */
    let at = "";

    function focus(key) {
        at = key;
        for (const [own, { card }] of cards) card.tabIndex = own === at ? 0 : -1;
        cards.get(at)?.card.focus();
        cards.get(at)?.card.scrollIntoView({ block: "nearest", inline: "nearest" });
    }

    /** @param {string[]|null} next   ends to compare; two of them are shown */
    function choose(next) {
        chosen = next;
        drawChoice();
        if (chosen?.length === 2) show(chosen);
        else if (!chosen && !comparing.hidden && comparing.isConnected) comparing.focus();
    }

    async function show(pair) {
        const asked = session;
        try {
            const compared = await compare(asked, pair);
            if (asked === session && chosen === pair) comparison.open(asked, compared);
        } catch (error) {
            choose(null);
            notes.prepend(make("li", "bad", error.message));
        }
    }

    /** Which rounds can be compared, and which are. */
    function drawChoice() {
        comparing.hidden = ends.length < 2;
        comparing.textContent = chosen ? "Choose the other branch's last round" : "Compare branches";
        comparing.setAttribute("aria-pressed", String(Boolean(chosen)));
        rail.classList.toggle("comparing", Boolean(chosen));
        for (const [key, { card }] of cards) {
            card.classList.toggle("end", ends.includes(key));
            card.classList.toggle("compared", Boolean(chosen?.includes(key)));
        }
    }

    comparing.addEventListener("click", () => {
        if (chosen) return choose(null);
        // Of the way that is gone now, then; with two ends there is nothing left to choose.
        const now = ends.filter((key) => places.some(({ round, kind }) => round.key === key && kind === "path"));
        choose(ends.length === 2 ? [...ends] : now.slice(0, 1));
        if (chosen?.length === 1) focus(ends.find((key) => key !== chosen[0]));
    });

    rail.addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        // The keys of the canvas would move or delete nodes.
        if (event.key !== "Tab") event.stopPropagation();
        const next = beside(places, at, event.key);
        if (next === at || next === null) return;
        event.preventDefault();
        focus(next);
    });

    const image = (picture, className) => {
        const made = pictureOf(document, urlOf(session, picture.hash, true), { lazy: true });
        made.className = className;
        return made;
    };

    /** The picture that was chosen, or several of a round without a choice. */
    function leadPart({ pictures }) {
        const { lead } = leadOf({ pictures });
        if (lead >= 0) return make("span", "attune-report-lead", image(pictures[lead], "chosen"));
        const shown = pictures.slice(0, MOST_EQUAL).map((picture) => image(picture, picture.disliked ? "disliked" : ""));
        return make("span", `attune-report-lead ${shown.length > 1 ? "several" : ""}`.trim(), ...shown);
    }

    function otherPart({ pictures }) {
        const { lead, others } = leadOf({ pictures });
        const hidden = lead < 0 ? others.slice(MOST_EQUAL) : others;
        const shown = hidden.slice(0, MOST_OTHERS).map((place) => {
            const { liked, disliked } = pictures[place];
            return image(pictures[place], liked ? "liked" : disliked ? "disliked" : "");
        });
        const left = hidden.length - shown.length;
        return make("span", "attune-report-others", ...shown, ...(left > 0 ? [make("span", "", `+${left}`)] : []));
    }

    function headPart({ round, kind }) {
        const said = round.feedback;
        const marks = [];
        if (kind === "open") marks.push(make("span", "attune-report-mark", "waits for you"));
        if (said?.accepted) marks.push(make("span", "attune-report-mark good", "✓ this is it"));
        else if (said?.rating) marks.push(make("span", "attune-report-stars", "★".repeat(said.rating)));
        // Of a round without a choice it would be the mean of its pictures.
        const gain = round.feedback ? round.gain : null;
        const way = gain > 0 ? "up" : gain < 0 ? "down" : "";
        if (gain !== null) marks.push(make("span", `attune-report-gain ${way}`, signed(gain)));
        return make("span", "attune-report-head", make("b", "", String(round.number)), ...marks);
    }

    function barPart(round) {
        const rows = weightsOf(round).map(({ name: reward, weight, share }) => {
            const part = make("i", weight < 0 ? "minus" : "");
            part.style.cssText = `flex-grow: ${share}; background: ${colourOf(rewards, reward)}`;
            part.title = `${reward}: ${short(weight)}`;
            return part;
        });
        return rows.length ? [make("span", "attune-report-bar", ...rows)] : [];
    }

    function cardOf(place) {
        const { round, kind } = place;
        const card = button(document, `attune-report-card ${kind}`, "", "");
        const comment = round.feedback?.comment.trim();
        const diff = make("span", "attune-report-diff", ...diffOf(document, round.diff));
        const said = comment ? [make("span", "attune-report-said", `“${comment}”`)] : [];
        const known = round.level !== null && kind !== "open";
        const level = known ? [make("span", "attune-report-level", `${short(round.level)} ${judge}`)] : [];
        if (kind === "other") {
            // A branch that was left is shown small.
            const words = make("span", "attune-report-beside", headPart(place), ...(said.length ? said : [diff]));
            card.append(leadPart(round), words);
        } else card.append(headPart(place), leadPart(round), otherPart(round), diff, ...said, ...barPart(round), ...level);
        card.setAttribute("aria-label", titleOf(place));
        card.addEventListener("click", () => {
            at = round.key;
            if (!chosen) details.open(round.key);
            else if (chosen.includes(round.key)) choose(chosen.filter((key) => key !== round.key));
            else if (ends.includes(round.key)) choose([...chosen, round.key]);
        });
        card.classList.toggle("accepted", Boolean(round.feedback?.accepted));
        return card;
    }

    /** The line to a round from the one before it, where that lies in another lane. */
    function elbow(from, to) {
        const line = make("i", "attune-report-elbow");
        line.style.gridArea = `${from.lane + 1} / ${to.column + 1} / ${to.lane + 2} / ${to.column + 2}`;
        line.classList.toggle("low", from.lane > 0);
        return line;
    }

    function drawRail() {
        const before = cards;
        cards = new Map();
        const byKey = new Map(places.map((place) => [place.round.key, place]));
        const lines = [];
        for (const place of places) {
            const { round, kind, column, lane } = place;
            const drawn = JSON.stringify([session, round, kind, judge, rewards]);
            const kept = before.get(round.key);
            const card = kept?.drawn === drawn ? kept.card : cardOf(place);
            card.style.gridArea = `${lane + 1} / ${column + 1}`;
            const parent = byKey.get(round.parent);
            card.classList.toggle("linked", parent?.lane === lane);
            card.tabIndex = -1;
            cards.set(round.key, { card, drawn });
            if (parent && parent.lane !== lane) lines.push(elbow(parent, place));
        }
        const shown = [...lines, ...[...cards.values()].map(({ card }) => card)];
        // What stays in its place keeps the focus.
        const same = shown.length === rail.children.length && shown.every((each, index) => each === rail.children[index]);
        if (!same) rail.replaceChildren(...shown);
        rail.style.setProperty("--lanes", String(Math.max(0, ...places.map(({ lane }) => lane))));
        if (!cards.has(at)) at = places.findLast(({ lane }) => lane === 0)?.round.key ?? "";
        if (cards.has(at)) cards.get(at).card.tabIndex = 0;
    }

    return {
        root,
        render(report, { text = HINT, wrong = false } = {}) {
            hint.hidden = Boolean(report);
            hint.textContent = text;
            hint.classList.toggle("wrong", wrong);
            for (const part of parts) part.hidden = !report;
            if (!report) {
                session = "";
                [places, ends, chosen] = [[], [], null];
                cards = new Map();
                // Nothing of a session that was deleted stays in the page.
                for (const part of [name, figures, rail, legend, notes]) part.replaceChildren();
                name.title = "";
                details.render(null, []);
                return;
            }
            const atEnd = session !== report.session.key || rail.scrollLeft + rail.clientWidth >= rail.scrollWidth - 4;
            const count = cards.size;
            if (session !== report.session.key) chosen = null;
            session = report.session.key;
            ends = endsOf(report);
            // A branch that goes on has another end.
            if (chosen?.some((key) => !ends.includes(key))) chosen = null;
            judge = report.kpis.judge;
            places = placesOf(report);
            rewards = rewardsOf(places);
            const { accepted } = report.kpis;
            name.replaceChildren(report.session.name, make("span", "", ` · ${accepted ? "accepted" : "not accepted yet"}`));
            name.title = report.session.prompt;
            figures.replaceChildren(...figuresOf(report).map(([value, what]) =>
                make("div", "", make("b", "", value), make("span", "", what))));
            drawRail();
            drawChoice();
            legend.replaceChildren(...rewards.map((reward) => {
                const dot = make("i", "");
                dot.style.background = colourOf(rewards, reward);
                return make("span", "", dot, reward);
            }));
            legend.hidden = !rewards.length;
            notes.replaceChildren(...notesOf(report).map(({ kind, text: words }) => make("li", kind, words)));
            details.render(report, places);
            // The newest round is in sight, unless somebody looks at earlier ones.
            if (atEnd && cards.size !== count) rail.scrollLeft = rail.scrollWidth;
        },
        dispose() {
            details.dispose();
            comparison.dispose();
        },
    };
}
