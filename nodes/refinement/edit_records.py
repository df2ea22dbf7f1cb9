"""What feedback asks for, as records: one edit each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from .checks import RefinementError

Operation = Literal[
    "add", "remove", "replace", "more", "less", "keep", "style", "background", "count", "size", "position"
]
OPERATIONS: tuple[str, ...] = get_args(Operation)


@dataclass(frozen=True)
class Edit:
    """One change of a prompt.

    Attributes:
        operation: see `what`.
        what: add: the words that are new · remove, keep: the thing · replace: the old thing · more, less: the quality
            or thing · style, background: its description · count, size, position: the thing that changes.
            "" of these last three is the prompt's first thing.
        to: replace: the new words · style: "artist" where `what` names one, else "" · count: a quantity in words, or
            "+" for one more than there is · size: the word that was said · position: a key of the language's places,
            or the place in words · add: the words between the thing `at` and what is added.
        at: add, remove, more, less: the thing that is described; "" = the whole picture.
        amount: more, less: steps, 0.5 = "a bit", 2 = "much" · count: the number, 0 if `to` says it · size: steps,
            negative = smaller · keep: 1, or 0 = no longer.
        said: the clause it was read from.
    """

    operation: Operation
    what: str = ""
    to: str = ""
    at: str = ""
    amount: float = 1.0
    said: str = ""

    def __post_init__(self) -> None:
        if self.operation not in OPERATIONS:
            raise RefinementError(f"There is no edit {self.operation!r}; choose one of: {', '.join(OPERATIONS)}.")


@dataclass(frozen=True)
class Refused:
    """An edit that was understood and not carried out, with the reason for people."""

    edit: Edit
    reason: str


@dataclass(frozen=True)
class Reading:
    """Feedback as it was understood.

    Attributes:
        edits: in the order in which they are carried out.
        unread: the parts of the feedback that mean nothing to the grammar, word by word as they were written.
        language: the name of the table that read most of it.
    """

    edits: tuple[Edit, ...]
    unread: tuple[str, ...]
    language: str
