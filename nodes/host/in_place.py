"""Networks that write into tensors which autograd has kept, made trainable.

Many of the host's transformers add their residuals in place (`x += …`), which inference allows and a backward pass does
not: it would find another value than the one it needs. Here such a value is copied at the moment it is overwritten.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ...training.checkpointing import outer_hooks

# Networks that overwrite nothing that their backward pass needs; known by their gradients. Watching costs them time.
PURE = {"UNetModel"}


class _CopyOnWrite(TorchDispatchMode):
    """Before any operation writes into memory that autograd keeps a view of, give the view memory of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: defaultdict[int, list[torch.Tensor]] = defaultdict(list)

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """A view of `tensor` that holds its present values for ever, wherever it is put."""
        view = tensor.detach()
        self._kept[view.untyped_storage()._cdata].append(view)
        return view

    def _written(self, value: Any) -> None:
        if isinstance(value, (list, tuple)):
            for item in value:
                self._written(item)
        elif isinstance(value, torch.Tensor):
            for view in self._kept.pop(value.untyped_storage()._cdata, ()):
                view.data = view.clone()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function._schema.is_mutable:
            for index, argument in enumerate(function._schema.arguments):
                if argument.alias_info is not None and argument.alias_info.is_write:
                    self._written(args[index] if index < len(args) else kwargs.get(argument.name))
        return function(*args, **kwargs)


@contextmanager
def in_place_allowed(network: nn.Module) -> Iterator[None]:
    """Inside, `network` may overwrite what autograd keeps. The backward pass may come later, outside.

    Costs nothing without gradients, and nothing for the networks in `PURE`.
    """
    if not torch.is_grad_enabled() or any(kind.__name__ in PURE for kind in type(network).__mro__):
        yield
        return
    mode = _CopyOnWrite()
    pack, unpack = outer_hooks()
    # First ours: whoever keeps tensors beyond us (a checkpoint that computes again) gets the view itself.
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: pack(mode.keep(tensor)), unpack), mode:
        yield
