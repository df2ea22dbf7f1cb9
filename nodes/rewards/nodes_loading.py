"""Nodes that make a reward: from a model file, or from the pixels alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import folder_paths
from comfy_api.latest import io

from ...training.digests import telling
from ...training.interfaces import RewardError
from ..host.folders import DEMO_FOLDER, REWARDS
from ..host.progress import Progress, stop_reading
from ..host.schema import AttuneNode
from .files import offered
from .load import DTYPES, Companions, fingerprint, load_reward, missing_file
from .nodes_common import CATEGORY, Reward, manage
from .public import AUTO, MODEL_TYPES
from .statistics import DEFAULTS, MEASURES, Goal, StatisticReward

# The kinds of model folders in which the CLIP of an aesthetic predictor is looked for, in this order.
CLIP_FOLDERS = ("clip_vision", REWARDS)


def reward_names() -> list[str]:
    """The files that Load Reward Model offers."""
    found = {name: _find(name) for name in folder_paths.get_filename_list(REWARDS)}
    return offered({name: Path(path) for name, path in found.items() if path}, DEMO_FOLDER)


def clip_names() -> list[str]:
    """The files that may hold the CLIP of an aesthetic predictor: folder type, slash, name."""
    return [f"{kind}/{name}" for kind in CLIP_FOLDERS for name in folder_paths.get_filename_list(kind)]


def companions_of(clip_name: str) -> Companions:
    """Where the other files lie that a reward may need.

    Raises:
        RewardError: `clip_name` is neither "auto" nor a file that is there.
    """
    paths = {name: Path(path) for name in clip_names() if (path := folder_paths.get_full_path(*name.split("/", 1)))}
    if clip_name != AUTO and clip_name not in paths:
        raise RewardError(f"The file '{clip_name}' is not there any more. Set clip_name to auto, or choose another.")
    folders = tuple(Path(folder) for folder in folder_paths.get_folder_paths(REWARDS))
    return Companions(folders, paths.get(clip_name), tuple(paths.values()))


def _find(name: str) -> str | None:
    return folder_paths.get_full_path(REWARDS, name)


def reward_path(name: str) -> Path:
    """The file of that name.

    Raises:
        RewardError: no reward folder has it; names the file, the folders and what to do.
    """
    path = _find(name)
    if path is None:
        raise missing_file(name, folder_paths.get_folder_paths(REWARDS))
    return Path(path)


class LoadReward(AttuneNode):
    """A reward model file as a reward."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneLoadReward",
            display_name="Load Reward Model",
            category=CATEGORY,
            description="Loads a model that scores how well an image fits its prompt, or how much people like it.",
            search_aliases=["clip score", "aesthetic", "preference model", "score model", "pickscore", "hps",
                            "imagereward"],
            inputs=[
                cls.input(
                    io.Combo,
                    "reward_name",
                    options=reward_names(),
                    tooltip="A file in models/rewards: CLIPScore, PickScore, HPS v2, ImageReward or LAION aesthetic "
                    "(the help page says where they come from). 'attune_demo_reward' comes with Attune and knows the "
                    "demo model's drawings; 'attune_demo_judge' is its independent second opinion.",
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
                cls.input(
                    io.Combo,
                    "model_type",
                    options=list(MODEL_TYPES),
                    default=AUTO,
                    optional=True,
                    advanced=True,
                    tooltip="Which reward the file is. 'auto' finds out from what is in the file. Choose one where the "
                    "content cannot tell: PickScore or a plain CLIP ViT-H, HPS v2.0 or v2.1, QuickGELU or GELU. A "
                    "choice that contradicts the file is an error.",
                ),
                cls.input(
                    io.Combo,
                    "clip_name",
                    options=[AUTO, *clip_names()],
                    default=AUTO,
                    optional=True,
                    advanced=True,
                    tooltip="Only for the LAION aesthetic predictor: the file with OpenAI's CLIP ViT-L/14 whose view "
                    "of the image it scores. 'auto' takes the first safetensors file that fits, from "
                    "models/clip_vision, then models/rewards; the reward's name says which.",
                ),
            ],
            outputs=[cls.output(Reward, id="reward", display_name="reward", tooltip="For Score Images and training.")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, reward_name: str | None = None) -> bool | str:
        try:
            if reward_name is not None:
                reward_path(reward_name)
        except RewardError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, reward_name: str | None = None, clip_name: str = AUTO, **widgets: Any) -> str:
        path = _find(reward_name) if reward_name else None
        try:
            with telling(stop_reading):
                return fingerprint(Path(path), companions_of(clip_name)) if path else ""
        except RewardError as error:
            return str(error)

    @classmethod
    def execute(
        cls,
        reward_name: str,
        device: str = "default",
        precision: str = "fp32",
        model_type: str = AUTO,
        clip_name: str = AUTO,
    ) -> io.NodeOutput:
        path, companions = reward_path(reward_name), companions_of(clip_name)
        with telling(Progress()):
            reward = load_reward(path, "cpu", dtype=precision, model_type=model_type, companions=companions)
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
