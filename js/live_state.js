/**
 * What the live view of a training run knows, and how each message changes it. No host, no page: runs under Node.
 *
 * Messages of the server (event "attune.training"). Every one says whose it is:
 * @typedef {{node: string, workflow: string, run: string}} Identity   id of the Train LoRA node, id of its workflow ("" if
 *           it was queued without one), run name
 * @typedef {Identity & {kind: "start", method: string, first_curves: string[], step: number, total: number, history: Row[],
 *           note: string}} StartMessage   a run begins or goes on; history = updates done before
 * @typedef {Identity & {kind: "phase", text: string, done: number, total: number}} PhaseMessage
 * @typedef {Identity & {kind: "report", step: number, total: number, metrics: Object<string, number>}} ReportMessage
 * @typedef {Identity & {kind: "samples", step: number, image: string}} SamplesMessage   image = a data URL
 * @typedef {Identity & {kind: "stopping"}} StoppingMessage   "Stop and save" was pressed, on whatever page
 * @typedef {Identity & {kind: "end", status: "finished"|"ended"|"stopped"|"failed", file: string,
 *           message: string}} EndMessage   ended = before its last update, by a rule of its settings, which message names
 *
 * Outputs of the node, which the host may also take from its cache: "attune_report", the report with live = a Snapshot that
 * has only the last picture, without node and elapsed; "attune_job", {workflow, run, text: where the job file is}.
 *
 * Answer of GET /attune/training/state: {runs: {<key>: Snapshot}}, a snapshot being all that is needed after a reload:
 * @typedef {Identity & {kind: "snapshot", status: string, method: string, first_curves: string[], step: number,
 *            first: number, total: number, elapsed: number, history: Row[], samples: Sample[], note: string, file: string,
 *            message: string}} Snapshot
 *
 * @typedef {{step: number}} Row   with the figures of that update by their names, see live_figures.js; "best_step" among
 *           them is the update with the best weights so far
 * @typedef {{step: number, image: string}} Sample
 */

/** More updates than this are thinned out: no screen shows them, and a page may stay open for days. */
export const MOST_ROWS = 1000;
export const MOST_SAMPLES = 24;

const STATUS_TEXT = Object.freeze({
    idle: "Not trained yet",
    running: "Training",
    stopping: "Stopping and saving",
    finished: "Finished",
    ended: "Ended early",
    stopped: "Stopped, work saved",
    failed: "Failed",
    job: "Job file written, nothing trained",
});
const LOST = "The server was restarted. Press Run: the run goes on from its last saved state.";

export function initialState() {
    return Object.freeze({
        status: "idle",
        identity: null,
        run: "",
        method: "",
        firstCurves: [],
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
 * @param {object} message one of the messages above; {kind: "lost"} when the server knows nothing of the run;
 *        {kind: "job", text} when only a job file was written
 * @param {number} now milliseconds
 */
export function reduce(state, message, now) {
    switch (message.kind) {
        case "start":
            return {
                ...initialState(),
                status: "running",
                ...aboutRun(message),
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
            return { ...state, samples: thinnedSamples([...earlier, { step: message.step, image: message.image }]) };
        }
        case "stopping":
            return isActive(state) ? { ...state, status: "stopping" } : state;
        case "lost":
            return isActive(state) ? { ...state, status: "stopped", message: LOST, phase: null } : state;
        case "job":
            return { ...initialState(), status: "job", message: message.text };
        case "end":
            return { ...state, status: message.status, file: message.file ?? "", message: message.message ?? "", phase: null };
        case "snapshot":
            return {
                ...initialState(),
                status: message.status,
                ...aboutRun(message),
                step: message.step,
                first: message.first,
                total: message.total,
                startedAt: now - 1000 * message.elapsed,
                history: thinned(message.history.map(rowOf)),
                samples: thinnedSamples(message.samples),
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

function aboutRun({ node, workflow, run, method, first_curves: firstCurves }) {
    return { identity: { node, workflow, run }, run, method, firstCurves: firstCurves ?? [] };
}

function rowOf(row) {
    return Object.fromEntries(Object.entries(row).filter(([, value]) => Number.isFinite(value)));
}

/**
 * Drop every other row, but never the last, until the rest is few enough. What a dropped row has and the next one lacks
 * moves there: a figure that comes now and then would vanish otherwise.
 */
export function thinned(rows) {
    let rest = rows;
    while (rest.length > MOST_ROWS) {
        const even = rest.length % 2 ? [{}, ...rest] : rest;
        rest = even.filter((_, index) => index % 2).map((kept, index) => ({ ...even[2 * index], ...kept }));
    }
    return rest;
}

/** Few enough pictures, spread evenly: those go whose neighbours are closest; the first and the latest stay. */
export function thinnedSamples(samples) {
    const rest = [...samples];
    while (rest.length > MOST_SAMPLES) {
        const gaps = rest.slice(2).map((after, index) => after.step - rest[index].step);
        rest.splice(1 + gaps.indexOf(Math.min(...gaps)), 1);
    }
    return rest;
}

/** The update with the best weights so far, or null where the run does not look for them. */
export function bestStep(state) {
    const best = state.history.findLast((row) => "best_step" in row)?.best_step;
    return best === undefined || best < 1 || state.step < 1 ? null : best;
}

/** The picture to look at: made at or before a step; the latest for null. */
export function sampleAt(samples, step) {
    if (step === null) return samples.at(-1);
    return samples.findLast((sample) => sample.step <= step) ?? samples[0];
}

/** The step of the picture so many places further, or null for the latest, which a view then follows. */
export function sampleBeside(samples, step, places) {
    const here = samples.indexOf(sampleAt(samples, step));
    const there = Math.min(Math.max(here + places, 0), samples.length - 1);
    return there === samples.length - 1 ? null : samples[there].step;
}

export function sampleCaption(sample) {
    return sample.step === 0 ? "before training" : `after ${sample.step} update${sample.step === 1 ? "" : "s"}`;
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

const PHASE_TEXT = Object.freeze({
    encode: "Encoding pictures",
    rollout: "Making pictures to learn from",
    learn: "Learning from them",
    score: "Scoring them",
    compare: "Comparing with the base model",
    evaluate: "Testing what was learned",
    assistant: "Teaching the assistant",
    generator: "Teaching the generator",
    teacher: "Drawing the teacher's pictures",
});

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
        detail = `${PHASE_TEXT[text] ?? text.slice(0, 1).toUpperCase() + text.slice(1)}: ${done} / ${total}`;
    } else if (state.status === "stopping") detail = "The run ends after this update; the nodes behind go on with what it has.";
    else if (state.message) detail = state.message;
    else if (state.file) detail = state.file;
    return { headline: parts.join("  ·  "), detail };
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

/**
 * The snapshot to show after a reload, if any: one that names the workflow goes before one that only has the run's name.
 * @param {string} [origin] workflow whose result this node showed out of the host's cache; counts where it has none of its own
 */
export function snapshotFor(snapshots, own, origin = "") {
    const fitting = snapshots.filter((snapshot) => isFor(snapshot, own));
    const found = fitting.findLast((snapshot) => snapshot.workflow) ?? fitting.at(-1);
    if (found || !origin) return found;
    const made = snapshots.filter(({ workflow, run, status }) => workflow === origin && run === own.run && !isActive({ status }));
    return made.findLast(({ node }) => isForNode(node, own.node)) ?? made.at(-1);
}

/** A node's output as a snapshot; the page's own pictures of the same run, which are more, stay. */
export function snapshotOfResult(state, live, node) {
    const kept = state.run === live.run ? state.samples : [];
    return { kind: "snapshot", node, elapsed: 0, ...live, samples: kept.length ? kept : live.samples ?? [] };
}
