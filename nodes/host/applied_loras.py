"""Which LoRAs a MODEL carries, recognised by their weights: the host's patches do not know the files they came from."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ...training.adapters import LoraParent, difference_id, layer_id, load_lora, weights_id
from ...training.adapters.files import UNMOVED

log = logging.getLogger("attune")

WEIGHTS_ID = "attune.weights_id"


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


def version_on(model: Any, folder: Path, session: str) -> str:
    """`weights_id` of the LoRA on the host's MODEL that is a version of a refinement session's own, the latest round's;
    "" = there is none.

    Args:
        folder: as in `parents_of`; session: its key.
    """
    strengths = carried(model)
    if not strengths:
        return ""
    found = []
    for _, header in _headers(folder):
        lesson = settings_of(header).get("objective")
        if header[WEIGHTS_ID] in strengths and isinstance(lesson, dict) and lesson.get("session") == session:
            found.append((int(lesson.get("round", 0)), header[WEIGHTS_ID]))
    return max(found)[1] if found else ""


@dataclass(frozen=True)
class StoredLora:
    """A LoRA file: its tensors by their keys there, its header, and its name below the host's LoRA folder."""

    tensors: dict[str, torch.Tensor]
    header: Mapping[str, str]
    name: str


def stored_lora(wanted: Callable[[Mapping[str, str]], bool], folder: Path) -> StoredLora | None:
    """The newest LoRA whose header is as wanted; None = there is none.

    Args:
        folder: as in `parents_of`.

    Raises:
        CheckpointError: it is there and cannot be read.
    """
    found = [(path.stat().st_mtime_ns, path, header) for path, header in _headers(folder) if wanted(header)]
    if not found:
        return None
    _, path, header = max(found, key=lambda entry: entry[:2])
    return StoredLora(load_lora(path)[0], header, _name(path, folder))


def with_identity(identity: str) -> Callable[[Mapping[str, str]], bool]:
    """For `stored_lora`: that with this `weights_id`."""
    return lambda header: header.get(WEIGHTS_ID) == identity


def settings_of(header: Mapping[str, str]) -> dict[str, Any]:
    """What a LoRA's header says was set in its run, by its parts "objective", "lora", "training" …; {} = nothing."""
    try:
        found = json.loads(header.get("attune.settings", "") or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _files(folder: Path) -> list[tuple[str, str]]:
    """(identity of the weights, name below the host's LoRA folder) of every file that says its identity."""
    return [(header[WEIGHTS_ID], _name(path, folder)) for path, header in _headers(folder)]


def _name(path: Path, folder: Path) -> str:
    return f"{folder.name}/{path.relative_to(folder).as_posix()}"


def _headers(folder: Path) -> list[tuple[Path, dict[str, str]]]:
    """The header of every file that says the identity of its weights."""
    found = []
    for path in sorted(folder.rglob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
        except (SafetensorError, OSError) as error:
            log.debug("Attune: %s is not read: %s", path, error)
            continue
        if header.get(WEIGHTS_ID):
            found.append((path, header))
    return found
