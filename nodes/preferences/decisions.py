"""From decisions to pairs: what a person said to questions, as comparisons of two pictures. Ours.

| question | answer    | comparisons                                                       |
| -------- | --------- | ----------------------------------------------------------------- |
| pair     | a picture | it is preferred to the other one                                  |
| best     | a picture | it is preferred to each of the others; of those nothing is known  |
| both     | tie       | every two pictures are a tie                                      |
| stars    | stars     | every two rated pictures, by their stars; less than `least_stars` apart is a tie |
| all      | skip      | none; counted                                                     |

Where several questions compare the same two pictures the newest decision holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from .records import Answer, Asked, Picture, Question


@dataclass(frozen=True)
class Comparison:
    """Two pictures of one prompt.

    Attributes:
        preferred: the better one; of a tie the one shown first.
        other: the other one.
        tie: neither is better.
        group: key of the question; comparisons of one question say partly the same.
        decision: id of the decision, higher = later.
    """

    prompt: str
    preferred: Picture
    other: Picture
    tie: bool
    group: str
    decision: int


@dataclass(frozen=True)
class ComparisonSet:
    """What a number of decisions says.

    Attributes:
        comparisons: the newest decision's first; no two pictures are compared twice.
        skipped: questions that were answered with "skip".
        replaced: comparisons that a newer decision on the same two pictures has taken the place of.
    """

    comparisons: tuple[Comparison, ...]
    skipped: int
    replaced: int

    @property
    def preferences(self) -> list[Comparison]:
        """Those that are no ties."""
        return [found for found in self.comparisons if not found.tie]

    @property
    def ties(self) -> int:
        return sum(found.tie for found in self.comparisons)


def comparisons_of(asked: Sequence[Asked], *, least_stars: int = 1) -> ComparisonSet:
    """The comparisons that standing decisions hold.

    Args:
        asked: questions; those without a decision say nothing.
        least_stars: by how many stars two pictures must differ, 1 … 4; less is a tie.
    """
    if not 1 <= least_stars <= 4:
        raise ValueError(f"least_stars must be 1 to 4, not {least_stars}")
    answered = [found for found in asked if found.decision is not None]
    answered.sort(key=lambda found: -found.decision.id)
    held: dict[frozenset[str], Comparison] = {}
    replaced = 0
    for found in answered:
        for comparison in _comparisons(found, least_stars):
            two = frozenset((comparison.preferred.hash, comparison.other.hash))
            replaced += two in held
            held.setdefault(two, comparison)
    skipped = sum(found.decision.answer.verdict == "skip" for found in answered)
    return ComparisonSet(tuple(held.values()), skipped, replaced)


def _comparisons(asked: Asked, least_stars: int) -> Iterator[Comparison]:
    question, decision = asked.question, asked.decision
    for first, second, tie in _ordered(question, decision.answer, least_stars):
        yield Comparison(question.prompt, first, second, tie, question.key, decision.id)


def _ordered(question: Question, answer: Answer, least_stars: int) -> Iterator[tuple[Picture, Picture, bool]]:
    """(better, worse, whether they are a tie)."""
    if answer.verdict == "chosen":
        (best,) = (picture for picture in question.pictures if picture.hash == answer.chosen)
        yield from ((best, other, False) for other in question.pictures if other is not best)
    elif answer.verdict == "tie":
        yield from ((first, second, True) for first, second in combinations(question.pictures, 2))
    elif answer.verdict == "stars":
        rated = [picture for picture in question.pictures if picture.hash in answer.stars]
        for first, second in combinations(rated, 2):
            lead = answer.stars[first.hash] - answer.stars[second.hash]
            better, worse = (second, first) if lead < 0 else (first, second)
            yield better, worse, abs(lead) < least_stars
