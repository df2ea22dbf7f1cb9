"""How far several people agree: Krippendorff's alpha.

| symbol | meaning                                                                      |
| ------ | ---------------------------------------------------------------------------- |
| u      | a unit that was rated, here a picture; only those with two values or more count |
| m_u    | how many values unit u has                                                   |
| n_c    | how often the value c was given, in all such units; n = Σ n_c                |
| δ²     | how far two values are apart                                                 |

    α = 1 − D_o / D_e
    D_o = (1/n) Σ_u Σ_{i≠j in u} δ²(c_i, c_j) / (m_u − 1)
    D_e = 1/(n (n − 1)) Σ_c Σ_k n_c n_k δ²(c, k)

    nominal   δ² = 1 if c ≠ k, else 0
    ordinal   δ² = (Σ_{g from c to k} n_g − (n_c + n_k)/2)²
    interval  δ² = (c − k)²

1 = they agree wholly, 0 = as if they had thrown dice, below 0 = they contradict each other. Undefined where all values
are the same: such ratings do not say whether people agree. The interval comes from drawing units anew (ours; the
authors' own draws pairs).

References:
    Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability" (sections A to D are among the tests).
    Krippendorff 2004, "Content Analysis", for what counts as reliable: α ≥ 0.8, tentatively ≥ 0.667.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from .checks import RefinementError

Level = Literal["nominal", "ordinal", "interval"]
LEVELS: tuple[str, ...] = get_args(Level)
RELIABLE, TENTATIVE = 0.8, 0.667
DRAWS = 1000
# With fewer units the interval says nothing.
FEWEST_UNITS = 5


@dataclass(frozen=True)
class Agreement:
    """What the ratings say.

    Attributes:
        alpha: None = undefined.
        level: how the values are to be read.
        units: that were rated by two people or more.
        values: given to those.
        raters: who gave them.
        interval: holds alpha in 95 of 100 such samples of units; None = too few units.
    """

    alpha: float | None
    level: Level
    units: int
    values: int
    raters: int
    interval: tuple[float, float] | None

    @property
    def words(self) -> str:
        """For the report."""
        if self.units == 0:
            return "Nobody's ratings can be compared: no picture was rated by two people."
        if self.alpha is None:
            return "Undefined: all ratings are the same, so that nothing shows whether the raters would agree."
        if self.alpha >= RELIABLE:
            return "The raters agree."
        if self.alpha >= TENTATIVE:
            return "The raters agree well enough for tentative conclusions."
        if self.alpha > 0:
            return "The raters agree too little to build on."
        return "The raters agree no better than chance."


def agreement(ratings: Iterable[Mapping[str, float]], level: Level = "ordinal", *, seed: int = 0) -> Agreement:
    """Alpha of ratings, in which anything may be missing.

    Args:
        ratings: one per unit: rater → value.
        level: "nominal" = kinds without an order; "ordinal" = ranks, such as stars; "interval" = measured.
        seed: of the draws for the interval.

    Raises:
        RefinementError: there is no such level.
    """
    if level not in LEVELS:
        raise RefinementError(f"Agreement is one of {', '.join(LEVELS)}; not {level!r}.")
    pairable = [dict(unit) for unit in ratings if len(unit) > 1]
    units = [tuple(unit.values()) for unit in pairable]
    return Agreement(
        alpha(units, level),
        level,
        len(units),
        sum(map(len, units)),
        len({rater for unit in pairable for rater in unit}),
        _interval(units, level, seed),
    )


def alpha(units: Sequence[Sequence[float]], level: Level) -> float | None:
    """Alpha of the values of each unit; None = undefined. Units with one value count for nothing."""
    counts, values = _counted(units)
    return _alpha(counts, values, level) if len(counts) else None


def _counted(units: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """How often each unit has each value [units, values], and the values in order."""
    units = [unit for unit in units if len(unit) > 1]
    values = sorted({value for unit in units for value in unit})
    place = {value: index for index, value in enumerate(values)}
    counts = np.zeros((len(units), len(values)))
    for row, unit in zip(counts, units, strict=True):
        for value, times in Counter(unit).items():
            row[place[value]] = times
    return counts, np.array(values, dtype=np.float64)


def _alpha(counts: np.ndarray, values: np.ndarray, level: Level) -> float | None:
    """Alpha of counts [units, values], every unit with two values or more."""
    totals = counts.sum(0)
    number = totals.sum()
    apart = _apart(values, totals, level)
    # Ordered pairs within units; a value pairs with itself too, at no distance.
    weighted = counts / (counts.sum(1, keepdims=True) - 1)
    observed = float((weighted.T @ counts * apart).sum()) / number
    expected = float(totals @ apart @ totals) / (number * (number - 1))
    return 1 - observed / expected if expected > 0 else None


def _apart(values: np.ndarray, totals: np.ndarray, level: Level) -> np.ndarray:
    """δ² of every pair of values [values, values]."""
    if level == "nominal":
        return 1.0 - np.eye(len(values))
    if level == "interval":
        return (values[:, None] - values[None]) ** 2
    # Σ_{g from c to k} n_g − (n_c + n_k)/2 is the distance of the middles of both values' ranks.
    middles = np.cumsum(totals) - totals / 2
    return (middles[:, None] - middles[None]) ** 2


def _interval(units: Sequence[Sequence[float]], level: Level, seed: int) -> tuple[float, float] | None:
    if len(units) < FEWEST_UNITS:
        return None
    random = np.random.default_rng(seed)
    counts, values = _counted(units)
    samples = (counts[random.integers(0, len(counts), len(counts))] for _ in range(DRAWS))
    drawn = [found for sample in samples if (found := _alpha(sample, values, level)) is not None]
    if len(drawn) < DRAWS / 2:
        return None
    low, high = np.percentile(drawn, (2.5, 97.5))
    return float(low), float(high)
