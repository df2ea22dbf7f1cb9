"""Identities of models, for metadata, caches and resume."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

SAMPLES = 64
# Checkpoints of Stable Diffusion 1 and SDXL lack it, and the host then leaves its memory as it was found: the same file
# loaded twice differs there. It changes no picture of those, and where it does, the encoder's other weights differ too.
LEFT_OUT = "text_projection.weight"


def base_hash(model: Any) -> str:
    """What the network of a MODEL computes, as 16 hexadecimal digits: its weights and the LoRAs applied to it.

    From 64 values of every tensor, taken as float32, so that loading the same file as fp16 or fp32 gives the same hash.
    Independent of whether the model is on a device at the moment. To be called without adapters attached.

    Args:
        model: the host's MODEL.
    """
    digest = hashlib.sha256()
    _update_network(digest, model.get_key_patches("diffusion_model."))
    return digest.hexdigest()[:16]


def text_encoder_hash(clip: Any) -> str:
    """What a CLIP makes of a text: its weights, the LoRAs applied to it, CLIP skip. As `base_hash`.

    The weights and not a conditioning, whose last bits depend on device and kernels.
    """
    digest = hashlib.sha256()
    _update_network(digest, clip.patcher.get_key_patches())
    options = sorted(getattr(clip, "tokenizer_options", {}).items())
    digest.update(repr((getattr(clip, "layer_idx", None), options)).encode())
    return digest.hexdigest()[:16]


def vae_hash(vae: Any) -> str:
    """Identity of a VAE's weights. As `base_hash`."""
    digest = hashlib.sha256()
    _update_network(digest, vae.patcher.get_key_patches())
    return digest.hexdigest()[:16]


def _update_network(digest: Any, patches: Mapping[str, Sequence[Any]]) -> None:
    """Take in the host's key patches: name → [(weight, …), the LoRAs applied to it …]."""
    for name in sorted(patches):
        (weight, *_), *applied = patches[name]
        digest.update(name.encode())
        if not name.endswith(LEFT_OUT):
            _update(digest, weight)
        for strength, content, strength_model, *_ in applied:
            digest.update(repr((float(strength), float(strength_model))).encode())
            _update(digest, getattr(content, "weights", content))


def _update(digest: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        digest.update(repr(tuple(value.shape)).encode())
        flat = value.detach().reshape(-1)
        picked = flat[:: max(1, flat.numel() // SAMPLES)][:SAMPLES]
        digest.update(picked.to("cpu", torch.float32).contiguous().numpy().tobytes())
    elif isinstance(value, (list, tuple)):
        for item in value:
            _update(digest, item)
    elif value is None or isinstance(value, (str, int, float, bool)):
        digest.update(repr(value).encode())
