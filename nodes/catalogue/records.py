"""One catalogued LoRA, and how it lies in the store's tables."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...training.interfaces import AttuneError
from .lora_files import LoraFacts

STATUSES = ("new", "promoted", "retired", "trashed", "erased")
_COLUMNS = (
    "id", "file", "content", "weights_id", "size", "modified", "run", "version", "stopped", "method", "base_model",
    "base_hash", "data_hash", "reward", "reward_id", "steps", "rank", "metrics", "settings", "status", "status_before",
    "missing", "created", "note", "trashed_as",
)  # fmt: skip


class CatalogueError(AttuneError):
    """The catalogue cannot do what is asked; says why and what to do. Nothing was changed."""


def title_of(run: str, version: int, stopped: bool, file: str) -> str:
    """What people call a LoRA: "warm 002", "warm 001, stopped"; of a file without a number "warm (favourite)"."""
    stem = Path(file).stem
    ending = ", stopped" if stopped else ""
    return f"{run} {version:03d}{ending}" if version else f"{run}{'' if stem == run else f' ({stem})'}{ending}"


@dataclass(frozen=True)
class Parent:
    """A LoRA that another one came from.

    Attributes:
        id: in the catalogue; None if it is not in it.
        name: what to call it; "" if nothing is known but that there was one.
        strength: with which it went in.
        weights_id: see `training.adapters.weights_id`.
    """

    id: int | None
    name: str
    strength: float
    weights_id: str


@dataclass(frozen=True)
class Entry:
    """A LoRA in the catalogue. What is not explained here is explained in `lora_files.LoraFacts`.

    Attributes:
        id: never given twice.
        file: below the LoRA folder, with forward slashes; of one in the trash, where it was before.
        status: one of `STATUSES`; at most one LoRA of a run is promoted.
        status_before: what a trashed one was.
        missing: the file is not there any more.
        trashed_as: name of the file in the trash.
        tags: sorted.
        parents: in their order.
    """

    id: int
    file: str
    content: str
    weights_id: str
    size: int
    modified: int
    run: str
    version: int
    stopped: bool
    method: str
    base_model: str
    base_hash: str
    data_hash: str
    reward: str
    reward_id: str
    steps: int
    rank: int
    metrics: Mapping[str, float]
    settings: Mapping[str, Any]
    status: str
    status_before: str
    missing: bool
    created: int
    note: str
    trashed_as: str
    tags: tuple[str, ...] = ()
    parents: tuple[Parent, ...] = ()

    @property
    def title(self) -> str:
        """What people call it; see `title_of`."""
        return title_of(self.run, self.version, self.stopped, self.file)

    @property
    def in_trash(self) -> bool:
        return self.status == "trashed"

    @property
    def usable(self) -> bool:
        """Its file is where LoRA files are."""
        return not self.missing and self.status not in ("trashed", "erased")


def read_entries(connection: sqlite3.Connection, where: str = "1", values: Iterable[Any] = ()) -> list[Entry]:
    """The entries that a condition on the table `loras` names, oldest first."""
    rows = connection.execute(
        f"SELECT {', '.join(_COLUMNS)} FROM loras WHERE {where} ORDER BY created, id", tuple(values)
    ).fetchall()
    # A parent is found by its weights, best where its file still is.
    known: dict[str, tuple[int, str]] = {}
    for identity, id, *named in connection.execute(
        "SELECT weights_id, id, run, version, stopped, file FROM loras "
        "ORDER BY missing DESC, status IN ('trashed', 'erased') DESC, id DESC"
    ):
        known[identity] = (id, title_of(*named))
    tags: dict[int, list[str]] = {}
    for id, tag in connection.execute("SELECT lora, tag FROM lora_tags ORDER BY lora, tag"):
        tags.setdefault(id, []).append(tag)
    parents: dict[int, list[Parent]] = {}
    for id, identity, name, strength in connection.execute(
        "SELECT lora, weights_id, name, strength FROM lora_parents ORDER BY lora, position"
    ):
        parent, title = known.get(identity, (None, name))
        parents.setdefault(id, []).append(Parent(parent, title, strength, identity))
    return [_entry(row, tags, parents) for row in rows]


def _entry(row: tuple, tags: Mapping[int, list[str]], parents: Mapping[int, list[Parent]]) -> Entry:
    values = dict(zip(_COLUMNS, row, strict=True))
    for name in ("metrics", "settings"):
        values[name] = json.loads(values[name])
    for name in ("stopped", "missing"):
        values[name] = bool(values[name])
    id = values["id"]
    return Entry(**values, tags=tuple(tags.get(id, ())), parents=tuple(parents.get(id, ())))


def insert(
    connection: sqlite3.Connection, file: str, facts: LoraFacts, *, status: str = "new", trashed_as: str = ""
) -> int:
    """A new entry; its id."""
    values = {
        "file": file, "content": facts.content, "weights_id": facts.weights_id, "size": facts.size,
        "modified": facts.modified, "run": facts.run, "version": facts.version, "stopped": int(facts.stopped),
        "method": facts.method, "base_model": facts.base_model, "base_hash": facts.base_hash,
        "data_hash": facts.data_hash, "reward": facts.reward, "reward_id": facts.reward_id, "steps": facts.steps,
        "rank": facts.rank, "metrics": json.dumps(dict(facts.metrics)), "settings": json.dumps(dict(facts.settings)),
        "status": status, "status_before": "new", "missing": 0, "created": facts.created, "note": "",
        "trashed_as": trashed_as,
    }  # fmt: skip
    marks = ", ".join("?" * len(values))
    cursor = connection.execute(f"INSERT INTO loras ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))
    id = int(cursor.lastrowid)
    connection.executemany(
        "INSERT INTO lora_parents (lora, position, weights_id, name, strength) VALUES (?, ?, ?, ?, ?)",
        [(id, place, p.weights_id, p.name, p.strength) for place, p in enumerate(facts.parents)],
    )
    note_event(connection, id, "added", file=file)
    return id


def change(connection: sqlite3.Connection, id: int, **values: Any) -> None:
    """Set columns of an entry."""
    names = ", ".join(f"{name} = ?" for name in values)
    connection.execute(f"UPDATE loras SET {names} WHERE id = ?", (*values.values(), id))


def note_event(connection: sqlite3.Connection, id: int, kind: str, **detail: Any) -> None:
    """Put down what was done to an entry; never taken back."""
    connection.execute(
        "INSERT INTO lora_events (lora, at, kind, detail) VALUES (?, ?, ?, ?)",
        (id, int(time.time()), kind, json.dumps(detail)),
    )
