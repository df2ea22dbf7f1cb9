/** What a run's figures are called and mean. Written by `nodes/training/figures_pages.py`. */

export const FIGURES = {
    "reward": {
        "title": "Reward",
        "meaning": "Mean reward of the pictures made for one update: what the run learns to raise.",
        "better": "up",
        "format": "number",
        "smooth": true,
        "includes": [],
        "line": null,
        "minor": false,
        "colour": "#4fb6f5"
    },
    "held_out_reward": {
        "title": "Held-out reward",
        "meaning": "Mean score of the same pictures by the judge that is never learned from. If it falls while the reward rises, the run is fooling its reward: stop.",
        "better": "up",
        "format": "number",
        "smooth": true,
        "includes": [],
        "line": null,
        "minor": false,
        "colour": "#b79cf7"
    },
    "held_out_accuracy": {
        "title": "Held-out accuracy",
        "meaning": "Share of the pairs that are never learned from in which the chosen picture is preferred. Half is chance.",
        "better": "up",
        "format": "percent",
        "smooth": true,
        "includes": [
            0.5,
            1.0
        ],
        "line": 0.5,
        "minor": false,
        "colour": "#6ecb8b"
    },
    "accuracy": {
        "title": "Accuracy",
        "meaning": "Share of the pairs of one update in which the chosen picture is preferred. Half is chance.",
        "better": "up",
        "format": "percent",
        "smooth": true,
        "includes": [
            0.5,
            1.0
        ],
        "line": 0.5,
        "minor": false,
        "colour": "#4fb6f5"
    },
    "margin": {
        "title": "Margin",
        "meaning": "By how much the chosen pictures are preferred over the others. 0 = not at all, as before training.",
        "better": "up",
        "format": "number",
        "smooth": true,
        "includes": [
            0.0
        ],
        "line": 0.0,
        "minor": false,
        "colour": "#56c5c6"
    },
    "held_out_margin": {
        "title": "Held-out margin",
        "meaning": "The margin of the pairs that are never learned from. If it falls while the margin rises, the pairs are being learned by heart: stop.",
        "better": "up",
        "format": "number",
        "smooth": true,
        "includes": [
            0.0
        ],
        "line": 0.0,
        "minor": false,
        "colour": "#b79cf7"
    },
    "diversity": {
        "title": "Diversity",
        "meaning": "How much pictures of the same prompt differ. If it falls towards 0, they all become one picture.",
        "better": "up",
        "format": "number",
        "smooth": true,
        "includes": [
            0.0
        ],
        "line": null,
        "minor": false,
        "colour": "#6ecb8b"
    },
    "kl_to_reference": {
        "title": "Drift from base",
        "meaning": "How far the LoRA has moved the sampling away from the base model (KL divergence, in nats). 0 = not at all; a steep rise warns of broken pictures. Methods that make no pictures measure it on those of training.",
        "better": "",
        "format": "number",
        "smooth": true,
        "includes": [
            0.0
        ],
        "line": null,
        "minor": false,
        "colour": "#ef8fa6"
    },
    "residual": {
        "title": "Residual",
        "meaning": "How far the model is from making pictures in proportion to their reward: what DAG brings to 0.",
        "better": "down",
        "format": "number",
        "smooth": true,
        "includes": [
            0.0
        ],
        "line": null,
        "minor": false,
        "colour": "#d9c66c"
    },
    "effective_sample_size": {
        "title": "Effective sample size",
        "meaning": "How evenly the latest pictures count for DAG; near 0 a few outweigh all others. With convention mean it is taken per latent value and lies near 100 %: if it falls, lower beta or let it rise more slowly.",
        "better": "up",
        "format": "percent",
        "smooth": true,
        "includes": [
            0.0,
            1.0
        ],
        "line": null,
        "minor": false,
        "colour": "#56c5c6"
    },
    "loss": {
        "title": "Loss",
        "meaning": "What one update makes smaller. It should fall when learning from pictures or pairs; when learning from a reward it says little.",
        "better": "",
        "format": "number",
        "smooth": true,
        "includes": [],
        "line": null,
        "minor": false,
        "colour": "#f2a65a"
    },
    "flow_loss": {
        "title": "Flow loss",
        "meaning": "How badly DAG's own small network still estimates what a half-finished picture is worth.",
        "better": "down",
        "format": "number",
        "smooth": true,
        "includes": [
            0.0
        ],
        "line": null,
        "minor": false,
        "colour": "#e59a68"
    },
    "distance": {
        "title": "Distance from teacher",
        "meaning": "How far the one-step pictures are from what the teacher would draw, under noise, as the assistant knows them. It falls fast at first; with a reward it may rise again.",
        "better": "down",
        "format": "number",
        "smooth": true,
        "includes": [
            0.0
        ],
        "line": null,
        "minor": false,
        "colour": "#56c5c6"
    },
    "assistant_loss": {
        "title": "Assistant's loss",
        "meaning": "How badly the assistant knows the generator's newest pictures. If it climbs, the assistant has lost track: raise assistant_updates or assistant_learning_rate.",
        "better": "down",
        "format": "number",
        "smooth": true,
        "includes": [
            0.0
        ],
        "line": null,
        "minor": false,
        "colour": "#e59a68"
    },
    "saturation": {
        "title": "Saturation",
        "meaning": "How strong the colours are: 0 = grey, 1 = pure colours. Far above the teacher's, they have run away.",
        "better": "",
        "format": "number",
        "smooth": true,
        "includes": [
            0.0
        ],
        "line": null,
        "minor": false,
        "colour": "#d9c66c"
    },
    "reward_weight": {
        "title": "Reward strength",
        "meaning": "How much the reward counts at present beside the teacher. It rises to its final value during the run.",
        "better": "",
        "format": "number",
        "smooth": false,
        "includes": [
            0.0
        ],
        "line": null,
        "minor": true,
        "colour": "#c58be0"
    },
    "beta": {
        "title": "Reward strength",
        "meaning": "How strongly DAG prefers pictures with a high reward at present (β). It rises to its final value during the run.",
        "better": "",
        "format": "number",
        "smooth": false,
        "includes": [
            0.0
        ],
        "line": null,
        "minor": false,
        "colour": "#c58be0"
    },
    "clipped": {
        "title": "Clipped",
        "meaning": "Share of the steps whose change was too large for one update and was cut. If most are, lower the learning rate.",
        "better": "",
        "format": "percent",
        "smooth": true,
        "includes": [
            0.0
        ],
        "line": null,
        "minor": true,
        "colour": "#d9c66c"
    },
    "blocked": {
        "title": "Blocked pictures",
        "meaning": "How many pictures of one update the safety gate held back. Nothing is learned from them.",
        "better": "down",
        "format": "count",
        "smooth": true,
        "includes": [
            0.0
        ],
        "line": null,
        "minor": false,
        "colour": "#ef7d7d"
    },
    "chosen_reward": {
        "title": "Reward of the chosen",
        "meaning": "By how much better than the base model the LoRA draws the chosen pictures. Below 0, it draws them worse.",
        "better": "up",
        "format": "number",
        "smooth": true,
        "includes": [
            0.0
        ],
        "line": 0.0,
        "minor": true,
        "colour": "#6ecb8b"
    },
    "rejected_reward": {
        "title": "Reward of the others",
        "meaning": "The same for the pictures that were not chosen. It should lie below the reward of the chosen.",
        "better": "",
        "format": "number",
        "smooth": true,
        "includes": [
            0.0
        ],
        "line": 0.0,
        "minor": true,
        "colour": "#ef8fa6"
    },
    "below_margin": {
        "title": "Below the margin",
        "meaning": "Share of one update's pictures that have not reached margin yet: ReFL learns from these alone. At 0 nothing is learned; if it is 0 from the start, the margin is too low.",
        "better": "",
        "format": "percent",
        "smooth": true,
        "includes": [
            0.0,
            1.0
        ],
        "line": null,
        "minor": false,
        "colour": "#e59a68"
    },
    "policy_loss": {
        "title": "Policy loss",
        "meaning": "DAG-KL's loss for the LoRA alone, without that of its small network. It compares pictures of one update with each other, so it stays about 0 and need not fall.",
        "better": "",
        "format": "number",
        "smooth": true,
        "includes": [
            0.0
        ],
        "line": 0.0,
        "minor": true,
        "colour": "#aab3c0"
    },
    "ratio": {
        "title": "Probability ratio",
        "meaning": "How much more likely the present model is to make its latest pictures than the one that made them. 1 = equally.",
        "better": "",
        "format": "number",
        "smooth": true,
        "includes": [
            1.0
        ],
        "line": 1.0,
        "minor": true,
        "colour": "#aab3c0"
    },
    "log_probability_change": {
        "title": "Change of probability",
        "meaning": "How much one round of updates changed how likely its pictures are (logarithm). 0 = not at all.",
        "better": "",
        "format": "number",
        "smooth": true,
        "includes": [
            0.0
        ],
        "line": null,
        "minor": true,
        "colour": "#aab3c0"
    },
    "reward_deviation": {
        "title": "Spread of rewards",
        "meaning": "How much the rewards of one update's pictures differ (standard deviation). At 0 there is nothing to learn from.",
        "better": "",
        "format": "number",
        "smooth": true,
        "includes": [
            0.0
        ],
        "line": null,
        "minor": true,
        "colour": "#aab3c0"
    },
    "gradient_norm": {
        "title": "Gradient length",
        "meaning": "How strongly one update pulls at the LoRA, before clip_norm. Sudden peaks warn of an unstable run.",
        "better": "",
        "format": "number",
        "smooth": true,
        "includes": [
            0.0
        ],
        "line": null,
        "minor": true,
        "colour": "#aab3c0"
    },
    "learning_rate": {
        "title": "Learning rate",
        "meaning": "Size of the updates, after warm-up and schedule.",
        "better": "",
        "format": "number",
        "smooth": false,
        "includes": [
            0.0
        ],
        "line": null,
        "minor": true,
        "colour": "#aab3c0"
    },
    "rollouts": {
        "title": "Pictures made",
        "meaning": "Pictures made to learn from since the run began.",
        "better": "",
        "format": "count",
        "smooth": false,
        "includes": [
            0.0
        ],
        "line": null,
        "minor": true,
        "colour": "#aab3c0"
    },
    "reward_calls": {
        "title": "Reward calls",
        "meaning": "Pictures that the reward has scored since the run began.",
        "better": "",
        "format": "count",
        "smooth": false,
        "includes": [
            0.0
        ],
        "line": null,
        "minor": true,
        "colour": "#aab3c0"
    }
};

export const PREFIXES = [
    {
        "prefix": "evaluation_",
        "title": "Test {}",
        "meaning": "{} Measured on fixed prompts and seeds, with the weights as they would be saved."
    },
    {
        "prefix": "teacher_",
        "title": "Teacher's {}",
        "meaning": "{} Of the teacher's pictures, to compare with."
    },
    {
        "prefix": "held_out_",
        "title": "Held-out {}",
        "meaning": "{} Measured on what is never learned from."
    }
];

export const NOT_DRAWN = [
    "best_step",
    "step"
];

export const EVALUATION = "evaluation_";

export const MOST_FIRST = 4;
