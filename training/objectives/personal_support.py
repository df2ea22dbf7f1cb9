"""Which choices may tell about a person while another one of theirs is learned from, and whom a run is about.

A choice and what tells about it must share no picture: after "this is the best of four", three pairs have one picture
in common. Tables here take memory and time in proportion to the choices, however many one person has made. Ours.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass

Pictures = tuple[Hashable, Hashable]


class SupportTable:
    """For every choice the others of the same person that share no picture with it, in their order.

    Args:
        people: who chose, one per choice. pictures: identities of the two pictures of each.
    """

    def __init__(self, people: Sequence[str], pictures: Sequence[Pictures]) -> None:
        self._people, self._pictures = list(people), list(pictures)
        self._own: dict[str, list[int]] = {}
        # Places within the person's own choices, by person and picture.
        self._with: dict[tuple[str, Hashable], list[int]] = {}
        self._same: Counter[tuple[str, frozenset[Hashable]]] = Counter()
        for choice, (person, both) in enumerate(zip(people, pictures, strict=True)):
            own = self._own.setdefault(person, [])
            for picture in set(both):
                self._with.setdefault((person, picture), []).append(len(own))
            self._same[person, frozenset(both)] += 1
            own.append(choice)

    def count(self, choice: int) -> int:
        """How many choices may tell about this one's person."""
        person, both = self._people[choice], frozenset(self._pictures[choice])
        sharing = sum(len(self._with[person, picture]) for picture in both)
        # Those of the very same two pictures stand in both lists.
        return len(self._own[person]) - sharing + (len(both) - 1) * self._same[person, both]

    def at(self, choice: int, places: Sequence[int]) -> list[int]:
        """The choices at these places among those that may tell, each below `count`."""
        person = self._people[choice]
        sharing = sorted({place for picture in self._pictures[choice] for place in self._with[person, picture]})
        return [self._own[person][_skipping(sharing, place)] for place in places]


def _skipping(taken: Sequence[int], place: int) -> int:
    """The `place`-th whole number that is not among these, which are sorted."""
    for other in taken:
        if other > place:
            break
        place += 1
    return place


def told_by_first(people: Sequence[str], pictures: Sequence[Pictures], support: int) -> dict[int, tuple[int, ...]]:
    """What is measured of held-out people, and what tells about it: choice → the first `support` of the same person.

    Choices that share a picture with those are not measured.
    """
    first: dict[str, list[int]] = {}
    seen: dict[str, set[Hashable]] = {}
    found: dict[int, tuple[int, ...]] = {}
    for choice, (person, both) in enumerate(zip(people, pictures, strict=True)):
        told = first.setdefault(person, [])
        if len(told) < support:
            told.append(choice)
            seen.setdefault(person, set()).update(both)
        elif not seen[person] & set(both):
            found[choice] = tuple(told)
    return found


@dataclass(frozen=True)
class PeopleTally:
    """Whom a run is about: nobody goes missing without being counted.

    Attributes:
        people, pairs: learned from.
        people_without, pairs_without: not learned from, since no other choice of the person may tell who it is.
        held_out_people, held_out_pairs: measured, never learned from; support_pairs: tell who these people are.
        held_out_without: held-out people with too few choices to be measured.
        held_out_pairs_without: their choices, and those of others that share a picture with what tells about them.
    """

    people: int = 0
    pairs: int = 0
    people_without: int = 0
    pairs_without: int = 0
    held_out_people: int = 0
    held_out_pairs: int = 0
    support_pairs: int = 0
    held_out_without: int = 0
    held_out_pairs_without: int = 0

    @property
    def words(self) -> str:
        """As a report says it."""
        told = [f"Learned from {_count(self.people, 'person')} with {_count(self.pairs, 'pair')}."]
        if self.people_without or self.pairs_without:
            told.append(
                f"Not learned from: {_count(self.pairs_without, 'pair')} ({_count(self.people_without, 'person')} "
                "altogether), which had no other pair of the same person beside them."
            )
        if self.held_out_people:
            told.append(
                f"Held out: {_count(self.held_out_people, 'person')}, of whom {_count(self.support_pairs, 'pair')} "
                f"tell who they are and {_count(self.held_out_pairs, 'pair')} are measured."
            )
        if self.held_out_without or self.held_out_pairs_without:
            told.append(
                f"Held out but not measured: {_count(self.held_out_pairs_without, 'pair')} "
                f"({_count(self.held_out_without, 'person')} altogether), for want of further pairs of other pictures."
            )
        if not self.held_out_people:
            told.append("Nobody is held out, so nothing tells whether it carries over to others.")
        return " ".join(told)


def _count(number: int, what: str) -> str:
    if number == 1:
        return f"1 {what}"
    return f"{number} {'people' if what == 'person' else f'{what}s'}"


def tally(
    people: Sequence[str], learned: Collection[int], held_out: Sequence[str], told_by: Mapping[int, Sequence[int]]
) -> PeopleTally:
    """Counts of a run.

    Args:
        people: who made each choice that may be learned from; learned: those that are.
        held_out: who made each held-out choice; told_by: as `told_by_first` gives it for those.
    """
    teaching = {people[choice] for choice in learned}
    measured = {held_out[choice] for choice in told_by}
    telling = {choice for told in told_by.values() for choice in told}
    return PeopleTally(
        people=len(teaching),
        pairs=len(learned),
        people_without=len(set(people) - teaching),
        pairs_without=len(people) - len(learned),
        held_out_people=len(measured),
        held_out_pairs=len(told_by),
        support_pairs=len(telling),
        held_out_without=len(set(held_out) - measured),
        held_out_pairs_without=len(held_out) - len(told_by) - len(telling),
    )


def choose_held_out(people: Sequence[str], share: float, *, support: int, seed: int) -> set[str]:
    """Whom to hold out: this share of the people, at least one and never all; among those with more choices than tell.

    It depends on the seed and on who there is, not on an order. Nobody where nobody has enough choices.

    Args:
        people: who made each choice. share: 0 (nobody) … below 1.
    """
    made = Counter(people)
    enough = [person for person, number in made.items() if number > support]
    wanted = min(max(1, round(share * len(made))), len(made) - 1) if share else 0
    enough.sort(key=lambda person: hashlib.sha256(f"{seed}/{person}".encode()).digest())
    return set(enough[:wanted])
