"""Inputs of DAG-DB Objective and DAG-KL Objective, as plain data; see `schemas`."""

from __future__ import annotations

import dataclasses
from typing import get_args

from ...training.diffusion import Convention
from ...training.objectives.dag_config import Baseline, Credit, DAGConfig
from ...training.objectives.transitions import STEP_WEIGHTS
from .schemas import HELD_OUT_REWARD, Slot, practice, slot

DAG = {field.name: field.default for field in dataclasses.fields(DAGConfig)}


def _first(least_images: int) -> list[Slot]:
    return [
        *practice(),
        slot(
            "Int",
            "prompts_per_update",
            default=DAG["prompts_per_update"],
            min=1,
            max=256,
            tooltip="How many prompts each round of practice draws. Raising it makes learning steadier and rounds "
            "slower.",
        ),
        slot(
            "Int",
            "images_per_prompt",
            default=DAG["images_per_prompt"],
            min=least_images,
            max=256,
            tooltip="Pictures per prompt and round. Raising it judges better and takes longer.",
        ),
        slot(
            "Int",
            "sampler_steps",
            default=DAG["steps"],
            min=2,
            max=200,
            tooltip="Sampler steps of the practice pictures. Raising it improves them and costs time in proportion.",
        ),
        slot(
            "Float",
            "cfg",
            default=DAG["guidance"],
            min=1.0,
            max=30.0,
            step=0.5,
            tooltip="Guidance scale, in practice and in training; use the one you will sample with. Raising it follows "
            "the prompt more closely. 1 = off, twice as fast.",
        ),
        slot(
            "Float",
            "beta",
            default=DAG["beta"],
            min=0.001,
            max=1e6,
            step=0.001,
            round=0.001,
            tooltip="How sharply the reward counts: pictures become as frequent as exp(beta × reward), with convention "
            "mean exp(beta × reward × the number of values in a latent). Raising it favours the best pictures and "
            "costs variety; lowering it keeps variety and gains less. It depends on the reward's unit: behind "
            "Calibrate Reward, scores are deviations.",
        ),
        slot(
            "Int",
            "anneal_updates",
            default=DAG["anneal_updates"],
            min=0,
            max=1_000_000,
            tooltip="Updates over which beta rises from 0; about half of the run is customary. Raising it starts more "
            "gently. 0 = all of it from the start.",
        ),
        slot(
            "Int",
            "trained_steps",
            default=DAG["transitions"],
            min=0,
            max=200,
            tooltip="How many neighbouring sampler steps of each picture are learned from. Each is scored on its way, "
            "so that a picture costs this number + 2 calls of the reward at most. Fewer is faster, noisier. 0 = all.",
        ),
        slot(
            "Int",
            "updates_per_round",
            default=DAG["updates_per_rollout"],
            min=1,
            max=32,
            tooltip="Updates learned from each round of pictures. Raising it saves sampling and scoring; too many "
            "learn from stale pictures. Leave it at 1 with accumulation, whose parts count like updates here.",
        ),
    ]


def _last() -> list[Slot]:
    return [
        slot(
            "Float",
            "anchor",
            default=DAG["anchor"],
            min=0.0,
            max=1000.0,
            step=0.01,
            round=0.01,
            advanced=True,
            tooltip="How strongly later updates of a round are held to the model that made its pictures. Raising it is "
            "safer and slower. Acts only with several updates per round. 0 = off.",
        ),
        slot(
            "Boolean",
            "reference_prior",
            default=DAG["reference_prior"],
            advanced=True,
            tooltip="On: pictures become as frequent as the model made them × exp(beta × reward), so that what it "
            "could do before counts and variety stays; needs a much smaller beta, learns more slowly, and costs one "
            "more call of the network per step. Off: exp(beta × reward) alone, as the paper has it.",
        ),
        slot(
            "Combo",
            "convention",
            options=list(get_args(Convention)),
            default=DAG["convention"],
            advanced=True,
            tooltip="Whether log-probabilities are averaged over the latent's numbers (mean, as in the released code) "
            "or added up (sum). With mean, beta counts as many times as the latent has numbers.",
        ),
        slot(
            "Combo",
            "step_weights",
            options=list(STEP_WEIGHTS),
            default=DAG["step_weights"],
            advanced=True,
            tooltip="balanced: every sampler step counts alike. plain: as in the paper, where the last steps can weigh "
            "far more than the others.",
        ),
        slot(
            "Float",
            "flow_learning_rate",
            default=DAG["flow_learning_rate"],
            min=1e-7,
            max=1.0,
            step=1e-7,
            round=1e-7,
            advanced=True,
            tooltip="Learning rate of the small network that learns how much reward lies ahead. Raising it follows "
            "faster and more nervously.",
        ),
        slot(
            "Int",
            "chunk",
            default=DAG["chunk"],
            min=1,
            max=256,
            advanced=True,
            tooltip="Pictures per call of the network. Lower it if memory runs out: the method stays the same, and a "
            "run that has begun goes on.",
        ),
        HELD_OUT_REWARD,
        slot(
            "Int",
            "flow_warmup",
            default=DAG["flow_warmup"],
            min=0,
            max=1_000_000,
            optional=True,
            advanced=True,
            tooltip="Updates at the start in which only the small network learns how much reward lies ahead, and the "
            "LoRA waits. Try a tenth of the run if pictures soon become all alike. 0 = both learn from the start.",
        ),
        slot(
            "Combo",
            "credit",
            options=list(get_args(Credit)),
            default=DAG["credit"],
            optional=True,
            advanced=True,
            tooltip="What a sampler step is judged by. step: what the small network expects right behind it, as in the "
            "paper. to the end: how the picture really ended, which is right from the first update on, whatever the "
            "small network has learned, and varies more.",
        ),
    ]


DAG_DB_OBJECTIVE = [*_first(1), *_last()]
DAG_KL_OBJECTIVE = [
    *_first(2),
    slot(
        "Float",
        "clip_range",
        default=DAG["clip_range"],
        min=1e-6,
        max=1.0,
        step=1e-6,
        round=1e-6,
        advanced=True,
        tooltip="How far an update may move before it is held back. Raising it learns faster and less safely. Acts "
        "only with several updates per round.",
    ),
    slot(
        "Combo",
        "baseline",
        options=list(get_args(Baseline)),
        default=DAG["baseline"],
        advanced=True,
        tooltip="What a step is compared with. step and prompt: the same step of pictures of the same prompt. batch: "
        "everything at hand, as in the released code.",
    ),
    *_last(),
]
