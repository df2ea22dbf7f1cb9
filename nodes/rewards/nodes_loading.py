"""Nodes that make a reward: from a model file, or from the pixels alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import folder_paths
from comfy_api.latest import io

from ...training.interfaces import RewardError
from ..host.folders import REWARDS
from ..host.schema import AttuneNode
from .load import DTYPES, describes_reward, file_digest, load_reward
from .nodes_common import CATEGORY, Reward, manage
from .statistics import DEFAULTS, MEASURES, Goal, StatisticReward


def reward_names() -> list[str]:
    """The files that Load Reward Model offers."""
    checkpoints = set(folder_paths.get_filename_list("checkpoints"))
    names = folder_paths.get_filename_list(REWARDS)
    # The demo folder is a folder of checkpoints too; those are no rewards.
    return [name for name in names if name not in checkpoints or describes_reward(Path(_find(name) or ""))]


def _find(name: str) -> str | None:
    return folder_paths.get_full_path(REWARDS, name)


def reward_path(name: str) -> Path:
    """The file of that name.

    Raises:
        RewardError: no reward folder has it; names the file, the folders and what to do.
    """
    path = _find(name)
    if path is None:
        folders = " or ".join(folder_paths.get_folder_paths(REWARDS))
        raise RewardError(
            f"The reward model '{name}' is not in {folders}. Put the file there and refresh the node definitions "
            "(press R), or choose another file."
        )
    return Path(path)


class LoadReward(AttuneNode):
    """A reward model file as a reward."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneLoadReward",
            display_name="Load Reward Model",
            category=CATEGORY,
            description="Loads a model that scores how well an image fits its prompt.",
            search_aliases=["clip score", "aesthetic", "preference model", "score model"],
            inputs=[
                cls.input(
                    io.Combo,
                    "reward_name",
                    options=reward_names(),
                    tooltip="A file in models/rewards. 'attune_demo_reward' comes with Attune and knows the demo "
                    "model's drawings; 'attune_demo_judge' is its independent second opinion.",
                ),
                cls.input(
                    io.Combo,
                    "device",
                    options=["default", "cpu"],
                    default="default",
                    advanced=True,
                    tooltip="Where to compute. 'default' is your graphics card if there is one. 'cpu' is slower and "
                    "leaves its memory to the image model.",
                ),
                cls.input(
                    io.Combo,
                    "precision",
                    options=list(DTYPES),
                    default="fp32",
                    advanced=True,
                    tooltip="fp32 is exact. fp16 and bf16 halve the memory on a graphics card and change scores in "
                    "the third digit; on a CPU they are slow.",
                ),
            ],
            outputs=[cls.output(Reward, id="reward", display_name="reward", tooltip="For Score Images and training.")],
        )

    @classmethod
    def validate_inputs(cls, reward_name: str | None = None) -> bool | str:
        try:
            if reward_name is not None:
                reward_path(reward_name)
        except RewardError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, reward_name: str | None = None, **widgets: Any) -> str:
        path = _find(reward_name) if reward_name else None
        return file_digest(Path(path)) if path else ""

    @classmethod
    def execute(cls, reward_name: str, device: str = "default", precision: str = "fp32") -> io.NodeOutput:
        reward = load_reward(reward_path(reward_name), "cpu", dtype=precision)
        manage(reward.reward, on_cpu=device == "cpu")
        return io.NodeOutput(reward)


class ImageStatisticsReward(AttuneNode):
    """A reward from the pixels alone."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneImageStatisticsReward",
            display_name="Image Statistics Reward",
            category=CATEGORY,
            description="Scores images by a property of their pixels, such as colourfulness. Needs no model.",
            search_aliases=["colorfulness", "contrast", "sharpness", "brightness", "compressibility",
                            "incompressibility", "jpeg size"],
            inputs=[
                cls.input(
                    io.Combo,
                    "statistic",
                    options=list(MEASURES),
                    default=DEFAULTS["statistic"],
                    tooltip="What to measure. All lie between 0 and about 1, except warmth (-1 cold to 1 warm) and "
                    "JPEG size (in kB: the more detail, the larger). compressibility is minus the JPEG size: high for "
                    "calm images with little detail; incompressibility is its opposite.",
                ),
                cls.input(
                    io.Combo,
                    "goal",
                    options=list(get_args(Goal)),
                    default=DEFAULTS["goal"],
                    tooltip="Which way is better. The score is made so that higher is always better.",
                ),
                cls.input(
                    io.Float,
                    "target",
                    default=DEFAULTS["target"],
                    min=-1.0,
                    max=10000.0,
                    step=0.01,
                    tooltip="The value to come close to, in the statistic's own unit. Only the goal 'close to target' "
                    "uses it.",
                ),
            ],
            outputs=[cls.output(Reward, id="reward", display_name="reward", tooltip="For Score Images and training.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, statistic: str, goal: str, target: float) -> io.NodeOutput:
        return io.NodeOutput(StatisticReward(statistic, goal, target))


NODES: list[type[io.ComfyNode]] = [LoadReward, ImageStatisticsReward]
