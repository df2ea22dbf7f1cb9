/**
 * Whose a run's results are, and which words the nodes show of them. No host, no page: runs under Node.
 *
 * @typedef {{node: string, workflow: string, kind: string, output: object}} Result   id of the node that shows it, id of the
 *           workflow that was run ("" if it was queued without one), class of the node ("" if it is not known), the node's output
 * @typedef {{node: string, workflow: string, kind: string}} Own   of a node on the page
 */

import { isForNode } from "./live_state.js";
import { originOf } from "./score_gallery_state.js";

/** Markdown as plain lines: without marks, empty lines and tables, which are left to the output "report". */
export function plain(text) {
    const lines = String(text).replaceAll("**", "").split("\n");
    return lines.filter((line) => line.trim() && !line.startsWith("|")).join("\n");
}

const report = (hint) => Object.freeze({ hint, key: "text", height: 66 });

const prompts = Object.freeze({
    hint: "The prompts appear here after a run.", key: "attune_prompts", height: 120, verbatim: true, scrolls: true,
});

/**
 * What each class of node shows: before the first run, which part of its output afterwards, how high the box is, whether the
 * words are left as they are, and whether a long text scrolls instead of making the node longer.
 */
export const NODES = Object.freeze({
    AttuneCalibrateReward: report("The figures appear here after a run."),
    AttuneCombineRewards: report("The formula appears here after a run."),
    AttuneExportProfile: report("Where the file is appears here after a run."),
    AttuneImportProfile: report("What was in the file appears here after a run."),
    AttuneLoraCatalogue: report("Which LoRA it is appears here after a run."),
    AttuneMergeLoras: report("What was merged appears here after a run."),
    AttuneOneStepPreset: report("What fits, and what does not, appears here after a run."),
    AttuneOneStepSampler: report("What was drawn, and what does not fit, appears here after a run."),
    AttuneDynamicWeights: report("The weights appear here after a run."),
    AttuneRankAndKeepBest: report("What was kept appears here after a run."),
    AttuneRefinePrompt: report("What was changed, and what was not understood, appears here after a run."),
    AttuneRefinementSession: report("Where the session stands appears here after a run."),
    AttuneRepeatRounds: report("How far the rounds have come appears here after a run."),
    AttuneSimulatedPerson: report("What is chosen and said appears here after a run."),
    AttuneRoundSchedule: report("What the round samples with appears here after a run."),
    AttunePromptLines: prompts,
    AttunePromptTemplate: prompts,
    AttunePromptsFromCaptions: prompts,
    AttunePromptsFromFile: prompts,
    AttuneSafetyGate: Object.freeze({ hint: "What was blocked appears here after a run.", key: "attune_safety", height: 48 }),
});
const KEYS = new Set(Object.values(NODES).map(({ key }) => key));

/**
 * The words of a node's output, or null where it has none for that class of node. A node that ran for a list says the same once.
 */
export function wordsOf(kind, output) {
    const { key, verbatim } = NODES[kind] ?? {};
    const lines = output?.[key];
    if (!Array.isArray(lines)) return null;
    // In a prompt, stars and bars are words as any others.
    return verbatim ? lines.join("\n") : [...new Set(lines.map(plain))].join("\n");
}

/** Whether any of these classes could have made the output. */
export function mayHaveWords(output) {
    return [...KEYS].some((key) => Array.isArray(output?.[key]));
}

/** How long the host may take to say whose a run is, in milliseconds: the results of later runs wait meanwhile. */
const PATIENCE = 5000;

/**
 * The record of a run: it is running when its first result comes, and in the history once it has left the queue.
 * @param {(path: string) => Promise<object>} read   asks the host
 * @returns {Promise<Array|undefined>} the host's [number, id, prompt, extra data, …]; fails where the host does not answer
 */
export async function recordOfRun(read, id, patience = PATIENCE) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`no answer within ${patience / 1000} s`)), patience);
    });
    try {
        return await Promise.race([lookUp(read, id), late]);
    } finally {
        clearTimeout(timer);
    }
}

async function lookUp(read, id) {
    const { queue_running: running = [] } = await read("/queue");
    return running.find((entry) => entry[1] === id) ?? (await read(`/history/${id}`))[id]?.prompt;
}

/**
 * A result with its origin.
 * @param {object} detail   of the host's event "executed"
 * @param {Array|undefined} record   see `recordOfRun`
 * @returns {Result}
 */
export function resultOf({ node, display_node: shown, output }, record) {
    const { workflow } = originOf(record, String(node));
    // Inside a subgraph another node may show it than the one that made it; the one that shows it has the class.
    const kind = String(record?.[2]?.[String(shown ?? node)]?.class_type ?? record?.[2]?.[String(node)]?.class_type ?? "");
    return { node: String(shown ?? node), workflow, kind, output };
}

/**
 * A function that takes what comes and gives it to `work`, one after the other in the order of the calls, however long each
 * takes: so an older result is never shown over a newer one. What fails is told, and does not hold up the next.
 * @template T
 * @param {(item: T) => Promise<void>} work
 * @returns {(item: T) => Promise<void>}   resolved once this one is done
 */
export function inOrder(work) {
    let waiting = Promise.resolve();
    return (item) => {
        waiting = waiting.then(() => work(item)).catch((error) => console.error("Attune:", error));
        return waiting;
    };
}

/** Whether a result is for a node on the page. Where one side does not know the workflow or the class, the rest has to do. */
export function isFor(result, own) {
    const agree = (one, other) => !one || !other || one === other;
    return isForNode(result.node, own.node) && agree(result.workflow, own.workflow) && agree(result.kind, own.kind);
}
