"""Libraries that would go to the network or fill the log while they are imported or used."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def no_kernels() -> Iterator[None]:
    """For the first import of bitsandbytes, which peft imports too.

    On processors with 16-bit matrix instructions it fetches a kernel from the network while it is imported, by the
    package `kernels`, and complains if that is missing. Here that package cannot be imported for the moment: nothing is
    ever downloaded.
    """
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level, absent = log.level, object()
    found = sys.modules.get("kernels", absent)
    log.setLevel(logging.ERROR)
    sys.modules["kernels"] = None  # type: ignore[assignment] — what import takes for "not installed"
    try:
        yield
    finally:
        log.setLevel(level)
        if found is absent:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = found


@contextmanager
def quiet_transformers(library: Any) -> Iterator[None]:
    """No progress bars of weights and no advice in the log while `transformers` loads something."""
    words = library.utils.logging
    bars, verbosity = words.is_progress_bar_enabled(), words.get_verbosity()
    words.disable_progress_bar()
    words.set_verbosity_error()
    try:
        yield
    finally:
        words.set_verbosity(verbosity)
        if bars:
            words.enable_progress_bar()
