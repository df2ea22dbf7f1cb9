"""Bringing the catalogue in line with the folder: new, renamed, overwritten, deleted files, and moves that a crash cut.

Files are recognised by their content, so a renamed LoRA keeps its tags, its note and its place in the tree.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .lora_files import LoraFacts, NoLoraError, read_facts
from .records import Entry, change, insert, note_event, read_entries

TRASH = ".trash"
# The stock loader looks into every folder, also into hidden ones, for files of the endings that it knows.
TRASHED = ".trashed"


def trash_name(file: str, content: str, number: int = 1) -> str:
    """A name in the trash for a LoRA: readable for people, and another one for another content.

    Args:
        number: above 1 where copies of it are in the trash already.
    """
    return f"{Path(file).stem}.{content[:12]}{f'-{number}' if number > 1 else ''}{TRASHED}"


def name_in_trash(entry: Entry) -> str:
    """The name that the file of an entry in the trash has there."""
    return entry.trashed_as or trash_name(entry.file, entry.content)


def free_name(folder: Path, entry: Entry) -> str:
    """A name that no file in the trash has."""
    number = 1
    while (folder / TRASH / trash_name(entry.file, entry.content, number)).exists():
        number += 1
    return trash_name(entry.file, entry.content, number)


def _first_name(trashed: str) -> str:
    """The name in the trash of the first copy, from that of any."""
    return re.sub(rf"-\d+({re.escape(TRASHED)})$", r"\1", trashed)


def name_before(trashed: str) -> str:
    """The file name that a name in the trash was made from."""
    return f"{trashed.removesuffix(TRASHED).rpartition('.')[0]}.safetensors"


def live_files(folder: Path) -> dict[str, tuple[int, int]]:
    """LoRA files below the folder, outside hidden folders: name with forward slashes → (size, modified).

    Links to files elsewhere are left out: nothing that leaves the folder could be moved or compared.
    """
    inside = folder.resolve()
    return {
        name: stamp
        for path in folder.rglob("*.safetensors")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.resolve().is_relative_to(inside)
        and (stamp := _stamp(path))
        and (name := path.relative_to(folder).as_posix())
    }


def trashed_files(folder: Path) -> dict[str, tuple[int, int]]:
    """The files in the trash: name → (size, modified)."""
    return {path.name: stamp for path in (folder / TRASH).glob(f"*{TRASHED}") if (stamp := _stamp(path))}


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None  # gone in this moment
    return (status.st_size, status.st_mtime_ns) if path.is_file() else None


Refusal = tuple[tuple[int, int], str]


@dataclass
class Findings:
    """What is on the disk.

    Attributes:
        live, trashed: see `live_files`, `trashed_files`.
        facts: of the live files that the catalogue does not know as they are, by name.
        trash_facts: of the files in the trash that it does not know.
        refused: live files that are no LoRAs: name → ((size, modified), why).
        unreadable: what could not be read this time, in words.
    """

    live: dict[str, tuple[int, int]]
    trashed: dict[str, tuple[int, int]]
    facts: dict[str, LoraFacts] = field(default_factory=dict)
    trash_facts: dict[str, LoraFacts] = field(default_factory=dict)
    refused: dict[str, Refusal] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """Everything that was left out, in words."""
        return [*(why for _, why in self.refused.values()), *self.unreadable]


def look(
    folder: Path,
    entries: list[Entry],
    refused: Mapping[str, Refusal],
    on_file: Callable[[int, int], None],
) -> Findings:
    """Read what the catalogue does not know yet.

    Args:
        refused: as the last look found them; they are not read again unless they have changed.
        on_file: called with (done, total) before the first file is read and after each; may raise to cancel.
    """
    found = Findings(live_files(folder), trashed_files(folder))
    known = {entry.file: (entry.size, entry.modified) for entry in entries if entry.usable}
    in_trash = {name_in_trash(entry) for entry in entries if entry.in_trash}
    unread = [name for name, stamp in found.live.items() if known.get(name) != stamp]
    strangers = [name for name in found.trashed if name not in in_trash]
    total = len(unread) + len(strangers)
    on_file(0, total)
    for done, name in enumerate(sorted(unread), 1):
        if refused.get(name, (None,))[0] == found.live[name]:
            found.refused[name] = refused[name]
        else:
            _read(folder / name, name, name, found.facts, found)
        on_file(done, total)
    for done, name in enumerate(sorted(strangers), len(unread) + 1):
        _read(folder / TRASH / name, name, name_before(name), found.trash_facts, found)
        on_file(done, total)
    return found


def _read(path: Path, name: str, meant: str, into: dict[str, LoraFacts], found: Findings) -> None:
    try:
        into[name] = read_facts(path, meant)
    except NoLoraError as error:
        if name in found.live:
            found.refused[name] = (found.live[name], str(error))
    except OSError as error:
        found.unreadable.append(f"{name} cannot be read ({error.strerror or error}) and is left out until it can be.")


def settle(connection: sqlite3.Connection, found: Findings) -> None:
    """Change the catalogue's tables to what is on the disk. Inside a writing transaction."""
    entries = read_entries(connection, "status <> 'erased'")
    present, claimed = _still_there(entries, found)
    absent = [entry for entry in entries if entry.id not in present and not entry.in_trash]
    for entry in absent:
        # Before any other takes its name: no two entries with a file have the same.
        change(connection, entry.id, missing=1)
    for entry in entries:
        if entry.id in present and (entry.missing or entry.file in found.facts):
            size, modified = found.live[entry.file]
            change(connection, entry.id, missing=0, size=size, modified=modified)
            if entry.missing:
                note_event(connection, entry.id, "found", file=entry.file)
    cut = [entry for entry in entries if entry.in_trash and name_in_trash(entry) not in found.trashed]
    homeless = {entry.id: entry for entry in [*absent, *cut]}
    for name in sorted(found.facts.keys() - claimed):
        _take_in(connection, name, found.facts[name], homeless)
    _settle_trash(connection, entries, found, homeless)


def _still_there(entries: list[Entry], found: Findings) -> tuple[set[int], set[str]]:
    """Ids of the entries whose files are where they were, and the names of those files."""
    present: set[int] = set()
    claimed: set[str] = set()
    for entry in sorted(entries, key=lambda entry: entry.missing):
        if entry.in_trash or entry.file in claimed or entry.file not in found.live:
            continue
        facts = found.facts.get(entry.file)
        same = facts.content == entry.content if facts else found.live[entry.file] == (entry.size, entry.modified)
        if same:
            present.add(entry.id)
            claimed.add(entry.file)
    return present, claimed


def _take_in(connection: sqlite3.Connection, name: str, facts: LoraFacts, homeless: dict[int, Entry]) -> None:
    """A file that no entry owns: one that was renamed or brought back, or a new one."""
    owner = next((entry for entry in homeless.values() if entry.content == facts.content), None)
    if owner is None:
        insert(connection, name, facts)
        return
    del homeless[owner.id]
    change(connection, owner.id, file=name, size=facts.size, modified=facts.modified, missing=0)
    if owner.in_trash:
        back_from_trash(connection, owner)
    else:
        note_event(connection, owner.id, "renamed", before=owner.file, after=name)


def back_from_trash(connection: sqlite3.Connection, entry: Entry) -> None:
    """The status that a trashed entry had, unless another one was promoted since."""
    taken = connection.execute("SELECT 1 FROM loras WHERE run = ? AND status = 'promoted'", (entry.run,)).fetchone()
    status = "retired" if entry.status_before == "promoted" and taken else entry.status_before
    change(connection, entry.id, status=status)
    note_event(connection, entry.id, "restored", status=status)


def _settle_trash(
    connection: sqlite3.Connection, entries: list[Entry], found: Findings, homeless: Mapping[int, Entry]
) -> None:
    by_trash_name = {trash_name(entry.file, entry.content): entry for entry in homeless.values() if not entry.in_trash}
    for name, facts in found.trash_facts.items():
        if owner := by_trash_name.pop(_first_name(name), None):
            change(connection, owner.id, status="trashed", status_before=owner.status, missing=0, trashed_as=name)
            note_event(connection, owner.id, "trashed")
        else:
            file = name_before(name)
            if trash_name(file, facts.content) == _first_name(name):
                insert(connection, file, facts, status="trashed", trashed_as=name)
    brought = {row[0] for row in connection.execute("SELECT id FROM loras WHERE status = 'trashed'")}
    lost = {id for id, entry in homeless.items() if not entry.in_trash and id not in brought}
    for entry in entries:
        if entry.in_trash and entry.id in homeless and not entry.missing:
            change(connection, entry.id, missing=1)
        elif entry.in_trash and entry.id not in homeless and entry.missing:
            change(connection, entry.id, missing=0)
        elif entry.id in lost and not entry.missing:
            note_event(connection, entry.id, "missing", file=entry.file)


def is_settled(found: Findings, entries: list[Entry]) -> bool:
    """Whether the catalogue says what is on the disk already."""
    files = {entry.file for entry in entries if entry.usable}
    trash_agrees = all((name_in_trash(entry) in found.trashed) != entry.missing for entry in entries if entry.in_trash)
    return not found.facts and not found.trash_facts and files <= found.live.keys() and trash_agrees
