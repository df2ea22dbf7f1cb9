"""Denoisers that need no host: over a diffusers U-Net, and the exact one of a Gaussian mixture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .diffusion import DiffusionProcess, Prediction, expand


def stable_diffusion_sigmas(*, count: int = 1000, start: float = 0.00085, end: float = 0.012) -> torch.Tensor:
    """The noise levels of Stable Diffusion's scaled-linear schedule, ascending, float32 [count]."""
    betas = torch.linspace(start**0.5, end**0.5, count, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1 - betas, 0)
    return ((1 - alphas) / alphas).sqrt().float()


def process_of(prediction: Prediction) -> DiffusionProcess:
    """The standard process of a prediction type: Stable Diffusion's for eps and v, 1000 even levels for flow."""
    if prediction == "flow":
        return DiffusionProcess("flow", torch.linspace(0.001, 1.0, 1000))
    return DiffusionProcess(prediction, stable_diffusion_sigmas())


class DiffusersDenoiser:
    """A `Denoiser` over a diffusers U-Net.

    Args:
        unet: takes (sample, timestep, encoder_hidden_states); its timestep t is the index into `process.sigmas` for eps
            and v models, and 1000·sigma for flow models.
        process: what it was trained on.
        unconditional: the context of the empty prompt [tokens, width].
    """

    def __init__(self, unet: nn.Module, process: DiffusionProcess, unconditional: torch.Tensor) -> None:
        self.module = unet
        self.process = process
        self._unconditional = unconditional

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def unconditional(self) -> torch.Tensor:
        return self._unconditional

    def text_features(self, cond: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Tokens [L, D] of every conditioning, for networks beside this one."""
        return list(cond)

    def __call__(
        self, x: torch.Tensor, sigma: torch.Tensor, cond: Sequence[torch.Tensor], *, guidance: float = 1.0
    ) -> torch.Tensor:
        if guidance == 1.0:
            return self._predict(x, sigma, torch.stack(list(cond)))
        context = torch.stack([*cond, *[self._unconditional] * len(x)])
        with_text, without = self._predict(x.repeat(2, 1, 1, 1), sigma.repeat(2), context).chunk(2)
        return without + guidance * (with_text - without)

    def _predict(self, x: torch.Tensor, sigma: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        context = context.to(x)
        s = expand(sigma, x)
        if self.process.prediction == "flow":
            return x - s * self.module(x, sigma * 1000, context).sample
        timestep = self._timestep(sigma)
        scale = (1 + s.square()).sqrt()
        output = self.module(x / scale, timestep, context).sample
        if self.process.prediction == "v":
            return x / scale.square() - s / scale * output
        return x - s * output

    def _timestep(self, sigma: torch.Tensor) -> torch.Tensor:
        """Linear in log sigma between the trained levels, as the host does."""
        levels = self.process.sigmas.to(sigma).log()
        value = sigma.log()
        high = torch.searchsorted(levels, value.contiguous()).clamp(1, len(levels) - 1)
        low = high - 1
        weight = ((value - levels[low]) / (levels[high] - levels[low])).clamp(0, 1)
        return low + weight


class MixtureDenoiser(nn.Module):
    """The exact denoiser of a mixture of isotropic Gaussians, for tests whose answer is known.

    x0 = E[x0 | x_σ] in closed form, for any process. Latents are [B, D, 1, 1]; conditioning is ignored.

    Args:
        means: [K, D]; deviation: of every component; weights: [K], summing to 1.
    """

    def __init__(self, process: DiffusionProcess, means: torch.Tensor, deviation: float, weights: torch.Tensor) -> None:
        super().__init__()
        self.process = process
        self.register_buffer("means", means)
        self.register_buffer("weights", weights)
        self.deviation = deviation

    @property
    def module(self) -> nn.Module:
        return self

    @property
    def device(self) -> torch.device:
        return self.means.device

    @property
    def unconditional(self) -> None:
        return None

    def forward(
        self, x: torch.Tensor, sigma: torch.Tensor, cond: Sequence[object] = (), *, guidance: float = 1.0
    ) -> torch.Tensor:
        point = x.flatten(1)  # (B, D)
        alpha = self.process.alpha(sigma).reshape(-1, 1)
        beta = self.process.beta(sigma).reshape(-1, 1)
        variance = (alpha * self.deviation).square() + beta.square()  # of x_σ within a component, (B, 1)
        offset = point[:, None] - alpha[:, None] * self.means  # (B, K, D)
        logits = self.weights.log() - 0.5 * offset.square().sum(-1) / variance
        gain = alpha * self.deviation**2 / variance
        clean = self.means + gain[:, None] * offset  # (B, K, D)
        return (logits.softmax(1)[..., None] * clean).sum(1).reshape(x.shape)

    def sample(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Exact samples [count, D, 1, 1]."""
        component = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, self.means.shape[1], generator=generator)
        return (self.means[component] + self.deviation * noise)[..., None, None]
