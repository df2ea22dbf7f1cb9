/**
 * What the two buttons of Diff-Instruct* Objective set, and what is said of it. Runs under Node.
 *
 * @typedef {{values: Record<string, unknown>, fed: string[]}} Inputs  a node's widgets by their names; fed = those that
 *          another node feeds
 */

export const TRAIN = "AttuneTrainLora";

/** Values per node, by widget; JSON, which tests/unit/test_one_step_training_presets.py reads. */
export const PRESETS = [
    {
        "name": "Fast and rough",
        "about": "See within minutes whether it works",
        "objective": {
            "prompts_per_update": 16,
            "images_per_prompt": 1,
            "assistant_updates": 1,
            "assistant_learning_rate": 0.001,
            "reward_from": 0,
            "reward_rise": 0
        },
        "train": {
            "steps": 100,
            "learning_rate": 0.001,
            "schedule": "constant",
            "ema": 0.0,
            "evaluate_every": 20
        }
    },
    {
        "name": "Long and good",
        "about": "For a model to keep",
        "objective": {
            "prompts_per_update": 64,
            "images_per_prompt": 1,
            "assistant_updates": 2,
            "assistant_learning_rate": 0.0004,
            "reward_from": 660,
            "reward_rise": 200
        },
        "train": {
            "steps": 2000,
            "learning_rate": 0.0003,
            "schedule": "linear",
            "ema": 0.99,
            "evaluate_every": 50
        }
    }
];

/** Time of the generator's part of an update in that of the assistant's; measured with the demo model and guidance. */
const GENERATOR_PART = 2;

/** How long a run takes, in units that mean nothing by themselves. */
export function effort({ objective, train }) {
    const pictures = objective.prompts_per_update * objective.images_per_prompt;
    return train.steps * pictures * (1 + GENERATOR_PART / objective.assistant_updates);
}

/** How the time of a preset compares with the other one's. */
export function timeText(preset) {
    const other = PRESETS.find(({ name }) => name !== preset.name);
    const ratio = effort(preset) / effort(other);
    const times = (number) => (number < 10 ? Math.round(number) : Math.round(number / 10) * 10);
    return ratio >= 1
        ? `takes about ${times(ratio)} times as long as ${other.name.toLowerCase()}`
        : `takes about 1/${times(1 / ratio)} of the time of ${other.name.toLowerCase()}`;
}

/** @returns {object} the values of `wanted` that a node can take and does not have yet */
export function changesOf(wanted, { values, fed }) {
    const open = Object.entries(wanted).filter(([name]) => name in values && !fed.includes(name));
    return Object.fromEntries(open.filter(([name, value]) => values[name] !== value));
}

/**
 * What a preset changes, and the line that says so.
 *
 * @param {object} preset
 * @param {Inputs} objective
 * @param {Inputs[]} trainers  every Train LoRA that learns by it
 * @returns {{objective: object, trainers: object[], text: string, wrong: boolean}}
 */
export function applied(preset, objective, trainers) {
    const { steps } = preset.train;
    const pictures = preset.objective.prompts_per_update * preset.objective.images_per_prompt;
    const fed = [
        ...Object.keys(preset.objective).filter((name) => objective.fed.includes(name)),
        ...Object.keys(preset.train).filter((name) => trainers.some((trainer) => trainer.fed.includes(name))),
    ];
    const lines = [`${preset.name}: ${steps} updates of ${pictures} pictures; ${timeText(preset)}.`];
    if (!trainers.length) lines.push("Only this node was set: connect it to Train LoRA and press again.");
    if (fed.length) lines.push(`Not set, as another node feeds it: ${[...new Set(fed)].join(", ")}.`);
    return {
        objective: changesOf(preset.objective, objective),
        trainers: trainers.map((trainer) => changesOf(preset.train, trainer)),
        text: lines.join(" "),
        wrong: !trainers.length || fed.length > 0,
    };
}

/**
 * The Train LoRA nodes behind an output, past the host's old Reroute nodes.
 *
 * @param {object} node  of the host's graph
 * @returns {object[]}
 */
export function trainersBehind(node, seen = new Set()) {
    if (seen.has(node)) return [];
    seen.add(node);
    const linkOf = (id) => node.graph?.links?.get?.(id) ?? node.graph?.links?.[id];
    const links = (node.outputs ?? []).flatMap((output) => output.links ?? []);
    const targets = links.map((id) => node.graph?.getNodeById?.(linkOf(id)?.target_id)).filter(Boolean);
    const found = targets.flatMap((target) => {
        if (target.type === TRAIN) return [target];
        return target.type === "Reroute" ? trainersBehind(target, seen) : [];
    });
    return [...new Set(found)];
}

/** @returns {Inputs} */
export function inputsOf(node) {
    const values = Object.fromEntries((node.widgets ?? []).map(({ name, value }) => [name, value]));
    const fed = (node.inputs ?? []).filter(({ widget, link }) => widget && link != null).map(({ widget }) => widget.name);
    return { values, fed };
}
