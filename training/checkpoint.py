"""Atomic files: the state of a training run as one safetensors file that is either whole or not there.

A state file holds named tensors and one JSON document (in the safetensors metadata under "state"). Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .interfaces import AttuneError

# A file being written is named after its writer's process, `.warm.safetensors.4711.partial`; a killed one leaves it
# behind. On a shared drive the process may be another machine's, and ids come back: the time of the last write counts
# too. No write pauses for as long as `ABANDONED`, none lasts as long as `OUTDATED` (seconds).
ABANDONED, OUTDATED = 10 * 60, 24 * 60 * 60
_PARTIAL = re.compile(r"\..+\.(\d+)\.partial")


class CheckpointError(AttuneError):
    """A file cannot be written or read; the message says which one and what to do."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a name to write to, which takes the place of `path` when the block ends well; else nothing has changed.

    For small files that can be made again. What must survive a power cut goes through `write_atomically`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file so that a crash, a kill or a full disk leaves the old file or none, never half a file.

    Args:
        path: the final file; its folder is made if it does not exist.
        tensors: any device; stored contiguous, on the CPU, in their own dtype. Shared storage is copied.
        metadata: text values, stored in the header.

    What killed processes left of their own writing in that folder is removed; see `sweep`.

    Raises:
        CheckpointError: the folder cannot be written or the disk is full. No partial file is left behind.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        plain = _apart(tensors)
        partial.touch()
        mode = partial.stat().st_mode
        save_file(plain, partial, metadata=dict(metadata))
        # safetensors makes files that only their owner can read; a model in a shared folder is for everybody there.
        os.chmod(partial, mode)
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if not isinstance(error, (OSError, SafetensorError)):
            raise
        raise CheckpointError(
            f"Could not write {path}: {error}. Check that the folder is writable and the disk has room, then retry."
        ) from error


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors contiguous on the CPU, no two in one storage. Copies only what must be: a state may fill half the
    memory."""
    plain, seen = {}, set()
    for name, tensor in tensors.items():
        value = tensor.detach().to("cpu").contiguous()
        place = value.untyped_storage().data_ptr()
        plain[name] = value.clone() if place in seen else value
        seen.add(place)
    return plain


def sweep(folder: Path) -> None:
    """Remove the partial files in `folder` whose writers are gone. What cannot be removed stays, without an error."""
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            match = _PARTIAL.fullmatch(file.name)
            if match is None:
                continue
            with contextlib.suppress(OSError):
                idle = time.time() - file.lstat().st_mtime
                if idle > OUTDATED or (idle > ABANDONED and not _runs(int(match[1]))):
                    file.unlink()


def _runs(process: int) -> bool:
    """Whether there may be a process of this id."""
    if os.name == "nt":
        return True  # asking by signal 0, as below, would end it; here only the time tells
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # somebody else's
    return True


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a safetensors file: its tensors on the CPU, and its metadata.

    Raises:
        CheckpointError: the file is missing or is not a safetensors file.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist. Check the name, or choose another file.")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file ({error}). Choose another file.") from error


def write_state(path: Path, tensors: Mapping[str, torch.Tensor], state: Any) -> None:
    """Write tensors and a JSON-able `state` as one atomic file; see `write_atomically`."""
    write_atomically(path, tensors, {"state": json.dumps(state)})


def read_state(path: Path) -> tuple[dict[str, torch.Tensor], Any]:
    """Read what `write_state` wrote.

    Raises:
        CheckpointError: not a state file, or unreadable.
    """
    tensors, metadata = read_tensors(path)
    if "state" not in metadata:
        raise CheckpointError(f"{path} is not a training state of this pack: its header has no 'state'.")
    return tensors, json.loads(metadata["state"])


def flatten(tree: Any, prefix: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Move every tensor of a nested dict/list into `tensors`, leaving JSON with `{"tensor": name}` in its place.

    Dict keys that are integers (as in an optimizer's state) keep their type through a list of pairs.
    """
    if isinstance(tree, torch.Tensor):
        tensors[prefix] = tree
        return {"tensor": prefix}
    if isinstance(tree, dict):
        return {"pairs": [[key, flatten(value, f"{prefix}.{key}", tensors)] for key, value in tree.items()]}
    if isinstance(tree, (list, tuple)):
        return {"list": [flatten(value, f"{prefix}.{index}", tensors) for index, value in enumerate(tree)]}
    return {"value": tree}


def unflatten(document: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The inverse of `flatten`."""
    kind, content = next(iter(document.items()))
    if kind == "tensor":
        return tensors[content]
    if kind == "pairs":
        return {key: unflatten(value, tensors) for key, value in content}
    if kind == "list":
        return [unflatten(value, tensors) for value in content]
    return content
