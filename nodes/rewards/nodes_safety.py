"""The node that keeps unsafe pictures from being shown, scored, stored and learned from."""

from __future__ import annotations

from typing import Any, get_args

import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ...training.interfaces import RewardError
from ..host.progress import Progress
from ..host.schema import AttuneNode
from .nodes_common import CATEGORY, Reward
from .pictures import rebatch, unbatch
from .safety import (
    Action,
    GatedReward,
    SafetyGate,
    SafetyReward,
    floor_score,
    gate_pictures,
    missing_classifier,
)

THRESHOLD = 0.8
BLOCKED_SCORE = -1000.0


class SafetyGateNode(AttuneNode):
    """Blocks or blurs, counts, and guards a reward."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneSafetyGate",
            display_name="Safety Gate",
            category=CATEGORY,
            description="Blocks or blurs images with sexual content before they are shown, scored, stored or trained "
            "on, and counts them.",
            search_aliases=["nsfw", "safety checker", "filter", "opennsfw", "censor", "moderation"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                cls.input(
                    io.Image,
                    "images",
                    optional=True,
                    tooltip="A batch, or a list of images of different sizes. Not needed to guard a reward for "
                    "training: the training makes its own images.",
                ),
                cls.input(
                    Reward,
                    "reward",
                    optional=True,
                    tooltip="The reward to guard. It never sees an unsafe image. Training and Compare A/B leave such "
                    "images out, and show them blurred.",
                ),
                cls.input(
                    io.Combo,
                    "action",
                    options=list(get_args(Action)),
                    default="block",
                    tooltip="What happens to unsafe images at the images output. block: they are left out. blur: they "
                    "stay in their place, so that images and prompts keep matching, but nothing can be recognised.",
                ),
                cls.input(
                    io.Float,
                    "threshold",
                    default=THRESHOLD,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="From which probability of sexual content on an image is unsafe. Lower is stricter and "
                    "blocks more harmless images; 0 blocks everything, 1 next to nothing.",
                ),
                cls.input(
                    io.Boolean,
                    "floor_from_calibration",
                    default=True,
                    advanced=True,
                    tooltip="Where an unsafe image must get a score, as in Score Images. On: as low as the worst "
                    "images of the reward's calibration, if it has one (Calibrate Reward). Off: blocked_score.",
                ),
                cls.input(
                    io.Float,
                    "blocked_score",
                    default=BLOCKED_SCORE,
                    min=-1e6,
                    max=1e6,
                    step=0.1,
                    advanced=True,
                    tooltip="The score of an unsafe image for a reward without a calibration. It must lie below what "
                    "the reward gives to ordinary images; -1000 does for every reward model.",
                ),
            ],
            outputs=[
                cls.output(io.Image, id="passed", display_name="images", is_output_list=True,
                           tooltip="The images that passed, or all with the unsafe ones blurred: one batch, or single "
                           "images where sizes differ."),
                cls.output(Reward, id="guarded", display_name="reward",
                           tooltip="The guarded reward: unsafe images never reach the reward inside, and training and "
                           "Compare A/B leave them out. Without a reward connected: how safe an image is, 0 to 1."),
                cls.output(io.Int, id="blocked", display_name="blocked",
                           tooltip="How many of the connected images were unsafe."),
                cls.output(io.String, id="report", display_name="report",
                           tooltip="Which images were unsafe, with the probability of every image, as Markdown."),
                cls.output(io.Int, id="kept", display_name="kept", is_output_list=True,
                           tooltip="Numbers of the safe images, counted from 0, to choose their prompts and latents."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, floor_from_calibration: Any = None) -> bool | str:
        # The host asks only where a widget is named; this one has no range that it would check instead.
        return missing_classifier() or True

    @classmethod
    def execute(
        cls,
        action: list[str],
        threshold: list[float],
        floor_from_calibration: list[bool],
        blocked_score: list[float],
        images: list[torch.Tensor] | None = None,
        reward: list[Any] | None = None,
    ) -> io.NodeOutput:
        if problem := missing_classifier():
            raise RewardError(problem)
        if not images and not reward:
            raise RewardError("The safety gate has nothing to guard. Connect images, a reward, or both.")
        if reward and len(reward) != 1:
            raise RewardError(
                f"The safety gate got {len(reward)} rewards but guards one. Use one such node per reward."
            )
        gate = SafetyGate.standard(threshold[0])
        guarded = SafetyReward(gate.scorer)
        if reward:
            floor = floor_score(reward[0], blocked_score[0], from_calibration=floor_from_calibration[0])
            guarded = GatedReward(reward[0], gate, floor=floor)
        if not images:
            # Rollouts are checked inside the reward; there is nothing to show, and nothing to number.
            note = "No images are connected. The guarded reward checks those that it is given."
            blocker = ExecutionBlocker("The safety gate has no images to pass on. Connect some to its images input.")
            return io.NodeOutput(
                [blocker], guarded, 0, note, [ExecutionBlocker(None)], ui={"text": [note], "attune_safety": [note]}
            )
        pictures = unbatch(images)
        verdict = gate.check(pictures, progress=Progress())
        passed = rebatch(gate_pictures(pictures, verdict, action[0]))
        report, kept = verdict.report(action[0]), verdict.kept or [ExecutionBlocker(None)]
        shown = {"text": [report], "attune_safety": [verdict.summary(action[0])]}
        return io.NodeOutput(passed, guarded, len(verdict.blocked), report, kept, ui=shown)


NODES: list[type[io.ComfyNode]] = [SafetyGateNode]
