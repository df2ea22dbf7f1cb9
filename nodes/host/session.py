"""A training session: the host's model, loaded by the host, made trainable for a while, and left as it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import torch

from .denoiser import HostDenoiser
from .weights import frozen, thaw_attributes, thaw_module

log = logging.getLogger("attune")


@contextmanager
def training_session(
    model: Any, *, companions: Sequence[Any] = (), shape: Sequence[int] | None = None
) -> Iterator[HostDenoiser]:
    """Load a MODEL the way sampling does, and make it trainable until the block ends.

    Inside, inference mode is off and gradients are on. LoRAs that the user applied are part of the base. Afterwards the
    module tree, the weights, the flags and the host's view of the model are as before.

    Args:
        model: the host's MODEL (a ModelPatcher, used as it is, not cloned).
        companions: patchers of the VAE and of rewards, needed beside it; loaded together, so that none pushes another
            out.
        shape: the largest batch of latents [B, C, H, W] to make room for, if known.

    Yields:
        the denoiser; it refuses to work once the block has ended.
    """
    patchers = [model, *companions]
    # Exactly the host's own circumstances: inference mode, where its tensors live.
    with torch.inference_mode():
        room = model.model.memory_required([shape[0] * 2, *shape[1:]]) if shape is not None else 0
        comfy.model_management.load_models_gpu([*patchers, *model.get_nested_additional_models()], memory_required=room)
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
