"""Supervised objective: the denoising loss on pictures and captions.

    L = E_{x0, c, σ, noise} w(σ) · mean‖target − prediction‖²

with the network's own target (noise, v or flow) and min-SNR weighting (Hang et al. 2023, "Efficient Diffusion Training
via Min-SNR Weighting Strategy", eq. 8): in x0 space the weight is min(SNR, γ), hence min(SNR, γ)/SNR for the noise
target and min(SNR, γ)/(SNR + 1) for the v target. Flow models are not weighted: their noise levels are drawn from a
logit-normal instead (Esser et al. 2024).

Differences from the paper: the error is always computed from the predicted x0 and scaled, because every denoiser here
returns x0; algebraically it is the same number. "kl_to_reference" is measured beside it, see `drift`, and not learned
from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..config_checks import check_numbers
from ..diffusion import DiffusionProcess, expand
from ..interfaces import Prompt, TrainingError
from ..share import ALONE, Share
from .drift import PictureDrift


@dataclass(frozen=True)
class SupervisedConfig:
    """Knobs of the supervised objective.

    Attributes:
        batch: pictures per update.
        caption_dropout: share of pictures trained without their caption, 0…1; keeps guidance working.
        min_snr_gamma: γ of the weighting; 0 = off.
    """

    batch: int = 4
    caption_dropout: float = 0.1
    min_snr_gamma: float = 5.0

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.batch < 1:
            raise TrainingError(f"The batch size must be at least 1, not {self.batch}.")
        if not 0 <= self.caption_dropout <= 1:
            raise TrainingError(f"Caption dropout is a share between 0 and 1, not {self.caption_dropout}.")
        if self.min_snr_gamma < 0:
            raise TrainingError(f"The min-SNR gamma must be 0 (off) or positive, not {self.min_snr_gamma}.")


def loss_weight(process: DiffusionProcess, sigma: torch.Tensor, gamma: float) -> torch.Tensor:
    """The factor of the squared x0 error, [B]: turns it into the (min-SNR weighted) error of the network's target."""
    snr = process.signal_to_noise(sigma)
    if process.prediction == "flow":
        return 1 / sigma.square()
    limited = snr.clamp_max(gamma) if gamma > 0 else snr
    if process.prediction == "v":
        return limited if gamma > 0 else snr + 1
    return limited


def draw_sigmas(
    process: DiffusionProcess, count: int, generator: torch.Generator, *, lowest: float = 0.0
) -> torch.Tensor:
    """Training noise levels [count]: the model's own levels evenly; for flow models logit-normal(0, 1).

    Args:
        lowest: share of the levels, from the clean end, that is left out; below 1. Of flow models the levels are
            squeezed into the rest.
    """
    if process.prediction == "flow":
        uniform = lowest + (1 - lowest) * torch.sigmoid(torch.randn(count, generator=generator))
        return uniform.clamp(process.sigma_min, process.sigma_max)
    first = int(lowest * len(process.sigmas))
    return process.sigmas[torch.randint(first, len(process.sigmas), (count,), generator=generator)].float()


class SupervisedObjective:
    """Teaches the look of a set of pictures.

    Args:
        latents: one [C, H, W] per picture, network space; sizes may differ (buckets are formed by size).
        prompts: one caption per picture, or one for all.
        previews: prompts of the sample pictures shown while training; the first captions if empty.
    """

    name = "supervised"

    def __init__(
        self,
        latents: Sequence[torch.Tensor],
        prompts: Sequence[Prompt],
        config: SupervisedConfig,
        *,
        previews: Sequence[Prompt] = (),
    ) -> None:
        if not latents:
            raise TrainingError("There are no pictures to learn from. Connect at least one image.")
        if len(prompts) == 1:
            prompts = list(prompts) * len(latents)
        if len(prompts) != len(latents):
            raise TrainingError(
                f"There are {len(latents)} pictures but {len(prompts)} captions. Give one caption per picture, or one "
                f"for all."
            )
        self.latents, self.prompts, self.config = list(latents), list(prompts), config
        self.previews = list(previews) or _distinct(self.prompts)[:4]
        self._policy: Any = None
        self._share: Share = ALONE
        self._drift: Any = None
        self._order: list[int] = []

    def prepare(self, policy: Any, share: Share = ALONE) -> None:
        self._policy, self._share = policy, share
        self._drift = PictureDrift(policy, share)

    def losses(self, generator: torch.Generator) -> Iterator[torch.Tensor]:
        indices = self._draw(generator)
        own = self._share.rows(len(indices))
        self._drift.measure(len(indices), len(self.latents), self._picture)
        for bucket in _same_size(indices, self.latents):
            drawn = self._noises(bucket, indices, generator)
            rows = [row for row, place in enumerate(bucket) if own.start <= place < own.stop]
            if rows:
                loss = self._loss([indices[bucket[row]] for row in rows], *(part[rows] for part in drawn))
                yield loss * (len(rows) / (own.stop - own.start))

    def _picture(self, number: int) -> tuple[torch.Tensor, Any]:
        return self.latents[number], self.prompts[number].positive

    def _draw(self, generator: torch.Generator) -> list[int]:
        """The next batch without replacement: every picture is seen once before any is seen twice."""
        count = self.config.batch * self._share.count
        while len(self._order) < count:
            self._order += torch.randperm(len(self.latents), generator=generator).tolist()
        batch, self._order = self._order[:count], self._order[count:]
        return batch

    def _noises(
        self, bucket: Sequence[int], indices: Sequence[int], generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Noise, sigmas and dropped captions of a bucket: places in the batch of all processes."""
        shape = (len(bucket), *self.latents[indices[bucket[0]]].shape)
        noise = torch.randn(shape, generator=generator)
        sigma = draw_sigmas(self._policy.process, len(bucket), generator)
        return noise, sigma, torch.rand(len(bucket), generator=generator) < self.config.caption_dropout

    def _loss(
        self, indices: Sequence[int], noise: torch.Tensor, sigma: torch.Tensor, dropped: torch.Tensor
    ) -> torch.Tensor:
        policy, process = self._policy, self._policy.process
        clean = torch.stack([self.latents[i] for i in indices]).to(policy.device, torch.float32)
        noise, sigma = noise.to(clean), sigma.to(clean)
        cond = [
            policy.unconditional if drop else self.prompts[i].positive
            for i, drop in zip(indices, dropped.tolist(), strict=True)
        ]
        predicted = policy(process.add_noise(clean, noise, sigma), sigma, cond)
        error = (predicted - clean).square()
        return (expand(loss_weight(process, sigma, self.config.min_snr_gamma), error) * error).mean()

    def metrics(self) -> dict[str, float]:
        # The trainer reports the loss itself.
        return {"kl_to_reference": self._drift.kl_to_reference}

    def state_dict(self) -> dict[str, Any]:
        return {"order": list(self._order), "drift": self._drift.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._order = [int(i) for i in state["order"]]
        self._drift.load_state_dict(state.get("drift"))

    def sample_requests(self) -> Sequence[Prompt]:
        return self.previews


def _distinct(prompts: Sequence[Prompt]) -> list[Prompt]:
    return list({prompt.text: prompt for prompt in prompts}.values())


def _same_size(indices: Sequence[int], latents: Sequence[torch.Tensor]) -> list[list[int]]:
    """Places in `indices`, by the size of their latents."""
    buckets: dict[tuple[int, ...], list[int]] = {}
    for place, index in enumerate(indices):
        buckets.setdefault(tuple(latents[index].shape), []).append(place)
    return list(buckets.values())
