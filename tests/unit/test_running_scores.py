"""Running means, deviations and z-scores: against all scores at once, and the odd cases."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from attune.nodes.refinement.running_scores import (
    Running,
    merged,
    ranked,
    running_of,
    running_scores,
    silent_of,
    weighed,
    z_scores,
)

NAN = math.nan


def batches(rng: random.Random, *, offset: float = 0.0) -> list[list[float]]:
    return [[offset + rng.gauss(2, 3) for _ in range(rng.randint(1, 7))] for _ in range(9)]


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_merged_rounds_are_all_scores_at_once(offset):
    rounds = batches(random.Random(0), offset=offset)
    found = running_scores([[{"a": score} for score in scores] for scores in rounds])["a"]
    everything = np.concatenate(rounds)
    assert found.count == len(everything)
    assert found.mean == pytest.approx(everything.mean(), rel=1e-12)
    assert found.deviation == pytest.approx(everything.std(), rel=1e-9)


def test_merging_is_symmetric_and_has_a_zero():
    one, other = running_of([1.0, 5.0]), running_of([2.0, 2.0, 8.0])
    there, back = merged(one, other), merged(other, one)
    assert (there.mean, there.squares) == pytest.approx((back.mean, back.squares))
    assert merged(one, Running()) == merged(Running(), one) == one


def test_first_round_is_standardised_by_itself():
    """1, 2, 3, 6: mean 3, deviation √3.5; z = −1.069, −0.535, 0, 1.604."""
    pictures = [{"a": score} for score in (1.0, 2.0, 3.0, 6.0)]
    z = [picture["a"] for picture in z_scores(pictures, running_scores([pictures]))]
    assert z == pytest.approx([-2 / math.sqrt(3.5), -1 / math.sqrt(3.5), 0, 3 / math.sqrt(3.5)])
    assert np.mean(np.square(z)) == pytest.approx(1)


def test_later_rounds_are_measured_beside_all():
    """Rounds (0, 2) and (4, 6): mean 3, deviation √5. The second round's z are 1/√5 and 3/√5."""
    rounds = [[{"a": 0.0}, {"a": 2.0}], [{"a": 4.0}, {"a": 6.0}]]
    z = z_scores(rounds[1], running_scores(rounds))
    assert [picture["a"] for picture in z] == pytest.approx([1 / math.sqrt(5), 3 / math.sqrt(5)])


def test_units_and_costs():
    """z does not change with scale and shift; a cost turns its sign."""
    plain = [{"a": score, "b": 50 - 7 * score} for score in (0.1, 0.4, 0.2)]
    z = z_scores(plain, running_scores([plain]), costs={"b"})
    assert [picture["a"] for picture in z] == pytest.approx([picture["b"] for picture in z])


def test_what_never_differs_moves_nothing():
    """Also where float32 makes equal scores differ in the last digit."""
    pictures = [{"same": 0.3, "nearly": score} for score in (1000.0, 1000.00006, 1000.0)]
    for picture in z_scores(pictures, running_scores([pictures])):
        assert picture == {"same": 0.0, "nearly": 0.0}


def test_a_round_without_differences_says_nothing_about_spread():
    """Consistency is 0 for all of round 1, and 0.7 and 0.9 in round 2: z are −1 and 1, as if round 2 were the first."""
    rounds = [[{"c": 0.0}] * 4, [{"c": 0.7}, {"c": 0.9}]]
    z = z_scores(rounds[1], running_scores(rounds))
    assert [picture["c"] for picture in z] == pytest.approx([-1, 1])
    assert z_scores(rounds[0], running_scores(rounds[:1])) == [{"c": 0.0}] * 4


def test_a_reward_that_says_the_same_of_all_is_silent():
    same = [{"a": 0.0, "b": 1.0}, {"a": 0.0, "b": 2.0}, {"a": 0.0}]
    assert silent_of(same) == {"a"}
    assert silent_of(same[:1]) == silent_of([]) == silent_of([{"a": math.nan}, {"a": math.nan}]) == set()


def test_rounds_of_one_picture_are_kept():
    """1, then 3: mean 2, deviation 1."""
    found = running_scores([[{"a": 1.0}], [{"a": 3.0}]])["a"]
    assert (found.count, found.mean, found.deviation) == (2, 2.0, 1.0)
    assert running_scores([[{"a": 1.0}]])["a"].z(1.0) == 0


def test_blocked_pictures_stay_apart():
    """NaN and missing: no part in the statistics, z = NaN, never the best; a reward of weight 0 is not asked."""
    pictures = [{"a": 1.0, "b": 0.0}, {"a": NAN, "b": 1.0}, {"b": 2.0}, {"a": 3.0, "b": 5.0}]
    running = running_scores([pictures])
    assert (running["a"].count, running["a"].mean) == (2, 2.0)
    z = z_scores(pictures, running)
    assert [math.isnan(picture["a"]) for picture in z] == [False, True, True, False]
    totals = weighed(z, {"a": 0.5, "b": 0.5})
    assert ranked(totals) == [3, 0]
    assert ranked(weighed(z, {"a": 0.0, "b": 1.0})) == [3, 2, 1, 0]


def test_total_is_the_weighted_sum():
    assert weighed([{"a": 2.0, "b": -1.0}], {"a": 0.25, "b": 0.75}) == [pytest.approx(-0.25)]
    assert ranked([1.0, 3.0, 3.0, NAN, 2.0]) == [1, 2, 4, 0]


def test_nothing_scored():
    assert running_scores([[{}, {}]]) == {}
    running = running_scores([[{"a": NAN}, {"a": NAN}]])
    assert running["a"] == Running()
    assert math.isnan(z_scores([{"a": NAN}], running)[0]["a"])
