"""The host's VAE as a `LatentDecoder`: network latents to images and back, with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.model_management
import torch
from torch.utils.checkpoint import checkpoint

from ...training.interfaces import AttuneError
from .frames import from_host, has_frames, to_host
from .weights import thaw_attributes, thaw_module

# A backward pass through a decoder needs about this many times the memory of the host's estimate for decoding.
BACKWARD_FACTOR = 3
LARGEST_CHUNK = 16


class HostDecoder:
    """A `training.interfaces.LatentDecoder` over a VAE and the model whose latents it decodes.

    The host's `VAE.decode` runs without gradients; this goes the same way through `first_stage_model.decode` and the
    VAE's own output map, in chunks that fit the memory. Chunks beyond the first are recomputed in the backward pass,
    so that only one of them holds activations.

    Args:
        vae: the host's VAE.
        model: the host's MODEL: its latent format scales between network and VAE.
    """

    def __init__(self, vae: Any, model: Any) -> None:
        if getattr(vae, "first_stage_model", None) is None:
            raise AttuneError("This VAE has no weights: its checkpoint holds none. Load a VAE with its own loader.")
        self._vae, self._model, self._frames = vae, model, has_frames(model)
        if getattr(vae, "latent_dim", 2) != (3 if self._frames else 2):
            kind = {1: "sound or shapes", 2: "still pictures", 3: "videos"}.get(vae.latent_dim, "something else")
            raise AttuneError(f"This VAE is one for {kind}, and not of this model. Connect the VAE that belongs to it.")

    @property
    def device(self) -> torch.device:
        return self._vae.device

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Network latents [B, C, H, W] → images [B, h, w, 3] in [0, 1], float32, differentiable with gradients on.

        Raises:
            AttuneError: the latents do not have the VAE's number of channels.
        """
        if latents.ndim != 4 or latents.shape[1] != self._vae.latent_channels:
            raise AttuneError(
                f"Latents of shape {tuple(latents.shape)} do not fit this VAE, which expects [batch, "
                f"{self._vae.latent_channels}, height, width]. Use the VAE that belongs to the model."
            )
        differentiable = torch.is_grad_enabled() and latents.requires_grad
        with torch.inference_mode(False), torch.set_grad_enabled(differentiable):
            size = self._load(latents, differentiable)
            if not differentiable and latents.is_inference():
                latents = latents.clone()
            chunks = latents.split(size)
            if differentiable and len(chunks) > 1:
                images = [checkpoint(self._decode, chunk, use_reentrant=False) for chunk in chunks]
            else:
                images = [self._decode(chunk) for chunk in chunks]
            return torch.cat(images)

    def decoding_bytes(self, shape: Sequence[int]) -> int:
        """Of one latent [C, H, W] without gradients, as the host estimates; more are decoded at once where they fit."""
        return self._needed(torch.empty(1, *shape, device="meta"))

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, h, w, 3] in [0, 1] → network latents [B, C, H, W], float32, without gradients.

        The host crops images to a multiple of the VAE's factor.
        """
        with torch.inference_mode(False), torch.no_grad():
            # A video VAE takes several pictures for the frames of one video.
            batches = images[..., :3].clone().split(1 if self._frames else max(1, len(images)))
            latents = torch.cat([self._vae.encode(batch) for batch in batches])
            return self.inward(latents)

    def inward(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [B, C, …] as the model's samplers give them → network latents [B, C, H, W], float32, of their own."""
        return from_host(self._model.model.process_latent_in(latents.float().clone()).float().clone(), self._frames)

    def _load(self, latents: torch.Tensor, differentiable: bool) -> int:
        """Have the VAE on its device, trainable through; returns how many samples to decode at once."""
        vae = self._vae
        needed = self._needed(latents[:1])
        needed *= BACKWARD_FACTOR if differentiable else 1
        patcher = vae.patcher
        resident = patcher.loaded_size() >= patcher.model_size() and patcher.current_loaded_device() == self.device
        if not resident:
            # Not asked for again once it is there: the host would look for room, and might take the model's.
            with torch.inference_mode():
                comfy.model_management.load_models_gpu([patcher], memory_required=needed)
        thaw_module(vae.first_stage_model)
        vae.first_stage_model.requires_grad_(False)
        thaw_attributes(self._model.model.latent_format)
        free = comfy.model_management.get_free_memory(self.device)
        return max(1, min(LARGEST_CHUNK, int(free / max(1, needed))))

    def _needed(self, latent: torch.Tensor) -> int:
        return int(self._vae.memory_used_decode(to_host(latent, self._frames).shape, self._vae.vae_dtype))

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        vae = self._vae
        latents = to_host(latents.to(self.device, torch.float32), self._frames)
        scaled = self._model.model.process_latent_out(latents)
        pixels = from_host(vae.first_stage_model.decode(scaled.to(vae.vae_dtype)).float(), self._frames)
        # Newer hosts map the output in place, which a tensor that the decoder keeps for its backward would not survive.
        return vae.process_output(pixels.clone()).movedim(1, -1)[..., :3]
