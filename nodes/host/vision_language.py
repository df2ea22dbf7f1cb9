"""Vision-language model folders in the host: which there are, and how a node asks for one and where it computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import torch
from comfy_api.latest import io

from ...training.interfaces import RewardError
from ...training.vlm_base import PRECISIONS, Precision, is_vision_language
from .folders import REWARDS
from .schema import AttuneNode

AUTO = "auto"


def model_folders() -> dict[str, Path]:
    """Vision-language models that lie directly in a reward folder, by name; also those that cannot be told from one."""
    found: dict[str, Path] = {}
    for root in folder_paths.get_folder_paths(REWARDS):
        if Path(root).is_dir():
            for folder in sorted(Path(root).iterdir()):
                if (folder / "config.json").is_file() and is_vision_language(folder) is not False:
                    found.setdefault(folder.name, folder)
    return found


def find_model(name: str) -> Path:
    """
    Raises:
        RewardError: there is no such folder; says where to put one.
    """
    found = model_folders()
    if name not in found:
        raise RewardError(
            f"There is no model folder {name!r} in {' or '.join(folder_paths.get_folder_paths(REWARDS))}. Put a "
            "vision-language model there, as a folder with config.json, *.safetensors, tokenizer and processor files "
            "(Qwen2-VL, LLaVA, SmolVLM, …), and refresh the node definitions (press R)."
        )
    return found[name]


def compute_device(choice: str) -> torch.device:
    return torch.device("cpu") if choice == "cpu" else comfy.model_management.get_torch_device()


def chosen_precision(choice: str, device: torch.device) -> Precision:
    """auto: what a graphics card does best in 16 bit, exact on a CPU."""
    if choice != AUTO:
        return choice
    if device.type == "cpu":
        return "fp32"
    return "bf16" if comfy.model_management.should_use_bf16(device) else "fp16"


def make_room(device: torch.device) -> None:
    """Have the host move its models out of the way of one that it does not manage."""
    if device.type != "cpu":
        comfy.model_management.unload_all_models()
        comfy.model_management.soft_empty_cache()


def model_inputs(node: type[AttuneNode]) -> list[Any]:
    return [
        node.input(
            io.Combo,
            "model_folder",
            options=list(model_folders()),
            tooltip="A vision-language model: a folder in models/rewards with config.json, *.safetensors, tokenizer "
            "and processor files. Nothing is downloaded.",
        ),
    ]


def device_inputs(node: type[AttuneNode]) -> list[Any]:
    return [
        node.input(
            io.Combo,
            "precision",
            options=[AUTO, *PRECISIONS],
            default=AUTO,
            tooltip="How the model's weights are kept. auto: 16 bit on a graphics card, exact fp32 on a CPU. nf4 "
            "(4 bit, needs the package bitsandbytes) takes about a quarter of 16 bit's memory.",
        ),
        node.input(
            io.Combo,
            "device",
            options=["default", "cpu"],
            default="default",
            advanced=True,
            tooltip="Where to compute. 'default' is your graphics card if there is one. 'cpu' is slower and leaves its "
            "memory to the image model.",
        ),
    ]
