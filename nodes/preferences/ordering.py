"""Which comparisons of a profile tell most, and in which order. Ours.

A question of many pictures holds many comparisons, which say partly the same: nine pictures with stars hold up to 36.
Of such a question at most its number of pictures less one is read, spread over the pictures; and the first comparison
of every question comes before any question's second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from .decisions import Comparison

T = TypeVar("T")


def questions_of(comparisons: Iterable[Comparison]) -> list[str]:
    """Keys of the questions that they come from, in their order, each once."""
    return list(dict.fromkeys(two.group for two in comparisons))


def of_newest_questions(comparisons: Sequence[Comparison], most: int) -> list[Comparison]:
    """Those of the first `most` questions; the newest are first in `comparisons`."""
    kept = set(questions_of(comparisons)[:most])
    return [two for two in comparisons if two.group in kept]


def different_first(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """One comparison of every prompt, then the second of every prompt, and so on; of one prompt in the same way by
    questions. Otherwise the order stays."""
    by_question = _spread(comparisons, lambda two: two.group)
    return _spread(by_question, lambda two: " ".join(two.prompt.casefold().split()))


def thinned(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Of every question no more comparisons than its number of pictures less one, in the order that they had."""
    by_question: dict[str, list[Comparison]] = {}
    for two in comparisons:
        by_question.setdefault(two.group, []).append(two)
    kept = {id(two) for of_one in by_question.values() for two in _spread_over_pictures(of_one)}
    return [two for two in comparisons if id(two) in kept]


def _spread_over_pictures(of_one: list[Comparison]) -> list[Comparison]:
    """Of one question: the next is always one whose pictures were taken least so far."""
    taken: Counter[str] = Counter()
    left, kept = list(of_one), []
    most = len({picture.hash for two in of_one for picture in (two.preferred, two.other)}) - 1
    if len(left) <= most:
        return left
    while len(kept) < most:
        found = min(left, key=lambda two: taken[two.preferred.hash] + taken[two.other.hash])
        left.remove(found)
        kept.append(found)
        taken.update((found.preferred.hash, found.other.hash))
    return kept


def _spread(items: Sequence[T], kind: Callable[[T], Hashable]) -> list[T]:
    """The first of every kind, then the second of every kind, …"""
    seen: Counter[Hashable] = Counter()
    rounds = []
    for item in items:
        rounds.append((seen[kind(item)], item))
        seen[kind(item)] += 1
    return [item for _, item in sorted(rounds, key=lambda entry: entry[0])]
