"""Pictures as the host's wires carry them, one by one: with a prompt each, and scores from any judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..training.interfaces import AttuneError, Reward, checked_scores
from ..training.presentable import unsafe_pictures

# Pictures per call of a reward; bounds memory without a setting.
_AT_ONCE = 8


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
        raise AttuneError("There are no pictures. Connect a batch of pictures of one or more prompts.")
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
