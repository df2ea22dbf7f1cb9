"""A round's pictures through the host's own samplers, one seed per picture, from noise or from a picture."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
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
    own_seeds: Sequence[int] = (),
) -> torch.Tensor:
    """Sample as the host's SamplerCustom does, with its progress bar and previews.

    Args:
        noise: [B, C, H, W], of every picture's seed.
        sigmas: [steps + 1], descending.
        start: latents that the noise is added to; None = pure noise.
        seed: of what the sampler draws itself for the whole batch.
        own_seeds: [B], of what it draws for each picture, which then comes out as it would alone (see `own_noise`);
            none = `seed` is all pictures'.

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
        own_noise(comfy.samplers.sampler_object(sampler), sampler, own_seeds),
        sigmas,
        positive,
        negative,
        torch.zeros_like(noise) if start is None else start,
        callback=callback,
        disable_pbar=True,
        seed=seed,
    ).cpu()


def own_noise(kind: Any, name: str, seeds: Sequence[int]) -> Any:
    """A sampler of the host that draws each picture's noise by the picture's seed, as it would for this picture alone.

    All of the host's that draw noise between steps can. What comes out for a picture alone still depends on the batch
    with dpm_adaptive, which chooses one step for all pictures, and with samplers of other packs that draw in ways of
    their own. Samplers that draw nothing stay as they are.

    Args:
        kind: the host's sampler. name: its name there. seeds: [B]; none = it stays as it is.
    """
    function = getattr(kind, "sampler_function", None)
    if not seeds or function is None or "noise_sampler" not in inspect.signature(function).parameters:
        return kind

    def sample(model: Any, x: torch.Tensor, sigmas: torch.Tensor, **options: Any) -> torch.Tensor:
        return function(model, x, sigmas, noise_sampler=_noise_of_rows(name, x, sigmas, seeds), **options)

    kind.sampler_function = sample
    return kind


def _noise_of_rows(
    name: str, x: torch.Tensor, sigmas: torch.Tensor, seeds: Sequence[int]
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """What the host's sampler would draw for each row of x [B, …] alone: (sigma, next sigma) → [B, …]."""
    from comfy.k_diffusion.sampling import BrownianTreeNoiseSampler, default_noise_sampler

    rows = [(x[row : row + 1], seed) for row, seed in enumerate(seeds)]
    # These follow one path of noise, however many steps it is cut into; on the GPU where their name says so.
    if name.startswith("dpmpp") and "sde" in name and len(sigmas) > 1:
        ends = sigmas[sigmas > 0].min(), sigmas.max()
        on_cpu = not name.endswith("_gpu")
        drawn = [BrownianTreeNoiseSampler(row, *ends, seed=seed, cpu=on_cpu) for row, seed in rows]
    else:
        drawn = [default_noise_sampler(row, seed=seed) for row, seed in rows]
    return lambda sigma, following: torch.cat([draw(sigma, following) for draw in drawn])
