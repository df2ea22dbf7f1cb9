"""The real host as a library, with small models of random weights. To be imported in a subprocess of its own.

Everything that the host would make inside a prompt is made inside `torch.inference_mode()`, as there.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any, ClassVar

ROOT = Path(__file__).resolve().parents[3]


def enter(comfyui: Path, base: Path) -> None:
    """Start the host's modules on the CPU in float32, with its folders under `base`, and map the package `attune`."""
    sys.argv = ["main.py", "--cpu", "--force-fp32", "--base-directory", str(base)]
    sys.path.insert(0, str(comfyui))
    import comfy.options

    comfy.options.enable_args_parsing()
    # First, as in the host's main: a library's module of that name would hide it.
    import utils.extra_config  # noqa: F401

    spec = importlib.util.spec_from_file_location("attune_module_runner", ROOT / "scripts" / "module.py")
    runner = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runner)
    runner.map_package()


def demo_networks() -> tuple[Any, Any, Any]:
    """The demo model's networks (U-Net, text encoder, autoencoder) with random weights, in eval mode."""
    import torch

    from attune.training.demo import networks

    torch.manual_seed(5)
    return networks.build_unet().eval(), networks.build_text_encoder().eval(), networks.build_autoencoder().eval()


def save_demo_checkpoint(path: Path, dtype: Any = None) -> tuple[Any, Any, Any]:
    """Write a demo-shaped checkpoint of random weights; returns the networks it holds."""
    import torch
    from safetensors.torch import save_file

    from attune.training.demo import networks

    parts = demo_networks()
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = networks.host_checkpoint(*parts, dtype=dtype or torch.float32)
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    return parts


def load_checkpoint(name: str) -> tuple[Any, Any, Any]:
    """(MODEL, CLIP, VAE) by the host's stock node, as inside a prompt."""
    import torch

    import nodes

    with torch.inference_mode():
        return nodes.CheckpointLoaderSimple().load_checkpoint(name)


def encode(clip: Any, text: str) -> Any:
    """CONDITIONING by the host's stock node, as inside a prompt."""
    import torch

    import nodes

    with torch.inference_mode():
        return nodes.CLIPTextEncode().encode(clip, text)[0]


def random_conditioning(seed: int, width: int, *, tokens: int = 77, pooled: int | None = None) -> Any:
    """A CONDITIONING of random numbers, for models that come without a text encoder here."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        extras = {} if pooled is None else {"pooled_output": torch.randn(1, pooled, generator=generator)}
        return [[torch.randn(1, tokens, width, generator=generator), extras]]


def _patcher(configuration: Any) -> Any:
    import comfy.model_patcher
    import torch

    with torch.inference_mode():
        configuration.set_inference_dtype(torch.float32, None)
        model = configuration.get_model({}, "")
        generator = torch.Generator().manual_seed(7)
        for weight in (*model.parameters(), *model.diffusion_model.buffers()):
            # The host leaves new weights uninitialised: it means to overwrite them.
            scale = 0.5 / weight.shape[1] ** 0.5 if weight.ndim > 1 else 0.1
            weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
        cpu = torch.device("cpu")
        return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


UNET = {
    "image_size": 32,
    "out_channels": 4,
    "in_channels": 4,
    "model_channels": 32,
    "use_spatial_transformer": True,
    "legacy": False,
    "use_temporal_attention": False,
    "use_linear_in_transformer": False,
}


def small_sd15() -> Any:
    """MODEL with the layout of Stable Diffusion 1 (four levels, two blocks each): eps. Context 24."""
    import comfy.supported_models

    return _patcher(
        comfy.supported_models.SD15(
            UNET
            | {
                "adm_in_channels": None,
                "num_res_blocks": [2, 2, 2, 2],
                "channel_mult": (1, 2, 2, 2),
                "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
                "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
                "transformer_depth_middle": 1,
                "context_dim": 24,
            }
        )
    )


def small_sdxl() -> Any:
    """MODEL with the layout of SDXL (three levels, deep transformers, pooled conditioning): eps. Context 24."""
    import comfy.supported_models

    class SmallSdxl(comfy.supported_models.SDXL):
        unet_extra_config: ClassVar = {"num_heads": -1, "num_head_channels": 16}

    return _patcher(
        SmallSdxl(
            UNET
            | {
                "use_linear_in_transformer": True,
                "adm_in_channels": 2816,
                "num_classes": "sequential",
                "num_res_blocks": [2, 2, 2],
                "channel_mult": (1, 2, 4),
                "transformer_depth": [0, 0, 2, 2, 3, 3],
                "transformer_depth_output": [0, 0, 0, 2, 2, 2, 3, 3, 3],
                "transformer_depth_middle": 3,
                "context_dim": 24,
            }
        )
    )


def small_sd3() -> Any:
    """MODEL with the layout of Stable Diffusion 3 (joint transformer): flow, shift 3. Context 4096, pooled 2048."""
    import comfy.supported_models

    return _patcher(
        comfy.supported_models.SD3(
            {
                "in_channels": 16,
                "out_channels": 16,
                "patch_size": 2,
                "depth": 2,
                "input_size": None,
                "adm_in_channels": 2048,
                "context_embedder_config": {
                    "target": "torch.nn.Linear",
                    "params": {"in_features": 4096, "out_features": 128},
                },
                "num_patches": 36,
                "pos_embed_max_size": 6,
                "pos_embed_scaling_factor": None,
                "context_processor_layers": None,
            }
        )
    )


def small_qwen_image() -> Any:
    """MODEL with the layout of Qwen-Image (joint transformer, latents with a frame axis): flow. Context 48."""
    import comfy.supported_models

    return _patcher(
        comfy.supported_models.QwenImage(
            {
                "image_model": "qwen_image",
                "in_channels": 64,
                "out_channels": 16,
                "num_layers": 2,
                "attention_head_dim": 16,
                "num_attention_heads": 4,
                "joint_attention_dim": 48,
                "axes_dims_rope": (4, 6, 6),
            }
        )
    )


def small_flux() -> Any:
    """MODEL with the layout of Flux (double and single blocks, distilled guidance): flow. Context 48, pooled 32."""
    import comfy.supported_models

    return _patcher(
        comfy.supported_models.Flux(
            {
                "image_model": "flux",
                "in_channels": 16,
                "out_channels": 16,
                "patch_size": 2,
                "vec_in_dim": 32,
                "context_in_dim": 48,
                "hidden_size": 64,
                "mlp_ratio": 2.0,
                "num_heads": 4,
                "depth": 2,
                "depth_single_blocks": 2,
                "axes_dim": [4, 6, 6],
                "theta": 10000,
                "qkv_bias": True,
                "guidance_embed": True,
            }
        )
    )
