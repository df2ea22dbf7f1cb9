"""Inputs of the settings and objective nodes, as plain data: what each is called, means and defaults to.

Every widget that sets a field of a configuration takes its default from that dataclass. Saved workflows hold widgets by
position: append, never insert or reorder.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from ...training.adapters import PARTS, LoraConfig
from ...training.objectives.ddpo import DDPOConfig
from ...training.objectives.supervised import SupervisedConfig
from ...training.objectives.transitions import STEP_WEIGHTS
from ...training.trainer import TrainerConfig
from .plans import PreviewSettings
from .widgets import TARGET_WIDGETS


class Slot(NamedTuple):
    """One input: the host's type by name (`io.Int` is "Int", others are custom types), its id, its keywords."""

    kind: str
    id: str
    keywords: dict[str, Any]


def slot(kind: str, id: str, **keywords: Any) -> Slot:
    return Slot(kind, id, keywords)


def _defaults(config: type) -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(config)}


LORA, SUPERVISED, DDPO, TRAINER = map(_defaults, (LoraConfig, SupervisedConfig, DDPOConfig, TrainerConfig))
PREVIEW = _defaults(PreviewSettings)
SEED_LIMIT = 2**53 - 1  # larger ones do not survive a web page's numbers

_TARGET_TOOLTIPS = {
    "cross_attention": "Layers where the picture looks at the prompt: what words mean. The smallest useful choice.",
    "self_attention": "Layers where the picture looks at itself: composition and style.",
    "feed_forward": "The large layers after attention. Stronger, with a LoRA about twice as big.",
    "projection": "Entrance and exit of the attention blocks. Small.",
    "convolution": "Convolutions of U-Nets: texture and fine detail. Transformers have none.",
    "timestep": "Layers that react to the noise level. Rarely needed.",
    "everything": "All of the above and whatever else can carry a LoRA. The largest file.",
}

LORA_SETTINGS = [
    slot(
        "Int",
        "rank",
        default=LORA["rank"],
        min=1,
        max=512,
        tooltip="Width of the LoRA. Raising it lets the LoRA learn more and makes the file larger in "
        "proportion. 4 to 16 suits a style or a reward.",
    ),
    slot(
        "Float",
        "alpha",
        default=LORA["alpha"],
        min=0.0,
        max=512.0,
        step=0.5,
        tooltip="Strength: the LoRA acts times alpha / rank. Raising it acts like a higher learning rate. "
        "0 = the same as rank.",
    ),
    slot(
        "Float",
        "dropout",
        default=LORA["dropout"],
        min=0.0,
        max=0.9,
        step=0.05,
        tooltip="Share of a layer's inputs hidden from the LoRA while it trains. Raising it counters "
        "overfitting to few pictures. 0 = off.",
    ),
    *(
        slot("Boolean", widget, default=name in LORA["targets"], tooltip=_TARGET_TOOLTIPS[widget])
        for widget, name in TARGET_WIDGETS.items()
    ),
    slot(
        "Combo",
        "part",
        options=list(PARTS),
        default=LORA["part"],
        optional=True,
        tooltip="Where in a U-Net the chosen layers must lie. up path: the blocks that draw the picture, for a small "
        "LoRA that learns in seconds. down path: those that read it. Models without such paths (SD3, Flux) need whole "
        "network.",
    ),
]

SUPERVISED_OBJECTIVE = [
    slot("Image", "images", tooltip="The pictures to learn: a batch, or the list of a folder loader."),
    slot("Clip", "clip", tooltip="The text encoder of the model that will be trained."),
    slot("Vae", "vae", tooltip="The VAE of the model that will be trained."),
    slot(
        "String",
        "captions",
        multiline=True,
        default="",
        placeholder="what the pictures show: one line for all, or one line per picture",
        tooltip="What the pictures show: one line for all, or one line per picture in the same order. Or "
        "connect the texts of a folder loader.",
    ),
    slot(
        "String",
        "trigger",
        default="",
        tooltip="Words put before every caption, by which you call the style later. Empty = none.",
    ),
    slot(
        "Int",
        "resolution",
        default=512,
        min=0,
        max=4096,
        step=8,
        tooltip="In pixels: every picture is scaled to about this number squared, keeping its proportions. "
        "Raising it shows more detail and costs memory with its square. 0 = leave sizes as they are.",
    ),
    slot(
        "Int",
        "batch_size",
        default=SUPERVISED["batch"],
        min=1,
        max=256,
        tooltip="Pictures per update. Raising it makes learning steadier, slower per update and hungrier for memory.",
    ),
    slot(
        "Float",
        "caption_dropout",
        default=SUPERVISED["caption_dropout"],
        min=0.0,
        max=1.0,
        step=0.05,
        tooltip="Share of pictures learned without their caption. Raising it makes the style act without "
        "words; some keeps guidance (CFG) working. 0 = off.",
    ),
    slot(
        "Float",
        "min_snr_gamma",
        default=SUPERVISED["min_snr_gamma"],
        min=0.0,
        max=100.0,
        step=0.05,
        advanced=True,
        tooltip="Evens out how much each noise level counts, for faster learning. Lower values level more; "
        "5 is customary. 0 = off. Flow models ignore it.",
    ),
    slot(
        "String",
        "preview_prompts",
        multiline=True,
        default="",
        placeholder="prompts of the pictures shown while training (empty = the first captions)",
        tooltip="Up to 4 prompts, one per line, whose pictures are shown while training. Empty = the first "
        "captions. They change nothing in what is learned.",
    ),
    slot(
        "Int",
        "preview_steps",
        default=PREVIEW["steps"],
        min=1,
        max=200,
        advanced=True,
        tooltip="Sampler steps of those pictures. Raising it makes them finer and each preview slower.",
    ),
    slot(
        "Float",
        "preview_cfg",
        default=PREVIEW["guidance"],
        min=1.0,
        max=30.0,
        step=0.5,
        advanced=True,
        tooltip="Guidance scale of those pictures, as in KSampler; use the one you will sample with. Raising it "
        "follows the prompt more closely. It changes nothing in what is learned. 1 = off.",
    ),
]


def practice(reward: str = "What to raise: any reward of the pack.") -> list[Slot]:
    """The first inputs of every method that practises on prompts for a reward; `reward`: the tooltip of that one."""
    return [
        slot("Clip", "clip", tooltip="The text encoder of the model that will be trained."),
        slot("Vae", "vae", tooltip="The VAE of the model that will be trained."),
        slot(
            "Latent",
            "latent",
            tooltip="An Empty Latent Image: its width and height are those of the practice pictures. Larger "
            "ones take longer. Batch size and content do not matter.",
        ),
        slot("ATTUNE_REWARD", "reward", tooltip=reward),
        slot(
            "String",
            "prompts",
            multiline=True,
            default="",
            placeholder="prompts to practise on, one per line",
            tooltip="What to practise on, one prompt per line. More variety carries over to more prompts.",
        ),
        slot(
            "String",
            "negative",
            multiline=True,
            default="",
            placeholder="negative prompt",
            tooltip="Negative prompt of the practice pictures, as in KSampler. Empty = none.",
        ),
    ]


# The last of them.
HELD_OUT_REWARD = slot(
    "ATTUNE_REWARD",
    "held_out_reward",
    optional=True,
    tooltip="A second opinion that is reported and never optimised. If it falls while the reward rises, the model is "
    "gaming the reward.",
)

DDPO_OBJECTIVE = [
    *practice(),
    slot(
        "Int",
        "prompts_per_update",
        default=DDPO["prompts_per_update"],
        min=1,
        max=256,
        tooltip="How many prompts each round of practice draws. Raising it makes learning steadier and rounds slower.",
    ),
    slot(
        "Int",
        "images_per_prompt",
        default=DDPO["images_per_prompt"],
        min=2,
        max=256,
        tooltip="Pictures per prompt and round; they are compared with each other, so at least 2. Raising "
        "it judges better and takes longer.",
    ),
    slot(
        "Int",
        "sampler_steps",
        default=DDPO["steps"],
        min=2,
        max=200,
        tooltip="Sampler steps of the practice pictures. Raising it improves them and costs time in proportion.",
    ),
    slot(
        "Float",
        "cfg",
        default=DDPO["guidance"],
        min=1.0,
        max=30.0,
        step=0.5,
        tooltip="Guidance scale, in practice and in training; use the one you will sample with. 1 = off, "
        "twice as fast.",
    ),
    slot(
        "Int",
        "trained_steps",
        default=DDPO["transitions"],
        min=0,
        max=200,
        tooltip="How many sampler steps of each picture are learned from, drawn at random. Fewer is faster "
        "and noisier. 0 = all.",
    ),
    slot(
        "Int",
        "updates_per_round",
        default=DDPO["updates_per_rollout"],
        min=1,
        max=32,
        tooltip="Updates learned from each round of pictures. Raising it saves sampling; too many learn "
        "from stale pictures. Leave it at 1 with accumulation, whose parts count like updates here.",
    ),
    slot(
        "Int",
        "chunk",
        default=DDPO["chunk"],
        min=1,
        max=256,
        advanced=True,
        tooltip="Pictures per call of the network. Lower it if memory runs out: the method stays the same, and a run "
        "that has begun goes on.",
    ),
    slot(
        "Float",
        "clip_range",
        default=DDPO["clip_range"],
        min=1e-6,
        max=1.0,
        step=1e-6,
        round=1e-6,
        advanced=True,
        tooltip="How far an update may move before it is held back. Raising it learns faster and less "
        "safely. Acts only with several updates per round.",
    ),
    slot(
        "Combo",
        "step_weights",
        options=list(STEP_WEIGHTS),
        default=DDPO["step_weights"],
        advanced=True,
        tooltip="balanced: every sampler step counts alike. plain: as in the paper, where the last steps can weigh far "
        "more than the others.",
    ),
    HELD_OUT_REWARD,
]
