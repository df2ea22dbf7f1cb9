"""Digests of model files that outlive the session, in the pack's store: a restart does not read gigabytes again."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable
from typing import TypeVar

from ...training.digests import Key
from ..store import Store, StoreError
from .kept_scores import PAUSE

log = logging.getLogger("attune")

LIMIT = 4096
_DIGEST = re.compile(r"[0-9a-f]{64}")
T = TypeVar("T")


class KeptDigests:
    """Digests on disk by path, number, size and times of a file. Never raises for a disk that fails: it then knows
    nothing.

    Args:
        store: the pack's store. It holds a digest of the path, not the path.
        limit: how many are kept; the ones found or made longest ago go first.
    """

    def __init__(self, store: Store, limit: int = LIMIT) -> None:
        self.store, self.limit = store, limit
        self._resume = 0.0

    def find(self, key: Key) -> str | None:
        """The digest of that file as it is; a row that holds none, in a damaged store, is as good as no row."""
        found = self._guarded(lambda: self._find(key))
        if found is None or not _DIGEST.fullmatch(found):
            return None
        self._guarded(lambda: self._use(key))
        return found

    def remember(self, key: Key, digest: str) -> None:
        """Keep it, in the place of what was known of that path."""
        self._guarded(lambda: self._remember(key, digest))

    def _find(self, key: Key) -> str | None:
        with self.store.reading() as connection:
            row = connection.execute(
                "SELECT digest FROM file_digests WHERE path = ? AND state = ?", (_name(key), _state(key))
            ).fetchone()
        return str(row[0]) if row else None

    def _use(self, key: Key) -> None:
        # Once per session and file: the session knows it then by itself.
        with self.store.writing(durable=False) as connection:
            connection.execute("UPDATE file_digests SET last_used = ? WHERE path = ?", (time.time_ns(), _name(key)))

    def _remember(self, key: Key, digest: str) -> None:
        with self.store.writing(durable=False) as connection:
            connection.execute(
                "INSERT INTO file_digests (path, state, digest, last_used) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (path) DO UPDATE SET state = excluded.state, digest = excluded.digest, "
                "last_used = excluded.last_used",
                (_name(key), _state(key), digest, time.time_ns()),
            )
            connection.execute(
                "DELETE FROM file_digests WHERE path NOT IN "
                "(SELECT path FROM file_digests ORDER BY last_used DESC LIMIT ?)",
                (self.limit,),
            )

    def _guarded(self, work: Callable[[], T]) -> T | None:
        """A model is loaded whatever the disk says; after a failure nobody waits for it again, file after file."""
        if time.monotonic() < self._resume:
            return None
        try:
            return work()
        except StoreError as error:
            self._resume = time.monotonic() + PAUSE
            log.debug("Attune: digests of files are neither found nor kept on disk: %s", error)
            return None


def _name(key: Key) -> bytes:
    return hashlib.blake2b(key[0].encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _state(key: Key) -> str:
    return " ".join(map(str, key[1:]))
