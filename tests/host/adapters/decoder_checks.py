"""`HostDecoder` against the host's VAE."""

from __future__ import annotations

from typing import Any

import comfy.sd
import torch
from cases import demo, draw
from comfy.ldm.models.autoencoder import AutoencoderKL
from compare import close, slope_agrees

import attune.nodes.host.decoder as module
from attune.nodes.host.decoder import HostDecoder


def small_kl_vae() -> Any:
    """A VAE of the Stable Diffusion kind (with attention), 16 latent channels, random weights."""
    shape = {"double_z": True, "z_channels": 16, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32}
    shape |= {"ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}
    with torch.inference_mode():
        weights = AutoencoderKL(ddconfig=shape, embed_dim=16).state_dict()
        generator = torch.Generator().manual_seed(1)
        for key, value in weights.items():
            scale = 1 / max(1, value[0].numel()) ** 0.5 if value.ndim > 1 else 0.1
            weights[key] = torch.randn(value.shape, generator=generator) * scale
        vae = comfy.sd.VAE(sd=weights, config={"params": {"ddconfig": shape, "embed_dim": 16}})
        vae.latent_channels = 16
        return vae


def check_decoder_equals_vae() -> None:
    model = demo()["model"]
    for vae in (demo()["vae"], small_kl_vae()):
        decoder = HostDecoder(vae, model)
        latents = draw((16, 8, 8))
        with torch.inference_mode():
            expected = vae.decode(model.model.process_latent_out(latents))
            images = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(3))
            coded = model.model.process_latent_in(vae.encode(images))
            close(decoder.decode(latents.clone()), expected)
            close(decoder.encode(images), coded)
        assert decoder.decode(latents).shape == (3, 64, 64, 3)
        assert not decoder.decode(latents).is_inference()
        assert not decoder.encode(images).is_inference()


def check_decoder_gradient() -> None:
    for vae in (demo()["vae"], small_kl_vae()):
        decoder = module.HostDecoder(vae, demo()["model"])
        weight = torch.randn(3, 64, 64, 3, generator=torch.Generator().manual_seed(4))

        def loss(latents: Any) -> Any:
            return (decoder.decode(latents) * weight).sum()  # noqa: B023

        gradients = []
        largest = module.LARGEST_CHUNK
        for chunk in (largest, 1):
            module.LARGEST_CHUNK = chunk
            latents = (0.3 * draw((16, 8, 8))).requires_grad_(True)
            loss(latents).backward()
            gradients.append(latents.grad)
        module.LARGEST_CHUNK = largest
        close(gradients[1], gradients[0])
        with torch.no_grad():
            slope_agrees(loss, latents.detach(), latents.grad, tolerance=0.05)
        assert all(parameter.grad is None for parameter in vae.first_stage_model.parameters())
