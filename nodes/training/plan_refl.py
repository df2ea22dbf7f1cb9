"""The plan of ReFL and DRaFT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...training.interfaces import Reward
from ...training.objectives.refl import ReFLConfig, ReFLObjective, check_differentiable
from .plan_rewards import RewardPlan, reward_plan


class ReFLPlan(RewardPlan):
    """Raise a differentiable reward by its gradient."""

    config: ReFLConfig
    objective = ReFLObjective

    @property
    def method(self) -> str:
        return self.config.mode

    @property
    def title(self) -> str:
        return "ReFL" if self.config.mode == "refl" else f"DRaFT-{self.config.last_steps}"

    @property
    def loss_title(self) -> str:
        has_margin = self.config.mode == "refl" and self.config.margin is not None
        return "Distance to the margin" if has_margin else "Loss (the reward, negated)"

    @property
    def batch(self) -> int:
        return min(self.config.chunk, self.config.prompts_per_update * self.config.images_per_prompt)


def refl_plan(
    clip: Any,
    vae: Any,
    latent: Mapping[str, Any],
    reward: Reward,
    held_out: Reward | None,
    *,
    prompts: str,
    negative: str,
    config: ReFLConfig,
) -> RewardPlan:
    """Prompts and rewards as a plan.

    Raises:
        TrainingError: the reward has no gradient.
        AttuneError: as `reward_plan`.
    """
    check_differentiable(reward)
    return reward_plan(ReFLPlan, clip, vae, latent, reward, held_out, prompts=prompts, negative=negative, config=config)
