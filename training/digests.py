"""What files hold, in 64 hex digits: sha256, of which each file costs one reading until it changes.

Model files have gigabytes. Who waits for them may be told, and may stop it (`telling`); who has a store may keep the
digests from one session to the next (`keep_in`). A file counts as unchanged while it is the same file (its number in
the file system), of the same size, and neither of its times is another: copying tools set the time of the last change
back, but nobody sets the one at which the system last touched the file (on Windows, at which it was made).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol

Tell = Callable[[int, int], None]
# Resolved path; size in bytes, times of the last change of the content and of the file in nanoseconds, and the number
# of the file in the file system, any of which may need more than 64 bits.
Key = tuple[str, int, int, int, int]

# Smaller files are read again sooner than a store is asked.
WORTH_KEEPING = 16 << 20
_BLOCK = 16 << 20


class Kept(Protocol):
    """Digests that outlive the session. Neither method raises."""

    def find(self, key: Key) -> str | None: ...

    def remember(self, key: Key, digest: str) -> None: ...


_known: dict[Key, str] = {}
_kept: list[Kept] = []
_tell: ContextVar[Tell | None] = ContextVar("attune_tell_hashing", default=None)


def keep_in(kept: Kept | None) -> None:
    """Ask there for what this session has not read, and keep there what is new; None ends it."""
    _kept[:] = [kept] if kept is not None else []


@contextmanager
def telling(tell: Tell) -> Iterator[None]:
    """Within the block, `tell` is called with the bytes read and all bytes while files are read; it may raise."""
    token = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(token)


def file_digest(path: Path) -> str:
    """sha256 of a file's content, 64 hex digits."""
    return file_digests([path])[0]


def file_digests(paths: Sequence[Path]) -> list[str]:
    """`file_digest` of each, as one task for `telling`."""
    keys = [_key(path) for path in paths]
    for key in keys:
        if key not in _known and key[1] >= WORTH_KEEPING and (found := _recalled(key)):
            _known[key] = found
    unread = [key for key in dict.fromkeys(keys) if key not in _known]
    total, done = sum(size for _, size, *_ in unread), 0
    found = {key: _known[key] for key in keys if key in _known}
    for key in unread:
        found[key] = _read(key, done, total)
        done += key[1]
        if _unchanged(key):
            _known[key] = found[key]
            if key[1] >= WORTH_KEEPING:
                for kept in _kept:
                    kept.remember(key, found[key])
    return [found[key] for key in keys]


def _key(path: Path) -> Key:
    path = Path(path).resolve()
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _unchanged(key: Key) -> bool:
    """Whether nobody has written to the file, or taken it away, while it was read."""
    try:
        return _key(Path(key[0])) == key
    except OSError:
        return False


def _recalled(key: Key) -> str | None:
    return next((found for kept in _kept if (found := kept.find(key))), None)


def _read(key: Key, done: int, total: int) -> str:
    tell, digest = _tell.get(), hashlib.sha256()
    with open(key[0], "rb") as file:
        while block := file.read(_BLOCK):
            if tell:
                tell(min(done, total), total)
            digest.update(block)
            done += len(block)
    return digest.hexdigest()
