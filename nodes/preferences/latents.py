"""The host's LATENT values, one picture each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .records import PreferenceError


def single_latents(latents: Sequence[Mapping[str, Any]], count: int) -> list[dict[str, Any]]:
    """Latents [1, C, H, W] in the order of the pictures.

    Args:
        latents: the host's LATENT values. count: how many pictures they belong to.

    Raises:
        PreferenceError: there are more or fewer.
    """
    found = [{"samples": part} for latent in latents for part in latent["samples"].split(1)]
    if len(found) != count:
        raise PreferenceError(
            f"There are {count} pictures but {len(found)} latents. Connect the latents that the pictures were decoded "
            "from, in the same order."
        )
    return found
