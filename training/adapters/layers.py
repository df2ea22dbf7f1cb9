"""Which layers of a network there are to adapt or to store."""

from __future__ import annotations

from torch import nn


def is_linear(layer: nn.Module) -> bool:
    """Whether a layer is a matrix product."""
    # The host's quantised layers are called Linear and behave like one without deriving from nn.Linear.
    named = type(layer).__name__ == "Linear" and hasattr(layer, "in_features") and hasattr(layer, "out_features")
    return isinstance(layer, nn.Linear) or named


def is_convolution(layer: nn.Module) -> bool:
    """Whether a layer is a 2-D convolution without groups."""
    return isinstance(layer, nn.Conv2d) and layer.groups == 1


def never_called(module: nn.Module) -> set[int]:
    """Ids of layers whose weight is read by nn.MultiheadAttention without calling them: an adapter would never act."""
    return {id(layer.out_proj) for layer in module.modules() if isinstance(layer, nn.MultiheadAttention)}


def adaptable_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Every layer that can carry an adapter, by path: linear layers and ungrouped 2-D convolutions."""
    bypassed = never_called(module)
    return {
        path: layer
        for path, layer in module.named_modules()
        if path and id(layer) not in bypassed and (is_linear(layer) or is_convolution(layer))
    }


def like(layer: nn.Module, *, outputs: int | None = None, bias: bool = False) -> nn.Module:
    """A plain layer that looks at what an adaptable one looks at, without weights yet (on "meta").

    Args:
        outputs: width of what it gives, or channels; None = the layer's own.
        bias: whether it has one.
    """
    if is_linear(layer):
        return nn.Linear(layer.in_features, outputs or layer.out_features, bias=bias, device="meta")
    return nn.Conv2d(
        layer.in_channels,
        outputs or layer.out_channels,
        layer.kernel_size,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        padding_mode=layer.padding_mode,
        bias=bias,
        device="meta",
    )
