"""A list of prompts and what every prompt source does with it: drop doubles, shuffle, limit, repeat; text with a prompt
per line."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...training.interfaces import AttuneError

# What a node shows of its prompts; a page with thousands of lines becomes slow.
MOST_SHOWN = 100
MOST_PROMPTS = 100_000


class PromptError(AttuneError):
    """A source of prompts cannot be read, or holds none; says which file and line, and what to do."""


@dataclass(frozen=True)
class Arrangement:
    """What is done with the prompts of a source, in this order.

    Attributes:
        remove_duplicates: keep the first of equal prompts.
        shuffle_seed: 0 = the order of the source; any other number is an order of its own.
        limit: how many prompts are kept, from the beginning of that order; 0 = all.
        repeat: how many times every prompt stands in a row.
    """

    remove_duplicates: bool = True
    shuffle_seed: int = 0
    limit: int = 0
    repeat: int = 1

    def __post_init__(self) -> None:
        for name, least in (("shuffle_seed", 0), ("limit", 0), ("repeat", 1)):
            if getattr(self, name) < least:
                raise PromptError(f"{name} must be at least {least}, not {getattr(self, name)}.")


@dataclass(frozen=True)
class PromptList:
    """The outcome of a source.

    Attributes:
        prompts: single lines, in order.
        note: what there was to choose from, e.g. "8 of 48 prompts".
    """

    prompts: tuple[str, ...]
    note: str

    @property
    def text(self) -> str:
        """One prompt per line, as the prompts boxes take it."""
        return "\n".join(self.prompts)

    def shown(self) -> str:
        """The note and the prompts, for the node's face; long lists are cut."""
        rest = len(self.prompts) - MOST_SHOWN
        more = [f"… and {rest} more"] if rest > 0 else []
        return "\n".join([self.note, *self.prompts[:MOST_SHOWN], *more])


def one_line(text: str) -> str:
    """A prompt as a single line: line breaks and runs of white space become one space."""
    return " ".join(text.split())


def counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def text_lines(text: str) -> list[str]:
    """The lines of a text as editors number them. `str.splitlines` breaks at other letters, too, such as U+2028, which
    stand inside of captions and JSON."""
    return re.split(r"\r?\n", text)


def prompt_lines(text: str) -> list[str]:
    """One prompt per line; blank lines and lines that begin with # are dropped."""
    return [one_line(line) for line in text_lines(text) if line.strip() and not line.lstrip().startswith("#")]


def arrange(prompts: Iterable[str], arrangement: Arrangement, *, source: str) -> PromptList:
    """Apply an `Arrangement`.

    Args:
        prompts: single lines.
        source: what they come from, for the error.

    Raises:
        PromptError: there is none, or there are more than `MOST_PROMPTS` after repeating.
    """
    found = list(prompts)
    if not found:
        raise PromptError(f"There are no prompts in {source}. Write at least one.")
    kept = list(dict.fromkeys(found)) if arrangement.remove_duplicates else found
    available = len(kept)
    if arrangement.shuffle_seed:
        random.Random(arrangement.shuffle_seed).shuffle(kept)
    kept = kept[: arrangement.limit] if arrangement.limit else kept
    if len(kept) * arrangement.repeat > MOST_PROMPTS:
        raise PromptError(
            f"{counted(len(kept), 'prompt')} from {source}, each {arrangement.repeat} times, are more than "
            f"{MOST_PROMPTS}. Set a limit, or lower repeat."
        )
    repeated = tuple(prompt for prompt in kept for _ in range(arrangement.repeat))
    return PromptList(repeated, _note(len(kept), available, len(found), arrangement.repeat))


def _note(kept: int, available: int, found: int, repeat: int) -> str:
    note = counted(available, "prompt") if kept == available else f"{kept} of {counted(available, 'prompt')}"
    if found > available:
        note += f", {counted(found - available, 'double')} removed"
    return note + (f", each {repeat} times" if repeat > 1 else "")


def from_text(text: str, arrangement: Arrangement) -> PromptList:
    """The prompts of a text box.

    Raises:
        PromptError: there is none.
    """
    return arrange(prompt_lines(text), arrangement, source="the text")


def noted(prompts: PromptList, remarks: Sequence[str]) -> PromptList:
    """The same prompts with remarks behind the note."""
    return PromptList(prompts.prompts, "; ".join([prompts.note, *remarks]))
