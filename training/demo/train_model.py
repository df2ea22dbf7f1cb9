"""The recipe of the demo model, in four stages that can run beside each other once the first is done.

1. `fit_latents`: a linear (PCA) encoder of 8×8 pixel patches into 16 channels fixes the latent space at once. It is
   not whitened per channel: one global scale learns far better.
2. `train_denoiser`: U-Net and text encoder, v-prediction, on those latents.
3. `train_decoder`: the TAESD decoder inverts the PCA latents; being nonlinear and seeing neighbouring patches it paints
   cleaner outlines than the linear inverse.
4. `train_encoder`: the TAESD encoder learns to produce the PCA latents, so that image-to-image works too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..checkpoint import read_state, write_state
from . import data, networks
from .stages import Pictures, StageConfig, run_stage

PATCH = 8
CAPTION_DROPOUT = 0.1
# The host divides a latent by this before decoding. It keeps the largest channel's deviation near 1.5, where the
# decoder's input clamp (tanh at ±3) is still nearly linear.
LATENT_SCALE = 1.5


class PatchLatents:
    """The linear latent space: z = (patch − mean) · basis · scale.

    Attributes:
        mean: [192]; basis: [192, 16], orthonormal columns; scale: float, such that mean(z²) = 1 over the data.
    """

    def __init__(self, mean: torch.Tensor, basis: torch.Tensor, scale: float) -> None:
        self.mean, self.basis, self.scale = mean, basis, scale

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, 3, 64, 64] in [0, 1] → latents [B, 16, 8, 8]."""
        patches = F.unfold(images, PATCH, stride=PATCH).transpose(1, 2)  # (B, 64, 192)
        latents = (patches - self.mean) @ self.basis * self.scale
        size = images.shape[-1] // PATCH
        return latents.transpose(1, 2).reshape(len(images), -1, size, size)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The linear inverse, not clamped: latents [B, 16, 8, 8] → images [B, 3, 64, 64]."""
        flat = latents.flatten(2).transpose(1, 2) / self.scale @ self.basis.T + self.mean
        size = latents.shape[-1] * PATCH
        return F.fold(flat.transpose(1, 2), (size, size), PATCH, stride=PATCH)

    def preview_factors(self) -> dict[str, list]:
        """The linear map from a latent to its patch's mean colour in [0, 1]: factors [16][3] and bias [3].

        It is what the host's quick latent previews use.
        """
        per_channel = (self.basis / self.scale).reshape(3, PATCH * PATCH, -1).mean(1).T
        bias = self.mean.reshape(3, -1).mean(1)
        return {"factors": per_channel.tolist(), "bias": bias.tolist()}


def training_pictures(library: data.Library) -> Pictures:
    """Everything the diffusion model may see: all pairs but the held-out ones."""
    return Pictures(library, lambda concept, style: not data.is_held_out(concept, style))


def fit_latents(library: data.Library, folder: Path) -> PatchLatents:
    """Fit the PCA on 4,096 pictures, or load it."""
    path = folder / "latents.state.safetensors"
    if path.exists():
        tensors, state = read_state(path)
        return PatchLatents(tensors["mean"], tensors["basis"], state["scale"])
    images, _ = training_pictures(library).draw(4096, np.random.default_rng(1))
    patches = F.unfold(images, PATCH, stride=PATCH).transpose(1, 2).reshape(-1, 3 * PATCH * PATCH).double()
    mean = patches.mean(0)
    _, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    basis = vectors[:, -networks.LATENT_CHANNELS :].flip(1)
    coded = (patches - mean) @ basis
    scale = float(coded.square().mean().rsqrt())
    write_state(path, {"mean": mean.float(), "basis": basis.float().contiguous()}, {"scale": scale})
    return PatchLatents(mean.float(), basis.float(), scale)


def alphas_cumulative() -> torch.Tensor:
    """The host's VP schedule (Stable Diffusion's scaled-linear betas), float32 [1000]."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


def train_denoiser(library: data.Library, folder: Path, *, seconds: float, on_checkpoint=None) -> dict[str, nn.Module]:
    """Stage 2. Timesteps are drawn as sigmoid(N(0.4, 1.3)), which spends the effort where the shapes are decided."""
    torch.manual_seed(0)
    latents = fit_latents(library, folder)
    pictures = training_pictures(library)
    unet, text = networks.build_unet(), networks.build_text_encoder()
    networks.keep_token_rows(text.get_input_embeddings().weight, data.vocabulary())
    alphas = alphas_cumulative()

    def loss_of_step(rng: np.random.Generator, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        images, attributes = pictures.draw(config.batch, rng)
        captions = ["" if rng.random() < CAPTION_DROPOUT else data.caption(a, rng) for a in attributes]
        clean = latents.encode(images)
        noise = torch.randn(clean.shape, generator=generator)
        position = torch.sigmoid(0.4 + 1.3 * torch.randn(config.batch, generator=generator))
        timesteps = (position * 1000).long().clamp(0, 999)
        alpha = alphas[timesteps].reshape(-1, 1, 1, 1)
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        target = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        context = text(networks.tokenize(captions)).last_hidden_state
        return F.mse_loss(unet(noisy, timesteps, context).sample, target), {}

    config = StageConfig("denoiser", seconds, 6e-4, batch=32)
    return run_stage(config, {"unet": unet, "text": text}, loss_of_step, folder, on_checkpoint=on_checkpoint)


def train_decoder(library: data.Library, folder: Path, *, seconds: float) -> nn.Module:
    """Stage 3, on crops of 4×4 latents → 32×32 pixels. Loss: L1 + MSE."""
    torch.manual_seed(3)
    latents = fit_latents(library, folder)
    pictures = training_pictures(library)
    decoder = networks.build_autoencoder().decoder
    with torch.no_grad():
        for block in decoder.layers:
            if hasattr(block, "conv") and isinstance(block.conv, nn.Sequential):
                # Near-identity blocks at the start: the plain initialisation of 19 residual blocks hardly trains.
                block.conv[-1].weight.mul_(0.1)

    def loss_of_step(rng: np.random.Generator, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        images, _ = pictures.draw(config.batch, rng)
        coded = latents.encode(images) / LATENT_SCALE
        # Generated latents are never exact: a little noise teaches the decoder to clean up instead of amplifying.
        coded = coded + 0.03 * torch.randn(coded.shape, generator=generator)
        y, x = (int(v) for v in rng.integers(0, 5, size=2))
        target = images[:, :, PATCH * y : PATCH * (y + 4), PATCH * x : PATCH * (x + 4)]
        painted = decoder(coded[:, :, y : y + 4, x : x + 4])
        painted = (painted + 1) / 2
        error = F.mse_loss(painted, target)
        return F.l1_loss(painted, target) + error, {"psnr": round(-10 * error.log10().item(), 3)}

    config = StageConfig("decoder", seconds, 1e-3, batch=16, seed=3)
    return run_stage(config, {"decoder": decoder}, loss_of_step, folder)["decoder"]


def train_encoder(library: data.Library, folder: Path, *, seconds: float) -> nn.Module:
    """Stage 4: regress the latents from the picture."""
    torch.manual_seed(4)
    latents = fit_latents(library, folder)
    pictures = training_pictures(library)
    encoder = networks.build_autoencoder().encoder
    with torch.no_grad():
        for block in encoder.layers:
            if hasattr(block, "conv") and isinstance(block.conv, nn.Sequential):
                block.conv[-1].weight.mul_(0.1)

    def loss_of_step(rng: np.random.Generator, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        images, _ = pictures.draw(config.batch, rng)
        y, x = (int(v) for v in rng.integers(0, 5, size=2))
        crop = images[:, :, PATCH * y : PATCH * (y + 4), PATCH * x : PATCH * (x + 4)]
        target = latents.encode(crop) / LATENT_SCALE
        return F.mse_loss(encoder(crop * 2 - 1), target), {}

    config = StageConfig("encoder", seconds, 1e-3, batch=16, seed=4)
    return run_stage(config, {"encoder": encoder}, loss_of_step, folder)["encoder"]
