"""Weights that bitsandbytes keeps in 4 bits: what one of them consists of, and whether it can be moved.

Such a parameter is a tensor of packed numbers with a state: the blocks' scales, the scales of those (double
quantisation), and both code books. Moving it must take all of that along. That has been so only since bitsandbytes
0.43, and some versions after it left a part behind or forgot that the numbers are quantised: so it is tried out, not
read from a version number.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


def quantised_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The module's 4-bit parameters."""
    return [parameter for parameter in module.parameters() if states(parameter)]


def states(parameter: Any) -> list[Any]:
    """The state of a 4-bit parameter and the state of its scales: objects with tensors. Of any other, none."""
    state = getattr(parameter, "quant_state", None)
    return [found for found in (state, getattr(state, "state2", None)) if found is not None]


def parts(parameter: torch.Tensor) -> list[torch.Tensor]:
    """Every tensor that a 4-bit parameter consists of; of any other, itself."""
    carried = [value for state in states(parameter) for value in vars(state).values()]
    return [parameter, *(value for value in carried if isinstance(value, torch.Tensor))]


def can_be_moved(module: nn.Module) -> bool:
    """Whether the module's 4-bit parameters can go to another device and come back unchanged.

    Tried on a copy of the smallest, which is sent to a device that every machine has: "meta", without any numbers.
    """
    found = quantised_parameters(module)
    if not found:
        return True
    try:
        moved = copy.deepcopy(min(found, key=torch.Tensor.numel)).to("meta")
    except Exception:  # whatever a version says that cannot
        return False
    whole = bool(states(moved)) and bool(getattr(moved, "bnb_quantized", False))
    return whole and all(part.device.type == "meta" for part in parts(moved))
