"""Pairs from any judge: within each prompt the better and the worse picture of a set, by their scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...training.interfaces import AttuneError, Reward, checked_scores
from ...training.presentable import unsafe_pictures

PAIRINGS = ("each picture once", "best against worst", "all")
# Pictures per call of a reward; bounds memory without a setting.
_AT_ONCE = 8


@dataclass(frozen=True)
class ScoredPair:
    """Places of two pictures of one prompt, and by how much the chosen one is better, in the reward's unit."""

    prompt: str
    chosen: int
    rejected: int
    margin: float


@dataclass(frozen=True)
class PairSet:
    """What came of a set of scored pictures.

    Attributes:
        pairs: by prompt, in the order of their first picture.
        scores: one per picture; NaN where the safety gate held it back.
        ties: pairs that were looked at and differ by no more than the least margin.
        lonely: prompts with a single picture, which has nothing to be compared with.
    """

    pairs: tuple[ScoredPair, ...]
    scores: tuple[float, ...]
    ties: int
    lonely: int

    @property
    def blocked(self) -> int:
        return sum(math.isnan(score) for score in self.scores)


def single_pictures(batches: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The pictures [h, w, 3] of the host's IMAGE values, one by one.

    Raises:
        AttuneError: there are none, or a value is no batch of pictures.
    """
    pictures: list[torch.Tensor] = []
    for batch in batches:
        if batch.ndim != 4 or batch.shape[-1] < 3:
            raise AttuneError(
                f"An image input has shape {tuple(batch.shape)}; expected pictures: (count, height, width, 3)."
            )
        pictures += list(batch[..., :3].detach().float().cpu())
    if not pictures:
        raise AttuneError(
            "There are no pictures to make pairs from. Connect a batch of pictures of one or more prompts."
        )
    return pictures


def prompts_of(batches: Sequence[torch.Tensor], prompts: Sequence[str]) -> list[str]:
    """One prompt per picture.

    Args:
        batches: the host's IMAGE values, as they came.
        prompts: a list with one entry per picture or per batch, or one text with as many lines; or one for all.

    Raises:
        AttuneError: the numbers do not fit, or a prompt is empty.
    """
    sizes = [len(batch) for batch in batches]
    count = sum(sizes)
    entries = [" ".join(prompt.split()) for prompt in prompts]
    if len(entries) == 1 and count > 1:
        entries = [line.strip() for line in prompts[0].splitlines() if line.strip()] or [""]
    if len(entries) == 1:
        entries = entries * count
    elif len(entries) == len(sizes):
        entries = [entry for entry, size in zip(entries, sizes, strict=True) for _ in range(size)]
    if len(entries) != count:
        raise AttuneError(
            f"There are {count} pictures in {len(sizes)} batch{'' if len(sizes) == 1 else 'es'}, but {len(entries)} "
            "prompts. Give one prompt per picture, one per batch, or one for all, in the same order."
        )
    for number, entry in enumerate(entries, 1):
        if not entry:
            raise AttuneError(f"The prompt of picture {number} of {count} is empty. Write what it was to show.")
    return entries


def score_pictures(
    pictures: Sequence[torch.Tensor], prompts: Sequence[str], reward: Reward, on_picture: Callable[[], None]
) -> list[float]:
    """Scores in the pictures' order, NaN where the reward's safety gate holds one back. Sizes may differ.

    Args:
        pictures: [h, w, 3] in [0, 1]; prompts: one per picture.
        on_picture: called for each picture when it is scored; may raise to cancel.

    Raises:
        RewardError: the reward cannot score them. AttuneError: it compares with earlier rounds.
    """
    if getattr(reward, "needs_previous", False):
        raise AttuneError(
            f"{reward.name} compares with earlier rounds, which there are none of here. Connect another reward."
        )
    together = getattr(reward, "compares_batch", getattr(reward, "contextual", False))
    scores = [math.nan] * len(pictures)
    for indices in _alike(pictures, prompts if together else [""] * len(pictures)):
        step = len(indices) if together else _AT_ONCE
        for start in range(0, len(indices), step):
            part = indices[start : start + step]
            batch = torch.stack([pictures[index] for index in part])
            safe = (~unsafe_pictures(batch, [reward])).nonzero().flatten().tolist()
            if safe:
                found = checked_scores(reward, batch[safe], [prompts[part[row]] for row in safe])
                for row, score in zip(safe, found.tolist(), strict=True):
                    scores[part[row]] = score
            for _ in part:
                on_picture()
    return scores


def _alike(pictures: Sequence[torch.Tensor], marks: Sequence[str]) -> list[list[int]]:
    groups: dict[Any, list[int]] = {}
    for index, (picture, mark) in enumerate(zip(pictures, marks, strict=True)):
        groups.setdefault((mark, tuple(picture.shape)), []).append(index)
    return list(groups.values())


def pair_up(
    prompts: Sequence[str], scores: Sequence[float], *, pairing: str, least_margin: float, higher_is_better: bool
) -> PairSet:
    """Pairs of pictures of one prompt whose scores differ by more than the least margin.

    Args:
        prompts, scores: one per picture; pictures with the score NaN are left out.
        pairing: "each picture once": the best with the worst, the second best with the second worst, and so on; "best
            against worst": one pair per prompt; "all": every two pictures of a prompt.
        least_margin: in the reward's unit, ≥ 0; what does not differ by more is a tie.

    Raises:
        ValueError: unknown pairing.
        AttuneError: no pair is left.
    """
    if pairing not in PAIRINGS:
        raise ValueError(f"pairing must be one of {', '.join(PAIRINGS)}; not {pairing!r}")
    groups: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        if not math.isnan(scores[index]):
            groups.setdefault(prompt, []).append(index)
    sign = 1 if higher_is_better else -1
    pairs, ties, lonely = [], 0, 0
    for prompt, members in groups.items():
        ranked = sorted(members, key=lambda index: -sign * scores[index])
        lonely += len(ranked) == 1
        for better, worse in _places(len(ranked), pairing):
            chosen, rejected = ranked[better], ranked[worse]
            margin = sign * (scores[chosen] - scores[rejected])
            if margin > least_margin:
                pairs.append(ScoredPair(prompt, chosen, rejected, margin))
            else:
                ties += 1
    if not pairs:
        raise AttuneError(_why_none(len(scores), len(groups), ties, least_margin))
    return PairSet(tuple(pairs), tuple(scores), ties, lonely)


def _places(count: int, pairing: str) -> list[tuple[int, int]]:
    """(better, worse) places in the ranking of `count` pictures."""
    if pairing == "all":
        return [(better, worse) for better in range(count) for worse in range(better + 1, count)]
    mirrored = [(place, count - 1 - place) for place in range(count // 2)]
    return mirrored[:1] if pairing == "best against worst" else mirrored


def _why_none(pictures: int, prompts: int, ties: int, least_margin: float) -> str:
    if ties:
        return (
            f"No pair is left: all {ties} that {pictures} pictures could make differ by {least_margin:g} or less. "
            "Lower least_margin, make more pictures per prompt, or connect a reward that tells them apart."
        )
    if not prompts:
        return f"No pair can be made: the safety gate held back all {pictures} pictures. Raise its threshold."
    return (
        f"No pair can be made: {pictures} pictures of {prompts} prompts leave no prompt with two of them. Make several "
        "pictures of each prompt, and check that the prompts are in the pictures' order."
    )
