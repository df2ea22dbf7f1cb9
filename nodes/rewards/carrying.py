"""What belongs to a picture goes where the picture goes: latents, masks, prompts and seeds, aligned by index.

The host passes pictures as batches or as lists of batches; here they become one entry per picture, are chosen, and
become batches again where the sizes allow it. Ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch

from ...training.interfaces import RewardContext, RewardError
from .pictures import counted, unbatch

Latent = Mapping[str, Any]
T = TypeVar("T")

# Values of a LATENT that hold one entry per sample; all others describe the batch as a whole.
_SAMPLES, _MASK, _INDEX = "samples", "noise_mask", "batch_index"


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


def split_latents(latents: Sequence[Latent]) -> list[dict[str, Any]]:
    """LATENTs, each a batch, as one LATENT per sample.

    The number of a sample within its batch is kept in `batch_index`, as the host does when it takes a latent out of a
    batch: the sampler then gives it the same noise as before.

    Raises:
        RewardError: not a LATENT, it does not number each of its samples, or its mask is empty.
    """
    singles = []
    for latent in latents:
        samples = latent.get(_SAMPLES) if isinstance(latent, Mapping) else None
        if not isinstance(samples, torch.Tensor) or samples.ndim < 4:
            raise RewardError("The latent input got something without samples [B, C, H, W]. Connect a LATENT output.")
        rest = {key: value for key, value in latent.items() if key not in (_SAMPLES, _MASK, _INDEX)}
        numbers = _numbers(latent.get(_INDEX), len(samples))
        mask = _masks(latent.get(_MASK))
        for index in range(len(samples)):
            single = rest | {_SAMPLES: samples[index : index + 1], _INDEX: [numbers[index]]}
            if mask is not None:
                # The host repeats a mask that is shorter than the batch.
                place = index % len(mask)
                single[_MASK] = mask[place : place + 1]
            singles.append(single)
    return singles


def _masks(mask: torch.Tensor | None) -> torch.Tensor | None:
    """A noise mask as a batch; a single one [h, w] is for all samples.

    Raises:
        RewardError: there is none in it.
    """
    masks = mask[None] if mask is not None and mask.ndim == 2 else mask
    if masks is not None and len(masks) == 0:
        raise RewardError(
            f"The latent's 'noise_mask' of the shape {list(masks.shape)} is empty. Check the node that made it."
        )
    return masks


def _numbers(batch_index: Any, count: int) -> list[int]:
    """The samples' numbers within their batch. Nodes write them as a list or as a tensor, or leave them out.

    Raises:
        RewardError: there are more or fewer than samples.
    """
    if isinstance(batch_index, torch.Tensor):
        batch_index = batch_index.flatten().tolist()
    if batch_index is None or len(batch_index) == 0:
        return list(range(count))
    if len(batch_index) != count:
        raise RewardError(
            f"The latent has {count} samples but numbers {len(batch_index)} of them in its 'batch_index'. "
            "Check the node that made it."
        )
    return [int(number) for number in batch_index]


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
    masks = [latent[_MASK] for latent in latents if _MASK in latent]
    return (
        fits_one_batch([latent[_SAMPLES] for latent in latents])
        and len(masks) in (0, len(latents))
        and fits_one_batch(masks)
    )


def join_latents(latents: Sequence[Latent]) -> dict[str, Any]:
    """Single latents as one batch; see `latents_fit`. What describes the batch is the first one's."""
    joined = dict(latents[0]) | {
        _SAMPLES: torch.cat([latent[_SAMPLES] for latent in latents]),
        _INDEX: [number for latent in latents for number in latent[_INDEX]],
    }
    if _MASK in latents[0]:
        joined[_MASK] = torch.cat([latent[_MASK] for latent in latents])
    return joined
