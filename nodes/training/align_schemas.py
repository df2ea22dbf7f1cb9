"""Inputs of Diffusion-DPO Objective, Pairs from Scores and ReFL Objective, as plain data; see `schemas`."""

from __future__ import annotations

import dataclasses
from typing import get_args

from ...training.objectives.diffusion_dpo import DiffusionDPOConfig
from ...training.objectives.refl import Mode, ReFLConfig
from .pairs import PAIRINGS
from .plan_dpo import HELD_OUT
from .schemas import HELD_OUT_REWARD, PREVIEW, practice, slot

DPO, REFL = (
    {field.name: field.default for field in dataclasses.fields(kind)} for kind in (DiffusionDPOConfig, ReFLConfig)
)

DPO_OBJECTIVE = [
    slot(
        "Image",
        "chosen",
        tooltip="The preferred pictures: a batch or a list. The first belongs to the first rejected one, and so on. "
        "From Pairs from Scores, Pairs from Profile, or a folder of your own.",
    ),
    slot(
        "Image",
        "rejected",
        tooltip="The other picture of each pair, in the same order, as many as there are chosen ones.",
    ),
    slot("Clip", "clip", tooltip="The text encoder of the model that will be trained."),
    slot("Vae", "vae", tooltip="The VAE of the model that will be trained."),
    slot(
        "String",
        "captions",
        multiline=True,
        default="",
        placeholder="what both pictures of a pair were to show: one line for all, or one line per pair",
        tooltip="The prompt of each pair: one line for all, or one line per pair in the same order. Or connect the "
        "captions of the node that makes the pairs.",
    ),
    slot(
        "Int",
        "resolution",
        default=512,
        min=0,
        max=4096,
        step=8,
        tooltip="In pixels: every picture is scaled to about this number squared, keeping its proportions. Raising it "
        "shows more detail and costs memory with its square. 0 = leave sizes as they are.",
    ),
    slot(
        "Int",
        "pairs_per_update",
        default=DPO["batch"],
        min=1,
        max=256,
        tooltip="Pairs that each update learns from. Raising it makes learning steadier and slower per update.",
    ),
    slot(
        "Float",
        "beta",
        default=DPO["beta"],
        min=1.0,
        max=100_000.0,
        step=100.0,
        tooltip="How tightly the model is held to what it was. Raising it stays closer; lowering it changes pictures "
        "more and breaks sooner. 5000 is customary for large models, 500 to 2000 for small ones.",
    ),
    slot(
        "Float",
        "held_out",
        default=HELD_OUT,
        min=0.0,
        max=0.9,
        step=0.05,
        tooltip="Share of the pairs that is never learned from and tells whether the taste carries over. Pairs with a "
        "prompt or a picture in common stay together. Raising it measures better and learns from less. 0 = none.",
    ),
    slot(
        "Float",
        "caption_dropout",
        default=DPO["caption_dropout"],
        min=0.0,
        max=1.0,
        step=0.05,
        advanced=True,
        tooltip="Share of pairs learned without their caption; some keeps guidance (CFG) working. Raising it makes the "
        "taste act without words. 0 = off.",
    ),
    slot(
        "Int",
        "chunk",
        default=DPO["chunk"],
        min=1,
        max=256,
        advanced=True,
        tooltip="Pairs per call of the network. Lower it if memory runs out: the method stays the same, and a run that "
        "has begun goes on.",
    ),
    slot(
        "Int",
        "held_out_levels",
        default=DPO["held_out_levels"],
        min=1,
        max=64,
        advanced=True,
        tooltip="Noise levels at which each held-out pair is measured. Raising it makes the figure steadier and each "
        "measurement slower.",
    ),
    slot(
        "String",
        "preview_prompts",
        multiline=True,
        default="",
        placeholder="prompts of the pictures shown while training (empty = the first captions)",
        tooltip="Up to 4 prompts, one per line, whose pictures are shown while training. Empty = the first captions. "
        "They change nothing in what is learned.",
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

PAIRS_FROM_SCORES = [
    slot(
        "Image",
        "images",
        tooltip="Several pictures of each prompt: a batch, or a list with one batch per prompt. Pairs are only made of "
        "pictures with the same prompt.",
    ),
    slot("ATTUNE_REWARD", "reward", tooltip="The judge: of two pictures the one with the better score is chosen."),
    slot(
        "String",
        "prompts",
        multiline=True,
        default="",
        placeholder="what the pictures were to show: one line for all, per batch or per picture",
        tooltip="One line for all pictures, one per batch, or one per picture, in their order. Or connect the prompts "
        "they were made with.",
    ),
    slot(
        "Combo",
        "pairing",
        options=list(PAIRINGS),
        default=PAIRINGS[0],
        tooltip="each picture once: the best with the worst, the second best with the second worst … best against "
        "worst: one pair per prompt, the clearest. all: every two pictures of a prompt; many pairs that say much the "
        "same.",
    ),
    slot(
        "Float",
        "least_margin",
        default=0.0,
        min=0.0,
        max=1000.0,
        step=0.0001,
        round=0.0001,
        tooltip="Scores that differ by no more than this are a tie and make no pair, in the reward's own unit "
        "(deviations if it is calibrated). Raising it keeps only clear cases. 0 = only equal scores are ties.",
    ),
]

REFL_OBJECTIVE = [
    *practice(
        "What to raise. It must be differentiable: most image statistics and CLIP-like rewards are, words in "
        "pictures and vision-language models are not."
    ),
    slot(
        "Combo",
        "mode",
        options=list(get_args(Mode)),
        default=REFL["mode"],
        tooltip="refl: look at the picture that the model expects at a step drawn near the end; cheap and forgiving. "
        "draft: finish the picture and learn through its last steps; sharper, and quicker to fool the reward.",
    ),
    slot(
        "Int",
        "prompts_per_update",
        default=REFL["prompts_per_update"],
        min=1,
        max=256,
        tooltip="How many prompts each update draws. Raising it makes learning steadier and updates slower.",
    ),
    slot(
        "Int",
        "images_per_prompt",
        default=REFL["images_per_prompt"],
        min=1,
        max=256,
        tooltip="Pictures per prompt and update. Raising it makes learning steadier and updates slower; diversity is "
        "shown from 2 on.",
    ),
    slot(
        "Int",
        "sampler_steps",
        default=REFL["steps"],
        min=2,
        max=200,
        tooltip="Sampler steps of the practice pictures. Raising it improves them and costs time in proportion.",
    ),
    slot(
        "Float",
        "cfg",
        default=REFL["guidance"],
        min=1.0,
        max=30.0,
        step=0.5,
        tooltip="Guidance scale, in practice and in training; use the one you will sample with. Raising it follows the "
        "prompt more closely. 1 = off, twice as fast.",
    ),
    slot(
        "Int",
        "stop_from",
        default=REFL["stop_from"],
        min=0,
        max=199,
        tooltip="Mode refl: the earliest step to stop at, counted from 0. Lowering it learns composition from a "
        "blurred guess; too low, the reward judges mush. Three quarters of sampler_steps is customary.",
    ),
    slot(
        "Int",
        "stop_to",
        default=REFL["stop_to"],
        min=0,
        max=199,
        tooltip="Mode refl: the latest step to stop at, at most sampler_steps - 1. Raising it towards that learns "
        "finer detail.",
    ),
    slot(
        "Int",
        "last_steps",
        default=REFL["last_steps"],
        min=1,
        max=200,
        tooltip="Mode draft: how many of the last steps are learned through. Raising it reaches composition and takes "
        "longer, without more memory. 1 changes fine detail only, and is fastest.",
    ),
    slot(
        "Float",
        "margin",
        default=REFL["margin"],
        min=-1000.0,
        max=1000.0,
        step=0.0001,
        round=0.0001,
        tooltip="Mode refl: pictures whose score reaches this teach nothing more. In the reward's unit: deviations if "
        "calibrated; for a cost, minus the cost. Raising it never lets go; too low, nothing is learned.",
    ),
    slot(
        "Float",
        "weight",
        default=REFL["weight"],
        min=1e-6,
        max=1000.0,
        step=1e-6,
        round=1e-6,
        advanced=True,
        tooltip="Mode refl: factor of the loss. It matters only beside clip_norm and weight decay: raising it lets "
        "gradients reach the length at which they are cut.",
    ),
    slot(
        "Int",
        "chunk",
        default=REFL["chunk"],
        min=1,
        max=256,
        advanced=True,
        tooltip="Pictures per call of the network. Lower it if memory runs out: the method stays the same, and a run "
        "that has begun goes on.",
    ),
    HELD_OUT_REWARD,
]
