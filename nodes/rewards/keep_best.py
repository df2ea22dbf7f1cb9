"""Which pictures stay, by their scores: the best k, those above a threshold, or the non-dominated set.

Scores are turned so that higher is better before they come here. Orders are stable: equal scores keep the pictures'
order. The non-dominated set is Pareto's, by its definition: n² comparisons of a few numbers cost nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from ...training.interfaces import Reward, RewardError
from .calibration import LEVELS, Level, level_as_score
from .scoring import as_float32, left_out, significant
from .wrapping import calibration_of

KeepMode = Literal["best k", "threshold", "non-dominated"]
KEEP_MODES: tuple[str, ...] = get_args(KeepMode)


@dataclass(frozen=True)
class KeepConfig:
    """What is kept.

    Attributes:
        mode: "best k" and "threshold" decide by the first reward alone, "non-dominated" by all.
        k: how many at most.
        threshold: what a score must reach, in `threshold_unit`; of costs, a level of goodness.
        threshold_unit: all but the raw score need a calibrated reward.
    """

    mode: KeepMode = "best k"
    k: int = 4
    threshold: float = 0.0
    threshold_unit: Level = "raw score"

    def __post_init__(self) -> None:
        for name, choices in (("mode", KEEP_MODES), ("threshold_unit", LEVELS)):
            if getattr(self, name) not in choices:
                raise RewardError(f"There is no {name} {getattr(self, name)!r}; choose one of: {', '.join(choices)}.")
        if self.k < 1:
            raise RewardError(f"k must be at least 1, not {self.k}: it is how many images stay.")


def best_first(goodness: Sequence[float]) -> list[int]:
    """Indices of the scores, highest first; equal ones in their order."""
    return sorted(range(len(goodness)), key=lambda index: -goodness[index])


def non_dominated(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices, ascending, of the points that no other point beats.

    A point beats another if it is at least as good in every coordinate and better in one. Equal points do not beat each
    other, so ties stay together.

    Args:
        points: N points of equally many coordinates, higher is better.
    """
    table = torch.tensor([list(point) for point in points], dtype=torch.float64)  # (N, rewards)
    kept = []
    for index, point in enumerate(table):
        beaten = (table >= point).all(1) & (table > point).any(1)
        if not beaten.any():
            kept.append(index)
    return kept


def choose(scores: Sequence[Sequence[float]], rewards: Sequence[Reward], config: KeepConfig) -> list[int]:
    """Indices of the pictures that stay, best by the first reward first.

    Args:
        scores: for every reward the raw scores of all pictures.
        rewards: as many, the first one decides the order.

    Raises:
        RewardError: nothing meets the threshold (names the best score), the reward lacks a calibration, or there is
            only one reward to find a non-dominated set with.
    """
    goodness = [[v if reward.higher_is_better else -v for v in values] for reward, values in
                zip(rewards, scores, strict=True)]  # fmt: skip
    order = best_first(goodness[0])
    if config.mode == "best k":
        return order[: config.k]
    if config.mode == "non-dominated":
        if len(rewards) < 2:
            raise RewardError(
                "The non-dominated set is what no other image beats in several rewards at once, and only one reward is "
                "connected. Connect reward_2, or set mode to 'best k'."
            )
        kept = set(non_dominated(list(zip(*goodness, strict=True))))
        return [index for index in order if index in kept]
    judge = rewards[0]
    needed = as_float32(level_as_score(config.threshold, config.threshold_unit, judge))
    least = needed if judge.higher_is_better else -needed
    kept = [index for index in order if as_float32(goodness[0][index]) >= least]
    if not kept:
        best = scores[0][order[0]]
        none = "The image does not reach" if len(order) == 1 else f"None of the {len(order)} images reaches"
        raise RewardError(
            f"{none} the threshold by {judge.name}: {threshold_text(config, judge)}. "
            f"The best one has {_both(best, judge)}. Lower the threshold, make more images, or set mode to 'best k'."
        )
    return kept


def threshold_text(config: KeepConfig, reward: Reward) -> str:
    """The threshold with its unit, and what it is as a raw score."""
    if config.threshold_unit == "raw score":
        return f"{'at least' if reward.higher_is_better else 'at most'} {config.threshold:g}"
    raw = significant(level_as_score(config.threshold, config.threshold_unit, reward))
    unit = "deviations" if config.threshold_unit == "standard deviations" else "% of the reference"
    return f"{config.threshold:g} {unit} (a score of {raw})"


def _both(score: float, reward: Reward) -> str:
    calibration = calibration_of(reward)
    if calibration is None:
        return significant(score, 4)
    sign = 1 if reward.higher_is_better else -1
    return f"{significant(score, 4)} ({significant(sign * calibration.z(score))} deviations from the reference's mean)"


def report(
    kept: Sequence[int],
    scores: Sequence[Sequence[float]],
    rewards: Sequence[Reward],
    prompts: Sequence[str],
    config: KeepConfig,
    *,
    numbers: Sequence[int] | None = None,
    total: int | None = None,
) -> str:
    """What was kept and why, as Markdown: a sentence and a table, best first.

    Args:
        kept: indices of the pictures that stay, among those that have scores and prompts.
        numbers: what each of those is called; all count, where none was left out before.
        total: how many there were before some were left out.
    """
    judged = len(scores[0])
    numbers, total = numbers or range(judged), total or judged
    why = {
        "best k": f"the best {len(kept)} by {rewards[0].name}",
        "threshold": f"{rewards[0].name}: {threshold_text(config, rewards[0]) if config.mode == 'threshold' else ''}",
        "non-dominated": f"no other image is better in one of {', '.join(r.name for r in rewards)} "
        "without being worse in another",
    }[config.mode]
    lines = [f"**Kept {len(kept)} of {total}**: {why}"]
    if missing := left_out(judged, total):
        lines.append(missing)
    if config.mode == "best k" and config.k > judged:
        there = "There is only 1 image" if judged == 1 else f"There are only {judged} images"
        lines.append(f"{there}, fewer than the {config.k} asked for.")
    names = [reward.name.replace("|", "\\|") for reward in rewards]
    lines += ["", f"| rank | image | {' | '.join(names)} | prompt |",
              f"| ---: | ---: | {' | '.join('---:' for _ in rewards)} | :--- |"]  # fmt: skip
    for rank, index in enumerate(kept, start=1):
        figures = " | ".join(significant(values[index]) for values in scores)
        prompt = " ".join(prompts[index].split()).replace("|", "\\|")
        lines.append(f"| {rank} | {numbers[index]} | {figures} | {prompt} |")
    return "\n".join(lines)
