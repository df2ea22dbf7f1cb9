"""A/B tests of sessions: who belongs to which arm, and what the acceptances of both say.

| symbol    | meaning                                                                                |
| --------- | -------------------------------------------------------------------------------------- |
| n_A, n_B  | sessions of each arm of which a round was answered, whatever came of them               |
| k_A, k_B  | those of them that were accepted                                                        |
| z         | (k_A/n_A − k_B/n_B) / √(p(1 − p)(1/n_A + 1/n_B)), p = (k_A + k_B)/(n_A + n_B)            |

*p-value*: the exact unconditional test with z as its order. Over the one unknown rate π that both arms share if there
is no difference, the largest probability of tables that are at least as far apart:
    p = max_π P(|Z| ≥ |z|),  K_A ~ Binomial(n_A, π), K_B ~ Binomial(n_B, π).
It never rejects more often than its level, however few sessions there are. From `LARGEST_EXACT` tables on, the score
test itself (z is normal), from which it then hardly differs.
*Interval* of the difference k_A/n_A − k_B/n_B: Newcombe's, from the Wilson intervals of both rates.

Who counted only sessions that were accepted or went on for long would leave out those that somebody gave up after two
rounds, and with them what an arm did wrong.

Both are for a number of sessions that was decided on beforehand: who looks after every session and stops when it
pleases finds differences that are not there.

References:
    Suissa & Shuster 1985, "Exact unconditional sample sizes for the 2 × 2 binomial trial" (the test, there one-sided).
    Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10. Wilson 1927.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from .checks import RefinementError

Arm = Literal["A", "B"]
ARMS: tuple[Arm, ...] = ("A", "B")
ALPHA = 0.05
# Tables (n_A + 1)·(n_B + 1) that are still counted one by one: 150 sessions per arm.
LARGEST_EXACT = 23_000
# Rates π that are tried; between them the probability moves by less than a thousandth (a test compares a finer grid).
_RATES = 512


def arm_of(key: str, test: str = "") -> Arm:
    """The arm of a session: a fair coin that lands the same way for ever.

    Args:
        key: of the session.
        test: name of the test, so that two tests do not divide sessions alike.
    """
    digest = hashlib.blake2b(f"{test}\0{key}".encode(), digest_size=8, person=b"attune.arm").digest()
    return ARMS[digest[0] & 1]


@dataclass(frozen=True)
class Outcome:
    """What the sessions of one arm came to.

    Attributes:
        accepted: k, sessions in which a picture was accepted.
        sessions: n, sessions that were begun; one that was given up, or is still open, is not accepted.
    """

    accepted: int = 0
    sessions: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.accepted <= self.sessions:
            raise RefinementError(f"{self.accepted} of {self.sessions} sessions cannot have been accepted.")

    @property
    def rate(self) -> float:
        """NaN without a session."""
        return self.accepted / self.sessions if self.sessions else math.nan


@dataclass(frozen=True)
class Comparison:
    """What a test says.

    Attributes:
        a, b: the arms.
        difference: rate of A less that of B; NaN where an arm has no session.
        interval: of the difference, at the level 1 − alpha.
        p: two-sided.
        exact: whether p was counted; else by the normal distribution.
        alpha: the level.
    """

    a: Outcome
    b: Outcome
    difference: float
    interval: tuple[float, float]
    p: float
    exact: bool
    alpha: float

    @property
    def clear(self) -> bool:
        """Whether the arms differ at the level alpha."""
        return self.p <= self.alpha

    @property
    def words(self) -> str:
        """For the report."""
        if not (self.a.sessions and self.b.sessions):
            return "No comparison yet: both arms need a session with an answered round."
        shares = " against ".join(
            f"{arm} {outcome.accepted} of {outcome.sessions}"
            for arm, outcome in zip(ARMS, (self.a, self.b), strict=True)
        )
        low, high = (f"{100 * bound:+.0f}" for bound in self.interval)
        if not self.clear:
            return f"No clear difference: accepted {shares} (p {self.p:.2g}; A − B between {low} and {high} points)."
        better = "A" if self.difference > 0 else "B"
        return f"{better} is accepted more often: {shares} (p {self.p:.2g}; A − B between {low} and {high} points)."


def compare(a: Outcome, b: Outcome, *, alpha: float = ALPHA) -> Comparison:
    """The test of the module.

    Raises:
        RefinementError: alpha is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise RefinementError(f"The level of a test must be between 0 and 1, not {alpha:g}; 0.05 is usual.")
    exact = (a.sessions + 1) * (b.sessions + 1) <= LARGEST_EXACT
    if not (a.sessions and b.sessions):
        return Comparison(a, b, math.nan, (-1.0, 1.0), 1.0, exact, alpha)
    p = exact_p(a, b) if exact else score_p(a, b)
    return Comparison(a, b, a.rate - b.rate, newcombe(a, b, alpha=alpha), p, exact, alpha)


def score_p(a: Outcome, b: Outcome) -> float:
    """Two-sided p of z by the normal distribution; 1 where all or none were accepted."""
    z = float(_z(np.array([a.accepted]), np.array([b.accepted]), a.sessions, b.sessions)[0, 0])
    return 2 * NormalDist().cdf(-abs(z))


def exact_p(a: Outcome, b: Outcome) -> float:
    """Two-sided p of the exact unconditional test."""
    n, m = a.sessions, b.sessions
    table = np.abs(_z(np.arange(n + 1), np.arange(m + 1), n, m))  # (n + 1, m + 1)
    # Rounding must not decide whether a table is as far apart as the observed one.
    far = (table >= table[a.accepted, b.accepted] - 1e-9).astype(float)
    rates = (np.arange(_RATES) + 0.5) / _RATES
    likely = _binomial(n, rates) @ far * _binomial(m, rates)  # (rates, m + 1)
    return min(1.0, float(likely.sum(1).max()))


def newcombe(a: Outcome, b: Outcome, *, alpha: float = ALPHA) -> tuple[float, float]:
    """Interval of the difference of two rates; both arms need a session."""
    (low_a, high_a), (low_b, high_b) = wilson(a, alpha=alpha), wilson(b, alpha=alpha)
    difference = a.rate - b.rate
    down = math.hypot(a.rate - low_a, high_b - b.rate)
    up = math.hypot(high_a - a.rate, b.rate - low_b)
    return max(-1.0, difference - down), min(1.0, difference + up)


def wilson(outcome: Outcome, *, alpha: float = ALPHA) -> tuple[float, float]:
    """Wilson's interval of a rate; everything without a session."""
    n = outcome.sessions
    if not n:
        return 0.0, 1.0
    z, rate = NormalDist().inv_cdf(1 - alpha / 2), outcome.rate
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def _z(accepted_a: np.ndarray, accepted_b: np.ndarray, n: int, m: int) -> np.ndarray:
    """z of every pair of counts [A], [B] → [A, B]; 0 where all or none were accepted."""
    k, j = accepted_a[:, None].astype(float), accepted_b[None].astype(float)
    pooled = (k + j) / (n + m)
    deviation = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return np.divide(k / n - j / m, deviation, out=np.zeros_like(deviation), where=deviation > 0)


def _binomial(n: int, rates: np.ndarray) -> np.ndarray:
    """P(K = k) for k = 0 … n, [rates, n + 1]; every rate inside (0, 1)."""
    counts = np.arange(n + 1)
    ways = np.array([math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in counts])
    return np.exp(ways + counts * np.log(rates)[:, None] + (n - counts) * np.log1p(-rates)[:, None])
