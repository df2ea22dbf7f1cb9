"""What belongs to a picture goes where the picture goes: latents, masks, prompts and seeds, aligned by index.

The host passes pictures as batches or as lists of batches; here they become one entry per picture, are chosen, and
become batches again where the sizes allow it. Ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch

from ...training.interfaces import RewardContext, RewardError
from ..latent_lists import INDEX, MASK, SAMPLES, Latent
from .pictures import counted, unbatch

T = TypeVar("T")


def aligned(values: Sequence[T], count: int, what: str, *, shared: bool = True) -> list[T]:
    """One value per picture.

    Args:
        values: as many as there are pictures, or one for all of them if `shared`.
        count: number of pictures.
        what: what they are, in the plural, e.g. "seeds".

    Raises:
        RewardError: another number; names both counts.
    """
    if len(values) == count:
        return list(values)
    if shared and len(values) == 1:
        return list(values) * count
    allowed = "one for all images or one per image" if shared else "one per image"
    raise RewardError(
        f"There are {len(values)} {what} for {counted(count, 'image')}. Connect {allowed}, from the nodes that made "
        "these images."
    )


def earlier_rounds(previous: Sequence[torch.Tensor] | None) -> RewardContext | None:
    """What was chosen in earlier rounds, oldest first, for the rewards that look at it: every picture is a round.

    Args:
        previous: batches [B, h, w, c] of any sizes, or None.

    Raises:
        RewardError: not pictures.
    """
    return RewardContext(previous=[picture[None] for picture in unbatch(previous)]) if previous else None


def split_masks(masks: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """MASKs [B, h, w] or [h, w] as one mask [1, h, w] each.

    Raises:
        RewardError: another shape.
    """
    singles = []
    for mask in masks:
        if mask.ndim not in (2, 3):
            raise RewardError(f"A mask has the shape {list(mask.shape)}; expected [batch, height, width].")
        singles += list((mask if mask.ndim == 3 else mask[None]).split(1))
    return singles


def fits_one_batch(tensors: Sequence[torch.Tensor]) -> bool:
    return len({tuple(tensor.shape[1:]) for tensor in tensors}) <= 1


def latents_fit(latents: Sequence[Latent]) -> bool:
    """Whether single latents can be one batch: equal sizes, and masks for all or for none."""
    masks = [latent[MASK] for latent in latents if MASK in latent]
    return (
        fits_one_batch([latent[SAMPLES] for latent in latents])
        and len(masks) in (0, len(latents))
        and fits_one_batch(masks)
    )


def join_latents(latents: Sequence[Latent]) -> dict[str, Any]:
    """Single latents as one batch; see `latents_fit`. What describes the batch is the first one's."""
    joined = dict(latents[0]) | {
        SAMPLES: torch.cat([latent[SAMPLES] for latent in latents]),
        INDEX: [number for latent in latents for number in latent[INDEX]],
    }
    if MASK in latents[0]:
        joined[MASK] = torch.cat([latent[MASK] for latent in latents])
    return joined
