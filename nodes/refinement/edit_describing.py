"""Descriptions in feedback: which thing they are about, and whether they are a colour, a size, a place, a style …"""

from __future__ import annotations

import re

from .edit_records import Edit
from .edit_words import EditLanguage, alternatives
from .prompt_parts import Prompt

_RELATIVE = {"more": "more", "not": "remove", "no": "remove", "no longer": "remove", "without": "remove"}
# What stands before a description and is no part of it; "look up" and "look like" are of another kind.
_AS_IT_IS = re.compile(
    r"^(?:(?:to )?(?:be|(?:look|appear|seem|feel)(?! (?:like|as|to|at|into|towards?|up|down|away|over|back|out|for|"
    r"left|right|straight|directly|through|past|around|behind|outside|inside|sideways|forwards?|ahead|from|with|on|in|"
    r"under|off|aside|good|the same|same|too|perfect|all ?right|lovely|amazing|awesome|great|fine|nice|\w+ way)\b))|"
    r"being|in colou?r|colou?red|painted)\s+",
    re.IGNORECASE,
)
# A description of more words is a sentence of another kind.
_MOST_ADJECTIVES = 4


def ing_form(verb: str) -> str:
    """ "sing" → "singing", "ride" → "riding", "run" → "running"."""
    low = verb.lower()
    if low.endswith("ing") and len(low) > 5:
        return verb
    if low.endswith("ie"):
        return verb[:-2] + "ying"
    if low.endswith("e") and not low.endswith(("ee", "oe", "ye")):
        return verb[:-1] + "ing"
    if re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", low):
        return verb + verb[-1] + "ing"
    return verb + "ing"


class Describer:
    """Reads descriptions of one language about one prompt."""

    def __init__(self, language: EditLanguage, prompt: Prompt) -> None:
        self.language, self.prompt = language, prompt
        subject = prompt.subject()
        self.subject = prompt.said(prompt.compound(subject), subject.stop) if subject else ""

    # ---- words -------------------------------------------------------------------------------------------------------

    def is_pronoun(self, words: str) -> bool:
        return words.lower() in self.language.pronouns

    def is_whole(self, words: str) -> bool:
        return words.lower().removeprefix("the ") in self.language.whole

    def is_of_a_thing(self, words: str) -> bool:
        """Whether a description belongs to a thing rather than to the whole picture."""
        return bool(words) and (self._is_of_a_thing_alone(words.lower()) or self.language.joins(words))

    def names(self, words: str) -> bool:
        """Whether words name something: a pronoun, the whole, background, style, or a thing of the prompt."""
        if self.is_pronoun(words) or self.is_whole(words):
            return True
        if words.endswith(("'s", "s'")):
            return False  # what it owns is named, not the thing
        plain = self.prompt.plain(words)
        if plain in ([self.language.background_word], [self.language.style_word]):
            return True
        place = self.prompt.find(words)
        return bool(plain) and place is not None and self.prompt.is_head(place)

    def bare(self, words: str) -> str:
        """Without articles and determiners."""
        low = self.language.articles | self.language.determiners
        found = words.strip(" :;,\"'").split()
        while len(found) > 1 and found[0].lower() in low:
            found = found[1:]
        return " ".join(found)

    def things(self, words: str) -> list[str]:
        """The things of a list."""
        words = words.strip()
        if self.prompt.find(words):
            return [words]
        cut = re.split(rf"\s*(?:,|\b(?:{alternatives(self.language.joiners)})\b|&)\s*", words, flags=re.IGNORECASE)
        return [thing for thing in cut if thing]

    def amount(self, said: str) -> tuple[float, str]:
        """(steps, the rest) of words such as "a bit darker"."""
        for pattern, steps in self.language.amounts.items():
            match = re.match(rf"(?:{pattern})\s+(?=\S)", said, re.IGNORECASE)
            if match:
                return steps, said[match.end() :]
        return 1.0, said

    def without_some(self, words: str) -> str:
        """ "some butterflies" → "butterflies"; an article stays."""
        first, _, rest = words.partition(" ")
        drop = rest and first.lower() in self.language.determiners - self.language.articles | {"the"}
        return rest if drop else words

    def place(self, words: str) -> str:
        """The key of a place; "" if the words name none."""
        for pattern, key in self.language.places.items():
            if re.fullmatch(pattern, words.strip(), re.IGNORECASE):
                return key
        return ""

    def sized(self, thing: str, said: str, steps: float) -> Edit:
        """A size edit; `steps` < 0 turns the word's direction round ("too small")."""
        degree = said.lower()
        direction = self.language.sizes.get(degree) or self.language.sizes[self.language.adjective(degree)]
        return Edit("size", self._about(thing), to=degree, amount=direction * steps)

    def numbered(self, words: str) -> Edit | None:
        """A count edit from "two birds", "another cat", "two of them"; None without a number."""
        match = re.fullmatch(
            rf"(?:{self.language.slots['number']}|(?P<more>another|one more|1 more))(?:\s+(?P<what>.+))?",
            words.strip(),
            re.IGNORECASE,
        )
        if match is None:
            return None
        what = re.sub(r"^of\s+(?:them|those|these|it)$", "", match["what"] or "", flags=re.IGNORECASE)
        if match["more"]:
            return Edit("count", self.bare(what), to="+", amount=1)
        number = match["number"].lower()
        amount = int(number) if number.isdigit() else self.language.numbers.get(number, 0)
        if not what and amount == 0:
            return None
        return Edit("count", self.bare(what) if what else "", to="" if amount else number, amount=amount)

    # ---- which thing -------------------------------------------------------------------------------------------------

    def thing_first(self, words: str) -> tuple[str, str] | None:
        """ "the butterfly red" → ("the butterfly", "red"), by the longest name the prompt knows."""
        found = words.split()
        for cut in range(len(found) - 1, 0, -1):
            name = " ".join(found[:cut])
            if self.names(name):
                return name, " ".join(found[cut:])
        return None

    def thing_last(self, words: str) -> tuple[str, str] | None:
        """ "a brighter sky" → ("sky", "brighter"): an adjective, and a thing that the prompt knows."""
        found = self.bare(words).split()
        for cut in range(1, len(found)):
            adjective, name = " ".join(found[:cut]), " ".join(found[cut:])
            plain = self.amount(adjective)[1]
            each = [word for word in re.split(r"[\s,]+", plain) if word.lower() not in self.language.joiners]
            if (
                self.names(name)
                and not self.is_pronoun(name)
                and all(map(self.is_adjective, each))
                and not self.prompt.find(words)
            ):
                return name, adjective
        return None

    def is_adjective(self, word: str) -> bool:
        low = word.lower()
        language = self.language
        known = low in language.sizes or language.kind(low) is not None or low in language.numbers
        return known or bool(language.adjective(low)) or low in language.styles

    def _about(self, thing: str) -> str:
        return "" if self.is_whole(thing) else self.bare(thing)

    # ---- what it is to be --------------------------------------------------------------------------------------------

    def described(self, thing: str, said: str, *, guess: bool = True) -> list[Edit]:
        """The edits that make a thing as a description says; none if the description is not understood.

        Args:
            thing: a name or pronoun.
            said: the description.
            guess: whether unknown words count as adjectives.
        """
        said = _AS_IT_IS.sub("", said.strip())
        steps, plain = self.amount(said)
        low = plain.lower()
        if (
            not low
            or "," in low
            or low in self.language.vague
            or low.split()[0] in self.language.states | self.language.joiners
        ):
            return []
        relative = re.fullmatch(r"(more|less|not(?: so| that| too)?|no longer|without|no)\s+(.+)", plain, re.IGNORECASE)
        if relative:
            operation = _RELATIVE.get(relative[1].lower(), "less")
            what = self.bare(relative[2])
            if what.lower().split()[0] in self.language.vague - self.language.pronouns:
                return []
            if operation == "remove":
                alone = self._is_of_a_thing_alone(what.lower())
                return [Edit("remove", what, at=self._scene_or(thing, what) if alone else "")]
            return [Edit(operation, what, at=self._scene_or(thing, what), amount=steps)]
        plain_thing = self.prompt.plain(thing)
        if plain_thing == [self.language.style_word]:
            return [Edit("style", self.bare(plain))]
        if plain_thing == [self.language.background_word]:
            return self._of_background(plain, steps)
        return self._of_thing(thing, plain, steps, guess)

    def _of_background(self, plain: str, steps: float) -> list[Edit]:
        adjective = self.language.adjective(plain)
        if adjective and adjective not in self.language.vague:
            return [Edit("more", adjective, at=self.language.background_word, amount=steps)]
        words = re.sub(r"^(?:in|of|all|just|a plain)\s+", "", plain, flags=re.IGNORECASE)
        return [Edit("background", words)] if len(words.split()) <= 12 else []

    def _of_thing(self, thing: str, plain: str, steps: float, guess: bool) -> list[Edit]:
        low, about = plain.lower(), self._about(thing)
        whole = self.is_pronoun(thing) or self.is_whole(thing)
        place, number, adjective = self.place(plain), self.numbered(plain), self.language.adjective(low)
        if place:
            return [Edit("position", about, to=place)]
        if number and number.what == "":
            return [Edit("count", about, to=number.to, amount=number.amount)]
        if low in self.language.sizes or adjective in self.language.sizes:
            return [self.sized(thing, low, steps)]
        if adjective and adjective not in self.language.vague:
            return [Edit("more", adjective, at=self._scene_or(thing, adjective), amount=steps)]
        style = re.sub(rf"^(?:in )?(?:an? |the )?|\s+{self.language.style_word}$", "", low)
        if style in self.language.styles and (whole or low.endswith(self.language.style_word)):
            return [Edit("style", style)]
        if low.endswith(f" {self.language.style_word}"):
            return [Edit("style", re.sub(r"^(?:in )?(?:an? |the )?", "", plain, flags=re.IGNORECASE))]
        if set(low.split()) & self.language.looks and len(low.split()) <= _MOST_ADJECTIVES + 1:
            return [Edit("add", plain)]
        made = re.fullmatch(r"(?:made )?(?:out )?of (.+)", plain, re.IGNORECASE)
        if made:
            return [Edit("add", f"made of {made[1]}", at=about)]
        if self.language.joins(plain):
            return [] if len(low.split()) > 12 else [Edit("add", plain, at="" if self.is_whole(thing) else about)]
        if low.split()[0] in self.language.articles and low.split()[0] != "the":
            old = thing if self.is_pronoun(thing) else about or self.subject
            return [Edit("replace", old, to=plain)] if old else []
        if self.language.kind(low) is not None or (guess and 0 < len(low.split()) <= _MOST_ADJECTIVES):
            return [Edit("add", plain, at=self._scene_or(thing, low) if whole else about)]

        return []

    def _scene_or(self, thing: str, quality: str) -> str:
        """The thing, or "" where "it" means the picture: a picture can be dark, and not old."""
        if self.is_whole(thing):
            return ""
        if self.is_pronoun(thing):
            personal = thing.lower() in self.language.persons
            return thing if personal or self._is_of_a_thing_alone(quality.lower()) else ""
        return self.bare(thing)

    def _is_of_a_thing_alone(self, low: str) -> bool:
        kind = self.language.kind(low.split()[-1])
        return kind is not None and kind not in self.language.scene_kinds
