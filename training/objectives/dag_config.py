"""Knobs of DAG."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from ..config_checks import check_numbers
from ..diffusion import Convention
from ..interfaces import TrainingError
from ..widget_names import named
from .flow_network import FlowNetworkConfig
from .transitions import STEP_WEIGHTS, StepWeights

Variant = Literal["DB", "KL"]
Baseline = Literal["step and prompt", "batch"]
Credit = Literal["step", "to the end"]


@dataclass(frozen=True)
class DAGConfig:
    """Knobs of DAG. The defaults suit Stable-Diffusion-size models; the demo template sets its own.

    Attributes:
        variant: "KL" or "DB"; see `dag`.
        prompts_per_update: prompts drawn for one set of rollouts.
        images_per_prompt: rollouts per prompt. "KL" compares them, so that it needs at least 2.
        steps: sampler steps of a rollout.
        guidance: classifier-free guidance of the policy, in rollouts and in training alike; 1 = off.
        transitions: neighbouring steps of each trajectory trained per set of rollouts; 0 = all. A rollout costs at most
            this number + 2 reward calls.
        updates_per_rollout: passes over each set of rollouts. A pass is an update, or one part of an update where the
            trainer accumulates gradients.
        beta: how sharply the reward counts, > 0: in the "sum" convention the target is exp(β·r), in "mean" it is
            exp(β·D·r) with D latent dimensions.
        anneal_updates: updates over which β rises from 0; half of the run's is the paper's. 0 = β from the start.
        reference_prior: the target is p_ref·exp(β·r); see `dag`; one more call of the network per transition, and with
            credit "to the end" one per step of every rollout.
        clip_range: half width of the trust region of ρ, in the unit of `convention`; "KL" only.
        advantage_clamp: advantages are cut to ± this; "KL" only.
        baseline: what a pseudo-reward is compared with: "step and prompt" or "batch"; "KL" only.
        anchor: weight of the pull towards the policy that played, ≥ 0.
        step_weights: "balanced" or "plain"; see `dag`.
        convention: "mean" or "sum" over latent dimensions of the log-probability.
        flow_channels: widths of the flow network's levels.
        flow_learning_rate: of the flow network, > 0.
        flow_warmup: updates at the start of a run in which the flow network learns alone; 0 = none. β rises meanwhile;
            the policy's learning rate begins to rise after them.
        credit: what moves the policy: "step", the residual of a step as the flows at both ends have it, or "to the
            end", that of all the way from the step to the finished picture; see `dag`.
        chunk: samples per network call; smaller needs less memory. No draw of the method depends on it.
    """

    variant: Variant = "KL"
    prompts_per_update: int = 4
    images_per_prompt: int = 8
    steps: int = 50
    guidance: float = 5.0
    transitions: int = 10
    updates_per_rollout: int = 1
    beta: float = 100.0
    anneal_updates: int = 50
    reference_prior: bool = False
    clip_range: float = 1e-4
    advantage_clamp: float = 5.0
    baseline: Baseline = "step and prompt"
    anchor: float = 1.0
    step_weights: StepWeights = "balanced"
    convention: Convention = "mean"
    flow_channels: tuple[int, ...] = FlowNetworkConfig.channels
    flow_learning_rate: float = 3e-4
    chunk: int = 16
    flow_warmup: int = 0
    credit: Credit = "step"

    def __post_init__(self) -> None:
        check_numbers(self)
        for field in ("prompts_per_update", "images_per_prompt", "steps", "updates_per_rollout", "chunk"):
            if getattr(self, field) < 1:
                raise TrainingError(f"DAG: {named(field)} must be at least 1, not {getattr(self, field)}.")
        for field, kinds in (
            ("variant", get_args(Variant)),
            ("baseline", get_args(Baseline)),
            ("credit", get_args(Credit)),
            ("step_weights", STEP_WEIGHTS),
            ("convention", get_args(Convention)),
        ):
            if getattr(self, field) not in kinds:
                raise TrainingError(f"DAG: {field} must be one of {', '.join(kinds)}; not {getattr(self, field)!r}.")
        if self.variant == "KL" and self.images_per_prompt < 2:
            raise TrainingError(
                f"DAG-KL compares pictures of one prompt: images_per_prompt must be at least 2, not "
                f"{self.images_per_prompt}. Raise it, or choose the variant DB."
            )
        if not 0 <= self.transitions <= self.steps:
            raise TrainingError(
                f"DAG: {named('transitions')} must be 0 (all) … {self.steps}, the number of {named('steps')}, not "
                f"{self.transitions}."
            )
        for field in ("beta", "clip_range", "advantage_clamp", "flow_learning_rate"):
            if not getattr(self, field) > 0:
                raise TrainingError(f"DAG: {field} must be above 0, not {getattr(self, field)}.")
        for field in ("anneal_updates", "anchor", "flow_warmup"):
            if not getattr(self, field) >= 0:
                raise TrainingError(f"DAG: {field} must be at least 0 (off), not {getattr(self, field)}.")
        object.__setattr__(self, "flow_channels", FlowNetworkConfig(self.flow_channels).channels)

    def identity(self) -> dict[str, Any]:
        """The fields that must not change on a resume: all but `chunk`, which memory decides."""
        return {name: value for name, value in asdict(self).items() if name != "chunk"}
