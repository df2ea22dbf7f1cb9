"""What the pack keeps for the user, in one SQLite file that all families share.

    store = shared_store(user_folder() / FILE_NAME)
    with store.reading() as connection: rows = connection.execute("SELECT …", values).fetchall()
    with store.writing() as connection: connection.execute("INSERT …", values)

A `writing` block is one transaction: all of it is kept or, after an error or a kill, none of it. Any thread may use a
store, and several processes may use one file. Nothing is opened before it is needed. Knows no host: the path is given.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..training.interfaces import AttuneError
from .migrations import MIGRATIONS, Step

log = logging.getLogger("attune")

FILE_NAME = "attune.sqlite3"
# How long one process waits for another that is writing, in seconds.
PATIENCE = 5.0
_PAUSE = 0.02


class StoreError(AttuneError):
    """The store cannot be opened, read or written; nothing was changed. Says which file and what to do."""


class Store:
    """One SQLite file: write-ahead log, foreign keys enforced, schema brought up to date when it is opened.

    Args:
        path: the file; it and its folder are made when first needed.
        migrations: the steps of the schema, oldest first; see `migrations.py`.
        patience: seconds to wait for another process that is writing.
    """

    def __init__(self, path: Path, migrations: Sequence[Step] = MIGRATIONS, *, patience: float = PATIENCE) -> None:
        self.path = Path(path)
        self.migrations = tuple(migrations)
        self.patience = patience
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._writing = False

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for queries; other threads wait until the block ends, so fetch what is needed and leave.

        Raises:
            StoreError: the file cannot be opened or read.
        """
        with self._lock, self._explained():
            yield self._open()

    @contextlib.contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction: committed where the block ends, undone where it raises. Blocks do not nest.

        Args:
            durable: wait until the disk has it, so that not even a power cut can take it back. Without, a power cut may
                lose the newest transactions as a whole, and the file stays sound: for what can be computed again.

        Raises:
            StoreError: the file cannot be opened or written, or another process kept it busy.
        """
        with self._lock, self._explained():
            if self._writing:
                raise RuntimeError("A writing block inside another one would end that one's transaction.")
            connection = self._open()
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._writing = True
            try:
                with _transaction(connection):
                    yield connection
            finally:
                self._writing = False

    def scrub(self) -> bool:
        """Write the file anew and empty its log, so that nothing of what was deleted can be read in their bytes.

        SQLite's secure_delete alone does not do that: pages that were split keep copies of rows. Takes time with the
        size of the file.

        Returns:
            Whether the log is empty too; another program that is reading keeps it.

        Raises:
            StoreError: the file cannot be written, or another program kept it busy; deleted bytes may still be there.
        """
        with self._lock, self._explained():
            if self._writing:
                raise RuntimeError("The file cannot be written anew in the middle of a transaction.")
            connection = self._open()
            connection.execute("VACUUM")
            deadline = time.monotonic() + self.patience
            while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                if time.monotonic() > deadline:
                    return False
                time.sleep(_PAUSE)
            return True

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    # ---- opening ----

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and not self._writing and self._file != self._identity():
            # The user has moved or deleted the file: going on would write into what nobody sees any more.
            self.close()
        if self._connection is None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(self._words(error)) from error
            connection = sqlite3.connect(
                self.path, timeout=self.patience, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(connection)
                identity = self._identity()
            except BaseException:
                connection.close()
                raise
            weakref.finalize(self, connection.close)
            self._connection, self._file = connection, identity
        return self._connection

    def _identity(self) -> tuple[int, int] | None:
        """Which file the path names now; None where there is none.

        Raises:
            StoreError: the path cannot be followed, for example since its folder is locked or has become a file.
        """
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(self._words(error)) from error
        return status.st_dev, status.st_ino

    def _prepare(self, connection: sqlite3.Connection) -> None:
        self._check_version(_version(connection))
        self._use_log(connection)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        for number in range(_version(connection), len(self.migrations)):
            with _transaction(connection):
                # Another process may have been here since.
                if _version(connection) == number:
                    for statement in self.migrations[number]:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {number + 1}")
        self._check_version(_version(connection))

    def _use_log(self, connection: sqlite3.Connection) -> None:
        """Switch to the write-ahead log: readers and a writer do not wait for each other."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
                break
            except sqlite3.OperationalError as error:
                # Two processes that switch a new file at once: SQLite refuses one of them without waiting.
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE)
        if mode != "wal":
            log.debug("Attune: %s keeps the journal mode %r; some network drives allow no other.", self.path, mode)

    def _check_version(self, version: int) -> None:
        if version > len(self.migrations):
            raise StoreError(
                f"{self.path} was written by a newer version of Attune (its schema is {version}, this version knows "
                f"{len(self.migrations)}). Nothing was changed. Update Attune, or move that file to another place to "
                "begin a new one."
            )

    # ---- errors ----

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """What SQLite says, in words that help. Mistakes of the pack itself pass as they are."""
        try:
            yield
        except sqlite3.Error as error:
            if isinstance(error, (sqlite3.ProgrammingError, sqlite3.IntegrityError)):
                raise
            raise StoreError(self._words(error)) from error

    def _words(self, error: Exception) -> str:
        # The system's words alone: the whole message names the path, which may have "full" or "busy" in it.
        said = (error.strerror if isinstance(error, OSError) else None) or str(error)
        if "locked" in said or "busy" in said:
            return (
                f"{self.path} is being written by another program, which has not finished within {self.patience:g} s. "
                "Close the other ComfyUI that uses it, or try again."
            )
        if "not a database" in said or "malformed" in said or "corrupt" in said:
            return (
                f"{self.path} is damaged ({said}). Stop ComfyUI, then move that file away, together with those of the "
                "same name that end in -wal and -shm, or put a backup in its place. Without it Attune begins a new one."
            )
        if "full" in said or "No space" in said:
            return f"{self.path} could not be written: the disk is full. Free some space, then try again."
        return (
            f"{self.path} cannot be opened or written ({said}). Make the folder {self.path.parent} and the files in it "
            "writable for the user that runs ComfyUI, then try again."
        )


def _version(connection: sqlite3.Connection) -> int:
    return connection.execute("PRAGMA user_version").fetchone()[0]


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    # IMMEDIATE: a transaction that begins as a reader cannot wait for another writer when it wants to write.
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite may have undone it already, for example on a full disk.
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


_stores: dict[Path, Store] = {}
_stores_lock = threading.Lock()


def shared_store(path: Path) -> Store:
    """The one `Store` of this process for that file, so that families do not wait for each other's connections."""
    with _stores_lock:
        return _stores.setdefault(Path(path).resolve(), Store(Path(path)))
