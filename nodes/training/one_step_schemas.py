"""Inputs of Diff-Instruct* Objective, as plain data; see `schemas`."""

from __future__ import annotations

import dataclasses
from typing import get_args

from ...training.objectives.diff_instruct_config import DiffInstructConfig, GuidanceAs
from ...training.objectives.diff_instruct_losses import DISTANCES
from .schemas import HELD_OUT_REWARD, practice, slot

DEFAULTS = {field.name: field.default for field in dataclasses.fields(DiffInstructConfig)}

DIFF_INSTRUCT_OBJECTIVE = [
    *practice(
        "What people would prefer. With reward_weight 0 it is only shown. One without a gradient (words in "
        "pictures, vision-language models) is felt for by probes, which is slow."
    ),
    slot(
        "Int",
        "prompts_per_update",
        default=DEFAULTS["prompts_per_update"],
        min=1,
        max=1024,
        tooltip="How many prompts each update draws. Raising it makes learning steadier and updates slower.",
    ),
    slot(
        "Int",
        "images_per_prompt",
        default=DEFAULTS["images_per_prompt"],
        min=1,
        max=256,
        tooltip="Pictures per prompt and update. More prompts teach more than more pictures of each. Raising it makes "
        "updates slower; diversity is shown from 2 on.",
    ),
    slot(
        "Int",
        "init_timestep",
        default=DEFAULTS["init_timestep"],
        min=0,
        max=999,
        tooltip="Where the one call of the network stands: 999 is pure noise. 625 suits models that predict noise "
        "(Stable Diffusion 1.5, SDXL). Raising it lets the noise decide more, for models that predict v or flow. "
        "One-Step Sampler reads it from the LoRA.",
    ),
    slot(
        "Float",
        "cfg",
        default=DEFAULTS["guidance"],
        min=1.0,
        max=30.0,
        step=0.5,
        tooltip="Guidance scale of the teacher; the one-step model has it built in and needs none. Raising it follows "
        "prompts more closely and strengthens colours. 1 = off.",
    ),
    slot(
        "Combo",
        "guidance_as",
        options=list(get_args(GuidanceAs)),
        default=DEFAULTS["guidance_as"],
        advanced=True,
        tooltip="in: the teacher's predictions are guided. out: guidance is a reward beside the unguided teacher, "
        "which nothing holds back: use a lower cfg.",
    ),
    slot(
        "Combo",
        "distance",
        options=list(DISTANCES),
        default=DEFAULTS["distance"],
        tooltip="How generator and teacher are compared. pseudo-huber: Diff-Instruct*. l2: the same without a limit on "
        "large differences. kl: Diff-Instruct++, the cheapest.",
    ),
    slot(
        "Float",
        "reward_weight",
        default=DEFAULTS["reward_weight"],
        min=0.0,
        max=10000.0,
        step=0.1,
        round=0.1,
        tooltip="How much the reward counts beside the teacher. Raising it pleases the reward more, until pictures "
        "turn alike or garish. 0 = a faithful one-step copy.",
    ),
    slot(
        "Int",
        "reward_from",
        default=DEFAULTS["reward_from"],
        min=0,
        max=1000000,
        tooltip="Updates before the reward begins to count: first a good one-step model, then a preferred one. A third "
        "of the run is a good start. 0 = from the beginning.",
    ),
    slot(
        "Int",
        "reward_rise",
        default=DEFAULTS["reward_rise"],
        min=0,
        max=1000000,
        tooltip="Updates over which reward_weight then rises from nothing. Raising it is gentler. 0 = at once.",
    ),
    slot(
        "Int",
        "assistant_updates",
        default=DEFAULTS["assistant_updates"],
        min=1,
        max=100,
        tooltip="Updates of the assistant for one of the generator. Raise it (to 5) if the assistant's loss climbs or "
        "pictures become alike; the run then takes as many times longer.",
    ),
    slot(
        "Float",
        "assistant_learning_rate",
        default=DEFAULTS["assistant_learning_rate"],
        min=1e-7,
        max=1.0,
        step=1e-7,
        round=1e-7,
        tooltip="Learning rate of the assistant; it follows the schedule of Train LoRA. At least that of the LoRA: the "
        "assistant must keep up. Raising it keeps pictures more varied, until its loss jumps.",
    ),
    slot(
        "Int",
        "sampler_steps",
        default=DEFAULTS["steps"],
        min=2,
        max=200,
        tooltip="Sampler steps of the teacher's pictures that are shown beside the generator's. Learning needs none. "
        "Raising it costs time once per run.",
    ),
    slot(
        "Float",
        "guard_diversity",
        default=DEFAULTS["guard_diversity"],
        min=0.0,
        max=0.99,
        step=0.05,
        tooltip="The run ends, and keeps the last good weights, when pictures of a prompt differ less than this share "
        "of what the teacher's do. Raising it stops sooner. Looks at every evaluation (evaluate_every). 0 = off.",
    ),
    slot(
        "Float",
        "guard_saturation",
        default=DEFAULTS["guard_saturation"],
        min=0.0,
        max=1.0,
        step=0.05,
        tooltip="The same when colours are stronger than the teacher's by this much (1 = from grey to pure colours). "
        "Lowering it stops sooner. 0 = off.",
    ),
    slot(
        "Float",
        "coefficient",
        default=DEFAULTS["coefficient"],
        min=0.0,
        max=2.0,
        step=0.05,
        advanced=True,
        tooltip="For pseudo-huber and l2. 1: the paper's; 1.2: SiD's; 0.5: the plain derivative. Raising it "
        "follows the assistant less.",
    ),
    slot(
        "Float",
        "huber_constant",
        default=DEFAULTS["huber_constant"],
        min=0.0,
        max=1000.0,
        step=0.001,
        round=0.001,
        advanced=True,
        tooltip="For pseudo-huber: differences well below it count as in l2. Raising it is gentler near the end. "
        "0 = by the size of the pictures.",
    ),
    slot(
        "Int",
        "assistant_warmup",
        default=DEFAULTS["assistant_warmup"],
        min=0,
        max=1000000,
        advanced=True,
        tooltip="Updates at the start in which only the assistant learns. Raise it if a run begins with a jump. "
        "0 = both from the start.",
    ),
    slot(
        "Float",
        "noise_from",
        default=DEFAULTS["noise_from"],
        min=0.0,
        max=0.99,
        step=0.01,
        advanced=True,
        tooltip="Lowest noise at which the two are compared, as a share of the model's levels. Lowering it cares for "
        "the finest detail.",
    ),
    slot(
        "Float",
        "noise_to",
        default=DEFAULTS["noise_to"],
        min=0.01,
        max=1.0,
        step=0.01,
        advanced=True,
        tooltip="Highest noise at which they are compared. Raising it cares for composition and variety.",
    ),
    slot(
        "Int",
        "probes",
        default=DEFAULTS["probes"],
        min=2,
        max=1024,
        advanced=True,
        tooltip="For rewards without a gradient: slightly changed copies of every picture that are scored. Raising it "
        "learns more surely; every one costs a score.",
    ),
    slot(
        "Float",
        "probe_deviation",
        default=DEFAULTS["probe_deviation"],
        min=0.001,
        max=10.0,
        step=0.001,
        round=0.001,
        advanced=True,
        tooltip="How much those copies differ, in deviations of the latent. Raising it smooths a reward that jumps, "
        "and blurs what it says.",
    ),
    slot(
        "Int",
        "chunk",
        default=DEFAULTS["chunk"],
        min=1,
        max=1024,
        advanced=True,
        tooltip="Pictures per call of the network. Lower it if memory runs out: the method stays the same, and a run "
        "that has begun goes on.",
    ),
    HELD_OUT_REWARD,
]
