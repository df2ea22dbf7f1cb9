"""The host's LATENT values, one entry per picture: for every family that hands pictures on one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..training.interfaces import AttuneError

Latent = Mapping[str, Any]

# Values of a LATENT that hold one entry per sample; all others describe the batch as a whole.
SAMPLES, MASK, INDEX = "samples", "noise_mask", "batch_index"


def split_latents(latents: Sequence[Latent]) -> list[dict[str, Any]]:
    """LATENTs, each a batch, as one LATENT per sample.

    The number of a sample within its batch is kept in `batch_index`, as the host does when it takes a latent out of a
    batch: the sampler then gives it the same noise as before.

    Raises:
        AttuneError: not a LATENT, it does not number each of its samples, or its mask is empty.
    """
    singles = []
    for latent in latents:
        samples = latent.get(SAMPLES) if isinstance(latent, Mapping) else None
        if not isinstance(samples, torch.Tensor) or samples.ndim < 4:
            raise AttuneError("The latent input got something without samples [B, C, H, W]. Connect a LATENT output.")
        rest = {key: value for key, value in latent.items() if key not in (SAMPLES, MASK, INDEX)}
        numbers = _numbers(latent.get(INDEX), len(samples))
        mask = _masks(latent.get(MASK))
        for index in range(len(samples)):
            single = rest | {SAMPLES: samples[index : index + 1], INDEX: [numbers[index]]}
            if mask is not None:
                # The host repeats a mask that is shorter than the batch.
                place = index % len(mask)
                single[MASK] = mask[place : place + 1]
            singles.append(single)
    return singles


def _masks(mask: torch.Tensor | None) -> torch.Tensor | None:
    """A noise mask as a batch; a single one [h, w] is for all samples.

    Raises:
        AttuneError: there is none in it.
    """
    masks = mask[None] if mask is not None and mask.ndim == 2 else mask
    if masks is not None and len(masks) == 0:
        raise AttuneError(
            f"The latent's 'noise_mask' of the shape {list(masks.shape)} is empty. Check the node that made it."
        )
    return masks


def _numbers(batch_index: Any, count: int) -> list[int]:
    """The samples' numbers within their batch. Nodes write them as a list or as a tensor, or leave them out.

    Raises:
        AttuneError: there are more or fewer than samples.
    """
    if isinstance(batch_index, torch.Tensor):
        batch_index = batch_index.flatten().tolist()
    if batch_index is None or len(batch_index) == 0:
        return list(range(count))
    if len(batch_index) != count:
        raise AttuneError(
            f"The latent has {count} samples but numbers {len(batch_index)} of them in its 'batch_index'. "
            "Check the node that made it."
        )
    return [int(number) for number in batch_index]
