"""A user adapter on a host MODEL: a patch of the sampler's calls, which stacks with LoRAs, ControlNets and others.

Inside every call of the network the adapter attends to one user, or to several in turn whose changes are added up. The
rows of the negative prompt are computed without: what guidance leans away from is nobody's taste.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.patcher_extension
import torch

from ...training.adapters.attention_sites import attention_sites
from ...training.adapters.user_attention import UserAdapter
from ...training.preference.blending import blend_predictions

KEY = "attune_user_adapter"
NEGATIVE = 1  # how the host numbers the rows of the negative prompt


@dataclass(frozen=True)
class Window:
    """A part of sampling: noise levels sigma with end < sigma ≤ start."""

    start: float
    end: float

    def __contains__(self, sigma: float) -> bool:
        return self.end < sigma <= self.start


class UserAttention:
    """The patch: a wrapper of the host's `apply_model`.

    Args:
        adapter: whose layers are named as the network's.
        users: tokens [k, d] and the weight of each.
        strength: s of the branch. window: where it acts.
    """

    def __init__(
        self, adapter: UserAdapter, users: Sequence[tuple[torch.Tensor, float]], *, strength: float, window: Window
    ) -> None:
        self.adapter, self.users, self.strength, self.window = adapter, tuple(users), strength, window

    def __call__(
        self, executor: Any, x: torch.Tensor, sigma: torch.Tensor, *rest: Any, **keywords: Any
    ) -> torch.Tensor:
        """x [rows, C, H, W] and sigma [rows] → the clean picture predicted, [rows, C, H, W]."""
        options = keywords.get("transformer_options", rest[3] if len(rest) > 3 else {})
        present = rows_with_user(options.get("cond_or_uncond", ()), len(x))
        if float(sigma.flatten()[0]) not in self.window or not present.any():
            return executor(x, sigma, *rest, **keywords)
        model = executor.class_obj
        self.adapter.to(x.device, model.manual_cast_dtype or model.get_dtype())
        present = None if present.all() else present
        found = []
        with self.adapter.attached(model.diffusion_model):
            # One taste of weight 1 needs no second call; other weights are a sum, for one taste as for several.
            if [weight for _, weight in self.users] != [1.0]:
                found.append(executor(x, sigma, *rest, **keywords))
            for tokens, _ in self.users:
                with self.adapter.acting(tokens[None].to(x.device), present, self.strength):
                    found.append(executor(x, sigma, *rest, **keywords))
        if len(found) == 1:
            return found[0]
        return blend_predictions(found[0], found[1:], [weight for _, weight in self.users])


def rows_with_user(kinds: Sequence[int], rows: int) -> torch.Tensor:
    """bool [rows]: all but those of the negative prompt.

    Args:
        kinds: the host's number of the conditioning, one for each equal part of the rows; empty = one, positive.
    """
    kinds = list(kinds) or [0]
    return torch.tensor([kind != NEGATIVE for kind in kinds]).repeat_interleave(rows // len(kinds))


def with_user(
    model: Any,
    adapter: UserAdapter,
    users: Sequence[tuple[torch.Tensor, float]],
    *,
    strength: float,
    start_percent: float,
    end_percent: float,
) -> Any:
    """`model` with a user adapter; the model itself where there is nobody to attend to.

    Args:
        users: tokens [k, d] and weight of each taste.
        strength: 0 = nothing changes. start_percent, end_percent: part of sampling, 0 … 1.

    Raises:
        TrainingError: no layer of the model fits the adapter.
    """
    adapter.check_fits(attention_sites(model.model.diffusion_model))
    users = [(tokens, weight) for tokens, weight in users if weight != 0 and bool(tokens.any())]
    if strength == 0 or not users or start_percent >= end_percent:
        return model
    sampling = model.get_model_object("model_sampling")
    window = Window(float(sampling.percent_to_sigma(start_percent)), float(sampling.percent_to_sigma(end_percent)))
    patched = model.clone()
    patched.add_wrapper_with_key(
        comfy.patcher_extension.WrappersMP.APPLY_MODEL,
        KEY,
        UserAttention(adapter, users, strength=strength, window=window),
    )
    return patched
