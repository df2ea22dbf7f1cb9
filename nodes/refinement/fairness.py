"""Do the weights, or a person's choices, favour some pictures for an attribute that nobody asked about?

An attribute has one value per picture: a background, a style, the age a classifier sees. Over the rounds,

    P(v)  share of the value v among the chosen pictures
    Q(v)  its share if as many had been chosen at random in the same rounds; or among what other weights would choose
    TV = ½ Σ_v |P(v) − Q(v)|

TV is the share of choices that would have to be others for P to be Q: 0 … 1. Of few rounds TV is large by chance alone
(three single choices among four different pictures: about 0.4), so that it is not judged by itself. The report warns if
both hold:

- the interval of TV lies above the bound: TV less what chance adds to it, ± t·deviation, both by bootstrap over rounds,
  t of Student's distribution; with fewer than `FEWEST_ROUNDS` rounds it is everything. For TV from 0.1 on, simulated
  with 12 rounds, it misses the truth in 2 to 9 % on either side, with 40 rounds in 2 to 6 %;
- chance alone reaches TV in at most 5 % of `DRAWS` simulations: choosing at random in every round; or, against other
  weights, exchanging who chose what in every round by a coin.

A difference is no fault by itself: whoever asks for a black background gets black backgrounds. The report says what
moved, for a person to judge.

References:
    ours. Bootstrap of bias and deviation: Davison & Hinkley 1997, sections 2.1 and 5.2. Student's quantile by its
    expansion in 1/(rounds − 1): Abramowitz & Stegun 1964, 26.7.5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from .checks import RefinementError
from .running_scores import ranked, weighed

BOUND = 0.2
LEVEL = 0.05
FEWEST_ROUNDS = 8
DRAWS = 2000


@dataclass(frozen=True)
class Judged:
    """A round's pictures by one attribute.

    Attributes:
        values: of every picture.
        chosen: positions of the chosen ones; a round without any has no part.
        instead: positions of what would be chosen otherwise, as many; None = any of the round's pictures.
    """

    values: tuple[str, ...]
    chosen: tuple[int, ...]
    instead: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for places in (self.chosen, self.instead or ()):
            if any(not 0 <= place < len(self.values) for place in places) or len(set(places)) != len(places):
                raise RefinementError(f"{places} are no positions of {len(self.values)} pictures.")
        if self.instead is not None and len(self.instead) != len(self.chosen):
            raise RefinementError(
                f"{len(self.chosen)} choices are compared with {len(self.instead)}; as many are needed."
            )


@dataclass(frozen=True)
class Fairness:
    """What an attribute's values came to.

    Attributes:
        attribute: its name.
        shares: value → (Q, P), the value that gained most first.
        distance: TV; NaN without a choice.
        interval: of it, at 95 %.
        chance: share of simulations in which chance alone reaches it.
        bound: above which it warns.
        rounds, choices: on which it stands.
        warns: see the module.
    """

    attribute: str
    shares: dict[str, tuple[float, float]]
    distance: float
    interval: tuple[float, float]
    chance: float
    bound: float
    rounds: int
    choices: int
    warns: bool

    @property
    def words(self) -> str:
        """For the report."""
        if not self.choices:
            return f"{self.attribute}: nothing has been chosen yet."
        value, (before, after) = next(iter(self.shares.items()))
        moved = f"{value} {100 * before:.0f} % → {100 * after:.0f} %"
        low, high = (f"{bound:.2f}" for bound in self.interval)
        measured = f"distance {self.distance:.2f}, between {low} and {high}"
        if self.warns:
            return (
                f"{self.attribute}: choices lean to some values ({moved}; {measured}; the bound is {self.bound:g}). If "
                "nobody asked for that, look at which reward prefers them, and lower its weight."
            )
        if self.rounds < FEWEST_ROUNDS:
            return f"{self.attribute}: too few rounds to tell ({self.rounds} of at least {FEWEST_ROUNDS}; {moved})."
        return f"{self.attribute}: no more than chance or the bound of {self.bound:g} allows ({moved}; {measured})."


def fairness(rounds: Sequence[Judged], attribute: str, *, bound: float = BOUND, seed: int = 0) -> Fairness:
    """The module's measure over rounds.

    Args:
        bound: TV above which it warns, 0 … 1.
        seed: of the simulations; the same rounds and seed give the same report.

    Raises:
        RefinementError: the bound is out of range.
    """
    if not 0 <= bound <= 1:
        raise RefinementError(f"The bound of a distance is between 0 and 1, not {bound!r}.")
    used = [judged for judged in rounds if judged.chosen]
    values = list(dict.fromkeys(value for judged in used for value in judged.values))
    if not used:
        return Fairness(attribute, {}, math.nan, (0.0, 1.0), 1.0, bound, 0, 0, False)
    counts = np.array([len(judged.chosen) for judged in used], dtype=float)
    chosen = np.array([_counted(judged.values, judged.chosen, values) for judged in used])  # (rounds, values)
    expected = np.array([_expected(judged, values) for judged in used])
    distance = float(_distance(chosen.sum(0) - expected.sum(0), counts.sum()))
    rng = np.random.default_rng(seed)
    low, high = _interval(chosen - expected, counts, distance, rng)
    chance = _chance(used, values, chosen - expected, distance, rng)
    gained = chosen.sum(0) - expected.sum(0)
    order = np.argsort(-gained, kind="stable")
    shares = {values[i]: (expected[:, i].sum() / counts.sum(), chosen[:, i].sum() / counts.sum()) for i in order}
    return Fairness(
        attribute,
        {value: (float(before), float(after)) for value, (before, after) in shares.items()},
        distance,
        (low, high),
        chance,
        bound,
        len(used),
        int(counts.sum()),
        bool(low > bound and chance <= LEVEL),
    )


def picked_by(
    rounds: Sequence[Sequence[Mapping[str, float]]],
    values: Sequence[Sequence[str]],
    weights: Mapping[str, float],
    *,
    instead: Mapping[str, float] | None = None,
    keep: int = 1,
) -> list[Judged]:
    """What weights pick of each round, to be judged.

    Args:
        rounds: z-scores of each picture of each round, by reward.
        values: the attribute's value of each picture of each round.
        weights: the best pictures by them are picked.
        instead: weights to compare with; None = random picks.
        keep: pictures that are picked of each round, ≥ 1; a round that cannot be picked from has no part.
    """
    found = []
    for z, own in zip(rounds, values, strict=True):
        chosen = tuple(ranked(weighed(z, weights))[:keep])
        judged = Judged(tuple(own), chosen)
        if instead is not None:
            other = tuple(ranked(weighed(z, instead))[:keep])
            count = min(len(chosen), len(other))
            judged = replace(judged, chosen=chosen[:count], instead=other[:count])
        found.append(judged)
    return found


def _counted(own: Sequence[str], places: Sequence[int], values: Sequence[str]) -> list[float]:
    return [float(sum(own[place] == value for place in places)) for value in values]


def _expected(judged: Judged, values: Sequence[str]) -> list[float]:
    if judged.instead is not None:
        return _counted(judged.values, judged.instead, values)
    share = len(judged.chosen) / len(judged.values)
    return [share * count for count in _counted(judged.values, range(len(judged.values)), values)]


def _distance(moved: np.ndarray, choices: np.ndarray | float) -> np.ndarray:
    """TV of differences in counts [..., values]."""
    return 0.5 * np.abs(moved).sum(-1) / choices


def _interval(moved: np.ndarray, counts: np.ndarray, distance: float, rng: np.random.Generator) -> tuple[float, float]:
    if len(counts) < FEWEST_ROUNDS:
        return 0.0, 1.0
    times = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=DRAWS)  # (draws, rounds)
    drawn = _distance(times @ moved, times @ counts)
    middle, freedom = 2 * distance - float(drawn.mean()), len(counts) - 1
    half = _student(freedom) * float(drawn.std()) * math.sqrt(len(counts) / freedom)
    return min(1.0, max(0.0, middle - half)), min(1.0, max(0.0, middle + half))


def _student(freedom: int) -> float:
    """The two-sided quantile at the level, to a hundredth from 7 degrees of freedom on."""
    z = NormalDist().inv_cdf(1 - LEVEL / 2)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def _chance(
    used: Sequence[Judged], values: Sequence[str], moved: np.ndarray, distance: float, rng: np.random.Generator
) -> float:
    """Share of simulations without a preference whose TV is at least as large; the observed one counts in."""
    total, sums = sum(len(judged.chosen) for judged in used), np.zeros((DRAWS, len(values)))
    for judged, own in zip(used, moved, strict=True):
        if judged.instead is not None:
            sums += rng.choice([-1.0, 1.0], size=(DRAWS, 1)) * own
            continue
        kinds = np.array([values.index(value) for value in judged.values])
        order = rng.random((DRAWS, len(kinds))).argsort(1)[:, : len(judged.chosen)]  # without putting back
        drawn = kinds[order][..., None] == np.arange(len(values))
        sums += drawn.sum(1) - np.array(_expected(judged, values))
    reached = _distance(sums, total) >= distance - 1e-9
    return float((1 + reached.sum()) / (1 + DRAWS))
