"""What a number of blind votes says: win rate, intervals, sign test, and how many votes are still needed.

A vote for B scores 1, for A 0, a tie ½. The win rate is the mean score, an estimate of
    P(B preferred) + ½ P(tie),
for votes that are independent given the two models. Two intervals at the level 1 − α are given. Verdict and plan follow
the first, whoever votes:

*Always valid*: for votes that somebody looks at while they come in, and stops when it pleases. So does a person who
votes, and so does whoever adds seeds and prompts for a reward until it has decided. With S the sum of the scores, the
wealth of a gambler who bets against the mean p with a uniform prior over q,
    M_n(p) = ∫ q^S (1 − q)^(n − S) dq / (p^S (1 − p)^(n − S)) = B(S + 1, n − S + 1) / (p^S (1 − p)^(n − S)),
is a supermartingale if the scores' conditional mean is p: for every q, (q/p)^s ((1 − q)/(1 − p))^(1 − s) is convex in
s, so on [0, 1] at most its chord, whose mean is 1 at E[s] = p. Hence P(M_n(p) ≥ 1/α for any n) ≤ α (Ville 1939), and
{p : M_n(p) < 1/α} holds the truth at all times at once (Robbins 1970; ties: the convexity above). 1/M_n(½) is a p-value
that may be looked at at any time.

*Fixed*: Wilson's score interval for n votes that were decided on beforehand (Wilson 1927), for the report only. Ties
enter it as half a win and half a loss of n binomial trials. Since Var(score) = μ(1 − μ) − P(tie)/4, that is wider than
needed where there are ties, never narrower. Shrinking it by the observed share of ties would give a single tie an
interval of width 0.

Both hold for the pairs of prompts and seeds as a sample of such pairs. Votes on several seeds of one prompt say less
about other prompts than votes on as many prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

ALPHA = 0.05
# Half the width of an interval from which on more votes are not asked for.
CLOSE_ENOUGH = 0.05
# With fewer votes the win rate is no guide to how many more it takes.
FEWEST_TO_PLAN = 10
_BISECTIONS = 60

Interval = tuple[float, float]


@dataclass(frozen=True)
class Tally:
    """How many votes went where."""

    a: int = 0
    b: int = 0
    ties: int = 0

    def __post_init__(self) -> None:
        if min(self.a, self.b, self.ties) < 0:
            raise ValueError(f"Votes cannot be negative: {self}.")

    @property
    def votes(self) -> int:
        return self.a + self.b + self.ties

    @property
    def score(self) -> float:
        """The sum of the scores: wins of B, and half of the ties."""
        return self.b + self.ties / 2

    @property
    def rate(self) -> float:
        """The win rate of B; NaN without a vote."""
        return self.score / self.votes if self.votes else math.nan


def quantile(alpha: float = ALPHA) -> float:
    """z with P(|N(0, 1)| > z) = alpha."""
    return NormalDist().inv_cdf(1 - alpha / 2)


def wilson(score: float, votes: float, *, alpha: float = ALPHA) -> Interval:
    """Wilson's interval: the means p with |score/n − p| ≤ z √(p (1 − p)/n). Everything without a vote.

    Args:
        score: wins plus half of the ties, in [0, votes].
        votes: n; need not be whole, for planning.
    """
    if not votes:
        return 0.0, 1.0
    z, rate = quantile(alpha), score / votes
    grow = 1 + z * z / votes
    middle = (rate + z * z / (2 * votes)) / grow
    half = z * math.sqrt(rate * (1 - rate) / votes + z * z / (4 * votes * votes)) / grow
    return max(0.0, middle - half), min(1.0, middle + half)


def log_wealth(score: float, votes: float, mean: float) -> float:
    """log M_n(mean), see above; 0 < mean < 1."""
    beta = math.lgamma(score + 1) + math.lgamma(votes - score + 1) - math.lgamma(votes + 2)
    return beta - score * math.log(mean) - (votes - score) * math.log1p(-mean)


def always_valid(score: float, votes: float, *, alpha: float = ALPHA) -> Interval:
    """The interval that may be looked at after every vote. Everything without a vote; arguments as `wilson`."""
    if not votes:
        return 0.0, 1.0
    limit, rate = -math.log(alpha), score / votes

    def edge(outside: float) -> float:
        # The wealth is convex in p and least at the rate, so each side has one crossing.
        inside = rate
        for _ in range(_BISECTIONS):
            middle = (inside + outside) / 2
            if 0 < middle < 1 and log_wealth(score, votes, middle) < limit:
                inside = middle
            else:
                outside = middle
        return inside

    return (edge(0.0) if score > 0 else 0.0), (edge(1.0) if score < votes else 1.0)


def sign_test(a: int, b: int) -> float:
    """Two-sided exact p of a wins against b, ties left out, if both sides were equally likely: 1 without a vote."""
    votes, fewer = a + b, min(a, b)
    tail = sum(math.comb(votes, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**votes)


def always_valid_p(score: float, votes: int) -> float:
    """The p-value against a win rate of ½ that may be looked at at any time."""
    return min(1.0, math.exp(-log_wealth(score, votes, 0.5))) if votes else 1.0


def always_valid_votes(rate: float, *, alpha: float = ALPHA, close: float = CLOSE_ENOUGH) -> int:
    """The least number of votes at which the always valid interval is clear of ½, or at most ±`close` wide, at this
    win rate; by bisection: at a fixed rate more votes never widen it for long.

    M_n(½) at a fixed rate falls first and then rises for ever, and begins at 1: it reaches 1/α once.
    """

    def clear(votes: int) -> bool:
        return log_wealth(rate * votes, votes, 0.5) >= -math.log(alpha)

    def narrow(votes: int) -> bool:
        low, high = always_valid(rate * votes, votes, alpha=alpha)
        return high - low <= 2 * close

    first = _first(narrow)
    return min(first, _first(clear, first)) if clear(first) else first


def _first(reached: Callable[[int], bool], upper: int | None = None) -> int:
    """The least positive number from which on `reached` holds; `upper`: one where it does."""
    if upper is None:
        upper = 1
        while not reached(upper):
            upper *= 2
    lower = 0
    while upper - lower > 1:
        middle = (lower + upper) // 2
        lower, upper = (lower, middle) if reached(middle) else (middle, upper)
    return upper


def still_needed(tally: Tally, *, alpha: float = ALPHA, close: float = CLOSE_ENOUGH) -> int | None:
    """How many more votes until the interval is clear of ½ or within ±`close`, if the win rate stays as it is.

    None: not clear, and too few votes to say (`FEWEST_TO_PLAN`).
    """
    interval = always_valid(tally.score, tally.votes, alpha=alpha)
    if is_clear(interval) or interval[1] - interval[0] <= 2 * close:
        return 0
    if tally.votes < FEWEST_TO_PLAN:
        return None
    return max(1, always_valid_votes(tally.rate, alpha=alpha, close=close) - tally.votes)


def is_clear(interval: Interval) -> bool:
    """Whether ½ lies outside."""
    return interval[0] > 0.5 or interval[1] < 0.5


def verdict(tally: Tally) -> dict[str, Any]:
    """All figures of a tally; JSON-able, None where there is nothing to say.

    Returns:
        votes, a, b, ties, win_rate, interval and p_value (those that may be looked at at any time), interval_kind
        ("always valid"), fixed_interval and sign_test_p (only of meaning if the number of votes was decided on
        beforehand), still_needed, decision ("B" | "A" | "even" | "open"; even = the interval holds ½ and is within ±5
        points).
    """
    interval = always_valid(tally.score, tally.votes)
    needed = still_needed(tally)
    decision = "open"
    if is_clear(interval):
        decision = "B" if interval[0] > 0.5 else "A"
    elif needed == 0:
        decision = "even"
    return {
        "votes": tally.votes,
        "a": tally.a,
        "b": tally.b,
        "ties": tally.ties,
        "win_rate": tally.rate if tally.votes else None,
        "interval": list(interval),
        "interval_kind": "always valid",
        "p_value": always_valid_p(tally.score, tally.votes),
        "fixed_interval": list(wilson(tally.score, tally.votes)),
        "sign_test_p": sign_test(tally.a, tally.b),
        "still_needed": needed,
        "decision": decision,
    }
