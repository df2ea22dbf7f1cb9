"""import-time: what the pack adds to the host's start, as the host's own log says it.

Every repetition is a fresh start of the real host in empty folders, with the pack's modules compiled, as Python keeps
them from the first start on; what the first start takes, which compiles them, is in the details. The host prints tenths
of a second.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from ...scripts.environment import Environment
from ..hosting import HostServer, comfyui_folder
from .record import ROOT, Claim, Stopwatch, bootstrap, record

CLAIM = Claim("import-time", 0.3, "<=", "s", "import of the pack in the host's own log, once compiled")
STARTS, QUICK_STARTS = 7, 2


def import_seconds(log: str) -> float:
    """The pack's line under "Import times for custom nodes:"."""
    found = re.findall(r"([\d.]+) seconds(.*): .*ComfyUI-Attune$", log, re.MULTILINE)
    if len(found) != 1 or "FAILED" in found[0][1]:
        raise RuntimeError(f"The pack was not imported: {found}. The log:\n{log[-2000:]}")
    return float(found[0][0])


def main(quick: bool) -> None:
    watch = Stopwatch()
    folder = comfyui_folder()
    environment = Environment(Path(sys.executable), folder, own=folder.parent.name == ".host")
    for kept in (file for name in ("nodes", "training") for file in (ROOT / name).rglob("*.pyc")):
        kept.unlink()
    seconds = []
    for number in range(1 + (QUICK_STARTS if quick else STARTS)):
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as base,
            HostServer(environment, Path(base), force_cpu=True) as server,
        ):
            seconds.append(import_seconds(server.log()))
        print(f"start {number}{'' if number else ', which compiles'}: {seconds[-1]:.1f} s")
    first = seconds.pop(0)
    # The mean, and as an interval that of the mean: the worst start is in the details.
    value = sum(seconds) / len(seconds)
    details = {"each": seconds, "worst": max(seconds), "first start": first, "resolution": 0.1}
    record(
        CLAIM,
        value,
        ci=bootstrap(seconds),
        seeds=len(seconds),
        seconds=watch.seconds,
        quick=quick,
        samples=seconds,
        details=details,
    )
