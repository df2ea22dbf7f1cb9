"""Two LoRAs side by side: figures, what was set differently, and how far their weights lie apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...training.adapters.merge import distances, layers_of
from ...training.checkpoint import read_tensors
from ...training.interfaces import AttuneError
from .catalogue import Catalogue
from .records import Entry

_FACTS = (
    ("method", "method"), ("base model", "base_model"), ("base weights", "base_hash"), ("data", "data_hash"),
    ("reward", "reward"), ("updates", "steps"), ("rank", "rank"),
)  # fmt: skip


def compare_entries(catalogue: Catalogue, first: int, second: int) -> dict[str, Any]:
    """Compare two LoRAs; JSON-able.

    Returns:
        "metrics": [{"name", "a", "b", "change"}], None where one has no such figure.
        "settings": [{"name", "a", "b"}] of what differs, as text.
        "distances": one per group of layers, see `training.adapters.merge.Distance`; [] with "problem" saying why.

    Raises:
        CatalogueError: there is no such LoRA.
    """
    a, b = catalogue.entry(first), catalogue.entry(second)
    groups, problem = _distances(catalogue, a, b)
    return {"a": a.id, "b": b.id, "metrics": _metrics(a, b), "settings": _settings(a, b), "distances": groups,
            "problem": problem}  # fmt: skip


def _metrics(a: Entry, b: Entry) -> list[dict[str, Any]]:
    rows = []
    for name in dict.fromkeys([*a.metrics, *b.metrics]):
        left, right = a.metrics.get(name), b.metrics.get(name)
        change = right - left if left is not None and right is not None else None
        rows.append({"name": name, "a": left, "b": right, "change": change})
    return rows


def _settings(a: Entry, b: Entry) -> list[dict[str, str]]:
    left, right = _flat(a), _flat(b)
    return [
        {"name": name, "a": left.get(name, ""), "b": right.get(name, "")}
        for name in dict.fromkeys([*left, *right])
        if left.get(name, "") != right.get(name, "")
    ]


def _flat(entry: Entry) -> dict[str, str]:
    """Facts and settings of a LoRA as lines: name → value."""
    # Of updates and rank, 0 means that the file does not say.
    lines = {label: _text(getattr(entry, name) or "") for label, name in _FACTS}

    def add(prefix: str, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, Mapping):
                add(f"{prefix}{name}: ", value)
            else:
                lines[f"{prefix}{name}".replace("_", " ")] = _text(value)

    add("", entry.settings)
    return {name: value for name, value in lines.items() if value}


def _text(value: Any) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(_text, value)) if isinstance(value, (list, tuple)) else str(value)


def _distances(catalogue: Catalogue, a: Entry, b: Entry) -> tuple[list[dict[str, Any]], str]:
    try:
        loras = []
        for entry in (a, b):
            if entry.missing or entry.status == "erased":
                return [], f"The file of {entry.title} is not there any more, so the weights cannot be compared."
            loras.append(layers_of(read_tensors(catalogue.path(entry))[0], entry.title))
        found = distances(*loras, names=(a.title, b.title))
    except AttuneError as error:
        return [], str(error)
    return [entry._asdict() for entry in found], ""
