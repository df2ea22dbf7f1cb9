"""Which transitions of rollouts are learned from, and how much each sampler step counts."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from ..diffusion import DiffusionProcess, step_sensitivity
from ..share import ALONE, Share

StepWeights = Literal["balanced", "plain"]
STEP_WEIGHTS = get_args(StepWeights)


def draw_visits(
    batch: int, steps: int, generator: torch.Generator, *, count: int = 0, share: Share = ALONE
) -> torch.Tensor:
    """(row, step) of the transitions to learn from, shuffled: an even draw from every trajectory, [N, 2].

    Args:
        batch: trajectories of this process; steps: of each.
        count: steps drawn per trajectory, without repetition; 0 = all.
        share: this process's part.

    Returns:
        rows counted within this process, on the CPU.
    """
    chosen = torch.rand(batch * share.count, steps, generator=generator).argsort(1)[:, : count or steps]
    rows = torch.arange(len(chosen))[:, None].expand_as(chosen)
    pairs = torch.stack([rows, chosen], 2).flatten(0, 1)  # (batch·processes·count, 2)
    pairs = pairs[torch.randperm(len(pairs), generator=generator)]
    own = share.rows(len(chosen))
    pairs = pairs[(pairs[:, 0] >= own.start) & (pairs[:, 0] < own.stop)]
    return pairs - torch.tensor([own.start, 0])


def step_weights(process: DiffusionProcess, sigmas: torch.Tensor, kind: StepWeights) -> torch.Tensor:
    """Factors of the sampler steps' losses [T], with mean 1.

    Args:
        sigmas: [T + 1], descending.
        kind: "plain" = 1 each; "balanced" = 1/`step_sensitivity`, so that no step drowns the others (ours).
    """
    if kind == "plain":
        return torch.ones_like(sigmas[1:])
    weights = 1 / step_sensitivity(process, sigmas[:-1], sigmas[1:])
    return weights / weights.mean()
