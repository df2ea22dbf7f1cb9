"""Where in a prompt a style, a background, a place or a new thing stands, and how it is written there."""

from __future__ import annotations

import re

from .edit_words import EditLanguage
from .prompt_parts import Phrase, Prompt


class Places:
    """Looking and writing, for `edit_applying.Applying`."""

    language: EditLanguage
    prompt: Prompt

    # ---- things ------------------------------------------------------------------------------------------------------

    def _place_of(self, thing: str) -> tuple[int, int] | None:
        """Where a thing stands; of "" the first thing of the prompt."""
        if thing:
            return self.prompt.find(thing)
        subject = self.prompt.subject()
        return None if subject is None else (self.prompt.head(subject), self.prompt.head(subject) + 1)

    def after_numbers(self, phrase: Phrase, *, sizes: bool = True) -> int:
        """The position behind a phrase's articles, numbers and (if asked for) sizes."""
        language = self.language
        before = set(language.articles | language.determiners) | set(language.numbers) | set(language.quantities)
        before |= set(language.number_words.values()) | (set(language.sizes) if sizes else set())
        index = phrase.core
        while index < phrase.stop - 1:
            low = self.prompt.words[index].text.lower()
            pair = " ".join(self.prompt.low(index, index + 2))
            if pair in language.quantities and index + 2 < phrase.stop:
                index += 2
            elif low in before or low.isdigit():
                index += 1
            else:
                break
        return index

    def number(self, amount: int, thing: str) -> str:
        """A number in words; one is the article."""
        if amount == 1:
            return self.language.article(" ".join(self.prompt.plain(thing)) or "x")
        return self.language.number_words.get(amount, str(amount))

    def number_of(self, phrase: Phrase) -> int:
        """How many of a thing the prompt says there are; 1 if it does not."""
        for word in self.prompt.low(phrase.core, phrase.stop):
            if word in self.language.numbers:
                return self.language.numbers[word]
            if word.isdigit():
                return int(word)
        return 1

    def end_of(self, phrase: Phrase) -> int:
        """Where something more about a thing goes: behind it, and behind what it is made of ("a bowl of fruit")."""
        stop = phrase.stop
        while stop < len(self.prompt.words) and not self.prompt.words[stop].separates:
            following = self.prompt.phrase_at(stop)
            if self.prompt.low(following.start, following.start + 1) not in (["of"], [self.language.with_word]):
                break
            stop = following.stop
        return stop

    # ---- the scene ---------------------------------------------------------------------------------------------------

    def add_to_scene(self, what: str) -> None:
        """A thing or a quality more: with the first thing where the prompt is a sentence, else as a part of its own."""
        words = self.prompt.words
        if not words:
            self.prompt.insert(0, what)
            return
        parts = self._content_parts()
        subject = self.prompt.subject()
        if len(parts) <= 1 and subject is not None and self._is_thing(what):
            text = what if self.language.joins(what) else f"{self.language.with_word} {what}"
            self.prompt.insert(self.end_of(subject), self._again(subject, text))
            return
        end = parts[-1][1] if parts else 0
        self.prompt.insert(end, f", {what}")

    def _again(self, phrase: Phrase, text: str) -> str:
        with_word, end = self.language.with_word + " ", self.end_of(phrase)
        last = self.prompt.phrase_at(end - 1)
        if text.startswith(with_word) and self.prompt.low(last.start, last.start + 1) == [self.language.with_word]:
            return f"{self.language.and_word} {text[len(with_word) :]}"
        return text

    def _is_thing(self, what: str) -> bool:
        """Whether words name a thing rather than a quality, as far as their form shows it."""
        low = what.lower().split()
        if (
            not low
            or self.language.kind(low[-1])
            or low[-1] in self.language.looks
            or what.lower() in self.language.styles
        ):
            return False
        plural = self.language.singular(low[-1]) != low[-1]
        return (
            low[0] in self.language.articles or plural or self.language.joins(what) or low[0] in self.language.numbers
        )

    def _content_parts(self) -> list[tuple[int, int]]:
        """The parts that say what there is, before those of style and background."""
        parts = self.prompt.parts()
        content = [part for part in parts if not self._is_look(part)]
        return content or parts[:1]

    def _is_look(self, part: tuple[int, int]) -> bool:
        low = [word for word in self.prompt.low(*part) if re.search(r"\w", word)]
        said = " ".join(self.prompt.plain(self.prompt.said(*part)))
        ends = {self.language.style_word, self.language.background_word, *self.language.looks}
        return bool(low) and (low[-1] in ends or said in self.language.styles or (low[0], low[1:2]) == ("in", ["the"]))

    def find_look(self) -> Phrase | None:
        """The phrase that says from where the picture looks: "side view"."""
        for phrase in self.prompt.phrases():
            if self.prompt.words[self.prompt.head(phrase)].text.lower() in self.language.looks:
                return phrase
        return None

    # ---- style -------------------------------------------------------------------------------------------------------

    def find_style(self) -> Phrase | None:
        """The words of the style: "flat style", "oil painting", or the adjective in "a 3d cat"."""
        language, words = self.language, self.prompt.words
        for phrase in self.prompt.phrases():
            head = self.prompt.head(phrase)
            if words[head].text.lower() == language.style_word and head > phrase.core:
                return Phrase(phrase.start, phrase.core, head + 1)
            of = self.prompt.low(phrase.stop, phrase.stop + 1) == ["of"]
            if words[head].text.lower() == language.style_word and of:
                return Phrase(phrase.start, phrase.core, self.prompt.phrase_at(phrase.stop).stop)
        for start, stop in self.prompt.parts():
            if " ".join(self.prompt.plain(self.prompt.said(start, stop))) in language.styles:
                return Phrase(start, start, stop)
        for phrase in self.prompt.phrases():
            for index in range(phrase.core, self.prompt.head(phrase)):
                if words[index].text.lower() in language.styles:
                    return Phrase(index, index, index + 1)
        return None

    def write_style(self, found: Phrase | None, what: str, *, artist: bool) -> None:
        """Write a style in place of the one found, or as a part of its own before the background's."""
        language = self.language
        bare = re.sub(rf"^(?:an?|the)\s+|\s+{re.escape(language.style_word)}$", "", what.strip(), flags=re.IGNORECASE)
        form = language.styles.get(bare.lower(), "adjective")
        if artist:
            text = language.artist_phrase.format(words=bare)
        else:
            text = bare if form == "noun" else language.style_phrase.format(words=bare)
        if found is None:
            self._new_style(text)
        elif found.stop == found.core + 1 and not self._is_part(found):
            # The adjective of "a 3d cat"; a style of several words cannot stand there.
            if form == "adjective" and not artist and " " not in bare:
                self.prompt.replace(found.core, found.stop, bare)
            else:
                self.prompt.remove(found.core, found.stop)
                self._new_style(text)
        else:
            keeps_joining = found.core > found.start and not artist
            start = found.core if keeps_joining else found.start
            if keeps_joining and self.prompt.low(start, start + 1)[0] in language.articles:
                start += 1
            self.prompt.replace(start, found.stop, text)

    def _new_style(self, text: str) -> None:
        background = self.find_background()
        if not self.prompt.words:
            self.prompt.insert(0, text)
        elif background and background.start > 0 and self.prompt.words[background.start - 1].separates:
            self.prompt.insert(background.start - 1, f", {text}")
        else:
            self.prompt.insert(self._end(), f", {text}")

    def _is_part(self, phrase: Phrase) -> bool:
        return (phrase.start, phrase.stop) in self.prompt.parts()

    def _end(self) -> int:
        """Behind the last word, before a full stop at the end."""
        last = len(self.prompt.words)
        while last and self.prompt.words[last - 1].separates:
            last -= 1
        return last

    # ---- background --------------------------------------------------------------------------------------------------

    def find_background(self) -> Phrase | None:
        """The phrase of the background."""
        words = (self.language.background_word, "backdrop")
        for phrase in self.prompt.phrases():
            if self.prompt.words[self.prompt.head(phrase)].text.lower() in words:
                return phrase
        return None

    def write_background(self, found: Phrase | None, what: str) -> None:
        """Write a background: "on a blue background", or a scene: "mountains in the background"."""
        language = self.language
        bare = re.sub(rf"\s+{re.escape(language.background_word)}$", "", what.strip(), flags=re.IGNORECASE)
        first, _, rest = bare.partition(" ")
        plural = language.singular(bare.split()[-1]) != bare.split()[-1].lower()
        is_scene = plural or (first.lower() in language.articles and bool(rest) and not language.kind(rest))
        if is_scene:
            text = language.background_scene.format(words=bare)
            if found is not None:
                self.prompt.remove(found.start, found.stop)
            self.prompt.insert(self._end(), f", {text}" if self.prompt.words else text)
            return
        bare = rest if first.lower() in language.articles and rest else bare
        if found is not None and found.stop - found.core > 1:
            head = self.prompt.head(found)
            start = found.core
            if self.prompt.low(start, start + 1)[0] in language.articles:
                start += 1
            if start == head:
                self.prompt.insert(head, bare)
            else:
                self.prompt.replace(start, head, bare)
            return
        if found is not None:
            self.prompt.remove(found.start, found.stop)
        text = language.background_phrase.format(article=language.article(bare), words=bare)
        comma = len(self.prompt.parts()) > 1
        self.prompt.insert(self._end(), f", {text}" if comma else text)

    # ---- places ------------------------------------------------------------------------------------------------------

    def place_after(self, phrase: Phrase, to: str) -> Phrase | None:
        """The phrase that says where a thing is: the next one, or of a thing that stands alone any."""
        following = [other for other in self.prompt.phrases() if other.start >= phrase.stop]
        for other in following:
            said = self.prompt.said(other.start, other.stop)
            if self._is_place(said):
                return other
            if to not in self.language.place_words and other.core > other.start and self._like(said, to):
                return other
            if other.core == other.start and not self._is_look((other.start, other.stop)):
                break
        return None

    def _is_place(self, words: str) -> bool:
        return any(re.fullmatch(pattern, words, re.IGNORECASE) for pattern in self.language.places)

    def _like(self, old: str, new: str) -> bool:
        """Whether both say where something stands: on, in, at, under …"""
        where = {
            "on",
            "in",
            "at",
            "under",
            "over",
            "above",
            "below",
            "near",
            "behind",
            "beside",
            "next",
            "inside",
            "by",
        }
        is_background = old.lower().endswith(self.language.background_word)
        return not is_background and old.lower().split()[0] in where and new.lower().split()[0] in where

    def write_place(self, phrase: Phrase, old: Phrase | None, to: str) -> None:
        """Say where a thing is, in place of what said so before."""
        text = self.language.place_words.get(to, to)
        if old is not None and text:
            self.prompt.replace(old.start, old.stop, text)
        elif old is not None:
            self.prompt.remove(old.start, old.stop)
        elif text:
            self.prompt.insert(self.end_of(phrase), text)
