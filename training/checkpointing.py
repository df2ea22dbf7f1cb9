"""Gradient checkpointing: a network's repeated blocks keep only their inputs and compute anew in the backward pass.

By torch's own non-reentrant checkpoint, so that gradients are equal to the last bit: the same operations on the same
numbers in the same order. What torch does not know of is remembered with a block's inputs and put back when it computes
again: which adapter was active and whether its dropout was on, and what the host wrote into the dictionaries it hands
from block to block. Random numbers (dropout) are torch's business, which restores its generators.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .interfaces import TrainingError

_BLOCKS = re.compile(
    # Transformers of the host and of diffusers, and the transformer blocks within U-Nets.
    r"(?:.*\.)?(?:joint|double|single|transformer|single_transformer)_blocks\.\d+"
    r"|(?:.*\.)?(?:double|single)_layers\.\d+"
    r"|(?:blocks|layers)\.\d+"
    # U-Nets of the host, whose loop looks at what lies within a block, and of diffusers.
    r"|(?:input_blocks|output_blocks)\.\d+\.\d+|middle_block\.\d+"
    r"|(?:down_blocks\.\d+|up_blocks\.\d+|mid_block)\.resnets\.\d+"
)

Context = Callable[[], AbstractContextManager[Any]]
_watching: ContextVar[Context] = ContextVar("watching", default=nullcontext)


def repeated_blocks(module: nn.Module) -> dict[str, nn.Module]:
    """The blocks that can be checkpointed, by path: the innermost of those whose place is a known one."""
    known = {path: part for path, part in module.named_modules() if _BLOCKS.fullmatch(path) and any(part.children())}
    outer = {".".join(names[:count]) for names in (path.split(".") for path in known) for count in range(1, len(names))}
    return {path: part for path, part in known.items() if path not in outer}


@contextmanager
def checkpointing(
    module: nn.Module,
    *,
    state: Callable[[], Context] = lambda: nullcontext,
    again: Context = nullcontext,
) -> Iterator[list[str]]:
    """Inside, the blocks of `module` are checkpointed wherever gradients are on; afterwards all is as before.

    Backward passes must have ended when the block is left, or they find their blocks without what `again` does.

    Args:
        state: called when a block computes; what it gives is entered when that block computes again. For adapters:
            `Policy.as_now`.
        again: entered around every repeated computation; the host's transformers need one, since they overwrite.

    Yields:
        paths of the blocks.

    Raises:
        TrainingError: the network has no repeated blocks that are known here.
    """
    blocks = repeated_blocks(module)
    if not blocks:
        raise TrainingError(
            f"This network ({type(module).__name__}) has no repeated blocks that are known here, so its gradients "
            f"cannot be checkpointed. Set gradient_checkpointing to off."
        )
    own = {path: block.__dict__.get("forward") for path, block in blocks.items()}
    try:
        for block in blocks.values():
            block.forward = _checkpointed(block.forward, state, again)
        yield list(blocks)
    finally:
        for path, block in blocks.items():
            if own[path] is None:
                block.__dict__.pop("forward", None)
            else:
                block.forward = own[path]


@contextmanager
def watched_blocks(watch: Context) -> Iterator[None]:
    """Inside, every checkpointed block computes within a context of its own: for measuring what it keeps."""
    token = _watching.set(watch)
    try:
        yield
    finally:
        _watching.reset(token)


def _checkpointed(forward: Callable[..., Any], state: Callable[[], Context], again: Context) -> Callable[..., Any]:
    def checkpointed(*arguments: Any, **keywords: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*arguments, **keywords)
        tensors: list[torch.Tensor] = []
        form = _taken_apart((arguments, keywords), tensors)
        # The first time the block gets the very objects, since callers look into what it writes there. Only then: they
        # must not be kept alive, and later callers have written into them.
        first = [(arguments, keywords)]
        as_then = state()

        def run(*given: torch.Tensor) -> Any:
            if first:
                once, named = first.pop()
                with _watching.get()():
                    return forward(*once, **named)
            once, named = _put_together(form, given)
            with as_then(), again():
                return forward(*once, **named)

        return checkpoint(run, *tensors, use_reentrant=False)

    return checkpointed


@dataclass(frozen=True)
class _Place:
    """Where a tensor was."""

    index: int


def _taken_apart(value: Any, tensors: list[torch.Tensor]) -> Any:
    """Nested dicts, lists and tuples copied, with their tensors moved to `tensors`; everything else by reference."""
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return _Place(len(tensors) - 1)
    if type(value) is dict:
        return {key: _taken_apart(item, tensors) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_taken_apart(item, tensors) for item in value)
    return value


def _put_together(form: Any, tensors: Sequence[torch.Tensor]) -> Any:
    """The inverse of `_taken_apart`; a new copy each time."""
    if isinstance(form, _Place):
        return tensors[form.index]
    if type(form) is dict:
        return {key: _put_together(item, tensors) for key, item in form.items()}
    if type(form) in (list, tuple):
        return type(form)(_put_together(item, tensors) for item in form)
    return form


def outer_hooks() -> tuple[Callable[[torch.Tensor], Any], Callable[[Any], torch.Tensor]]:
    """The saved-tensor hooks that are active already. Others put over them would hide them."""
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return (top and top(False)) or (lambda tensor: tensor, lambda tensor: tensor)
