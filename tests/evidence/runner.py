"""Runs one claim's script, and writes the README's table. Called by `python run.py evidence`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from .record import ROOT, results

BEGIN = "<!-- results: written by `python run.py evidence --table` -->"
END = "<!-- /results -->"


def readme_table(entries: Sequence[dict[str, Any]]) -> str:
    """The recorded figures as a Markdown table; failed claims are in it like the others."""
    if not entries:
        return "No result has been recorded yet."
    lines = ["| claim | measured | 95 % interval | goal | holds |", "| --- | --- | --- | --- | --- |"]
    for entry in entries:
        interval = "–" if entry["ci"] is None else " … ".join(map(_shown, entry["ci"]))
        goal = f"{'≥' if entry['direction'] == '>=' else '≤'} {entry['goal']:g} {entry['unit']}".strip()
        value = f"{_shown(entry['value'])} {entry['unit']}".strip()
        holds = "yes" if entry["holds"] else "**no**"
        lines.append(f"| `{entry['claim']}`: {entry['what']} | {value} | {interval} | {goal} | {holds} |")
    return "\n".join(lines)


def _shown(value: float) -> str:
    """Three digits; what rounding left of a 0 is 0."""
    return f"{0.0 if abs(value) < 1e-12 else value:.3g}"


def write_table() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"README.md lacks the lines {BEGIN} and {END}, between which the table belongs.")
    readme.write_text(f"{before}{BEGIN}\n{readme_table(results())}\n{END}{after}", encoding="utf-8")
    print(f"README.md: {len(results())} recorded figures")


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="run.py evidence")
    parser.add_argument("name", nargs="?")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args(argv)
    if arguments.name:
        module = importlib.import_module(f".{arguments.name.replace('-', '_')}", __package__)
        # A claim that fails is a result too: only a script that breaks is an error.
        module.main(arguments.quick)
    if arguments.table:
        write_table()


if __name__ == "__main__":
    main(sys.argv[1:])
