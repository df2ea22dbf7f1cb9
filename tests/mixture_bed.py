"""A bed in two dimensions where everything is computable: eight modes on a ring, and a target that weighs them anew.

The base model is the exact denoiser of the ring with equal weights, which a perceptron can bend; a LoRA adapts its
linear layers. The reward is the log-density of the same modes with uneven weights: with β = 1 and the "sum" convention
exp(βr)/Z is that mixture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from attune.training.diffusion import DiffusionProcess
from attune.training.interfaces import Prompt
from attune.training.rollout import play

MODES, RADIUS, DEVIATION = 8, 1.4, 0.3
# From the heaviest mode to the lightest, and where on the ring they lie: neighbours differ.
WEIGHTS = torch.softmax(-0.4 * torch.arange(MODES).float(), 0)[torch.tensor([0, 5, 2, 7, 1, 4, 3, 6])]
ANGLES = torch.arange(MODES) * (2 * math.pi / MODES)
MEANS = RADIUS * torch.stack([ANGLES.cos(), ANGLES.sin()], 1)
PROMPTS = [Prompt("a point", None)]
LATENT_SHAPE = (2, 1, 1)
CELL, EDGE = 0.15, 3.0
CONTEXT = 4


def ring_process() -> DiffusionProcess:
    """Noise levels from 0.1 to 5, evenly spaced in their logarithm: every step adds noise in the same proportion."""
    return DiffusionProcess("eps", torch.logspace(-1, math.log10(5), 1000))


class RingDenoiser(nn.Module):
    """The exact denoiser of the ring with equal weights, bent by a perceptron that starts at zero. Prompts are ignored.

    With the posterior probabilities p_k of the modes and their clean points m_k, all at the present noise level,
    x0 = Σ_k softmax(log p + a)_k·m_k + σ/√(1 + σ²)·b; a [8] and b [2] are what the perceptron says of place and noise
    level. a = log of the target's weights and b = 0 would be the target's exact denoiser.
    """

    unconditional = None

    def __init__(self, width: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.process = ring_process()
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Linear(2 + MODES + 5, width), nn.Tanh(), nn.Linear(width, MODES + 2))
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)
        self.register_buffer("means", MEANS)
        self.requires_grad_(False)

    @property
    def module(self) -> nn.Module:
        return self

    @property
    def device(self) -> torch.device:
        return self.means.device

    def forward(
        self, x: torch.Tensor, sigma: torch.Tensor, cond: Sequence[Any] = (), *, guidance: float = 1.0
    ) -> torch.Tensor:
        point, sigma = x.flatten(1), sigma[:, None]
        variance = DEVIATION**2 + sigma**2
        offset = point[:, None] - self.means  # (B, 8, 2)
        logits = -0.5 * offset.square().sum(-1) / variance
        clean = self.means + (DEVIATION**2 / variance)[..., None] * offset
        scale, level = (1 + sigma**2).sqrt(), sigma.log()
        waves = [level, level.sin(), level.cos(), (2 * level).sin(), (2 * level).cos()]
        seen = torch.cat([point / scale, logits.softmax(1), *waves], 1)
        weights, shift = self.bend(seen).split((MODES, 2), 1)
        x0 = ((logits + weights).softmax(1)[..., None] * clean).sum(1) + sigma / scale * shift
        return x0.reshape(x.shape)

    def bend(self, seen: torch.Tensor) -> torch.Tensor:
        """a and b, [B, 10], of place and noise level as the perceptron reads them [B, 15]."""
        return self.layers(seen)


class AttentiveRing(RingDenoiser):
    """The same, bent by an attention to a text that says nothing: what a user adapter stands beside."""

    def __init__(self, width: int = 64, heads: int = 8, seed: int = 0) -> None:
        super().__init__(seed=seed)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.attn2 = nn.Module()
            self.attn2.to_q = nn.Linear(2 + MODES + 5, width, bias=False)
            self.attn2.to_k, self.attn2.to_v = (nn.Linear(CONTEXT, width, bias=False) for _ in "kv")
            self.attn2.to_out = nn.ModuleList([nn.Linear(width, MODES + 2, bias=False)])
            self.attn2.heads = heads
        nn.init.zeros_(self.attn2.to_v.weight)
        self.requires_grad_(False)

    def bend(self, seen: torch.Tensor) -> torch.Tensor:
        queries = self.attn2.to_q(seen[:, None])  # (B, 1, width)
        return self.attn2.to_out[0](torch.zeros_like(queries))[:, 0]


class PointDecoder:
    """Shows a point as the first two channels of a one-pixel picture."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return torch.cat([latents, torch.zeros_like(latents[:, :1])], 1).permute(0, 2, 3, 1)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 3, 1, 2)[:, :2]


def log_target(points: torch.Tensor) -> torch.Tensor:
    """log of the target's density at points [B, 2]."""
    squares = torch.cdist(points, MEANS).square()
    heights = WEIGHTS.log() - math.log(2 * math.pi * DEVIATION**2)
    return (heights - squares / (2 * DEVIATION**2)).logsumexp(1)


class TargetReward:
    """Black-box: the log-density of the target."""

    name, reward_id, differentiable, higher_is_better = "Target", "target", False, True

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, images: torch.Tensor, prompts: Sequence[str], context: object = None) -> torch.Tensor:
        self.calls += len(images)
        return log_target(images[:, 0, 0, :2].detach())


@torch.no_grad()
def sample(policy: Any, count: int, *, steps: int, seed: int = 0, cond: Any = None) -> torch.Tensor:
    """Points [count, 2] of the stochastic sampler."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, *LATENT_SHAPE, generator=generator)
    paths = play(policy, policy.process, noise, [cond] * count, steps=steps, guidance=1.0, generator=generator)
    return paths.pictures.flatten(1)


def divergence(points: torch.Tensor) -> float:
    """KL(points ‖ target) in nats, of the shares of a grid's cells, corrected for their number (Miller 1955)."""
    side = round(2 * EDGE / CELL)
    fine = (torch.arange(4 * side) + 0.5) * (CELL / 4) - EDGE
    density = log_target(torch.cartesian_prod(fine, fine)).exp().reshape(side, 4, side, 4).mean((1, 3)) * CELL**2
    cells = ((points + EDGE) / CELL).long().clamp(0, side - 1)
    share = torch.bincount(cells[:, 0] * side + cells[:, 1], minlength=side**2).double() / len(points)
    used = share > 0
    found = (share[used] * (share[used] / density.flatten()[used].double().clamp_min(1e-12)).log()).sum()
    return float(found) - (int(used.sum()) - 1) / (2 * len(points))


def mode_shares(points: torch.Tensor) -> torch.Tensor:
    """Shares [8] of the points by the nearest mode."""
    return torch.bincount(torch.cdist(points, MEANS).argmin(1), minlength=MODES) / len(points)
