"""One training of a reward model as a node plays it: model, pairs, training, file, chart, report."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import torch
from PIL import Image

from ...training.interfaces import RewardError, RunCallbacks
from ...training.preference_pairs import Pair, check_pairs, split_by_prompt
from ...training.preference_reward import HeldOut, PreferenceConfig, PreferenceResult, train_reward
from ...training.vlm_base import Precision, load_base
from ...training.vlm_reward import RewardAdapters, TrainedReward, VlmScorer, load_trained, save_trained
from ..charts import Curve, curve_chart
from .vlm import VlmReward

log = logging.getLogger("attune")
# Below this, an accuracy is uncertain by more than a fifth either way.
FEW_PAIRS = 20
TITLES = {"held_out_accuracy": "Held-out pair accuracy (prompts never trained on)", "loss": "Loss"}


@dataclass(frozen=True)
class RewardTraining:
    """What the node asks for.

    Attributes:
        run_name: also of the file and of the reward.
        model: folder of the vision-language model.
        pairs: see `preference_pairs`.
        precision, device: of the model.
        state_folder: where states are saved; resume: go on with the newest.
        new_file: ending → a path for a new file.
    """

    run_name: str
    model: Path
    pairs: Sequence[Pair]
    config: PreferenceConfig
    precision: Precision
    device: torch.device
    state_folder: Path
    resume: bool
    new_file: Callable[[str], Path]


@dataclass(frozen=True)
class RewardOutcome:
    """What a finished training gives to the graph."""

    reward: VlmReward
    file: Path
    chart: Image.Image
    report: str


def check_training(request: RewardTraining) -> None:
    """Find what cannot work before a model of some gigabytes is loaded.

    Raises:
        TrainingError: too few or unusable pairs.
    """
    check_pairs(request.pairs)
    split_by_prompt(request.pairs, request.config.held_out, seed=request.config.seed)


def run_reward_training(request: RewardTraining, callbacks: RunCallbacks) -> RewardOutcome:
    """Train, save and report. Stopped or broken off, what stands is saved under the ending "_stopped".

    Raises:
        AttuneError: bad input, another run of this name, memory ran out, or the file cannot be written.
        BaseException: the host's interrupt, after state and file have been saved.
    """
    check_training(request)
    config = request.config
    base = load_base(request.model, precision=request.precision, device=request.device)
    scorer = VlmScorer(base, device=request.device, seed=config.seed)
    adapters = RewardAdapters(scorer, config.lora(), layers=config.layers)

    def keep(result: PreferenceResult) -> None:
        _keep_stopped(request, adapters, result)

    result = train_reward(
        scorer, adapters, request.pairs, config,
        callbacks=callbacks, run_folder=request.state_folder, resume=request.resume, on_break=keep,
    )  # fmt: skip
    if result.status == "stopped":
        keep(result)
        raise RewardError("Training was stopped; its state and the reward so far are saved. Press Run to go on.")
    trained = TrainedReward.of(adapters, request.run_name, result.metrics())
    file = _known_file(request, trained) or _save(request, trained, "")
    return RewardOutcome(
        VlmReward(scorer, trained, device=request.device),
        file,
        training_chart(result.history, result.measured, title=f"{request.run_name}: {result.status}"),
        report_text(request, result, file),
    )


def _save(request: RewardTraining, trained: TrainedReward, ending: str) -> Path:
    file = request.new_file(ending)
    save_trained(file, trained)
    return file


def _keep_stopped(request: RewardTraining, adapters: RewardAdapters, result: PreferenceResult) -> None:
    """Save what stands; what ended the run is what the user must hear of, so a second failure is only logged."""
    name = f"{request.run_name} (stopped)"
    try:
        file = _save(request, TrainedReward.of(adapters, name, result.metrics()), "_stopped")
        log.info("Attune: training of the reward %r stopped; so far: %s", request.run_name, file)
    except Exception as error:
        log.error("Attune: the reward so far could not be saved: %s", error)


def _known_file(request: RewardTraining, trained: TrainedReward) -> Path | None:
    """The file that this run has written already with these very weights."""
    fresh = request.new_file("")
    stem = fresh.stem.rpartition("_")[0]
    for file in sorted(fresh.parent.glob("*.safetensors")):
        if file.stem.rpartition("_")[0] != stem:
            continue
        try:
            known = load_trained(file)
        except RewardError:
            continue
        if known.digest == trained.digest and known.base_digest == trained.base_digest:
            return file
    return None


def training_chart(history: Sequence[Mapping[str, float]], measured: Sequence[HeldOut], *, title: str) -> Image.Image:
    """The held-out accuracy and the loss over the updates."""
    curves = []
    if measured:
        steps, values = [found.step for found in measured], [found.accuracy for found in measured]
        curves.append(Curve("held_out_accuracy", TITLES["held_out_accuracy"], steps, values))
    rows = [(int(row["step"]), row["loss"]) for row in history if math.isfinite(row["loss"])]
    if rows:
        steps, values = zip(*rows, strict=True)
        curves.append(Curve("loss", TITLES["loss"], steps, values))
    last = f"pair accuracy {measured[-1].accuracy:.0%} after {measured[-1].step} updates" if measured else ""
    return curve_chart(curves, title=title, details=last)


def held_out_lines(result: PreferenceResult, best: HeldOut) -> list[str]:
    """How good the kept weights are, and how sure that is."""
    count = result.held_out_pairs
    low, high = accuracy_interval(best.accuracy, count)
    lines = [
        f"- Held-out pairs that it orders rightly: **{best.accuracy:.1%}** of {count} (chance: 50 %), measured on "
        f"prompts it never trained on; with 95 % confidence between {low:.0%} and {high:.0%} on other pairs like these",
    ]
    if result.before:
        lines.append(f"- Before training: {result.before.accuracy:.1%}, by a head of random numbers")
    if result.candidates > 1:
        lines.append(
            f"- Kept are the best of {result.candidates} measurements on the same pairs, which flatters the figure a "
            "little: judge it on pairs of its own"
        )
    if count < FEW_PAIRS:
        lines.append(
            f"- **Only {count} held-out pairs**: the figure says little. Collect more pairs, or raise held_out"
        )
    if low <= 0.5:
        lines.append("- **It may be guessing**: 50 % lies within that interval")
    lines.append(
        f"- Held-out margin {best.margin:.3g}, loss {best.loss:.3g}; kept: the weights after {best.step} updates"
    )
    return lines


def accuracy_interval(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of `count` independent pairs: Wilson 1927, "Probable inference", p. 209."""
    z = NormalDist().inv_cdf(0.975)
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def report_text(request: RewardTraining, result: PreferenceResult, file: Path) -> str:
    """What was done and how good it is, in Markdown."""
    best = result.best
    lines = [
        f"**{request.run_name}**: {result.status} after {result.steps_done} updates on {result.pairs} pairs.",
        "",
        f"- Model: {request.model.name}, {request.precision}",
        f"- File: {file.parent.name}/{file.name}",
    ]
    if best:
        lines += held_out_lines(result, best)
    else:
        lines.append("- Nothing was held out, so nobody knows how good it is on other prompts")
    if result.peak_memory:
        where = "of the graphics card" if request.device.type == "cuda" else "of the whole program"
        lines.append(f"- Most memory at a time: {result.peak_memory / 2**30:.1f} GB {where}")
    return "\n".join(lines)
