"""Rollouts: stochastic sampler trajectories with their log-probabilities.

A trajectory is x_{σ_0} (noise) → … → x_{σ_T} (picture), each step drawn from P_F, the DDIM step with η = 1. Policy
gradients need log P_F of each step under the network that played it, and GFlowNets also log P_B of the noising kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .diffusion import Convention, DiffusionProcess, log_probability
from .interfaces import Denoiser
from .share import ALONE, Share


@dataclass
class Trajectories:
    """A batch of played trajectories, all detached.

    Attributes:
        states: latents [B, T + 1, C, H, W], from noise to picture.
        sigmas: noise levels [T + 1], descending, > 0.
        log_forward: log P_F(x_s | x_t) of each step under the network that played it, [B, T].
        log_backward: log P_B(x_t | x_s), [B, T].
        cond: the B conditionings.
    """

    states: torch.Tensor
    sigmas: torch.Tensor
    log_forward: torch.Tensor
    log_backward: torch.Tensor
    cond: list[Any]

    @property
    def pictures(self) -> torch.Tensor:
        """The final latents [B, C, H, W], network space."""
        return self.states[:, -1]

    @property
    def steps(self) -> int:
        return self.log_forward.shape[1]


def step_log_probability(
    process: DiffusionProcess,
    x: torch.Tensor,
    x0: torch.Tensor,
    x_next: torch.Tensor,
    sigma: torch.Tensor,
    sigma_next: torch.Tensor,
    *,
    eta: float = 1.0,
    convention: Convention = "mean",
) -> torch.Tensor:
    """log P_F(x_next | x) when the network predicted x0; [B]. Gradients flow through x0 only."""
    step = process.posterior(x.detach(), x0, sigma, sigma_next, eta=eta)
    return log_probability(step, x_next.detach(), convention=convention)


def step_divergence(
    process: DiffusionProcess,
    x: torch.Tensor,
    x0: torch.Tensor,
    x0_reference: torch.Tensor,
    sigma: torch.Tensor,
    sigma_next: torch.Tensor,
    *,
    eta: float = 1.0,
) -> torch.Tensor:
    """KL(P_F ‖ P_F of the reference) of one sampler step from the same state, in nats, [B].

    Both are Gaussians of the same deviation: ‖μ − μ_reference‖² / (2·deviation²). Summed over the steps of trajectories
    of the policy it is the divergence of the two samplers' trajectories.
    """
    step = process.posterior(x, x0, sigma, sigma_next, eta=eta)
    other = process.posterior(x, x0_reference, sigma, sigma_next, eta=eta)
    return ((step.mean - other.mean) / step.deviation).square().flatten(1).sum(1) / 2


@torch.no_grad()
def play(
    denoiser: Denoiser | Callable[..., torch.Tensor],
    process: DiffusionProcess,
    noise: torch.Tensor,
    cond: Sequence[Any],
    *,
    steps: int,
    guidance: float,
    generator: torch.Generator,
    eta: float = 1.0,
    convention: Convention = "mean",
    chunk: int = 0,
    on_step: Callable[[int, int], None] | None = None,
    share: Share = ALONE,
) -> Trajectories:
    """Play one trajectory per conditioning.

    Args:
        noise: unit Gaussian [B, C, H, W] on the network's device.
        generator: on the CPU, so that a run repeats on every device.
        chunk: trajectories per call of the network, 0 = all; the draws do not depend on it.
        on_step: called after every call of the network with (calls done, calls in all); may raise to cancel.
        share: which part of the trajectories of all processes these are.

    Returns:
        the trajectories, on the noise's device.
    """
    sigmas = process.schedule(steps).to(noise.device)
    batch = len(noise)
    starts = range(0, batch, chunk or batch)
    done, calls = 0, steps * len(starts)
    x = process.initial(noise, sigmas[:1].expand(batch))
    states, forward, backward = [x], [], []
    for index in range(steps):
        sigma, sigma_next = sigmas[index].expand(batch), sigmas[index + 1].expand(batch)
        parts = []
        for start in starts:
            part = slice(start, start + (chunk or batch))
            parts.append(denoiser(x[part], sigma[part], cond[part], guidance=guidance))
            done += 1
            if on_step:
                on_step(done, calls)
        x0 = torch.cat(parts)
        step = process.posterior(x, x0, sigma, sigma_next, eta=eta)
        draw = share.take(torch.randn(batch * share.count, *x.shape[1:], generator=generator)).to(x)
        x_next = step.mean + step.deviation * draw
        if eta > 0:
            forward.append(log_probability(step, x_next, convention=convention))
            backward.append(log_probability(process.kernel(x_next, sigma_next, sigma), x, convention=convention))
        x = x_next
        states.append(x)
    empty = torch.zeros(batch, 0, device=noise.device)
    return Trajectories(
        torch.stack(states, 1),
        sigmas,
        torch.stack(forward, 1) if forward else empty,
        torch.stack(backward, 1) if backward else empty,
        list(cond),
    )
