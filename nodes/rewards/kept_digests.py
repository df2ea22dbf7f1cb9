"""Digests of model files that outlive the session, in the pack's store: a restart does not read gigabytes again."""

from __future__ import annotations

import hashlib
import logging
import time

from ...training.digests import Key
from ..store import Store, StoreError

log = logging.getLogger("attune")

LIMIT = 4096


class KeptDigests:
    """Digests on disk by path, size and time of a file. Never raises for a disk that fails: it then knows nothing.

    Args:
        store: the pack's store. It holds a digest of the path, not the path.
        limit: how many are kept; the ones found or made longest ago go first.
    """

    def __init__(self, store: Store, limit: int = LIMIT) -> None:
        self.store, self.limit = store, limit

    def find(self, key: Key) -> str | None:
        path, size, modified = key
        try:
            with self.store.reading() as connection:
                row = connection.execute(
                    "SELECT digest FROM file_digests WHERE path = ? AND size = ? AND modified = ?",
                    (_name(path), size, modified),
                ).fetchone()
        except StoreError as error:
            log.debug("Attune: digests of files are not found on disk: %s", error)
            return None
        return row[0] if row else None

    def remember(self, key: Key, digest: str) -> None:
        """Keep it, in the place of what was known of that path."""
        path, size, modified = key
        try:
            with self.store.writing(durable=False) as connection:
                connection.execute(
                    "INSERT INTO file_digests (path, size, modified, digest, made) VALUES (?, ?, ?, ?, ?) "
                    "ON CONFLICT (path) DO UPDATE SET size = excluded.size, modified = excluded.modified, "
                    "digest = excluded.digest, made = excluded.made",
                    (_name(path), size, modified, digest, time.time_ns()),
                )
                connection.execute(
                    "DELETE FROM file_digests WHERE path NOT IN "
                    "(SELECT path FROM file_digests ORDER BY made DESC LIMIT ?)",
                    (self.limit,),
                )
        except StoreError as error:
            log.debug("Attune: digests of files are not kept on disk: %s", error)


def _name(path: str) -> bytes:
    return hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=16).digest()
