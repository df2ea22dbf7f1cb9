"""Nodes that put rewards on one scale, and make one reward of several."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ...training.interfaces import RewardError
from ..host.progress import Progress
from ..host.schema import AttuneNode
from .calibration import (
    FEW,
    FEWEST,
    LEVELS,
    CalibratedReward,
    Calibration,
    calibrations_digest,
    load_calibration,
    report,
    save_calibration,
)
from .carrying import earlier_rounds
from .combine import MODES, SCALES, CombineConfig, CombinedReward
from .histogram import histogram
from .nodes_common import CATEGORY, Reward, user_store
from .pictures import counted, split_prompts, unbatch
from .scoring import left_out, score_safe_ones

DEFAULTS = CombineConfig()
LETTERS = "abcd"


class CalibrateReward(AttuneNode):
    """A reward with the statistics of a reference set."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneCalibrateReward",
            display_name="Calibrate Reward",
            category=CATEGORY,
            description="Measures where a reward's scores usually lie, so that they can be compared and combined.",
            search_aliases=["normalize reward", "z-score", "percentile", "reference statistics"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                cls.input(Reward, "reward", tooltip="The reward to calibrate. Its scores stay as they are."),
                cls.input(
                    io.Image,
                    "images",
                    optional=True,
                    tooltip=f"The reference: at least {FEWEST}, better {FEW} or more images of the kind you make, of "
                    "any sizes. Leave it unconnected to load a calibration that was made before. What a Safety Gate "
                    "around the reward holds back does not count.",
                ),
                cls.input(
                    io.String,
                    "prompt",
                    multiline=True,
                    default="",
                    placeholder="what the reference images show",
                    tooltip="One line for all reference images, or one line per image in the same order. Image "
                    "statistics do not look at it.",
                ),
                cls.input(
                    io.String,
                    "reference_name",
                    default="default",
                    tooltip="The name under which the calibration of this reward is kept. The same name again replaces "
                    "it. Use one name per kind of image, for example 'portraits'.",
                ),
                cls.input(io.Image, "previous", optional=True,
                          tooltip="What was chosen in earlier rounds, oldest first. Only 'consistency' looks at it."),
            ],
            outputs=[
                cls.output(Reward, id="calibrated_reward", display_name="reward",
                           tooltip="The reward with its calibration, for Combine Rewards, Score Images and training."),
                cls.output(io.Image, id="chart", display_name="chart",
                           tooltip="The reference scores as a picture: their spread, mean and deviation."),
                cls.output(io.String, id="report", display_name="report", tooltip="The figures in words."),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> str:
        # The host names connected inputs here, without their values. With images the store is only written to.
        if "images" in inputs:
            return "measured"
        return calibrations_digest(user_store(), _reference_name(inputs.get("reference_name", "default")))

    @classmethod
    def execute(
        cls,
        reward: list[Any],
        prompt: list[str],
        reference_name: list[str],
        images: list[torch.Tensor] | None = None,
        previous: list[torch.Tensor] | None = None,
    ) -> io.NodeOutput:
        if len(reward) != 1:
            raise RewardError(
                f"Calibrate Reward got {len(reward)} rewards but takes one. Use one such node per reward."
            )
        judge, name, store = reward[0], _reference_name(reference_name), user_store()
        scores, missing = None, ""
        if images is None:
            calibration = load_calibration(store, judge, name)
        else:
            pictures = unbatch(images)
            prompts = split_prompts(prompt, len(pictures))
            context = earlier_rounds(previous)
            if context is None and getattr(judge, "needs_previous", False):
                raise RewardError(
                    f"{judge.name} compares with earlier rounds, and nothing is connected to previous. Connect what "
                    "was chosen in earlier rounds."
                )
            safe, (table,) = score_safe_ones(pictures, prompts, [judge], context=context, progress=Progress())
            scores, missing = table.scores, left_out(len(safe), len(pictures))
            if missing and len(safe) < FEWEST:
                raise RewardError(
                    f"{missing} What is left, {counted(len(safe), 'image')}, is too little to calibrate with: at least "
                    f"{FEWEST} are needed. Connect more images of the kind you make."
                )
            calibration = Calibration.of(judge.reward_id, name, scores)
            save_calibration(store, calibration, reward_name=judge.name)
        text = report(calibration, judge, stored_now=images is not None, note=missing)
        chart = histogram(calibration, judge.name, scores, higher_is_better=judge.higher_is_better)
        return io.NodeOutput(CalibratedReward(judge, calibration), chart, text, ui={"text": [text]})


def _reference_name(value: str | list[str]) -> str:
    """
    Raises:
        RewardError: several names, or an empty one.
    """
    names = [value] if isinstance(value, str) else value
    name = " ".join(str(names[0]).split()) if len(names) == 1 else ""
    if not name:
        raise RewardError("Calibrate Reward needs one reference_name, for example 'default'.")
    return name


class CombineRewards(AttuneNode):
    """Several rewards as one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        optional = [
            cls.input(Reward, f"reward_{letter}", optional=True, tooltip="One more reward. May stay unconnected.")
            for letter in LETTERS[2:]
        ]
        weights = [
            cls.input(
                io.Float,
                f"weight_{letter}",
                default=DEFAULTS.weights[0],
                min=-100.0,
                max=100.0,
                step=0.05,
                tooltip=f"How much reward_{letter} counts beside the others; only the proportions matter. 0 leaves it "
                "out. In the modes 'minimum' and 'constrained' it only matters whether it is 0. A negative weight "
                "(weighted sum only) steers away from what it likes.",
            )
            for letter in LETTERS
        ]
        return cls.schema(
            node_id="AttuneCombineRewards",
            display_name="Combine Rewards",
            category=CATEGORY,
            description="Makes one reward of two to four, and shows the formula.",
            search_aliases=["weighted sum", "multi reward", "ensemble", "mix rewards", "constraint"],
            is_output_node=True,
            inputs=[
                cls.input(Reward, "reward_a",
                          tooltip="From Calibrate Reward. The one to raise in the mode 'constrained'."),
                cls.input(Reward, "reward_b",
                          tooltip="From Calibrate Reward. In the mode 'constrained' it keeps its level."),
                *optional,
                cls.input(
                    io.Combo,
                    "mode",
                    options=list(MODES),
                    default=DEFAULTS.mode,
                    tooltip="weighted sum: strengths make up for weaknesses. minimum: as good as its worst side. "
                    "product: all sides should be good. constrained: as much of reward_a as possible while the others "
                    "keep their level.",
                ),
                *weights,
                cls.input(
                    io.Combo,
                    "scale",
                    options=list(SCALES),
                    default=DEFAULTS.scale,
                    tooltip="z-scores: every reward counts in deviations of its own calibration, so that none drowns "
                    "the others. raw scores: the numbers as they are; needs no calibration.",
                ),
                cls.input(
                    io.Float,
                    "level",
                    default=DEFAULTS.level,
                    min=-10000.0,
                    max=10000.0,
                    step=0.05,
                    tooltip="Mode 'constrained' only: what reward_b (and c, d) must reach. Raising it leaves less room "
                    "for reward_a. 0 deviations is the mean of the reference.",
                ),
                cls.input(
                    io.Combo,
                    "level_unit",
                    options=list(LEVELS),
                    default=DEFAULTS.level_unit,
                    tooltip="What level is measured in: deviations from the reference's mean, per cent of the "
                    "reference images that are surpassed (0 to 100), or the reward's own score.",
                ),
                cls.input(
                    io.Float,
                    "penalty",
                    default=DEFAULTS.penalty,
                    min=0.01,
                    max=10000.0,
                    step=0.05,
                    advanced=True,
                    tooltip="Mode 'constrained' only: how much of reward_a one unit below the level costs. Higher "
                    "keeps the level more strictly. 10 is strict enough in almost all cases.",
                ),
            ],
            outputs=[
                cls.output(Reward, id="combined_reward", display_name="reward",
                           tooltip="For Score Images and training."),
                cls.output(io.String, id="formula", display_name="formula",
                           tooltip="How the score is made. Also stored in the LoRAs that are trained with it."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        reward_a: Any,
        reward_b: Any,
        mode: str,
        scale: str,
        level: float,
        level_unit: str,
        penalty: float,
        reward_c: Any = None,
        reward_d: Any = None,
        **weights: float,
    ) -> io.NodeOutput:
        pairs = [
            (reward, weights[f"weight_{letter}"])
            for letter, reward in zip(LETTERS, (reward_a, reward_b, reward_c, reward_d), strict=True)
            if reward is not None
        ]
        config = CombineConfig(mode, tuple(weight for _, weight in pairs), scale, level, level_unit, penalty)
        combined = CombinedReward([reward for reward, _ in pairs], config)
        return io.NodeOutput(combined, combined.formula, ui={"text": [combined.formula]})


NODES: list[type[io.ComfyNode]] = [CalibrateReward, CombineRewards]
