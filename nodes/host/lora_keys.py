"""The names that LoRA files give to a host model's layers."""

from __future__ import annotations

from typing import Any

import comfy.lora
import comfy.utils


def lora_keys(model: Any) -> dict[str, str]:
    """Module path in the diffusion model → key in a LoRA file, for every layer with a weight matrix.

    Stable Diffusion 1 and 2 get the names that kohya's trainer writes, "lora_unet_down_blocks_0_attentions_0_…"; all
    others the path with underscores, as kohya does for SDXL and for transformers. Each key is checked to lead the
    host's LoRA loader to this very layer.

    Args:
        model: the host's MODEL, without adapters attached.
    """
    network = model.model.diffusion_model
    plain = {
        path: "lora_unet_" + path.replace(".", "_")
        for path, module in network.named_modules()
        if getattr(getattr(module, "weight", None), "ndim", 0) >= 2
    }
    configuration = model.model.model_config.unet_config
    kohya: dict[str, str] = {}
    if not configuration.get("adm_in_channels"):
        for diffusers, original in comfy.utils.unet_to_diffusers(configuration).items():
            if original.endswith(".weight"):
                kohya[original.removesuffix(".weight")] = "lora_unet_" + diffusers.removesuffix(".weight").replace(
                    ".", "_"
                )
    known = comfy.lora.model_lora_keys_unet(model.model, {})
    return {
        path: kohya[path] if known.get(kohya.get(path, "")) == f"diffusion_model.{path}.weight" else key
        for path, key in plain.items()
    }
