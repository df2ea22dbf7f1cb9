/**
 * The state of a Commit Round page: the session as the server has it, and what a person is about to say. Pure; runs under Node.
 *
 * @typedef {{key: string, name: string, revision: number, number: number, attempt: number, prompt: string, accepted: boolean,
 *           path: string[], rounds: Round[], open: Round|null, can_redo: boolean}} Session   as `views.session_view` gives it
 * @typedef {{key: string, parent: string|null, number: number, prompt: string, changes: [string, string][],
 *           pictures: {hash: string, seed: string, scores: Object<string, number>}[], weights: Object<string, number>|null,
 *           feedback: object|null}} Round
 * @typedef {{liked: number[], disliked: number[], comment: string, rating: number|null}} Said
 * @typedef {{key: string, revision: number, round: number, text: string, choices: {label: string, feedback: string}[]}} Question
 *           what Refine Prompt asks about the round that a session makes at that revision
 */

export const MOST_STARS = 5;

const NOTHING = Object.freeze({ liked: [], disliked: [], comment: "", rating: null });

export function initialState() {
    return Object.freeze({
        session: null, at: null, said: NOTHING, of: "", head: null, key: "", question: null, managing: "", busy: "", error: "", note: "",
    });
}

/** What the node's properties hold, so that a reload loses nothing; null if it is nothing of ours. */
export function savedBy(value) {
    if (!value || typeof value !== "object" || !/^[0-9a-f]{32}$/.test(value.key ?? "")) return null;
    const places = (list) => (Array.isArray(list) ? list.filter((place) => Number.isInteger(place) && place >= 0) : []);
    const liked = places(value.liked);
    return {
        key: value.key,
        question: askedBy(value.question),
        name: typeof value.name === "string" ? value.name : "",
        of: typeof value.of === "string" ? value.of : "",
        head: typeof value.head === "string" ? value.head : null,
        said: {
            liked,
            disliked: places(value.disliked).filter((place) => !liked.includes(place)),
            comment: typeof value.comment === "string" ? value.comment : "",
            rating: Number.isInteger(value.rating) && value.rating >= 1 && value.rating <= MOST_STARS ? value.rating : null,
        },
    };
}

/** A question that something is asked by; null otherwise. */
function askedBy(value) {
    const found = questionOf({ attune_question: [value] });
    const usable = found?.text && found.choices.every((each) => typeof each?.label === "string" && typeof each.feedback === "string");
    return usable ? found : null;
}

/** What is to be kept in the node's properties. */
export function saved(state) {
    const { session, question } = state;
    return session ? { key: session.key, name: session.name, of: state.of, head: headOf(session), question, ...state.said } : null;
}

/** Key of the round that the next one follows from; "" before the first. */
function headOf(session) {
    return session.path.at(-1) ?? "";
}

/** The round that is shown: one that was gone back to, or the one that waits, or the last. */
export function shown(state) {
    if (!state.session) return null;
    const { rounds, open, path } = state.session;
    if (state.at) return rounds.find(({ key }) => key === state.at) ?? open;
    return open ?? rounds.find(({ key }) => key === path.at(-1)) ?? null;
}

/** Whether the shown round waits for an answer. */
export function waits(state) {
    const round = shown(state);
    return Boolean(round) && round === state.session?.open;
}

/** What a person has said, or is about to say, to the shown round. */
export function said(state) {
    const round = shown(state);
    if (!round) return NOTHING;
    return waits(state) ? state.said : (round.feedback ?? NOTHING);
}

/** Why the round cannot be refined yet; "" if it can. */
export function missing(state) {
    if (!waits(state)) return "Press Run for the next round.";
    const { liked, disliked, comment } = state.said;
    return liked.length || disliked.length || comment.trim() ? "" : "Choose a picture, or say what should change.";
}

/** What is asked about the shown round; null for earlier rounds, and for a round that another answer was given to. */
export function asked(state) {
    const { question, session } = state;
    const own = question && question.key === session?.key && question.revision === session.revision;
    return own && waits(state) ? question : null;
}

/** A question as a run tells it; null where there is none, and "nothing is asked" has no text. */
export function questionOf(output) {
    const found = output?.attune_question?.[0];
    const usable = typeof found?.key === "string" && Number.isInteger(found.revision) && typeof found.text === "string";
    return usable && Array.isArray(found.choices) ? found : null;
}

/** What goes with the session, and that nothing brings it back. */
export function deletionText({ name, rounds, open }) {
    const count = rounds.length + (open ? 1 : 0);
    const made = count === 1 ? "its one round with its pictures" : `all ${count} rounds with their pictures`;
    const what = [...(count ? [made] : []), "your words and ratings, and the record of every change"].join(", ");
    const learned = rounds.some(({ version }) => version) || open?.version;
    const stays = learned ? " The LoRA files that were learned in it stay in the LoRA catalogue: delete them there." : "";
    return `Delete “${name}”? Everything of it goes: ${what}. It is erased from the disk and cannot be brought back.${stays}`;
}

/** How a picture's mark changes: liked, or disliked, or neither again. */
function marked(before, place, side) {
    const other = side === "liked" ? "disliked" : "liked";
    const has = before[side].includes(place);
    return {
        ...before,
        [side]: has ? before[side].filter((own) => own !== place) : [...before[side], place],
        [other]: before[other].filter((own) => own !== place),
    };
}

/** The rounds of the timeline: the path, what was undone behind it, and what waits. */
export function timeline(session) {
    const byKey = new Map(session.rounds.map((round) => [round.key, round]));
    const entries = session.path.map((key) => ({ round: byKey.get(key), kind: "path" })).filter(({ round }) => round);
    const own = new Set(session.path);
    const others = session.rounds.filter(({ key }) => !own.has(key)).map((round) => ({ round, kind: "other" }));
    if (session.open) entries.push({ round: session.open, kind: "open" });
    return [...entries, ...others];
}

/**
 * Actions: {kind: "session", session, question} the server's, and what is asked about it; {kind: "like"|"dislike", place}; {kind: "comment", text};
 * {kind: "rate", stars}; {kind: "look", at}; {kind: "busy", what}; {kind: "failed", text}; {kind: "gone", text};
 * {kind: "question", question}; {kind: "answer", feedback} to what is asked; {kind: "restored", key, of, head, said, question};
 * {kind: "manage"} to rename; {kind: "ask"} whether to delete; {kind: "rest"} neither; {kind: "deleted", left}
 */
export function reduce(state, action) {
    switch (action.kind) {
        case "session": {
            const { session } = action;
            const waiting = session.open?.key ?? "";
            const same = state.session?.key === session.key || !state.session;
            // Marks go with their round, which may be another one now; words stay until the session has moved on.
            const kept = same && state.of === waiting;
            const at = session.rounds.some(({ key }) => key === state.at) ? state.at : null;
            const earlier = session.open?.feedback;
            const count = session.open?.pictures.length ?? 0;
            const fits = (list) => list.filter((place) => place < count);
            // After a reload there is only what was saved; other pictures may have been made meanwhile.
            const still = state.session ? same && state.session.path.join() === session.path.join() : state.key === session.key && state.head === headOf(session);
            const begun = still ? { ...NOTHING, comment: state.said.comment } : NOTHING;
            const said = kept ? { ...state.said, liked: fits(state.said.liked), disliked: fits(state.said.disliked) } : begun;
            return {
                ...state, session, at: action.stay ? at : null, said: earlier && !kept ? pick(earlier) : said, of: waiting,
                error: action.error ?? "", note: "", question: action.question ?? null, managing: same ? state.managing : "",
            };
        }
        case "restored":
            return { ...state, said: action.said, of: action.of, head: action.head ?? null, key: action.key ?? "", question: action.question ?? null };
        case "like":
        case "dislike":
            return waits(state) ? { ...state, said: marked(state.said, action.place, `${action.kind}d`) } : state;
        case "comment":
            return waits(state) ? { ...state, said: { ...state.said, comment: action.text } } : state;
        case "rate":
            return waits(state)
                ? { ...state, said: { ...state.said, rating: state.said.rating === action.stars ? null : action.stars } }
                : state;
        case "look":
            return { ...state, at: action.at === state.session?.open?.key ? null : action.at };
        case "question":
            return { ...state, question: action.question };
        case "answer": {
            if (!waits(state)) return state;
            const comment = [state.said.comment.trim(), action.feedback].filter(Boolean).join(", ");
            return { ...state, question: null, said: { ...state.said, comment } };
        }
        case "manage":
        case "ask":
            return state.session ? { ...state, managing: action.kind, error: "" } : state;
        case "rest":
            return { ...state, managing: "", error: "" };
        case "deleted":
            return { ...initialState(), note: deletedText(action.left) };
        case "busy":
            return { ...state, busy: action.what };
        case "failed":
            return { ...state, error: action.text, busy: "" };
        case "gone":
            return { ...initialState(), error: action.text };
        default:
            return state;
    }
}

function deletedText(left) {
    const done = "The session is deleted. Press Run to begin another one.";
    return left ? `${done} ${left} The rest of its bytes goes at the next start.` : done;
}

function pick({ liked, disliked, comment, rating }) {
    return { liked: [...liked], disliked: [...disliked], comment, rating };
}

/** What is sent to commit the round; accepted = this is it. */
export function commitBody(state, accepted) {
    const { key, revision, open } = state.session;
    return { key, revision, round: open.key, ...state.said, accepted };
}
