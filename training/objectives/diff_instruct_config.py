"""Knobs of Diff-Instruct*."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from ..config_checks import check_numbers
from ..interfaces import TrainingError
from ..one_step import TIMESTEPS
from ..widget_names import named
from .diff_instruct_losses import DISTANCES, Distance

GENERATOR, ASSISTANT = "generator", "assistant"
GuidanceAs = Literal["in", "out"]


@dataclass(frozen=True)
class DiffInstructConfig:
    """Knobs of Diff-Instruct*. Updates are those of the run, in each of which the assistant learns.

    Attributes:
        prompts_per_update: prompts drawn per update, of each process; images_per_prompt: pictures of each.
        init_timestep: where the generator's one call stands, 0 … 999. 625 is SiD's σ_init = 2.5 with Stable Diffusion's
            levels; of models that predict v or flow, 999 lets the noise decide more.
        distance: between assistant and reference: "pseudo-huber" (DI*), "l2" (SIM, SiD) or "kl" (DI++, Diff-Instruct).
        coefficient: a of "pseudo-huber" and "l2", see `diff_instruct_losses.matching_loss`.
        huber_constant: c of "pseudo-huber"; 0 = 0.00054·√D.
        guidance: of the teacher, which becomes the generator's own; 1 = none.
        guidance_as: "in" guides the reference's prediction, "out" adds guidance as a reward.
        reward_weight: α_rew; 0 = the reward is only watched.
        reward_from: updates before the reward acts; reward_rise: updates over which it then rises to its weight.
        assistant_updates: K_TA, of the assistant for one of the generator, ≥ 1.
        assistant_warmup: updates at the start that teach the assistant alone.
        assistant_learning_rate: > 0.
        noise_from, noise_to: shares of the noise levels between which the two are compared, 0 (clean) … 1.
        probes: copies of a picture by which a reward without gradients is felt for, ≥ 2; probe_deviation: of the
            noise on these latents, > 0.
        steps: sampler steps of the teacher's pictures that the generator's are shown and measured beside.
        guard_diversity: the run ends when the diversity falls below this share of the teacher's; 0 = never.
        guard_saturation: it ends when colours are more saturated than the teacher's by this much, of 1; 0 = never.
        chunk: pictures per network call; smaller needs less memory. No draw of the method depends on it.

    Raises:
        TrainingError: a value out of range; the message quotes it.
    """

    prompts_per_update: int = 32
    images_per_prompt: int = 1
    init_timestep: int = 625
    distance: Distance = "pseudo-huber"
    coefficient: float = 1.0
    huber_constant: float = 0.0
    guidance: float = 3.0
    guidance_as: GuidanceAs = "in"
    reward_weight: float = 0.0
    reward_from: int = 0
    reward_rise: int = 0
    assistant_updates: int = 1
    assistant_warmup: int = 0
    assistant_learning_rate: float = 4e-4
    noise_from: float = 0.02
    noise_to: float = 0.98
    probes: int = 8
    probe_deviation: float = 0.1
    steps: int = 20
    guard_diversity: float = 0.2
    guard_saturation: float = 0.25
    chunk: int = 32

    def __post_init__(self) -> None:
        check_numbers(self)
        listed = {"distance": DISTANCES, "guidance_as": get_args(GuidanceAs)}
        for field, choices in listed.items():
            if getattr(self, field) not in choices:
                raise _wrong(f"{field} must be one of {', '.join(choices)}", getattr(self, field))
        least = dict.fromkeys(("prompts_per_update", "images_per_prompt", "assistant_updates", "steps", "chunk"), 1)
        least |= dict.fromkeys(("reward_from", "reward_rise", "assistant_warmup", "huber_constant", "reward_weight"), 0)
        least |= {"probes": 2, "guard_diversity": 0, "guard_saturation": 0}
        for field, lowest in least.items():
            if getattr(self, field) < lowest:
                raise _wrong(f"{named(field)} must be at least {lowest}", getattr(self, field))
        for field in ("assistant_learning_rate", "probe_deviation"):
            if not getattr(self, field) > 0:
                raise _wrong(f"{field} must be above 0", getattr(self, field))
        if not 0 <= self.init_timestep < TIMESTEPS:
            raise _wrong(f"init_timestep must be 0 … {TIMESTEPS - 1}", self.init_timestep)
        if not 0 <= self.noise_from < self.noise_to <= 1:
            raise _wrong(
                "noise_from and noise_to must lie in 0 … 1, noise_from first", (self.noise_from, self.noise_to)
            )
        if self.guard_diversity >= 1:
            raise _wrong(
                "guard_diversity is a share of the teacher's diversity and must be below 1", self.guard_diversity
            )

    @property
    def batch(self) -> int:
        """Pictures of an update, of each process."""
        return self.prompts_per_update * self.images_per_prompt

    def reward_weight_at(self, update: int) -> float:
        """α_rew in an update, counted from 0: nothing before `reward_from`, then rising over `reward_rise`."""
        if update < self.reward_from:
            return 0.0
        return self.reward_weight * min(1.0, (update - self.reward_from + 1) / (self.reward_rise + 1))

    def identity(self) -> dict[str, Any]:
        """The fields that must not change on a resume: all but what memory decides and what only watches."""
        free = ("chunk", "steps", "guard_diversity", "guard_saturation")
        return {name: value for name, value in asdict(self).items() if name not in free}


def _wrong(must: str, value: object) -> TrainingError:
    return TrainingError(f"Diff-Instruct*: {must}, not {value!r}.")
