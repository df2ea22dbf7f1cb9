"""One at a time in a run's folder: a lock that the system takes back when its holder ends, however it ends.

Two runs of one name would replace each other's states, and each would go on with a mixture of both.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .interfaces import TrainingError
from .share import ALONE, Share

log = logging.getLogger(__name__)

# Never deleted: whoever has just opened it would lock a file that nobody else sees any more.
FILE_NAME = "run.lock"
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}


@contextmanager
def only_one(folder: Path | None, share: Share = ALONE, *, make: bool = True) -> Iterator[None]:
    """Inside, nobody else gets in for the same folder: no other program, and no other run of this one.

    Some network drives know no locks. There it goes on without one, and says so in the log.

    Args:
        folder: of the run; None = nothing to lock.
        share: the lock is the first process's; none gets in without it.
        make: make the folder if there is none; else one that is not there is free.

    Raises:
        TrainingError: somebody else is inside.
    """
    if folder is None:
        yield
        return
    file, held = _locked(folder, make=make) if share.main else (None, False)
    try:
        if share.any(held):
            raise TrainingError(
                f"Another program is training {folder.name!r} at this moment, in {folder}. Wait until it is done, or "
                f"choose another run name."
            )
        yield
    finally:
        if file is not None:
            with contextlib.suppress(OSError):
                _unlock(file)
            file.close()


def check_free(folder: Path, share: Share = ALONE) -> None:
    """Find out before anything is loaded that the run will not get into its folder; see `only_one`."""
    with only_one(folder, share, make=False):
        pass


def _locked(folder: Path, *, make: bool) -> tuple[IO[bytes] | None, bool]:
    """The locked file, None where there is no lock to be had, and whether that is because somebody else holds it."""
    if not make and not folder.is_dir():
        return None, False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / FILE_NAME).open("ab")
    except OSError:
        return None, False  # the first state cannot be written either, which says what to do
    try:
        _lock(file)
    except OSError as error:
        file.close()
        if error.errno in _HELD:
            return None, True
        log.warning("Attune: %s cannot be locked (%s): nothing keeps two runs of this name apart", folder, error)
        return None, False
    return file, False


# Both belong to the opened file, not to the process: a second run in the same process is kept out too.
if os.name == "nt":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

    def _unlock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
