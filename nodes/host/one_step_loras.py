"""The one-step LoRAs of this pack that a MODEL carries, and the timestep at which each was trained."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import folder_paths
import torch
from safetensors import SafetensorError, safe_open

from ...training.adapters import weights_id
from .applied_loras import carried

log = logging.getLogger("attune")

# The answer for a MODEL's patches. The host gives them a new id whenever they change; only the latest are of use.
_known: dict[Any, tuple[tuple[str, float, dict[str, str]], ...]] = {}
KEPT = 16


def init_timestep(metadata: Mapping[str, str]) -> int | None:
    """The timestep of the generator that a LoRA file's metadata speaks of; None where it is no one-step LoRA."""
    try:
        settings = json.loads(metadata.get("attune.settings", "{}"))
        found = settings["objective"]["init_timestep"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) and 0 <= found <= 999 else None


def trained_loras(model: Any) -> tuple[tuple[str, int, str], ...]:
    """(name of the file, timestep, prediction or "") of every one-step LoRA on a host MODEL, the strongest first."""
    found = sorted(_applied(model), key=lambda entry: -abs(entry[1]))
    stepped = [(name, init_timestep(metadata), metadata) for name, _, metadata in found]
    return tuple(
        (name, timestep, _prediction(metadata)) for name, timestep, metadata in stepped if timestep is not None
    )


def trained_lora(tensors: Mapping[str, torch.Tensor]) -> tuple[str, int] | None:
    """(name of the file, timestep) of the one-step LoRA with these weights, by their keys in a file; None if it is in
    none of the host's LoRA folders, or no one-step LoRA."""
    identity = weights_id(tensors)
    found = ((name, init_timestep(data)) for name, data in _files() if data["attune.weights_id"] == identity)
    return next(((name, timestep) for name, timestep in found if timestep is not None), None)


def _prediction(metadata: Mapping[str, str]) -> str:
    """As this pack calls it."""
    said = metadata.get("modelspec.prediction_type", "")
    return {"epsilon": "eps"}.get(said, said)


def _applied(model: Any) -> tuple[tuple[str, float, dict[str, str]], ...]:
    """(name, strength, metadata) of every LoRA file of this pack that the MODEL carries with any strength."""
    if not model.patches:
        return ()
    key = model.patches_uuid
    if key not in _known:
        # Hashing a large LoRA takes longer than a step.
        strengths = {identity: strength for identity, strength in carried(model).items() if strength}
        while len(_known) >= KEPT:
            _known.pop(next(iter(_known)))
        _known[key] = tuple(
            (name, strengths[metadata["attune.weights_id"]], metadata)
            for name, metadata in _files()
            if strengths and metadata["attune.weights_id"] in strengths
        )
    return _known[key]


def _files() -> list[tuple[str, dict[str, str]]]:
    """(name, metadata) of every file in the host's LoRA folders that says the identity of its weights."""
    found = []
    for name in folder_paths.get_filename_list("loras"):
        path = folder_paths.get_full_path("loras", name)
        if path is None or not name.endswith(".safetensors"):
            continue
        try:
            status = Path(path).stat()
            metadata = dict(_metadata(path, status.st_size, status.st_mtime_ns))
        except (SafetensorError, OSError) as error:
            log.debug("Attune: %s is not read: %s", path, error)
            continue
        if "attune.weights_id" in metadata:
            found.append((name, metadata))
    return found


@lru_cache(maxsize=4096)
def _metadata(path: str, size: int, modified: int) -> tuple[tuple[str, str], ...]:
    """A file's metadata, where it is this pack's; read again only if its size or date has changed."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    return tuple(metadata.items()) if "attune.weights_id" in metadata else ()
