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


def least_stars(node: Any, then: str = "to make a pair", **more: Any) -> Any:
    """The input of nodes that read choices with stars.

    Args:
        then: what two pictures are for whose stars differ by so much.
    """
    return node.input(
        io.Int,
        "least_stars",
        default=1,
        min=1,
        max=4,
        tooltip=f"For pictures that were given stars: by how many two of them must differ {then}. Raising it keeps "
        "only clear cases. 1 = any difference counts.",
        **more,
    )


def caption(node: Any) -> Any:
    """The input of nodes whose pairs need a prompt each."""
    return node.input(
        io.String,
        "caption",
        default="",
        placeholder="what pictures without a known prompt were to show",
        tooltip="Stands in where a choice has no prompt. Empty = such pairs are left out.",
    )
