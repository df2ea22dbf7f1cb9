"""The catalogue of a folder of LoRA files: find, tag, annotate, promote, roll back, trash and restore.

What is done to a LoRA is one transaction of the store. Where a file moves too, it moves first and the transaction
follows: a kill in between leaves the file whole in one of the two places, and the next scan finds it there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ..store import Store
from .lora_files import identify
from .records import CatalogueError, Entry, change, note_event, read_entries
from .scanning import (
    TRASH,
    Refusal,
    back_from_trash,
    free_name,
    is_settled,
    live_files,
    look,
    name_in_trash,
    settle,
)

PROMOTED, NEWEST = " (promoted)", " (newest)"
NEWEST_OF_ALL = "the newest LoRA"
MOST_TAGS, LONGEST_TAG, LONGEST_NOTE = 20, 40, 2000


def _ignore(done: int, total: int) -> None:
    """Nobody watches."""


class Catalogue:
    """The LoRAs of one folder. Any thread may use it.

    Args:
        store: where the record is kept.
        folder: of this pack's LoRA files; it need not exist.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, Path(folder)
        self.problems: list[str] = []
        self._scanning = threading.RLock()
        self._refused: dict[str, Refusal] = {}

    # ---- reading ----

    def scan(self, on_file: Callable[[int, int], None] = _ignore) -> None:
        """Take in what is in the folder and its trash; see `scanning`. What cannot be read is in `problems`.

        Raises:
            StoreError: the record cannot be read or written.
        """
        with self._scanning:
            entries = self._read("status <> 'erased'")
            found = look(self.folder, entries, self._refused, on_file)
            self.problems, self._refused = found.problems, found.refused
            if not is_settled(found, entries):
                with self.store.writing() as connection:
                    settle(connection, found)

    def entries(self, *, erased: bool = False) -> list[Entry]:
        """All LoRAs, oldest first, also missing ones and those in the trash."""
        return self._read("1" if erased else "status <> 'erased'")

    def entry(self, id: int) -> Entry:
        """
        Raises:
            CatalogueError: there is none of that id.
        """
        found = self._read("id = ?", [id])
        if not found:
            raise CatalogueError(f"The catalogue has no LoRA number {id}. Refresh the list.")
        return found[0]

    def search(self, text: str = "", *, tags: Sequence[str] = (), method: str = "") -> list[Entry]:
        """The usable and missing LoRAs in which every word of a text occurs, with all of these tags.

        Args:
            text: words looked for in run, file, method, base model, reward, note and tags; upper and lower case alike.
        """
        words = text.casefold().split()
        return [
            entry
            for entry in self.entries()
            if not entry.in_trash
            and set(tags) <= set(entry.tags)
            and method in ("", entry.method)
            and all(word in _searched(entry) for word in words)
        ]

    def roll_back_targets(self) -> dict[str, int]:
        """Run → the LoRA that `roll_back` would promote, of the runs that have one."""
        with self.store.reading() as connection:
            stacks = _promotions(connection)
        usable = {entry.id for entry in self.entries() if entry.usable}
        return {run: id for run, stack in stacks.items() if (id := _earlier(stack, usable))}

    def revision(self) -> int:
        """A number that grows with everything that is done."""
        with self.store.reading() as connection:
            return connection.execute("SELECT COALESCE(MAX(id), 0) FROM lora_events").fetchone()[0]

    def history(self, id: int) -> list[tuple[int, str, dict]]:
        """(when, what, details) of all that was done to a LoRA, oldest first."""
        with self.store.reading() as connection:
            rows = connection.execute(
                "SELECT at, kind, detail FROM lora_events WHERE lora = ? ORDER BY id", (id,)
            ).fetchall()
        return [(at, kind, json.loads(detail)) for at, kind, detail in rows]

    def find(self, name: str) -> Entry:
        """The LoRA that a name stands for.

        Args:
            name: a file below the LoRA folder, with or without the folder's own name; or a run's name followed by
                " (promoted)" or " (newest)"; or "the newest LoRA".

        Raises:
            CatalogueError: there is none, or its file is missing or in the trash. For a promoted version whose file is
                gone, it says what to roll back to.
        """
        entries = [entry for entry in self.entries() if entry.usable]
        if name == NEWEST_OF_ALL:
            if not entries:
                raise CatalogueError(f"There is no LoRA in {self.folder} yet. {_listed(entries)}")
            return self._newest("", entries)
        for ending, choose in ((PROMOTED, self._promoted), (NEWEST, self._newest)):
            if name.endswith(ending):
                run = name.removesuffix(ending)
                own = [entry for entry in entries if entry.run == run]
                if ending == PROMOTED:
                    self._refuse_gone(run)
                if not own:
                    raise CatalogueError(f"There is no LoRA of a run {run!r}. {_listed(entries)}")
                return choose(run, own)
        file = name.replace("\\", "/").removeprefix(f"{self.folder.name}/")
        found = next((entry for entry in entries if entry.file == file), None)
        if found is None:
            raise CatalogueError(f"There is no LoRA {name!r} in {self.folder}. {_listed(entries)}")
        return found

    def choices(self) -> list[str]:
        """What `find` takes: the newest of all, the promoted and the newest version of every run, every file.

        Newest first. Reads no file: of what was not scanned yet the name alone is known.
        """
        entries = [entry for entry in reversed(self.entries()) if entry.usable] if self.store.path.is_file() else []
        promoted = {entry.run: None for entry in entries if entry.status == "promoted"}
        files = live_files(self.folder)
        fresh = sorted(files.keys() - {entry.file for entry in entries})
        runs = dict.fromkeys([*(entry.run for entry in entries), *(identify(file, {})[0] for file in fresh)])
        return [
            NEWEST_OF_ALL,
            *(f"{run}{PROMOTED}" for run in promoted),
            *(f"{run}{NEWEST}" for run in runs),
            *(f"{self.folder.name}/{entry.file}" for entry in entries if entry.file in files),
            *(f"{self.folder.name}/{file}" for file in fresh),
        ]

    def path(self, entry: Entry) -> Path:
        """Where the file of an entry is, or was if it is missing; inside the LoRA folder.

        Raises:
            CatalogueError: the record names a place outside of it.
        """
        return self._inside(self._trash_path(entry) if entry.in_trash else self.folder / entry.file)

    # ---- changing ----

    def set_tags(self, id: int, tags: Iterable[str]) -> None:
        """Replace a LoRA's tags.

        Raises:
            CatalogueError: no such LoRA, too many tags, or too long ones.
        """
        entry = self.entry(id)
        wanted = sorted({" ".join(str(tag).split()) for tag in tags} - {""}, key=str.casefold)
        if len(wanted) > MOST_TAGS or any(len(tag) > LONGEST_TAG for tag in wanted):
            raise CatalogueError(f"A LoRA takes up to {MOST_TAGS} tags of up to {LONGEST_TAG} letters each.")
        if set(wanted) == set(entry.tags):
            return
        with self.store.writing() as connection:
            connection.execute("DELETE FROM lora_tags WHERE lora = ?", (id,))
            connection.executemany("INSERT INTO lora_tags (lora, tag) VALUES (?, ?)", [(id, tag) for tag in wanted])
            note_event(connection, id, "tags", before=list(entry.tags), after=wanted)

    def set_note(self, id: int, note: str) -> None:
        """Replace a LoRA's note.

        Raises:
            CatalogueError: no such LoRA, or the note is too long.
        """
        entry = self.entry(id)
        if len(note) > LONGEST_NOTE:
            raise CatalogueError(f"A note takes up to {LONGEST_NOTE} letters; this one has {len(note)}.")
        if note != entry.note:
            with self.store.writing() as connection:
                change(connection, id, note=note)
                note_event(connection, id, "note", before=entry.note, after=note)

    def promote(self, id: int) -> None:
        """Make a LoRA the version of its run that counts; the one that counted before is retired.

        Raises:
            CatalogueError: no such LoRA, or it cannot be used.
        """
        entry = self.entry(id)
        if not entry.usable:
            raise CatalogueError(f"{entry.title} is {_where(entry)}, so it cannot be promoted. Bring it back first.")
        if entry.status == "promoted":
            return
        with self.store.writing() as connection:
            connection.execute(
                "UPDATE loras SET status = 'retired' WHERE run = ? AND status = 'promoted'", (entry.run,)
            )
            change(connection, id, status="promoted")
            note_event(connection, id, "promoted")

    def roll_back(self, run: str) -> Entry:
        """Promote the version of a run that was promoted before the present one; returns it.

        Raises:
            CatalogueError: there is no earlier one whose file is still there.
        """
        with self.store.writing() as connection:
            stack = _promotions(connection).get(run, [])
            usable = {entry.id for entry in read_entries(connection, "run = ?", [run]) if entry.usable}
            if earlier := _earlier(stack, usable):
                connection.execute("UPDATE loras SET status = 'retired' WHERE run = ? AND status = 'promoted'", (run,))
                change(connection, earlier, status="promoted")
                note_event(connection, stack[-1], "rolled back", to=earlier)
                return self.entry(earlier)
        raise CatalogueError(
            f"No version of {run!r} was promoted before this one, or its file is gone. Nothing was changed. "
            "Promote the version you want."
        )

    def trash(self, ids: Iterable[int]) -> list[int]:
        """Move files into the trash, where no loader lists them; returns the ids that were moved.

        Raises:
            CatalogueError: no such LoRA, or a file cannot be moved; those before it in the list are in the trash.
        """
        moved = []
        for entry in self._each(ids):
            if entry.in_trash or entry.status == "erased":
                continue
            if entry.missing:
                raise CatalogueError(f"The file of {entry.title} is not there any more, so it cannot be moved.")
            name = free_name(self.folder, entry)
            with self._moved(self.path(entry), self._inside(self.folder / TRASH / name)) as connection:
                change(connection, entry.id, status="trashed", status_before=entry.status, trashed_as=name)
                note_event(connection, entry.id, "trashed")
            moved.append(entry.id)
        return moved

    def restore(self, ids: Iterable[int]) -> list[int]:
        """Move files out of the trash, to where they were, or beside what has taken their name since; returns the ids.

        Raises:
            CatalogueError: no such LoRA, or a file cannot be moved.
        """
        moved = []
        for entry in self._each(ids):
            if not entry.in_trash:
                continue
            if entry.missing:
                raise CatalogueError(f"The file of {entry.title} is not in the trash any more. It cannot be restored.")
            target = self._inside(self._free(entry.file))
            with self._moved(self.path(entry), target) as connection:
                status = target.stat()
                file = target.relative_to(self.folder.resolve()).as_posix()
                change(connection, entry.id, file=file, size=status.st_size, modified=status.st_mtime_ns)
                back_from_trash(connection, entry)
            moved.append(entry.id)
        return moved

    def erase(self, ids: Iterable[int]) -> int:
        """Delete files in the trash for good; what is known of them stays for their descendants. Returns how many.

        Raises:
            CatalogueError: one of them is not in the trash, or its file cannot be deleted.
        """
        entries = self._each(ids)
        for entry in entries:
            if not entry.in_trash:
                raise CatalogueError(f"{entry.title} is not in the trash. Only what is in the trash can be deleted.")
        for entry in entries:
            try:
                self.path(entry).unlink(missing_ok=True)
            except OSError as error:
                raise CatalogueError(f"{entry.title} cannot be deleted: {error.strerror or error}.") from error
            with self.store.writing() as connection:
                change(connection, entry.id, status="erased", missing=1)
                note_event(connection, entry.id, "erased")
        return len(entries)

    def forget(self, ids: Iterable[int]) -> int:
        """Take missing LoRAs off the list; what is known of them stays for their descendants. Returns how many.

        Raises:
            CatalogueError: the file of one of them is there.
        """
        self.scan()
        entries = self._each(ids)
        for entry in entries:
            if not entry.missing:
                raise CatalogueError(
                    f"The file of {entry.title} is there, so it cannot be forgotten. Move it into the trash instead."
                )
        with self.store.writing() as connection:
            for entry in entries:
                change(connection, entry.id, status="erased")
                note_event(connection, entry.id, "forgotten")
        return len(entries)

    # ---- inside ----

    def _read(self, where: str, values: Iterable[object] = ()) -> list[Entry]:
        with self.store.reading() as connection:
            return read_entries(connection, where, values)

    def _each(self, ids: Iterable[int]) -> list[Entry]:
        return [self.entry(id) for id in dict.fromkeys(ids)]

    def _refuse_gone(self, run: str) -> None:
        gone = next((entry for entry in self._read("run = ? AND status = 'promoted' AND missing = 1", [run])), None)
        if gone is None:
            return
        earlier = self.roll_back_targets().get(run)
        back = f"roll back to {self.entry(earlier).title} or " if earlier else ""
        raise CatalogueError(
            f"The file of {gone.title}, the promoted version of {run!r}, was deleted. Put {gone.file} back, or {back}"
            "promote another version in the LoRA Catalogue tab."
        )

    @staticmethod
    def _promoted(run: str, own: list[Entry]) -> Entry:
        found = next((entry for entry in own if entry.status == "promoted"), None)
        if found is None:
            raise CatalogueError(
                f"No version of the run {run!r} is promoted. Promote one in the LoRA Catalogue tab, or choose "
                f"'{run}{NEWEST}'."
            )
        return found

    @staticmethod
    def _newest(run: str, own: list[Entry]) -> Entry:
        # One that was stopped early counts only where there is no other.
        return max(own, key=lambda entry: (not entry.stopped, entry.created, entry.id))

    def _trash_path(self, entry: Entry) -> Path:
        return self.folder / TRASH / name_in_trash(entry)

    def _inside(self, path: Path) -> Path:
        folder = self.folder.resolve()
        resolved = path.resolve()
        if not resolved.is_relative_to(folder):
            raise CatalogueError(f"{path} lies outside the LoRA folder {folder}; nothing was done.")
        return resolved

    def _free(self, file: str) -> Path:
        path, number = self.folder / file, 2
        while path.exists():
            path = (self.folder / file).with_name(f"{Path(file).stem} ({number}).safetensors")
            number += 1
        return path

    @contextlib.contextmanager
    def _moved(self, source: Path, target: Path) -> Iterator[sqlite3.Connection]:
        """Move a file, then run the block in a transaction; if that fails, the file goes back."""
        with self._scanning:
            if target.exists():
                # A move would overwrite it.
                raise CatalogueError(f"{source.name} was not moved: there is a {target.name} already. Try again.")
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(source, target)
            except OSError as error:
                raise CatalogueError(
                    f"{source.name} cannot be moved: {error.strerror or error}. Close what uses the file, make the "
                    "folder writable, then try again."
                ) from error
            try:
                with self.store.writing() as connection:
                    yield connection
            except BaseException:
                os.replace(target, source)
                raise


def _promotions(connection: sqlite3.Connection) -> dict[str, list[int]]:
    """Run → the ids that were promoted in it and not rolled back since, the present one last."""
    stacks: dict[str, list[int]] = {}
    for run, id, kind, detail in connection.execute(
        "SELECT run, lora, kind, detail FROM lora_events JOIN loras ON loras.id = lora "
        "WHERE kind IN ('promoted', 'rolled back') ORDER BY lora_events.id"
    ):
        stack = stacks.setdefault(run, [])
        if kind == "promoted":
            stack.append(id)
        else:
            while stack and stack[-1] != json.loads(detail)["to"]:
                stack.pop()
    return stacks


def _earlier(stack: Sequence[int], usable: set[int]) -> int | None:
    """The newest of the earlier promotions that can be promoted again."""
    return next((id for id in reversed(stack[:-1]) if id in usable and id != stack[-1]), None)


def _where(entry: Entry) -> str:
    return "in the trash" if entry.in_trash else "deleted" if entry.status == "erased" else "missing"


def _searched(entry: Entry) -> str:
    method = re.sub(r"[_-]", " ", entry.method)
    parts = [entry.title, entry.file, method, entry.method, entry.base_model, entry.reward, entry.note, *entry.tags]
    return " ".join(parts).casefold()


def _listed(entries: Sequence[Entry]) -> str:
    if not entries:
        return "The catalogue is empty: train one first."
    runs = list(dict.fromkeys(entry.run for entry in reversed(entries)))
    return f"There is: {', '.join(runs[:8])}{' …' if len(runs) > 8 else ''}."
