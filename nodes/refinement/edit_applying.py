"""Edits → the prompt and the negative prompt with them carried out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .edit_places import Places
from .edit_records import Edit, Refused
from .edit_words import EditLanguage
from .prompt_parts import Phrase, Prompt

# One step of more or less, in the host's emphasis; "a bit" is half of it, "much" is two. Beyond these bounds models
# draw artefacts rather than more of a thing.
STEP = 0.2
WEAKEST, STRONGEST = 0.4, 1.6


class Cannot(Exception):
    """An edit that is not carried out; its text is the reason, for people."""


class Applying(Places):
    """Prompt and negative prompt while edits are carried out.

    Attributes:
        kept: things that no edit may take away or change, in the words of the prompt.
    """

    def __init__(self, prompt: str, negative: str, language: EditLanguage, kept: Sequence[str]) -> None:
        self.language = language
        self.prompt = Prompt.parse(prompt, language)
        self.negative = Prompt.parse(negative, language)
        self.kept = list(kept)

    def apply(self, edit: Edit) -> Refused | None:
        """Carry one edit out, or leave everything as it was and say why."""
        before = self.prompt.copy(), self.negative.copy(), list(self.kept)
        try:
            getattr(self, f"_{edit.operation}")(edit)
            if not self.prompt.words and before[0].words:
                raise Cannot("nothing would be left of the prompt")
        except Cannot as reason:
            self.prompt, self.negative, self.kept = before
            return Refused(edit, str(reason))
        self.prompt.mend_articles()
        return None

    # ---- kept things -------------------------------------------------------------------------------------------------

    def _keep(self, edit: Edit) -> None:
        if edit.amount:
            if edit.what in ("", self.language.picture_word):
                return
            phrase = self._named_phrase(edit.what)
            words = self.prompt.said(phrase.core, phrase.stop) if phrase else edit.what
            self.kept.append(self._without_article(words))
            return
        if edit.what == self.language.picture_word:
            self.kept = []
            return
        if edit.what == self.language.rest_word:
            return
        wanted = self.prompt.plain(edit.what)
        left = [kept for kept in self.kept if not self._mentions(kept, wanted)]
        if len(left) == len(self.kept):
            raise Cannot(f"{edit.what} was not kept")
        self.kept = left

    def _mentions(self, kept: str, wanted: Sequence[str]) -> bool:
        have = [self.language.compared(word) for word in self.prompt.plain(kept)]
        return all(self.language.compared(word) in have for word in wanted)

    def _named_phrase(self, what: str) -> Phrase | None:
        """The phrase of a kept thing; of colours, style and background where they are asked for by these names."""
        if self.prompt.plain(what) == [self.language.style_word]:
            style = self.find_style()
            return Phrase(style.start, style.start, style.stop) if style else None
        place = self.prompt.find(what)
        return self._around(place) if place else None

    def _around(self, place: tuple[int, int]) -> Phrase:
        """What belongs to a thing: its adjectives; of an adjective only itself."""
        if not self.prompt.is_head(place):
            return Phrase(place[0], place[0], place[1])
        phrase = self.prompt.phrase_at(place[0])
        return Phrase(phrase.core, phrase.core, place[1])

    def _free(self, start: int, stop: int) -> None:
        """
        Raises:
            Cannot: one of these words is kept.
        """
        for kept in self.kept:
            for first, last in self._kept_places(kept):
                if first < stop and start < last:
                    raise Cannot(f'"{kept}" is kept; write "{kept} may change" first')

    def _kept_places(self, kept: str) -> list[tuple[int, int]]:
        plain = self.prompt.plain(kept)
        if plain and self.language.compared(plain[-1]) == self.language.colour_word:
            colours = [i for i, word in enumerate(self.prompt.words) if word.text.lower() in self.language.colours]
            named = self.prompt.find(kept)
            return [(index, index + 1) for index in colours] + ([named] if named else [])
        if plain == [self.language.style_word]:
            style = self.find_style()
            return [(style.start, style.stop)] if style else []
        place = self.prompt.find(kept)
        return [place] if place else []

    # ---- adding ------------------------------------------------------------------------------------------------------

    def _add(self, edit: Edit) -> None:
        what = edit.what.strip()
        self._no_longer_negative(what)
        if edit.at:
            self._describe(edit.at, what)
        elif not self._took_place(what):
            self.add_to_scene(what)

    def _describe(self, thing: str, what: str) -> None:
        """Say something of a thing of the prompt."""
        place = self._place_of(thing)
        if place is None:
            self.add_to_scene(what if self.language.joins(what) else f"{what} {thing}")
            return
        phrase = self.prompt.phrase_at(place[1] - 1)
        if self.language.joins(what):
            if not self.prompt.find(what):
                self.prompt.insert(self.end_of(phrase), self._joined(phrase, what))
            return
        low = what.lower().split()
        kind = self.language.kind(low[-1])
        inside = range(phrase.core, place[0])
        if what.lower() in self.prompt.low(phrase.core, place[1]):
            return
        taken = [index for index in inside if kind and self.prompt.words[index].text.lower() in kind]
        if taken:
            self._free(taken[0], taken[0] + 1)
            self.prompt.replace(taken[0], taken[0] + 1, what)
        else:
            self.prompt.insert(self.after_numbers(phrase), what)

    def _joined(self, phrase: Phrase, what: str) -> str:
        """ "with a hat" behind "with a bow" is "and a hat"."""
        with_word, end = self.language.with_word, self.end_of(phrase)
        again = what.lower().startswith(with_word + " ") and self._said_with(end)
        return f"{self.language.and_word} {what[len(with_word) + 1 :]}" if again else what

    def _said_with(self, end: int) -> bool:
        last = self.prompt.phrase_at(end - 1)
        return self.prompt.low(last.start, last.start + 1) == [self.language.with_word]

    def _took_place(self, what: str) -> bool:
        """Whether the prompt holds it already, or another of its kind, whose place it took: winter for summer."""
        if set(what.lower().split()) & self.language.looks:
            old = self.find_look()
            if old:
                self._free(old.core, old.stop)
                self.prompt.replace(old.core, old.stop, self._without_article(what))
                return True
        bare = " ".join(self.prompt.plain(what))
        kind = self.language.kind(bare) or self.language.kind(bare.split()[-1] if bare else "")
        if kind not in self.language.scene_kinds or len(bare.split()) > 3:
            return bool(bare) and self._says(what)
        for other in kind:
            place = self.prompt.find(other)
            if place and self.prompt.low(*place) == [word.lower() for word in re.split(r"[\s]+", other)]:
                self._free(*place)
                self.prompt.replace(*place, bare)
                return True
        return False

    def _says(self, what: str) -> bool:
        plain = self.prompt.plain(what)
        texts = [word.text.lower() for word in self.prompt.words]
        return any(texts[start : start + len(plain)] == plain for start in range(len(texts)))

    def _no_longer_negative(self, what: str) -> None:
        for start, stop in self.negative.parts():
            if self.negative.plain(self.negative.said(start, stop)) == self.negative.plain(what):
                self.negative.remove(start, stop)
                return

    # ---- taking away -------------------------------------------------------------------------------------------------

    def _remove(self, edit: Edit) -> None:
        if not edit.what:
            raise Cannot("it is not clear what is meant")
        if edit.to == "negative":
            self._to_negative(edit.what, 0)
            return
        if edit.at:
            self._remove_of(edit)
            return
        if self.prompt.plain(edit.what) == [self.language.background_word]:
            found = self.find_background()
            place = (found.core, found.stop) if found else None
        else:
            place = self.prompt.find(edit.what) or self._without_adjectives(edit.what)
        if place is None:
            self._to_negative(edit.what, 0)
            return
        for _ in range(len(self.prompt.words)):
            self.take_out(place)
            place = self.prompt.find(edit.what)
            if place is None or not self._exactly(place, edit.what):
                return

    def _remove_of(self, edit: Edit) -> None:
        """Remove what a thing should not be; what others are stays."""
        place = self._quality(edit)
        if place is None:
            self._to_negative(f"{edit.what} {' '.join(self.prompt.plain(edit.at))}".strip(), 0)
            return
        self.take_out(place)

    def take_out(self, place: tuple[int, int]) -> None:
        """Remove a thing with all that hangs on it, or an adjective alone."""
        phrase = self.prompt.phrase_at(place[0])
        if place[1] > phrase.stop:
            self._free(*place)
            self.prompt.remove(*place)
            return
        if not self.prompt.is_head(place):
            if self._is_style_adjective(place):
                place = (place[0], phrase.stop)
            self._free(*place)
            if place[0] <= phrase.core + 1 and place[1] >= self.prompt.head(phrase) + 1:
                place = (phrase.start, phrase.stop)
            self.prompt.remove(*place)
            return
        self._free(phrase.core, phrase.stop)
        start, stop = phrase.start, phrase.stop
        if self._begins_part(start) and stop < len(self.prompt.words) and not self.prompt.words[stop].separates:
            following = self.prompt.phrase_at(stop)
            # "a path in a forest" without the path is "a forest".
            if not self.prompt.words[following.start].text.lower().endswith("ing"):
                stop = following.core
        joined = self.prompt.low(stop, stop + 1)
        if joined and joined[0] in self.language.joiners:
            # "a cat and a dog" without the cat is "a dog", "with a hat and a bow" without the hat "with a bow".
            following = self.prompt.phrase_at(stop)
            start, stop = phrase.core, following.core
        self.prompt.remove(start, stop)

    def _is_style_adjective(self, place: tuple[int, int]) -> bool:
        following = self.prompt.low(place[1], place[1] + 1)
        return following == [self.language.style_word]

    def _begins_part(self, index: int) -> bool:
        return index == 0 or self.prompt.words[index - 1].separates

    def _without_adjectives(self, what: str) -> tuple[int, int] | None:
        """The thing of "the big red hat" where the prompt has a hat of no colour."""
        plain = self.prompt.plain(what)
        place = self.prompt.find(plain[-1]) if len(plain) > 1 else None
        if place is None or not self.prompt.is_head(place):
            return None
        phrase = self.prompt.phrase_at(place[0])
        return place if set(plain[:-1]) >= set(self.prompt.plain(self.prompt.said(phrase.core, place[0]))) else None

    def _exactly(self, place: tuple[int, int], what: str) -> bool:
        same = [self.language.singular(word) for word in self.prompt.low(*place)]
        return same == [self.language.singular(word) for word in self.prompt.plain(what)]

    def _to_negative(self, what: str, steps: float) -> None:
        """Have the negative prompt hold something, or hold it more strongly."""
        place = self.negative.find(what)
        if place is None:
            self.negative.insert(len(self.negative.words), f", {what}" if self.negative.words else what)
        elif steps:
            self._shift(self.negative, place, steps)

    # ---- one for another ---------------------------------------------------------------------------------------------

    def _replace(self, edit: Edit) -> None:
        old, new = edit.what, edit.to.strip()
        self._no_longer_negative(new)
        place = self.prompt.find(old)
        if place is None:
            if not self._took_place(new):
                self.add_to_scene(new)
            self._to_negative(old, 0)
            return
        style = self.find_style()
        bare = " ".join(self.prompt.plain(new))
        if style and bare in self.language.styles and style.core <= place[0] and place[1] <= style.stop:
            self._free(style.core, style.stop)
            self.write_style(style, bare, artist=False)
            return
        phrase = self.prompt.phrase_at(place[1] - 1)
        words = self.prompt.plain(new)
        start, stop = place
        if self.language.joins(new) and not new.lower().split()[0].endswith("ing"):
            start = phrase.start
        elif not self.prompt.is_head(place) and words and self._same_head(phrase, words[-1]):
            stop = self.prompt.head(phrase) + 1
        elif self.prompt.is_head(place) and words and self._same_head(phrase, words[-1]) and len(words) > 1:
            start = self.after_numbers(phrase)
        self._free(start, stop)
        if place[0] > phrase.core and start > phrase.core:
            new = self._without_article(new)
        self.prompt.replace(start, stop, new)
        self._drop_double_article(start)
        if words and self.language.singular(words[-1]) != words[-1]:
            self._drop_article_of_many(place[0])

    def _same_head(self, phrase: Phrase, word: str) -> bool:
        head = self.prompt.words[self.prompt.head(phrase)].text
        return self.language.singular(head) == self.language.singular(word)

    def _without_article(self, words: str) -> str:
        first, _, rest = words.partition(" ")
        return rest if rest and first.lower() in self.language.articles else words

    def _drop_article_of_many(self, index: int) -> None:
        """ "a dog" that became "a grapes" is "grapes"."""
        core = self.prompt.phrase_at(min(index, len(self.prompt.words) - 1)).core
        if self.prompt.low(core, core + 1) in (["a"], ["an"]):
            self.prompt.remove(core, core + 1)

    def _drop_double_article(self, start: int) -> None:
        pair = self.prompt.low(max(0, start - 1), start + 1)
        if len(pair) == 2 and all(word in self.language.articles for word in pair):
            self.prompt.remove(start - 1, start)

    # ---- more and less -----------------------------------------------------------------------------------------------

    def _more(self, edit: Edit) -> None:
        place = self._quality(edit)
        if place:
            self._shift(self.prompt, place, edit.amount)
            return
        self._no_longer_negative(edit.what)
        if edit.at:
            self._describe(edit.at, edit.what)
        elif not self._took_place(edit.what):
            self.add_to_scene(edit.what)

    def _less(self, edit: Edit) -> None:
        place = self._quality(edit)
        if place:
            self._shift(self.prompt, place, -edit.amount)
        else:
            self._to_negative(edit.what, edit.amount)

    def _quality(self, edit: Edit) -> tuple[int, int] | None:
        """Where the prompt says what is to be more or less: of the thing, if there is one."""
        place = self._place_of(edit.at) if edit.at else None
        if place is None:
            return self.prompt.find(edit.what)
        phrase = self.prompt.phrase_at(place[1] - 1)
        inside = Prompt(self.prompt.words[phrase.core : phrase.stop], self.language).find(edit.what)
        return (inside[0] + phrase.core, inside[1] + phrase.core) if inside else None

    def _shift(self, prompt: Prompt, place: tuple[int, int], steps: float) -> None:
        if prompt is self.prompt and steps < 0:
            self._free(*place)
        weight = prompt.weight(*place)
        new = min(max(weight + STEP * steps, min(WEAKEST, weight)), max(STRONGEST, weight))
        if new == weight:
            words = prompt.said(*place)
            raise Cannot(f'"{words}" has the {"strongest" if steps > 0 else "weakest"} emphasis already ({weight:g})')
        prompt.set_weight(*place, new)

    # ---- the rest ----------------------------------------------------------------------------------------------------

    def _style(self, edit: Edit) -> None:
        found = self.find_style()
        if found:
            self._free(found.start, found.stop)
        self.write_style(found, edit.what, artist=edit.to == "artist")

    def _background(self, edit: Edit) -> None:
        found = self.find_background()
        if found:
            self._free(found.core, found.stop)
        self.write_background(found, edit.what)

    def _count(self, edit: Edit) -> None:
        place = self._place_of(edit.what)
        if place is None:
            number = edit.to if edit.to not in ("", "+") else self.number(int(edit.amount), edit.what)
            self.add_to_scene(f"{number} {self._counted(edit.what, edit.amount)}")
            return
        phrase = self.prompt.phrase_at(place[1] - 1)
        amount = edit.amount + self.number_of(phrase) if edit.to == "+" else edit.amount
        word = (
            edit.to if edit.to not in ("", "+") else self.number(int(amount), self.prompt.said(phrase.core, place[1]))
        )
        head = place[1] - 1
        self.prompt.replace(head, head + 1, self._counted(self.prompt.words[head].text, amount))
        first = self.after_numbers(phrase, sizes=False)
        if first > phrase.core:
            self._free(phrase.core, first)
            self.prompt.replace(phrase.core, first, word)
        else:
            self.prompt.insert(phrase.core, word)

    def _counted(self, word: str, amount: float) -> str:
        if amount != 1:
            head, last = word.rpartition(" ")[::2]
            return f"{head} {self.language.plural(last)}".strip()
        return word if self.language.singular(word) == word.lower() else self.language.singular(word)

    def _size(self, edit: Edit) -> None:
        place = self._place_of(edit.what)
        if place is None:
            raise Cannot(f'the prompt has no "{edit.what}"' if edit.what else "the prompt names no thing")
        phrase = self.prompt.phrase_at(place[1] - 1)
        sizes, direction = self.language.sizes, 1 if edit.amount > 0 else -1
        index = next((i for i in range(phrase.core, place[1]) if self.prompt.words[i].text.lower() in sizes), None)
        if index is None:
            self.prompt.insert(self.after_numbers(phrase, sizes=False), self.language.size_words[direction])
        elif sizes[self.prompt.words[index].text.lower()] == direction:
            self._shift(self.prompt, (index, index + 1), abs(edit.amount))
        else:
            self._free(index, index + 1)
            far = abs(edit.amount) > 1 or (edit.to in self.language.sizes and not self.language.adjective(edit.to))
            if far and edit.to not in ("", self.language.size_words[direction]):
                self.prompt.replace(index, index + 1, self.language.size_words[direction])
            else:
                self.prompt.remove(index, index + 1)

    def _position(self, edit: Edit) -> None:
        place = self._place_of(edit.what)
        if place is None:
            raise Cannot(f'the prompt has no "{edit.what}"' if edit.what else "the prompt names no thing")
        phrase = self.prompt.phrase_at(place[1] - 1)
        old = self.place_after(phrase, edit.to)
        if old:
            self._free(old.start, old.stop)
        self.write_place(phrase, old, edit.to)
