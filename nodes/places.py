"""Files inside the host's input folder. Names come from workflows, so none of them may lead out of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

from ..training.interfaces import AttuneError

# Folders of pictures can be deep and huge; what lies deeper than this is not offered.
DEEPEST = 3
MOST_LISTED = 1000
_LONGEST_NAME = 255  # bytes, on every usual file system


class PlaceError(AttuneError):
    """A name from a workflow is none of a file or folder in its place."""


def inside(root: Path, name: str, *, what: str) -> Path:
    """The path of `name` below `root`.

    Args:
        what: what it is, for the error ("file", "folder").

    Raises:
        PlaceError: the name is empty or leads out of the folder.
    """
    plain = name.replace("\\", "/").strip()
    try:
        path, base = (root / plain).resolve(), root.resolve()
        longest = max(len(os.fsencode(part)) for part in ("", *path.parts))
    except (ValueError, OSError, RuntimeError):  # a NUL, half a character, a circle of links
        path, base, longest = root, root, 0
    if not plain or PurePosixPath(plain).is_absolute() or base not in path.parents or longest > _LONGEST_NAME:
        raise PlaceError(
            f"{name!r} is no {what} inside the folder {root.name!r}. Choose one of those in the list; copy yours into "
            "ComfyUI's input folder first."
        )
    return path


def missing(root: Path, name: str | None, *, what: str) -> str:
    """What to say of a widget's file or folder that is not there; "" if it is, or if a wire will name it.

    Args:
        root: the host's input folder.
        what: "file" or "folder".
    """
    if name is None:
        return ""
    try:
        path = inside(root, name, what=what)
    except PlaceError as error:
        return str(error)
    if path.is_dir() if what == "folder" else path.is_file():
        return ""
    return f"There is no {what} {name!r} in ComfyUI's input folder. Choose another one, or copy it there."


def listed_files(root: Path, endings: Collection[str]) -> list[str]:
    """Files below `root` with one of the endings, as names with forward slashes, sorted."""
    found: list[str] = []
    for folder, _, files in _walk(root):
        found += [_name(root, Path(folder) / name) for name in files if Path(name).suffix.lower() in endings]
        if len(found) >= MOST_LISTED:
            break
    return sorted(found[:MOST_LISTED])


def listed_folders(root: Path) -> list[str]:
    """Folders below `root`, as names with forward slashes, sorted."""
    found: list[str] = []
    for folder, folders, _ in _walk(root):
        found += [_name(root, Path(folder) / name) for name in folders]
        if len(found) >= MOST_LISTED:
            break
    return sorted(found[:MOST_LISTED])


def _walk(root: Path) -> Iterable[tuple[str, list[str], list[str]]]:
    for folder, folders, files in os.walk(root):
        depth = len(Path(folder).relative_to(root).parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if depth < DEEPEST else []
        yield folder, folders, [name for name in files if not name.startswith(".")]


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def content_digest(paths: Iterable[Path]) -> str:
    """A name for the content of files; a missing one counts as missing."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(repr(path.name).encode("utf-8", "surrogatepass"))
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError:
            digest.update(b"missing")
    return digest.hexdigest()
