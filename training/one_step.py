"""One call of the network as a picture: what a one-step generator is, for whoever trains or samples one.

    x0 = D_θ(x, σ, c),    x = √(1 + σ²)·z for eps and v models, σ·z for flow models,    z ~ N(0, 1)

σ is the level of a *timestep* of 0 … 999, as the field speaks of it: 999 is pure noise, 399 what DI* and DMD2 use for
SDXL. The network's own input then has unit variance, as its training had at any level, though it holds no picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .diffusion import DiffusionProcess
from .interfaces import TrainingError

TIMESTEPS = 1000


def level_of(process: DiffusionProcess, timestep: int) -> float:
    """Sigma of a timestep, whatever number of levels the network knows.

    Raises:
        TrainingError: there is no such timestep.
    """
    if not 0 <= timestep < TIMESTEPS:
        raise TrainingError(f"A timestep is a whole number from 0 to {TIMESTEPS - 1}, not {timestep}.")
    count = len(process.sigmas)
    return float(process.sigmas[timestep * count // TIMESTEPS if timestep < TIMESTEPS - 1 else count - 1])


def generate(denoiser: Any, noise: torch.Tensor, cond: Sequence[Any], *, sigma: float) -> torch.Tensor:
    """Latents [B, C, H, W] of as many pictures, in one call and without guidance.

    Args:
        denoiser: a `Denoiser`; noise: unit Gaussian [B, C, H, W]; cond: B conditionings.
        sigma: the generator's level, > 0; see `level_of`.
    """
    levels = torch.full((len(noise),), sigma, device=noise.device)
    return denoiser(denoiser.process.initial(noise, levels), levels, cond)
