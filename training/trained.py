"""What a run trains: the policy's tensors and the objective's own, with their optimizer and their running average."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from . import evaluation
from .interfaces import Auxiliary, Trainable
from .trainer_config import TrainerConfig

# Before the names of auxiliary tensors among those that a run gives.
AUXILIARY = "auxiliary:"


def parted(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What a run gives, as the policy's own tensors and the auxiliary ones under their own names."""
    own = {name: value for name, value in tensors.items() if not name.startswith(AUXILIARY)}
    return own, {name.removeprefix(AUXILIARY): tensors[name] for name in tensors.keys() - own.keys()}


def given_by(state: Mapping[str, Any], *, best: bool) -> tuple[int, Mapping[str, torch.Tensor]]:
    """The update and the tensors that a run would give which ends with this saved state.

    Args:
        best: whether the best ones are kept.
    """
    chosen = evaluation.given_by(state["evaluations"], best=best)
    if chosen is not None:
        return chosen
    auxiliary = {f"{AUXILIARY}{name}": value for name, value in state["auxiliary"].items()}
    return int(state["step"]), state["average"] or {**state["adapters"], **auxiliary}


class Trained:
    """
    Args:
        role: of the policy, which is trained.
        auxiliary: the objective's own tensors. Those that are `kept` go along with the policy's wherever weights are
            averaged, remembered as the best, or given out: under `AUXILIARY` and their name.

    Attributes:
        parameters: of the policy; all: and the auxiliary ones.
        average: the running average of what is given out; None without.
    """

    def __init__(self, policy: Trainable, role: str, auxiliary: Auxiliary, config: TrainerConfig) -> None:
        self.policy, self.role, self.auxiliary = policy, role, auxiliary
        self.named = policy.named_parameters(role)
        self.parameters = list(self.named.values())
        self.all = [*self.parameters, *auxiliary.parameters.values()]
        self.kept = {f"{AUXILIARY}{name}": value for name, value in auxiliary.parameters.items() if auxiliary.kept}
        self.given = {**self.named, **self.kept}
        self.average = [value.detach().clone() for value in self.given.values()] if config.ema else None
        self.optimizer = _optimizer(self.parameters, auxiliary, config)

    def tensors(self) -> dict[str, torch.Tensor]:
        """A copy on the CPU of what is given out, as it is now."""
        kept = {name: value.detach().to("cpu", copy=True) for name, value in self.kept.items()}
        return {**self.policy.tensors(self.role), **kept}

    def put(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Weights as `tensors` gives them in place of the present ones and of their average; all else stays."""
        own, kept = parted(tensors)
        self.policy.load_tensors(own, self.role)
        with torch.no_grad():
            for name, value in kept.items():
                self.auxiliary.parameters[name].copy_(value)
            for average, value in zip(self.average or (), self.given.values(), strict=self.average is not None):
                average.copy_(value)

    def follow(self, decay: float) -> None:
        """Let the average move towards the present weights."""
        if self.average is not None:
            torch._foreach_lerp_(self.average, [value.detach() for value in self.given.values()], 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The running average in place of the weights, by exchanging storages."""
        if self.average is None:
            yield
            return
        current = [value.data for value in self.given.values()]
        try:
            for parameter, value in zip(self.given.values(), self.average, strict=True):
                parameter.data = value
            yield
        finally:
            for parameter, value in zip(self.given.values(), current, strict=True):
                parameter.data = value

    def state_dict(self) -> dict[str, Any]:
        average = None if self.average is None else dict(zip(self.given, self.average, strict=True))
        return {
            "adapters": {name: value.detach() for name, value in self.named.items()},
            "average": average,
            "auxiliary": {name: value.detach() for name, value in self.auxiliary.parameters.items()},
            "optimizer": self.optimizer.state_dict()["state"],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.policy.load_tensors(state["adapters"], self.role)
        if self.average is not None:
            for name, value in zip(self.given, self.average, strict=True):
                value.copy_(state["average"][name])
        with torch.no_grad():
            for name, value in self.auxiliary.parameters.items():
                value.copy_(state["auxiliary"][name])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})


def _optimizer(parameters: list[nn.Parameter], auxiliary: Auxiliary, config: TrainerConfig) -> torch.optim.AdamW:
    """AdamW; each group's "factor" is its learning rate in units of the run's."""
    groups: list[dict[str, Any]] = [{"params": parameters, "factor": 1.0}]
    if auxiliary.parameters:
        factor = auxiliary.learning_rate / config.learning_rate
        groups.append({"params": list(auxiliary.parameters.values()), "factor": factor})
    for group in groups:
        group["lr"] = config.rate(0) * group["factor"]
    knobs = {"lr": config.rate(0), "betas": config.betas, "weight_decay": config.weight_decay}
    try:
        return torch.optim.AdamW(groups, fused=True, **knobs)
    except RuntimeError:  # a device without the fused kernel
        return torch.optim.AdamW(groups, foreach=True, **knobs)
