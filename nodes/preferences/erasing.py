"""Deleting a profile so that no byte of it is left, whatever comes in between.

First the profile is marked (one transaction; from here on nobody sees it). Then its rows and the picture files that
nobody else uses go, and at last the database is written anew and its log emptied, since SQLite keeps copies of deleted
rows in both. A kill on the way is made good at the next start: the mark stays until all is done.

Pictures of questions that were never kept go in the same way: a process may be killed while it asks, and a profile may
be deleted while pictures of its questions are being written.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Collection, Iterable

from ..store import Store, StoreError
from .pictures import PictureFolder
from .records import Picture, PreferenceError, anonymous
from .rows import any_unused_picture, drop_oldest_waiting, insert_pictures, picture_ids, remove_unused_pictures

log = logging.getLogger("attune")


def mark(store: Store, profile: int) -> None:
    """Begin to delete a profile: it is gone for everybody."""
    with store.writing() as connection:
        connection.execute("INSERT OR IGNORE INTO erasures (profile) VALUES (?)", (profile,))
        # The name is free again at once.
        connection.execute("UPDATE profiles SET name = '', folded = key WHERE id = ?", (profile,))


def finish(store: Store, pictures: PictureFolder) -> str:
    """Carry through every deletion that was begun, and remove the pictures of questions that were never kept.

    Returns:
        Why bytes of what was deleted are still there, in words; they go at the next start or deletion. "" = none are.

    Raises:
        StoreError: the store cannot be read or written.
    """
    with store.reading() as connection:
        marked = [id for (id,) in connection.execute("SELECT profile FROM erasures")]
        if not marked and not any_unused_picture(connection):
            return ""
    try:
        for profile in marked:
            _erase(store, pictures, profile)
        with store.writing() as connection:
            connection.execute("PRAGMA secure_delete = ON")
            pictures.remove(remove_unused_pictures(connection))
        if not (pictures.tidy() and store.scrub()):
            return "Another program is using Attune's database or one of the pictures."
    except (StoreError, PreferenceError) as error:
        log.warning("Attune: bytes of a deleted profile are still there: %s", error)
        return str(error)
    with store.writing() as connection:
        connection.executemany("DELETE FROM erasures WHERE profile = ?", [(profile,) for profile in marked])
    return ""


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
        pictures.remove(remove_unused_pictures(connection))


def drop_unused(store: Store, pictures: PictureFolder, written: Collection[Picture]) -> None:
    """Remove those of the pictures that no question shows, rows and files.

    What cannot be removed now is logged, and goes at the next start.
    """
    try:
        with store.writing() as connection:
            # A deletion may have removed a row before its file was written: a file without a row would stay for good.
            insert_pictures(connection, [picture for picture in written if pictures.holds(picture.hash)])
        with store.writing() as connection:
            connection.execute("PRAGMA secure_delete = ON")
            removed = remove_unused_pictures(connection, picture_ids(connection, written))
            pictures.remove(removed)
        if removed:
            store.scrub()
    except (StoreError, PreferenceError) as error:
        log.warning("Attune: pictures of a deleted profile are still there: %s", error)


def forget_oldest(
    connection: sqlite3.Connection, pictures: PictureFolder, profile: int, most: int, keep: Iterable[str]
) -> None:  # fmt: skip
    """Forget what has waited longest, beyond `most`, and its pictures; see `rows.drop_oldest_waiting`.

    If a file cannot be deleted, all stays as it is until the profile's next question: a file that no row names would
    never go.
    """
    connection.execute("SAVEPOINT forgetting")
    try:
        pictures.remove(drop_oldest_waiting(connection, profile, most, keep))
    except PreferenceError as error:
        connection.execute("ROLLBACK TO forgetting")
        log.warning("Attune: questions that have waited too long are not forgotten yet: %s", error)
    connection.execute("RELEASE forgetting")
