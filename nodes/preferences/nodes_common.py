"""What the nodes of this family share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io

from .records import PreferenceError

CATEGORY = "Attune/preferences"
ProfileWire = io.Custom("ATTUNE_PROFILE")
PreferenceWire = io.Custom("ATTUNE_PREFERENCE")
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
