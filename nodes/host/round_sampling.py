"""A round's pictures through the host's own samplers, one seed per picture, from noise or from a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Levels:
    """The noise levels of a model.

    Attributes:
        least, most: its smallest and largest sigma, above 0.
        flow: whether it is a flow model. shift: of its time; 1 = none.
    """

    least: float
    most: float
    flow: bool
    shift: float


def levels_of(model: Any) -> Levels:
    """Of the host's MODEL, as its sampling nodes have set it."""
    import comfy.model_sampling

    sampling = model.get_model_object("model_sampling")
    flow = isinstance(sampling, comfy.model_sampling.CONST)
    shift = float(getattr(sampling, "shift", 1.0)) if flow else 1.0
    # Flux moves its time by exp(shift).
    if flow and isinstance(sampling, comfy.model_sampling.ModelSamplingFlux):
        shift = float(torch.tensor(shift).exp())
    return Levels(float(sampling.sigma_min), float(sampling.sigma_max), flow, shift)


def sample_round(
    model: Any,
    noise: torch.Tensor,
    positive: Any,
    negative: Any,
    *,
    sigmas: torch.Tensor,
    start: torch.Tensor | None,
    guidance: float,
    sampler: str,
    seed: int,
) -> torch.Tensor:
    """Sample as the host's SamplerCustom does, with its progress bar and previews.

    Args:
        noise: [B, C, H, W], of every picture's seed.
        sigmas: [steps + 1], descending.
        start: latents that the noise is added to; None = pure noise.
        seed: of what the sampler draws itself.

    Returns:
        Host latents [B, C, H, W] on the CPU.
    """
    import comfy.sample
    import comfy.samplers
    import latent_preview

    callback = latent_preview.prepare_callback(model, len(sigmas) - 1)
    return comfy.sample.sample_custom(
        model,
        noise,
        guidance,
        comfy.samplers.sampler_object(sampler),
        sigmas,
        positive,
        negative,
        torch.zeros_like(noise) if start is None else start,
        callback=callback,
        disable_pbar=True,
        seed=seed,
    ).cpu()
