"""The demo model's shape through the host's stock nodes."""

from __future__ import annotations

import copy

import comfy.model_detection
import comfy.supported_models
import comfy.utils
import folder_paths
import latent_preview
import torch
import world
from cases import DEMO, WORDS, demo, draw
from compare import close

import nodes
from attune.nodes.host import demo_model
from attune.training.demo.networks import tokenize
from attune.training.demo.train_model import LATENT_SCALE, alphas_cumulative


def check_unet_equals_diffusers() -> None:
    latents, context = draw((16, 8, 8)), torch.randn(3, 77, 128, generator=torch.Generator().manual_seed(2))
    timesteps = torch.tensor([3, 500, 990])
    model = demo()["model"].model
    with torch.inference_mode():
        expected = demo()["unet"](latents, timesteps, context).sample
        close(model.diffusion_model(latents, timesteps, context=context), expected)
        assert float(expected.std()) > 0.01
        # … and the host takes the output for v on the schedule the demo model is trained with.
        alpha = alphas_cumulative()[timesteps].reshape(-1, 1, 1, 1)
        sigma = ((1 - alpha) / alpha).sqrt()
        clean = alpha.sqrt() * latents - (1 - alpha).sqrt() * expected
        close(model.apply_model(latents * (1 + sigma**2).sqrt(), sigma.flatten(), c_crossattn=context), clean)


def check_text_encoder_equals_transformers() -> None:
    # The host keeps text encoders in half precision, and computes in full.
    text = copy.deepcopy(demo()["text"]).half().float()
    for words in ("", "a red mushroom, 3d style, on a blue background", "Ein Käse für 3 Löwen!"):
        with torch.inference_mode():
            expected = text(tokenize([words])).last_hidden_state
        close(world.encode(demo()["clip"], words)[0][0], expected)


def check_vae_equals_autoencoder_tiny() -> None:
    vae, expected = demo()["vae"], demo()["autoencoder"]
    with torch.inference_mode():
        latents = draw((16, 8, 8))
        close(demo()["model"].model.process_latent_out(latents), latents / LATENT_SCALE)
        close(vae.decode(latents), ((expected.decode(latents).sample + 1) / 2).clamp(0, 1).movedim(1, -1))
        images = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(3))
        close(vae.encode(images), expected.encode(images.movedim(-1, 1) * 2 - 1).latents)


def check_stock_nodes_sample() -> None:
    with torch.inference_mode():
        latent = nodes.EmptyLatentImage().generate(64, 64, 2)[0]
        positive, negative = world.encode(demo()["clip"], WORDS[0]), world.encode(demo()["clip"], "")
        made = nodes.KSampler().sample(demo()["model"], 1, 3, 3.0, "euler", "normal", positive, negative, latent)[0]
        assert made["samples"].shape == (2, 16, 8, 8)
        assert torch.isfinite(made["samples"]).all()
        image = nodes.VAEDecode().decode(demo()["vae"], made)[0]
        assert image.shape == (2, 64, 64, 3)
        latent_format = demo()["model"].model.latent_format
        preview = latent_preview.Latent2RGBPreviewer(
            latent_format.latent_rgb_factors, latent_format.latent_rgb_factors_bias
        )
        assert preview.decode_latent_to_preview(made["samples"]).size == (8, 8)


def check_nothing_else_matches_the_demo_model() -> None:
    demo_model.register()
    names = [model.__name__ for model in comfy.supported_models.models]
    assert names.count(demo_model.NAME) == 1
    assert names[-1] == demo_model.NAME
    weights = comfy.utils.load_torch_file(folder_paths.get_full_path_or_raise("checkpoints", DEMO))
    found = comfy.model_detection.detect_unet_config(weights, "model.diffusion_model.")
    assert [m.__name__ for m in comfy.supported_models.models if m.matches(found, weights)] == [demo_model.NAME]
    assert not comfy.supported_models.models[-1].matches(world.small_sd15().model.model_config.unet_config)
