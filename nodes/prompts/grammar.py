r"""The language of prompt templates: text with alternatives, weights and wildcards.

    {red|green}         one of them; each may hold further alternatives, or nothing
    {3::red|green}      red three times as often as green; weight 0 = never
    __colour__          one line of the file colour.txt, as if its lines stood between braces
    \{ \} \| \_         the sign itself

Every line of a text is a template of its own, chosen among like alternatives, and may begin with a weight. Blank
lines and lines that begin with # do not count. The syntax is what the host's prompt boxes and wildcard packs share.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random

from .lines import PromptError, one_line, text_lines

Pattern = tuple["str | Choice", ...]
Lookup = Callable[[str, str], "Choice"]
"""(name of a wildcard, where it is used) → its lines. Raises PromptError where there is none."""

WILDCARD = re.compile(r"__([\w.\-/]*?\w)__")
_WEIGHT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*::")
# What stands where a weight does and is none: {-1::a|b}, {1e5::a|b}.
_NO_WEIGHT = re.compile(r"\s*([-+.\d][-+.\de]*)\s*::", re.IGNORECASE)
# Other programs draw several alternatives at once by {2$$a|b} or {1-2$$a|b}.
_SEVERAL = re.compile(r"\s*\d*(?:-\d*)?\$\$")
_ESCAPED = "{}|_"
_PLAIN = re.compile(r"[^{}|_\\]+")
# Deeper nesting is a mistake, or an attempt to exhaust the stack.
_DEEPEST = 50
# Wildcards that use others twice grow like 2^n; what could become longer than this is refused before it is built.
MOST_LETTERS = 20_000


@dataclass(frozen=True)
class Choice:
    """Alternatives with their probabilities.

    Attributes:
        options: what may stand here.
        shares: probability of each, sum 1, none 0.
        size: how many ways there are to choose, alternatives inside included.
        ends, reached: running sums of the options' ways and of the shares, for finding an option by bisection.
        longest: letters of the longest filling, plus the number of choices in it.
    """

    options: tuple[Pattern, ...]
    shares: tuple[float, ...]
    size: int = field(init=False)
    ends: tuple[int, ...] = field(init=False, repr=False, compare=False)
    reached: tuple[float, ...] = field(init=False, repr=False, compare=False)
    longest: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ends = tuple(accumulate(ways(option) for option in self.options))
        object.__setattr__(self, "ends", ends)
        object.__setattr__(self, "size", ends[-1])
        object.__setattr__(self, "reached", tuple(accumulate(self.shares)))
        object.__setattr__(self, "longest", 1 + max(_longest(option) for option in self.options))


def choice_of(weighted: Sequence[tuple[float, Pattern]], where: str) -> Choice:
    """Alternatives by their weights; those of weight 0 are left out.

    Raises:
        PromptError: nothing is left, or a prompt could become longer than `MOST_LETTERS`.
    """
    kept = [(weight, option) for weight, option in weighted if weight > 0]
    total = sum(weight for weight, _ in kept)
    if not kept or not math.isfinite(total):
        raise PromptError(
            f"{where}: the weights of the alternatives are all 0 or too large. Give one a weight such as 1::."
        )
    # Before the ways are counted: their number would be as hopeless as the prompt.
    if max(_longest(option) for _, option in kept) >= MOST_LETTERS:
        raise PromptError(
            f"{where}: a prompt could become longer than {MOST_LETTERS} letters. Use fewer alternatives and wildcards "
            "in one line, and fewer wildcards inside wildcards."
        )
    return Choice(tuple(option for _, option in kept), tuple(weight / total for weight, _ in kept))


def _longest(pattern: Pattern) -> int:
    return sum(part.longest if isinstance(part, Choice) else len(part) for part in pattern)


def ways(pattern: Pattern) -> int:
    """In how many ways a pattern can be filled in; two of them may read the same."""
    return math.prod(part.size for part in pattern if isinstance(part, Choice))


def fill(pattern: Pattern, index: int) -> tuple[str, float]:
    """The filling of a number in [0, ways), and its probability; the last alternatives change fastest."""
    text, probability = [], 1.0
    for part in reversed(pattern):
        if isinstance(part, str):
            text.append(part)
            continue
        index, rest = divmod(index, part.size)
        place = bisect_right(part.ends, rest)
        option = part.options[place]
        inner, inside = fill(option, rest - (part.ends[place - 1] if place else 0))
        text.append(inner)
        probability *= part.shares[place] * inside
    return "".join(reversed(text)), probability


def draw(pattern: Pattern, random: Random) -> str:
    """One filling by the weights; every alternative and wildcard is drawn for itself."""
    text = []
    for part in pattern:
        if isinstance(part, str):
            text.append(part)
        else:
            (option,) = random.choices(part.options, cum_weights=part.reached)
            text.append(draw(option, random))
    return "".join(text)


def parse_text(text: str, source: str, lookup: Lookup) -> Choice | None:
    """A text of templates, one per line; None if there is none.

    Args:
        source: what the text is, for errors: "the template", "wildcards/colour.txt".

    Raises:
        PromptError: a brace without its partner, or what `lookup` raises; the message names source and line.
    """
    lines = []
    for number, line in enumerate(text_lines(text), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            lines.append(_Parser(line, f"{source}, line {number}", lookup).line())
    return choice_of(lines, source) if lines else None


class _Parser:
    """One line, read from left to right."""

    def __init__(self, text: str, where: str, lookup: Lookup) -> None:
        self.text, self.where, self.lookup = text, where, lookup
        self.position = 0

    def line(self) -> tuple[float, Pattern]:
        weight, pattern = self._option(0)
        if self.position < len(self.text):
            raise PromptError(
                f"{self.where}: the }} at letter {self.position + 1} closes nothing. Remove it, or write \\}} where "
                "the sign itself is meant."
            )
        return weight, pattern

    def _option(self, depth: int) -> tuple[float, Pattern]:
        """Up to the end of the alternative (| or }) or, outside of braces, to a } or the end of the line."""
        weight = self._weight(depth)
        parts: list[str | Choice] = []
        while self.position < len(self.text):
            letter = self.text[self.position]
            if letter == "}" or (letter == "|" and depth):
                break
            if letter == "{":
                parts.append(self._choice(depth + 1))
            elif letter == "\\" and self.text[self.position + 1 : self.position + 2] in tuple(_ESCAPED):
                parts.append(self.text[self.position + 1])
                self.position += 2
            elif letter == "_" and (found := WILDCARD.match(self.text, self.position)):
                parts.append(self.lookup(found[1], self.where))
                self.position = found.end()
            elif plain := _PLAIN.match(self.text, self.position):
                parts.append(plain[0])
                self.position = plain.end()
            else:
                parts.append(letter)
                self.position += 1
        return weight, tuple(parts)

    def _weight(self, depth: int) -> float:
        found = _WEIGHT.match(self.text, self.position)
        if not found:
            if depth and (wrong := _NO_WEIGHT.match(self.text, self.position)):
                raise PromptError(
                    f"{self.where}: {wrong[1]!r} is no weight. Write a number of 0 or more without a sign or exponent, "
                    "such as 2:: or 0.5::."
                )
            return 1.0
        self.position = found.end()
        return float(found[1])

    def _choice(self, depth: int) -> Choice:
        opened = self.position + 1
        if depth > _DEEPEST:
            raise PromptError(
                f"{self.where}: more than {_DEEPEST} braces inside each other. Use a wildcard file instead."
            )
        self.position += 1
        if several := _SEVERAL.match(self.text, self.position):
            raise PromptError(
                f"{self.where}: {{{several[0]}…}} draws several alternatives at once in other programs, and is not "
                "known here. Write the braces once for each: {a|b} {a|b}."
            )
        options = [self._option(depth)]
        while self.text[self.position : self.position + 1] == "|":
            self.position += 1
            options.append(self._option(depth))
        if self.position >= len(self.text):
            raise PromptError(
                f"{self.where}: the {{ at letter {opened} is never closed. Add a }} on the same line, or write \\{{ "
                "where the sign itself is meant."
            )
        self.position += 1
        return choice_of(options, self.where)


def filled(choice: Choice, index: int) -> tuple[str, float]:
    """`fill` of a whole template, as a single line."""
    text, probability = fill((choice,), index)
    return one_line(text), probability
