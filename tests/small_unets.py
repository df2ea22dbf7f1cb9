"""Small U-Nets of diffusers with random weights, always the same, and what tests of adapters do with a network.

They cost milliseconds, and have what a real one has: linear layers, plain and strided convolutions, two attentions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from attune.training.adapters import Policy
from attune.training.denoisers import DiffusersDenoiser, process_of

CONTEXT, LARGER_CONTEXT = 16, 64


def tiny_denoiser(channels: tuple[int, int] = (32, 64)) -> DiffusersDenoiser:
    """Latents [B, 4, 8, 8], prompts [5, CONTEXT], predicts v; weights as they are made, which require gradients."""
    return _denoiser(channels, context=CONTEXT, attention_head_dim=8)


def larger_denoiser() -> DiffusersDenoiser:
    """The same with layers large enough to be stored in few bits; prompts [5, LARGER_CONTEXT], frozen weights."""
    return _frozen(_denoiser((64, 128), context=LARGER_CONTEXT, attention_head_dim=4))


def frozen_denoiser() -> DiffusersDenoiser:
    """As `tiny_denoiser`, and its weights require no gradients."""
    return _frozen(tiny_denoiser())


def _denoiser(channels: tuple[int, int], *, context: int, attention_head_dim: int) -> DiffusersDenoiser:
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=channels,
            layers_per_block=1,
            cross_attention_dim=context,
            attention_head_dim=attention_head_dim,
            norm_num_groups=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )
    return DiffusersDenoiser(unet.eval(), process_of("v"), torch.zeros(5, context))


def _frozen(denoiser: DiffusersDenoiser) -> DiffusersDenoiser:
    denoiser.module.requires_grad_(False)
    return denoiser


def inputs(count: int = 2, context: int = CONTEXT) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Latents [count, 4, 8, 8], sigmas [count] and as many prompts [5, context]."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(count, 4, 8, 8, generator=generator)
    return x, torch.linspace(0.5, 4, count), list(torch.randn(count, 5, context, generator=generator))


def disturb(policy: Policy, role: str = "policy", seed: int = 1, *, deviation: float = 0.2) -> None:
    """Give every tensor of a role values that matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters(role):
            parameter.copy_(deviation * torch.randn(parameter.shape, generator=generator))


def picture(module: nn.Module) -> dict[str, Any]:
    """Everything of a network that an adapter might leave changed, but for the weights' values."""
    return {
        "modules": [(name, id(layer), layer.training) for name, layer in module.named_modules()],
        "parameters": [(name, id(p), p.requires_grad) for name, p in module.named_parameters()],
        "attributes": {name: sorted(vars(layer)) for name, layer in module.named_modules()},
        "keys": list(module.state_dict()),
    }


# ---- single layers ----


class LayerDenoiser:
    """A denoiser around any module that maps [B, C] to [B, C]."""

    process = process_of("v")
    unconditional = None
    device = torch.device("cpu")

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(
        self, x: torch.Tensor, sigma: torch.Tensor, cond: Sequence[Any], *, guidance: float = 1.0
    ) -> torch.Tensor:
        return self.module(x)


class Attention(nn.Module):
    """Around a layer, which so has the name of a query's."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.to_q = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.to_q(x)


class CastLinear(nn.Linear):
    """As the host's layers do: weights of any type, computed in the input's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class Linear(nn.Module):
    """As the host's quantised layers: a linear layer by name and shape, not by inheritance."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.full((out_features, in_features), 0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight)
