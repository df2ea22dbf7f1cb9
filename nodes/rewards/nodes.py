"""The reward nodes: sockets and widgets for what this folder does, and the host's devices, folders and progress."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, get_args

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io
from torch import nn

from ...training.interfaces import RewardError
from ..host.folders import REWARDS
from ..host.schema import AttuneNode
from ..host.weights import thaw_module
from .cache import CachedReward
from .chart import bar_chart
from .load import DTYPES, describes_reward, file_digest, load_reward
from .pictures import split_prompts, unbatch
from .scoring import score_table
from .statistics import DEFAULTS, MEASURES, Goal, StatisticReward

Reward = io.Custom("ATTUNE_REWARD")
CATEGORY = "Attune/rewards"
SECONDS_WITHOUT_PROGRESS = 2.0


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


def manage(reward: CachedReward, *, on_cpu: bool) -> CachedReward:
    """Put a reward's network under the host's memory management: loaded when needed, moved away when others are."""
    management = comfy.model_management
    load_device = torch.device("cpu") if on_cpu else management.get_torch_device()
    offload_device = torch.device("cpu") if on_cpu else management.text_encoder_offload_device()
    # The host writes a `device` attribute onto the module it manages; the libraries' own modules forbid that.
    holder = nn.ModuleDict({"reward": reward.reward.network})
    patcher = comfy.model_patcher.ModelPatcher(holder, load_device=load_device, offload_device=offload_device)

    def place() -> torch.device:
        # Asking again for what is there could push the model in training out of memory.
        if patcher not in management.loaded_models():
            with torch.inference_mode():
                management.load_models_gpu([patcher], force_full_load=True)
            with torch.inference_mode(False):
                thaw_module(holder)
        return load_device

    reward.reward.place, reward.reward.patcher = place, patcher
    return reward


class Progress:
    """Stops on Cancel, and shows a progress bar once the work has lasted two seconds."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.bar: comfy.utils.ProgressBar | None = None

    def __call__(self, done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if self.bar is None and time.monotonic() - self.started > SECONDS_WITHOUT_PROGRESS:
            self.bar = comfy.utils.ProgressBar(total)
        if self.bar is not None:
            self.bar.update_absolute(done, total)


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
        return io.NodeOutput(manage(reward, on_cpu=device == "cpu"))


class ImageStatisticsReward(AttuneNode):
    """A reward from the pixels alone."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneImageStatisticsReward",
            display_name="Image Statistics Reward",
            category=CATEGORY,
            description="Scores images by a property of their pixels, such as colourfulness. Needs no model.",
            search_aliases=["colorfulness", "contrast", "sharpness", "brightness", "compressibility"],
            inputs=[
                cls.input(
                    io.Combo,
                    "statistic",
                    options=list(MEASURES),
                    default=DEFAULTS["statistic"],
                    tooltip="What to measure. All lie between 0 and about 1, except warmth (-1 cold to 1 warm) and "
                    "JPEG size (in kB: the more detail, the larger).",
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
        )

    @classmethod
    def execute(cls, statistic: str, goal: str, target: float) -> io.NodeOutput:
        return io.NodeOutput(StatisticReward(statistic, goal, target))


class ScoreImages(AttuneNode):
    """Scores, ranking and chart of a set of images."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneScoreImages",
            display_name="Score Images",
            category=CATEGORY,
            description="Scores every image with a reward, ranks them and draws the result.",
            search_aliases=["rank images", "clip score", "best of", "pick best"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                cls.input(io.Image, "images", tooltip="A batch, or a list of images of different sizes."),
                cls.input(Reward, "reward", tooltip="From Load Reward Model or Image Statistics Reward."),
                cls.input(
                    io.String,
                    "prompt",
                    multiline=True,
                    default="",
                    placeholder="what the images should show",
                    tooltip="One line for all images, or one line per image in the same order. Image statistics do "
                    "not look at it.",
                ),
            ],
            outputs=[
                cls.output(io.Float, id="scores", display_name="scores", is_output_list=True,
                           tooltip="One number per image, in the images' order."),
                cls.output(io.Int, id="ranking", display_name="ranking", is_output_list=True,
                           tooltip="Image numbers, counted from 0, best first."),
                cls.output(io.Image, id="best", display_name="best", tooltip="The image with the best score."),
                cls.output(io.Image, id="chart", display_name="chart", tooltip="The ranking as a picture."),
                cls.output(io.String, id="table", display_name="table", tooltip="The ranking as a Markdown table."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, images: list[torch.Tensor], reward: list[Any], prompt: list[str]) -> io.NodeOutput:
        if len(reward) != 1:
            raise RewardError(
                f"Score Images got {len(reward)} rewards but scores with one at a time. Use one such node per reward."
            )
        pictures = unbatch(images)
        prompts = split_prompts(prompt, len(pictures))
        table = score_table(pictures, prompts, reward[0], progress=Progress())
        chart = bar_chart(
            pictures, table.scores, prompts=prompts, title=table.reward, higher_is_better=reward[0].higher_is_better
        )
        best = pictures[table.best][None]
        shown = {"text": [table.text()], "attune_scores": table.rows()}
        return io.NodeOutput(list(table.scores), list(table.ranking), best, chart, table.text(), ui=shown)


NODES: list[type[io.ComfyNode]] = [LoadReward, ImageStatisticsReward, ScoreImages]
