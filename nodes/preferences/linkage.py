"""Who is who: how well the owners of this computer's profiles could be told by an embedding. Ours.

Each person's choices are parted in two, and an embedding is made of either half. Whoever knows one and finds the other
among those of all people has recognised the person. No picture is in both halves: choices about the same pictures say
partly the same, and would give away that they are of one person even if it had chosen by a coin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...training.preference.set_encoder import SetEncoder
from .decisions import Comparison
from .ordering import different_first, of_newest_questions, questions_of, thinned
from .pairs import newest
from .records import Profile
from .store import PreferenceStore
from .taste import clusters_of
from .user_encoder import check_features, embed, triples_of

# Questions of a profile, to be parted.
LEAST_QUESTIONS, MOST_QUESTIONS = 8, 64
# People who are recognised on average where every guess is by chance, however many take part; and so many that it is
# none (of a hundred such attacks two or so find more).
BY_CHANCE, MANY_BY_CHANCE = 1, 3
# Steps of the progress bar per profile.
_STEPS = 100

Progress = Callable[[int, int], None]


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


def halves_of(comparisons: Sequence[Comparison]) -> tuple[list[Comparison], list[Comparison]] | None:
    """Two parts without a common question or picture, as equal in questions as that allows; None = that cannot be.

    Args:
        comparisons: without ties, the newest first; the parts are as Preference Embedding reads them.
    """
    # Questions hang together by their pictures.
    shown = [(two.group, picture.hash) for two in comparisons for picture in (two.preferred, two.other)]
    clusters: dict[int, set[str]] = {}
    for (group, _), number in zip(shown, clusters_of(shown), strict=True):
        clusters.setdefault(number, set()).add(group)
    parts: tuple[set[str], set[str]] = set(), set()
    for cluster in sorted(clusters.values(), key=len, reverse=True):
        min(parts, key=len).update(cluster)
    if min(map(len, parts)) < LEAST_QUESTIONS // 2:
        return None
    first, second = (different_first(thinned([two for two in comparisons if two.group in part])) for part in parts)
    return first, second


def recognised(
    store: PreferenceStore, encoder: SetEncoder, features: Any, progress: Progress
) -> tuple[Linkage | None, int]:
    """The attack on all profiles of this computer; None where fewer than two can take part, and how many cannot.

    Args:
        features: a reward of the CLIP kind, the one that the encoder was trained with.
        progress: called with (done, all); may raise to cancel.

    Raises:
        RewardError: the features cannot be used. TrainingError: they are not the encoder's.
    """
    check_features(features, encoder)
    summaries = store.summaries()
    total = _STEPS * len(summaries)
    found = []
    for number, summary in enumerate(summaries):
        halves = halves_of(_choices(store, summary.profile)) or ()
        sides = []
        for half, side in enumerate(halves):
            start, steps = number * _STEPS + half * _STEPS // 2, _STEPS // 2
            triples = triples_of(
                side, store, features,
                lambda done, of, start=start, steps=steps: progress(start + steps * done // max(1, of), total),
            )  # fmt: skip
            sides.append(triples)
        # A file may be damaged, which is found out only now.
        if sides and all(map(len, sides)):
            found.append([embed(encoder, triples) for triples in sides])
    left_out = len(summaries) - len(found)
    if len(found) < 2:
        return None, left_out
    first, second = (torch.stack(side) for side in zip(*found, strict=True))
    return linkage(first, second, left_out=left_out), left_out


def _choices(store: PreferenceStore, profile: Profile) -> list[Comparison]:
    """Of the newest questions, without ties, and without those whose pictures are gone."""
    found = newest(
        store, profile, least_stars=1, enough=lambda held: len(questions_of(held.preferences)) >= MOST_QUESTIONS
    )[1].preferences
    found = of_newest_questions(found, MOST_QUESTIONS)
    names = {picture.hash for two in found for picture in (two.preferred, two.other)}
    there = {name for name in names if store.pictures.holds(name)}
    return [two for two in found if two.preferred.hash in there and two.other.hash in there]


def linkage_words(found: Linkage | None, *, left_out: int) -> str:
    """For people who think of sharing an embedding."""
    needed = f"{LEAST_QUESTIONS} answered questions, not all about the same pictures"
    if found is None:
        return (
            f"Linkage: at least two profiles with {needed}, are needed to tell how well a person could be recognised "
            f"by an embedding; {left_out} have less."
        )
    chance = 1 / found.people
    told = (
        f"Linkage: by an embedding of half of their choices, {found.found} of {found.people} people were recognised "
        f"among the embeddings of the other halves (by chance: {chance:.0%})."
    )
    if found.left_out:
        told += f" {found.left_out} profiles without {needed}, took no part."
    if found.people < 5:
        return told + " With so few people this says little."
    # Whole numbers: of a share, rounding would decide.
    if found.found > MANY_BY_CHANCE:
        return told + " An embedding can give away whose it is: share it as you would share a photo of yourself."
    if found.found > BY_CHANCE:
        return told + " Some were recognised, which may be chance or not: share an embedding with care."
    return told + " Somebody who has both would hardly know that they are of one person."
