"""Inputs of Train LoRA and Compare A/B, as plain data; see `schemas`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from ...training.adapters import Kind, LoraConfig
from ...training.memory import CHECKPOINTING, CHOICES, MemorySettings
from ...training.trainer_config import Keep, Precision, Schedule
from .figures import FIGURES
from .schemas import SEED_LIMIT, TRAINER, Slot, slot
from .widgets import RUN_EXISTS

TRAIN_LORA = [
    slot("Model", "model", tooltip="What to train on. LoRAs applied to it count as part of it. It is left as it is."),
    slot("ATTUNE_OBJECTIVE", "objective", tooltip="What to learn: the output of an objective node."),
    slot(
        "String",
        "run_name",
        default="my_lora",
        tooltip="Names the run and the LoRA file. The same name with the same inputs goes on where it stopped.",
    ),
    slot(
        "Combo",
        "if_run_exists",
        options=list(RUN_EXISTS),
        default=RUN_EXISTS[0],
        tooltip="resume: go on with a run of this name, or just load it if it is done. start fresh: "
        "forget its saved state; LoRA files stay.",
    ),
    slot(
        "Int",
        "steps",
        default=TRAINER["steps"],
        min=1,
        max=1_000_000,
        tooltip="Updates in all. Raising it after a run is done continues that run (with the constant schedule).",
    ),
    slot(
        "Float",
        "learning_rate",
        default=TRAINER["learning_rate"],
        min=1e-7,
        max=1.0,
        step=1e-7,
        round=1e-7,
        tooltip="Size of each update. Raising it learns faster until it breaks; lower it if the loss "
        "explodes or pictures fall apart.",
    ),
    slot(
        "Int",
        "training_seed",
        default=TRAINER["seed"],
        min=0,
        max=SEED_LIMIT,
        tooltip="Fixes all randomness of the run: the same seed and inputs give the same LoRA on a CPU.",
    ),
    slot(
        "Int",
        "preview_every",
        default=TRAINER["sample_every"],
        min=0,
        max=100_000,
        tooltip="Updates between sample pictures with fixed prompts and seeds. Raising it saves time. 0 = none.",
    ),
    slot(
        "Int",
        "warmup_steps",
        default=TRAINER["warmup_steps"],
        min=0,
        max=100_000,
        advanced=True,
        tooltip="Updates over which the learning rate rises from 0. Raising it starts more gently. 0 = off.",
    ),
    slot(
        "Combo",
        "schedule",
        options=list(get_args(Schedule)),
        default=TRAINER["schedule"],
        advanced=True,
        tooltip="The learning rate after the warm-up: constant, or falling to 0 at the last update as a "
        "line or a cosine. Only a constant run can be continued with more steps.",
    ),
    slot(
        "Int",
        "accumulation",
        default=TRAINER["accumulation"],
        min=1,
        max=1024,
        advanced=True,
        tooltip="Batches per update. Raising it acts like a larger batch without more memory, and takes "
        "longer. 1 = off.",
    ),
    slot(
        "Float",
        "ema",
        default=TRAINER["ema"],
        min=0.0,
        max=0.9999,
        step=0.0001,
        round=0.0001,
        advanced=True,
        tooltip="Saves a running average of the LoRA instead of its last state. Raising it averages over more updates: "
        "smoother, but further behind. 0.99 averages about the last 100: for runs of several hundred. 0 = off.",
    ),
    slot(
        "Float",
        "clip_norm",
        default=TRAINER["clip_norm"],
        min=0.0,
        max=1000.0,
        step=0.01,
        round=0.01,
        advanced=True,
        tooltip="Longer gradients are shortened to this length: a guard against jumps. Raising it allows "
        "larger ones. 0 = off.",
    ),
    slot(
        "Float",
        "weight_decay",
        default=TRAINER["weight_decay"],
        min=0.0,
        max=1.0,
        step=1e-6,
        round=1e-6,
        advanced=True,
        tooltip="Pulls the LoRA towards doing nothing. Raising it counters overfitting. 0 = off.",
    ),
    slot(
        "Combo",
        "precision",
        options=list(get_args(Precision)),
        default=TRAINER["precision"],
        advanced=True,
        tooltip="auto: 16 bit on a graphics card that does it well, fp32 on a CPU. fp32 is exact, needs "
        "more memory and is slower on a card. The LoRA itself is always trained in fp32.",
    ),
    slot(
        "Float",
        "save_state_seconds",
        default=float(TRAINER["checkpoint_seconds"]),
        min=0.0,
        max=86400.0,
        step=1.0,
        advanced=True,
        tooltip="Seconds between saved states, for going on after a crash. Cancel always saves. Raising it "
        "writes less. 0 = after every update.",
    ),
    slot(
        "ATTUNE_LORA_SETTINGS",
        "lora_settings",
        optional=True,
        tooltip="Size and layers of the LoRA. Not connected = the defaults of LoRA Settings.",
    ),
    slot(
        "Int",
        "evaluate_every",
        default=TRAINER["evaluate_every"],
        min=0,
        max=100_000,
        optional=True,
        advanced=True,
        tooltip="Updates between evaluations: 16 pictures with fixed prompts and seeds are scored, or held-out pairs "
        "are judged. Raising it saves time. 0 = none. Supervised training has nothing to evaluate.",
    ),
    slot(
        "Combo",
        "keep",
        options=list(get_args(Keep)),
        default=TRAINER["keep"],
        optional=True,
        advanced=True,
        tooltip="Which LoRA the run gives: its last, or the best by those evaluations (by the held-out reward, if "
        "there is one). best needs evaluate_every.",
    ),
    slot(
        "Int",
        "patience",
        default=TRAINER["patience"],
        min=0,
        max=10_000,
        optional=True,
        advanced=True,
        tooltip="Ends the run after this many evaluations in a row that brought nothing better. Raising it waits "
        "longer. 0 = never. Needs evaluate_every.",
    ),
    slot(
        "Float",
        "kl_budget",
        default=TRAINER["kl_budget"],
        min=0.0,
        max=1e6,
        step=0.01,
        round=0.01,
        optional=True,
        advanced=True,
        tooltip="Ends the run when its pictures have drifted this far from the model it began with (the curve "
        f"'{FIGURES['kl_to_reference'].title}', in nats per picture). Raising it lets the model move further. It grows "
        "with sampler steps and picture size: a run with the demo model reaches about 184, so 100 to 200 is customary "
        "there; for other models read it off the curve of a first run. Supervised and Diffusion-DPO measure it on "
        "their training pictures, so that their values do not compare with other methods'. 0 = no limit.",
    ),
    slot(
        "Boolean",
        "job_file_only",
        default=False,
        optional=True,
        advanced=True,
        tooltip="On: write the job file of this run and train nothing; `run.py train job.json` then trains without a "
        "page, also on several graphics cards. Off: train here; the job file is written as well.",
    ),
    slot(
        "Combo",
        "base_precision",
        options=list(CHOICES),
        default=MemorySettings.base_precision,
        optional=True,
        advanced=True,
        tooltip="How the model's own weights are kept while the LoRA trains. as loaded: exact. nf4 takes about a "
        "quarter of 16 bit's memory and needs the Python package bitsandbytes, int8 half; both cost a little quality "
        "and time. auto: nf4 only if nothing else fits. A run keeps what it was begun with.",
    ),
    slot(
        "Combo",
        "gradient_checkpointing",
        options=list(CHECKPOINTING),
        default=MemorySettings.gradient_checkpointing,
        optional=True,
        advanced=True,
        tooltip="on: much less memory per step, about a third slower, the very same result. auto: only if a step does "
        "not fit without. off: never.",
    ),
    slot(
        "Combo",
        "trains",
        options=list(get_args(Kind)),
        default=LoraConfig.kind,
        optional=True,
        advanced=True,
        tooltip="low rank: a LoRA, a small addition to the chosen layers. full: all weights of these layers, or of the "
        "whole network where no LoRA Settings are connected. It can change more, wants a learning rate of about a "
        "tenth, and takes many times the memory and disk space. It has no rank and no alpha. Personal DPO ignores it.",
    ),
    slot(
        "LORA_MODEL",
        "start_lora",
        optional=True,
        tooltip="A LoRA to go on with: from another Train LoRA, or a file by LoRA Catalogue. The run begins with its "
        "weights instead of an empty LoRA and gives a new one; model, without it, stays what the run keeps to. Wants "
        "the same LoRA Settings. Multi-Round Objective brings its own from the second learning round on. Not connected "
        "= begin anew.",
    ),
]


def compare_ab(samplers: Sequence[str], schedulers: Sequence[str]) -> list[Slot]:
    return [
        slot("Model", "model_a", tooltip="Before: usually the model as loaded."),
        slot("Model", "model_b", tooltip="After: usually the output of Train LoRA or a LoRA loader."),
        slot("Clip", "clip", tooltip="Text encoder of both models."),
        slot("Vae", "vae", tooltip="VAE of both models."),
        slot(
            "Latent",
            "latent",
            tooltip="An Empty Latent Image: the size of the pictures. Its batch size and content do not matter.",
        ),
        slot("ATTUNE_REWARD", "reward", tooltip="The judge of both."),
        slot(
            "String",
            "prompts",
            multiline=True,
            default="",
            placeholder="prompts to compare on, one per line",
            tooltip="One prompt per line. Prompts that were not trained on show whether the change carries over.",
        ),
        slot(
            "String",
            "negative",
            multiline=True,
            default="",
            placeholder="negative prompt",
            tooltip="Negative prompt of all pictures. Empty = none.",
        ),
        slot(
            "Int",
            "first_seed",
            default=0,
            min=0,
            max=SEED_LIMIT,
            tooltip="Seed of the first column; the others count up. Each picture equals KSampler's with that "
            "seed and batch size 1.",
        ),
        slot(
            "Int",
            "images_per_prompt",
            default=4,
            min=1,
            max=64,
            tooltip="Columns. Raising it makes the figures more certain and takes longer; diversity needs 2.",
        ),
        slot(
            "Int",
            "steps",
            default=20,
            min=1,
            max=1000,
            tooltip="Sampler steps, as in KSampler. Raising it takes longer in proportion.",
        ),
        slot(
            "Float",
            "cfg",
            default=5.0,
            min=1.0,
            max=100.0,
            step=0.5,
            tooltip="Guidance scale, as in KSampler. Raising it follows the prompt more closely. 1 = off.",
        ),
        slot(
            "Combo",
            "sampler_name",
            options=samplers,
            default="euler",
            tooltip="The sampler, as in "
            "KSampler. With an ancestral one, later pictures of a column depend on the seed of the first.",
        ),
        slot(
            "Combo",
            "scheduler",
            options=schedulers,
            default="normal",
            tooltip="How the steps are spread over the noise levels, as in KSampler.",
        ),
        slot(
            "ATTUNE_REWARD",
            "held_out_reward",
            optional=True,
            tooltip="A second judge, which training never saw. Its scores stand second under the pictures.",
        ),
    ]
