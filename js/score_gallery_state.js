/**
 * What the gallery of Score Images knows, and how each action changes it. No host, no page: runs under Node.
 *
 * The node's output holds attune_gallery: [Gallery].
 * @typedef {{filename: string, subfolder: string, type: string}} File   as the host's /view wants it
 * @typedef {{name: string, formula: string, higher_is_better: boolean, calibrated: boolean}} Reward
 * @typedef {{index: number, hash: string, prompt: string, width: number, height: number, file: File, thumbnail: File,
 *            scores: number[], labels: string[], percentiles: (number|null)[], rank: number}} Picture   hash names the
 *            pixels; scores, labels and percentiles have one entry per reward; percentile = how good, 100 is best; rank 1
 *            is best by the first reward
 * @typedef {{rewards: Reward[], images: Picture[]}} Gallery
 *
 * Actions:
 * @typedef {{kind: "result", gallery: Gallery, used: string|null}} ResultAction   used = the choice that the run was
 *           started with, null where it is not known
 * @typedef {{kind: "choice", text: string}} ChoiceAction   the widget `discarded` has this text now
 * @typedef {{kind: "sort", key: number}} SortAction   number of a reward, or ORDER; once more turns it round
 * @typedef {{kind: "toggle", hash: string}} ToggleAction
 * @typedef {{kind: "keepAll"} | {kind: "undo"}} PlainAction
 */

/** Sort key: the order in which the images came. */
export const ORDER = -1;
/** More discarded hashes than this would only make the workflow's file large. */
export const MOST_DISCARDED = 2000;
export const MOST_UNDO = 50;
/** The worst image's bar, so that its colour is still seen. */
export const SHORTEST = 0.06;

export function initialState() {
    return Object.freeze({
        rewards: [],
        images: [],
        ranks: [],
        bars: [],
        discarded: [],
        used: [],
        undo: [],
        sort: Object.freeze({ key: 0, reversed: false }),
    });
}

/** The gallery within a node's output, or null where there is none that can be shown. */
export function galleryOf(output) {
    const gallery = output?.attune_gallery?.[0];
    return Array.isArray(gallery?.rewards) && Array.isArray(gallery?.images) ? gallery : null;
}

/** The hashes in the text of the widget `discarded`, each once, oldest first. */
export function parseChoice(text) {
    return [...new Set(String(text ?? "").split(/\s+/).filter(Boolean))];
}

/** The text for the widget. */
export function choiceText(state) {
    return state.discarded.join(" ");
}

export function reduce(state, action) {
    switch (action.kind) {
        case "result":
            return withResult(state, action);
        case "choice": {
            const discarded = parseChoice(action.text);
            if (discarded.join(" ") === choiceText(state)) return state;
            // Without a run there is nothing that the choice could differ from.
            return { ...state, discarded, undo: [], used: state.images.length ? state.used : discarded };
        }
        case "sort": {
            const { key, reversed } = state.sort;
            return { ...state, sort: { key: action.key, reversed: action.key === key && !reversed } };
        }
        case "toggle": {
            const rest = state.discarded.filter((hash) => hash !== action.hash);
            return withChoice(state, rest.length < state.discarded.length ? rest : [...rest, action.hash]);
        }
        case "keepAll": {
            // What is not shown now may come back in a later run, and stays discarded.
            const shown = new Set(state.images.map((image) => image.hash));
            return withChoice(state, state.discarded.filter((hash) => !shown.has(hash)));
        }
        case "undo":
            if (!state.undo.length) return state;
            return { ...state, discarded: state.undo.at(-1), undo: state.undo.slice(0, -1) };
        default:
            return state;
    }
}

function withResult(state, { gallery, used }) {
    const { rewards, images } = gallery;
    const columns = rewards.map((_, column) => images.map((image) => image.scores[column]));
    const known = state.sort.key < rewards.length;
    return {
        ...state,
        rewards,
        images,
        ranks: rewards.map((reward, column) => ranksOf(columns[column], reward.higher_is_better)),
        bars: rewards.map((reward, column) =>
            barsOf(columns[column], reward.higher_is_better, images.map((image) => image.percentiles[column])),
        ),
        used: used === null || used === undefined ? state.discarded : parseChoice(used),
        sort: known ? state.sort : initialState().sort,
    };
}

function withChoice(state, discarded) {
    if (discarded.length === state.discarded.length) return state;
    return {
        ...state,
        discarded: discarded.slice(-MOST_DISCARDED),
        undo: [...state.undo, state.discarded].slice(-MOST_UNDO),
    };
}

/** Indices, best first. Equal scores keep their order; what is not a number comes last. */
function bestFirst(scores, higherIsBetter) {
    const good = scores.map((score) => (Number.isFinite(score) ? (higherIsBetter ? score : -score) : -Infinity));
    const indices = scores.map((_, index) => index);
    return indices.sort((one, other) => (good[one] === good[other] ? one - other : good[other] - good[one]));
}

/** The rank of each image, 1 = best. */
export function ranksOf(scores, higherIsBetter) {
    const ranks = new Array(scores.length);
    bestFirst(scores, higherIsBetter).forEach((index, place) => (ranks[index] = place + 1));
    return ranks;
}

/**
 * How long each image's bar is, 0 … 1: the best of those shown has 1, the worst SHORTEST, whatever sign or scale a reward has.
 * Where the scores do not differ, or there is one image only, a bar is as long as its percentile, else half.
 */
export function barsOf(scores, higherIsBetter, percentiles = []) {
    const finite = scores.filter(Number.isFinite);
    const low = Math.min(...finite);
    const high = Math.max(...finite);
    return scores.map((score, index) => {
        if (!Number.isFinite(score)) return 0;
        const percentile = percentiles[index];
        if (!(high > low)) return Number.isFinite(percentile) ? Math.max(SHORTEST, percentile / 100) : 0.5;
        const good = higherIsBetter ? (score - low) / (high - low) : (high - score) / (high - low);
        return SHORTEST + (1 - SHORTEST) * good;
    });
}

/** Positions in state.images, in the order in which they are shown. */
export function sorted(state) {
    const { key, reversed } = state.sort;
    const indices = state.images.map((_, index) => index);
    const ranks = state.ranks[key];
    if (ranks) indices.sort((one, other) => ranks[one] - ranks[other]);
    return reversed ? indices.reverse() : indices;
}

/**
 * What is shown of each image, in order. The rank is by the reward that sorts; by image order it is the first reward's.
 * @returns {{position: number, image: Picture, discarded: boolean, rank: number,
 *            bars: {name: string, length: number, label: string, percentile: string, text: string}[]}[]}
 */
export function cards(state) {
    const discarded = new Set(state.discarded);
    const ranks = state.ranks[state.sort.key];
    return sorted(state).map((position) => {
        const image = state.images[position];
        const bars = state.rewards.map((reward, column) => barOf(state, reward, image, position, column));
        return { position, image, discarded: discarded.has(image.hash), rank: ranks ? ranks[position] : image.rank, bars };
    });
}

function barOf(state, reward, image, position, column) {
    const percentile = image.percentiles[column];
    const known = Number.isFinite(percentile);
    const better = known ? `, better than ${Math.round(percentile)} % of its reference images` : "";
    return {
        name: reward.name,
        length: state.bars[column][position],
        label: image.labels[column],
        percentile: known ? `${Math.round(percentile)} %` : "",
        text: `${reward.name} ${image.labels[column]}${better}`,
    };
}

/** The prompt of all images, or "" where they differ. */
export function commonPrompt(state) {
    const first = state.images[0]?.prompt ?? "";
    return state.images.every((image) => image.prompt === first) ? first : "";
}

/**
 * Width / height of every picture's place: the images' own where all agree, else a square, so that nothing moves while they load.
 */
export function placeRatio(images) {
    const ratios = images.map((image) => image.width / image.height);
    const alike = ratios.length && ratios.every((ratio) => Math.abs(ratio - ratios[0]) < 0.01 * ratios[0]);
    return alike ? Math.min(2, Math.max(0.5, ratios[0])) : 1;
}

/** How many images are shown and discarded, and whether the last run did not know of the choice yet. */
export function counts(state) {
    const [discarded, used] = [new Set(state.discarded), new Set(state.used)];
    const shown = new Set(state.images.map((image) => image.hash));
    return {
        total: state.images.length,
        discarded: state.images.filter((image) => discarded.has(image.hash)).length,
        elsewhere: state.discarded.filter((hash) => !shown.has(hash)).length,
        changed: [...shown].some((hash) => discarded.has(hash) !== used.has(hash)),
    };
}

/** The line above the images. */
export function summary(state) {
    const { total, discarded } = counts(state);
    const images = total === 1 ? "1 image" : `${total} images`;
    if (!discarded) return images;
    if (discarded === total) return `${images}, all discarded`;
    return `${total - discarded} of ${images} kept`;
}

/** What to press next, or "". */
export function advice(state) {
    const { total, discarded, elsewhere, changed } = counts(state);
    if (!total) {
        const hint = "Press Run: the images appear here, best first.";
        if (!elsewhere) return hint;
        return elsewhere === 1 ? `${hint} 1 discarded image is remembered.` : `${hint} ${elsewhere} discarded images are remembered.`;
    }
    if (!changed) return "";
    const hint = "Press Run to use your choice";
    return discarded === total ? `${hint}: nothing goes on from “kept”.` : `${hint}.`;
}

/** The word for a sort direction, for screen readers and tooltips. */
export function directionText({ key, reversed }) {
    if (key === ORDER) return reversed ? "backwards" : "as they came";
    return reversed ? "worst first" : "best first";
}

/** Where an arrow key leads from one of `count` places in rows of `columns`; null for any other key. */
export function moved(key, place, count, columns) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -place, End: count - 1 - place };
    if (!(key in steps)) return null;
    const target = place + steps[key];
    return target < 0 || target >= count ? place : target;
}

/** The address of a picture on the host. */
export function viewPath({ filename, subfolder, type }) {
    const part = (name, value) => `${name}=${encodeURIComponent(value ?? "")}`;
    return `/view?${part("filename", filename)}&${part("subfolder", subfolder)}&${part("type", type)}`;
}

/**
 * What the host's record of a run says of it: [number, id, prompt, extra data, …], from /queue or /history.
 * @returns {{workflow: string, used: string|null}} the workflow's id, "" if it was queued without one; the node's choice
 */
export function originOf(record, node) {
    const choice = record?.[2]?.[node]?.inputs?.discarded;
    return { workflow: String(record?.[3]?.extra_pnginfo?.workflow?.id ?? ""), used: typeof choice === "string" ? choice : null };
}

/** A result of one node of one workflow, as it is remembered while the page is open. */
export const MOST_REMEMBERED = 32;

/** Put a result behind the earlier ones; it takes the place of the same node's. */
export function remembered(results, result) {
    const others = results.filter((other) => other.node !== result.node || other.workflow !== result.workflow);
    return [...others, result].slice(-MOST_REMEMBERED);
}

/** The results of one workflow in the host's history ({id: {prompt, outputs}}, oldest first). */
export function resultsIn(history, workflow) {
    const results = [];
    for (const { prompt, outputs } of Object.values(history ?? {})) {
        for (const [node, output] of Object.entries(outputs ?? {})) {
            const gallery = galleryOf(output);
            const origin = originOf(prompt, node);
            if (gallery && workflow && origin.workflow === workflow) results.push({ node, gallery, ...origin });
        }
    }
    return results;
}
