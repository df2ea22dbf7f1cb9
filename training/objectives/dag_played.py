"""Rollouts of DAG that wait to be learned from, and how they are kept in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..interfaces import Prompt
from ..rollout import Trajectories
from .windows import window_states


@dataclass
class Rest:
    """Of credit "to the end": what is known of the way after every one of N transitions.

    Attributes:
        finished: rewards of the finished pictures, higher is better, [N].
        balance: Σ (log P − log P_F) over the steps after the transition's own, log P being log P_B or log P_ref, [N].
    """

    finished: torch.Tensor
    balance: torch.Tensor

    def flow_next(self, beta: float) -> torch.Tensor:
        """log F̃ behind every transition as its rollout found it, β·r(x_0) + Σ (log P − log P_F); [N]."""
        return beta * self.finished + self.balance


@dataclass
class Played:
    """Rollouts waiting to be trained on: N transitions between M states.

    Attributes:
        prompts: number of every row's prompt.
        visits: (row, step) of the transitions, [N, 2].
        rewards: of the states' pictures, higher is better, [M].
        kept: transitions that no safety gate blocks, bool [N].
        log_target: log P_B, or log P_ref, [N].
        updates_left: passes to come.
        rest: with credit "to the end".
        log_old: log P_F in the first pass, [N]; None before it.
        behaviour: x0 in the first pass, if the anchor will want it, [N, C, H, W].
        states: (row, number) of the states, [M, 2]; before, after: their places at both ends of a transition, [N].
    """

    trajectories: Trajectories
    prompts: list[int]
    visits: torch.Tensor
    rewards: torch.Tensor
    kept: torch.Tensor
    log_target: torch.Tensor
    updates_left: int
    rest: Rest | None = None
    log_old: torch.Tensor | None = None
    behaviour: torch.Tensor | None = None

    def __post_init__(self) -> None:
        self.states, self.before, self.after = window_states(self.visits, self.trajectories.steps)

    def state_dict(self) -> dict[str, Any]:
        state = {name: getattr(self.trajectories, name) for name in _PATHS}
        state |= {name: getattr(self, name) for name in (*_TENSORS, "prompts", "updates_left")}
        return state | {name: getattr(self.rest, name, None) for name in _REST}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], prompts: Sequence[Prompt], device: torch.device) -> Played:
        """
        Args:
            prompts: of the run, which `state` numbers.
        """
        numbers = [int(i) for i in state["prompts"]]
        tensors = {
            name: value.to(device) if value is not None else None
            for name in (*_PATHS, *_TENSORS, *_REST)
            for value in [state.get(name)]
        }
        cond = [prompts[i].positive for i in numbers]
        paths = Trajectories(**{name: tensors.pop(name) for name in _PATHS}, cond=cond)
        known = {name: tensors.pop(name) for name in _REST}
        rest = None if known["finished"] is None else Rest(**known)
        return cls(paths, numbers, updates_left=int(state["updates_left"]), rest=rest, **tensors)


_PATHS = ("states", "sigmas", "log_forward", "log_backward")
_TENSORS = ("visits", "rewards", "kept", "log_target", "log_old", "behaviour")
_REST = ("finished", "balance")
