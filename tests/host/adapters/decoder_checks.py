"""`HostDecoder` against the host's VAE."""

from __future__ import annotations

from typing import Any

import comfy.sd
import torch
from cases import cases, demo, draw
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.ldm.wan.vae import WanVAE
from compare import close, raises, slope_agrees

import attune.nodes.host.decoder as module
from attune.nodes.host.decoder import HostDecoder
from attune.training.interfaces import AttuneError


def small_kl_vae(channels: int = 16) -> Any:
    """A VAE of the Stable Diffusion kind (with attention), random weights."""
    shape = {"double_z": True, "z_channels": channels, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32}
    shape |= {"ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}
    with torch.inference_mode():
        weights = AutoencoderKL(ddconfig=shape, embed_dim=channels).state_dict()
        generator = torch.Generator().manual_seed(1)
        for key, value in weights.items():
            scale = 1 / max(1, value[0].numel()) ** 0.5 if value.ndim > 1 else 0.1
            weights[key] = torch.randn(value.shape, generator=generator) * scale
        vae = comfy.sd.VAE(sd=weights, config={"params": {"ddconfig": shape, "embed_dim": channels}})
        vae.latent_channels = channels
        return vae


def small_video_vae() -> Any:
    """A VAE of the Wan 2.1 kind, which Qwen-Image uses too: 16 latent channels and a frame axis, random weights."""
    shape = {"dim": 8, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": []}
    with torch.inference_mode():
        weights = WanVAE(**shape, temperal_downsample=[False, True, True]).state_dict()
        generator = torch.Generator().manual_seed(1)
        for key, value in weights.items():
            scale = 1 / max(1, value[0].numel()) ** 0.5 if value.ndim > 1 else 0.1
            weights[key] = torch.randn(value.shape, generator=generator) * scale + key.endswith("gamma")
        return comfy.sd.VAE(sd=weights)


def check_pictures_of_a_video_vae() -> None:
    """One frame per picture, where the host itself would take several pictures for one video."""
    model, vae = cases()["qwen image (flow), one frame"][0], small_video_vae()
    assert vae.latent_dim == 3
    decoder = HostDecoder(vae, model)
    latents = draw((16, 8, 8), count=2)
    with torch.inference_mode():
        expected = vae.decode(model.model.process_latent_out(latents.unsqueeze(2)))
        images = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(3))
        coded = [model.model.process_latent_in(vae.encode(image[None])).squeeze(2) for image in images]
        close(decoder.decode(latents.clone()), expected.squeeze(1))
        close(decoder.encode(images), torch.cat(coded))
    assert decoder.decode(latents).shape == (2, 64, 64, 3)
    assert decoder.decoding_bytes((16, 8, 8)) == vae.memory_used_decode((1, 16, 1, 8, 8), vae.vae_dtype)
    assert decoder.encode(images).shape == (2, 16, 8, 8)


def check_a_vae_of_another_kind_is_refused() -> None:
    picture, video = demo()["model"], cases()["qwen image (flow), one frame"][0]
    raises(AttuneError, "This VAE is one for videos", HostDecoder, small_video_vae(), picture)
    raises(AttuneError, "This VAE is one for still pictures", HostDecoder, demo()["vae"], video)
    sound = small_kl_vae()
    sound.latent_dim = 1
    raises(AttuneError, "This VAE is one for sound or shapes", HostDecoder, sound, picture)


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
        one, larger = (decoder.decoding_bytes((16, side, side)) for side in (8, 16))
        assert one == vae.memory_used_decode((1, 16, 8, 8), vae.vae_dtype) and larger > 2 * one > 0
        assert not decoder.decode(latents).is_inference()
        assert not decoder.encode(images).is_inference()


def check_decoder_gradient() -> None:
    video = cases()["qwen image (flow), one frame"][0]
    for vae, model in ((demo()["vae"], demo()["model"]), (small_kl_vae(), demo()["model"]), (small_video_vae(), video)):
        decoder = module.HostDecoder(vae, model)
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
