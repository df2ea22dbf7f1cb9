"""The host's own text encoder, sampler and LoRA loader, called as its nodes call them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ...training.adapters.files import DIFFERENCES
from ...training.interfaces import AttuneError

UP = ".lora_up.weight"


def encode_prompts(clip: Any, texts: Sequence[str]) -> list[Any]:
    """The host's CONDITIONING of every text, as its CLIPTextEncode makes it; equal texts are encoded once.

    Raises:
        AttuneError: there is no text encoder, as with a checkpoint that holds the diffusion model only.
    """
    if clip is None:
        raise AttuneError(
            "The clip input holds no text encoder: this checkpoint has none. Connect a CLIP loader instead."
        )
    made = {text: clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in dict.fromkeys(texts)}
    return [made[text] for text in texts]


def empty_latent(model: Any, latent: Mapping[str, Any]) -> torch.Tensor:
    """Zeros [1, C, H, W] of the size that `latent` (the host's LATENT) asks for, with the channels of `model`.

    Raises:
        AttuneError: the latent is not that of a still picture.
    """
    import comfy.sample

    samples = latent["samples"]
    if getattr(samples, "is_nested", False) or samples.ndim < 4:
        raise AttuneError("The latent input is not one of a picture. Connect an Empty Latent Image.")
    blank = torch.zeros(1, *samples.shape[1:], dtype=samples.dtype)  # also where the batch is empty
    empty = comfy.sample.fix_empty_latent_channels(model, blank)
    if empty.ndim == 5 and empty.shape[2] != 1:
        raise AttuneError(f"The latent is a video of {empty.shape[2]} frames. Connect a latent of one picture.")
    return empty


def seeded_noise(empty: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
    """The noise that the host's KSampler would start each seed with, [len(seeds), C, H, W], on the CPU."""
    import comfy.sample

    return torch.cat([comfy.sample.prepare_noise(empty, seed) for seed in seeds])


def sample_latents(
    model: Any,
    noise: torch.Tensor,
    positive: Any,
    negative: Any,
    *,
    steps: int,
    guidance: float,
    sampler: str,
    scheduler: str,
    seed: int,
    on_step: Callable[[], None],
) -> torch.Tensor:
    """Sample as the host's KSampler does, starting from `noise`; host latents of the same shape.

    Args:
        on_step: called after every step; may raise to cancel.
    """
    import comfy.sample

    return comfy.sample.sample(
        model,
        noise,
        steps,
        guidance,
        sampler,
        scheduler,
        positive,
        negative,
        torch.zeros_like(noise),
        callback=lambda *_: on_step(),
        disable_pbar=True,
        seed=seed,
    )


def decode_latents(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Host latents → images float32 [B, h, w, 3] in [0, 1], through the host's VAE."""
    images = vae.decode(latents)
    if images.ndim == 5:  # (B, frames, h, w, 3): a video VAE's still picture
        images = images.flatten(0, 1)
    return images[..., :3].float().cpu()


def sampler_names() -> tuple[list[str], list[str]]:
    """The samplers and the schedulers that the running host offers."""
    import comfy.samplers

    return list(comfy.samplers.KSampler.SAMPLERS), list(comfy.samplers.KSampler.SCHEDULERS)


def apply_lora(model: Any, tensors: Mapping[str, torch.Tensor], *, strength: float = 1.0) -> Any:
    """`model` with a LoRA on it, through the host's own loader.

    Raises:
        AttuneError: a layer of the LoRA has no counterpart in the model; a LoRA that does nothing is never silent.
    """
    import comfy.lora
    import comfy.sd

    layers = {key.removesuffix(UP) for key in tensors if key.endswith(UP)}
    # Of whole weights. Beside thin matrices they are other tools' additions, which the host takes or leaves.
    layers = layers or {key.removesuffix(end) for end in DIFFERENCES for key in tensors if key.endswith(end)}
    known = comfy.lora.model_lora_keys_unet(model.model, {})
    missing = sorted(layers - known.keys())
    if missing or not layers:
        raise AttuneError(
            f"{len(missing)} of {len(layers)} layers of this LoRA have no counterpart in the model"
            f"{f' (the first: {missing[0]})' if missing else ''}: it was trained for another architecture. "
            f"Choose the model that it was trained on."
        )
    return comfy.sd.load_lora_for_models(model, None, dict(tensors), strength, 0)[0]


def progress_bar(total: int) -> Callable[[], None]:
    """The host's progress bar for `total` steps; each call is one step, and raises if Cancel was pressed."""
    import comfy.utils

    bar = comfy.utils.ProgressBar(total)
    return lambda: bar.update(1)
