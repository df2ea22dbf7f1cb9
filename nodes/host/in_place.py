"""Networks that write into tensors which autograd has kept, made trainable.

Many of the host's transformers add their residuals in place (`x += …`), which inference allows and a backward pass does
not: it would find another value than the one it needs. Here such a value is copied at the moment it is overwritten.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

# Networks that overwrite nothing that their backward pass needs; known by their gradients. Watching costs them time.
PURE = {"UNetModel"}


class _Kept:
    """What autograd keeps of a tensor, or the copy made of it when it was overwritten."""

    def __init__(self, content: Any) -> None:
        self.content = content


class _CopyOnWrite(TorchDispatchMode):
    """Before any operation writes into memory that autograd keeps a view of, give the view memory of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: defaultdict[int, list[_Kept]] = defaultdict(list)

    def keep(self, content: Any) -> _Kept:
        kept = _Kept(content)
        if isinstance(content, torch.Tensor):
            self._kept[content.untyped_storage()._cdata].append(kept)
        return kept

    def _written(self, value: Any) -> None:
        if isinstance(value, (list, tuple)):
            for item in value:
                self._written(item)
        elif isinstance(value, torch.Tensor):
            for kept in self._kept.pop(value.untyped_storage()._cdata, ()):
                kept.content = kept.content.clone()

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
    pack, unpack = _outer_hooks()
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: mode.keep(pack(t)), lambda kept: unpack(kept.content)),
        mode,
    ):
        yield


def _outer_hooks() -> tuple[Callable[[torch.Tensor], Any], Callable[[Any], torch.Tensor]]:
    """The hooks that are active already. Ours would hide them, e.g. from who counts the memory of a step."""
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return (top and top(False)) or (lambda tensor: tensor, lambda tensor: tensor)
