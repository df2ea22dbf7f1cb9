"""What a taste changed: pictures with and without it, from the same prompts and seeds, by attributes that can be named.

A shift is the mean of (with − without) over the n pairs, in deviations of the pictures without; its interval is
Student's for paired differences,

    mean ± t(0.975, n − 1) · deviation / √n,

which stays honest with few pairs, where a bootstrap is too narrow. From fewer than `LEAST_PAIRS` nothing is concluded.
Pictures without that hardly differ are no measure: then the shift is told in the measure's own units. Words are
measured by a CLIP-type encoder: how much closer to each word the pictures have come, which is where a bias or a
stereotype shows. Ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from ...training.preference.attributes import ATTRIBUTES
from ..feature_store import FEATURES
from .records import PreferenceError

MOST_WORDS = 24
# With three pairs the interval is four times as wide as the deviation of the pairs tells, and hangs on their being
# normal.
LEAST_PAIRS, GOOD_PAIRS = 4, 16
_LONGEST_EDGE = 512
# Pictures that are encoded at once.
_AT_ONCE = 16
# How far a measure usually reaches over pictures of all kinds; of a word: the cosine of its text with a picture.
_SPANS = {"warmth": 1.0, "colourfulness": 1.0, "brightness": 1.0, "contrast": 0.5}
_WORD_SPAN = 0.2
# Of that, what pictures must at least differ by to be a measure of a change.
_LEAST_SPREAD = 0.02
_NORMAL = 1.959963984540054  # 0.975 quantile


@dataclass(frozen=True)
class Shift:
    """How one measure moved.

    Attributes:
        name: of the measure.
        value: in deviations of the pictures without the taste. low, high: 95 % interval; without bounds where there
            are too few pairs to tell.
        before, after: means, in the measure's own units.
        own_units: the pictures without hardly differ, or there is only one: `value`, `low` and `high` are in the
            measure's own units too.
    """

    name: str
    value: float
    low: float
    high: float
    before: float
    after: float
    own_units: bool = False

    @property
    def certain(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    @property
    def bounded(self) -> bool:
        """Whether there is an interval at all."""
        return math.isfinite(self.low) and math.isfinite(self.high)


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
            raise PreferenceError(
                f"The pictures of pair {number} differ in size: {sizes[0]} without the taste and {sizes[1]} with it. "
                "Make both from one Empty Latent Image, and scale or crop neither or both."
            )
    return list(zip(before, after, strict=True))


def attribute_shifts(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[Shift]:
    """Warmth, colourfulness, brightness and contrast."""
    small = [tuple(_small(picture) for picture in pair) for pair in pairs]
    found = []
    for name, measure in ATTRIBUTES.items():
        sides = [torch.stack([measure(pair[side][None])[0] for pair in small]) for side in (0, 1)]
        found.append(shift(name, *sides, span=_SPANS[name]))
    return found


def word_shifts(
    before: torch.Tensor, after: torch.Tensor, words: Sequence[str], texts: torch.Tensor
) -> list[Shift]:  # fmt: skip
    """Unit features of pictures [B, F] and of words [W, F] → how much closer to each word they have come."""
    return [
        shift(word, *(side.double() @ text.double() for side in (before, after)), span=_WORD_SPAN)
        for word, text in zip(words, texts, strict=True)
    ]


def shift(name: str, before: torch.Tensor, after: torch.Tensor, *, span: float) -> Shift:
    """Of values [B] of the same pairs.

    Args:
        span: how far the measure usually reaches; tells when the values without are nearly alike.
    """
    before, after = before.detach().cpu().double(), after.detach().cpu().double()
    pairs = len(before)
    spread = before.std().item() if pairs > 1 else 0.0
    own_units = spread < _LEAST_SPREAD * span
    changes = (after - before) / (1.0 if own_units else spread)
    value, reach = changes.mean().item(), math.inf
    if pairs >= LEAST_PAIRS:
        reach = student_quantile(pairs - 1) * changes.std().item() / math.sqrt(pairs)
    return Shift(name, value, value - reach, value + reach, before.mean().item(), after.mean().item(), own_units)


def student_quantile(freedom: int) -> float:
    """The 0.975 quantile of Student's t with at least 3 degrees of freedom, to 0.2 %.

    The expansion around the normal quantile of Abramowitz and Stegun, 26.7.5.
    """
    if freedom < LEAST_PAIRS - 1:
        raise ValueError(f"the expansion holds from {LEAST_PAIRS - 1} degrees of freedom, not for {freedom}")
    z = _NORMAL
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))


def probed(
    encoder: Any,
    pairs: Sequence[tuple[torch.Tensor, torch.Tensor]],
    words: Sequence[str],
    progress: Callable[[int, int], None],
) -> list[Shift]:
    """`word_shifts` through an encoder that has features of pictures and of texts.

    Args:
        progress: called with (pictures done, all); may raise to cancel.
    """
    pictures = [picture for side in zip(*pairs, strict=True) for picture in side]
    features = features_of(encoder, pictures, progress)
    return word_shifts(*features.split(len(pairs)), words, encoder.text_features(words).cpu())


def features_of(
    encoder: Any, pictures: Sequence[torch.Tensor], progress: Callable[[int, int], None]
) -> torch.Tensor:  # fmt: skip
    """Unit features [B, F] of B pictures [h, w, 3] in their order, those of one size together."""
    alike: dict[torch.Size, list[int]] = {}
    for index, picture in enumerate(pictures):
        alike.setdefault(picture.shape, []).append(index)
    rows: dict[int, torch.Tensor] = {}
    for indices in alike.values():
        for start in range(0, len(indices), _AT_ONCE):
            progress(len(rows), len(pictures))
            part = indices[start : start + _AT_ONCE]
            found = FEATURES.of(encoder, torch.stack([pictures[index] for index in part])).cpu()
            rows |= dict(zip(part, found, strict=True))
    progress(len(rows), len(pictures))
    return torch.stack([rows[index] for index in range(len(pictures))])


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


# ---- in words ----


def report(shifts: Sequence[Shift], pairs: int, title: str) -> str:
    """What changed, the largest first; what is in other units after that."""
    head = f"{title}, {pairs} pair{'' if pairs == 1 else 's'} of pictures"
    if pairs < LEAST_PAIRS:
        return (
            f"{head}: too few to tell a change from chance. At least {LEAST_PAIRS} pairs are needed; {GOOD_PAIRS} or "
            "more show small changes."
        )
    certain = sorted(
        (found for found in shifts if found.certain), key=lambda found: (found.own_units, -abs(found.value))
    )
    if not certain:
        more = "" if pairs >= GOOD_PAIRS else f" More pictures may show a small one: {GOOD_PAIRS} or more."
        return f"{head}: nothing changed that these measures can tell from chance.{more}"
    told = "; ".join(_told(found) for found in certain)
    return f"{head}. Changed, in deviations of the pictures without (95 % interval): {told}."


def number_words(found: Shift, value: float) -> str:
    """A number of that shift, with its sign; own units are small, and get one more digit."""
    return f"{value:+.{3 if found.own_units else 2}f}".replace("-", "−")


def _told(found: Shift) -> str:
    value, low, high = (number_words(found, number) for number in (found.value, found.low, found.high))
    units = " in its own units, since the pictures without hardly differ in it" if found.own_units else ""
    return f"{found.name} {value} ({low} … {high}){units}"
