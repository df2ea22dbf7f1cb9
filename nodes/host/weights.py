"""Weights that training can use: ordinary tensors, frozen, without a copy and without a changed bit.

The host loads and runs everything inside `torch.inference_mode()`. Tensors born there cannot be saved for a backward
pass. An ordinary tensor over the same storage can.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ...training.four_bit import states


def thaw(tensor: torch.Tensor) -> torch.Tensor:
    """The same values as an ordinary tensor; the same memory where the tensor's kind allows it.

    To be called outside inference mode. Tensors that are ordinary already are returned as they are.
    """
    if not tensor.is_inference():
        return tensor
    if type(tensor) in (torch.Tensor, nn.Parameter) and tensor.layout is torch.strided and not tensor.is_meta:
        return _over_the_same_storage(tensor)
    return tensor.detach().clone()  # quantised tensors are subclasses that carry more than a storage


def _over_the_same_storage(tensor: torch.Tensor) -> torch.Tensor:
    alias = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return alias.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())


def _thaw_parameter(parameter: nn.Parameter) -> nn.Parameter:
    """The same parameter as an ordinary one; of its own kind, and with what it carries, where it has a storage."""
    kind = type(parameter)
    own_kind = kind is not nn.Parameter and issubclass(kind, nn.Parameter)
    # A kind that computes by itself may have no storage at all.
    if not own_kind or kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__ or parameter.is_meta:
        return nn.Parameter(thaw(parameter), requires_grad=parameter.requires_grad)
    made = torch.Tensor._make_subclass(kind, _over_the_same_storage(parameter), parameter.requires_grad)
    vars(made).update(vars(parameter))
    return made


def thaw_tree(value: Any) -> Any:
    """A copy of nested dicts, lists and tuples whose tensors are ordinary copies; everything else by reference."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if type(value) is dict:
        return {key: thaw_tree(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(thaw_tree(item) for item in value)
    return value


def thaw_attributes(owner: Any) -> None:
    """Thaw the plain tensor attributes of an object, e.g. a latent format's means."""
    for name, value in list(vars(owner).items()):
        if isinstance(value, torch.Tensor) and value.is_inference():
            setattr(owner, name, thaw(value))


def thaw_module(module: nn.Module) -> None:
    """Thaw every parameter, buffer and plain tensor attribute of a module tree, in place. Keeps `requires_grad`.

    Of 4-bit weights the scales and code books are thawed too.
    """
    for part in module.modules():
        for name, parameter in list(part._parameters.items()):
            if parameter is not None and parameter.is_inference():
                part._parameters[name] = _thaw_parameter(parameter)
            for state in states(parameter):
                thaw_attributes(state)
        for name, buffer in list(part._buffers.items()):
            if buffer is not None and buffer.is_inference():
                part._buffers[name] = thaw(buffer)
        thaw_attributes(part)


@contextmanager
def frozen(modules: Iterable[nn.Module]) -> Iterator[None]:
    """No parameter of these modules takes gradients inside; their flags are as before afterwards."""
    flags = {id(parameter): (parameter, parameter.requires_grad) for m in modules for parameter in m.parameters()}
    for parameter, _ in flags.values():
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        # Only there may a flag be raised on a tensor that the host has moved, and so remade, in the meantime.
        with torch.inference_mode():
            for parameter, flag in flags.values():
                if flag:
                    parameter.requires_grad_(True)
