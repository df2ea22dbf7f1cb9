"""What a role holds in an adapted layer where it trains whole weights: a difference of the same size, from zero.

    y = (W + ΔW)·x + (b + Δb) = (W·x + b) + (ΔW·x + Δb)

So the gradient that reaches ΔW is that of the layer's own weight, and AdamW on ΔW is full fine-tuning, in float32
whatever W is stored in: an update that 16 bits would round away next to W is kept. The base stays as it is, so that any
number of roles can have weights of their own, and the reference is still there. Ours; the form of the files is LyCORIS'
"full", which the host reads, too.

Costs, against an optimizer on W itself: W·x and ΔW·x are two products, and ΔW takes memory besides W.

Not trained: normalisation layers, embeddings, single parameters, grouped or three-dimensional convolutions, and what
`layers.never_called` lists: few of a network's weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..interfaces import TrainingError
from .layers import like
from .quantised import precision_of

if TYPE_CHECKING:
    from .lora import LoraConfig

WEIGHT, BIAS = "diff", "diff_b"
# What networks look up on their layers without calling them.
_SHOWN = (
    "weight",
    "bias",
    "in_features",
    "out_features",
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "padding_mode",
)


class FullLayer(nn.Module):
    """A layer with a difference of its weight, and of its bias if it has one, for every role.

    Args:
        layer: linear, or a 2-D convolution without groups; it is not touched.
        roles: names of the differences.
        dropout: share of its inputs that a difference does not see in training.

    Attributes:
        base_layer: the layer itself.
        differences: role → a plain layer of the same form, float32, zero at the start.
        acting: the role that is added; None: none.
    """

    def __init__(self, layer: nn.Module, roles: Sequence[str], *, dropout: float, device: torch.device) -> None:
        super().__init__()
        self.base_layer = layer
        self.training = layer.training
        self.dropout = nn.Dropout(dropout)
        self.acting: str | None = None
        self.differences = nn.ModuleDict()
        for role in roles:
            made = like(layer, bias=getattr(layer, "bias", None) is not None)
            for name, value in list(made.named_parameters()):
                setattr(made, name, nn.Parameter(torch.zeros(value.shape, device=device)))
            self.differences[role] = made

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base_layer, name) if name in _SHOWN else super().__getattr__(name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the layer's own: [..., in] → [..., out], or [B, in, H, W] → [B, out, H', W']."""
        whole = self.base_layer(x)
        if self.acting is None:
            return whole
        difference = self.differences[self.acting]
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(difference.weight.dtype)
        return (whole + difference(self.dropout(x))).to(whole.dtype)


class Full:
    """Wraps layers in `FullLayer`, and reaches into them; see `LowRank`, which it stands in for."""

    def __init__(self, config: LoraConfig) -> None:
        self.config = config
        self.constants: dict[str, float] = {}

    def attach(
        self, module: nn.Module, found: Mapping[str, nn.Module], roles: Sequence[str], device: torch.device
    ) -> None:
        """
        Raises:
            TrainingError: the base weights are stored in few bits, or memory runs out.
        """
        from ..memory import telling  # which measures policies, and so knows them

        if stored := precision_of(module):
            raise TrainingError(
                f"The base weights are stored as {stored}. Whole weights would learn to undo its rounding, and on the "
                "model as it is they would do harm. Set base_precision to as loaded, or train low rank."
            )
        told = (
            f"Whole weights of {len(found)} layers{f' for {len(roles)} roles' if len(roles) > 1 else ''} do not fit "
            "into memory. Train low rank instead, or whole weights of fewer layers."
        )
        module.requires_grad_(False)
        with telling(told):
            for path, layer in found.items():
                parent, _, name = path.rpartition(".")
                made = FullLayer(layer, roles, dropout=self.config.dropout, device=device)
                setattr(module.get_submodule(parent), name, made)

    def named(self, layer: FullLayer, role: str) -> dict[str, nn.Parameter]:
        difference = layer.differences[role]
        weight = {WEIGHT: difference.weight}
        return weight if difference.bias is None else {**weight, BIAS: difference.bias}

    def select(self, layer: FullLayer, role: str | None) -> None:
        layer.acting = role

    def drop(self, layer: FullLayer, on: bool) -> None:
        layer.dropout.train(on)

    def adopt(self, layer: FullLayer, role: str, constants: Mapping[str, float]) -> None:
        """Nothing: whole weights are saved as they are."""

    @property
    def fitting(self) -> str:
        return "whole weights (full) of this model with the same target layers"
