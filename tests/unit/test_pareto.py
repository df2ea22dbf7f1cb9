"""Fronts, hypervolumes and distances: by hand, by inclusion and exclusion, by counting random points."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from attune.nodes.refinement.checks import RefinementError
from attune.nodes.refinement.pareto import distance_to_front, hypervolume, non_dominated, parrot, points_of

STAIRS = np.array([[1.0, 4.0], [2.0, 3.0], [4.0, 1.0], [2.0, 2.0], [0.5, 0.5], [4.0, 1.0]])


def by_inclusion_and_exclusion(points: np.ndarray, reference: np.ndarray) -> float:
    """Σ over subsets of (−1)^(size − 1)·volume of the common box."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for members in itertools.combinations(points, size):
            total += (-1) ** (size - 1) * np.prod(np.clip(np.min(members, axis=0) - reference, 0, None))
    return total


def test_front_by_hand():
    """(2, 2) lies behind (2, 3), (0.5, 0.5) behind all; the two equal points are both on the front."""
    assert non_dominated(STAIRS).tolist() == [True, True, True, False, False, True]
    assert parrot(STAIRS) == [0, 1, 2, 5]


@pytest.mark.parametrize("rewards", [1, 2, 3, 4])
def test_front_by_definition(rewards):
    points = np.random.default_rng(rewards).integers(0, 5, size=(40, rewards)).astype(float)
    for row, on_front in enumerate(non_dominated(points)):
        beaten = any(
            all(o >= p for o, p in zip(other, points[row], strict=True)) and tuple(other) != tuple(points[row])
            for other in points
        )
        assert on_front == (not beaten)


def test_hypervolume_by_hand():
    """Stairs from (0, 0): 1·4 + 1·3 + 2·1 = 9. One box in three dimensions: 2·3·4 = 24, with (1, 4, 1) 25."""
    assert hypervolume(STAIRS, (0, 0)) == pytest.approx(9)
    assert hypervolume(STAIRS, (2, 0)) == pytest.approx(2)
    assert hypervolume([[2.0, 3.0, 4.0]], (0, 0, 0)) == pytest.approx(24)
    assert hypervolume([[2.0, 3.0, 4.0], [1.0, 4.0, 1.0]], (0, 0, 0)) == pytest.approx(25)
    assert hypervolume([[7.0]], (3,)) == pytest.approx(4)


@pytest.mark.parametrize("rewards", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(4))
def test_hypervolume_by_inclusion_and_exclusion(rewards, seed):
    rng = np.random.default_rng([rewards, seed])
    points, reference = rng.normal(size=(9, rewards)), rng.normal(size=rewards) - 1
    if seed == 3:
        points = points.round()  # equal coordinates
    assert hypervolume(points, reference) == pytest.approx(by_inclusion_and_exclusion(points, reference))


def test_hypervolume_by_counting():
    """20 000 random points of the unit cube, of which the share that lies below one of 30 points is the volume, within
    5 deviations (0.018)."""
    rng = np.random.default_rng(0)
    points, tried = rng.random((30, 3)), rng.random((20_000, 3))
    covered = (tried[:, None] <= points[None]).all(2).any(1).mean()
    assert hypervolume(points, (0, 0, 0)) == pytest.approx(covered, abs=0.018)


def test_hypervolume_does_not_depend_on_order_or_dominated_points():
    points = np.random.default_rng(1).random((12, 3))
    volume = hypervolume(points, (0, 0, 0))
    assert hypervolume(points[::-1], (0, 0, 0)) == pytest.approx(volume)
    assert hypervolume(points[:, [2, 0, 1]], (0, 0, 0)) == pytest.approx(volume)
    assert hypervolume(np.vstack([points, points[:1] * 0.9]), (0, 0, 0)) == pytest.approx(volume)
    assert hypervolume(np.vstack([points, [[2.0, 2.0, 2.0]]]), (0, 0, 0)) > volume


def test_distance_by_hand():
    """(2, 2) is as good as (2, 3) in the first, so that any gain will do; (0.5, 0.5) needs 1.5 in both to stand beside
    (2, 3)."""
    assert distance_to_front(STAIRS).tolist() == pytest.approx([0, 0, 0, 0, 1.5, 0])
    assert distance_to_front([[9.0, 9.0]], STAIRS).tolist() == [0]
    assert distance_to_front([[0.0, 0.0]], STAIRS).tolist() == [2]


@pytest.mark.parametrize("rewards", [2, 3])
def test_after_gaining_the_distance_nothing_dominates(rewards):
    points = np.random.default_rng(rewards).normal(size=(30, rewards))
    front = points[non_dominated(points)]
    for point, distance in zip(points, distance_to_front(points), strict=True):
        better, worse = point + distance + 1e-9, point + distance - 1e-6
        assert not ((front >= better).all(1) & (front > better).any(1)).any()
        assert distance == 0 or ((front >= worse).all(1) & (front > worse).any(1)).any()


def test_unscored_pictures_are_nowhere():
    points = points_of([{"a": 1.0, "b": 1.0}, {"a": 9.0}, {"a": 9.0, "b": math.nan}], ("a", "b"))
    assert non_dominated(points).tolist() == [True, False, False]
    assert hypervolume(points, (0, 0)) == pytest.approx(1)
    distances = distance_to_front(points)
    assert distances[0] == 0 and np.isnan(distances[1:]).all()


def test_nothing_at_all():
    empty = points_of([], ("a", "b"))
    assert parrot(empty) == []
    assert hypervolume(empty, (0, 0)) == 0
    assert hypervolume([[-1.0, 5.0]], (0, 0)) == 0
    assert np.isnan(distance_to_front([[1.0, 1.0]], empty)).all()


def test_bad_points_are_refused():
    for words, run in (
        ("of shape", lambda: non_dominated([1.0, 2.0])),
        ("2 finite numbers", lambda: hypervolume(STAIRS, (0, 0, 0))),
        ("2 finite numbers", lambda: hypervolume(STAIRS, (0, math.inf))),
        ("up to 6", lambda: hypervolume(np.ones((1, 7)), [0] * 7)),
        ("no distance", lambda: distance_to_front(STAIRS, np.ones((1, 3)))),
    ):
        with pytest.raises(RefinementError, match=words):
            run()
