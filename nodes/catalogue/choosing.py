"""What the LoRA Catalogue node says of the LoRA it took."""

from __future__ import annotations

from typing import Any

from ..drawing import short_number
from .catalogue import Catalogue
from .families import TELLING, TITLES
from .listing import as_json
from .records import Entry


def report_of(catalogue: Catalogue, entry: Entry) -> dict[str, Any]:
    """All that is known of a LoRA, with its history; JSON-able."""
    history = [{"at": at, "what": kind, **detail} for at, kind, detail in catalogue.history(entry.id)]
    return as_json(entry) | {"history": history}


def summary_of(catalogue: Catalogue, entry: Entry) -> str:
    """A few lines for the node."""
    plain = as_json(entry)
    first = f"{entry.title} ({plain['method_name']}){', promoted' if entry.status == 'promoted' else ''}"
    lines = [first, f"{catalogue.folder.name}/{entry.file}"]
    figures = [name for name in TELLING if name in entry.metrics][:2]
    if figures:
        lines.append(", ".join(f"{TITLES[name]} {short_number(entry.metrics[name])}" for name in figures))
    if entry.parents:
        lines.append("from " + ", ".join(f"{p.name or 'an unlisted LoRA'} ({p.strength:g})" for p in entry.parents))
    if entry.tags:
        lines.append(f"tags: {', '.join(entry.tags)}")
    return "\n".join(lines)
