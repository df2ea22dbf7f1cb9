"""Prompts drawn from a template: without repetition while there is another one, or all combinations."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Literal, get_args

from ..places import PlaceError, inside, listed_files
from .grammar import WILDCARD, Choice, draw, filled, parse_text
from .lines import MOST_PROMPTS, PromptError, PromptList, counted, one_line
from .places import read_text

Mode = Literal["draw", "all combinations"]
MODES: tuple[str, ...] = get_args(Mode)
WILDCARD_FOLDER = "wildcards"
# Templates with at most so many fillings are written out: exact probabilities, and no draw is in vain.
MOST_WRITTEN_OUT = 20_000
# Of larger ones, doubles are drawn again so many times per prompt. There a double is rare, unless a weight is extreme.
_ATTEMPTS = 200
# So many prompts of the greatest length take about a second.
_STEPS = 100


class Wildcards:
    """The files of the wildcard folder, each read once.

    Args:
        root: the folder with NAME.txt; folders inside are part of the name.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[str, Choice] = {}
        self._open: list[str] = []

    def __call__(self, name: str, where: str) -> Choice:
        """The lines of a wildcard file.

        Raises:
            PromptError: there is no such file, it is empty, it uses itself, or it has a mistake.
        """
        if name in self._known:
            return self._known[name]
        if name in self._open:
            chain = " uses ".join(f"__{each}__" for each in [*self._open[self._open.index(name) :], name])
            raise PromptError(f"{where}: the wildcard never ends: {chain}. Remove one of them.")
        file, title = inside(self.root, f"{name}.txt", what="wildcard"), f"{WILDCARD_FOLDER}/{name}.txt"
        if not file.is_file():
            raise PromptError(f"{where}: there is no wildcard __{name}__. {self._advice()}")
        self._open.append(name)
        try:
            found = parse_text(read_text(file, title), title, self)
        finally:
            self._open.pop()
        if found is None:
            raise PromptError(f"{title} has no lines. Write one word or phrase per line.")
        self._known[name] = found
        return found

    def _advice(self) -> str:
        names = [f"__{name.removesuffix('.txt')}__" for name in listed_files(self.root, {".txt"})]
        there = f"There are: {', '.join(names[:20])}. " if names else ""
        return (
            f"{there}A wildcard is a text file in ComfyUI's input folder, input/{WILDCARD_FOLDER}/NAME.txt, with one "
            "word or phrase per line. Where the signs themselves are meant, write \\_\\_."
        )

    def files(self, text: str | None) -> list[Path]:
        """The files that a template depends on, directly or through others; all there are where it is not known yet."""
        if text is None:
            return [self.root / name for name in listed_files(self.root, {".txt"})]
        found: dict[str, Path] = {}
        waiting = [match[1] for match in WILDCARD.finditer(text)]
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            try:
                found[name] = inside(self.root, f"{name}.txt", what="wildcard")
                content = found[name].read_text(encoding="utf-8-sig", errors="replace")
            except (OSError, PlaceError):
                continue
            waiting += [match[1] for match in WILDCARD.finditer(content)]
        return [found[name] for name in sorted(found)]


def from_template(
    text: str, wildcards: Wildcards, *, mode: str, count: int, seed: int, on_step: Callable[[], None] = lambda: None
) -> PromptList:
    """The prompts of a template.

    Args:
        text: one template per line, see `grammar`.
        mode: one of `MODES`.
        count: how many are drawn; of all combinations, the most that are made.
        seed: of the draws. More prompts from the same seed begin with the same ones.
        on_step: called now and then; may raise to cancel.

    Raises:
        PromptError: no template, a mistake in it or in a wildcard file, or a number out of range.
    """
    if mode not in MODES:
        raise PromptError(f"There is no mode {mode!r}; choose one of: {', '.join(MODES)}.")
    if not 1 <= count <= MOST_PROMPTS:
        raise PromptError(f"how_many must be from 1 to {MOST_PROMPTS}, not {count}.")
    choice = parse_text(text, "The template", wildcards)
    if choice is None:
        raise PromptError("The template is empty. Write for example: a {red|green} __animal__")
    if mode == "all combinations":
        return _combinations(choice, count, on_step)
    if choice.size <= MOST_WRITTEN_OUT:
        return _drawn_from_all(choice, count, seed, on_step)
    return _drawn(choice, count, seed, on_step)


def _all(choice: Choice, on_step: Callable[[], None]) -> dict[str, float]:
    """Every prompt of a template with its probability; what can be reached in several ways adds up."""
    found: dict[str, float] = {}
    for index in range(choice.size):
        if index % _STEPS == 0:
            on_step()
        prompt, probability = filled(choice, index)
        if prompt:
            found[prompt] = found.get(prompt, 0.0) + probability
    if not found:
        raise PromptError("The template only makes empty prompts. Write some words outside of the alternatives.")
    return found


def _combinations(choice: Choice, most: int, on_step: Callable[[], None]) -> PromptList:
    found: dict[str, None] = {}
    for index in range(choice.size):
        if len(found) >= most:
            # Among those left there may be doubles only, so that the number of fillings is all that can be said.
            return PromptList(
                tuple(found), f"The first {most} of {_about(choice.size)} combinations: raise how_many for more"
            )
        if index % _STEPS == 0:
            on_step()
        prompt = filled(choice, index)[0]
        if prompt:
            found[prompt] = None
    if not found:
        raise PromptError("The template only makes empty prompts. Write some words outside of the alternatives.")
    return PromptList(tuple(found), f"All {counted(len(found), 'combination')}")


def _drawn_from_all(choice: Choice, count: int, seed: int, on_step: Callable[[], None]) -> PromptList:
    """Draw by weight without replacement; when all are drawn, begin again.

    Sorting by E/p with E exponential draws without replacement by the weights p (Efraimidis and Spirakis 2006).
    """
    probabilities, random = _all(choice, on_step), Random(seed)
    prompts: list[str] = []
    while len(prompts) < count:
        on_step()
        keys = {prompt: random.expovariate(1.0) / share for prompt, share in probabilities.items()}
        prompts += sorted(keys, key=keys.__getitem__)
    available = len(probabilities)
    note = f"{count} of {counted(available, 'possible prompt')}"
    if count > available:
        note = f"{counted(count, 'prompt')}, of which {available} differ: there are no others"
    return PromptList(tuple(prompts[:count]), note)


def _drawn(choice: Choice, count: int, seed: int, on_step: Callable[[], None]) -> PromptList:
    random = Random(seed)
    prompts: dict[str, None] = {}
    for attempt in range(_ATTEMPTS * count):
        if len(prompts) == count:
            break
        if attempt % _STEPS == 0:
            on_step()
        if prompt := one_line(draw((choice,), random)):
            prompts[prompt] = None
    if not prompts:
        raise PromptError("The template only makes empty prompts. Write some words outside of the alternatives.")
    note = f"{len(prompts)} of {_about(choice.size)} possible prompts"
    again = list(prompts)
    # The weights are so extreme that hardly anything else is ever drawn.
    repeated = [again[index % len(again)] for index in range(count)]
    if len(again) < count:
        note = f"{count} prompts, of which {len(again)} differ: the weights hardly allow others"
    return PromptList(tuple(repeated), note)


def _about(number: int) -> str:
    if number < 1_000_000:
        return f"{number:,}"
    exponent = int(math.log10(number))
    return re.sub(r"\.0$", "", f"{number / 10**exponent:.1f}") + f"·10^{exponent}"
