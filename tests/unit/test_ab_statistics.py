"""The statistics of blind votes: known values, exact coverage, simulated peeking, plans that hold."""

from __future__ import annotations

import json
import math
from random import Random

import pytest

from attune.nodes.training.ab_statistics import (
    FEWEST_TO_PLAN,
    Tally,
    always_valid,
    always_valid_p,
    always_valid_votes,
    is_clear,
    log_wealth,
    quantile,
    sign_test,
    still_needed,
    verdict,
    wilson,
)


def binomial(n: int, k: int, p: float) -> float:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


def test_tally():
    """3 wins, 1 loss, 2 ties: score 4 of 6."""
    tally = Tally(a=1, b=3, ties=2)
    assert (tally.votes, tally.score) == (6, 4.0)
    assert tally.rate == pytest.approx(2 / 3)
    assert math.isnan(Tally().rate)
    with pytest.raises(ValueError, match="negative"):
        Tally(a=-1)


def test_wilson_by_its_definition():
    """The ends solve |rate − p| = z √(p(1 − p)/n); and 10 of 10 ends at n/(n + z²) = 0.7225."""
    for score, votes in ((7, 10), (0, 5), (5, 5), (12.5, 31), (400, 1000)):
        for end in wilson(score, votes):
            distance = abs(score / votes - end)
            assert distance == pytest.approx(quantile() * math.sqrt(end * (1 - end) / votes), abs=1e-8)
    assert wilson(10, 10) == (pytest.approx(10 / (10 + quantile() ** 2)), pytest.approx(1))
    assert wilson(0, 0) == (0.0, 1.0)


def coverage(interval, n: int, wins: float, ties: float) -> float:
    """Exact probability that the interval of n votes holds the true win rate."""
    truth, total = wins + ties / 2, 0.0
    for tied in range(n + 1):
        for won in range(n - tied + 1):
            lost = n - tied - won
            ways = math.comb(n, tied) * math.comb(n - tied, won)
            chance = ways * ties**tied * wins**won * (1 - wins - ties) ** lost
            low, high = interval(won + tied / 2, n)
            total += chance * (low <= truth <= high)
    return total


@pytest.mark.parametrize("n", [20, 45])
@pytest.mark.parametrize("rate", [0.3, 0.5, 0.62])
def test_wilson_covers_without_ties(n: int, rate: float):
    """Wilson's coverage swings around the level by what whole numbers allow; 2 points at these n."""
    assert 0.93 <= coverage(wilson, n, rate, 0.0) <= 0.98


@pytest.mark.parametrize(("wins", "ties"), [(0.4, 0.2), (0.2, 0.6), (0.5, 0.3), (0.05, 0.9)])
def test_ties_as_halves_never_cover_less(wins: float, ties: float):
    assert coverage(wilson, 30, wins, ties) >= 0.95


def test_sign_test_exactly():
    """8 against 2: 2·(1 + 10 + 45)/1024 = 0.109375. 5 against 0: 2/32. Equal sides: 1."""
    assert sign_test(2, 8) == sign_test(8, 2) == pytest.approx(0.109375)
    assert sign_test(0, 5) == pytest.approx(0.0625)
    assert sign_test(4, 4) == sign_test(0, 0) == 1.0
    for a, b in ((1, 9), (3, 12), (20, 31)):
        n = a + b
        expected = sum(binomial(n, k, 0.5) for k in range(n + 1) if min(k, n - k) <= min(a, b))
        assert sign_test(a, b) == pytest.approx(expected)


def test_wealth_in_closed_form():
    """One win: M_1(½) = B(2, 1)/½ = 1. Three wins: (1/4)/(1/8) = 2. n wins: 2^n/(n + 1)."""
    assert log_wealth(1, 1, 0.5) == pytest.approx(0, abs=1e-12)
    assert log_wealth(3, 3, 0.5) == pytest.approx(math.log(2))
    assert log_wealth(8, 8, 0.5) == pytest.approx(math.log(2**8 / 9))
    assert always_valid_p(8, 8) == pytest.approx(9 / 2**8)
    assert always_valid_p(5, 10) == 1.0 == always_valid_p(0, 0)


def test_always_valid_ends_where_the_wealth_is_reached():
    for score, votes in ((7, 10), (30.5, 50), (0, 12), (12, 12)):
        low, high = always_valid(score, votes)
        assert low <= score / votes <= high
        for end in (low, high):
            if 0 < end < 1:
                assert log_wealth(score, votes, end) == pytest.approx(math.log(20), abs=1e-6)
        narrow = wilson(score, votes)
        assert high - low > narrow[1] - narrow[0], "what may be watched is wider than what may not"
    assert always_valid(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("peeking", [False, True])
def test_wealth_is_fair_at_the_true_mean(peeking: bool):
    """E[M_n(p)] over all outcomes: exactly 1 for wins and losses, at most 1 with ties."""
    p, ties, n = 0.4, 0.3 if peeking else 0.0, 9
    wins = p - ties / 2
    mean = 0.0
    for tied in range(n + 1):
        for won in range(n - tied + 1):
            ways = math.comb(n, tied) * math.comb(n - tied, won)
            chance = ways * ties**tied * wins**won * (1 - wins - ties) ** (n - tied - won)
            mean += chance * math.exp(log_wealth(won + tied / 2, n, p))
    assert mean <= 1 + 1e-9
    assert peeking or mean == pytest.approx(1)


def missed(random: Random, wins: float, ties: float, votes: int) -> tuple[bool, bool]:
    """One person who looks after every vote: was the truth ever outside of the always valid, of Wilson's interval?"""
    truth, score = wins + ties / 2, 0.0
    watched = fixed = False
    for n in range(1, votes + 1):
        drawn = random.random()
        score += 1.0 if drawn < wins else 0.5 if drawn < wins + ties else 0.0
        watched = watched or log_wealth(score, n, truth) >= math.log(20)
        low, high = wilson(score, n)
        fixed = fixed or (n >= 5 and not low <= truth <= high)
    return watched, fixed


@pytest.mark.parametrize(("wins", "ties"), [(0.5, 0.0), (0.3, 0.4)])
def test_looking_after_every_vote(wins: float, ties: float):
    """600 people, 200 votes each: at most 5 % are ever misled (3 standard errors: 2.7 points); by Wilson's many are."""
    random = Random(4)
    outcomes = [missed(random, wins, ties, 200) for _ in range(600)]
    assert sum(watched for watched, _ in outcomes) / 600 <= 0.05 + 0.027
    if not ties:
        assert sum(fixed for _, fixed in outcomes) / 600 > 0.2, "else the always valid interval would be a luxury"


def decided(a: int, b: int) -> bool:
    return verdict(Tally(a=a, b=b))["decision"] in ("A", "B")


def test_no_number_of_votes_names_a_winner_too_easily():
    """Exactly: of two equal models one is called better in at most 5 % of all outcomes, whatever n is."""
    for n in range(1, 60):
        assert sum(binomial(n, k, 0.5) for k in range(n + 1) if decided(n - k, k)) <= 0.05
    # What an exact sign test does not call significant is no winner, either.
    for a in range(20):
        for b in range(20):
            assert not decided(a, b) or sign_test(a, b) < 0.05


def test_more_seeds_until_there_is_a_winner():
    """Equal models, and 4 more votes of a reward again and again until one is called better: exact, up to 64 votes."""
    running, winners = {0: 1.0}, 0.0
    for n in range(1, 65):
        grown: dict[int, float] = {}
        for won, chance in running.items():
            for more in (0, 1):
                grown[won + more] = grown.get(won + more, 0.0) + chance / 2
        if n % 4 == 0:
            winners += sum(chance for won, chance in grown.items() if decided(n - won, won))
            grown = {won: chance for won, chance in grown.items() if not decided(n - won, won)}
        running = grown
    assert 0.005 < winners <= 0.05


@pytest.mark.parametrize("rate", [0.5, 0.52, 0.55, 0.6, 0.75, 0.9, 1.0, 0.4, 0.0])
def test_the_plan_is_the_first_number_that_suffices(rate: float):
    total = always_valid_votes(rate)

    def enough(votes: int) -> bool:
        low, high = always_valid(rate * votes, votes)
        return is_clear((low, high)) or high - low <= 0.1 + 1e-12

    assert enough(total)
    assert not any(enough(votes) for votes in range(1, total))


def test_plans_in_closed_form():
    """n wins in a row: 2^n/(n + 1) ≥ 20 first at n = 8 (28.4)."""
    assert always_valid_votes(1.0) == always_valid_votes(0.0) == 8


def test_still_needed():
    assert still_needed(Tally(b=8)) == 0
    assert still_needed(Tally(a=700, b=700)) == 0
    even = always_valid_votes(0.5)
    assert still_needed(Tally(a=10, b=10)) == even - 20
    # Ties alone say "even", and take as many votes as any other way to ½.
    assert still_needed(Tally(ties=20)) == even - 20


def test_few_votes_are_no_plan():
    for tally in (Tally(), Tally(b=4), Tally(b=7), Tally(a=4, b=5)):
        assert still_needed(tally) is None and verdict(tally)["decision"] == "open"
    assert still_needed(Tally(a=5, b=FEWEST_TO_PLAN - 5)) > 0


def test_the_plan_holds_when_the_rate_stays():
    tally = Tally(a=12, b=18)
    more = still_needed(tally)
    assert more > 0 and is_clear(always_valid(tally.score + more * 0.6, tally.votes + more))


def test_verdict():
    clear = verdict(Tally(a=2, b=18))
    assert clear["decision"] == "B" and clear["still_needed"] == 0
    assert clear["interval"] == list(always_valid(18, 20)) != clear["fixed_interval"]
    assert clear["p_value"] == always_valid_p(18, 20) > clear["sign_test_p"]
    assert verdict(Tally(a=18, b=2))["decision"] == "A"
    assert verdict(Tally(a=6, b=8))["decision"] == "open"
    assert verdict(Tally(a=700, b=705))["decision"] == "even"
    empty = verdict(Tally())
    assert empty["win_rate"] is None and empty["decision"] == "open" and empty["interval"] == [0.0, 1.0]
    json.dumps([clear, empty], allow_nan=False)
