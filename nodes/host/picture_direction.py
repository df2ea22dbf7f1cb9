"""The direction of chosen pictures with the host's MODEL; see `training.objectives.picture_direction`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...training.objectives.picture_direction import Choice, DirectionConfig, picture_direction
from .frames import from_host, has_frames
from .sampling import progress_bar
from .session import training_session

# Of one channel of a latent. Larger pictures go through the network pair by pair: what is kept for the way back grows
# with their area.
_LARGEST_TOGETHER = 64 * 64


@dataclass(frozen=True)
class Chosen:
    """A round's choice, as the host has it.

    Attributes:
        prompt: its words. conditioning: of these words, the host's CONDITIONING.
        liked, others: latents [N, C, …], as samplers give them.
    """

    prompt: str
    conditioning: Any
    liked: torch.Tensor
    others: torch.Tensor


def direction_of_pictures(
    model: Any, chosen: Sequence[Chosen], tokens: torch.Tensor, config: DirectionConfig
) -> torch.Tensor:
    """δ [T, D] for a prompt of these tokens [1, T, D], with progress; Cancel ends it.

    Args:
        model: the host's MODEL, used as it is. chosen: at least one, oldest first, of one size.
        config: its chunk is made smaller for large pictures.

    Raises:
        AttuneError: the model does not fit the latents or cannot be moved this way; says what to do.
    """
    frames, size = has_frames(model), chosen[-1].liked.shape
    if size[-1] * size[-2] > _LARGEST_TOGETHER:
        config = replace(config, chunk=1)
    bar = progress_bar(config.steps)
    shape = (2 * config.chunk, size[1], size[-2], size[-1])
    with training_session(model, shape=shape) as denoiser:

        def inward(latents: torch.Tensor) -> torch.Tensor:
            return from_host(model.model.process_latent_in(latents.float().clone()), frames)

        choices = [
            Choice(denoiser.prompt(one.prompt, one.conditioning).positive, inward(one.liked), inward(one.others))
            for one in chosen
        ]
        return picture_direction(
            denoiser, choices, tokens[0], lambda cond, shift: cond.moved(shift), config, on_step=lambda *_: bar()
        )
