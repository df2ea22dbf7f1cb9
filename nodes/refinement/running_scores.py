"""Scores of different rewards on one scale: z = (score − running mean) / running deviation.

Means and deviations run over the pictures of the session's rounds, the current one included, so that

- in the first round z-scores are the batch's own: their mean is 0 and their mean square 1;
- later a reward keeps its unit: what is good in this round is good beside all rounds, whatever a single batch is like.

A round in which a reward says the same of all its pictures tells nothing about its spread and is left out: consistency
is 0 in the first round by definition, and would otherwise seem to jump. (A round of a single picture is kept.) A reward
that never differed has z = 0: it moves nothing. A picture that a reward could not score, such as one that a safety gate
held back, has z = NaN, and no part in the statistics.

| symbol | code name | meaning                                         |
| ------ | --------- | ----------------------------------------------- |
| n      | count     | pictures so far                                 |
| M₂     | squares   | Σ (score − mean)²; the deviation is √(M₂/n)      |

References:
    Welford 1962, "Note on a method for calculating corrected sums of squares and products"; merging of two batches:
    Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .records import Round

# Scores are float32: a deviation below this share of the largest score is rounding.
ROUNDING = 2e-7

Scores = Mapping[str, float]


@dataclass(frozen=True)
class Running:
    """Mean and deviation of a reward's scores so far.

    Attributes:
        count: n.
        mean: 0 without a score.
        squares: M₂.
        largest: the largest size of a score, from which rounding is judged.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    largest: float = 0.0

    @property
    def deviation(self) -> float:
        """Of the population; 0 where all scores are equal but for rounding."""
        if not self.count:
            return 0.0
        deviation = math.sqrt(self.squares / self.count)
        return deviation if deviation > ROUNDING * self.largest else 0.0

    def z(self, score: float) -> float:
        """0 for a reward that never differed; NaN stays NaN."""
        if math.isnan(score):
            return math.nan
        return (score - self.mean) / self.deviation if self.deviation else 0.0


def running_of(scores: Iterable[float]) -> Running:
    """Of one batch; NaNs have no part in it."""
    known = [score for score in scores if not math.isnan(score)]
    if not known:
        return Running()
    mean = math.fsum(known) / len(known)
    squares = math.fsum((score - mean) ** 2 for score in known)
    return Running(len(known), mean, squares, max(abs(score) for score in known))


def merged(one: Running, other: Running) -> Running:
    """Of both batches together."""
    count = one.count + other.count
    if not (one.count and other.count):
        return one if one.count else other
    apart = other.mean - one.mean
    return Running(
        count,
        one.mean + apart * other.count / count,
        one.squares + other.squares + apart**2 * one.count * other.count / count,
        max(one.largest, other.largest),
    )


def scores_of(past: Round) -> list[dict[str, float]]:
    """Reward's name → score of every picture of a round."""
    return [dict(picture.scores) for picture in past.pictures]


def silent_of(pictures: Sequence[Scores]) -> set[str]:
    """The rewards that say the same of all pictures of a round: they tell nothing of it."""
    names = {name for picture in pictures for name in picture}
    batches = {name: running_of(picture.get(name, math.nan) for picture in pictures) for name in names}
    return {name for name, batch in batches.items() if batch.count > 1 and not batch.deviation}


def running_scores(rounds: Iterable[Sequence[Scores]]) -> dict[str, Running]:
    """Mean and deviation of every reward over rounds.

    Args:
        rounds: of each round, of each picture: reward's name → score; what is missing or NaN was not scored.
    """
    found: dict[str, Running] = {}
    for pictures in rounds:
        silent = silent_of(pictures)
        for name in dict.fromkeys(name for picture in pictures for name in picture):
            if name in silent:
                found.setdefault(name, Running())
                continue
            batch = running_of(picture.get(name, math.nan) for picture in pictures)
            found[name] = merged(found.get(name, Running()), batch)
    return found


def z_scores(
    pictures: Sequence[Scores], running: Mapping[str, Running], *, costs: Collection[str] = ()
) -> list[dict[str, float]]:
    """z-scores of one round's pictures, by every reward of `running`.

    Args:
        pictures: reward's name → score of each.
        running: as `running_scores` found it, these pictures included.
        costs: names of rewards of which less is better; their sign is turned.

    Returns:
        reward's name → z of each picture; NaN where it was not scored.
    """
    signs = {name: -1.0 if name in costs else 1.0 for name in running}
    return [
        {name: signs[name] * statistic.z(picture.get(name, math.nan)) for name, statistic in running.items()}
        for picture in pictures
    ]


def weighed(z: Sequence[Scores], weights: Mapping[str, float]) -> list[float]:
    """R_total = Σ_i w_i·z_i of every picture.

    A reward of weight 0 is not looked at. A picture that a weighed reward could not score has NaN: it cannot be
    compared, and is never the best.
    """
    asked = {name: weight for name, weight in weights.items() if weight != 0}
    return [math.fsum(weight * picture.get(name, math.nan) for name, weight in asked.items()) for picture in z]


def ranked(totals: Sequence[float]) -> list[int]:
    """Positions from the best to the worst; equal ones in order, those without a total left out."""
    known = [place for place, total in enumerate(totals) if not math.isnan(total)]
    return sorted(known, key=lambda place: -totals[place])
