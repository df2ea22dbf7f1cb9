"""The demo model without a host: denoiser, prompts and decoder from its checkpoint, for evidence and experiments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..checkpoint import read_tensors
from ..denoisers import DiffusersDenoiser, process_of
from ..interfaces import Prompt
from . import data, networks
from .train_model import LATENT_SCALE

# Eight pictures' activations stay in a processor's cache, and its convolutions are quicker with the channels last:
# together 2.2 times as quick as 64 pictures at once.
_PICTURES = 8


class AutoencoderDecoder:
    """A `LatentDecoder` over the demo autoencoder."""

    def __init__(self, autoencoder: nn.Module, scale: float = LATENT_SCALE) -> None:
        self.autoencoder = autoencoder.requires_grad_(False).to(memory_format=torch.channels_last)
        self.scale = scale

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [B, 16, H, W] → images [B, 8H, 8W, 3] in [0, 1]."""
        parts = (latents / self.scale).contiguous(memory_format=torch.channels_last).split(_PICTURES)
        images = torch.cat([self.autoencoder.decoder(part) for part in parts])
        return ((images + 1) / 2).clamp(0, 1).movedim(1, -1)

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, h, w, 3] in [0, 1] → latents [B, 16, h/8, w/8]."""
        return self.autoencoder.encoder(images.movedim(-1, 1) * 2 - 1) * self.scale


@dataclass
class DemoPipeline:
    """What the demo checkpoint holds, as the training core wants it."""

    denoiser: DiffusersDenoiser
    decoder: AutoencoderDecoder
    text_encoder: nn.Module
    latent_shape: tuple[int, int, int] = (networks.LATENT_CHANNELS, networks.LATENT_SIZE, networks.LATENT_SIZE)

    @classmethod
    def load(cls, path: Path) -> DemoPipeline:
        """Read `attune_demo.safetensors`.

        Raises:
            CheckpointError: not a readable file. KeyError: not this model.
        """
        tensors, _ = read_tensors(path)
        return cls.of(*networks.load_host_checkpoint(tensors))

    @classmethod
    def of(cls, unet: nn.Module, text: nn.Module, autoencoder: nn.Module) -> DemoPipeline:
        """From the networks themselves."""
        for module in (unet, text, autoencoder):
            module.eval().requires_grad_(False)
        with torch.no_grad():
            empty = text(networks.tokenize([""])).last_hidden_state[0]
        return cls(DiffusersDenoiser(unet, process_of("v"), empty), AutoencoderDecoder(autoencoder), text)

    @torch.no_grad()
    def prompts(self, texts: Sequence[str]) -> list[Prompt]:
        """Encode prompts."""
        states = self.text_encoder(networks.tokenize(list(texts))).last_hidden_state
        return [Prompt(text, state) for text, state in zip(texts, states, strict=True)]


def prompt_text(concept: str, style: str = "", background: str = "") -> str:
    """The plain phrasing: "a red mushroom, 3d style, on a blue background", without what is left empty."""
    parts = [concept if concept in data.PLURALS else data.with_article(concept)]
    parts += [f"{style} style"] if style else []
    parts += [f"on {data.with_article(background)} background"] if background else []
    return ", ".join(parts)
