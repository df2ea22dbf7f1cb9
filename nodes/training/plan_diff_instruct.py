"""The plan of Diff-Instruct*."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ...training.interfaces import Reward, TrainingError
from ...training.objectives.diff_instruct import DiffInstructObjective
from ...training.objectives.diff_instruct_config import DiffInstructConfig
from .figures import FIGURES
from .plan_rewards import RewardPlan, reward_plan


class DiffInstructPlan(RewardPlan):
    """Make a one-step generator."""

    config: DiffInstructConfig
    method = "diff-instruct"
    title = "Diff-Instruct*"
    objective = DiffInstructObjective
    loss_title = "Loss (its value says nothing)"
    # Its guard, and all that tells good pictures from bad ones, are in the evaluations.
    evaluations: ClassVar[int] = 20
    # The paper's: with a memory of gradients generator and assistant chase each other in circles.
    trainer: ClassVar[Mapping[str, Any]] = {"betas": (0.0, 0.99)}

    @property
    def curve_titles(self) -> Mapping[str, str]:
        titles = super().curve_titles
        if self.config.reward_weight == 0 or self.reward.differentiable:
            return titles
        plain = {name: FIGURES[name].title for name in ("reward", "held_out_reward", "diversity")}
        return titles | {name: f"{titles.get(name, title)}, of slightly noised copies" for name, title in plain.items()}

    @property
    def batch(self) -> int:
        return min(self.config.chunk, self.config.batch)

    @property
    def training_guidance(self) -> float:
        return self.config.guidance if self.config.distance != "kl" and self.config.guidance_as == "in" else 1.0

    @property
    def passes(self) -> int:
        """Generator, assistant and reference; a guided reference is two, as long as the others together."""
        if self.config.distance == "kl":
            return 1
        return 3 if self.training_guidance == 1 else 2

    def check_models(self, model: Any, start: Mapping[str, Any] | None) -> None:
        """The teacher must be a model of many steps, and a generator goes on where its one call stands.

        Raises:
            TrainingError: the MODEL carries a one-step LoRA of this pack, which would be its own teacher; or the LoRA
                to begin with was trained at another timestep.
        """
        from ..host.one_step_loras import trained_lora, trained_loras

        carried = trained_loras(model)
        if carried:
            raise TrainingError(
                f"The model carries the one-step LoRA {carried[0][0]}. It would be the teacher, and with that LoRA it "
                "no longer draws in many steps. Connect the model without it; to go on from it, connect the LoRA to "
                "start_lora of Train LoRA (from another Train LoRA, or as a file by LoRA Catalogue)."
            )
        earlier = trained_lora(start) if start is not None else None
        if earlier and earlier[1] != self.config.init_timestep:
            raise TrainingError(
                f"The LoRA at start_lora ({earlier[0]}) was trained at timestep {earlier[1]}, and init_timestep is "
                f"{self.config.init_timestep}. Set init_timestep to {earlier[1]}: from elsewhere it draws nothing."
            )


def diff_instruct_plan(
    clip: Any,
    vae: Any,
    latent: Mapping[str, Any],
    reward: Reward,
    held_out: Reward | None,
    *,
    prompts: str,
    negative: str,
    config: DiffInstructConfig,
) -> RewardPlan:
    """Prompts and rewards as a plan. Raises as `reward_plan`."""
    return reward_plan(
        DiffInstructPlan, clip, vae, latent, reward, held_out, prompts=prompts, negative=negative, config=config
    )
