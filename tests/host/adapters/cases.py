"""The models that are checked, and what the host itself makes of them."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import architectures
import comfy.model_management
import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers
import folder_paths
import torch
import world

from attune.nodes.host import demo_model
from attune.nodes.host.session import training_session

DEMO = "demo.safetensors"
WORDS = ("a red mushroom, 3d style, on a blue background", "a cat", "a (green:1.2) tree in the style of an icon")


@cache
def demo() -> dict[str, Any]:
    """The demo-shaped checkpoint of random weights: loaded by the host, and the networks it was made of."""
    demo_model.register()
    unet, text, autoencoder = world.save_demo_checkpoint(Path(folder_paths.models_dir) / "checkpoints" / DEMO)
    model, clip, vae = world.load_checkpoint(DEMO)
    return {"unet": unet, "text": text, "autoencoder": autoencoder, "model": model, "clip": clip, "vae": vae}


def stock(module: str, name: str, *arguments: Any) -> Any:
    """Patch a model by one of the host's own nodes."""
    node = getattr(importlib.import_module(f"comfy_extras.{module}"), name)()
    with torch.inference_mode():
        return node.patch(*arguments)[0]


@cache
def cases() -> dict[str, tuple[Any, list[Any], Any, tuple[int, ...]]]:
    """name → (MODEL, three conditionings, the negative one, the shape of one latent), over all prediction types."""
    conditionings = [world.encode(demo()["clip"], words) for words in WORDS]
    empty = world.encode(demo()["clip"], "")
    model = demo()["model"]

    def random(width: int, pooled: int | None = None, tokens: tuple[int, ...] = (77, 77, 77)) -> tuple[list[Any], Any]:
        made = [world.random_conditioning(s, width, tokens=t, pooled=pooled) for s, t in enumerate(tokens)]
        return made, world.random_conditioning(9, width, tokens=tokens[0], pooled=pooled)

    return {
        "demo (v)": (model, conditionings, empty, (16, 8, 8)),
        "demo as eps": (
            stock("nodes_model_advanced", "ModelSamplingDiscrete", model, "eps", False),
            conditionings,
            empty,
            (16, 8, 8),
        ),
        "demo as shifted flow": (
            stock("nodes_model_advanced", "ModelSamplingSD3", model, 3.0),
            conditionings,
            empty,
            (16, 8, 8),
        ),
        "sd15 (eps)": (world.small_sd15(), *random(24, tokens=(77, 154, 77)), (4, 16, 8)),
        "sd21 (v)": (architectures.ARCHITECTURES["sd21"].load(), *random(1024, tokens=(77, 154, 77)), (4, 16, 8)),
        "sdxl (eps, pooled)": (world.small_sdxl(), *random(24, 1280), (4, 8, 8)),
        "sd3 (flow)": (world.small_sd3(), *random(4096, 2048), (16, 8, 8)),
        "qwen image (flow), one frame": (world.small_qwen_image(), *random(48), (16, 8, 8)),
        "flux (flow), uneven prompts": (world.small_flux(), *random(48, 32, (20, 30, 20)), (16, 8, 8)),
    }


@contextlib.contextmanager
def session(name: str) -> Iterator[tuple[Any, list[Any], tuple[int, ...]]]:
    """A training session on one of `cases()`, begun inside inference mode, with its prompts."""
    model, conditionings, negative, shape = cases()[name]
    with torch.inference_mode(), training_session(model) as denoiser:
        denoiser.set_unconditional(negative)
        prompts = [denoiser.prompt(str(index), item).positive for index, item in enumerate(conditionings)]
        yield denoiser, prompts, shape


def host_prediction(model: Any, x: Any, sigma: Any, positive: Any, negative: Any, cfg: float) -> Any:
    """x0 as the host itself computes it inside a prompt, for one prompt."""
    frames = model.model.latent_format.latent_dimensions == 3
    x = x.unsqueeze(2) if frames else x  # (B, C, 1, H, W)
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model])
        conds = {
            "positive": comfy.sampler_helpers.convert_cond(positive),
            "negative": comfy.sampler_helpers.convert_cond(negative),
        }
        blank = torch.zeros_like(x)
        conds = comfy.samplers.process_conds(model.model, blank, conds, x.device, latent_image=blank, seed=0)
        # Where the host's guider gives the model's wrappers to the call.
        options = comfy.model_patcher.create_model_options_clone(model.model_options)
        comfy.sampler_helpers.prepare_model_patcher(model, {}, options)
        model.pre_run()
        try:
            predicted = comfy.samplers.sampling_function(
                model.model, x, sigma, conds["negative"], conds["positive"], cfg, model_options=options
            )
            return predicted.squeeze(2) if frames else predicted
        finally:
            model.cleanup()


def draw(shape: tuple[int, ...], *, count: int = 3, seed: int = 1) -> Any:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def levels(denoiser: Any, count: int = 3) -> Any:
    """Noise levels spread over the model's own, [count]."""
    sigmas = denoiser.process.sigmas
    return sigmas[torch.linspace(0.15, 0.9, count).mul(len(sigmas) - 1).long()]


def random_lora(model: Any, keys: dict[str, str], rank: int = 2) -> dict[str, Any]:
    """A LoRA file's tensors over all of `keys`."""
    tensors = {}
    generator = torch.Generator().manual_seed(11)
    for path, key in keys.items():
        shape = model.model.diffusion_model.get_submodule(path).weight.shape
        tensors[f"{key}.lora_down.weight"] = 0.1 * torch.randn(rank, *shape[1:], generator=generator)
        tensors[f"{key}.lora_up.weight"] = 0.1 * torch.randn(
            shape[0], rank, *[1] * (len(shape) - 2), generator=generator
        )
        tensors[f"{key}.alpha"] = torch.tensor(float(rank))
    return tensors
