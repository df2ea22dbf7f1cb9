"""The one rule about operating systems: a test that not every system can pass is marked with what it needs, and why.

    @pytest.mark.needs_system("posix", "Windows has no permission bits")

Where the system fits the mark does nothing: on Linux every test runs, and one that cannot is a failure. Elsewhere the
test is reported as not applicable, which is no failure. Any other skip is one under CI (see conftest.py).
"""

from __future__ import annotations

import os
import sys

SYSTEMS = ("linux", "posix")
NOT_APPLICABLE = "not applicable on "


def not_applicable(system: str, why: str, *, platform: str = sys.platform, family: str = os.name) -> str:
    """The words with which a test that needs `system` is left out here, "" if it is not.

    Raises:
        ValueError: there is no such system in `SYSTEMS`.
    """
    if system not in SYSTEMS:
        raise ValueError(f"There is no system {system!r}; choose one of: {', '.join(SYSTEMS)}.")
    fits = platform == "linux" if system == "linux" else family == "posix"
    return "" if fits else f"{NOT_APPLICABLE}{platform}: {why}"
