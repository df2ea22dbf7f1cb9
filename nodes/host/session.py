"""A training session: the host's model, loaded by the host, made trainable for a while, and left as it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import comfy.model_management
import torch

from ...training.adapters import check_available, quantised
from .denoiser import HostDenoiser
from .layer_weights import effective_weights
from .weights import frozen, thaw_attributes, thaw_module

log = logging.getLogger("attune")


def saves_memory(model: Any) -> bool:
    """Whether storing base weights in few bits saves memory: it does where the originals can wait on another device."""
    return model.load_device != model.offload_device


@contextmanager
def training_session(
    model: Any,
    *,
    companions: Sequence[Any] = (),
    shape: Sequence[int] | None = None,
    precision: str = "",
) -> Iterator[HostDenoiser]:
    """Load a MODEL the way sampling does, and make it trainable until the block ends.

    Inside, inference mode is off and gradients are on. LoRAs that the user applied are part of the base. Afterwards the
    module tree, the weights, the flags and the host's view of the model are as before.

    Args:
        model: the host's MODEL (a ModelPatcher, used as it is, not cloned).
        companions: patchers of the VAE and of rewards, needed beside it; loaded together, so that none pushes another
            out.
        shape: the largest batch of latents [B, C, H, W] to make room for, if known.
        precision: of the base weights inside, "nf4" or "int8" (see `training.adapters.quantised`); "" = as loaded. The
            weights themselves then wait on the host's offload device, and go through the device layer by layer.

    Yields:
        the denoiser; it refuses to work once the block has ended.

    Raises:
        TrainingError: that precision needs a package that is missing, or this network has no such layers.
    """
    if precision:
        check_available(precision)
    patchers = [model, *companions]
    # Exactly the host's own circumstances: inference mode, where its tensors live.
    with torch.inference_mode():
        room = model.model.memory_required([shape[0] * 2, *shape[1:]]) if shape is not None else 0
        comfy.model_management.load_models_gpu([*patchers, *model.get_nested_additional_models()], memory_required=room)
        if precision and saves_memory(model):
            # As where memory is short: what lies there is cast, and patched, whenever it is used.
            model.partially_unload(model.offload_device, model.model_size())
            comfy.model_management.soft_empty_cache()
    loaded = model.loaded_size()
    modules = [patcher.model for patcher in patchers]
    with torch.inference_mode(False), torch.enable_grad():
        for module in modules:
            thaw_module(module)
        thaw_attributes(model.model.latent_format)
        with frozen(modules):
            try:
                model.pre_run()
                denoiser = HostDenoiser(model)
                try:
                    with _stored(denoiser, precision):
                        yield denoiser
                finally:
                    denoiser.close()
            finally:
                model.cleanup()
    if model.loaded_size() != loaded:
        # The host made room and moved weights while adapters hid their names; it must load them afresh.
        log.debug("Attune: weights were moved during the session; the host reloads the model when it next needs it.")
        with torch.inference_mode():
            model.detach()


def _stored(denoiser: HostDenoiser, precision: str) -> AbstractContextManager[Any]:
    if not precision:
        return nullcontext()
    return quantised(denoiser.module, precision, device=denoiser.device, read=effective_weights)
