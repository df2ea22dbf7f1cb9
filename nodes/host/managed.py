"""Networks of other kinds than the host's own under its memory management: there when needed, away when not."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import comfy.model_management
import comfy.model_patcher
import torch
from comfy.patcher_extension import CallbacksMP
from torch import nn

from .server import running
from .weights import thaw_module


class Loaded(Protocol):
    """Something with a network."""

    model: nn.Module


T = TypeVar("T", bound=Loaded)


class Managed:
    """A network that the host moves away when it needs the memory for another.

    Args:
        network: the host holds it only as long as this is held.
        on_cpu: compute on the CPU, whatever the host has.

    Attributes:
        patcher: what the host manages it by. device: where it computes.
    """

    def __init__(self, network: nn.Module, *, on_cpu: bool) -> None:
        management = comfy.model_management
        self.device = torch.device("cpu") if on_cpu else management.get_torch_device()
        offload_device = torch.device("cpu") if on_cpu else management.text_encoder_offload_device()
        # The host writes a `device` attribute onto the module it manages; the libraries' own modules forbid that.
        self._holder = nn.ModuleDict({"network": network})
        self.patcher = comfy.model_patcher.ModelPatcher(
            self._holder, load_device=self.device, offload_device=offload_device
        )

    def place(self) -> torch.device:
        """Have the whole network on its device, which is returned."""
        management = comfy.model_management
        # Asking again for what is there could push the model in training out of memory. But the host may have moved a
        # part of it away, and still lists it.
        whole = self.patcher in management.loaded_models() and self.patcher.loaded_size() >= self.patcher.model_size()
        if not whole:
            with torch.inference_mode():
                management.load_models_gpu([self.patcher], force_full_load=True)
            with torch.inference_mode(False):
                thaw_module(self._holder)
        return self.device


class KeptModel(Generic[T]):
    """A node's model from one run to the next, so that it is loaded once.

    It is managed as above. Let go of wholly when another one is asked for; when a person has the host unload its
    models; and where moving it away would free nothing, since it computes where it would go.
    """

    def __init__(self) -> None:
        self._key = ""
        self._kept: tuple[T, Managed] | None = None

    def ready(self, key: str, load: Callable[[], T], *, on_cpu: bool) -> T:
        """The model of this key on its device.

        Args:
            key: other than of any other model. load: gives it on the CPU; called where it is not kept.
        """
        if self._kept is None or self._key != key:
            self.release()
            loaded = load()
            managed = Managed(loaded.model, on_cpu=on_cpu)
            managed.patcher.add_callback(CallbacksMP.ON_DETACH, self._moved_away)
            self._key, self._kept = key, (loaded, managed)
        model, managed = self._kept
        managed.place()
        return model

    def release(self) -> None:
        """Let go of it: its memory is the other models' again."""
        if self._kept is not None:
            self._kept = None
            gc.collect()
            comfy.model_management.soft_empty_cache()

    def _moved_away(self, patcher: comfy.model_patcher.ModelPatcher, wholly: bool) -> None:
        # Without `wholly` the host is about to load it anew. No node runs where a person pressed "unload models".
        asked_for = not running()[1]
        if wholly and (asked_for or patcher.load_device == patcher.offload_device):
            # The host goes on through its list of models, from which none may vanish now: only the weights go.
            patcher.model.to("meta")
            self._key = ""
