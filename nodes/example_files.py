"""Copying example files to where a person sees them, who may change, delete or add files there."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path


def add_missing(source: Path, target: Path) -> list[OSError]:
    """Copy every file below `source` of which there is none below `target` yet; nothing that is there is touched.

    The folder as a whole appears at once if it is not there, and each file at once if it is: never half a file.

    Returns:
        Why some of them could not be copied.
    """
    if not os.path.lexists(target):
        return _copy(source, target)
    failed: list[OSError] = []
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        copy = target / path.relative_to(source)
        # A link that leads nowhere is somebody's own too.
        if not os.path.lexists(copy):
            failed += _copy(path, copy)
    return failed


def _copy(source: Path, target: Path) -> list[OSError]:
    """A file or a whole folder, under its name only when it is complete."""
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(source, partial)
        else:
            shutil.copy2(source, partial)
        partial.rename(target)
    except OSError as error:
        with suppress(OSError):
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
        return [error]
    return []
