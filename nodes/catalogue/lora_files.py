"""What a LoRA file says of itself, whoever made it: kohya's and Attune's metadata, and its tensors."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ...training.adapters import LoraParent, weights_id_of
from ...training.adapters.files import HALVES
from ...training.interfaces import AttuneError

_BLOCK = 1 << 20
_NUMBERED = re.compile(r"^(?P<run>.+?)(?P<stopped>_stopped)?_(?P<version>\d+)$")


class NoLoraError(AttuneError):
    """A file in the LoRA folder is no LoRA, or cannot be read; says why."""


@dataclass(frozen=True)
class LoraFacts:
    """A LoRA file as it is on the disk; what it does not say is empty.

    Attributes:
        content: SHA-256 of the file.
        weights_id: see `training.adapters.weights_id`.
        size, modified: bytes; nanoseconds.
        run, version, stopped: whose result it is, which one (0 = not numbered), and whether that run was stopped early.
        created: seconds since 1970.
        metrics: finite figures only.
    """

    content: str
    weights_id: str
    size: int
    modified: int
    run: str
    version: int = 0
    stopped: bool = False
    method: str = ""
    base_model: str = ""
    base_hash: str = ""
    data_hash: str = ""
    reward: str = ""
    reward_id: str = ""
    steps: int = 0
    rank: int = 0
    created: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    parents: tuple[LoraParent, ...] = ()


def read_facts(path: Path, name: str = "") -> LoraFacts:
    """Read a LoRA file, whole.

    Args:
        name: of the file, where its present one is only the trash's.

    Raises:
        NoLoraError: not a safetensors file, or one without LoRA layers.
        OSError: it is gone or cannot be read.
    """
    status = path.stat()
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            identity, rank = weights_id_of(file.keys(), file.get_tensor), _rank(file)
    except SafetensorError as error:
        raise NoLoraError(
            f"{path.name} is not a readable safetensors file ({error}). Remove it or copy it anew."
        ) from error
    if not identity:
        raise NoLoraError(f"{path.name} holds no LoRA layers. Move it to the folder of its kind.")
    run, version, stopped = identify(name or path.name, metadata)
    return LoraFacts(
        content=digest.hexdigest(),
        weights_id=identity,
        size=status.st_size,
        modified=status.st_mtime_ns,
        run=run,
        version=version,
        stopped=stopped,
        method=metadata.get("attune.method", ""),
        base_model=metadata.get("ss_sd_model_name", ""),
        base_hash=metadata.get("attune.base_hash", ""),
        data_hash=metadata.get("attune.data_hash", ""),
        reward=metadata.get("attune.reward", ""),
        reward_id=metadata.get("attune.reward_id", ""),
        steps=_whole(metadata.get("ss_steps")),
        rank=rank,
        created=_moment(metadata.get("modelspec.date", "")) or int(status.st_mtime),
        metrics={key: float(value) for key, value in _mapping(metadata, "attune.metrics").items() if _is_finite(value)},
        settings=_mapping(metadata, "attune.settings"),
        parents=_parents(metadata),
    )


def identify(name: str, metadata: Mapping[str, str]) -> tuple[str, int, bool]:
    """Run, version and whether it was stopped: from the metadata where they say it, else from the file's name."""
    stem = Path(name).stem
    match = _NUMBERED.match(stem)
    version = int(match["version"]) if match else 0
    title = metadata.get("modelspec.title", "") if "attune.method" in metadata else ""
    stopped = bool(match and match["stopped"]) or title.endswith("_stopped")
    run = metadata.get("attune.run", "") or title.removesuffix("_stopped") or (match["run"] if match else stem)
    return run, version, stopped


def _rank(file: Any) -> int:
    """The largest of a layer; 0 of whole weights."""
    downs = tuple(down for _, down in HALVES)
    names = [name for name in file.keys() if name.endswith(downs)]  # noqa: SIM118
    return max((file.get_slice(name).get_shape()[0] for name in names), default=0)


def _mapping(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        found = json.loads(metadata.get(key, "") or "{}")
        return found if isinstance(found, dict) else {}
    return {}


def _parents(metadata: Mapping[str, str]) -> tuple[LoraParent, ...]:
    with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError):
        return tuple(
            LoraParent(str(entry["weights_id"]), str(entry.get("name", "")), float(entry.get("strength", 1.0)))
            for entry in json.loads(metadata.get("attune.parents", "") or "[]")
        )
    return ()


def _moment(text: str) -> int:
    with contextlib.suppress(ValueError):
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return int((moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp())
    return 0


def _whole(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")
