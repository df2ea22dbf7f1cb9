"""Scores that outlive the session: the disk tier behind the cache, in the pack's store.

A row is found by a digest of (reward id, picture hash, prompt): a prompt can be tested against the store, not read from
it. The rows that were used longest ago are dropped beyond the limit.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ..store import Store, StoreError

log = logging.getLogger("attune")

Key = tuple[str, str, str]
T = TypeVar("T")

# Part of every key. Raised when earlier scores are not to be found any more though the rewards are the same: those of
# version 1 may be of training runs in 16 bit, which rounded them. Calibrations name rewards, and stay as they are.
SCORES_VERSION = 2
# SQLite takes at least 999 values per query.
_KEYS_PER_QUERY = 500
# Rows are marked as used at most once a day: finding scores again then costs no write.
_DAY = 24 * 60 * 60
# After a failure the disk is left alone for so many seconds, so that scoring does not wait for it batch after batch.
PAUSE = 60.0
# Dropping goes this far below the limit, so that it is not needed again at the next row.
_KEPT_SHARE = 0.95


def key_digest(key: Key) -> bytes:
    """16 bytes that stand for a score's reward id, picture hash and prompt, and for the version of what is kept."""
    digest = hashlib.blake2b(digest_size=16, person=f"scores {SCORES_VERSION}".encode())
    for part in key:
        content = part.encode("utf-8", "surrogatepass")
        # With its length, or ("ab", "c") and ("a", "bc") would be one.
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.digest()


class KeptScores:
    """Scores on disk by (reward id, picture hash, prompt). Never raises for a disk that fails: it then knows nothing.

    Args:
        store: the pack's store.
        limit: how many scores are kept; one takes about 150 bytes.
    """

    def __init__(self, store: Store, limit: int = 1_000_000) -> None:
        self.store = store
        self.limit = limit
        self._count: int | None = None
        self._uncounted = 0
        self._warned = False
        self._resume = 0.0

    def find(self, keys: Iterable[Key]) -> dict[Key, float]:
        """The scores that are known among `keys`; those are marked as used today."""
        wanted = {key_digest(key): key for key in keys}
        found = self._guarded(lambda: self._find(list(wanted)), {}) if wanted else {}
        return {wanted[digest]: score for digest, score in found.items()}

    def remember(self, scores: dict[Key, float]) -> None:
        """Keep scores, in one transaction, and drop the oldest beyond the limit."""
        if scores:
            self._guarded(lambda: self._remember(scores), None)

    def _find(self, digests: Sequence[bytes]) -> dict[bytes, float]:
        found, old, now = {}, [], int(time.time())
        with self.store.reading() as connection:
            for start in range(0, len(digests), _KEYS_PER_QUERY):
                part = digests[start : start + _KEYS_PER_QUERY]
                marks = ", ".join("?" * len(part))
                query = f"SELECT key, score, last_used FROM scores WHERE key IN ({marks})"
                for key, score, last_used in connection.execute(query, part):
                    found[key] = score
                    if last_used < now - _DAY:
                        old.append((now, key))
        if old:
            with self.store.writing(durable=False) as connection:
                connection.executemany("UPDATE scores SET last_used = ? WHERE key = ?", old)
        return found

    def _remember(self, scores: dict[Key, float]) -> None:
        now = int(time.time())
        rows = [(key_digest(key), key[0], score, now) for key, score in scores.items()]
        with self.store.writing(durable=False) as connection:
            connection.executemany(
                "INSERT INTO scores (key, reward_id, score, last_used) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET score = excluded.score, last_used = excluded.last_used",
                rows,
            )
            self._uncounted += len(rows)
            # Counting a million rows takes a while, and another process may have added some: now and then is enough.
            if self._count is None or self._count + self._uncounted > self.limit:
                (self._count,) = connection.execute("SELECT COUNT(*) FROM scores").fetchone()
                self._uncounted = 0
                excess = self._count - int(self.limit * _KEPT_SHARE) if self._count > self.limit else 0
                if excess:
                    connection.execute(
                        "DELETE FROM scores WHERE key IN (SELECT key FROM scores ORDER BY last_used LIMIT ?)", (excess,)
                    )
                    self._count -= excess

    def _guarded(self, work: Callable[[], T], otherwise: T) -> T:
        """A score is worth more than its memory: whatever the disk says, scoring goes on."""
        if time.monotonic() < self._resume:
            return otherwise
        try:
            return work()
        except StoreError as error:
            self._resume = time.monotonic() + PAUSE
            # The transaction was undone, so that the count is no longer known.
            self._count = None
            if not self._warned:
                self._warned = True
                log.warning("Attune: scores are remembered until ComfyUI ends, but not on disk: %s", error)
            return otherwise
