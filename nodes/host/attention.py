"""Which attention the host uses while we train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# sage and flash have no backward pass here; sub-quadratic and split attention keep every score matrix for it.
REPLACED = {"attention_sage", "attention_flash", "attention_sub_quad", "attention_split"}


def use_differentiable_attention(transformer_options: dict[str, Any]) -> None:
    """Let PyTorch's attention stand in for those that cannot be trained through, or only at a great cost of memory.

    It is used for rollouts and for losses alike: a log-probability ratio between the two must not see a difference of
    kernels. A choice that the user made by a node is kept. Hosts without the hook use their own attention.
    """
    transformer_options.setdefault("optimized_attention_override", _attention)


def _attention(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    from comfy.ldm.modules.attention import attention_pytorch

    chosen = attention_pytorch if function.__name__ in REPLACED else function
    return chosen(*arguments, **keywords)
