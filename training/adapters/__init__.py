"""Adapters: LoRA with named roles, and its files."""

from __future__ import annotations

from .files import (
    LoraMetadata,
    LoraParent,
    layer_id,
    load_lora,
    lora_file_tensors,
    module_tensors,
    save_lora,
    weights_id,
)
from .lora import TARGETS, LoraConfig, Policy, matching_layers

__all__ = [
    "TARGETS",
    "LoraConfig",
    "LoraMetadata",
    "LoraParent",
    "Policy",
    "layer_id",
    "load_lora",
    "lora_file_tensors",
    "matching_layers",
    "module_tensors",
    "save_lora",
    "weights_id",
]
