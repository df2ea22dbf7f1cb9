"""Language models in the host: which there are, loading one, and giving its memory back."""

from __future__ import annotations

import gc
from pathlib import Path

import comfy.model_management
import folder_paths
import torch

from .folders import LANGUAGE_MODELS
from .vision_language import compute_device, make_room


def language_roots() -> list[Path]:
    """Folders that language models lie in: models/LLM, and what the user has added to it."""
    return [Path(path) for path in folder_paths.get_folder_paths(LANGUAGE_MODELS)]


def place_and_type(choice: str) -> tuple[torch.device, torch.dtype]:
    """Where a language model computes, and in which type: 16 bit on a graphics card, exact on a CPU."""
    device = compute_device(choice)
    if device.type == "cpu":
        return device, torch.float32
    make_room(device)
    return device, torch.bfloat16 if comfy.model_management.should_use_bf16(device) else torch.float16


def give_back() -> None:
    """After a model was let go of: its memory is the image model's again."""
    gc.collect()
    comfy.model_management.soft_empty_cache()
