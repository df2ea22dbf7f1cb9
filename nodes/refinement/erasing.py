"""Deleting a session so that no byte of it is left, whatever comes in between.

First the session is marked (one transaction; from here on nobody sees it). Then its rows and its folder go, and at
last the database is written anew and its log emptied, since SQLite keeps copies of deleted rows in both. A kill on the
way is made good at the next start: the mark stays until all is done, and after that as a key that says nothing, so that
the folder goes again if a run that was under way has written into it.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from ..store import Store, StoreError
from .checks import KEY

log = logging.getLogger("attune")

_ATTEMPTS = 3


def mark(store: Store, key: str) -> None:
    """Begin to delete a session: it is gone for everybody."""
    with store.writing() as connection:
        connection.execute("INSERT OR IGNORE INTO session_erasures (key) VALUES (?)", (key,))
        # The name is free again at once.
        connection.execute("UPDATE sessions SET name = '', folded = key WHERE key = ?", (key,))


def finish(store: Store, folder: Path) -> str:
    """Carry through every deletion that was begun, and remove what late runs have written of deleted sessions.

    Args:
        folder: of all sessions.

    Returns:
        Why bytes of what was deleted are still there, in words; they go at the next start or deletion. "" = none are.

    Raises:
        StoreError: the store cannot be read or written.
    """
    with store.reading() as connection:
        marked = dict(connection.execute("SELECT key, done FROM session_erasures").fetchall())
    begun = [key for key, done in marked.items() if not done]
    try:
        for key in begun:
            with store.writing() as connection:
                connection.execute("PRAGMA secure_delete = ON")
                connection.execute("DELETE FROM sessions WHERE key = ?", (key,))
        for path in _folders(folder):
            if path.name in marked:
                _remove(path)
        if begun and not store.scrub():
            return "Another program is using Attune's database."
    except StoreError as error:
        log.warning("Attune: bytes of a deleted session are still there: %s", error)
        return str(error)
    except OSError as error:
        log.warning("Attune: files of a deleted session are still there: %s", error)
        return f"Files of the session are in use ({error.strerror or error})."
    if begun:
        with store.writing() as connection:
            connection.executemany("UPDATE session_erasures SET done = 1 WHERE key = ?", [(key,) for key in begun])
    return ""


def drop_late(store: Store, folder: Path, key: str) -> None:
    """Remove the folder that a run has written of a session that was deleted meanwhile."""
    with store.reading() as connection:
        known = connection.execute("SELECT 1 FROM session_erasures WHERE key = ?", (key,)).fetchone()
    if known and KEY.fullmatch(key):
        try:
            _remove(Path(folder) / key)
        except OSError as error:
            log.warning("Attune: files of a deleted session are still there: %s", error)


def _folders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if KEY.fullmatch(path.name)]
    except FileNotFoundError:
        return []


def _remove(path: Path) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            if not path.exists():
                return
        except OSError:
            # A run that is under way may put a file into a folder that is being emptied.
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return
