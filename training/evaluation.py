"""Evaluations during a run: which weights were best, and whether the run should end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from .interfaces import TrainingError
from .share import ALONE, Share
from .trainer_config import KL_WINDOW, TrainerConfig


class Evaluations:
    """Asks the objective every so often, and remembers the best weights if they are to be kept.

    Args:
        objective: may have `evaluate`, `best_metric`, `best_is_high` (True without), `tie_metric` and `collapse`, see
            `interfaces.Objective`.
        waits: updates in which the weights stand still: they tell nothing, and would use up the patience.

    Attributes:
        collapsed: why the newest weights are not worth going on with; "" if they are, or nobody can tell.
        sound_tensors, sound_step: the last ones that were, and their update; nothing where nobody can tell.

    Raises:
        TrainingError: the best weights are to be kept, and the objective cannot tell which are.
    """

    def __init__(self, objective: Any, config: TrainerConfig, waits: int = 0) -> None:
        self.objective, self.config, self.waits = objective, config, waits
        self.can = callable(getattr(objective, "evaluate", None))
        self.metric = getattr(objective, "best_metric", "")
        self.sign = 1.0 if getattr(objective, "best_is_high", True) else -1.0
        self.tie_metric = getattr(objective, "tie_metric", "")
        if (config.keep == "best" or config.patience) and not (self.can and self.metric):
            raise TrainingError(
                f"The method {objective.name!r} has nothing to tell better weights from worse, so the best cannot be "
                "kept. Set keep to last and patience to 0."
            )
        self.best_step, self.best_value, self.best_tie = 0, -math.inf, -math.inf
        self.best_tensors: dict[str, torch.Tensor] = {}
        self.since_best = 0
        self.collapse = getattr(objective, "collapse", None)
        self.collapsed, self.sound_step = "", 0
        self.sound_tensors: dict[str, torch.Tensor] = {}

    def due(self, step: int) -> bool:
        """Whether the weights after `step` updates are to be evaluated; the last ones always are."""
        every = self.config.evaluate_every
        return self.can and every > 0 and step > self.waits and (step % every == 0 or step == self.config.steps)

    def missed(self, report: Mapping[str, float]) -> bool:
        """Whether the weights of a resumed run were due and have not been evaluated."""
        return self.due(int(report["step"])) and "best_step" not in report

    def measure(
        self, step: int, tensors: Callable[[], dict[str, torch.Tensor]], share: Share = ALONE
    ) -> dict[str, float]:
        """The objective's figures, and "best_step": the update with the best of them so far.

        Args:
            step: updates done; tensors: gives a copy of the weights.
            share: the processes, which must come to the same verdict: where their last bits differ the mean counts.
        """
        found = share.mean({name: float(value) for name, value in self.objective.evaluate().items()})
        self.recall(found)
        if self.collapsed:
            return found | {"best_step": float(self.best_step)}
        value = found.get(self.metric)
        if value is None or not math.isfinite(value):
            # Said all the same: it tells a resumed run that these weights have been looked at.
            return found | {"best_step": float(self.best_step)}
        self.since_best += 1
        value, tie = self.sign * value, found.get(self.tie_metric, math.nan)
        tie = tie if math.isfinite(tie) else -math.inf
        better = (value, tie) > (self.best_value, self.best_tie)
        sound = self.collapse is not None and not self.collapse(found)
        copy = tensors() if sound or (better and self.config.keep == "best") else {}
        if sound:
            self.sound_step, self.sound_tensors = step, copy
        if better:
            self.best_tensors = copy if self.config.keep == "best" else {}
            self.best_step, self.best_value, self.best_tie, self.since_best = step, value, tie, 0
        return found | {"best_step": float(self.best_step)}

    def begin(self, tensors: Callable[[], dict[str, torch.Tensor]], share: Share = ALONE) -> None:
        """Look at weights that an earlier run has left: if they are sound, this one can collapse from its beginning.

        Args:
            tensors, share: as of `measure`.
        """
        if self.collapse is None or not (self.can and self.config.evaluate_every):
            return
        found = share.mean({name: float(value) for name, value in self.objective.evaluate().items()})
        if math.isfinite(found.get(self.metric, math.nan)) and not self.collapse(found):
            self.sound_step, self.sound_tensors = 0, tensors()

    def exhausted(self, step: int) -> str:
        """Why the run should end after `step` updates, as a sentence; nothing if it should not."""
        if self.collapsed:
            # Best ones may be left from a time when they were to be kept.
            given = self.best_step if self.config.keep == "best" and self.best_tensors else self.sound_step
            there = "there" if given == self.sound_step else f"those {after(self.sound_step)}"
            told = f"{self.collapsed} The run ended, and what it gives are the weights {after(given)}."
            return f"{told} {self._way_on(step, there)}"
        if not 0 < self.config.patience <= self.since_best:
            return ""
        besides = f" (where it stayed the same, {self.tie_metric})" if self.tie_metric else ""
        return (
            f"{self.metric}{besides} has not become better in {self.since_best} evaluations since update "
            f"{self.best_step}, so the run ended (patience)."
        )

    def _way_on(self, step: int, there: str) -> str:
        """How a run that has collapsed after `step` updates goes on, as a sentence."""
        if step < self.config.steps:
            return f"With such a change the same run goes on from {there}."
        if self.config.schedule == "constant":
            return f"With such a change and more steps the same run goes on from {there}."
        return (
            "It has no update left: make such a change in a new run that begins with what this one gives (start_lora)."
        )

    def recall(self, report: Mapping[str, float]) -> None:
        """Judge the newest weights, of a resumed run again by what may be set otherwise now.

        Whatever has never been sound cannot collapse: a one-step generator begins with pictures that are all alike.
        """
        self.collapsed = self.collapse(report) if self.collapse is not None and self.sound_tensors else ""

    def return_to_sound(self) -> tuple[int, dict[str, torch.Tensor]]:
        """The last sound weights and their update, for a run that goes on from them: it counts as sound again."""
        self.collapsed = ""
        return self.sound_step, self.sound_tensors

    def state_dict(self) -> dict[str, Any]:
        both = bool(self.sound_tensors) and self.sound_tensors is self.best_tensors
        return {
            "best_step": self.best_step,
            "best_value": None if math.isinf(self.best_value) else self.best_value,
            "best_tie": None if math.isinf(self.best_tie) else self.best_tie,
            "best_tensors": dict(self.best_tensors),
            "since_best": self.since_best,
            "sound_step": self.sound_step,
            # What is both would be in the file twice.
            "sound_tensors": {} if both else dict(self.sound_tensors),
            "sound_is_best": both,
            "collapsed": self.collapsed,
        }

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        if not state:
            return
        self.best_step, self.since_best = int(state["best_step"]), int(state["since_best"])
        value, tie = state["best_value"], state.get("best_tie")
        self.best_value = -math.inf if value is None else float(value)
        self.best_tie = -math.inf if tie is None else float(tie)
        self.best_tensors = dict(state["best_tensors"])
        self.sound_step, self.sound_tensors = int(state.get("sound_step", 0)), dict(state.get("sound_tensors", {}))
        if state.get("sound_is_best"):
            self.sound_tensors = self.best_tensors
        if self.config.keep == "best" and not self.best_tensors:
            # The earlier part of the run kept none: what is best from now on is what can be given.
            self.best_step, self.best_value, self.best_tie, self.since_best = 0, -math.inf, -math.inf, 0


def after(step: int) -> str:
    """Of which update weights are, in words that go behind "the weights"."""
    return f"after update {step}" if step else "that it began with"


def given_by(evaluations: Mapping[str, Any], *, best: bool) -> tuple[int, Mapping[str, torch.Tensor]] | None:
    """The update and the tensors that a run would give which ends with this `Evaluations.state_dict`; None where it
    would give its last.

    Args:
        best: whether the best ones are kept.
    """
    if best and evaluations["best_tensors"]:
        return int(evaluations["best_step"]), evaluations["best_tensors"]
    if evaluations.get("collapsed"):
        sound = evaluations["best_tensors" if evaluations["sound_is_best"] else "sound_tensors"]
        return int(evaluations["sound_step"]), sound
    return None


def check_budget(report: Mapping[str, float], config: TrainerConfig, method: str) -> None:
    """
    Raises:
        TrainingError: the run has a budget for its drift, and the method does not measure any.
    """
    if config.kl_budget and "kl_to_reference" not in report:
        raise TrainingError(
            f"The method {method!r} does not measure how far the model drifts, so kl_budget ({config.kl_budget:g}) "
            "would do nothing. Set it to 0; patience with evaluate_every can end such a run."
        )


def over_budget(history: Sequence[Mapping[str, float]], config: TrainerConfig) -> str:
    """Why the run should end because it has drifted too far from the reference; nothing if it has not.

    The mean of "kl_to_reference" over the last `KL_WINDOW` updates is compared with `kl_budget`.
    """
    if not config.kl_budget:
        return ""
    recent = [report["kl_to_reference"] for report in history[-KL_WINDOW:] if "kl_to_reference" in report]
    if len(recent) < KL_WINDOW or sum(recent) / len(recent) <= config.kl_budget:
        return ""
    return (
        f"The model has drifted {sum(recent) / len(recent):.3g} nats per picture from where it began, more than the "
        f"budget of {config.kl_budget:g}, so the run ended (kl_budget)."
    )
