"""A user adapter on a host MODEL: a patch of the sampler's calls, which stacks with LoRAs, ControlNets and others.

Inside every call of the network the adapter attends to one user, or to several in turn whose changes are added up.
Only rows of the positive prompt have a user: what guidance leans away from, or an empty prompt, is nobody's taste.
Which rows those are, the guider says: each kind of guider numbers its prompts in its own way.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.patcher_extension
import torch

from ...training.adapters.attention_sites import attention_sites
from ...training.adapters.user_attention import UserAdapter
from ...training.preference.blending import blend_predictions

KEY = "attune_user_adapter"
NEGATIVE = 1  # how the host numbers the rows of the negative prompt where no guider says which are the positive one's


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
        self._positive: frozenset[Any] | None = None

    def guided(self, executor: Any, *arguments: Any, **keywords: Any) -> torch.Tensor:
        """Wraps the guider's prediction: remembers meanwhile which prompts are its positive one."""
        previous, self._positive = self._positive, _positive_prompts(executor.class_obj)
        try:
            return executor(*arguments, **keywords)
        finally:
            self._positive = previous

    def __call__(
        self, executor: Any, x: torch.Tensor, sigma: torch.Tensor, *rest: Any, **keywords: Any
    ) -> torch.Tensor:
        """x [rows, C, H, W] and sigma [rows] → the clean picture predicted, [rows, C, H, W]."""
        options = keywords.get("transformer_options", rest[3] if len(rest) > 3 else {})
        present = rows_with_user(options, len(x), self._positive)
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


def _positive_prompts(guider: Any) -> frozenset[Any] | None:
    """How the host calls the entries of a guider's positive prompt; None where it does not say.

    Where a prompt has an area, the host gives the others an entry of that area too, under the same name: these get
    names of their own.
    """
    prompts = getattr(guider, "conds", None) or {}
    names = [entry.get("uuid") for entry in prompts.get("positive") or ()]
    if not names or None in names:
        return None
    for prompt, entries in prompts.items():
        for entry in entries or ():
            if prompt != "positive" and entry.get("uuid") in names:
                entry["uuid"] = uuid.uuid4()
    return frozenset(names)


def rows_with_user(options: Mapping[str, Any], rows: int, positive: frozenset[Any] | None) -> torch.Tensor:
    """bool [rows]: those of the positive prompt.

    Args:
        options: the host's, which name the conditioning of each equal part of the rows, and number it.
        positive: names of the positive ones; None: all but the second number are, as in the host's usual guidance.
    """
    kinds, names = list(options.get("cond_or_uncond", ())) or [0], list(options.get("uuids", ()))
    if positive is not None and len(names) == len(kinds):
        parts = [name in positive for name in names]
    else:
        parts = [kind != NEGATIVE for kind in kinds]
    return torch.tensor(parts).repeat_interleave(rows // len(parts))


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
    patched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, KEY, attention.guided)
    return patched
