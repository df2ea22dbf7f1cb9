"""The host's LATENT values, one picture each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..latent_lists import split_latents
from .records import PreferenceError


def single_latents(latents: Sequence[Mapping[str, Any]], count: int) -> list[dict[str, Any]]:
    """Latents [1, C, H, W] in the order of the pictures, with their masks and their numbers, which stand for the noise.

    Args:
        latents: the host's LATENT values. count: how many pictures they belong to.

    Raises:
        AttuneError: there are more or fewer, or one is no LATENT.
    """
    found = split_latents(latents)
    if len(found) != count:
        raise PreferenceError(
            f"There are {count} pictures but {len(found)} latents. Connect the latents that the pictures were decoded "
            "from, in the same order."
        )
    return found
