"""The words by which feedback is read and prompts are edited, as a table per language.

How to add words or a language: copy a table with `dataclasses.replace`, and register it. What feedback says is tried
in the order of registration, so a language adds to what is understood and takes nothing away. For instance, German
feedback on English prompts:

    from dataclasses import replace
    GERMAN = replace(
        ENGLISH,
        name="German",
        polite_before=("bitte",),
        polite_after=("bitte",),
        rules=(
            Rule("remove", r"(?:ohne|keine?n?) {what}"),
            Rule("add", r"mit (?:eine[mr]? )?{what}"),
            Rule("background", r"(?:der )?hintergrund (?:soll )?{what}(?: sein)?"),
            Rule("be", r"(?:der|die|das) {thing} soll {what} sein"),
        ),
        translations={"hut": "hat", "katze": "cat", "blau": "blue"},
    )
    register(GERMAN)

After that "ohne Hut bitte" removes the hat, and "die Katze soll blau sein" makes the cat blue. More words for English
are the same: `register(replace(ENGLISH, name="English, of shoes", rules=(Rule("add", r"lace up {what}"),)))`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from .checks import RefinementError

# What a rule finds: the operations of an edit, and readings that become one of them.
#   be       `thing` is to be as `what` says: a colour, size, place, number, style, an object, or any adjective
#   change   as `be`, and words that could be either are a thing, not an adjective
#   wish     `what` is wanted: it takes the place of a like thing, or is added
#   too      `thing` is too `what`
#   do       `thing` is to do `what`
#   give     `what` (both in one slot) names a thing, then what it gets
#   put      `what` names a thing, then where it goes
#   enough   `thing` is not `what` enough
#   unlike   `thing` is not to be `what` (both in `what` where the rule has no `thing`)
#   part     the part `to` of `thing` is to be `what`
#   release  `what` is no longer kept
#   negative `what` goes to the negative prompt in any case
#   praise   nothing is to change; `what` is what "it" means from here on
READINGS = (
    "add", "remove", "replace", "more", "less", "keep", "style", "background", "count", "size", "position",
    "be", "change", "wish", "too", "do", "give", "put", "enough", "unlike", "part", "release",
    "negative", "praise",
)  # fmt: skip
_SLOT = re.compile(r"\{([a-z]+)\}")


def words(text: str) -> frozenset[str]:
    """A set from words with spaces between; an underscore stands for a space inside of one."""
    return frozenset(word.replace("_", " ") for word in text.split())


# Words in -er and -est that compare nothing.
NO_DEGREES = words(
    "water flower tiger paper poster corner summer winter river tower border spider over under other another after "
    "number letter sweater silver leather feather ladder water wonder mother father brother sister forest power "
    "weather center danger dancer painter singer scooter computer lavender copper timber ginger amber ever never "
    "her per user layer filter lower character helicopter tender forever dinner butter rubber pepper cover "
    "clever proper outer inner upper bitter eager sober slender monster master lobster hamster rest best west test "
    "nest chest guest interest quest honest modest"
)
SILENT_E = words("larg nic wid strang simpl gentl whit pal clos fin loos saf ripe rip cut pur rar huge blu")


@dataclass(frozen=True)
class Rule:
    """One way to say something.

    Attributes:
        reading: one of `READINGS`.
        pattern: a regular expression that must fit a whole clause, upper or lower case. {what}, {to} and {thing} stand
            for any words; {number}, {place}, {style}, {colour}, {size}, {pronoun}, {amount} for those of the tables
            ({amount} may be missing). A group named `verb` is what a following clause without verb repeats: "make the
            hat red and the coat blue".
        what, to: fixed words in place of a slot.
    """

    reading: str
    pattern: str
    what: str = ""
    to: str = ""

    def __post_init__(self) -> None:
        if self.reading not in READINGS:
            raise RefinementError(f"A rule cannot mean {self.reading!r}; choose one of: {', '.join(READINGS)}.")
        try:
            re.compile(_SLOT.sub("x", self.pattern))
        except re.error as error:
            raise RefinementError(f"The rule {self.pattern!r} is no regular expression ({error}).") from None


# Compared by identity: the patterns made of a table are kept with it.
@dataclass(frozen=True, eq=False)
class EditLanguage:
    """The table of one language. Words are in lower case.

    Attributes:
        name: unique.
        rules: how edits are said, tried in this order.
        polite_before, polite_after: regular expressions of what is dropped from a clause's ends.
        wishes_before, wishes_after: the same, which besides say that what is left is wanted.
        unreadable: regular expressions of whole clauses that are left unread, whatever a rule would make of them.
        sentence: regular expression of what the words of an edit never hold, such as a verb of sentences; an edit that
            does was misread; a copy of a table for another language needs its own.
        spoken: regular expression of what may hold them all the same, such as the words of a sign.
        names_next: words behind which a sign (an emoji) stands for a thing, not for a mood.
        clause_breaks: regular expression of what stands between clauses, besides commas and the ends of sentences.
        translations: words of feedback → words of prompts.
        articles, determiners: before a noun; determiners may be left out when a thing is looked for.
        pronouns, whole: words for what was last spoken of, and for the whole picture; persons: those of the pronouns
            that never mean the picture.
        connectors: begin a further phrase: "on", "in front of".
        joiners: of a list: "and".
        ing_nouns: nouns in -ing, which do not begin a phrase.
        colours, kinds: adjectives of which a thing has one, by kind; a new one takes the old one's place.
        scene_kinds: words of which a picture has one: times, seasons, …
        contractions: regular expression → what stands for it before anything is read.
        sizes: word → −1 or 1; size_words: the words written for −1 and 1.
        places: regular expression → key; place_words: key → what is written; "" = said by leaving the place out.
        numbers: word → number; number_words: number → what is written.
        quantities: words that take the place of a number: "many".
        styles: word → "adjective" (written with the word for style) or "noun" (written as it is).
        aspects: what every picture has and few prompts name, such as its mood; singular. It may be let go by its name.
        spellings: word → the spelling by which kept things are compared, both singular: "color" → "colour".
        looks: further nouns that show which look a part of a prompt describes, such as "view"; written with any word.
        amounts: regular expression → steps of more or less.
        degrees: irregular comparatives → adjective.
        strong: adjectives of "X is too …" that speak of X's strength.
        irregular: plural → singular.
        pictures: nouns that name the picture, before what it shows: "portrait of".
        vague: adjectives that no picture can be made of: "better".
        states: verbs that tell how something is, not how it is to be: "it is ugly" asks for nothing in particular.
        worn_on: "put a hat on the cat" is "a cat with a hat".
        wish_verb: by which a thing named alone is wanted, once something else was taken away: "no cat, a dog".
        wearing: verbs of "it should wear a hat" → what is written: "wearing".
        family: endings that make another word of the same family: "dusty" of "dust".
        style_word, background_word, colour_word, with_word, and_word: of prompts.
        picture_word: what is kept where all is: no words of the prompt are protected by it.
        rest_word: all but what is kept by its name.
        background_phrase, background_scene, style_phrase, artist_phrase: how these are written.
    """

    name: str
    rules: tuple[Rule, ...]
    polite_before: tuple[str, ...] = ()
    polite_after: tuple[str, ...] = ()
    wishes_before: tuple[str, ...] = ()
    wishes_after: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    sentence: str = r"(?!)"
    spoken: str = r"(?!)"
    names_next: frozenset[str] = frozenset()
    clause_breaks: str = r"\band\b|&"
    translations: Mapping[str, str] = field(default_factory=dict)
    articles: frozenset[str] = frozenset()
    determiners: frozenset[str] = frozenset()
    pronouns: frozenset[str] = frozenset()
    whole: frozenset[str] = frozenset()
    persons: frozenset[str] = frozenset()
    connectors: tuple[str, ...] = ()
    joiners: frozenset[str] = frozenset()
    ing_nouns: frozenset[str] = frozenset()
    colours: frozenset[str] = frozenset()
    kinds: tuple[frozenset[str], ...] = ()
    scene_kinds: tuple[frozenset[str], ...] = ()
    contractions: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    size_words: Mapping[int, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    place_words: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, int] = field(default_factory=dict)
    number_words: Mapping[int, str] = field(default_factory=dict)
    quantities: frozenset[str] = frozenset()
    styles: Mapping[str, Literal["adjective", "noun"]] = field(default_factory=dict)
    aspects: frozenset[str] = frozenset()
    spellings: Mapping[str, str] = field(default_factory=dict)
    looks: frozenset[str] = frozenset()
    amounts: Mapping[str, float] = field(default_factory=dict)
    degrees: Mapping[str, str] = field(default_factory=dict)
    strong: frozenset[str] = frozenset()
    irregular: Mapping[str, str] = field(default_factory=dict)
    pictures: frozenset[str] = frozenset()
    family: frozenset[str] = frozenset()
    vague: frozenset[str] = frozenset()
    states: frozenset[str] = frozenset()
    wearing: Mapping[str, str] = field(default_factory=dict)
    worn_on: frozenset[str] = frozenset()
    wish_verb: str = "use"
    style_word: str = "style"
    colour_word: str = "colour"
    picture_word: str = "picture"
    rest_word: str = "everything else"
    background_word: str = "background"
    with_word: str = "with"
    and_word: str = "and"
    background_phrase: str = "on {article} {words} background"
    background_scene: str = "{words} in the background"
    style_phrase: str = "{words} style"
    artist_phrase: str = "in the style of {words}"

    # ---- words -------------------------------------------------------------------------------------------------------

    def singular(self, word: str) -> str:
        """The form by which words are compared: "Cats" → "cat"."""
        word = word.lower().replace("’", "'").removesuffix("'s")
        if word in self.irregular:
            return self.irregular[word]
        if len(word) > 4 and word.endswith("ies"):
            return word[:-3] + "y"
        if len(word) > 4 and re.search(r"(?:ss|x|[cs]h|(?<![aou])us|(?<!o)is|lens|gas|atlas|canvas)es$", word):
            return word[:-2]
        if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
            return word[:-1]
        return word

    def compared(self, word: str) -> str:
        """The form by which kept and released things are compared: "Colors" → "colour"."""
        word = self.singular(word)
        return self.spellings.get(word, word)

    def plural(self, word: str) -> str:
        """ "cat" → "cats"; a plural stays one."""
        low = word.lower()
        for many, one in self.irregular.items():
            if low in (one, many):
                return many
        if low != self.singular(low):
            return word
        if re.search(r"(?:[sxz]|[cs]h)$", low):
            return word + "es"
        if re.search(r"[^aeiou]y$", low):
            return word[:-1] + "ies"
        return word + "s"

    def article(self, word: str) -> str:
        """ "a" or "an", by sound."""
        low = word.lower()
        silent = low.startswith(("hour", "honest", "heir"))
        spoken = low.startswith(("uni", "eu", "use", "usu", "one", "once", "ukulele", "ufo"))
        return "an" if silent or (low[:1] in "aeiou" and not spoken) else "a"

    def adjective(self, word: str) -> str:
        """A comparative's plain form: "darker" → "dark", "friendlier" → "friendly"; "" if it is none."""
        low = word.lower()
        if low in self.degrees:
            return self.degrees[low]
        plain = re.fullmatch(r"(\w{2,}?)(?:er|est)", low)
        if plain is None or low in NO_DEGREES:
            return ""
        stem = plain[1]
        if stem.endswith("i"):
            return stem[:-1] + "y"
        if len(stem) > 3 and stem[-1] == stem[-2] and stem[-1] not in "lsf":
            return stem[:-1]
        return stem + "e" if stem in SILENT_E else stem

    def translated(self, words: str) -> str:
        """Words of feedback as words of prompts."""
        if not self.translations:
            return words
        return re.sub(r"\w+", lambda found: self.translations.get(found[0].lower(), found[0]), words)

    # ---- patterns ----------------------------------------------------------------------------------------------------

    @cached_property
    def patterns(self) -> tuple[tuple[Rule, re.Pattern[str]], ...]:
        """The rules with their patterns, slots filled.

        Raises:
            RefinementError: a pattern has a slot that does not exist.
        """
        return tuple((rule, self.compiled(rule.pattern)) for rule in self.rules)

    @cached_property
    def unreadable_clause(self) -> re.Pattern[str]:
        """Fits a whole clause that is left unread."""
        return re.compile("|".join(f"(?:{pattern})" for pattern in self.unreadable) or r"(?!)", re.IGNORECASE)

    def holds_sentence(self, words: str) -> bool:
        """Whether the words of an edit are those of a sentence, so that the edit was misread."""
        return bool(re.search(self.sentence, re.sub(self.spoken, "", words, flags=re.IGNORECASE), re.IGNORECASE))

    @cached_property
    def connector_words(self) -> tuple[tuple[str, ...], ...]:
        """The connectors, each as its words."""
        return tuple(tuple(connector.split()) for connector in self.connectors)

    def connects(self, words: Sequence[str]) -> bool:
        """Whether words, in small letters, begin with a connector."""
        return any(tuple(words[: len(connector)]) == connector for connector in self.connector_words)

    def joins(self, words: str) -> bool:
        """Whether words hang on a thing by themselves: "with a hat", "made of glass", "facing right"."""
        low = words.lower().split()
        if self.connects(low):
            return True
        return bool(low) and low[0].endswith("ing") and len(low[0]) > 4 and low[0] not in self.ing_nouns

    @cached_property
    def slots(self) -> dict[str, str]:
        """What stands for each slot of a pattern."""
        return {
            "what": r"(?P<what>.+?)",
            "to": r"(?P<to>.+?)",
            "thing": r"(?P<thing>.+?)",
            "number": rf"(?P<number>{alternatives(self.numbers)}|\d{{1,3}}|{alternatives(self.quantities)})",
            "place": rf"(?P<place>{'|'.join(self.places) or '(?!)'})",
            "style": rf"(?P<style>{alternatives(self.styles)})",
            "colour": rf"(?P<colour>{alternatives(self.colours)})",
            "size": rf"(?P<size>{alternatives(self.sizes)})",
            "pronoun": rf"(?:{alternatives(self.pronouns | self.whole)})",
            "amount": rf"(?:(?P<amount>{'|'.join(self.amounts) or '(?!)'})\s+)?",
        }

    def compiled(self, pattern: str) -> re.Pattern[str]:
        """A pattern with its slots filled.

        Raises:
            RefinementError: it has a slot that does not exist, or one twice.
        """
        try:
            return re.compile(_SLOT.sub(lambda slot: self.slots[slot[1]], pattern), re.IGNORECASE)
        except KeyError as error:
            raise RefinementError(
                f"The pattern {pattern!r} has a slot {error.args[0]!r}; there are: {', '.join(self.slots)}."
            ) from None
        except re.error as error:
            raise RefinementError(f"The pattern {pattern!r} cannot be used ({error}).") from None

    def kind(self, word: str) -> frozenset[str] | None:
        """The adjectives or nouns whose place a word takes."""
        low = word.lower()
        return next((kind for kind in (self.colours, *self.kinds, *self.scene_kinds) if low in kind), None)


def alternatives(words: Iterable[str]) -> str:
    """A regular expression of any of these words, longest first; one that fits nothing where there is none."""
    return "|".join(re.escape(word) for word in sorted(words, key=lambda word: (-len(word), word))) or r"(?!)"


_TABLES: dict[str, EditLanguage] = {}
_LOADED: set[str] = set()


def _tables() -> dict[str, EditLanguage]:
    """Name → table, English first: read when feedback first is, as its many patterns would slow the host's start."""
    if not _LOADED:
        from .edit_english import ENGLISH

        _TABLES.setdefault(ENGLISH.name, ENGLISH)
        _LOADED.add(ENGLISH.name)
    return _TABLES


def register(language: EditLanguage) -> None:
    """Have feedback be read by a further table; see the module for an example.

    Raises:
        RefinementError: there is another table of that name, or one of its rules cannot be used.
    """
    if _tables().get(language.name, language) is not language:
        raise RefinementError(f"There is a language {language.name!r} already. Give yours another name.")
    _ = language.patterns  # a wrong rule shows here, not at the first feedback
    _tables()[language.name] = language


def unregister(name: str) -> None:
    """The opposite of `register`."""
    _tables().pop(name, None)


def languages() -> tuple[EditLanguage, ...]:
    """Those registered, in order."""
    return tuple(_tables().values())
