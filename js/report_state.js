/**
 * What the timeline of Session Report shows, from the report's document (nodes/refinement/report.py). Pure; runs under Node.
 *
 * @typedef {{key: string, parent: string|null, number: number, prompt: string, negative: string, diff: [string, string][],
 *           pictures: {hash: string, seed: string, scores: Object<string, number>, liked: boolean, disliked: boolean, chosen:
 *           boolean}[], weights: {rule: string, before: Object<string, number>, after: Object<string, number>}|null, feedback:
 *           {comment: string, rating: number|null, accepted: boolean}|null, level: number|null, gain: number|null}} Round
 * @typedef {{round: Round, kind: "path"|"open"|"other", column: number, lane: number}} Place   lane 0 = the way to the last round
 */

const SETTINGS = Object.freeze({ judge: "", most_rounds: "", figures: "" });

/** What the node's properties hold of its session; null if it is nothing of ours. */
export function keyOf(value) {
    return /^[0-9a-f]{32}$/.test(value?.key ?? "") ? value.key : null;
}

/** Where the report is asked for, as the node's widgets say. */
export function reportPath(key, { judge, most_rounds, figures } = SETTINGS) {
    const asked = new URLSearchParams({ judge, most_rounds, all: figures === "all sessions" ? "1" : "" });
    return `/attune/refinement/report/${key}?${asked}`;
}

/**
 * The rounds as a tree lies: columns by their number, the way in the first lane, every other branch in the first lane with room.
 * @returns {Place[]}   the way, what waits, then the others, parents before children
 */
export function placesOf(report) {
    const byKey = new Map(report.rounds.map((round) => [round.key, round]));
    const places = new Map();
    const put = (round, kind, lane) => places.set(round.key, { round, kind, column: round.number - 1, lane });
    for (const key of report.path) put(byKey.get(key), "path", 0);
    if (report.open) put(report.open, "open", 0);
    const taken = [];
    for (const { rounds } of report.branches) {
        const own = rounds.map((key) => byKey.get(key)).filter((round) => !places.has(round.key));
        if (!own.length) continue;
        const [from, to] = [own[0].number - 1, own.at(-1).number - 1];
        // A column is left free before it, through which its line comes down.
        let lane = 1;
        while (taken.some((other) => other.lane === lane && from - 1 <= other.to && other.from - 1 <= to)) lane += 1;
        taken.push({ lane, from, to });
        for (const round of own) put(round, "other", lane);
    }
    return [...places.values()];
}

/** Where an arrow key leads from a round; itself where there is nothing. */
export function beside(places, key, arrow) {
    const here = places.find(({ round }) => round.key === key);
    if (!here) return places[0]?.round.key ?? null;
    const nearest = (found) => found.sort((one, other) => Math.abs(one.lane - here.lane) - Math.abs(other.lane - here.lane))[0];
    const found = {
        ArrowLeft: () => places.find(({ round }) => round.key === here.round.parent),
        ArrowRight: () => nearest(places.filter(({ round }) => round.parent === key)),
        ArrowUp: () => nearest(places.filter(({ column, lane }) => column === here.column && lane < here.lane)),
        ArrowDown: () => nearest(places.filter(({ column, lane }) => column === here.column && lane > here.lane)),
        Home: () => places[0],
        End: () => places.findLast(({ lane }) => lane === 0),
    }[arrow]?.();
    return (found ?? here).round.key;
}

/** A number as short as it is worth, with a real minus sign. */
export function short(value) {
    if (value === null || value === undefined || !Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    const far = size !== 0 && (size >= 10_000 || size < 0.001);
    const text = far ? value.toExponential(1) : String(Number(value.toPrecision(3)));
    return text.replace("-", "−");
}

/** A gain: two digits tell it. */
export function signed(value) {
    const rounded = Number(value.toPrecision(2));
    return rounded > 0 ? `+${short(rounded)}` : rounded === 0 ? "±0" : short(rounded);
}

/** The figures over the rounds: [value, what it is]. */
export function figuresOf({ kpis, several }) {
    const figures = [
        [String(kpis.rounds), kpis.rounds === 1 ? "round" : "rounds"],
        [kpis.rounds_to_accept === null ? "–" : String(kpis.rounds_to_accept), "to accept"],
        [String(kpis.regenerations), kpis.regenerations === 1 ? "retry" : "retries"],
        [kpis.satisfaction === null ? "–" : `${kpis.satisfaction.toFixed(1)} ★`, "rating"],
        [kpis.seconds_per_round === null ? "–" : `${short(kpis.seconds_per_round)} s`, "per round"],
        [String(kpis.pictures), "pictures"],
    ];
    if (several) figures.push([`${several.accepted}/${several.sessions}`, "accepted"]);
    return figures;
}

/** What is said below the rounds: {kind: "warn" | "bad" | "", text}. */
export function notesOf({ kpis, fairness, agreement, audit, several }) {
    const notes = [];
    if (!audit.sound) notes.push({ kind: "bad", text: `Something on record was changed afterwards: ${audit.problems.join(" ")}` });
    if (!kpis.accepted) notes.push({ kind: kpis.advice === "go on" ? "" : "warn", text: kpis.reason });
    notes.push({ kind: fairness.warns ? "warn" : "", text: fairness.words });
    if (agreement.units) notes.push({ kind: "", text: agreementText(agreement) });
    if (several) notes.push(...[several, ...several.tests].map(({ words }) => ({ kind: "", text: words })));
    return notes;
}

/** How far raters agree, in words. */
export function agreementText({ alpha, raters, units, words }) {
    if (alpha === null || alpha === undefined) return words;
    return `Krippendorff's alpha ${alpha.toFixed(2)}, of ${raters} raters and ${units} pictures. ${words}`;
}

/** Keys of the rounds on which none builds, which can be compared; none where there is one way only. */
export function endsOf({ branches }) {
    return branches.length > 1 ? branches.map(({ rounds }) => rounds.at(-1)) : [];
}

/** A number of rounds in words. */
export function shareText(rounds) {
    return rounds === 1 ? "1 round" : `${rounds} rounds`;
}

/** Where two ends are asked for, by the judge that the node's widget names. */
export function comparePath(session, [one, other], { judge } = SETTINGS) {
    return `/attune/refinement/compare/${session}/${one}/${other}?${new URLSearchParams({ judge })}`;
}

/** The rewards that were weighed on any round, in order: their places are their colours. */
export function rewardsOf(places) {
    return [...new Set(places.flatMap(({ round }) => Object.keys(round.weights?.after ?? {})))];
}

/** A round's weights: what share of the bar each has, 0 … 1, and its value before. */
export function weightsOf({ weights }) {
    const after = Object.entries(weights?.after ?? {});
    const sum = after.reduce((total, [, weight]) => total + Math.abs(weight), 0);
    return after.map(([name, weight]) => ({
        name, weight, before: weights.before[name] ?? null, share: sum ? Math.abs(weight) / sum : 0,
    }));
}

/** The picture that the round is known by first, then the others in order; of a round without a choice all are equal. */
export function leadOf({ pictures }) {
    const lead = pictures.findIndex(({ chosen }) => chosen);
    return { lead, others: pictures.map((_, place) => place).filter((place) => place !== lead) };
}

/** How a round is called, for those who do not see it. */
export function titleOf({ round, kind }) {
    const said = round.feedback;
    const parts = [`Round ${round.number}`];
    if (kind === "other") parts.push("on another branch");
    if (kind === "open") parts.push("waits for an answer");
    if (said?.accepted) parts.push("accepted");
    if (said?.rating) parts.push(`${said.rating} stars`);
    if (said?.comment) parts.push(`“${said.comment.slice(0, 80)}”`);
    return parts.join(", ");
}

/** How the round was sampled, in a line. */
export function factsOf({ schedule, seconds, regenerations, version }) {
    const { type, steps, strength, guidance } = schedule;
    const facts = [`${type}, ${steps} steps, strength ${short(strength)}, guidance ${short(guidance)}`];
    facts.push(`${schedule.sampler}, ${schedule.fresh ? "fresh noise" : "the last round's noise"}`);
    facts.push(`made in ${short(seconds)} s`);
    if (schedule.arm) facts.push(`arm ${schedule.arm}${schedule.test ? ` of “${schedule.test}”` : ""}`);
    if (version) facts.push(`with the session's own LoRA, version ${version.slice(0, 12)}`);
    if (regenerations) facts.push(`other pictures asked for ${regenerations}×`);
    return facts;
}
