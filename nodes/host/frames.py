"""Latents with a frame axis. Video models have it, and image models built like them (Qwen-Image): [B, C, 1, H, W].

Training knows pictures only, [B, C, H, W]; the axis is added where a latent goes to the host, and taken off again.
"""

from __future__ import annotations

from typing import Any

import torch

from ...training.interfaces import AttuneError


def has_frames(model: Any) -> bool:
    """Whether the latents of a MODEL have a frame axis.

    Raises:
        AttuneError: they are not those of pictures at all.
    """
    dimensions = getattr(model.get_model_object("latent_format"), "latent_dimensions", 2)
    if dimensions not in (2, 3):
        kind = type(model.model).__name__
        raise AttuneError(f"This model ({kind}) makes no pictures but sound or shapes. Train on a text-to-image model.")
    return dimensions == 3


def to_host(latents: torch.Tensor, frames: bool) -> torch.Tensor:
    """[B, C, H, W] → [B, C, 1, H, W] where there are `frames`."""
    return latents.unsqueeze(2) if frames else latents


def from_host(latents: torch.Tensor, frames: bool) -> torch.Tensor:
    """The inverse of `to_host`; also for decoded pictures [B, 3, 1, h, w].

    Raises:
        AttuneError: there is more than one frame.
    """
    if not frames:
        return latents
    if latents.ndim != 5 or latents.shape[2] != 1:
        raise AttuneError(
            f"One picture became {tuple(latents.shape)}, which is no single frame: this model makes videos only. Train "
            f"on an image model."
        )
    return latents.squeeze(2)
