"""Figures of a session's trade-offs: by hand."""

from __future__ import annotations

import math

import pytest

from attune.nodes.refinement.monitored import monitored, pictures_so_far
from attune.nodes.refinement.records import Feedback, Picture, Round, Schedule
from attune.nodes.refinement.running_scores import Running

# Mean 0, deviation 1: scores are their own z-scores.
PLAIN = {"a": Running(10, 0.0, 10.0, 4.0), "b": Running(10, 0.0, 10.0, 4.0)}


def a_round(number: int, points: list[tuple[float, float]], liked: tuple[int, ...] = ()) -> Round:
    pictures = tuple(Picture(f"{number}{place}" * 32, place, {"a": a, "b": b}) for place, (a, b) in enumerate(points))
    return Round(
        f"{number:032x}", None if number == 1 else f"{number - 1:032x}", number, 0, "a cat", "", {},
        Schedule("linear", 2, 1.0, tuple(range(len(points)))), None, pictures, Feedback(liked=liked), 1.0, "", "", 1,
    )  # fmt: skip


def test_by_hand():
    """Above (−3, −3): (−1, 1) and (1, −1) cover 2·4 + 4·2 − 2·2 = 12; (0.5, 0.5) adds a square of 3.5 − 2. Of what was
    chosen (−1, 1) is on the front, and (−1.25, 0.75) is beaten by it by 0.25 in both."""
    rounds = [a_round(1, [(-1, 1), (1, -1)], (0,)), a_round(2, [(0.5, 0.5), (-1.25, 0.75)], (1,))]
    first = monitored(pictures_so_far(rounds[:1], PLAIN), ("a", "b"))
    assert (first.covered, first.gained, first.behind) == (12.0, 12.0, 0.0)
    both = monitored(pictures_so_far(rounds, PLAIN), ("a", "b"))
    assert both.covered == pytest.approx(14.25) and both.gained == pytest.approx(2.25)
    assert both.behind == pytest.approx((0 + 0.25) / 2)
    assert both.text() == "The front covers 14.2 (the last round added 2.2); what was chosen lies 0.12 behind it."


def test_less_is_better_of_a_cost():
    rounds = [a_round(1, [(1, 0), (-1, 0.5)], (0,))]
    assert monitored(pictures_so_far(rounds, PLAIN), ("a", "b")).behind == 0
    assert monitored(pictures_so_far(rounds, PLAIN, costs=["a"]), ("a", "b")).behind == pytest.approx(0.5)


def test_what_a_round_does_not_tell_has_no_part():
    """The first round's b says nothing: its pictures, the chosen one among them, have no place."""
    rounds = [a_round(1, [(3, 2), (1, 2)], (0,)), a_round(2, [(0, 0), (1, 1)])]
    pictures = pictures_so_far(rounds, PLAIN)
    assert math.isnan(pictures.z[0]["b"]) and pictures.chosen == [0] and pictures.first_of_newest == 2
    found = monitored(pictures, ("a", "b"))
    assert found.covered == pytest.approx(16) and math.isnan(found.behind) and "chosen" not in found.text()
    assert monitored(pictures_so_far(rounds[:1], PLAIN), ("a", "b")) is None
    assert monitored(pictures_so_far([], PLAIN), ("a", "b")) is None
