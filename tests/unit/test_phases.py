"""What an update is busy with: every name that a training run tells has words in the node's view."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What Train LoRA's view shows; other nodes do not show theirs.
FOLDERS = ("training/objectives", "nodes/training")


def told() -> set[str]:
    """The first argument of every call of `on_phase` in these folders, where it is written out."""
    names = set()
    for file in (file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args:
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if called == "on_phase" and isinstance(node.args[0], ast.Constant):
                    names.add(node.args[0].value)
    return names


def test_every_phase_has_words():
    source = (ROOT / "js" / "live_state.js").read_text(encoding="utf-8")
    table = re.search(r"const PHASE_TEXT = Object\.freeze\(\{(.*?)\}\)", source, re.DOTALL)
    words = dict(re.findall(r'(\w+): "([^"]+)"', table[1]))
    names = told()
    assert {"encode", "rollout", "learn"} <= names, "the calls are not found any more"
    assert names == words.keys()
    assert all(len(text.split()) >= 2 for text in words.values())
