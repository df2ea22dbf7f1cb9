"""A prompt as words that can be edited without touching the rest: phrases, parts between commas, emphasis.

A prompt is kept as a flat list of words. Everything else is looked at afresh after each change:
    part     what stands between commas, full stops or line breaks
    phrase   inside of a part: a thing with its adjectives, and the word that joins it to what stands before
             ("a cat | on a red background")
    emphasis the host's (words:1.2); (words) is 1.1, and brackets inside of brackets multiply. It may span phrases.

What is not edited is written as it was, except that brackets inside of brackets are written as one weight each.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from .edit_words import EditLanguage

PLAIN_EMPHASIS = 1.1
# Of brackets inside of brackets: a stronger emphasis than this draws nothing but noise.
_STRONGEST_NESTED = 10.0
# Opaque words (LoRAs, embeddings, wildcards), escaped brackets, words, closing weights, and any other sign.
_TOKEN = re.compile(
    r"[^\S\n]*\n\s*|<[^<>\s][^<>]*>|\{[^{}]*\}|__[\w.\-/]+__|embedding:[^\s,:()]+|\\.|:\s*(?P<weight>-?\d*\.?\d+)\s*\)|[()]"
    r"|\d+\.\d+|\w+(?:['’\-]\w+)*|\S",
)
_SEPARATORS = {",", ";", ".", "!", "?", "|", "BREAK"}


@dataclass(frozen=True, eq=False)
class Emphasis:
    """One pair of brackets; compared by identity, since equal weights side by side are two pairs."""

    weight: float
    closing: str


@dataclass(frozen=True)
class Word:
    """A word or a sign of its own, with the white space before it."""

    text: str
    before: str = " "
    emphasis: Emphasis | None = None

    @property
    def separates(self) -> bool:
        return self.text in _SEPARATORS or not self.text.strip()

    @property
    def names(self) -> bool:
        """Whether it may name something, as words and emoji do."""
        return re.search(r"\w", self.text) is not None or unicodedata.category(self.text[0]) == "So"

    @property
    def loads(self) -> bool:
        """Whether it loads a file, and shows no thing that could be edited."""
        return self.text.startswith(("<", "embedding:")) and len(self.text) > 1


@dataclass(frozen=True)
class Phrase:
    """Word positions: [start, stop) with the joining words; from `core` on without them."""

    start: int
    core: int
    stop: int


@dataclass
class Prompt:
    """See the module."""

    words: list[Word]
    language: EditLanguage = field(repr=False)

    @classmethod
    def parse(cls, text: str, language: EditLanguage) -> Prompt:
        """Any text is a prompt; brackets without partner are signs like others."""
        return cls(_parsed(text), language)

    def copy(self) -> Prompt:
        return Prompt(list(self.words), self.language)

    @property
    def text(self) -> str:
        """The prompt as it is written."""
        out: list[str] = []
        for index, word in enumerate(self.words):
            last = self.words[index - 1].emphasis if index else None
            following = self.words[index + 1].emphasis if index + 1 < len(self.words) else None
            opening = "(" if word.emphasis is not None and word.emphasis is not last else ""
            closing = word.emphasis.closing if word.emphasis is not None and word.emphasis is not following else ""
            out.append(f"{word.before}{opening}{word.text}{closing}")
        return "".join(out)

    # ---- looking -----------------------------------------------------------------------------------------------------

    def parts(self) -> list[tuple[int, int]]:
        """[start, stop) of what stands between separators; empty ones left out."""
        cuts = [index for index, word in enumerate(self.words) if word.separates]
        bounds = zip([-1, *cuts], [*cuts, len(self.words)], strict=True)
        return [(start + 1, stop) for start, stop in bounds if stop > start + 1]

    def phrases(self, part: tuple[int, int] | None = None) -> list[Phrase]:
        """The phrases of one part, or of all."""
        found = []
        for start, stop in [part] if part else self.parts():
            found += list(self._phrases(start, stop))
        return found

    def _phrases(self, start: int, stop: int) -> Iterator[Phrase]:
        begin, core = start, start + self._joining(start, stop)
        index = max(core, start + 1)
        while index < stop:
            joining = self._joining(index, stop)
            if joining or self._acts(index, begin, stop):
                yield Phrase(begin, min(core, index), index)
                begin, core = index, index + max(joining, 1 if self._takes_object(index, stop) else 0)
                index = max(core, index + 1)
            else:
                index += 1
        yield Phrase(begin, min(core, stop), stop)

    def _joining(self, index: int, stop: int) -> int:
        """How many words from here on join a phrase to what stands before; 0 = none."""
        low = [word.text.lower() for word in self.words[index : min(stop, index + 4)]]
        count = 0
        for connector in self.language.connector_words:
            if tuple(low[: len(connector)]) == connector and len(connector) > count:
                count = len(connector)
        if count == 1 and low[0] in self.language.joiners and self._between_colours(index, stop):
            return 0
        return count

    def _between_colours(self, index: int, stop: int) -> bool:
        """ "black and white photo" is one phrase."""
        near = (index - 1, index + 1)
        return all(0 <= at < stop and self.words[at].text.lower() in self.language.colours for at in near)

    def _acts(self, index: int, begin: int, stop: int) -> bool:
        """Whether a phrase of doing begins here: "a monk | meditating", "a man | reading a newspaper"."""
        word = self.words[index].text.lower()
        acting = word.endswith("ing") and len(word) > 4
        return acting and (self._takes_object(index, stop) or word not in self.language.ing_nouns)

    def _takes_object(self, index: int, stop: int) -> bool:
        word = self.words[index].text.lower()
        following = self.words[index + 1].text.lower() if index + 1 < stop else ""
        return word.endswith("ing") and following in self.language.articles | self.language.determiners

    def low(self, start: int, stop: int) -> list[str]:
        return [word.text.lower() for word in self.words[start:stop]]

    def said(self, start: int, stop: int) -> str:
        """The words as text, without emphasis."""
        return "".join(word.before + word.text for word in self.words[start:stop]).strip()

    def phrase_at(self, index: int) -> Phrase:
        """The phrase that holds this word."""
        return next(phrase for phrase in self.phrases() if phrase.start <= index < phrase.stop)

    def head(self, phrase: Phrase) -> int:
        """The position of a phrase's thing: its last word."""
        index = phrase.stop - 1
        while index > phrase.core and not self.words[index].names:
            index -= 1
        return index

    def subject(self) -> Phrase | None:
        """The first thing of the prompt; for "a picture of a cat" the cat."""
        for phrase in self.phrases():
            follows = self.low(phrase.stop, phrase.stop + 1) == ["of"]
            if (
                phrase.core < phrase.stop
                and not self.words[self.head(phrase)].loads
                and not (follows and self.words[self.head(phrase)].text.lower() in self.language.pictures)
            ):
                return phrase
        return None

    def compound(self, phrase: Phrase) -> int:
        """Where a phrase's thing begins: its last word with the words before that are no known adjectives."""
        language = self.language
        known = language.articles | language.determiners | language.quantities | set(language.numbers)
        known |= set(language.sizes) | set(language.styles) | language.colours | frozenset().union(*language.kinds)
        start = self.head(phrase)
        while start > phrase.core and self.words[start - 1].text.lower() not in known:
            start -= 1
        return start

    def find(self, words: str) -> tuple[int, int] | None:
        """Where the prompt speaks of something: [start, stop); articles and endings do not matter.

        A thing is found before an adjective of the same word. Words of one family count where the word itself is
        missing: "dust" finds "dusty".
        """
        wanted = self.plain(words)
        if not wanted:
            return None
        for same in (self._same, self._alike):
            places = [
                (start, start + len(wanted))
                for start in range(len(self.words) - len(wanted) + 1)
                if all(same(self.words[start + step].text, word) for step, word in enumerate(wanted))
            ]
            if places:
                return next((place for place in places if self.is_head(place)), places[0])
        return None

    def is_head(self, place: tuple[int, int]) -> bool:
        return self.head(self.phrase_at(place[1] - 1)) == place[1] - 1

    def plain(self, words: str) -> list[str]:
        """Words in lower case, split at hyphens as the prompt's are not, without articles and determiners."""
        found = [word for word in _parsed(words) if word.names]
        while found and found[0].text.lower() in self.language.articles | self.language.determiners:
            found = found[1:]
        return [word.text.lower() for word in found]

    def _same(self, one: str, other: str) -> bool:
        return self.language.singular(one) == self.language.singular(other)

    def _alike(self, one: str, other: str) -> bool:
        first, second = sorted((self.language.singular(one), self.language.singular(other)), key=len)
        if len(first) < 3 or not second.startswith(first):
            return False
        rest = second[len(first) :]
        return rest in self.language.family or rest.removeprefix(first[-1]) in self.language.family

    # ---- changing ----------------------------------------------------------------------------------------------------

    def insert(self, index: int, text: str) -> None:
        """Put words before position `index`; a text that begins with a separator gets no space before it."""
        new = _parsed(text)
        if not new:
            return
        if index == 0:
            if self.words:
                self.words[0] = replace(self.words[0], before=" ")
            new[0] = replace(new[0], before="")
        else:
            new[0] = replace(new[0], before="" if new[0].separates else " ")
        inside = self._emphasis_around(index)
        self.words[index:index] = [replace(word, emphasis=word.emphasis or inside) for word in new]

    def _emphasis_around(self, index: int) -> Emphasis | None:
        if not 0 < index < len(self.words):
            return None
        before, after = self.words[index - 1].emphasis, self.words[index].emphasis
        return before if before is after else None

    def remove(self, start: int, stop: int) -> None:
        """Take words out, with the separators that would be left without purpose."""
        first = self.words[start].before if start < len(self.words) else ""
        del self.words[start:stop]
        while start < len(self.words) and self.words[start].separates and self._bare(start):
            del self.words[start]
        if start == len(self.words):
            while self.words and self.words[-1].text in {",", ";"}:
                del self.words[-1]
        elif start == 0 or not self.words[start].separates:
            self.words[start] = replace(self.words[start], before="" if start == 0 else first or " ")
        self._release_separators(start)

    def _release_separators(self, cut: int) -> None:
        """Take the separators beside `cut` out of the brackets that end or begin there: they emphasise nothing."""
        for index, step in ((cut - 1, -1), (cut, 1)):
            while 0 <= index < len(self.words) and self.words[index].separates:
                word, beyond = self.words[index], index - step
                other = self.words[beyond].emphasis if 0 <= beyond < len(self.words) else None
                if word.emphasis is None or word.emphasis is other:
                    break
                self.words[index] = replace(word, emphasis=None)
                index += step

    def _bare(self, index: int) -> bool:
        """Whether a separator has nothing before it to separate."""
        return index == 0 or self.words[index - 1].separates

    def replace(self, start: int, stop: int, text: str) -> int:
        """Other words in place of some, with their emphasis; returns where the new ones end."""
        before = self.words[start].before
        emphasis = self.words[start].emphasis
        new = _parsed(text)
        new = [replace(word, emphasis=word.emphasis or emphasis) for word in new]
        if new:
            new[0] = replace(new[0], before=before)
        self.words[start:stop] = new
        return start + len(new)

    def mend_article(self, phrase_start: int) -> None:
        """Have the article here agree with the word behind it."""
        index = phrase_start
        if index + 1 < len(self.words) and self.words[index].text.lower() in ("a", "an"):
            right = self.language.article(self.words[index + 1].text)
            if self.words[index].text[0].isupper():
                right = right.capitalize()
            self.words[index] = replace(self.words[index], text=right)

    def mend_articles(self) -> None:
        for index in range(len(self.words)):
            self.mend_article(index)

    def weight(self, start: int, stop: int) -> float:
        """The emphasis of words; of several weights the first."""
        emphasis = self.words[start].emphasis
        return 1.0 if emphasis is None else emphasis.weight

    def set_weight(self, start: int, stop: int, weight: float) -> None:
        """Give words an emphasis of their own; 1 takes it away."""
        weight = round(weight, 2)
        emphasis = None if weight == 1 else Emphasis(weight, f":{weight:g})")
        self.words[start:stop] = [replace(word, emphasis=emphasis) for word in self.words[start:stop]]
        self._release_separators(start)
        self._release_separators(stop)


def _parsed(text: str) -> list[Word]:
    tokens = list(_TOKEN.finditer(text))
    opened, closed = _pairs(tokens)
    words: list[Word] = []
    around: list[Emphasis] = []
    joined: dict[tuple[Emphasis, ...], Emphasis] = {}
    before, end = "", 0
    for index, token in enumerate(tokens):
        before += text[end : token.start()]
        end = token.end()
        if index in opened:
            around.append(opened[index])
        elif index in closed:
            around.pop()
        else:
            if len(around) > 1 and tuple(around) not in joined:
                weight = math.prod(emphasis.weight for emphasis in around)
                weight = round(max(-_STRONGEST_NESTED, min(weight, _STRONGEST_NESTED)), 2)
                joined[tuple(around)] = Emphasis(weight, f":{weight:g})")
            emphasis = joined[tuple(around)] if len(around) > 1 else around[0] if around else None
            words.append(Word(token[0], before, emphasis))
            before = ""
    return words


def _pairs(tokens: Sequence[re.Match[str]]) -> tuple[dict[int, Emphasis], set[int]]:
    """The brackets that have a partner: the opening ones with what they mean, and the closing ones."""
    waiting: list[int] = []
    opened: dict[int, Emphasis] = {}
    closed: set[int] = set()
    for index, token in enumerate(tokens):
        if token[0] == "(":
            waiting.append(index)
        elif waiting and (token[0] == ")" or token["weight"]) and index > waiting[-1] + 1:
            weight = float(token["weight"]) if token["weight"] else PLAIN_EMPHASIS
            opened[waiting.pop()] = Emphasis(weight, token[0])
            closed.add(index)
    return opened, closed
