"""Inputs of Personal DPO Objective, as plain data; see `schemas`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ...training.interfaces import AttuneError
from ...training.objectives.personal_dpo import PersonalDPOConfig
from ..personal_pairs import WIRE
from .align_schemas import DPO_OBJECTIVE
from .plan_personal import ENCODER_RATE, HELD_OUT_PEOPLE, NEW_ENCODER
from .schemas import Slot, slot

NEW = "train a new one along"
PERSONAL = {field.name: field.default for field in dataclasses.fields(PersonalDPOConfig)}
# What it has in common with Diffusion-DPO.
_DPO = {found.id: found for found in DPO_OBJECTIVE}


def check_rate(rate: float) -> None:
    """
    Raises:
        AttuneError: a new encoder would not learn.
    """
    if not rate > 0:
        raise AttuneError(
            "A new encoder that is not trained says nothing about anybody: set encoder_learning_rate above 0, for "
            f"example {ENCODER_RATE:g}, or choose an encoder that is trained already."
        )


def personal_dpo_objective(encoders: Sequence[str]) -> list[Slot]:
    """
    Args:
        encoders: names of the set encoders that there are, the demo's last.
    """
    choices = [*encoders, NEW]
    return [
        slot(
            WIRE,
            "pairs",
            tooltip="Many people's choices: from People's Choices, or People's Choices from File. 20 people with 10 "
            "pairs each are a beginning; hundreds of people are better than more pairs of each.",
        ),
        _DPO["clip"],
        _DPO["vae"],
        slot(
            "ATTUNE_REWARD",
            "features",
            tooltip="Through which eyes people's choices are read: a reward of the CLIP kind, the one that the encoder "
            "was trained with. Its own score does not count.",
        ),
        slot(
            "Combo",
            "encoder",
            options=choices,
            default=choices[-2] if encoders else NEW,
            tooltip="What turns a few choices into a taste that the adapter reads. A trained one stays as it is, and "
            "is needed again to use the adapter. 'train a new one along' saves one beside the adapter; it needs many "
            "people.",
        ),
        slot(
            "Int",
            "support_pairs",
            default=PERSONAL["support"],
            min=1,
            max=64,
            tooltip="The most choices that tell who a person is while another of theirs is learned from. Raising it "
            "prepares the adapter for people with more choices; each person must have one pair more than that to be "
            "held out.",
        ),
        _DPO["resolution"],
        _DPO["pairs_per_update"],
        slot(
            "Float",
            "beta",
            default=PERSONAL["beta"],
            min=1.0,
            max=100_000.0,
            step=1.0,
            tooltip="How tightly the model is held to what it was. Raising it stays closer; lowering it changes "
            "pictures more and breaks sooner. 5000 is the paper's value for large models; small ones need far less, "
            "the demo model 20.",
        ),
        slot(
            "Float",
            "held_out_people",
            default=HELD_OUT_PEOPLE,
            min=0.0,
            max=0.9,
            step=0.05,
            tooltip="Share of the people who are never learned from and tell whether the adapter serves strangers. "
            "Raising it measures better and learns from fewer. 0 = nobody.",
        ),
        slot(
            "Float",
            "noise_from",
            default=PERSONAL["noise_from"],
            min=0.0,
            max=0.95,
            step=0.05,
            tooltip="Share of the noise levels, from the clean end, that nothing is learned on. Raising it learns what "
            "is decided early in sampling, colours and composition, from several times fewer pairs; the demo's adapter "
            "was trained with 0.75. 0 = all levels, as in the paper.",
        ),
        slot(
            "Float",
            "user_dropout",
            default=PERSONAL["user_dropout"],
            min=0.0,
            max=0.95,
            step=0.05,
            advanced=True,
            tooltip="Share of pairs that are shown without their person. They teach nothing here, since without a "
            "person the model is exactly the base model: raising it only slows the run down. 0 = off.",
        ),
        _DPO["caption_dropout"],
        _DPO["chunk"],
        _DPO["held_out_levels"],
        slot(
            "Float",
            "encoder_learning_rate",
            default=ENCODER_RATE,
            min=0.0,
            max=1.0,
            step=1e-6,
            round=1e-6,
            advanced=True,
            tooltip="Of a new encoder that is trained along; a chosen one stays as it is. Raising it learns to tell "
            "people apart sooner, and forgets sooner what it has learned.",
        ),
        slot(
            "Int",
            "new_tokens",
            default=NEW_ENCODER.tokens,
            min=1,
            max=64,
            advanced=True,
            tooltip="Of a new encoder: how many tokens a taste has. Raising it lets a taste hold more, and needs more "
            "people to learn from.",
        ),
        slot(
            "Int",
            "new_width",
            default=NEW_ENCODER.width,
            min=2,
            max=1024,
            advanced=True,
            tooltip="Of a new encoder: how many numbers each token has. Raising it lets a taste hold more, needs more "
            "people to learn from, and makes the adapter's file larger.",
        ),
        slot(
            "String",
            "preview_prompts",
            multiline=True,
            default="",
            placeholder="prompts of the pictures shown while training (empty = the first two captions)",
            tooltip="Up to 3 prompts, one per line, each shown for as many people while training: a row per prompt, a "
            "column per person. Empty = the first two captions. They change nothing in what is learned.",
        ),
        _DPO["preview_steps"],
        _DPO["preview_cfg"],
    ]
