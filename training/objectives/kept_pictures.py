"""Multi-round by what is kept: the pictures of which somebody said "keep …", learned pair by pair, without a reward.

Somebody liked a picture, passed the others of its round over, and asked to keep something of it that no words of the
prompt say: its background, its mood. Each liked picture with each other one of its round is a pair of Diffusion-DPO
(see `diffusion_dpo`), with the prompt that both were made with: what the prompt says explains itself, and the LoRA
learns what it does not say. No picture is practised on, and no reward is asked, so a round takes a few calls of the
network.

**Which noise levels.** The highest quarter. There the network decides what a picture is to be as a whole, which is what
is to be kept; lower levels teach it details of these very pictures, which stand against what the next words ask for.

**From the start, every time.** A round learns all that the session keeps, with a fresh LoRA. Going on from the last
round's, as by rewards, would learn the same few pictures over and over, and what was taken back would still be in it.

Source: ours; the loss is Wallace et al. 2023, "Diffusion Model Alignment Using Direct Preference Optimization".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..interfaces import Prompt, TrainingError
from .diffusion_dpo import DiffusionDPOConfig, DiffusionDPOObjective, Pair


@dataclass(frozen=True)
class KeptConfig(DiffusionDPOConfig):
    """Knobs beside those of Diffusion-DPO; no caption is dropped.

    Attributes:
        lowest_noise: share of the noise levels, from the clean end, that nothing is learned on, 0 … below 1.
    """

    caption_dropout: float = 0.0
    lowest_noise: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.lowest_noise < 1:
            raise TrainingError(f"lowest_noise is a share of at least 0 and below 1, not {self.lowest_noise}.")


@dataclass(frozen=True)
class KeptRound:
    """A round of which something is kept.

    Attributes:
        prompt: that its pictures were made with.
        liked, others: latents [N, C, H, W] and [M, C, H, W] of the network: what was liked and what was passed over.
    """

    prompt: Prompt
    liked: torch.Tensor
    others: torch.Tensor


class KeptObjective(DiffusionDPOObjective):
    """Learns what a session keeps.

    Args:
        rounds: of which something is kept; those in which everything was liked teach nothing.
        preview: prompt of the round to come, for sample pictures.

    Raises:
        TrainingError: no round has a liked picture and another one.
    """

    name = "kept"
    config: KeptConfig

    def __init__(self, rounds: Sequence[KeptRound], config: KeptConfig, *, preview: Prompt) -> None:
        pairs = [Pair(one, other, past.prompt) for past in rounds for one in past.liked for other in past.others]
        super().__init__(pairs, config, previews=[preview])

    @property
    def _lowest_noise(self) -> float:
        return self.config.lowest_noise
