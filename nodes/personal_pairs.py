"""What an ATTUNE_PERSONAL_PAIRS wire carries: pairs of pictures of several people, one of each pair preferred.

Profiles give them and files do, training takes them. Ours.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from ..training.interfaces import AttuneError
from ..training.preference_pairs import Pair, opened, read_pairs
from .pair_drawing import DrawnPair, counted, draw_pairs

WIRE = "ATTUNE_PERSONAL_PAIRS"


@dataclass(frozen=True)
class PersonPair:
    """One judgement of one person.

    Attributes:
        person: whose, by a name that says nothing about them; see `nameless`.
        chosen, rejected: [h, w, 3] in [0, 1], of one size.
        caption: what both were to show.
    """

    person: str
    chosen: torch.Tensor = field(repr=False)
    rejected: torch.Tensor = field(repr=False)
    caption: str


@dataclass(frozen=True)
class PeoplesPairs:
    """Judgements of people, and what was left out on the way, in words."""

    pairs: tuple[PersonPair, ...] = field(repr=False)
    remarks: tuple[str, ...] = ()

    @property
    def people(self) -> int:
        return len({pair.person for pair in self.pairs})

    def __add__(self, other: PeoplesPairs) -> PeoplesPairs:
        """Both; a person who is in both has all of their pairs."""
        return PeoplesPairs(self.pairs + other.pairs, self.remarks + other.remarks)

    @property
    def words(self) -> str:
        """How many there are, and what was left out: the remarks may name profiles."""
        return " ".join([self.counts, *self.remarks])

    @property
    def counts(self) -> str:
        """How many there are."""
        each = sorted(Counter(pair.person for pair in self.pairs).values())
        spread = f"{each[0]}" if each[0] == each[-1] else f"{each[0]} to {each[-1]}"
        people = "1 person" if self.people == 1 else f"{self.people} people"
        prompts = len({pair.caption for pair in self.pairs})
        return f"{counted(len(self.pairs), 'pair')} of {people} ({spread} each), {counted(prompts, 'prompt')}."

    def sheet(self) -> Image.Image:
        """A dozen of the pairs as a picture, with people by number."""
        numbers = {person: place for place, person in enumerate(dict.fromkeys(pair.person for pair in self.pairs), 1)}

        def drawn(pair: PersonPair) -> DrawnPair:
            return DrawnPair(pair.chosen, pair.rejected, (f"person {numbers[pair.person]}", ""), pair.caption)

        return draw_pairs(self.pairs, self.counts, drawn)


def nameless(source: str, name: str) -> str:
    """A person's name in a source as what says nothing about them."""
    return hashlib.sha256(f"attune person {source!r} {name!r}".encode()).hexdigest()[:16]


def from_file(
    file: Path, title: str, *, most: int, most_people: int, on_pair: Callable[[int, int], None]
) -> PeoplesPairs:
    """The pairs of a JSON Lines file in the form that `run.py train simulate-choices` writes.

    Lines without a person are all of one. Every picture is read once, whoever judged it.

    Args:
        title: what to call the file in words.
        most: pairs of each person at most, the first of the file; 0 = all. most_people: likewise.
        on_pair: called with (done, all); may raise to cancel.

    Raises:
        TrainingError: the file or a picture cannot be read. AttuneError: nothing is left.
    """
    # Another file's people are others, also where they are called alike, as simulated ones are.
    source = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
    wanted, known = [], {}
    for pair in read_pairs(file):
        person = nameless(source, pair.person)
        number = known.get(person, 0)
        if (number or not most_people or len(known) < most_people) and (not most or number < most):
            known[person] = number + 1
            wanted.append((person, pair))
    pictures: dict[Path, torch.Tensor] = {}
    found, different = [], 0
    for done, (person, pair) in enumerate(wanted):
        on_pair(done, len(wanted))
        chosen, rejected = (_picture(file, pictures) for file in _files(pair))
        if chosen.shape != rejected.shape:
            different += 1
            continue
        found.append(PersonPair(person, chosen, rejected, " ".join(pair.prompt.split())))
    if not found:
        raise AttuneError(
            f"Of the {counted(len(wanted), 'pair')} in {title} both pictures have never the same size. Crop the two "
            "pictures of a pair alike."
        )
    remarks = (f"Left out: {counted(different, 'pair')} of different sizes ({title}).",) if different else ()
    return PeoplesPairs(tuple(found), remarks)


def written(file: Path) -> str:
    """Changes when a picture of such a file is replaced.

    Raises:
        TrainingError: as `from_file`. OSError: a picture has just gone.
    """
    digest = hashlib.sha256()
    for picture in sorted({picture for pair in read_pairs(file) for picture in _files(pair)}):
        state = picture.stat()
        digest.update(f"{picture.name} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _files(pair: Pair) -> Sequence[Path]:
    return (pair.chosen, pair.rejected)


def _picture(file: Path, known: dict[Path, torch.Tensor]) -> torch.Tensor:
    """[h, w, 3] in [0, 1]."""
    if file not in known:
        image = opened(file).convert("RGB")
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        known[file] = pixels.reshape(*image.size[::-1], 3).float() / 255
    return known[file]
