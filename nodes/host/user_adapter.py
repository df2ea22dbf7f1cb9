"""A user adapter on a host MODEL: a patch of the sampler's calls, which stacks with LoRAs, ControlNets and others.

Inside every call of the network the adapter attends to one user, or to several in turn whose changes are added up.
Only rows of the positive prompt have a user: what guidance leans away from, or an empty prompt, is nobody's taste.
Which rows those are, the guider says: each kind of guider numbers its prompts in its own way.
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
from .prompt_rows import PositiveRows

KEY = "attune_user_adapter"


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
        self.rows = PositiveRows()

    def __call__(
        self, executor: Any, x: torch.Tensor, sigma: torch.Tensor, *rest: Any, **keywords: Any
    ) -> torch.Tensor:
        """x [rows, C, H, W] and sigma [rows] → the clean picture predicted, [rows, C, H, W]."""
        options = keywords.get("transformer_options", rest[3] if len(rest) > 3 else {})
        present = self.rows.of(options, len(x))
        if float(sigma.flatten()[0]) not in self.window or not present.any():
            return executor(x, sigma, *rest, **keywords)
        model = executor.class_obj
        self.adapter.to(x.device, model.manual_cast_dtype or model.get_dtype())
        present = None if present.all() else present
        found = []

        def predict() -> None:
            found.append(executor(x, sigma, *map(_own_lists, rest), **{k: _own_lists(v) for k, v in keywords.items()}))

        with self.adapter.attached(_uncompiled(model.diffusion_model)):
            # One taste of weight 1 needs no second call; other weights are a sum, for one taste as for several.
            if [weight for _, weight in self.users] != [1.0]:
                predict()
            for tokens, _ in self.users:
                with self.adapter.acting(tokens[None].to(x.device), present, self.strength):
                    predict()
        if len(found) == 1:
            return found[0]
        return blend_predictions(found[0], found[1:], [weight for _, weight in self.users])


def _uncompiled(network: Any) -> Any:
    """The network itself, where torch.compile has wrapped it: its layers are called as ever then."""
    return getattr(network, "_orig_mod", network)


def _own_lists(value: Any) -> Any:
    """The same with lists of its own: a U-Net takes what ControlNet gives it out of its lists."""
    if isinstance(value, dict) and any(isinstance(part, list) for part in value.values()):
        return {name: list(part) if isinstance(part, list) else part for name, part in value.items()}
    return value


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
    adapter.check_fits(attention_sites(_uncompiled(model.model.diffusion_model)))
    users = [(tokens, weight) for tokens, weight in users if weight != 0 and bool(tokens.any())]
    if strength == 0 or not users or start_percent >= end_percent:
        return model
    sampling = model.get_model_object("model_sampling")
    window = Window(float(sampling.percent_to_sigma(start_percent)), float(sampling.percent_to_sigma(end_percent)))
    attention, patched = UserAttention(adapter, users, strength=strength, window=window), model.clone()
    patched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, KEY, attention)
    patched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, KEY, attention.rows.guided)
    return patched
