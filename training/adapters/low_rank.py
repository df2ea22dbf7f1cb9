"""What a role holds in an adapted layer where it trains a LoRA: two thin matrices, wrapped around the layer by peft.

    y = W·x + (alpha / rank) · up · down · x

`down` starts random, `up` starts at zero, so a fresh adapter changes nothing.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..libraries import no_kernels
from .layers import is_linear, like

if TYPE_CHECKING:
    from .lora import LoraConfig


class LowRank:
    """Wraps layers by peft, and reaches into them. `Full` does the same for whole weights.

    Attributes:
        constants: ending → a number that is saved with every layer, and may be missing.
    """

    def __init__(self, config: LoraConfig) -> None:
        self.config = config
        self.constants: dict[str, float] = {"alpha": config.alpha}

    def attach(
        self, module: nn.Module, found: Mapping[str, nn.Module], roles: Sequence[str], device: torch.device
    ) -> None:
        """Wrap the layers of `module` that were found, each with every role's halves: plain float32 layers, whatever
        the base is made of."""
        for role in roles:
            self._inject(module, found, role)
        for path, layer in found.items():
            wrapper = module.get_submodule(path)
            for role in roles:
                down, up = _pair(layer, self.config.rank)
                start = _start(down.weight.shape, self.config.seed, role, path)
                down.weight = nn.Parameter(start.to(device))
                up.weight = nn.Parameter(torch.zeros(up.weight.shape, device=device))
                wrapper.lora_A[role], wrapper.lora_B[role] = down, up

    def _inject(self, module: nn.Module, found: Mapping[str, nn.Module], role: str) -> None:
        with no_kernels():
            import peft

        config = peft.LoraConfig(
            r=self.config.rank,
            lora_alpha=self.config.alpha,
            lora_dropout=self.config.dropout,
            target_modules="|".join(re.escape(path) for path in found),
            init_lora_weights=False,
        )
        unusual = {type(layer) for layer in found.values() if not isinstance(layer, (nn.Linear, nn.Conv2d))}
        if unusual:
            config._register_custom_module(dict.fromkeys(unusual, peft.tuners.lora.Linear))
        peft.inject_adapter_in_model(config, module, role, low_cpu_mem_usage=True)
        # What peft leaves there is for its own savers, and a second role would be warned about the first.
        module.__dict__.pop("peft_config", None)

    def named(self, layer: nn.Module, role: str) -> dict[str, nn.Parameter]:
        """What a role trains in a layer, by the endings of their names in files."""
        return {"lora_down.weight": layer.lora_A[role].weight, "lora_up.weight": layer.lora_B[role].weight}

    def select(self, layer: nn.Module, role: str | None) -> None:
        """Let a role act in a layer; None: nobody."""
        # Not peft's own switch: it also turns off requires_grad of the other roles, and a graph that is still waiting
        # for its backward pass would then lose their gradients without a word.
        layer._disable_adapters = role is None
        if role is not None:
            layer._active_adapter = [role]

    def drop(self, layer: nn.Module, on: bool) -> None:
        """Dropout on or off."""
        layer.lora_dropout.train(on)

    def adopt(self, layer: nn.Module, role: str, constants: Mapping[str, float]) -> None:
        """Make up for constants that weights were saved with, where they are others than ours."""
        if (alpha := constants["alpha"]) != self.config.alpha:
            layer.lora_B[role].weight.mul_(alpha / self.config.alpha)

    @property
    def fitting(self) -> str:
        """What can be loaded, for errors."""
        return f"a LoRA of this model with the same rank ({self.config.rank}) and target layers"


def _pair(layer: nn.Module, rank: int) -> tuple[nn.Module, nn.Module]:
    """Weightless `down` and `up` for one base layer."""
    if is_linear(layer):
        return like(layer, outputs=rank), nn.Linear(rank, layer.out_features, bias=False, device="meta")
    return like(layer, outputs=rank), nn.Conv2d(rank, layer.out_channels, 1, bias=False, device="meta")


def _start(shape: torch.Size, seed: int, role: str, path: str) -> torch.Tensor:
    """Uniform in ±1/√fan_in, a function of the arguments alone: other layers and torch's own state do not matter."""
    digest = hashlib.sha256(f"{seed}/{role}/{path}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
