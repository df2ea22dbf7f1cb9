"""Pairs to train on, out of a profile: a preferred and another picture of one prompt, the newest choices first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from PIL import Image

from ..pair_drawing import DrawnPair, counted, draw_pairs
from .decisions import Comparison, ComparisonSet, comparisons_of
from .pictures import PictureFolder, to_image
from .records import Asked, PreferenceError, Profile, UnknownError
from .store import PreferenceStore

_PAGE = 500


class TooFew(PreferenceError):
    """There are not enough choices yet, which more of them would change."""


@dataclass(frozen=True)
class TrainingPair:
    """Two pictures [h, w, 3] of one size, and what both were to show."""

    chosen: torch.Tensor
    rejected: torch.Tensor
    caption: str


@dataclass(frozen=True)
class ProfilePairs:
    """What a profile holds to learn from.

    Attributes:
        profile: whose.
        choices: decisions that were looked at, skipped ones included.
        preferences: comparisons with a preferred picture, no more than were asked for.
        ties, skipped: comparisons without one; questions that were skipped.
        more: whether older choices were left aside.
    """

    profile: Profile
    choices: int
    preferences: tuple[Comparison, ...]
    ties: int
    skipped: int
    more: bool


def gather(store: PreferenceStore, profile: Profile, *, most: int, least_stars: int) -> ProfilePairs:
    """The newest comparisons of a profile.

    Args:
        most: how many preferences at most; 0 = all.
        least_stars: see `decisions.comparisons_of`.

    Raises:
        UnknownError: there is no such profile. TooFew: it holds no preference.
    """
    enough = (lambda found: len(found.preferences) > most) if most else None
    asked, found, complete = newest(store, profile, least_stars=least_stars, enough=enough)
    preferences = found.preferences
    if not preferences:
        raise TooFew(_why_none(profile, len(asked), found.ties, found.skipped))
    more = not complete or bool(most and len(preferences) > most)
    kept = tuple(preferences[:most] if most else preferences)
    return ProfilePairs(profile, len(asked), kept, found.ties, found.skipped, more)


def newest(
    store: PreferenceStore, profile: Profile, *, least_stars: int, enough: Callable[[ComparisonSet], bool] | None
) -> tuple[list[Asked], ComparisonSet, bool]:
    """Answered questions, the newest first, until what they hold is enough.

    Args:
        enough: None = all there are.

    Returns:
        The questions, their comparisons, and whether these are all that the profile holds.

    Raises:
        UnknownError: there is no such profile.
    """
    asked: list[Asked] = []
    while True:
        page = store.answered(profile.key, most=_PAGE, before=asked[-1].decision.id if asked else None)
        asked += page
        complete = len(page) < _PAGE
        if complete or enough is not None:
            found = comparisons_of(asked, least_stars=least_stars)
            if complete or enough(found):
                return asked, found, complete


def _why_none(profile: Profile, choices: int, ties: int, skipped: int) -> str:
    if not choices:
        return (
            f"The profile {profile.name!r} holds no choices yet. Choose between pictures in Choose Images, then press "
            "Run again."
        )
    told = " and ".join(
        words for number, words in ((ties, counted(ties, "tie")), (skipped, f"{skipped} skipped")) if number
    )
    return (
        f"The profile {profile.name!r} prefers no picture to another so far: its {counted(choices, 'choice')} are "
        f"{told}. Choose more pictures; of stars, lower least_stars."
    )


@dataclass(frozen=True)
class LoadedPairs:
    """Pairs with their pictures.

    Attributes:
        left_out: why → how many of the preferences could not be used.
    """

    pairs: tuple[TrainingPair, ...]
    left_out: dict[str, int]


def load(
    found: ProfilePairs, folder: PictureFolder, *, least: int, caption: str, on_pair: Callable[[], None]
) -> LoadedPairs:
    """The pictures of the pairs; each file is read once.

    Args:
        least: how many pairs there must be.
        caption: of pairs whose prompt is not known; "" = such pairs are left out.
        on_pair: called after each pair; may raise to cancel.

    Raises:
        TooFew: fewer pairs are left.
    """
    pictures: dict[str, torch.Tensor | None] = {}
    pairs, left_out = [], {"without a prompt": 0, "of different sizes": 0, "whose pictures are gone": 0}
    for comparison in found.preferences:
        chosen, rejected = (_picture(name.hash, folder, pictures) for name in (comparison.preferred, comparison.other))
        words = " ".join((comparison.prompt.strip() or caption).split())
        if not words:
            left_out["without a prompt"] += 1
        elif chosen is None or rejected is None:
            left_out["whose pictures are gone"] += 1
        elif chosen.shape != rejected.shape:
            left_out["of different sizes"] += 1
        else:
            pairs.append(TrainingPair(chosen, rejected, words))
        on_pair()
    left_out = {why: count for why, count in left_out.items() if count}
    if len(pairs) < least:
        raise TooFew(_why_few(found, len(pairs), least, left_out))
    return LoadedPairs(tuple(pairs), left_out)


def _why_few(found: ProfilePairs, pairs: int, least: int, left_out: Mapping[str, int]) -> str:
    text = (
        f"The profile {found.profile.name!r} gives {counted(pairs, 'pair')} to learn from, and least_pairs asks for "
        f"{least}. Choose between more pictures in Choose Images, then press Run again."
    )
    if not left_out:
        return text
    reasons = ", ".join(f"{count} {why}" for why, count in left_out.items())
    return f"{text} Left out: {reasons}. A caption takes in those without a prompt."


def _picture(name: str, folder: PictureFolder, known: dict[str, torch.Tensor | None]) -> torch.Tensor | None:
    if name not in known:
        try:
            known[name] = to_image(folder.get(name))
        except UnknownError:
            known[name] = None
    return known[name]


def report(found: ProfilePairs, loaded: LoadedPairs) -> str:
    """What came of it, in a line or two."""
    prompts = len({pair.caption for pair in loaded.pairs})
    text = (
        f"{counted(len(loaded.pairs), 'pair')} of {counted(prompts, 'prompt')} from {counted(found.choices, 'choice')} "
        f"of {found.profile.name}."
    )
    parts = [(found.ties, counted(found.ties, "tie")), (found.skipped, f"{found.skipped} skipped")]
    parts += [(count, f"{counted(count, 'pair')} {why}") for why, count in loaded.left_out.items()]
    told = [words for number, words in parts if number] + (["older choices"] if found.more else [])
    return f"{text} Left out: {', '.join(told)}." if told else text


def sheet(loaded: LoadedPairs, words: str) -> Image.Image:
    """A dozen of the pairs as a picture."""
    return draw_pairs(loaded.pairs, words, lambda pair: DrawnPair(pair.chosen, pair.rejected, ("", ""), pair.caption))
