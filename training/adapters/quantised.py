"""Base weights in 4 or 8 bits while adapters train on them (QLoRA), for linear layers and for convolutions.

A frozen layer y = W·x + b becomes y = D(Q(W))·x + b: Q once, when the block is entered; D anew in every forward and
backward pass, so that a weight is whole only while its layer computes. The gradient that reaches x is that of D(Q(W)),
exactly; W has none.

- nf4: 4-bit NormalFloat in blocks of 64 with 8-bit scales (Dettmers et al. 2023, QLoRA, section 3), by bitsandbytes:
  0.52 bytes per weight. bitsandbytes quantises linear layers alone; that convolutions are stored the same way, as one
  row of numbers, is ours: without them a U-Net would keep half of its weights whole.
- int8: 8-bit integers with one scale per output channel, round(127·W / max|W|): 1 byte per weight, in plain torch.
  Differs from bitsandbytes' Linear8bitLt (LLM.int8()), which quantises the layer's inputs as well: the noise of that
  would enter the ratios of log-probabilities that policy gradients are made of, and it knows no convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ..interfaces import TrainingError
from ..libraries import no_kernels
from .layers import is_linear, never_called

BasePrecision = Literal["nf4", "int8"]
PRECISIONS: tuple[BasePrecision, ...] = ("nf4", "int8")
BYTES_PER_WEIGHT = {"nf4": 0.52, "int8": 1.01}
BLOCK = 64
FEWEST_CHANNELS = 17  # layers that carry latents in or out: few weights, and every rounding of theirs shows


class LayerWeights(NamedTuple):
    """What a layer multiplies by and what it adds, on the device where it will compute."""

    weight: torch.Tensor
    bias: torch.Tensor | None


Reader = Callable[[nn.Module, torch.device], LayerWeights | None]


def plain_weights(layer: nn.Module, device: torch.device) -> LayerWeights | None:
    """The weights of a layer that uses them as they are stored."""
    bias = None if layer.bias is None else layer.bias.to(device)
    return LayerWeights(layer.weight.to(device), bias)


# ---- storages --------------------------------------------------------------------------------------------------------


class _Nf4(nn.Module):
    """A tensor in 4-bit NormalFloat; buffers, so that they are counted and moved like any other."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        library = _bitsandbytes()
        self.shape, self.dtype = weight.shape, weight.dtype
        flat = weight.flatten()
        # Two weights share a byte. Rows of odd length would take bitsandbytes a slow way on the CPU.
        flat = functional.pad(flat, (0, flat.numel() % 2))
        packed, state = library.functional.quantize_4bit(
            flat, blocksize=BLOCK, compress_statistics=True, quant_type="nf4"
        )
        self.count = flat.numel()
        self.register_buffer("packed", packed, persistent=False)
        self.register_buffer("scales", state.absmax, persistent=False)
        self.register_buffer("offset", state.offset, persistent=False)
        self.register_buffer("scales_of_scales", state.state2.absmax, persistent=False)
        self.register_buffer("table", state.state2.code, persistent=False)
        self.block_of_scales = state.state2.blocksize

    def whole(self, dtype: torch.dtype) -> torch.Tensor:
        """The tensor again, in the given type."""
        from bitsandbytes import functional as library

        of_scales = library.QuantState(
            self.scales_of_scales, code=self.table, blocksize=self.block_of_scales, dtype=torch.float32
        )
        state = library.QuantState(
            self.scales,
            shape=torch.Size([self.count]),
            blocksize=BLOCK,
            quant_type="nf4",
            dtype=dtype,
            offset=self.offset,
            state2=of_scales,
        )
        flat = library.dequantize_4bit(self.packed, state).reshape(-1)
        return flat[: math.prod(self.shape)].view(self.shape)


class _Int8(nn.Module):
    """A tensor in 8-bit integers with one scale per row."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.shape, self.dtype = weight.shape, weight.dtype
        rows = weight.flatten(1).float()
        scales = (rows.abs().amax(1, keepdim=True) / 127).clamp_min(torch.finfo(torch.float32).tiny)
        self.register_buffer("packed", (rows / scales).round_().clamp_(-127, 127).to(torch.int8), persistent=False)
        self.register_buffer("scales", scales, persistent=False)

    def whole(self, dtype: torch.dtype) -> torch.Tensor:
        """The tensor again, in the given type."""
        # In float32: the scales of small weights are below what 16 bits resolve.
        return (self.packed * self.scales).to(dtype).view(self.shape)


_STORAGES = {"nf4": _Nf4, "int8": _Int8}


def _bitsandbytes() -> Any:
    """
    Raises:
        TrainingError: it cannot be imported; says how to install it.
    """
    try:
        with no_kernels():
            import bitsandbytes
    except (ImportError, RuntimeError) as error:
        raise TrainingError(
            f"The base precision nf4 needs the Python package bitsandbytes, which cannot be imported "
            f"({type(error).__name__}: {error}). Install it with the host's Python (python -m pip install "
            f"bitsandbytes) and restart, or set base_precision to int8 or to as loaded."
        ) from error
    return bitsandbytes


def check_available(precision: str) -> None:
    """
    Raises:
        TrainingError: there is no such precision, or it needs a package that is missing.
    """
    if precision not in PRECISIONS:
        raise TrainingError(f"The base precision {precision!r} does not exist. Choose from {', '.join(PRECISIONS)}.")
    if precision == "nf4":
        _bitsandbytes()


# ---- layers ----------------------------------------------------------------------------------------------------------


class _Product(torch.autograd.Function):
    """A layer's output with a weight that is made whole for the forward pass, and again for the backward pass.

    Autograd's own product would keep the whole weight in between.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: QuantisedLayer) -> torch.Tensor:
        ctx.layer, ctx.shape = layer, x.shape
        with torch.autocast(x.device.type, enabled=False):
            bias = None if layer.bias is None else layer.bias.to(x.dtype)
            return layer.product(x, layer.stored.whole(x.dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        with torch.autocast(gradient.device.type, enabled=False):
            weight = ctx.layer.stored.whole(gradient.dtype)
            return ctx.layer.input_gradient(gradient, weight, ctx.shape), None


class QuantisedLayer(nn.Module):
    """What the two kinds have in common. Looks like a plain layer: a `weight` that is read is a whole copy."""

    stored: _Nf4 | _Int8
    precision: str
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, layer: nn.Module, weights: LayerWeights, precision: BasePrecision) -> QuantisedLayer:
        """Store the weights of `layer`; the layer itself is not touched."""
        # Without the constructor, which would allocate a weight; it stays what it is, since peft calls it.
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        for name in cls.names:
            setattr(made, name, getattr(layer, name))
        made.precision = precision
        made.stored = _STORAGES[precision](weights.weight.detach())
        bias = None if weights.bias is None else nn.Parameter(weights.bias.detach().clone(), requires_grad=False)
        made.register_parameter("bias", bias)
        return made.train(layer.training)

    def __getattr__(self, name: str) -> Any:
        if name == "weight" and "stored" in self._modules:
            return self.stored.whole(self.stored.dtype)
        return super().__getattr__(name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kind = x.device.type
        return _Product.apply(x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x, self)

    def product(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        raise NotImplementedError

    def input_gradient(self, gradient: torch.Tensor, weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        raise NotImplementedError


class QuantisedLinear(QuantisedLayer, nn.Linear):
    """A linear layer: x [..., in] → [..., out]."""

    names = ("in_features", "out_features")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # As rows: what a function of ours gives must not be a view, or networks could not add to it in place.
        return super().forward(x.reshape(-1, self.in_features)).view(*x.shape[:-1], self.out_features)

    def product(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return functional.linear(x, weight, bias)

    def input_gradient(self, gradient: torch.Tensor, weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        return gradient @ weight


class QuantisedConv2d(QuantisedLayer, nn.Conv2d):
    """A convolution: x [B, in, H, W] → [B, out, H', W']."""

    names = (
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
        "padding_mode",
        "transposed",
        "output_padding",
    )

    def product(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return functional.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def input_gradient(self, gradient: torch.Tensor, weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        return nn.grad.conv2d_input(shape, weight, gradient, self.stride, self.padding, self.dilation, self.groups)


# ---- a network's layers ----------------------------------------------------------------------------------------------


def _kind(layer: nn.Module) -> type[QuantisedLayer] | None:
    """The class that stands in for a layer; None for layers that are left as they are."""
    if is_linear(layer) and min(layer.in_features, layer.out_features) >= FEWEST_CHANNELS:
        return QuantisedLinear
    plain = isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    if plain and min(layer.in_channels, layer.out_channels) >= FEWEST_CHANNELS:
        return QuantisedConv2d
    return None


def _expected_shape(layer: nn.Module) -> tuple[int, ...]:
    if isinstance(layer, nn.Conv2d):
        return (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
    return (layer.out_features, layer.in_features)


def quantisable(module: nn.Module) -> dict[str, nn.Module]:
    """Every layer of a network that can be stored in few bits, by path."""
    bypassed = never_called(module)
    return {
        path: layer
        for path, layer in module.named_modules()
        if path and id(layer) not in bypassed and _kind(layer) is not None and not isinstance(layer, QuantisedLayer)
    }


@contextmanager
def quantised(
    module: nn.Module,
    precision: BasePrecision,
    *,
    device: torch.device | None = None,
    read: Reader = plain_weights,
) -> Iterator[list[str]]:
    """Inside, the linear layers and convolutions of `module` are stored in few bits; adapters may be attached there.

    Layer by layer, so that never more than one is whole on `device`, wherever the originals are. Afterwards the module
    holds the same objects as before, with the same weights.

    Args:
        precision: see the module.
        device: where the layers will compute; None = where their weights are.
        read: what a layer truly multiplies by (scaled, patched, cast …), or None to leave it as it is.

    Yields:
        paths of the replaced layers.

    Raises:
        TrainingError: bitsandbytes is missing, or the network has no layer of the kind or carries adapters already.
    """
    check_available(precision)
    layers = quantisable(module)
    if any(".base_layer" in path for path in layers):
        raise TrainingError("This network already carries adapters. Quantise it before they are attached.")
    homes: dict[int, list[tuple[nn.Module, str]]] = {}
    for parent in module.modules():
        for name, child in parent._modules.items():
            homes.setdefault(id(child), []).append((parent, name))
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    paths = []
    try:
        with torch.inference_mode(False), torch.no_grad():
            for path, layer in layers.items():
                made = _replacement(layer, precision, device, read)
                if made is None:
                    continue
                for parent, name in homes[id(layer)]:
                    parent._modules[name] = made
                    replaced.append((parent, name, layer))
                paths.append(path)
        if not paths:
            raise TrainingError(
                f"This network ({type(module).__name__}) has no layer that could be stored as {precision}. Set "
                f"base_precision to as loaded."
            )
        yield paths
    finally:
        for parent, name, layer in replaced:
            parent._modules[name] = layer


def _replacement(
    layer: nn.Module, precision: BasePrecision, device: torch.device | None, read: Reader
) -> QuantisedLayer | None:
    weights = read(layer, device if device is not None else layer.weight.device)
    # Formats of other packs, whose weights are packed themselves, are small already.
    if weights is None or tuple(weights.weight.shape) != _expected_shape(layer):
        return None
    stored_bytes = layer.weight.element_size() * layer.weight.numel()
    if stored_bytes <= BYTES_PER_WEIGHT[precision] * weights.weight.numel():
        return None
    if weights.weight.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        weights = weights._replace(weight=weights.weight.float())
    return _kind(layer).of(layer, weights, precision)


def precision_of(module: nn.Module) -> str:
    """How the base weights of a network are stored at the moment: "nf4", "int8", or "" for as they were loaded."""
    return next((part.precision for part in module.modules() if isinstance(part, QuantisedLayer)), "")
