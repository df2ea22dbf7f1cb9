"""Identities of models and files, for metadata, caches and resume."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

SAMPLES = 64


def base_hash(model: Any) -> str:
    """What the network of a MODEL computes, as 16 hexadecimal digits: its weights and the LoRAs applied to it.

    From 64 values of every tensor, taken as float32, so that loading the same file as fp16 or fp32 gives the same hash.
    Independent of whether the model is on a device at the moment. To be called without adapters attached.

    Args:
        model: the host's MODEL.
    """
    digest = hashlib.sha256()
    patches = model.get_key_patches("diffusion_model.")
    for name in sorted(patches):
        (weight, *_), *applied = patches[name]
        digest.update(name.encode())
        _update(digest, weight)
        for strength, content, strength_model, *_ in applied:
            digest.update(repr((float(strength), float(strength_model))).encode())
            _update(digest, getattr(content, "weights", content))
    return digest.hexdigest()[:16]


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


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits. Read again only when its size or time has changed.

    Raises:
        OSError: the file cannot be read.
    """
    status = Path(path).stat()
    return _file_hash(str(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _file_hash(path: str, size: int, time: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
