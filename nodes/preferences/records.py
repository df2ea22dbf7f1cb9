"""What is kept of a person's taste: profiles, questions about pictures, and the answers. Ours."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from ...training.interfaces import AttuneError
from ..visible_line import has_half_letter, visible_line

# pair: which of two is better. best: which of several. stars: one to five stars for each.
Kind = Literal["pair", "best", "stars"]
Verdict = Literal["chosen", "tie", "skip", "stars"]
KINDS: tuple[str, ...] = get_args(Kind)
MOST_STARS = 5
MOST_PICTURES = 64
LONGEST_NAME, LONGEST_PROMPT = 60, 20_000
# Behind an encoder's name: under it the store keeps a taste that came from a file, which no choice replaces.
IMPORTED = "#imported"
KEY = re.compile(r"[0-9a-f]{32}")
HASH = re.compile(r"[0-9a-f]{64}")
_SEED = re.compile(r"\d{0,20}")


class PreferenceError(AttuneError):
    """What was asked for cannot be done; says why and what to do. Nothing was changed."""


class UnknownError(PreferenceError):
    """There is no such profile, question or picture (any more)."""


@dataclass(frozen=True)
class Profile:
    """A person's taste, as wires carry it. Two profiles that are equal hold the same choices.

    Attributes:
        key: 32 random hex digits that say nothing about the person; never changes.
        name: what the person calls it; may change.
        revision: rises with every decision that is made, changed or taken back, and with an import; never otherwise.
    """

    key: str
    name: str
    revision: int


@dataclass(frozen=True)
class Summary:
    """A profile and how much is in it.

    Attributes:
        created: seconds since 1970.
        chosen, ties, skipped, rated: questions whose standing decision is of that kind.
        waiting: questions that nobody has answered, or not wholly.
        embeddings: tastes in an encoder's numbers that are kept.
        imported: those among them that came from a file.
    """

    profile: Profile
    created: int
    chosen: int
    ties: int
    skipped: int
    rated: int
    waiting: int
    embeddings: int
    imported: int


@dataclass(frozen=True)
class Picture:
    """A picture that is judged.

    Attributes:
        hash: 64 hex digits, see `picture_folder.picture_hash`.
        width, height: pixels.
        seed: it was made with, in decimal digits; "" = not known.
    """

    hash: str
    width: int
    height: int
    seed: str = ""

    def __post_init__(self) -> None:
        if not HASH.fullmatch(self.hash):
            raise PreferenceError(f"{self.hash[:80]!r} is not a picture's hash: it must be 64 hex digits.")
        if self.width < 1 or self.height < 1:
            raise PreferenceError(f"A picture of {self.width}×{self.height} pixels cannot be judged.")
        if not _SEED.fullmatch(self.seed):
            raise PreferenceError(f"A seed is a whole number of at least 0, not {self.seed[:80]!r}.")


@dataclass(frozen=True)
class Question:
    """Pictures of one prompt that are judged together.

    Attributes:
        kind: what is asked; "best" of two is a "pair".
        prompt: what the pictures were to show; "" = not known.
        pictures: different ones, in the order in which they are shown: at least 2, of "stars" at least 1.
    """

    kind: Kind
    prompt: str
    pictures: tuple[Picture, ...]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise PreferenceError(f"A question is one of {', '.join(KINDS)}; not {self.kind!r}.")
        hashes, least = self.hashes, 1 if self.kind == "stars" else 2
        if len(set(hashes)) != len(hashes):
            raise PreferenceError("A question shows the same picture twice. Leave one of them out.")
        if not least <= len(hashes) <= MOST_PICTURES:
            raise PreferenceError(
                f"A question of the kind {self.kind!r} takes {least} to {MOST_PICTURES} different pictures, not "
                f"{len(hashes)}."
            )
        if self.kind == "best" and len(hashes) == 2:
            object.__setattr__(self, "kind", "pair")
        if self.kind == "pair" and len(hashes) != 2:
            raise PreferenceError(f"A pair takes 2 pictures, not {len(hashes)}. Ask for the best of several instead.")
        if len(self.prompt) > LONGEST_PROMPT:
            raise PreferenceError(f"A prompt of {len(self.prompt)} letters is too long; {LONGEST_PROMPT} are allowed.")
        object.__setattr__(self, "prompt", whole_text(self.prompt, "The prompt"))

    @property
    def hashes(self) -> tuple[str, ...]:
        return tuple(picture.hash for picture in self.pictures)

    @property
    def key(self) -> str:
        """Names the question, whatever the order of its pictures; see `question_key`."""
        return question_key(self.kind, self.hashes)


def question_key(kind: str, hashes: Sequence[str]) -> str:
    """64 hex digits for a kind and a set of pictures: the same question asked again finds its decision."""
    return hashlib.sha256("\n".join([kind, *sorted(hashes)]).encode()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """What a person says to a question.

    Attributes:
        verdict: "chosen" = one picture is the best; "tie" = no difference; "skip" = no answer, ask no more; "stars".
        chosen: hash of the chosen picture; "" unless that is the verdict.
        stars: hash → 1 … 5 of the pictures that were rated.
    """

    verdict: Verdict
    chosen: str = ""
    stars: Mapping[str, int] = field(default_factory=dict)

    def checked(self, question: Question) -> Answer:
        """The answer, if it is one to that question.

        Raises:
            PreferenceError: it is not.
        """
        known = set(question.hashes)
        if self.verdict not in get_args(Verdict):
            raise PreferenceError(f"{self.verdict!r} is no verdict; there are {', '.join(get_args(Verdict))}.")
        if self.verdict == "stars":
            if question.kind != "stars":
                raise PreferenceError("Stars were given, but this question asks for a choice: send a picture's hash.")
            if not self.stars or not self.stars.keys() <= known:
                raise PreferenceError("Stars must be given to one or more of the question's own pictures.")
            wrong = [stars for stars in self.stars.values() if not _is_stars(stars)]
            if wrong:
                raise PreferenceError(f"A picture gets 1 to {MOST_STARS} stars, not {wrong[0]!r}.")
        elif question.kind == "stars" and self.verdict != "skip":
            raise PreferenceError("This question asks for stars: send a number for each picture, or skip.")
        if self.verdict == "chosen" and self.chosen not in known:
            raise PreferenceError("The chosen picture is none of the question's own.")
        if self.chosen and self.verdict != "chosen":
            raise PreferenceError(f"A picture was chosen, yet the verdict is {self.verdict!r}.")
        return self


def _is_stars(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_STARS


@dataclass(frozen=True)
class Decision:
    """An answer as it was kept. `id`: never given twice, higher = later. `made`: seconds since 1970."""

    id: int
    answer: Answer
    made: int


@dataclass(frozen=True)
class Asked:
    """A question of a profile, and what stands.

    Attributes:
        id: never given twice, higher = asked later.
        decision: None = nobody has answered yet.
        open: it waits for a person: not answered, or not every picture has its stars.
    """

    id: int
    question: Question
    decision: Decision | None
    open: bool


@dataclass(frozen=True)
class Embedding:
    """A profile in an encoder's numbers.

    Attributes:
        encoder: identity of what made it; vectors of two encoders say nothing about each other.
        revision: of the profile it was made from.
        content: bytes of a safetensors file.
    """

    encoder: str
    revision: int
    content: bytes = field(repr=False)


def clean_name(name: str) -> str:
    """A profile's name as it is kept: one line without stray blanks and letters that nobody sees.

    Raises:
        PreferenceError: nothing is left that can be seen, it is too long, or looks like a key.
    """
    plain = visible_line(whole_text(name, "The name"))
    if not plain:
        raise PreferenceError("The profile has no name. Type one, for example 'my taste'.")
    if len(plain) > LONGEST_NAME:
        raise PreferenceError(f"The name {plain[:30]!r}… has {len(plain)} letters; up to {LONGEST_NAME} are allowed.")
    if KEY.fullmatch(plain):
        raise PreferenceError(f"{plain!r} looks like a profile's key. Choose another name.")
    return plain


def whole_text(text: str, what: str) -> str:
    """The text itself; JSON can hold half a character, which no file can.

    Raises:
        PreferenceError: it does.
    """
    if has_half_letter(text):
        raise PreferenceError(f"{what} holds half of a character. Type it anew.")
    return text


def anonymous(key: str) -> str:
    """What stands for a profile in the ids of its rewards, and says nothing about it."""
    return hashlib.sha256(f"attune preference {key}".encode()).hexdigest()[:16]
