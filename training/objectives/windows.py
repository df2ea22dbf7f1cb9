"""Windows: runs of neighbouring sampler steps, whose states are scored once for two transitions.

A residual needs the flow at both ends of its step, and every flow costs one picture scored. K steps drawn singly need
2·K pictures; K in a row need K + 1, or K + 2 where they go on past the last step at the first.
"""

from __future__ import annotations

import torch

from ..share import ALONE, Share


def draw_windows(
    prompts: int,
    images_per_prompt: int,
    steps: int,
    generator: torch.Generator,
    *,
    count: int = 0,
    share: Share = ALONE,
) -> torch.Tensor:
    """(row, step) of the transitions to learn from: one window per trajectory, row by row, [N, 2].

    A window is `count` successive steps, the first following the last, from a start that is even over the steps: every
    transition is drawn with probability count/steps. The pictures of one drawn prompt share a window, so that each has
    companions at the same step; the starts of the prompts are spread evenly (systematic sampling), so that a set of
    rollouts sees all parts of the trajectory.

    Args:
        prompts: drawn by this process; images_per_prompt: trajectories of each, side by side.
        steps: of a trajectory.
        count: steps per window; 0 = all.
        share: this process's part.

    Returns:
        rows counted within this process, on the CPU.
    """
    count, slots = count or steps, prompts * share.count
    places = torch.randperm(slots, generator=generator) + torch.rand((), generator=generator, dtype=torch.float64)
    start = share.take((places * steps / slots).floor().long().remainder(steps))
    start = start.repeat_interleave(images_per_prompt)
    if count == steps:
        start = torch.zeros_like(start)
    step = (start[:, None] + torch.arange(count)).remainder(steps)
    row = torch.arange(len(start))[:, None].expand_as(step)
    return torch.stack([row, step], 2).flatten(0, 1)


def window_states(visits: torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The different states at the ends of some transitions.

    Args:
        visits: (row, step) [N, 2]; steps: T of a trajectory, whose states are numbered 0 … T.

    Returns:
        states (row, number) [M, 2], and for every visit the places of its two ends among them, [N] each.
    """
    first = visits[:, 0] * (steps + 1) + visits[:, 1]
    states, places = torch.cat([first, first + 1]).unique(return_inverse=True)
    before, after = places.chunk(2)
    return torch.stack([states // (steps + 1), states % (steps + 1)], 1), before, after
