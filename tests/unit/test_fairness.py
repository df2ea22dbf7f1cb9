"""Fairness report: closed forms, no false alarms, real leanings found."""

from __future__ import annotations

import math

import numpy as np
import pytest

from attune.nodes.refinement.checks import RefinementError
from attune.nodes.refinement.fairness import BOUND, Judged, _student, fairness, picked_by

COLOURS = ("red", "blue", "green", "black")


def rounds_of(rng: np.random.Generator, count: int, shares: tuple[float, ...], *, batch: int = 4) -> list[Judged]:
    """Rounds of differently coloured pictures; the chosen one's colour has these shares."""
    return [Judged(COLOURS[:batch], (int(rng.choice(batch, p=shares)),)) for _ in range(count)]


def test_by_hand():
    """Two rounds of (red, red, blue, blue): red twice. Q = ½, ½; P = 1, 0; TV = ½. Chance: both rounds red or both
    blue, ¼ + ¼."""
    found = fairness([Judged(("red", "red", "blue", "blue"), (0,))] * 2, "colour")
    assert found.shares == {"red": (0.5, 1.0), "blue": (0.5, 0.0)}
    assert found.distance == pytest.approx(0.5)
    assert found.chance == pytest.approx(0.5, abs=0.04)
    assert found.interval == (0.0, 1.0) and not found.warns
    assert "too few rounds" in found.words


def test_expected_shares_count_every_choice_where_it_was_made():
    """Round 1 (red, blue): one choice, so ½ each. Round 2 (red, red, red, blue): two choices, 1.5 red and ½ blue. Of
    three choices Q(red) = 2/3. Chosen: blue; red, blue: P(red) = 1/3, TV = 1/3."""
    found = fairness([Judged(("red", "blue"), (1,)), Judged(("red", "red", "red", "blue"), (0, 3))], "colour")
    assert found.shares["red"] == pytest.approx((2 / 3, 1 / 3))
    assert found.distance == pytest.approx(1 / 3)
    assert (found.rounds, found.choices) == (2, 3)
    assert list(found.shares) == ["blue", "red"]


def test_rounds_without_a_choice_or_a_difference_say_nothing():
    rounds = [Judged(("red", "blue"), ()), *[Judged(("red", "red"), (0,))] * 20]
    found = fairness(rounds, "colour")
    assert (found.rounds, found.distance, found.chance) == (20, 0.0, 1.0)
    assert not found.warns
    empty = fairness(rounds[:1], "colour")
    assert math.isnan(empty.distance) and not empty.warns
    assert "nothing has been chosen" in empty.words


@pytest.mark.parametrize("count", [3, 8, 12, 40])
@pytest.mark.parametrize("shares", [(0.25, 0.25, 0.25, 0.25), (0.35, 0.25, 0.2, 0.2)])
def test_no_false_alarm(count, shares):
    """120 sessions without a preference, or with one of TV 0.1: at most 5 % (+ 3 deviations: 11 %) warn at 0.2."""
    rng = np.random.default_rng([count, round(100 * shares[0])])
    alarms = [fairness(rounds_of(rng, count, shares), "colour", seed=n).warns for n in range(120)]
    assert np.mean(alarms) <= 0.11


def test_a_real_leaning_is_found():
    """Three of four choices are red where a quarter should be (TV 0.5): 40 rounds find it nearly always."""
    rng = np.random.default_rng(0)
    found = [fairness(rounds_of(rng, 40, (0.75, 0.25 / 3, 0.25 / 3, 0.25 / 3)), "colour", seed=n) for n in range(30)]
    assert np.mean([one.warns for one in found]) > 0.9
    assert next(iter(found[0].shares)) == "red"
    assert "lean to some values (red 25 %" in found[0].words
    assert not fairness(rounds_of(rng, 40, (0.75, 0.25 / 3, 0.25 / 3, 0.25 / 3)), "colour", bound=0.9).warns


@pytest.mark.parametrize(("count", "least"), [(12, 0.85), (40, 0.88)])
def test_interval_holds_the_truth(count, least):
    """TV 0.5, 150 sessions; 95 % is what it aims at."""
    rng, inside = np.random.default_rng(7), 0
    for n in range(150):
        low, high = fairness(rounds_of(rng, count, (0.75, 0.25 / 3, 0.25 / 3, 0.25 / 3)), "colour", seed=n).interval
        inside += low <= 0.5 <= high
    assert inside / 150 >= least


def test_what_chance_adds_is_taken_back():
    """Without a preference TV of 12 choices among four is 0.2 on average; the interval is not pulled up by that."""
    rng = np.random.default_rng(2)
    found = [fairness(rounds_of(rng, 12, (0.25,) * 4), "colour", seed=n) for n in range(100)]
    assert np.mean([one.distance for one in found]) == pytest.approx(0.2, abs=0.03)
    assert np.mean([one.interval[0] > 0.02 for one in found]) <= 0.2
    assert np.mean([sum(one.interval) / 2 for one in found]) < 0.19


def test_students_quantile():
    """Of tables: 2.3646 with 7 degrees of freedom, 2.2010 with 11, 2.0227 with 39."""
    assert [_student(freedom) for freedom in (7, 11, 39)] == pytest.approx([2.3646, 2.2010, 2.0227], abs=0.01)


def test_against_other_weights():
    """30 rounds of a red and a blue picture. "likes red" picks red, "likes blue" blue; each against the other: TV 1."""
    z = [[{"likes red": 1.0, "likes blue": -1.0}, {"likes red": -1.0, "likes blue": 1.0}]] * 30
    values = [("red", "blue")] * 30
    judged = picked_by(z, values, {"likes red": 1.0}, instead={"likes blue": 1.0})
    found = fairness(judged, "colour")
    assert found.shares == {"red": (0.0, 1.0), "blue": (1.0, 0.0)}
    assert found.warns
    same = fairness(picked_by(z, values, {"likes red": 1.0}, instead={"likes red": 0.7}), "colour")
    assert (same.distance, same.chance, same.warns) == (0.0, 1.0, False)


def test_weights_against_chance():
    rng = np.random.default_rng(1)
    values = [tuple(rng.permutation(COLOURS)) for _ in range(40)]
    z = [[{"a": float(colour == "black"), "b": float(rng.normal())} for colour in own] for own in values]
    assert fairness(picked_by(z, values, {"a": 1.0, "b": 0.01}), "colour").warns
    assert not fairness(picked_by(z, values, {"a": 0.0, "b": 1.0}), "colour").warns
    two = picked_by(z, values, {"a": 1.0, "b": 0.01}, keep=2)
    assert all(len(judged.chosen) == 2 for judged in two)


def test_pictures_that_were_not_scored_are_not_picked():
    judged = picked_by([[{"a": math.nan}, {"a": 0.0}], [{"a": math.nan}]], [("red", "blue"), ("red",)], {"a": 1.0})
    assert [one.chosen for one in judged] == [(1,), ()]


def test_same_rounds_same_report():
    rounds = rounds_of(np.random.default_rng(3), 20, (0.4, 0.3, 0.2, 0.1))
    assert fairness(rounds, "colour") == fairness(rounds, "colour")
    assert 0 < BOUND < 1


def test_bad_input_is_refused():
    for words, run in (
        ("no positions of 1 pictures", lambda: Judged(("red",), (1,))),
        ("no positions of 2 pictures", lambda: Judged(("red", "blue"), (1, 1))),
        ("as many are needed", lambda: Judged(("red", "blue"), (1,), ())),
        ("between 0 and 1", lambda: fairness([], "colour", bound=2)),
    ):
        with pytest.raises(RefinementError, match=words):
            run()
