"""Arms by hash, and the two-proportion test: counted by hand, never above its level, symmetric."""

from __future__ import annotations

import math
from itertools import product
from statistics import NormalDist

import numpy as np
import pytest

from attune.nodes.refinement import ab_arms
from attune.nodes.refinement.ab_arms import Outcome, arm_of, compare, exact_p, newcombe, score_p, wilson
from attune.nodes.refinement.checks import RefinementError


def test_arms_are_fair_lasting_and_independent_between_tests():
    """4000 keys: the share of A is within 4 deviations of ½ (0.032); so is the share that two tests treat alike."""
    keys = [f"{number:032x}" for number in range(4000)]
    share = sum(arm_of(key, "schedules") == "A" for key in keys) / len(keys)
    alike = sum(arm_of(key, "schedules") == arm_of(key, "guidance") for key in keys) / len(keys)
    assert share == pytest.approx(0.5, abs=0.032)
    assert alike == pytest.approx(0.5, abs=0.032)
    assert [arm_of(f"{number:032x}") for number in range(8)] == list("AABBBBBA")


def brute(a: Outcome, b: Outcome, rates) -> float:
    """The test's definition, table by table."""

    def z(k, j):
        pooled = (k + j) / (a.sessions + b.sessions)
        spread = math.sqrt(pooled * (1 - pooled) * (1 / a.sessions + 1 / b.sessions))
        return abs(k / a.sessions - j / b.sessions) / spread if spread else 0.0

    observed, most = z(a.accepted, b.accepted), 0.0
    for rate in rates:
        total = 0.0
        for k, j in product(range(a.sessions + 1), range(b.sessions + 1)):
            if z(k, j) >= observed - 1e-9:
                total += (
                    math.comb(a.sessions, k)
                    * rate**k
                    * (1 - rate) ** (a.sessions - k)
                    * (math.comb(b.sessions, j) * rate**j * (1 - rate) ** (b.sessions - j))
                )
        most = max(most, total)
    return most


@pytest.mark.parametrize(("a", "b"), [((3, 3), (0, 3)), ((5, 6), (1, 5)), ((2, 4), (1, 7)), ((0, 3), (0, 4))])
def test_exact_p_is_the_definition(a, b):
    """By a grid of 4001 rates, four times as fine as the module's. (3 of 3, 0 of 3): 2·π³(1−π)³ is most at ½, 1/32."""
    a, b = Outcome(*a), Outcome(*b)
    assert exact_p(a, b) == pytest.approx(brute(a, b, np.linspace(0.0001, 0.9999, 4001)), abs=1e-3)
    if (a.accepted, b.accepted) == (3, 0):
        assert exact_p(a, b) == pytest.approx(1 / 32, rel=1e-4)


@pytest.mark.parametrize(("n", "m"), [(4, 9), (12, 12)])
def test_exact_test_keeps_its_level(n, m):
    """Without a difference, at any rate, p ≤ 0.05 in at most 5 % of all outcomes (the score test breaks that)."""
    p = np.array([[exact_p(Outcome(k, n), Outcome(j, m)) for j in range(m + 1)] for k in range(n + 1)])
    for rate in (0.03, 0.1, 0.3, 0.5, 0.77, 0.95):
        one, other = (
            np.array([math.comb(count, k) * rate**k * (1 - rate) ** (count - k) for k in range(count + 1)])
            for count in (n, m)
        )
        assert one @ (p <= 0.05) @ other <= 0.05 + 1e-9


def test_score_test_closed_form():
    """60 of 100 against 45 of 100: p = 0.525, z = 0.15/√(0.525·0.475·0.02) = 2.1240, two-sided 0.03367."""
    a, b = Outcome(60, 100), Outcome(45, 100)
    z = 0.15 / math.sqrt(0.525 * 0.475 * 0.02)
    assert score_p(a, b) == pytest.approx(2 * (1 - NormalDist().cdf(z)))
    assert score_p(a, b) == pytest.approx(0.03367, abs=1e-5)
    assert exact_p(a, b) == pytest.approx(score_p(a, b), abs=0.01)
    assert score_p(Outcome(5, 5), Outcome(9, 9)) == pytest.approx(1.0)


def test_large_numbers_go_by_the_score_test():
    assert compare(Outcome(60, 100), Outcome(45, 100)).exact
    found = compare(Outcome(600, 1000), Outcome(450, 1000))
    assert not found.exact
    assert found.p == score_p(found.a, found.b)
    assert found.clear


def test_newcombe_as_published():
    """Newcombe 1998, table II (a): 56/70 − 48/80, method 10: 0.0524 to 0.3339."""
    assert newcombe(Outcome(56, 70), Outcome(48, 80)) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_swapping_the_arms_turns_the_sign_only():
    there, back = compare(Outcome(9, 11), Outcome(3, 14)), compare(Outcome(3, 14), Outcome(9, 11))
    assert there.p == pytest.approx(back.p)
    assert there.difference == -back.difference
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))
    assert there.words.startswith("A is accepted more often: A 9 of 11 against B 3 of 14")
    assert back.words.startswith("B is accepted more often")


def test_few_sessions_say_nothing():
    assert compare(Outcome(), Outcome(3, 3)).p == 1
    assert math.isnan(compare(Outcome(), Outcome()).difference)
    assert "both arms need a session" in compare(Outcome(), Outcome()).words
    assert not compare(Outcome(2, 2), Outcome(0, 2)).clear
    assert "No clear difference" in compare(Outcome(2, 2), Outcome(0, 2)).words
    assert wilson(Outcome()) == (0.0, 1.0)


def test_impossible_outcomes_are_refused():
    with pytest.raises(RefinementError, match="4 of 3"):
        Outcome(4, 3)
    with pytest.raises(RefinementError, match="level"):
        compare(Outcome(1, 2), Outcome(1, 2), alpha=1.0)
    assert ab_arms.ARMS == ("A", "B")
