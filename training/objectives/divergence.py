"""Drift of the methods that play trajectories (DDPO, DAG, ReFL): where on them it is measured, and how.

KL of the policy's trajectories from the reference's is a sum over all their steps (`rollout.step_divergence`), each an
expectation over the states that the step begins from. Every set of rollouts is measured `MOST` times at most, each time
on another rollout as far as there are as many, whatever is learned from: half of the times at the last step, which has
most of the divergence, and once in each of the stretches that the others form. In a stretch a step is taken with a
probability p_i in proportion to `step_sensitivity`², which is what its divergence would be if the network's own output
differed as much at all levels, and counts 1/p_i times:

    KL ≈ mean d_last + Σ_stretches d_i / p_i,   so that the mean over sets of rollouts is Σ_i d_i, whatever the d_i are.

The places that steps are taken at follow a sequence that fills [0, 1) evenly: nothing is taken from the run's
generator, and passes over the same rollouts are measured at the same steps.

References:
    our design: stratified sampling in proportion to size; the golden ratio's multiples are the sequence.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..diffusion import DiffusionProcess, step_sensitivity
from ..precision import full_precision
from ..rollout import step_divergence

# Measurements of a set of rollouts, as many as there are rollouts in between; each costs two predictions without
# gradients.
MOST, FEWEST = 16, 4
GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Look:
    """One measurement: of a step on a rollout.

    Attributes:
        number: among those of all processes; step: counted from 0; row: the rollout, among those of the process.
        factor: how many times it counts.
    """

    number: int
    step: int
    row: int
    factor: float


def looks(process: DiffusionProcess, sigmas: torch.Tensor, rollouts: int, turn: int) -> list[Look]:
    """What to measure of a set of rollouts, from noise to picture.

    Args:
        sigmas: levels of the trajectories [T + 1], descending.
        rollouts: of all processes in this set; `row` counts among them.
        turn: the set's number.
    """
    last, count = len(sigmas) - 2, min(MOST, max(FEWEST, rollouts))
    others = stretches(range(last + 1), min(last, count // 2) + 1)[:-1]
    often = count - len(others)
    weights = step_sensitivity(process, sigmas[:-1], sigmas[1:]).double().square().cpu()
    found = []
    for number, part in enumerate([*others, *[[last]] * often]):
        shares = weights[list(part)] / weights[list(part)].sum()
        place = (turn * GOLDEN + number / count) % 1
        chosen = min(int(torch.searchsorted(shares.cumsum(0), place)), len(part) - 1)
        times = often if part[0] == last else 1
        row = (number * rollouts // count + turn) % rollouts
        found.append(Look(number, part[chosen], row, 1 / (times * shares[chosen].item())))
    return found


def stretches(steps: Sequence[int], most: int) -> list[Sequence[int]]:
    """The steps, ascending, in at most `most` ≥ 2 parts of about the same number, the last step alone."""
    if len(steps) <= most:
        return [[step] for step in steps]
    edges = torch.linspace(0, len(steps) - 1, most).round().long().tolist()
    return [*(steps[low:high] for low, high in itertools.pairwise(edges)), steps[-1:]]


@torch.no_grad()
def divergence(
    policy: Any,
    own: Sequence[Look],
    states: Sequence[torch.Tensor],
    cond: Sequence[Any],
    sigmas: torch.Tensor,
    *,
    guidance: float,
    chunk: int,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> float:
    """What some measurements add to the divergence, in nats.

    In full precision also where the run is in 16 bit, whose rounding is more than what a new LoRA changes.

    Args:
        policy: with its adapter as it is, dropout off.
        states: the latents [C, H, W] that each one's step begins from; cond: its conditioning.
        sigmas: as in `looks`.
        chunk: predictions per call of the network; on_step: called after each with (measurements done, in all).
    """
    total = 0.0
    for start in range(0, len(own), chunk):
        part = own[start : start + chunk]
        steps = torch.tensor([look.step for look in part])
        x = torch.stack(list(states[start : start + chunk])).float()
        sigma, after = sigmas[steps.to(sigmas.device)], sigmas[steps.to(sigmas.device) + 1]
        asked = list(cond[start : start + chunk])
        with full_precision(policy.device):
            x0 = policy(x, sigma, asked, guidance=guidance)
            with policy.role(None):
                reference = policy(x, sigma, asked, guidance=guidance)
            found = step_divergence(policy.process, x, x0, reference, sigma, after)
        total += sum(look.factor * value for look, value in zip(part, found.tolist(), strict=True))
        on_step(start + len(part), len(own))
    return total
