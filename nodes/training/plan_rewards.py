"""Plans of the methods that raise a reward on prompts: pictures are made while training, none are given."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import torch

from ...training.interfaces import AttuneError, LatentDecoder, Objective, Reward
from ...training.objectives.ddpo import DDPOConfig, DDPOObjective
from .plans import EncodedText, OnPhase, PreviewSettings, TrainingDenoiser, ignore_phase, prompt_lines


@dataclass(frozen=True)
class RewardPlan:
    """Raise a reward on prompts; a method of training fills in what is left open here.

    `latent` is the host's LATENT whose size the pictures have; its content is ignored.

    Attributes of a method:
        config: has `steps`, `guidance` and `chunk`.
        method, title: see `ObjectivePlan`.
        objective: makes the `Objective`, from prompts, reward, decoder, config and the keywords latent_shape, held_out
            and on_phase.
        loss_title: what its loss is called.
    """

    prompts: Sequence[EncodedText]
    negative: EncodedText
    reward: Reward
    held_out: Reward | None
    latent: Mapping[str, Any] = field(repr=False)
    vae: Any = field(repr=False)
    text_encoder: str
    config: Any
    preview: PreviewSettings = field(default_factory=PreviewSettings)

    method: ClassVar[str]
    title: ClassVar[str]
    objective: ClassVar[Callable[..., Objective]]
    loss_title: ClassVar[str] = "Loss"

    @property
    def curve_titles(self) -> Mapping[str, str]:
        titles = {"reward": f"Reward: {self.reward.name}", "loss": self.loss_title}
        if self.held_out is not None:
            titles["held_out_reward"] = f"Held-out reward (never optimised): {self.held_out.name}"
        return titles

    @property
    def batch(self) -> int:
        return self.config.chunk

    @property
    def batch_knob(self) -> str:
        return f"chunk (now {self.config.chunk}; the method stays the same, and a run that has begun goes on)"

    @property
    def training_guidance(self) -> float:
        return self.config.guidance

    def data_hash(self) -> str:
        size = str(tuple(self.latent["samples"].shape[2:]))
        parts = [self.reward.reward_id, size, self.negative.text, *(prompt.text for prompt in self.prompts)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def settings(self) -> dict[str, Any]:
        return asdict(self.config)

    def load(self, decoder: LatentDecoder, on_phase: OnPhase = ignore_phase) -> list[torch.Tensor]:
        return []

    def latent_shape(self, model: Any, loaded: Sequence[torch.Tensor]) -> tuple[int, ...]:
        from ..host.sampling import empty_latent

        channels, *_, height, width = empty_latent(model, self.latent).shape[1:]  # between them a frame axis or nothing
        return channels, height, width

    def build(
        self,
        denoiser: TrainingDenoiser,
        decoder: LatentDecoder,
        loaded: Sequence[torch.Tensor],
        shape: Sequence[int],
        on_phase: OnPhase,
    ) -> Objective:
        return type(self).objective(
            [denoiser.prompt(prompt.text, prompt.conditioning) for prompt in self.prompts],
            self.reward,
            decoder,
            self.config,
            latent_shape=shape,
            held_out=self.held_out,
            on_phase=on_phase,
        )


class DDPOPlan(RewardPlan):
    """Raise a reward by policy gradients."""

    config: DDPOConfig
    method = "ddpo"
    title = "DDPO"
    objective = DDPOObjective
    loss_title = "Policy loss"

    @property
    def batch(self) -> int:
        config = self.config
        rollouts = config.prompts_per_update * config.images_per_prompt
        return min(config.chunk, rollouts * (config.transitions or config.steps))


def reward_plan(
    kind: Callable[..., RewardPlan],
    clip: Any,
    vae: Any,
    latent: Mapping[str, Any],
    reward: Reward,
    held_out: Reward | None,
    *,
    prompts: str,
    negative: str,
    config: Any,
) -> RewardPlan:
    """Prompts and rewards as a plan of the given kind.

    Raises:
        AttuneError: no prompts, or the held-out reward is the optimised one.
    """
    from ..host.hashing import text_encoder_hash
    from ..host.sampling import encode_prompts

    lines = list(dict.fromkeys(prompt_lines(prompts)))
    if held_out is not None and held_out.reward_id == reward.reward_id:
        raise AttuneError(
            f"The held-out reward is the reward itself ({reward.name}), so it would guard against nothing. Connect "
            f"another one, or none."
        )
    *positives, empty = encode_prompts(clip, [*lines, negative])
    return kind(
        prompts=[EncodedText(text, item) for text, item in zip(lines, positives, strict=True)],
        negative=EncodedText(negative, empty),
        reward=reward,
        held_out=held_out,
        latent=latent,
        vae=vae,
        text_encoder=text_encoder_hash(clip),
        config=config,
        preview=PreviewSettings(steps=config.steps, guidance=config.guidance),
    )
