/**
 * What the live view of a training run knows, and how each message changes it. No host, no page: runs under Node.
 *
 * Messages of the server (event "attune.training"). Every one says whose it is:
 * @typedef {{node: string, workflow: string, run: string}} Identity   id of the Train LoRA node, id of its workflow ("" if
 *           it was queued without one), run name
 * @typedef {Identity & {kind: "start", method: string, step: number, total: number, history: Row[],
 *           note: string}} StartMessage   a run begins or goes on; history = updates done before
 * @typedef {Identity & {kind: "phase", text: string, done: number, total: number}} PhaseMessage
 * @typedef {Identity & {kind: "report", step: number, total: number, metrics: Object<string, number>}} ReportMessage
 * @typedef {Identity & {kind: "samples", step: number, image: string}} SamplesMessage   image = a data URL
 * @typedef {Identity & {kind: "end", status: "finished"|"stopped"|"failed", file: string, message: string}} EndMessage
 *
 * Answer of GET /attune/training/state: {runs: {<key>: Snapshot}}, a snapshot being all that is needed after a reload:
 * @typedef {Identity & {kind: "snapshot", status: string, method: string, step: number, first: number, total: number,
 *            elapsed: number, history: Row[], samples: {step: number, image: string}[], note: string, file: string,
 *            message: string}} Snapshot
 *
 * @typedef {{step: number, loss?: number, reward?: number, held_out_reward?: number}} Row
 */

export const SERIES = Object.freeze([
    Object.freeze({
        key: "reward",
        title: "Reward",
        colour: "#4fb6f5",
        hint: "Mean reward of the pictures made for one update. This is what the run learns to raise.",
    }),
    Object.freeze({
        key: "held_out_reward",
        title: "Held-out reward",
        colour: "#b79cf7",
        hint: "Mean score of the same pictures by the judge that is never learned from. If it falls while the reward rises, stop.",
    }),
    Object.freeze({
        key: "loss",
        title: "Loss",
        colour: "#f2a65a",
        hint: "What one update makes smaller. It should fall when learning from pictures; when learning from a reward it says little.",
    }),
]);

/** More updates than this are thinned out: no screen shows them, and a page may stay open for days. */
export const MOST_ROWS = 1000;
export const MOST_SAMPLES = 24;

const STATUS_TEXT = Object.freeze({
    idle: "Not trained yet",
    running: "Training",
    stopping: "Stopping and saving",
    finished: "Finished",
    stopped: "Stopped, work saved",
    failed: "Failed",
});

export function initialState() {
    return Object.freeze({
        status: "idle",
        run: "",
        method: "",
        step: 0,
        first: 0,
        total: 0,
        startedAt: 0,
        history: [],
        samples: [],
        phase: null,
        note: "",
        file: "",
        message: "",
    });
}

/**
 * The state after a message.
 * @param {object} state
 * @param {object} message one of the messages above, or {kind: "stopping"} when the button was pressed
 * @param {number} now milliseconds
 */
export function reduce(state, message, now) {
    switch (message.kind) {
        case "start":
            return {
                ...initialState(),
                status: "running",
                run: message.run,
                method: message.method,
                step: message.step,
                first: message.step,
                total: message.total,
                startedAt: now,
                history: thinned((message.history ?? []).map(rowOf)),
                // A resumed run keeps the pictures that the page already has.
                samples: message.step > 0 && state.run === message.run ? state.samples : [],
                note: message.note ?? "",
            };
        case "phase":
            if (!isActive(state)) return state;
            return { ...state, phase: { text: message.text, done: message.done, total: message.total } };
        case "report": {
            const row = rowOf({ step: message.step, ...message.metrics });
            const earlier = state.history.filter((other) => other.step < row.step);
            return {
                ...state,
                status: state.status === "stopping" ? "stopping" : "running",
                step: message.step,
                total: message.total,
                history: thinned([...earlier, row]),
                phase: null,
            };
        }
        case "samples": {
            const earlier = state.samples.filter((sample) => sample.step < message.step);
            return { ...state, samples: limited([...earlier, { step: message.step, image: message.image }]) };
        }
        case "stopping":
            return isActive(state) ? { ...state, status: "stopping" } : state;
        case "end":
            return { ...state, status: message.status, file: message.file ?? "", message: message.message ?? "", phase: null };
        case "snapshot":
            return {
                ...initialState(),
                status: message.status,
                run: message.run,
                method: message.method,
                step: message.step,
                first: message.first,
                total: message.total,
                startedAt: now - 1000 * message.elapsed,
                history: thinned(message.history.map(rowOf)),
                samples: limited(message.samples),
                note: message.note,
                file: message.file,
                message: message.message,
            };
        default:
            return state;
    }
}

export function isActive(state) {
    return state.status === "running" || state.status === "stopping";
}

function rowOf(row) {
    const result = { step: row.step };
    for (const { key } of SERIES) if (Number.isFinite(row[key])) result[key] = row[key];
    return result;
}

/** Drop every other row, but never the last, until the rest is few enough. */
export function thinned(rows) {
    let rest = rows;
    while (rest.length > MOST_ROWS) rest = rest.filter((_, index) => (rest.length - 1 - index) % 2 === 0);
    return rest;
}

function limited(samples) {
    if (samples.length <= MOST_SAMPLES) return samples;
    // The first picture stays: it is what the others are compared with.
    return [samples[0], ...samples.slice(samples.length - MOST_SAMPLES + 1)];
}

/** Seconds until the run ends, or null while nothing has been measured. */
export function secondsLeft(state, now) {
    const done = state.step - state.first;
    if (!isActive(state) || done < 1) return null;
    return ((now - state.startedAt) / 1000 / done) * Math.max(0, state.total - state.step);
}

/** 42 s · 3 min 05 s · 2 h 04 min */
export function formatDuration(seconds) {
    const whole = Math.max(0, Math.round(seconds));
    const pad = (value) => String(value).padStart(2, "0");
    if (whole < 60) return `${whole} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`;
    return `${Math.floor(whole / 3600)} h ${pad(Math.floor((whole % 3600) / 60))} min`;
}

/** Four significant digits without a tail of zeros. */
export function formatNumber(value) {
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size < 1e-4 || size >= 1e6) return String(Number(value.toPrecision(2)));
    return String(Number(value.toPrecision(4)));
}

const PHASE_TEXT = Object.freeze({ encode: "Encoding pictures", rollout: "Making pictures to learn from", learn: "Learning from them" });

/** The headline and the line below it. */
export function describe(state, now) {
    const parts = [STATUS_TEXT[state.status] ?? state.status];
    if (state.total > 0) parts.push(`${state.step} / ${state.total}`);
    const left = secondsLeft(state, now);
    if (left !== null && state.status === "running") parts.push(`${formatDuration(left)} left`);
    let detail = state.note;
    if (state.status === "idle") detail = "Press Run: curves and sample pictures appear here.";
    else if (state.phase) {
        const { text, done, total } = state.phase;
        detail = `${PHASE_TEXT[text] ?? text}: ${done} / ${total}`;
    } else if (state.message) detail = state.message;
    else if (state.file) detail = state.file;
    return { headline: parts.join("  ·  "), detail };
}

/** Moving average whose memory is 8 % of the curve: the same as in the report picture. */
export function smoothed(values) {
    const keep = 1 - 1 / Math.max(1, 0.08 * values.length);
    let total = 0;
    let weight = 0;
    return values.map((value) => {
        total = keep * total + (1 - keep) * value;
        weight = keep * weight + (1 - keep);
        return total / weight;
    });
}

/**
 * The curves to draw, each in a box of width × height: SVG path data and the numbers of its labels.
 * @returns {{key: string, title: string, colour: string, hint: string, raw: string, mean: string, low: number, high: number,
 *            last: number, end: number[]}[]}
 */
export function curves(state, width, height) {
    const result = [];
    const rows = state.history;
    const firstStep = rows.length ? rows[0].step : 0;
    const lastStep = Math.max(rows.length ? rows[rows.length - 1].step : 1, isActive(state) ? state.total : 0, firstStep + 1);
    for (const series of SERIES) {
        const own = rows.filter((row) => series.key in row);
        if (!own.length) continue;
        const values = own.map((row) => row[series.key]);
        const means = smoothed(values);
        const low = Math.min(...values);
        const high = Math.max(...values);
        const x = (step) => ((step - firstStep) / (lastStep - firstStep)) * width;
        const y = (value) => (high > low ? height - ((value - low) / (high - low)) * height : height / 2);
        const points = (list) => own.map((row, index) => [x(row.step), y(list[index])]);
        const mean = points(means);
        result.push({
            ...series,
            raw: path(points(values)),
            mean: path(mean),
            low,
            high,
            last: means[means.length - 1],
            end: mean[mean.length - 1],
        });
    }
    return result;
}

function path(points) {
    return points.map(([x, y], index) => `${index ? "L" : "M"}${round(x)} ${round(y)}`).join("");
}

function round(value) {
    return Math.round(value * 10) / 10;
}

/** Whether a message's node id means this node; inside subgraphs the host writes "<outer>:<inner>". */
export function isForNode(messageNode, nodeId) {
    const text = String(messageNode);
    return text === String(nodeId) || text.endsWith(`:${nodeId}`);
}

/**
 * Whether a message is for the node that a view stands in. Another open workflow may have the same node id and run name,
 * so the workflow decides; only where one side does not know it, the run name has to do.
 * @param {Identity} message
 * @param {Identity} own
 */
export function isFor(message, own) {
    if (!isForNode(message.node, own.node)) return false;
    return message.workflow && own.workflow ? message.workflow === own.workflow : message.run === own.run;
}

/** The snapshot to show after a reload, if any: one that names the workflow goes before one that only has the run's name. */
export function snapshotFor(snapshots, own) {
    const fitting = snapshots.filter((snapshot) => isFor(snapshot, own));
    return fitting.find((snapshot) => snapshot.workflow) ?? fitting.at(-1);
}
