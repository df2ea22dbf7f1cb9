"""Copies of the table of figures: for the live view, and as a glossary for people. Run this module after changing it:
`python scripts/module.py attune.nodes.training.figures_pages`.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

from .figures import EVALUATION, FIGURES, MOST_FIRST, NOT_DRAWN, PREFIXES

JS = Path(__file__).parents[2] / "js"
PAGE_TABLE = JS / "live_figures.js"
GLOSSARY_PAGE = JS / "docs" / "AttuneTrainLora.md"
_HEAD = "| figure | better | what it tells |\n| --- | --- | --- |\n"
_BETTER = {"up": "↑ higher", "down": "↓ lower", "": ""}


def page_table() -> str:
    """`js/live_figures.js`, as it must be."""
    tables = {
        "FIGURES": {name: asdict(known) for name, known in FIGURES.items()},
        "PREFIXES": [dict(zip(("prefix", "title", "meaning"), entry, strict=True)) for entry in PREFIXES],
        "NOT_DRAWN": sorted(NOT_DRAWN),
        "EVALUATION": EVALUATION,
        "MOST_FIRST": MOST_FIRST,
    }
    head = "/** What a run's figures are called and mean. Written by `nodes/training/figures_pages.py`. */\n"
    written = {name: json.dumps(table, ensure_ascii=False, indent=4) for name, table in tables.items()}
    return head + "".join(f"\nexport const {name} = {table};\n" for name, table in written.items())


def glossary() -> str:
    """The table of the help page, as it must be."""
    return _HEAD + "".join(
        f"| **{figure.title}** | {_BETTER[figure.better]} | {figure.meaning} |\n" for figure in FIGURES.values()
    )


def _write() -> None:
    PAGE_TABLE.write_text(page_table(), encoding="utf-8", newline="\n")
    page = GLOSSARY_PAGE.read_text(encoding="utf-8")
    table = re.compile(re.escape(_HEAD) + r"(?:\|.*\n)*")
    GLOSSARY_PAGE.write_text(table.sub(lambda _: glossary(), page), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    _write()
