"""Inputs of Multi-Round Objective, as plain data; see `schemas`. What DDPO and ReFL ask too is asked in their words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, get_args

from ...training.objectives.multi_round import Learner, RoundConfig
from .align_schemas import DPO_OBJECTIVE, REFL_OBJECTIVE
from .schemas import DDPO_OBJECTIVE, HELD_OUT_REWARD, Slot, practice, slot

ROUND = {field.name: field.default for field in dataclasses.fields(RoundConfig)}
# Widget → field of the configuration, where they are called otherwise.
FIELDS = {"sampler_steps": "steps", "cfg": "guidance", "trained_steps": "transitions"}


def _like(slots: Sequence[Slot], id: str, learner: str = "", **changes: Any) -> Slot:
    """The slot of another objective with this one's default; `learner`: who alone reads it."""
    found = next(slot for slot in slots if slot.id == id)
    words = {**found.keywords, "default": ROUND.get(FIELDS.get(id, id)), **changes}
    if learner:
        words["tooltip"] = f"Learner {learner}: {words['tooltip'].removeprefix('Mode refl: ')}"
    return Slot(found.kind, id, words)


MULTI_ROUND_OBJECTIVE = [
    slot(
        "ATTUNE_SESSION",
        "session",
        tooltip="The session whose round is learned: from Dynamic Weights, before Round Sampler. Its prompt is what is "
        "practised on, and its last round's LoRA is what Train LoRA goes on from.",
    ),
    *(each for each in practice() if each.id in ("clip", "vae", "latent")),
    slot(
        "ATTUNE_REWARD",
        "reward",
        optional=True,
        tooltip="What the round is to raise: the reward output of Dynamic Weights, which weighs anew in every round. "
        "For the learner refl all of its rewards must be differentiable. The learner kept needs none.",
    ),
    slot(
        "Combo",
        "learner",
        options=list(get_args(Learner)),
        default=ROUND["learner"],
        tooltip="refl: follows the reward's gradient; a few updates are enough. ppo: tries and compares; takes any "
        "reward, and more updates and pictures to learn as much. kept: learns the pictures of which you "
        'said what to keep ("keep the background"), against those you passed over; needs no reward.',
    ),
    _like(
        REFL_OBJECTIVE,
        "images_per_prompt",
        tooltip="Practice pictures per update, all of the round's prompt. Raising it makes learning steadier and "
        "slower. At least 2 with the learner ppo, or with a reward for variety. Learner kept: pairs of a liked and "
        "another picture per update.",
    ),
    _like(DDPO_OBJECTIVE, "sampler_steps"),
    _like(
        REFL_OBJECTIVE,
        "cfg",
        tooltip="Classifier-free guidance of the practice pictures: that of Round Schedule, or 1, which takes half the "
        "time.",
    ),
    _like(REFL_OBJECTIVE, "stop_from", "refl"),
    _like(REFL_OBJECTIVE, "stop_to", "refl"),
    _like(
        REFL_OBJECTIVE,
        "margin",
        "refl",
        tooltip="pictures whose weighed score reaches this teach nothing more; 0 = all teach. In deviations of the "
        "session's scores so far, which are tiny where few pictures look alike: a round may then learn nothing.",
    ),
    _like(DDPO_OBJECTIVE, "trained_steps", "ppo"),
    _like(
        DDPO_OBJECTIVE,
        "updates_per_round",
        "ppo",
        default=ROUND["updates_per_rollout"],
        tooltip="updates learned from one set of practice pictures. Raising it saves sampling; too many learn from "
        "stale pictures.",
    )._replace(id="updates_per_rollout"),
    _like(DDPO_OBJECTIVE, "chunk"),
    _like(REFL_OBJECTIVE, "weight", "refl"),
    _like(DDPO_OBJECTIVE, "clip_range", "ppo"),
    _like(DDPO_OBJECTIVE, "step_weights", "ppo"),
    HELD_OUT_REWARD,
    _like(DPO_OBJECTIVE, "beta", "kept", optional=True),
    slot(
        "Float",
        "lowest_noise",
        default=ROUND["lowest_noise"],
        min=0.0,
        max=0.95,
        step=0.05,
        round=0.01,
        optional=True,
        tooltip="Learner kept: share of the noise levels, from the clean end, that nothing is learned on. Raising "
        "it learns what a picture is as a whole, its background and layout; lowering it learns details of these very "
        "pictures too, which then stand against your next words.",
    ),
]
