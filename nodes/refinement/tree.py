"""The rounds of a session as a tree: the way to a round, its branches, two branches side by side. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .checks import UnknownError
from .records import Feedback, Round


@dataclass(frozen=True)
class Comparison:
    """Two ways through a session.

    Attributes:
        common: the rounds that both share, from the first on.
        first, second: what each has of its own behind them.
    """

    common: tuple[Round, ...]
    first: tuple[Round, ...]
    second: tuple[Round, ...]


class Tree:
    """Rounds in the order in which they were committed, parents before children.

    Raises:
        UnknownError: a round's parent is not among them.
    """

    def __init__(self, rounds: Iterable[Round]) -> None:
        self.rounds = tuple(rounds)
        self._by_key = {round_.key: round_ for round_ in self.rounds}
        self._children: dict[str | None, list[Round]] = {}
        for round_ in self.rounds:
            if round_.parent is not None and round_.parent not in self._by_key:
                raise UnknownError(f"The round before round {round_.number} of this session is missing.")
            self._children.setdefault(round_.parent, []).append(round_)

    def round(self, key: str) -> Round:
        """
        Raises:
            UnknownError: there is no such round.
        """
        if key not in self._by_key:
            raise UnknownError("This session has no such round. Reload the page to see the rounds it has.")
        return self._by_key[key]

    def path(self, key: str | None) -> tuple[Round, ...]:
        """The rounds from the first to that one; of None none.

        Raises:
            UnknownError: there is no such round.
        """
        found: list[Round] = []
        while key is not None:
            found.append(self.round(key))
            key = found[-1].parent
        return tuple(reversed(found))

    def children(self, key: str | None) -> tuple[Round, ...]:
        """The rounds that build on that one, oldest first; of None the first rounds."""
        return tuple(self._children.get(key, ()))

    def branches(self) -> tuple[tuple[Round, ...], ...]:
        """The ways to every round on which none builds, in the order in which those were committed."""
        return tuple(self.path(round_.key) for round_ in self.rounds if round_.key not in self._children)

    def earlier_answer(self, waiting: Round) -> Feedback | None:
        """What was last said to the same pictures, before an undo; None = nothing was."""
        shown = [(picture.hash, picture.seed) for picture in waiting.pictures]
        same = [
            round_.feedback
            for round_ in self.children(waiting.parent)
            if round_.attempt == waiting.attempt
            and [(picture.hash, picture.seed) for picture in round_.pictures] == shown
        ]
        return same[-1] if same else None

    def compare(self, first: str, second: str) -> Comparison:
        """The ways to two rounds side by side.

        Raises:
            UnknownError: there is no such round.
        """
        one, other = self.path(first), self.path(second)
        shared = sum(1 for a, b in zip(one, other, strict=False) if a.key == b.key)
        return Comparison(one[:shared], one[shared:], other[shared:])
