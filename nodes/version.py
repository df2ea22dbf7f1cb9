"""Which version of the pack this is."""

from __future__ import annotations

import re
from pathlib import Path


def pack_version() -> str:
    """This pack's version, from its pyproject.toml; empty if that file is not there."""
    try:
        text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    except OSError:
        return ""
    match = re.search(r'^version = "([^"]+)"', text, re.MULTILINE)
    return match[1] if match else ""
