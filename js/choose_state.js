/**
 * What Choose Images knows of its questions, and how each action changes it. No host, no page: runs under Node.
 *
 * PROFILE, QUESTION and DECISION: from the server, see nodes/preferences/nodes_routes.py. An answer on its way:
 * @typedef {{kind: "decide", profile: string, question: string, choice?: string, stars?: object, before: object|null,
 *            serial: number, attempted?: boolean, made?: number}} Decide   before = what stood; attempted = the server may have
 *            it; made = id of the decision, once the server has answered
 * @typedef {{kind: "undo", profile: string, question: string, decision: number, of: Decide|null, back: object|null,
 *            serial: number}} Undo   takes back the decision of that id, or the one that `of` became; back = what is shown
 *            until the server has said what stands
 *
 * Actions:
 * @typedef {{kind: "questions", profile: object, questions: object[], missing: number, ran: number, finished?: boolean}}
 *           QuestionsAction   ran = the profile's revision in the last run; finished = it comes from a run that has ended
 * @typedef {{kind: "more", profile: object, questions: object[]}} MoreAction   questions of earlier runs
 * @typedef {{kind: "answered", profile: object, question: object}} AnsweredAction   as the server has it now
 * @typedef {{kind: "unsent", items: (Decide|Undo)[], unanswered: boolean}} UnsentAction
 * @typedef {{kind: "advance" | "undone" | "go", question: string, stay?: boolean}} MoveAction   advance = it has been answered
 *            here; stay = these are stars that were complete before, so that more of them may be changed
 * @typedef {{kind: "mark", place: number} | {kind: "show", what: "ask"|"answers"}} LookAction
 * @typedef {{kind: "waits" | "queued", on: boolean} | {kind: "failed", text: string} | {kind: "gone", text: string}} OtherAction
 *           gone = the profile is not there any more
 *
 * In the state, fresh = all questions are new, and what was said to those before was not handed on; `questions` is what the
 * server has said, `shown` the same with the answers on their way; `at` is the key of the question that is asked now, "" = none.
 */

/** Decisions that have no id yet are newer than all that have one. */
const LATER = 1e15;
export const MOST_STARS = 5;

export function initialState() {
    return Object.freeze({
        profile: null, questions: [], shown: [], missing: 0, ran: 0, fresh: false, unsent: [], unanswered: false, at: "",
        mark: -1, asked: false, showing: "ask", waits: false, queued: false, error: "",
    });
}

export function reduce(state, action) {
    switch (action.kind) {
        case "questions":
            return withQuestions(state, action);
        case "more": {
            const known = new Set(state.questions.map(({ key }) => key));
            const questions = [...state.questions, ...action.questions.filter(({ key }) => !known.has(key))];
            return settled({ ...state, profile: action.profile, questions, asked: false });
        }
        case "answered":
            return withAnswer(state, action);
        case "unsent": {
            const error = state.unanswered && !action.unanswered ? "" : state.error;
            return settled({ ...state, unsent: action.items, unanswered: action.unanswered, error });
        }
        case "advance":
            return advanced({ ...state, fresh: false }, action.question, action.stay);
        case "undone":
        case "go":
            return settled({ ...state, at: action.question, mark: -1, asked: false, error: "" });
        case "mark":
            return { ...state, mark: action.place };
        case "show":
            return settled({ ...state, asked: action.what === "answers" });
        case "waits":
        case "queued":
            return { ...state, [action.kind]: action.on, error: action.on ? "" : state.error };
        case "failed":
            return { ...state, error: action.text, queued: false };
        case "gone":
            return { ...initialState(), error: action.text };
        default:
            return state;
    }
}

function withQuestions(state, { profile, questions, missing, ran, finished = false }) {
    const same = state.profile?.key === profile.key;
    const known = new Set(same ? state.questions.map(({ key }) => key) : []);
    const lost = same && isChanged(state) && state.questions.some(({ decision }) => decision);
    const unknown = questions.length > 0 && questions.every(({ key }) => !known.has(key));
    return settled({
        ...state, profile, questions, missing, ran, at: same ? state.at : "", fresh: unknown ? lost : state.fresh,
        waits: finished ? false : state.waits, queued: finished ? false : state.queued, error: "",
    });
}

function withAnswer(state, { profile, question }) {
    if (profile.key !== state.profile?.key) return state;
    const newest = profile.revision >= state.profile.revision ? profile : state.profile;
    const wasOpen = current(state)?.open;
    const questions = state.questions.map((own) => (own.key === question.key ? question : own));
    const next = settled({ ...state, profile: newest, questions });
    // Somebody has answered it in another tab.
    return wasOpen && state.at === question.key && !current(next)?.open ? advanced(next, question.key) : next;
}

/** From an answered question to the next open one; of stars to the next picture. */
function advanced(state, key, stay = false) {
    const place = state.shown.findIndex((question) => question.key === key);
    const question = state.shown[place];
    if (question?.open && question.kind === "stars") {
        return { ...state, mark: nextUnrated(question, state.mark), error: "" };
    }
    if (stay && question?.pictures[state.mark + 1]) return { ...state, mark: state.mark + 1, error: "" };
    return settled({ ...state, at: nextOpen(state.shown, place), mark: -1, error: "" });
}

/** With the answers on their way, and with a question to ask if there is one. */
function settled(state) {
    const shown = state.questions.map((question) => overlaid(question, state.unsent));
    const here = shown.find(({ key }) => key === state.at);
    const at = here ? state.at : nextOpen(shown, -1);
    const question = here ?? shown.find(({ key }) => key === at);
    const moved = at !== state.at;
    let { mark } = moved ? { mark: -1 } : state;
    if (question?.kind === "stars" && mark < 0) mark = Math.max(0, nextUnrated(question, -1));
    return { ...state, shown, at, mark, showing: at && !state.asked ? "ask" : "answers" };
}

function overlaid(question, items) {
    const own = items.filter((item) => item.question === question.key);
    if (!own.length) return question;
    let { decision } = question;
    for (const item of own) {
        if (item.kind === "undo") decision = item.back;
        else if (item.stars) decision = decisionOf(item, null, { ...decision?.stars, ...item.stars });
        else decision = decisionOf(item, item.choice, null);
    }
    return { ...question, decision, open: isOpen(question, decision) };
}

const decisionOf = ({ serial }, choice, stars) => ({ id: LATER + serial, choice, stars });

function isOpen({ pictures }, decision) {
    if (!decision) return true;
    return Boolean(decision.stars) && pictures.some(({ hash }) => !decision.stars[hash]);
}

/** The key of the first open question behind `place`, going round; "" if there is none. */
export function nextOpen(questions, place) {
    for (let step = 1; step <= questions.length; step += 1) {
        const question = questions[(place + step) % questions.length];
        if (question.open) return question.key;
    }
    return "";
}

function nextUnrated({ pictures, decision }, place) {
    for (let step = 1; step <= pictures.length; step += 1) {
        const at = (place + step) % pictures.length;
        if (!decision?.stars?.[pictures[at].hash]) return at;
    }
    return place;
}

/** The question that is asked now, or null. */
export function current(state) {
    return (state.showing === "ask" && state.shown.find(({ key }) => key === state.at)) || null;
}

/** The open questions that come next, for loading their pictures early. */
export function upcoming(state, count = 2) {
    return state.shown.filter(({ open, key }) => open && key !== state.at).slice(0, count);
}

/** The question with the newest decision, which is the next one to be taken back, or null. */
export function newest(state) {
    const answered = state.shown.filter(({ decision }) => decision);
    return answered.reduce((best, next) => (best && best.decision.id > next.decision.id ? best : next), null);
}

export function counts(state) {
    const total = state.shown.length;
    const answered = state.shown.filter(({ open }) => !open).length;
    return { total, answered, open: total - answered, earlier: earlierOpen(state) };
}

/** How many questions of other runs wait, as far as is known. */
function earlierOpen({ profile, questions }) {
    return Math.max(0, (profile?.waiting ?? 0) - questions.filter(({ open }) => open).length);
}

/** Whether something was decided that the last run did not hand on. */
export function isChanged({ profile, unsent, ran }) {
    return unsent.length > 0 || (profile?.revision ?? 0) > ran;
}

/**
 * The answer that a choice is, to be sent: without serial; null where it says nothing new.
 * @param {{choice: string} | {stars: object}} said   choice = hash, "tie" or "skip"
 */
export function answerOf(state, said) {
    const question = current(state);
    if (!question) return null;
    const { decision } = question;
    const same = said.stars
        ? Object.entries(said.stars).every(([hash, stars]) => decision?.stars?.[hash] === stars)
        : decision?.choice === said.choice;
    return same ? null : { kind: "decide", profile: state.profile.key, question: question.key, ...said, before: decision };
}

/** What takes the newest decision back, without serial; null where there is none. */
export function undoOf(state) {
    const question = newest(state);
    if (!question) return null;
    const { id } = question.decision;
    const of = state.unsent.find(({ serial }) => LATER + serial === id) ?? null;
    return { kind: "undo", profile: state.profile.key, question: question.key, decision: of ? 0 : id, of, back: of?.before ?? null };
}

/** What is to be sent while the page closes, when nothing can wait for an answer: the last word on each question. */
export function parting(items) {
    const last = new Map();
    for (const item of items) {
        const earlier = last.get(item.question);
        if (item.kind === "undo" && !item.decision && !item.of?.made) last.delete(item.question);
        else if (item.stars && earlier?.stars) last.set(item.question, { ...item, stars: { ...earlier.stars, ...item.stars } });
        else last.set(item.question, item);
    }
    return [...last.values()];
}

/** The questions that a run tells of, in its output or while it waits, or null. */
export function askedBy(told) {
    const questions = told?.questions;
    if (!isKey(told?.profile, 32) || !Array.isArray(questions) || !questions.every((key) => isKey(key, 64))) return null;
    return { profile: told.profile, revision: Number(told.revision) || 0, questions: questions.slice(0, 500) };
}

const isKey = (text, length) => typeof text === "string" && text.length === length && /^[0-9a-f]+$/.test(text);

export const outputOf = (output) => askedBy(output?.attune_choose?.[0]);
