"""What a layer of the host truly multiplies by: whatever it is stored in, wherever it lies, whatever is applied."""

from __future__ import annotations

from typing import Any

import comfy.ops
import torch
from torch import nn

from ...training.adapters import LayerWeights

_PLAIN = (torch.float32, torch.float16, torch.bfloat16)


def effective_weights(layer: nn.Module, device: torch.device) -> LayerWeights | None:
    """The weights with which a layer of the host computes, on `device`; the layer's own stay where and as they are.

    By the host's own way of making them ready: cast, dequantised, with LoRAs that are added on the fly where memory is
    short; then the scale that its scaled 8-bit layers apply beside it. None where the host cannot say: layers of other
    packs that keep their weights in formats of their own.
    """
    if not hasattr(layer, "weight_function"):
        return _of_a_plain_layer(layer, device)
    stored = layer.weight.dtype
    # In float32 wherever anything must still be computed with it: patches, scales, 8 bits.
    computed = stored not in _PLAIN or bool(layer.weight_function) or _scale(layer) is not None
    wanted = torch.float32 if computed else stored
    bias_type = None if layer.bias is None else layer.bias.dtype
    weight, bias = comfy.ops.cast_bias_weight(
        layer, dtype=wanted, device=device, bias_dtype=bias_type if bias_type in _PLAIN else torch.float32
    )
    weight = _dequantised(weight)
    if type(weight) not in (torch.Tensor, nn.Parameter):
        return None
    scale = _scale(layer)
    if scale is not None:
        weight = weight * scale.to(weight)
    return LayerWeights(weight, bias)


def _of_a_plain_layer(layer: nn.Module, device: torch.device) -> LayerWeights | None:
    if type(layer.weight) not in (torch.Tensor, nn.Parameter):
        return None
    return LayerWeights(layer.weight.to(device), None if layer.bias is None else layer.bias.to(device))


def _scale(layer: nn.Module) -> torch.Tensor | None:
    return getattr(layer, "scale_weight", None)


def _dequantised(weight: Any) -> Any:
    """The host's quantised tensors are a subclass that knows how to become an ordinary one."""
    plain = type(weight) in (torch.Tensor, nn.Parameter)
    return weight if plain or not hasattr(weight, "dequantize") else weight.dequantize()
