"""What the reward nodes share: the socket, the category and the host's memory management."""

from __future__ import annotations

from typing import Any

import comfy.model_management
from comfy_api.latest import io

from ...training import digests
from ..host.folders import user_folder
from ..host.managed import Managed
from ..store import FILE_NAME, Store, shared_store
from .cache import SHARED
from .kept_digests import KeptDigests
from .kept_scores import KeptScores

Reward = io.Custom("ATTUNE_REWARD")
CATEGORY = "Attune/rewards"


def user_store() -> Store:
    """The pack's store in the host's user folder; opened when first used."""
    return shared_store(user_folder() / FILE_NAME)


# Whichever node loads a reward, its scores are kept in the store: this file is imported before any of them.
SHARED.attach(KeptScores(user_store()))
digests.keep_in(KeptDigests(user_store()))


def manage(reward: Any, *, on_cpu: bool) -> None:
    """Put a reward's network under the host's memory management: loaded when needed, moved away when others are.

    Args:
        reward: with the attributes `network` (a module), `place` (called before a forward pass, returns the device that
            the network is on), `patchers` and `between`; the latter three are set here.
        on_cpu: compute on the CPU, whatever the host has.
    """
    managed = Managed(reward.network, on_cpu=on_cpu)
    reward.place, reward.patchers = managed.place, (managed.patcher,)
    reward.between = comfy.model_management.throw_exception_if_processing_interrupted
