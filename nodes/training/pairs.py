"""Pairs from any judge: within each prompt the better and the worse picture of a set, by their scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...training.interfaces import AttuneError

PAIRINGS = ("each picture once", "best against worst", "all")


@dataclass(frozen=True)
class ScoredPair:
    """Places of two pictures of one prompt, and by how much the chosen one is better, in the reward's unit."""

    prompt: str
    chosen: int
    rejected: int
    margin: float


@dataclass(frozen=True)
class PairSet:
    """What came of a set of scored pictures.

    Attributes:
        pairs: by prompt, in the order of their first picture.
        scores: one per picture; NaN where the safety gate held it back.
        ties: pairs that were looked at and differ by no more than the least margin.
        lonely: prompts with a single picture, which has nothing to be compared with.
    """

    pairs: tuple[ScoredPair, ...]
    scores: tuple[float, ...]
    ties: int
    lonely: int

    @property
    def blocked(self) -> int:
        return sum(math.isnan(score) for score in self.scores)


def pair_up(
    prompts: Sequence[str], scores: Sequence[float], *, pairing: str, least_margin: float, higher_is_better: bool
) -> PairSet:
    """Pairs of pictures of one prompt whose scores differ by more than the least margin.

    Args:
        prompts, scores: one per picture; pictures with the score NaN are left out.
        pairing: "each picture once": the best with the worst, the second best with the second worst, and so on; "best
            against worst": one pair per prompt; "all": every two pictures of a prompt.
        least_margin: in the reward's unit, ≥ 0; what does not differ by more is a tie.

    Raises:
        ValueError: unknown pairing.
        AttuneError: no pair is left.
    """
    if pairing not in PAIRINGS:
        raise ValueError(f"pairing must be one of {', '.join(PAIRINGS)}; not {pairing!r}")
    groups: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        if not math.isnan(scores[index]):
            groups.setdefault(prompt, []).append(index)
    sign = 1 if higher_is_better else -1
    pairs, ties, lonely = [], 0, 0
    for prompt, members in groups.items():
        ranked = sorted(members, key=lambda index: -sign * scores[index])
        lonely += len(ranked) == 1
        for better, worse in _places(len(ranked), pairing):
            chosen, rejected = ranked[better], ranked[worse]
            margin = sign * (scores[chosen] - scores[rejected])
            if margin > least_margin:
                pairs.append(ScoredPair(prompt, chosen, rejected, margin))
            else:
                ties += 1
    if not pairs:
        raise AttuneError(_why_none(len(scores), len(groups), ties, least_margin))
    return PairSet(tuple(pairs), tuple(scores), ties, lonely)


def _places(count: int, pairing: str) -> list[tuple[int, int]]:
    """(better, worse) places in the ranking of `count` pictures."""
    if pairing == "all":
        return [(better, worse) for better in range(count) for worse in range(better + 1, count)]
    mirrored = [(place, count - 1 - place) for place in range(count // 2)]
    return mirrored[:1] if pairing == "best against worst" else mirrored


def _why_none(pictures: int, prompts: int, ties: int, least_margin: float) -> str:
    if ties:
        return (
            f"No pair is left: all {ties} that {pictures} pictures could make differ by {least_margin:g} or less. "
            "Lower least_margin, make more pictures per prompt, or connect a reward that tells them apart."
        )
    if not prompts:
        return f"No pair can be made: the safety gate held back all {pictures} pictures. Raise its threshold."
    return (
        f"No pair can be made: {pictures} pictures of {prompts} prompts leave no prompt with two of them. Make several "
        "pictures of each prompt, and check that the prompts are in the pictures' order."
    )
