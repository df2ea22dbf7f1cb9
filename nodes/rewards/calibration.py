"""Where the scores of a reference set lie, so that a score can be said in units that every reward shares.

    z(s) = (s − mean) / deviation                    raw unit → deviations above the reference's mean
    percentile(s) = share of the reference below s    in %

A calibration belongs to a reward id and has a name; it is kept in the pack's store. It holds no picture and no prompt.
"""

from __future__ import annotations

import json
import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import torch

from ...training.interfaces import Reward, RewardError
from ..store import Store
from .scoring import significant
from .wrapping import WrappedReward

Level = Literal["standard deviations", "percentile", "raw score"]
LEVELS: tuple[str, ...] = get_args(Level)

FEWEST, FEW = 8, 30
Number = TypeVar("Number", float, torch.Tensor)


@dataclass(frozen=True)
class Calibration:
    """Statistics of a reward on a reference set.

    Attributes:
        reward_id: of the reward that made the scores; for any other they mean nothing.
        name: of the reference set.
        count: scores in it, at least `FEWEST`.
        mean: of the raw scores.
        deviation: standard deviation of the raw scores, of the sample (n − 1); above 0.
        quantiles: the scores at 0 %, 1 %, … 100 % of the ordered set: 101 numbers, ascending.
    """

    reward_id: str
    name: str
    count: int
    mean: float
    deviation: float
    quantiles: tuple[float, ...]

    def __post_init__(self) -> None:
        numbers = (self.mean, self.deviation, *self.quantiles)
        rising = all(a <= b for a, b in zip(self.quantiles, self.quantiles[1:], strict=False))
        if len(self.quantiles) != 101 or not rising or self.deviation <= 0 or not all(map(math.isfinite, numbers)):
            raise RewardError(
                f"The calibration {self.name!r} is damaged: it needs 101 ascending quantiles and a deviation above 0, "
                f"not {len(self.quantiles)} and {self.deviation:g}. Calibrate the reward again."
            )

    @classmethod
    def of(cls, reward_id: str, name: str, scores: Sequence[float]) -> Calibration:
        """Statistics of a list of raw scores, in double precision.

        Raises:
            RewardError: fewer than `FEWEST` scores, one that is not finite, or all are equal; says what to do.
        """
        values = torch.tensor(list(scores), dtype=torch.float64)
        bad = (~values.isfinite()).nonzero().flatten().tolist()
        if bad:
            raise RewardError(
                f"The score of image {bad[0]} (the first is 0) is {values[bad[0]].item():g}, which is not finite. "
                "Leave that image out, or check the reward."
            )
        if len(values) < FEWEST:
            few = "1 image is" if len(values) == 1 else f"{len(values)} images are"
            raise RewardError(
                f"{few} too few to calibrate with: at least {FEWEST} are needed, and from {FEW} on "
                "the figures are steady. Connect more images of the kind you make."
            )
        mean, deviation = values.mean().item(), values.std(correction=1).item()
        # Scores that differ in the last bits of their float32 only are equal scores.
        if not deviation > 1e-6 * max(1e-6, abs(mean)):
            raise RewardError(
                f"All {len(values)} images have the score {significant(mean)}, so there is nothing to calibrate by. "
                "Connect images that differ, or choose another reward."
            )
        quantiles = torch.quantile(values, torch.linspace(0, 1, 101, dtype=torch.float64))
        # Interpolating between equal numbers can be off by a rounding: the order is what counts.
        return cls(reward_id, name, len(values), mean, deviation, tuple(quantiles.cummax(0).values.tolist()))

    def z(self, score: Number) -> Number:
        """Deviations above the mean; a tensor keeps its shape, type and graph."""
        return (score - self.mean) / self.deviation

    def percentile(self, score: Number) -> Number:
        """Which percentage of the reference scores lower, 0 … 100, by linear interpolation; equal scores count half.

        A tensor gives a tensor of its shape, without a graph.
        """
        if isinstance(score, torch.Tensor):
            flat = [self._percentile(value) for value in score.detach().double().flatten().tolist()]
            return torch.tensor(flat, dtype=torch.float32, device=score.device).reshape(score.shape)
        return self._percentile(score)

    def _percentile(self, score: float) -> float:
        lower, upper = bisect_left(self.quantiles, score), bisect_right(self.quantiles, score)
        if lower < upper:
            return (lower + upper - 1) / 2
        if lower in (0, len(self.quantiles)):
            return 0.0 if lower == 0 else 100.0
        before, after = self.quantiles[lower - 1], self.quantiles[lower]
        return lower - 1 + (score - before) / (after - before)

    def score_at(self, percentile: float) -> float:
        """The raw score at a percentile 0 … 100, by linear interpolation."""
        place = min(max(percentile, 0.0), 100.0)
        low = min(int(place), 99)
        return self.quantiles[low] + (place - low) * (self.quantiles[low + 1] - self.quantiles[low])


class CalibratedReward(WrappedReward):
    """A reward that knows where its scores lie. The scores stay what they were, and so does the reward id.

    Args:
        reward: any reward; a calibration it had is replaced.
        calibration: of that very reward.

    Raises:
        RewardError: the calibration belongs to another reward.
    """

    def __init__(self, reward: Reward, calibration: Calibration) -> None:
        if calibration.reward_id != reward.reward_id:
            raise RewardError(
                f"The calibration {calibration.name!r} was made with another reward or another version of it than "
                f"{reward.name}. Calibrate this one: connect images to Calibrate Reward."
            )
        super().__init__(reward.reward if isinstance(reward, CalibratedReward) else reward)
        self.calibration = calibration


def level_as_score(level: float, unit: Level, reward: Reward) -> float:
    """The raw score that a level stands for. For costs a level is one of goodness: 1 deviation *better* than the mean.

    Args:
        level: in `unit`; a percentile is 0 … 100.
        unit: see `Level`; a raw score is returned as it is.
        reward: whose calibration is meant.

    Raises:
        RewardError: the reward has no calibration, or there is no such unit or percentile.
    """
    if unit not in LEVELS:
        raise RewardError(f"There is no unit {unit!r}; choose one of: {', '.join(LEVELS)}.")
    if unit == "raw score":
        return level
    calibration = require_calibration(reward, f"a level in {unit}" if unit == LEVELS[0] else "a percentile")
    if unit == "percentile":
        if not 0 <= level <= 100:
            raise RewardError(f"A percentile lies between 0 and 100, not at {level:g}. Change it, or its unit.")
        return calibration.score_at(level if reward.higher_is_better else 100 - level)
    return calibration.mean + (level if reward.higher_is_better else -level) * calibration.deviation


def require_calibration(reward: Reward, purpose: str) -> Calibration:
    """The reward's calibration.

    Raises:
        RewardError: it has none, or one that belongs to another reward.
    """
    calibration = getattr(reward, "calibration", None)
    if calibration is None:
        raise RewardError(
            f"{reward.name} has no calibration, which {purpose} needs. Put Calibrate Reward between it and this node."
        )
    if calibration.reward_id != reward.reward_id:
        raise RewardError(
            f"The calibration {calibration.name!r} of {reward.name} belongs to another reward: something between "
            "Calibrate Reward and this node has changed the scores. Put Calibrate Reward behind it."
        )
    return calibration


# ---- in the store ----


def save_calibration(store: Store, calibration: Calibration, *, reward_name: str) -> None:
    """Keep a calibration under its reward id and name, in the place of an earlier one of that name.

    Raises:
        StoreError: the store cannot be written.
    """
    with store.writing() as connection:
        connection.execute(
            "INSERT INTO calibrations (reward_id, name, reward_name, count, mean, deviation, quantiles, made) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (reward_id, name) DO UPDATE SET "
            "reward_name = excluded.reward_name, count = excluded.count, mean = excluded.mean, "
            "deviation = excluded.deviation, quantiles = excluded.quantiles, made = excluded.made",
            (
                calibration.reward_id, calibration.name, reward_name, calibration.count, calibration.mean,
                calibration.deviation, json.dumps(calibration.quantiles), int(time.time()),
            ),
        )  # fmt: skip


def load_calibration(store: Store, reward: Reward, name: str) -> Calibration:
    """The stored calibration of a reward.

    Raises:
        RewardError: there is none of that name for this reward, listing those there are, or it is damaged.
        StoreError: the store cannot be read.
    """
    with store.reading() as connection:
        row = connection.execute(
            "SELECT count, mean, deviation, quantiles FROM calibrations WHERE reward_id = ? AND name = ?",
            (reward.reward_id, name),
        ).fetchone()
        if row is None:
            names = connection.execute(
                "SELECT name FROM calibrations WHERE reward_id = ? ORDER BY name", (reward.reward_id,)
            ).fetchall()
    if row is None:
        others = ", ".join(repr(other) for (other,) in names)
        there = f"Stored for this reward: {others}. Choose one of those, or connect" if others else "Connect"
        raise RewardError(
            f"{reward.name} has no stored calibration named {name!r}. {there} at least {FEWEST} images, "
            "which makes one and stores it."
        )
    count, mean, deviation, quantiles = row
    try:
        figures = (int(count), float(mean), float(deviation), tuple(map(float, json.loads(quantiles))))
    except (TypeError, ValueError, OverflowError) as error:
        raise RewardError(
            f"The calibration {name!r} of {reward.name} is damaged in {store.path} ({error}). Calibrate the reward "
            "again: connect images to Calibrate Reward, which replaces it."
        ) from error
    return Calibration(reward.reward_id, name, *figures)


def calibrations_digest(store: Store, name: str) -> str:
    """Changes when a calibration of that name, of any reward, is stored with other figures."""
    with store.reading() as connection:
        rows = connection.execute(
            "SELECT reward_id, count, mean, deviation, quantiles FROM calibrations WHERE name = ? ORDER BY reward_id",
            (name,),
        ).fetchall()
    return json.dumps(rows)


def report(calibration: Calibration, reward: Reward, *, stored_now: bool, note: str = "") -> str:
    """The figures in words, as Markdown, and a note where there is one."""
    low, middle, high = (significant(calibration.score_at(part)) for part in (5, 50, 95))
    lines = [
        f"**{reward.name}**, calibrated on {calibration.count} images as {calibration.name!r}"
        f"{'' if stored_now else ' (loaded)'}",
        "",
        f"- mean {significant(calibration.mean)}, standard deviation {significant(calibration.deviation)}",
        f"- half of the images score {'above' if reward.higher_is_better else 'below'} {middle}, "
        f"nine in ten between {low} and {high}",
    ]
    if note:
        lines.append(f"- {note}")
    if calibration.count < FEW:
        lines.append(
            f"- Few images: with {calibration.count} the figures are rough. From {FEW} on they are steady, "
            "with 100 or more the outer percentiles too."
        )
    return "\n".join(lines)
