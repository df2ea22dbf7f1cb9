"""Adapters: LoRA and whole weights with named roles, and their files."""

from __future__ import annotations

from .files import (
    LoraMetadata,
    LoraParent,
    difference_id,
    layer_id,
    load_lora,
    lora_file_tensors,
    module_tensors,
    save_lora,
    weights_id,
    weights_id_of,
)
from .lora import PARTS, TARGETS, WHOLE, Kind, LoraConfig, Policy, matching_layers
from .quantised import PRECISIONS, BasePrecision, LayerWeights, check_available, precision_of, quantised

__all__ = [
    "PARTS",
    "PRECISIONS",
    "TARGETS",
    "WHOLE",
    "BasePrecision",
    "Kind",
    "LayerWeights",
    "LoraConfig",
    "LoraMetadata",
    "LoraParent",
    "Policy",
    "check_available",
    "difference_id",
    "layer_id",
    "load_lora",
    "lora_file_tensors",
    "matching_layers",
    "module_tensors",
    "precision_of",
    "quantised",
    "save_lora",
    "weights_id",
    "weights_id_of",
]
