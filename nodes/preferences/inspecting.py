"""What a taste changed: pictures with and without it, from the same prompts and seeds, by attributes that can be named.

A shift is the mean of (with − without) over the pairs, in deviations of the pictures without; its interval is a
bootstrap over pairs. Words are measured by a CLIP-type encoder: how much closer to each word the pictures have come,
which is where a bias or a stereotype shows. Ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from ...training.preference.attributes import ATTRIBUTES
from .records import PreferenceError

MOST_WORDS = 24
_RESAMPLES = 1000
_LONGEST_EDGE = 512


@dataclass(frozen=True)
class Shift:
    """How one measure moved.

    Attributes:
        name: of the measure.
        value: in deviations of the pictures without the taste. low, high: 95 % interval.
        before, after: means, in the measure's own units.
    """

    name: str
    value: float
    low: float
    high: float
    before: float
    after: float

    @property
    def certain(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def paired(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pictures [h, w, 3] two by two.

    Raises:
        PreferenceError: different numbers or sizes, or none.
    """
    if not before or len(before) != len(after):
        raise PreferenceError(
            f"There are {len(before)} pictures without the taste and {len(after)} with it. Give both in equal number, "
            "made from the same prompts and seeds, in the same order."
        )
    for number, (one, other) in enumerate(zip(before, after, strict=True), 1):
        if one.shape != other.shape:
            sizes = [f"{picture.shape[1]}×{picture.shape[0]}" for picture in (one, other)]
            raise PreferenceError(f"The pictures of pair {number} differ in size ({sizes[0]} and {sizes[1]}).")
    return list(zip(before, after, strict=True))


def attribute_shifts(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[Shift]:
    """Warmth, colourfulness, brightness and contrast."""
    small = [tuple(_small(picture) for picture in pair) for pair in pairs]
    found = []
    for name, measure in ATTRIBUTES.items():
        sides = [torch.stack([measure(pair[side][None])[0] for pair in small]) for side in (0, 1)]
        found.append(shift(name, *sides))
    return found


def word_shifts(
    before: torch.Tensor, after: torch.Tensor, words: Sequence[str], texts: torch.Tensor
) -> list[Shift]:  # fmt: skip
    """Unit features of pictures [B, F] and of words [W, F] → how much closer to each word they have come."""
    return [
        shift(word, *(side.double() @ text.double() for side in (before, after)))
        for word, text in zip(words, texts, strict=True)
    ]


def shift(name: str, before: torch.Tensor, after: torch.Tensor) -> Shift:
    """Of values [B] of the same pairs. Where all pictures without are alike, in the measure's own units."""
    before, after = before.detach().cpu().double(), after.detach().cpu().double()
    spread = before.std().item() if len(before) > 1 else 0.0
    changes = (after - before) / (spread if spread > 1e-9 else 1.0)
    generator = torch.Generator().manual_seed(0)
    picked = torch.randint(len(changes), (_RESAMPLES, len(changes)), generator=generator)
    low, high = changes[picked].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Shift(name, changes.mean().item(), low, high, before.mean().item(), after.mean().item())


def words_in(text: str) -> list[str]:
    """One word or phrase per line.

    Raises:
        PreferenceError: too many.
    """
    words = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if len(words) > MOST_WORDS:
        raise PreferenceError(f"{len(words)} lines of words are too many to show; {MOST_WORDS} are allowed.")
    return words


def _small(picture: torch.Tensor) -> torch.Tensor:
    """Attributes of colour do not need more pixels than these."""
    longest = max(picture.shape[:2])
    if longest <= _LONGEST_EDGE:
        return picture
    size = [max(1, round(edge * _LONGEST_EDGE / longest)) for edge in picture.shape[:2]]
    return F.interpolate(picture.movedim(-1, 0)[None], size=size, mode="area")[0].movedim(0, -1)


# ---- who is who ----


@dataclass(frozen=True)
class Linkage:
    """How well somebody could be told from others by an embedding.

    Attributes:
        people: profiles that took part. found: of them, how many were recognised.
        left_out: profiles with too few choices.
    """

    people: int
    found: int
    left_out: int

    @property
    def share(self) -> float:
        return self.found / self.people


def linkage(first: torch.Tensor, second: torch.Tensor, *, left_out: int = 0) -> Linkage:
    """The nearest-neighbour attack: for each embedding of one half of a person's choices, whose other half is nearest?

    Args:
        first, second: [people, k, d] of the two halves of the same people.
    """
    distances = torch.cdist(first.flatten(1).double(), second.flatten(1).double())
    nearest = distances.argmin(1)
    return Linkage(len(first), int((nearest == torch.arange(len(first))).sum()), left_out)


def linkage_words(found: Linkage | None, *, least: int, left_out: int) -> str:
    """For people who think of sharing an embedding.

    Args:
        least: choices that a profile needs to take part.
    """
    if found is None:
        return (
            f"Linkage: at least two profiles with {least} choices each are needed to tell how well a person could be "
            f"recognised by an embedding; {left_out} have fewer."
        )
    chance = 1 / found.people
    told = (
        f"Linkage: by an embedding of half of their choices, {found.found} of {found.people} people were recognised "
        f"among the embeddings of the other halves (by chance: {chance:.0%})."
    )
    if found.left_out:
        told += f" {found.left_out} profiles with fewer than {least} choices took no part."
    if found.people < 5:
        return told + " With so few people this says little."
    recognisable = found.share > 3 * chance
    return told + (
        " An embedding can give away whose it is: share it as you would share a photo of yourself."
        if recognisable
        else " Somebody who has both would hardly know that they are of one person."
    )


# ---- in words ----


def report(shifts: Sequence[Shift], pairs: int, title: str) -> str:
    """What changed, the largest first."""
    certain = sorted((found for found in shifts if found.certain), key=lambda found: -abs(found.value))
    head = f"{title}, {pairs} pair{'' if pairs == 1 else 's'} of pictures"
    if not certain:
        more = "" if pairs >= 16 else " More pictures may show a small one: 16 or more."
        return f"{head}: nothing changed that these measures can tell from chance.{more}"
    told = "; ".join(f"{found.name} {found.value:+.2f} ({found.low:+.2f} … {found.high:+.2f})" for found in certain)
    return f"{head}. Changed, in deviations of the pictures without (95 % interval): {told}."


def probed(reward: Any, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], words: Sequence[str]) -> list[Shift]:
    """`word_shifts` through an encoder that has features of pictures and of texts."""
    sides = [torch.cat([reward.image_features(pair[side][None]).cpu() for pair in pairs]) for side in (0, 1)]
    return word_shifts(*sides, words, reward.text_features(words).cpu())
