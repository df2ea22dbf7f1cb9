"""What several rewards make of pictures without weighing them: the non-dominated ones, and how much they cover.

More is better in every reward. x dominates y if no reward of x is lower than y's and one is higher. The *front* are the
pictures that none dominates. Of a weighted sum with all weights above 0 the best picture is on the front, but only its
convex parts are reached so; with a weight of 0 it may be dominated in that reward. Hence both are measured here instead
of promised.

| measure           | formula                                                                               |
| ----------------- | ------------------------------------------------------------------------------------- |
| hypervolume       | volume of {y : reference ≤ y ≤ x for some picture x}; higher is better                  |
| distance to front | max over the front of min_i (front_i − x_i), at least 0: if x gained more than that in  |
|                   | every reward, nothing would dominate it; 0 on the front                                |

Which figures of a session are shown: `monitored`. `parrot` is for scripts that compare with it: no node leaves pictures
out by it, since the person chooses among all.

Pictures that a reward could not score (NaN) are on no front and cover nothing.

References:
    hypervolume: Zitzler & Thiele 1998, computed by slicing one reward after the other (While et al. 2006). Distance:
    the additive ε-indicator of Zitzler et al. 2003, of a single picture. Parrot: Lee et al. 2024, "Parrot:
    Pareto-optimal multi-reward reinforcement learning framework for text-to-image generation", section 3.1; only its
    batch-wise selection is here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from .checks import RefinementError

# Slicing takes about points^(rewards − 1) steps.
MOST_REWARDS = 6


def points_of(z: Sequence[Mapping[str, float]], names: Sequence[str]) -> np.ndarray:
    """Pictures' scores as points [pictures, rewards]; what was not scored is NaN."""
    rows = [[picture.get(name, math.nan) for name in names] for picture in z]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(names))


def dominates(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether points [..., rewards] dominate others of the same shape: [...]."""
    return (one >= other).all(-1) & (one > other).any(-1)


def non_dominated(points: np.ndarray) -> np.ndarray:
    """Which of the points [N, rewards] are on the front, bool [N]. Equal points are so together."""
    points = checked(points)
    known = np.isfinite(points).all(1)
    # NaN compares false, so that such a point dominates nothing.
    beaten = dominates(points[None], points[:, None]).any(1) if len(points) else known
    return known & ~beaten


def parrot(points: np.ndarray) -> list[int]:
    """Positions of the batch that Parrot would learn from: the non-dominated ones, the others left out."""
    return np.flatnonzero(non_dominated(points)).tolist()


def distance_to_front(points: np.ndarray, front: np.ndarray | None = None) -> np.ndarray:
    """How far points [N, rewards] are from a front, see the module: [N], in the rewards' unit.

    Args:
        front: points [M, rewards] of which the non-dominated ones count; None = these points.

    Returns:
        0 also for points beyond the front; NaN for points that were not scored, and where there is no front.
    """
    points = checked(points)
    others = points if front is None else checked(front)
    if others.shape[1] != points.shape[1]:
        raise RefinementError(f"Points of {points.shape[1]} rewards have no distance to a front of {others.shape[1]}.")
    others = others[non_dominated(others)]
    if not len(others):
        return np.full(len(points), math.nan)
    behind = (others[None] - points[:, None]).min(2).max(1).clip(0)  # NaN goes through min and max
    return np.where(np.isfinite(points).all(1), behind, math.nan)


def hypervolume(points: np.ndarray, reference: Sequence[float]) -> float:
    """Volume that the points [N, rewards] cover above the reference point [rewards]; 0 if none is above it.

    Raises:
        RefinementError: another number of rewards than the reference has, or more than `MOST_REWARDS`.
    """
    points, corner = checked(points), np.asarray(reference, dtype=np.float64)
    if corner.shape != (points.shape[1],) or not np.isfinite(corner).all():
        raise RefinementError(f"The reference must be {points.shape[1]} finite numbers, not {corner.tolist()}.")
    if points.shape[1] > MOST_REWARDS:
        raise RefinementError(f"A hypervolume is computed of up to {MOST_REWARDS} rewards, not of {points.shape[1]}.")
    above = points[(points > corner).all(1)] - corner
    return _volume(above)


def _volume(points: np.ndarray) -> float:
    """Of boxes from the origin to points [N, rewards], all > 0."""
    if not len(points):
        return 0.0
    if points.shape[1] == 1:
        return float(points.max())
    points = points[non_dominated(points)]
    points = points[np.argsort(-points[:, -1], kind="stable")]
    if points.shape[1] == 2:
        # From the highest down, each point reaches further to the right than all before it.
        reach = np.maximum.accumulate(points[:, 0])
        added = np.diff(reach, prepend=0.0)
        return float((added * points[:, 1]).sum())
    heights = points[:, -1] - np.append(points[1:, -1], 0.0)
    slices = [height * _volume(points[: last + 1, :-1]) for last, height in enumerate(heights) if height > 0]
    return math.fsum(slices)


def checked(points: np.ndarray) -> np.ndarray:
    """
    Raises:
        RefinementError: not points [N, rewards] of at least one reward.
    """
    found = np.asarray(points, dtype=np.float64)
    if found.ndim != 2 or not found.shape[1]:
        raise RefinementError(f"A front is of points [pictures, rewards], not of shape {list(found.shape)}.")
    return found
