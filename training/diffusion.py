"""Noise processes in sigma space: one set of formulas for eps, v and flow models.

A process is x_σ = α(σ)·x0 + β(σ)·noise, with the host's σ:

    eps, v models   α = 1,      β = σ     ("variance exploding" coordinates; the VP sample is x/√(1+σ²))
    flow models     α = 1 − σ,  β = σ     σ in [0, 1]

| here                | papers (VP)                                   |
| ------------------- | --------------------------------------------- |
| sigma σ             | √((1−ā)/ā)                                    |
| posterior mean      | μ of DDIM (Song et al. 2021, eq. 12), η given |
| kernel              | q(x_t | x_s), s < t                           |

All functions are pure; sigmas are tensors [B] and broadcast over the latent's other dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from .interfaces import TrainingError

Prediction = Literal["eps", "v", "flow"]
Convention = Literal["mean", "sum"]


class Gaussian(NamedTuple):
    """A diagonal Gaussian: mean [B, ...] and standard deviation, broadcastable to it, > 0."""

    mean: torch.Tensor
    deviation: torch.Tensor


def expand(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """[B] → [B, 1, …, 1] with as many dimensions as `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True)
class DiffusionProcess:
    """A noise process, and the maps between x, x0, noise, v and flow.

    Attributes:
        prediction: what the network was trained to output.
        sigmas: every noise level the network knows, ascending, float32 [N], all > 0.
        sigma_data: deviation of the data for the v parametrisation; 1 in every model the host loads.
    """

    prediction: Prediction
    sigmas: torch.Tensor
    sigma_data: float = 1.0

    @property
    def sigma_min(self) -> float:
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        return float(self.sigmas[-1])

    def identity(self) -> dict[str, str | float]:
        """What tells this process from others, as JSON values: a run is only resumed under the same one."""
        levels = {"smallest": 0, "middle": len(self.sigmas) // 2, "largest": -1}
        rounded = {f"{name} sigma": float(f"{float(self.sigmas[index]):.6g}") for name, index in levels.items()}
        return {"prediction": self.prediction, **rounded}

    # ---- coefficients ----

    def alpha(self, sigma: torch.Tensor) -> torch.Tensor:
        """The factor of x0."""
        return 1 - sigma if self.prediction == "flow" else torch.ones_like(sigma)

    def beta(self, sigma: torch.Tensor) -> torch.Tensor:
        """The factor of the noise."""
        return sigma

    def signal_to_noise(self, sigma: torch.Tensor) -> torch.Tensor:
        """(α/β)², the SNR of min-SNR weighting."""
        return (self.alpha(sigma) / self.beta(sigma)).square()

    # ---- maps ----

    def add_noise(self, x0: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """x_σ = α·x0 + β·noise."""
        sigma = expand(sigma, x0)
        return self.alpha(sigma) * x0 + self.beta(sigma) * noise

    def noise_from_x0(self, x: torch.Tensor, x0: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The noise that, with x0, explains x."""
        sigma = expand(sigma, x)
        return (x - self.alpha(sigma) * x0) / self.beta(sigma)

    def x0_from_noise(self, x: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The inverse of `noise_from_x0`; undefined for flow models at sigma = 1."""
        sigma = expand(sigma, x)
        return (x - self.beta(sigma) * noise) / self.alpha(sigma)

    def velocity(self, x0: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The network's regression target for v and flow models.

        v: √ā·noise − √(1−ā)·x0 (Salimans & Ho 2022, eq. 4-5), with √ā = 1/√(1+σ²). flow: noise − x0.
        """
        if self.prediction == "flow":
            return noise - x0
        sigma = expand(sigma, x0)
        return (noise - sigma * x0) / (1 + sigma.square()).sqrt()

    def output_scale(self, sigma: torch.Tensor) -> torch.Tensor:
        """How far x0 moves when the network's own output moves by one: eps σ, v σ/√(1+σ²), flow σ."""
        return sigma / (1 + sigma.square()).sqrt() if self.prediction == "v" else sigma

    # ---- schedules ----

    def initial(self, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The sampler's start, as the host scales it: eps and v: √(1+σ²)·noise (the VP marginal); flow: σ·noise."""
        sigma = expand(sigma, noise)
        return sigma * noise if self.prediction == "flow" else (1 + sigma.square()).sqrt() * noise

    def schedule(self, steps: int) -> torch.Tensor:
        """Descending noise levels [steps + 1], all > 0: evenly spaced in the model's own time, ending at sigma_min.

        The last level is the smallest the network knows, not 0, so that every step has a positive deviation and a
        finite log-probability (as the released DDPO and DAG codes do).

        Raises:
            TrainingError: steps < 1 or more steps than the model has noise levels.
        """
        if not 1 <= steps < len(self.sigmas):
            raise TrainingError(
                f"This model has {len(self.sigmas)} noise levels, so sampler steps must be between 1 and "
                f"{len(self.sigmas) - 1}, not {steps}."
            )
        index = torch.linspace(len(self.sigmas) - 1, 0, steps + 1).round().long()
        return self.sigmas[index].float()

    # ---- steps ----

    def kernel(self, x_less: torch.Tensor, sigma_less: torch.Tensor, sigma: torch.Tensor) -> Gaussian:
        """P_B, the noising kernel q(x_σ | x_σ') from a smaller noise level.

        q = N(r·x', β² − r²·β'²), r = α/α'. In VP coordinates this is N(√(ā_t/ā_s)·x_s, 1 − ā_t/ā_s).
        """
        a, b = expand(sigma, x_less), expand(sigma_less, x_less)
        ratio = self.alpha(a) / self.alpha(b)
        variance = self.beta(a).square() - (ratio * self.beta(b)).square()
        return Gaussian(ratio * x_less, variance.sqrt())

    def posterior(
        self,
        x: torch.Tensor,
        x0: torch.Tensor,
        sigma: torch.Tensor,
        sigma_next: torch.Tensor,
        *,
        eta: float = 1.0,
    ) -> Gaussian:
        """P_F, the sampler's step to a smaller noise level: DDIM with stochasticity `eta`.

        deviation = η·(β_s/β_t)·√(β_t² − (α_t/α_s)²·β_s²);   mean = α_s·x0 + √(β_s² − deviation²)·noise(x, x0).
        η = 1 is the exact Bayes posterior q(x_s | x_t, x0) (DDPM); η = 0 is deterministic (deviation 0, no density).

        References:
            Song et al. 2021, "Denoising Diffusion Implicit Models", eq. 12 and 16, in sigma space.
        """
        t, s = expand(sigma, x), expand(sigma_next, x)
        forward_variance = self.beta(t).square() - (self.alpha(t) / self.alpha(s) * self.beta(s)).square()
        deviation = eta * self.beta(s) / self.beta(t) * forward_variance.sqrt()
        noise = self.noise_from_x0(x, x0, sigma)
        mean = self.alpha(s) * x0 + (self.beta(s).square() - deviation.square()).clamp_min(0).sqrt() * noise
        return Gaussian(mean, deviation)


def step_sensitivity(
    process: DiffusionProcess, sigma: torch.Tensor, sigma_next: torch.Tensor, *, eta: float = 1.0
) -> torch.Tensor:
    """|∂ mean / ∂ network output| / deviation of a sampler step, [B]: the size of ∂ log P_F / ∂ output.

    It is wildly uneven: on a v model in 8 steps it is 0.1 at the first step and 13 at the last, where the drawn noise
    hardly shows in the picture. Policy gradients that sum log P_F plainly are mostly the noise of that last step.

    References:
        our design; in the spirit of the noise-aware weighting of TempFlow-GRPO (He et al. 2025).
    """
    one = torch.ones_like(sigma)
    at_zero = process.posterior(one, torch.zeros_like(sigma), sigma, sigma_next, eta=eta)
    at_one = process.posterior(one, one, sigma, sigma_next, eta=eta)
    return (at_one.mean - at_zero.mean).abs() * process.output_scale(sigma) / at_one.deviation


def log_probability(step: Gaussian, value: torch.Tensor, *, convention: Convention = "mean") -> torch.Tensor:
    """log N(value; mean, deviation²) per sample, [B].

    Args:
        convention: "sum" is the true log-density. "mean" divides it by the number of latent dimensions, as all
            released policy-gradient codes do; clip ranges such as 1e-4 only mean something in that convention.

    Raises:
        ValueError: unknown convention, or shapes differ.
    """
    if step.mean.shape != value.shape:
        raise ValueError(f"the step has shape {tuple(step.mean.shape)} but the value {tuple(value.shape)}")
    density = (
        -0.5 * ((value - step.mean) / step.deviation).square() - step.deviation.log() - 0.5 * math.log(2 * math.pi)
    )
    if convention == "mean":
        return density.flatten(1).mean(1)
    if convention == "sum":
        return density.flatten(1).sum(1)
    raise ValueError(f"convention must be 'mean' or 'sum', not {convention!r}")
