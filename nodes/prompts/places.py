"""Texts from the host's input folder."""

from __future__ import annotations

from pathlib import Path

from .lines import PromptError

LARGEST_BYTES = 64 * 1024 * 1024


def read_text(path: Path, name: str) -> str:
    """A text file in UTF-8, with or without its mark.

    Raises:
        PromptError: missing, unreadable, too large, or not UTF-8; the message names the file, and the line of what
        cannot
            be read.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_BYTES:
            raise PromptError(
                f"{name} has {size / 1e6:.0f} MB, more than the {LARGEST_BYTES / 1e6:.0f} MB that are read."
            )
        content = path.read_bytes()
    except OSError as error:
        raise PromptError(
            f"{name} cannot be read ({error.strerror}). Check that it is in ComfyUI's input folder, and press R in the "
            "browser to list its files afresh."
        ) from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise PromptError(
            f"{name}, line {line}: a letter is not UTF-8. Save the file as UTF-8 in your editor."
        ) from None
