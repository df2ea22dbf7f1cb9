"""The files of the model folder "user_adapters": user adapters, and the set encoders that belong to them."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from safetensors import SafetensorError, safe_open

from ...training.adapters.user_attention import HEADER as ADAPTER
from ...training.digests import file_digest
from ...training.interfaces import AttuneError
from ...training.preference.set_encoder import HEADER as ENCODER
from .folders import USER_ADAPTERS

__all__ = ["ADAPTER", "ENCODER", "adapter_path", "digest_of", "listed"]

WORDS = {ADAPTER: "user adapter", ENCODER: "taste encoder"}
_known: dict[tuple[str, int, int], frozenset[str]] = {}


def listed(kind: str) -> list[str]:
    """Names of the files that hold this: `ADAPTER` or `ENCODER`; the demo's last."""
    names = [name for name in folder_paths.get_filename_list(USER_ADAPTERS) if kind in _headers(_full(name))]
    return sorted(names, key=lambda name: (Path(name).name.startswith("attune_demo"), name.casefold()))


def adapter_path(name: str, kind: str) -> Path:
    """
    Raises:
        AttuneError: there is no such file, or it holds something else; says where to put one.
    """
    path = _full(name)
    word = WORDS[kind]
    if path is None:
        folders = " or ".join(folder_paths.get_folder_paths(USER_ADAPTERS))
        raise AttuneError(
            f"The {word} {name!r} is not in {folders}. Put the file there and refresh the node definitions (press R), "
            "or choose another."
        )
    if kind not in _headers(path):
        raise AttuneError(f"{name} holds no {word}. Choose another file.")
    return path


def digest_of(name: str | None, kind: str) -> str:
    """Changes with the content of that file, for a node's fingerprint; what is wrong, if it cannot be read."""
    try:
        return file_digest(adapter_path(name or "", kind))
    except (AttuneError, OSError) as error:
        return str(error)


def _full(name: str) -> Path | None:
    found = folder_paths.get_full_path(USER_ADAPTERS, name)
    return Path(found) if found else None


def _headers(path: Path | None) -> frozenset[str]:
    """Keys of a file's header; nothing of one that cannot be read."""
    try:
        state = path.stat()
        key = (str(path), state.st_size, state.st_mtime_ns)
        if key not in _known:
            with safe_open(path, "pt") as file:
                _known[key] = frozenset(file.metadata() or {})
        return _known[key]
    except (OSError, SafetensorError, AttributeError):
        return frozenset()
