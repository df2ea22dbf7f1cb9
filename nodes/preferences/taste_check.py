"""How well a learned taste foretells choices it has not seen, and whether more choices would help. Ours.

Choices that hang together by a common picture tell of each other (a over b and b over c give a over c away): they are
held out together, as one cluster, and the figures are means over clusters. The interval is Wilson's (1927) for as many
trials as there are clusters.

Whether more helps is read off the learning curve. a(n) = mean probability given to what was really chosen, after n
clusters of choices. Taking a(n) = a(∞) − b/√n, it rises from n to 2n by 1/√2 of what it rose from n/2 to n. Tried on
simulated persons (16 features, 16 to 150 choices), that is from half of what came true (few choices) to all of it.
The rise from n/2 to n is measured on the same held-out clusters, whose spread gives its error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..pair_drawing import counted
from .taste import Evidence, moderated, posterior

FOLDS = 10
# Below, the figures are a matter of luck, and are told with that warning.
FEW = 12
_Z = 1.959964
# A rise of the curve, in parts of 1, that a person would notice.
_WORTH = 0.02


@dataclass(frozen=True)
class TasteCheck:
    """Figures of choices that were held out.

    Attributes:
        clusters: how many independent groups of choices were foretold, ties left aside.
        accuracy: mean part of them that was foretold rightly, 0 … 1.
        low, high: 95 % interval of it.
        expected: accuracy as the taste itself foretold it; near `accuracy` where it is calibrated.
        rise: of a(n) over the last doubling of choices. error: its standard error.
    """

    clusters: int
    accuracy: float
    low: float
    high: float
    expected: float
    rise: float
    error: float


def check(
    evidence: Evidence, clusters: Sequence[int], scale: float, *, on_fold: Callable[[int, int], None] | None = None
) -> TasteCheck | None:
    """Hold out every cluster once.

    Args:
        evidence: in any coordinates.
        clusters: a number per comparison; see `taste.clusters_of`.
        scale: σ as found from all comparisons: one number, which hardly tells of a single choice.
        on_fold: called with (done, all); may raise to cancel.

    Returns:
        None where nothing can be held out: fewer than 2 clusters, or only ties.
    """
    marks = torch.tensor(clusters, dtype=torch.int64)
    names = marks.unique()
    if len(names) < 2:
        return None
    mixed = names[torch.randperm(len(names), generator=torch.Generator().manual_seed(0))]
    folds = [mixed[start :: min(FOLDS, len(names))] for start in range(min(FOLDS, len(names)))]
    rows: list[torch.Tensor] = []
    for done, held in enumerate(folds):
        if on_fold is not None:
            on_fold(done, len(folds))
        rest = mixed[~torch.isin(mixed, held)]
        asked = torch.isin(marks, held) & (evidence.outcomes == 1)
        if asked.any():
            rows.append(_foretold(evidence, marks, rest, asked, scale))
    if not rows:
        return None
    values = torch.cat(rows)
    means = torch.stack([values[values[:, 0] == name, 1:].mean(0) for name in values[:, 0].unique()])
    right, expected, full, half = means.mean(0).tolist()
    rises = means[:, 2] - means[:, 3]
    error = float(rises.std() / math.sqrt(len(rises))) if len(rises) > 1 else math.inf
    low, high = wilson(right, len(means))
    return TasteCheck(len(means), right, low, high, expected, full - half, error)


def _foretold(
    evidence: Evidence, marks: torch.Tensor, rest: torch.Tensor, asked: torch.Tensor, scale: float
) -> torch.Tensor:
    """[m, 5] of the asked comparisons: cluster, right, expected, probability after all and after half of the rest."""
    margins, variances = _after(evidence, torch.isin(marks, rest), asked, scale)
    chance = moderated(margins, variances)
    # A margin of exactly 0 is a guess.
    right = (margins > 0).double() + (margins == 0).double() / 2
    halves = [moderated(*_after(evidence, torch.isin(marks, rest[start::2]), asked, scale)) for start in (0, 1)]
    return torch.stack([marks[asked].double(), right, chance.maximum(1 - chance), chance, sum(halves) / 2], 1)


def _after(
    evidence: Evidence, seen: torch.Tensor, asked: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Margins and variances of the asked comparisons after those that were seen."""
    mode, precision = posterior(evidence.part(seen), scale)
    rows = evidence.differences[asked]
    spread = torch.linalg.solve_triangular(torch.linalg.cholesky(precision), rows.T, upper=False)
    return rows @ mode, spread.square().sum(0)


def wilson(part: float, trials: int) -> tuple[float, float]:
    """95 % interval of a proportion, Wilson 1927."""
    middle = (part + _Z**2 / (2 * trials)) / (1 + _Z**2 / trials)
    half = _Z / (1 + _Z**2 / trials) * math.sqrt(part * (1 - part) / trials + _Z**2 / (4 * trials**2))
    return max(0.0, middle - half), min(1.0, middle + half)


# ---- in words ----


def words_of(found: TasteCheck | None, decisions: int) -> str:
    """What the figures mean, in two sentences or three."""
    if found is None:
        return (
            "How often it is right cannot be said: all choices are about the same few pictures. Choose between "
            "pictures of other prompts or seeds too."
        )
    text = (
        f"Tested on choices it had not seen, it agreed with you in {found.accuracy:.0%} of "
        f"{counted(found.clusters, 'case')} (between {found.low:.0%} and {found.high:.0%} with 95 % certainty; "
        "guessing gives 50 %)."
    )
    if found.clusters < FEW:
        return f"{text} That is too few cases to rely on: with {FEW} or more this figure begins to mean something."
    if found.low <= 0.5:
        return (
            f"{text} It is not proven to be better than guessing: more choices may show it, or they follow something "
            "that this encoder cannot see."
        )
    return f"{text} {_help(found, decisions)}"


def _help(found: TasteCheck, decisions: int) -> str:
    rise, error = found.rise, found.error
    if rise - error > _WORTH / 2:
        return (
            f"More choices help: the second half of yours made it {_points(rise)} surer of what you choose, and "
            f"another {decisions} should add about {_points(rise / math.sqrt(2))}."
        )
    if rise + 2 * error < _WORTH:
        return "More choices of this kind will hardly change it: the second half of yours made no difference to see."
    return "Whether more choices help cannot be said yet; the test is too small for that."


def _points(part: float) -> str:
    """A difference of probabilities."""
    return f"{100 * part:.1f} percentage points"
