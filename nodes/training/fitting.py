"""Making a run fit into memory: first gradient checkpointing, then base weights in NF4; and saying what was chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...training.adapters import Policy, precision_of
from ...training.checkpointing import checkpointing, repeated_blocks
from ...training.interfaces import TrainingError
from ...training.memory import MemoryEstimate, MemorySettings, advice, estimate, module_bytes, shortfall
from ...training.picture_memory import PictureMemory
from ...training.run_state import StateFolder
from .records import size_text

_WORDS = {"nf4": "base weights in NF4", "int8": "base weights in int8"}


@dataclass(frozen=True)
class Fit:
    """How a run is played.

    Attributes:
        precision: of the base weights; "" = as loaded.
        checkpointing: whether gradients are checkpointed.
        needed: what a step then needs; None if nothing had to be measured.
        problem: what to change if it does not fit all the same; "" if it fits.
        without: why what is not asked for was chosen; "" if nothing was.
    """

    precision: str = ""
    checkpointing: bool = False
    needed: MemoryEstimate | None = None
    problem: str = ""
    without: str = ""

    @property
    def note(self) -> str:
        """What is done to save memory, and why, as a sentence; "" if nothing is."""
        done = ([_WORDS[self.precision]] if self.precision else []) + ["gradient checkpointing"] * self.checkpointing
        if not done:
            return ""
        return f"Saving memory: {' and '.join(done)}{f' ({self.without})' if self.without else ''}"

    def figures(self) -> dict[str, Any]:
        """For the report."""
        return {
            "base_precision": self.precision or "as loaded",
            "gradient_checkpointing": self.checkpointing,
            "why": self.without,
        }


def begun_precision(folder: Path) -> str | None:
    """Precision of the base weights in the run of this folder, "" for as loaded; None if there is no such run."""
    state = StateFolder(folder).newest()
    return None if state is None else str(state["identity"].get("base precision", ""))


def blocks_of(policy: Policy) -> AbstractContextManager[Any]:
    """Gradient checkpointing of a policy's network."""
    again = getattr(policy.denoiser, "overwriting", nullcontext)
    return checkpointing(policy.module, state=policy.as_now, again=again)


def fitting(
    policy: Policy,
    settings: MemorySettings,
    shape: Sequence[int],
    cond: Any,
    free: Callable[[], int],
    *,
    batch: int,
    guidance: float,
    autocast: torch.dtype | None,
    average: bool,
    knob: str,
    earlier: Fit | None = None,
    agree: Callable[[bool], bool] = lambda flag: flag,
    pictures: Callable[[], PictureMemory | None] = lambda: None,
    own: int = 0,
    passes: int = 1,
) -> Fit:
    """Measure a step, with gradient checkpointing if it does not fit without; the first way that fits, or the last.

    Args:
        policy: attached, its base weights stored as they will be.
        free: free bytes on the device.
        batch, guidance, autocast, average, knob: as in `memory.estimate`.
        earlier: what did not fit with the base weights as loaded.
        agree: whether any of several processes sees a problem; all must choose the same.
        pictures: measures what decoder and reward need.
        own, passes: what the method keeps besides, and how often, as in `memory.estimate`.
    """
    without = earlier.without if earlier else ""
    possible = bool(repeated_blocks(policy.module))
    ways = settings.checkpoints(possible=possible)
    off = possible and not any(ways)
    fit, of_pictures = Fit(), []
    # Before anything is measured: on a CPU the system does not get back at once what was measured with.
    resident, there = module_bytes(policy.module, policy.device), free()
    for on in ways:
        needed, problem, missing = None, "", ""
        with blocks_of(policy) if on else nullcontext():
            try:
                of_pictures = of_pictures or [pictures()]
                needed = estimate(
                    policy, shape, cond, batch=batch, guidance=guidance, autocast=autocast, average=average, knob=knob,
                    pictures=of_pictures[0], own=own, passes=passes,
                )  # fmt: skip
            except TrainingError as error:  # it ran out while measuring
                problem, missing = str(error), "memory runs out without"
        if needed is not None:
            problem = advice(needed, there, resident=resident, knob=knob, could_checkpoint=off) or ""
            missing = f"{size_text(max(0, shortfall(needed, there, resident=resident)))} too little without"
        if agree(bool(problem)) and not problem:
            problem, missing = "Another process of this run has too little memory.", "too little without elsewhere"
        fit = Fit(precision_of(policy.module), on, needed, problem, without)
        if not problem:
            return fit
        without = without or missing
    return Fit(fit.precision, fit.checkpointing, fit.needed, fit.problem, without)
