"""What the reward nodes share: the socket, the category and the host's memory management."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.model_patcher
import torch
from comfy_api.latest import io
from torch import nn

from ...training import digests
from ..host.folders import user_folder
from ..host.weights import thaw_module
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
    management = comfy.model_management
    load_device = torch.device("cpu") if on_cpu else management.get_torch_device()
    offload_device = torch.device("cpu") if on_cpu else management.text_encoder_offload_device()
    # The host writes a `device` attribute onto the module it manages; the libraries' own modules forbid that.
    holder = nn.ModuleDict({"reward": reward.network})
    patcher = comfy.model_patcher.ModelPatcher(holder, load_device=load_device, offload_device=offload_device)

    def place() -> torch.device:
        # Asking again for what is there could push the model in training out of memory. But the host may have moved a
        # part of it away, and still lists it.
        whole = patcher in management.loaded_models() and patcher.loaded_size() >= patcher.model_size()
        if not whole:
            with torch.inference_mode():
                management.load_models_gpu([patcher], force_full_load=True)
            with torch.inference_mode(False):
                thaw_module(holder)
        return load_device

    reward.place, reward.patchers = place, (patcher,)
    reward.between = management.throw_exception_if_processing_interrupted
