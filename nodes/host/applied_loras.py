"""Which LoRAs a MODEL carries, recognised by their weights: the host's patches do not know the files they came from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ...training.adapters import LoraParent, difference_id, layer_id, weights_id
from ...training.adapters.files import UNMOVED

log = logging.getLogger("attune")


def carried(model: Any) -> dict[str, float]:
    """`layer_id` of every LoRA layer on the host's MODEL → the strength with which it is applied."""
    found: dict[str, float] = {}
    for key, patches in model.patches.items():
        for strength, content, *_ in patches:
            identity = _identity(key, content)
            if identity:
                found[identity] = found.get(identity, 0.0) + float(strength)
    return found


def _identity(key: str, content: Any) -> str:
    """`layer_id` of a patch of the host, "" if it is none of a LoRA's, or changes nothing."""
    pair = getattr(content, "weights", None) or ()
    if len(pair) >= 2 and all(isinstance(part, torch.Tensor) for part in pair[:2]):
        return layer_id(pair[0], pair[1])
    if isinstance(content, tuple) and len(content) == 2 and content[0] == "diff" and key.endswith(".weight"):
        identity = difference_id(content[1][0])
        return "" if identity == UNMOVED else identity
    return ""


def parents_of(model: Any, folder: Path) -> list[LoraParent]:
    """The LoRAs on the host's MODEL that a training run will build on.

    Args:
        model: the host's MODEL, without adapters attached.
        folder: of this pack's LoRAs; their files say the identity of their weights. A LoRA that is in none of them is
            one parent without a name.
    """
    strengths = carried(model)
    if not strengths:
        return []
    # Copies of a file are one parent.
    names = {identity: name for identity, name in reversed(_files(folder)) if identity in strengths}
    return [LoraParent(identity, name, strengths[identity]) for identity, name in sorted(names.items())] or [
        LoraParent(min(strengths), "", strengths[min(strengths)])
    ]


def parent_of(tensors: Mapping[str, torch.Tensor], folder: Path) -> LoraParent:
    """The LoRA of these weights, by their keys in its file, as the parent of one that goes on from it.

    Args:
        folder: as in `parents_of`; a LoRA that is in none of its files has no name.
    """
    identity = weights_id(tensors)
    return LoraParent(identity, next((name for found, name in _files(folder) if found == identity), ""))


def _files(folder: Path) -> list[tuple[str, str]]:
    """(identity of the weights, name below the host's LoRA folder) of every file that says its identity."""
    found = []
    for path in sorted(folder.rglob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                identity = (file.metadata() or {}).get("attune.weights_id", "")
        except (SafetensorError, OSError) as error:
            log.debug("Attune: %s is not read: %s", path, error)
            continue
        if identity:
            found.append((identity, f"{folder.name}/{path.relative_to(folder).as_posix()}"))
    return found
