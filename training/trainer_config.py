"""Knobs of the training loop."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from .interfaces import TrainingError

Schedule = Literal["constant", "linear", "cosine"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Keep = Literal["last", "best"]


@dataclass(frozen=True)
class TrainerConfig:
    """Knobs of the loop.

    Attributes:
        steps: optimizer updates, ≥ 1.
        learning_rate: peak of the schedule, > 0.
        warmup_steps: updates of linear rise to the peak; 0 = none.
        schedule: after the rise: "constant", or down to 0 at the last update as "linear" or "cosine".
        accumulation: runs of the objective per update, ≥ 1; the memory of one, the gradient of all.
        clip_norm: gradients longer than this are shortened to it; 0 = off.
        weight_decay: of AdamW, ≥ 0.
        betas: of AdamW, each 0 … <1.
        ema: decay of the running average that is saved instead of the last weights, 0 (off) … <1; it rises from .1 to
            this value over the first updates.
        seed: of all randomness of the run, 0 … 2^64 - 1.
        precision: "auto" = 16 bit on a GPU that does it well, fp32 elsewhere.
        checkpoint_seconds: time between saved states, ≥ 0; 0 = after every update.
        sample_every: updates between preview pictures; 0 = none.
        evaluate_every: updates between evaluations of the objective, if it has one; 0 = none.
        keep: the weights a run gives: its "last", or the "best" by the objective's evaluation.
        patience: evaluations in a row without a better one after which the run ends; 0 = never.
        kl_budget: the run ends when "kl_to_reference", averaged over the last `KL_WINDOW` updates, exceeds this, in
            nats per picture; 0 = never. Methods with rollouts measure it on these (`objectives.practice`), the others
            on noised training pictures (`objectives.drift`).

    Raises:
        TrainingError: a value out of range; the message quotes it.
    """

    steps: int = 100
    learning_rate: float = 3e-4
    warmup_steps: int = 5
    schedule: Schedule = "constant"
    accumulation: int = 1
    clip_norm: float = 1.0
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    ema: float = 0.0
    seed: int = 0
    precision: Precision = "auto"
    checkpoint_seconds: float = 60
    sample_every: int = 10
    evaluate_every: int = 0
    keep: Keep = "last"
    patience: int = 0
    kl_budget: float = 0.0

    def __post_init__(self) -> None:
        whole = {"steps": 1, "warmup_steps": 0, "accumulation": 1, "sample_every": 0, "seed": 0}
        for name, lowest in (*whole.items(), ("evaluate_every", 0), ("patience", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
                raise TrainingError(f"{name} must be a whole number of at least {lowest}, not {value!r}.")
        if self.seed >= 2**64:
            raise TrainingError(f"seed must be below 2^64, not {self.seed!r}.")
        for name in ("clip_norm", "weight_decay", "checkpoint_seconds", "kl_budget"):
            if not _is_number(getattr(self, name)) or getattr(self, name) < 0:
                raise TrainingError(f"{name} must be a number of at least 0, not {getattr(self, name)!r}.")
        if not _is_number(self.learning_rate) or self.learning_rate <= 0:
            raise TrainingError(f"learning_rate must be a number above 0, not {self.learning_rate!r}.")
        if not _is_number(self.ema) or not 0 <= self.ema < 1:
            raise TrainingError(f"ema must be at least 0 (off) and below 1, not {self.ema!r}.")
        if len(self.betas) != 2 or not all(_is_number(beta) and 0 <= beta < 1 for beta in self.betas):
            raise TrainingError(f"betas must be two numbers of at least 0 and below 1, not {self.betas!r}.")
        listed = {"schedule": get_args(Schedule), "precision": get_args(Precision), "keep": get_args(Keep)}
        for name, choices in listed.items():
            if getattr(self, name) not in choices:
                raise TrainingError(f"{name} must be one of {', '.join(choices)}; not {getattr(self, name)!r}.")
        for name in ("keep", "patience"):
            if getattr(self, name) not in ("last", 0) and not self.evaluate_every:
                raise TrainingError(
                    f"{name} is {getattr(self, name)!r}, but nothing is evaluated: set evaluate_every to the updates "
                    "between evaluations, for example 10."
                )
        object.__setattr__(self, "betas", tuple(self.betas))

    def rate(self, step: int) -> float:
        """The learning rate of update `step`, counted from 0.

        warm-up: peak·(step + 1)/(warmup + 1); then with p = (step − warmup)/(steps − warmup):
        constant peak, linear peak·(1 − p), cosine peak·(1 + cos πp)/2.
        """
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / (self.warmup_steps + 1)
        progress = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        if self.schedule == "linear":
            return self.learning_rate * (1 - progress)
        if self.schedule == "cosine":
            return self.learning_rate * (1 + math.cos(math.pi * progress)) / 2
        return self.learning_rate

    def warmed(self, rate: float, step: int) -> float:
        """`rate` as it rises over the warm-up of tensors whose update `step` this is, counted from 0."""
        if step >= self.warmup_steps:
            return rate
        return min(rate, self.learning_rate * (step + 1) / (self.warmup_steps + 1))

    def average_decay(self, step: int) -> float:
        """The decay of the running average after update `step`, counted from 0: min(ema, (1 + step)/(10 + step))."""
        return min(self.ema, (1 + step) / (10 + step))

    def identity(self) -> dict[str, Any]:
        """The fields that must not change on a resume. More steps may be asked for unless the schedule ends there."""
        fields = dataclasses.asdict(self)
        free = {"checkpoint_seconds", "sample_every", "evaluate_every", "keep", "patience", "kl_budget"}
        free |= {"steps"} if self.schedule == "constant" else set()
        return {name: value for name, value in fields.items() if name not in free}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


# Updates over which the divergence is averaged before it ends a run: it is estimated on a few transitions each time.
KL_WINDOW = 4


@dataclass(frozen=True)
class Pace:
    """In which updates the policy learns; auxiliary tensors may in all. See `interfaces.Objective`.

    Attributes:
        waits: updates at the start in which it does not.
        every: of those after, it learns in each `every`-th, the first of them being the `every`-th; ≥ 1.
    """

    waits: int = 0
    every: int = 1

    @classmethod
    def of(cls, objective: Any, config: TrainerConfig) -> Pace:
        """
        Raises:
            TrainingError: the run ends before the policy's first update.
        """
        pace = cls(int(getattr(objective, "policy_waits", 0)), int(getattr(objective, "policy_every", 1)))
        if pace.waits + pace.every > config.steps:
            raise TrainingError(
                f"The LoRA would wait for {pace.waits + pace.every - 1} updates, and the run has {config.steps}: it "
                f"would learn nothing. Lower {getattr(objective, 'waits_by', 'flow_warmup')}, for example to a tenth "
                "of the steps, or raise steps."
            )
        return pace

    def moves(self, step: int) -> bool:
        """Whether the policy learns in update `step`, counted from 0."""
        return step >= self.waits and (step - self.waits + 1) % self.every == 0

    def moved(self, step: int) -> int:
        """In how many updates before update `step` it has learned."""
        return max(0, step - self.waits) // self.every


def half_type(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The 16-bit type of autocast, None for float32."""
    if precision != "auto":
        return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
