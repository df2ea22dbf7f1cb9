"""Language models in the host: which there are, and where and in which type one computes."""

from __future__ import annotations

from pathlib import Path

import comfy.model_management
import folder_paths
import torch

from .folders import LANGUAGE_MODELS
from .vision_language import compute_device


def language_roots() -> list[Path]:
    """Folders that language models lie in: models/LLM, and what the user has added to it."""
    return [Path(path) for path in folder_paths.get_folder_paths(LANGUAGE_MODELS)]


def language_type(choice: str) -> torch.dtype:
    """In which type a language model computes: 16 bit on a graphics card, exact on a CPU."""
    device = compute_device(choice)
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if comfy.model_management.should_use_bf16(device) else torch.float16
