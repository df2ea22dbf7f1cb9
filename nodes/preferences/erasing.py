"""Deleting a profile so that no byte of it is left, whatever comes in between.

First the profile is marked (one transaction; from here on nobody sees it). Then its rows and the picture files that
nobody else uses go, and at last the database is written anew and its log emptied, since SQLite keeps copies of deleted
rows in both. A kill on the way is made good at the next start: the mark stays until all is done.
"""

from __future__ import annotations

import logging

from ..store import Store, StoreError
from .pictures import PictureFolder
from .records import PreferenceError, anonymous
from .rows import remove_unused_pictures

log = logging.getLogger("attune")


def mark(store: Store, profile: int) -> None:
    """Begin to delete a profile: it is gone for everybody."""
    with store.writing() as connection:
        connection.execute("INSERT OR IGNORE INTO erasures (profile) VALUES (?)", (profile,))
        # The name is free again at once.
        connection.execute("UPDATE profiles SET name = '', folded = key WHERE id = ?", (profile,))


def finish(store: Store, pictures: PictureFolder) -> bool:
    """Carry through every deletion that was begun.

    Returns:
        Whether nothing is left to do. False: another program is using the database or a picture, so that bytes of what
        was deleted are still there; they go at the next start or deletion.

    Raises:
        StoreError: the store cannot be read or written.
    """
    with store.reading() as connection:
        marked = [id for (id,) in connection.execute("SELECT profile FROM erasures")]
    if not marked:
        return True
    try:
        for profile in marked:
            _erase(store, pictures, profile)
        clean = pictures.tidy() and store.scrub()
    except (StoreError, PreferenceError) as error:
        log.warning("Attune: bytes of a deleted profile are still there: %s", error)
        clean = False
    if not clean:
        return False
    with store.writing() as connection:
        connection.executemany("DELETE FROM erasures WHERE profile = ?", [(profile,) for profile in marked])
    return True


def _erase(store: Store, pictures: PictureFolder, profile: int) -> None:
    """Rows and files. The files go before the transaction ends, while nobody else can take up one of the pictures."""
    with store.writing() as connection:
        connection.execute("PRAGMA secure_delete = ON")
        for (key,) in connection.execute("SELECT key FROM profiles WHERE id = ?", (profile,)).fetchall():
            # Of its Preference Rewards, which other rewards may hold.
            for table in ("scores", "calibrations"):
                connection.execute(f"DELETE FROM {table} WHERE instr(reward_id, ?)", (anonymous(key),))
        connection.execute("DELETE FROM profiles WHERE id = ?", (profile,))
        connection.execute("DELETE FROM prompts WHERE id NOT IN (SELECT prompt FROM questions)")
        # Those of questions too that were never kept, since their process was killed while it asked them.
        pictures.remove(remove_unused_pictures(connection))
