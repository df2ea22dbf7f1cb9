"""The plan of DAG-DB and DAG-KL."""

from __future__ import annotations

from ...training.objectives.dag import DAGObjective
from ...training.objectives.dag_config import DAGConfig
from .plan_rewards import RewardPlan


class DAGPlan(RewardPlan):
    """Sample pictures in proportion to their reward."""

    config: DAGConfig
    objective = DAGObjective

    @property
    def method(self) -> str:
        return f"dag-{self.config.variant.lower()}"

    @property
    def title(self) -> str:
        return f"DAG-{self.config.variant}"

    @property
    def loss_title(self) -> str:
        return "Balance loss" if self.config.variant == "DB" else "Flow and policy loss"

    @property
    def batch(self) -> int:
        config = self.config
        rollouts = config.prompts_per_update * config.images_per_prompt
        return min(config.chunk, rollouts * (config.transitions or config.steps))
