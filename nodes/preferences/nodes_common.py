"""What the nodes of this family share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management
import comfy.utils
from comfy_api.latest import io

from .records import PreferenceError

CATEGORY = "Attune/preferences"
ProfileWire = io.Custom("ATTUNE_PROFILE")
Reward = io.Custom("ATTUNE_REWARD")


def single(values: Sequence[Any] | None, name: str) -> Any:
    """The one value of an input of a node that takes lists; None where nothing is connected.

    Raises:
        PreferenceError: there are several.
    """
    if values is None:
        return None
    if len(values) != 1:
        raise PreferenceError(f"The input '{name}' got {len(values)} values but takes one. Connect a single value.")
    return values[0]


def step_bar() -> Callable[[int, int], None]:
    """The host's progress bar as (done, all); raises where Cancel was pressed."""
    bars: list[Any] = []

    def look(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if not bars:
            bars.append(comfy.utils.ProgressBar(max(1, total)))
        bars[0].update_absolute(done, max(1, total))

    return look
