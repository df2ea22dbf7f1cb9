"""The direction of chosen pictures with the host's MODEL; see `training.objectives.picture_direction`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...training.checkpointing import checkpointing, repeated_blocks
from ...training.interfaces import AttuneError
from ...training.memory import ran_out
from ...training.objectives.picture_direction import Choice, DirectionConfig, picture_direction
from .denoiser import HostDenoiser
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
) -> torch.Tensor | None:
    """δ [T, D] for a prompt of these tokens [1, T, D], with progress; Cancel ends it.

    Args:
        model: the host's MODEL, used as it is. chosen: at least one, oldest first, of one size.
        config: its chunk is made smaller for large pictures.

    Returns:
        None where the latents are those of another kind of model.

    Raises:
        AttuneError: the model cannot be moved this way, or there is not enough memory; says what to do.
    """
    frames, size = has_frames(model), chosen[-1].liked.shape
    if size[1] != model.model.latent_format.latent_channels or len(size) != (5 if frames else 4):
        return None
    if size[-1] * size[-2] > _LARGEST_TOGETHER:
        config = replace(config, chunk=1)
    try:
        return _found(model, chosen, tokens, config, frames)
    except Exception as error:
        if not ran_out(error):
            raise
        raise AttuneError(
            "There is not enough memory to find what the pictures you chose or refused have in common "
            f"({size[-1]} × {size[-2]} latents). Set pictures of Refine Conditioning to 0, take its model off, or draw "
            "smaller pictures."
        ) from error


def _found(
    model: Any, chosen: Sequence[Chosen], tokens: torch.Tensor, config: DirectionConfig, frames: bool
) -> torch.Tensor:  # fmt: skip
    bar, size = progress_bar(config.steps), chosen[-1].liked.shape
    shape = (2 * config.chunk, size[1], size[-2], size[-1])
    large = config.chunk == 1
    with training_session(model, shape=shape) as denoiser, _sparing(denoiser) if large else nullcontext():

        def inward(latents: torch.Tensor) -> torch.Tensor:
            return from_host(model.model.process_latent_in(latents.float().clone()), frames)

        choices = [
            Choice(denoiser.prompt(one.prompt, one.conditioning).positive, inward(one.liked), inward(one.others))
            for one in chosen
        ]
        return picture_direction(
            denoiser, choices, tokens[0], lambda cond, shift: cond.moved(shift), config, on_step=lambda *_: bar()
        )


def _sparing(denoiser: HostDenoiser) -> AbstractContextManager[Any]:
    """Blocks that compute again on the way back instead of being kept, where the network has known ones."""
    if not repeated_blocks(denoiser.module):
        return nullcontext()
    return checkpointing(denoiser.module, again=denoiser.overwriting)
