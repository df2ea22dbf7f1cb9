"""Nodes of the vision-language reward: load a trained one, and train one on preferences."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io

from ...training.digests import file_digest, telling
from ...training.interfaces import RewardError, RunCallbacks
from ...training.preference_pairs import Pair, make_pairs
from ...training.preference_reward import HeldOut, PreferenceConfig
from ...training.trainer_config import Schedule
from ...training.vlm_base import folder_digest
from ...training.vlm_reward import LAYERS, is_trained
from ..drawing import to_tensor
from ..host.folders import REWARDS, free_path, run_folder, trained_reward_folder
from ..host.progress import Progress, stop_reading
from ..host.schema import AttuneNode
from ..host.vision_language import (
    AUTO,
    chosen_precision,
    compute_device,
    device_inputs,
    find_model,
    make_room,
    model_folders,
    model_inputs,
)
from .cache import CachedReward
from .files import listed_name
from .nodes_common import CATEGORY, Reward, manage
from .pictures import split_prompts, unbatch

if TYPE_CHECKING:
    from .vlm import VlmReward
    from .vlm_training import RewardTraining

log = logging.getLogger("attune")

UNTRAINED = "none (train one first)"
RUN_EXISTS = ("resume", "start fresh")
PREVIEW_SIZE = 512
SEED_LIMIT = 2**53 - 1  # larger ones do not survive a web page's numbers
DEFAULTS = PreferenceConfig()


# ---- files -----------------------------------------------------------------------------------------------------------


def trained_names() -> list[str]:
    """The trained rewards of vision-language models."""
    names = folder_paths.get_filename_list(REWARDS)
    return [name for name in names if name.endswith(".safetensors") and is_trained(Path(_full(name) or ""))]


def _full(name: str) -> str | None:
    return folder_paths.get_full_path(REWARDS, name)


def trained_path(name: str) -> Path:
    """
    Raises:
        RewardError: none is chosen, or the file is gone.
    """
    if name == UNTRAINED:
        raise RewardError(
            "A model alone cannot score: its scalar head is random until it is trained. Train one with Train Reward "
            "Model, refresh the node definitions (press R), and choose it in trained_reward."
        )
    path = _full(name)
    if path is None:
        raise RewardError(
            f"The trained reward {name!r} is not in {' or '.join(folder_paths.get_folder_paths(REWARDS))}. Put it "
            "there and refresh the node definitions (press R), or choose another."
        )
    return Path(path)


def give_to_host(reward: VlmReward, *, on_cpu: bool) -> str:
    """Put the network under the host's memory management.

    Returns:
        why it could not be, for people; "" if it is.
    """
    if reward.movable:
        reward.network.to("cpu")
        manage(reward, on_cpu=on_cpu)
        return ""
    reward.between = comfy.model_management.throw_exception_if_processing_interrupted
    network = reward.network
    note = (
        f"The 4-bit weights of {network.base.name} stay on {network.device} while the workflow is loaded, since the "
        "installed version of bitsandbytes cannot move them. Update it with the host's Python, and they make room for "
        "others like any model."
    )
    log.warning("Attune: %s", note)
    return note


class LoadVLMReward(AttuneNode):
    """A trained vision-language reward."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneLoadVLMReward",
            display_name="Load VLM Reward",
            category=CATEGORY,
            description="Loads a vision-language model with a reward that was trained on preferences.",
            search_aliases=["vision language model", "preference model", "qlora", "llava", "qwen", "score model"],
            inputs=[
                *model_inputs(cls),
                cls.input(
                    io.Combo,
                    "trained_reward",
                    options=[UNTRAINED, *trained_names()],
                    default=UNTRAINED,
                    tooltip="A file that Train Reward Model has saved for this very model. It holds only what was "
                    "learned.",
                ),
                *device_inputs(cls),
            ],
            outputs=[cls.output(Reward, id="reward", display_name="reward", tooltip="For Score Images and training.")],
        )

    @classmethod
    def validate_inputs(cls, model_folder: str | None = None, trained_reward: str | None = None) -> bool | str:
        try:
            if model_folder is not None:
                find_model(model_folder)
            if trained_reward is not None:
                trained_path(trained_reward)
        except RewardError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(
        cls, model_folder: str | None = None, trained_reward: str | None = None, **widgets: Any
    ) -> str:
        folder = model_folders().get(model_folder or "")
        trained = _full(trained_reward) if trained_reward else None
        with telling(stop_reading):
            return f"{folder_digest(folder) if folder else ''}/{file_digest(Path(trained)) if trained else ''}"

    @classmethod
    def execute(
        cls, model_folder: str, trained_reward: str, precision: str = AUTO, device: str = "default"
    ) -> io.NodeOutput:
        from .vlm import load_vlm_reward

        target = compute_device(device)
        kept = chosen_precision(precision, target)
        # Weights are made 4-bit where they will be used, as training did: other devices may round otherwise.
        place = target if kept == "nf4" else torch.device("cpu")
        make_room(place)
        folder, trained = find_model(model_folder), trained_path(trained_reward)
        with telling(Progress()):
            reward = load_vlm_reward(folder, trained, precision=kept, device=place)
        give_to_host(reward.reward, on_cpu=device == "cpu")
        return io.NodeOutput(reward)


class TrainingProgress(RunCallbacks):
    """The host's progress bar and Cancel; at every measurement the curves so far, as the node's preview."""

    def __init__(self, total: int, title: str) -> None:
        self.title, self.total = title, total
        self.bar = comfy.utils.ProgressBar(total)
        self.history: list[dict[str, float]] = []
        self.measured: list[HeldOut] = []

    def on_report(self, step: int, metrics: Any) -> None:
        from .vlm_training import training_chart

        self.history.append({"step": step, "loss": metrics["loss"]})
        preview = None
        if "held_out_accuracy" in metrics:
            figures = [metrics[f"held_out_{name}"] for name in ("accuracy", "loss", "margin")]
            self.measured.append(HeldOut(step - 1, *figures, centre=0.0))
            chart = training_chart(self.history, self.measured, title=f"{self.title}: update {step} of {self.total}")
            chart.thumbnail((PREVIEW_SIZE, PREVIEW_SIZE))
            preview = ("JPEG", chart, PREVIEW_SIZE)
        self.bar.update_absolute(step, self.total, preview)  # raises when Cancel was pressed

    def on_phase(self, text: str, done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()

    def should_stop(self) -> bool:
        return bool(comfy.model_management.processing_interrupted())


class TrainRewardModel(AttuneNode):
    """Preferences as a reward."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneTrainRewardModel",
            display_name="Train Reward Model",
            category=CATEGORY,
            description="Teaches a vision-language model which of two images is preferred, and saves the result to "
            "models/rewards/attune. Cancel keeps the work; the same run name goes on from there.",
            search_aliases=["qlora", "preference model", "reward training", "bradley terry", "rlhf"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                *model_inputs(cls),
                cls.input(io.Image, "chosen", tooltip="The preferred image of every pair: a batch or a list."),
                cls.input(io.Image, "rejected", tooltip="The other image of every pair, in the same order."),
                cls.input(
                    io.String,
                    "prompts",
                    multiline=True,
                    default="",
                    placeholder="what each pair was to show, one line per pair",
                    tooltip="One line per pair, in the same order, or a list. One line for all is possible only with "
                    "held_out at 0.",
                ),
                cls.input(
                    io.String,
                    "run_name",
                    default="my_taste",
                    tooltip="Names the run, the reward and its file. The same name with the same inputs goes on where "
                    "it stopped.",
                ),
                cls.input(
                    io.Combo,
                    "if_run_exists",
                    options=list(RUN_EXISTS),
                    default=RUN_EXISTS[0],
                    tooltip="resume: go on with a run of this name, or just load it if it is done. start fresh: forget "
                    "its saved state; files stay.",
                ),
                *training_inputs(cls),
                *device_inputs(cls),
                *advanced_inputs(cls),
            ],
            outputs=[
                cls.output(Reward, id="reward", display_name="reward", tooltip="The trained reward, for Score Images "
                           "and training."),
                cls.output(io.String, id="report", display_name="report", tooltip="What was done and how good it is."),
                cls.output(io.Image, id="chart", display_name="chart", tooltip="Held-out pair accuracy and loss."),
                cls.output(io.String, id="reward_name", display_name="reward_name", tooltip="The saved file, as Load "
                           "VLM Reward lists it."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, model_folder: list[str] | None = None) -> bool | str:
        try:
            for name in model_folder or []:
                find_model(name)
        except RewardError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, model_folder: list[str] | None = None, **widgets: Any) -> str:
        folders = [path for name, path in model_folders().items() if name in (model_folder or [])]
        with telling(stop_reading):
            return "/".join(folder_digest(path) for path in folders)

    @classmethod
    def execute(
        cls, chosen: list[torch.Tensor], rejected: list[torch.Tensor], prompts: list[str], **lists: list[Any]
    ) -> io.NodeOutput:
        from .vlm_training import check_training, run_reward_training

        widget = {name: _single(values, name) for name, values in lists.items()}
        first, second = unbatch(chosen), unbatch(rejected)
        pairs = make_pairs(split_prompts(prompts, len(first)), first, second)
        request = training_request(pairs, **widget)
        check_training(request)
        make_room(request.device)
        with telling(Progress()):
            outcome = run_reward_training(request, TrainingProgress(request.config.steps, request.run_name))
        stays = give_to_host(outcome.reward, on_cpu=widget["device"] == "cpu")
        report = f"{outcome.report}\n\n{stays}" if stays else outcome.report
        name = listed_name(outcome.file, trained_reward_folder().parent)
        return io.NodeOutput(
            CachedReward(outcome.reward), report, to_tensor(outcome.chart), name, ui={"text": [report]}
        )


def training_request(
    pairs: list[Pair], *, model_folder: str, run_name: str, if_run_exists: str, **widget: Any
) -> RewardTraining:
    """The node's widgets as a request."""
    from .vlm_training import RewardTraining

    name = run_name.strip()
    device = compute_device(widget.pop("device"))
    precision = chosen_precision(widget.pop("precision"), device)
    config = PreferenceConfig(
        seed=widget.pop("training_seed"), checkpoint_seconds=widget.pop("save_state_seconds"), **widget
    )
    return RewardTraining(
        name,
        find_model(model_folder),
        pairs,
        config,
        precision,
        device,
        # A LoRA's run of the same name is another one.
        run_folder(f"reward {name}"),
        if_run_exists == RUN_EXISTS[0],
        lambda ending: free_path(trained_reward_folder(), name, ending),
    )


def _single(values: list[Any], name: str) -> Any:
    if len(values) != 1:
        raise RewardError(f"The input '{name}' got {len(values)} values but takes one. Connect a single value to it.")
    return values[0]


def training_inputs(node: type[AttuneNode]) -> list[Any]:
    """The knobs that most runs need."""
    return [
        node.input(io.Int, "steps", default=DEFAULTS.steps, min=1, max=1_000_000,
                   tooltip="Updates in all. Training ends earlier when held-out accuracy no longer rises."),
        node.input(io.Float, "learning_rate", default=DEFAULTS.learning_rate, min=1e-7, max=1.0, step=1e-7, round=1e-7,
                   tooltip="Size of each update. Raising it learns faster until it breaks; small models "
                   "take more (0.001)."),
        node.input(io.Int, "rank", default=DEFAULTS.rank, min=1, max=256,
                   tooltip="Size of the LoRA. Raising it learns more and takes more memory."),
        node.input(io.Float, "held_out", default=DEFAULTS.held_out, min=0.0, max=0.9, step=0.05,
                   tooltip="Share of the pairs that is only measured on: whole prompts, never trained on. Raising it "
                   "makes the accuracy more certain and leaves less to learn from. 0 = off."),
        node.input(io.Int, "training_seed", default=DEFAULTS.seed, min=0, max=SEED_LIMIT,
                   tooltip="Fixes all randomness: the same seed and inputs give the same reward on a CPU."),
    ]  # fmt: skip


def advanced_inputs(node: type[AttuneNode]) -> list[Any]:
    """Knobs with good defaults."""
    return [
        node.input(io.Int, "pairs_per_step", default=DEFAULTS.pairs_per_step, min=1, max=1024, advanced=True,
                   tooltip="Pairs computed at a time. Lower it when memory runs out. Raising it makes updates "
                   "steadier."),
        node.input(io.Int, "accumulation", default=DEFAULTS.accumulation, min=1, max=1024, advanced=True,
                   tooltip="Such groups per update. Raising it acts like more pairs_per_step without more memory, and "
                   "takes longer. 1 = off."),
        node.input(io.Combo, "layers", options=list(LAYERS), default=DEFAULTS.layers, advanced=True,
                   tooltip="Which part learns: how the language model reads image and prompt, or also how the image is "
                   "seen, which takes more memory."),
        node.input(io.Float, "alpha", default=DEFAULTS.alpha, min=0.0, max=1024.0, step=1.0, advanced=True,
                   tooltip="Strength of the LoRA; raising it acts like a higher learning rate. 0 = the same as rank."),
        node.input(io.Float, "dropout", default=DEFAULTS.dropout, min=0.0, max=0.9, step=0.05, advanced=True,
                   tooltip="Share of its inputs that the LoRA does not see while training. Raising it counters "
                   "overfitting. 0 = off."),
        node.input(io.Int, "evaluate_every", default=DEFAULTS.evaluate_every, min=1, max=100_000, advanced=True,
                   tooltip="Updates between measurements on the held-out pairs. Raising it saves time."),
        node.input(io.Int, "patience", default=DEFAULTS.patience, min=0, max=1000, advanced=True,
                   tooltip="Measurements without a better one after which training ends. Raising it waits longer. "
                   "0 = never ends early."),
        node.input(io.Int, "warmup_steps", default=DEFAULTS.warmup_steps, min=0, max=100_000, advanced=True,
                   tooltip="Updates over which the learning rate rises from 0. Raising it starts more gently. "
                   "0 = off."),
        node.input(io.Combo, "schedule", options=list(get_args(Schedule)), default=DEFAULTS.schedule, advanced=True,
                   tooltip="The learning rate after the warm-up: constant, or falling to 0 as a line or a cosine. Only "
                   "a constant run can be continued with more steps."),
        node.input(io.Float, "clip_norm", default=DEFAULTS.clip_norm, min=0.0, max=1000.0, step=0.01, advanced=True,
                   tooltip="Longer gradients are shortened to this length. Raising it allows larger jumps. 0 = off."),
        node.input(io.Float, "weight_decay", default=DEFAULTS.weight_decay, min=0.0, max=1.0, step=1e-4,
                   advanced=True,
                   tooltip="Pulls what is learned towards nothing. Raising it counters overfitting. 0 = off."),
        node.input(io.Boolean, "save_memory", default=DEFAULTS.save_memory, advanced=True,
                   tooltip="Computes layers twice instead of keeping their results: much less memory, about a third "
                   "slower. Changes nothing else."),
        node.input(io.Float, "save_state_seconds", default=float(DEFAULTS.checkpoint_seconds), min=0.0, max=86400.0,
                   step=1.0, advanced=True,
                   tooltip="Seconds between saved states, for going on after a crash. Cancel always saves. Raising it "
                   "writes less. 0 = after every update."),
    ]  # fmt: skip


NODES: list[type[io.ComfyNode]] = [LoadVLMReward, TrainRewardModel]
