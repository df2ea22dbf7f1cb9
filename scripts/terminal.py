"""Words for the terminal: progress with times, and quiet commands that speak up when they fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

STARTED = time.monotonic()
QUIET_REPORT_SECONDS = 30


class SetupError(RuntimeError):
    """Something is missing on this machine; the message says what, and what to do next."""


def elapsed() -> str:
    seconds = int(time.monotonic() - STARTED)
    return f"[{seconds // 60:2d}:{seconds % 60:02d}]"


def say(text: str) -> None:
    """One line with the time since the start."""
    clear()
    print(f"{elapsed()} {text}", flush=True)


def interactive() -> bool:
    return sys.stdout.isatty()


def clear() -> None:
    if interactive():
        print("\r\x1b[K", end="", flush=True)


def status(text: str) -> None:
    """A line that the next one overwrites. Silent where the output is not a terminal."""
    if interactive():
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[K{f'{elapsed()} {text}'[:width]}", end="", flush=True)


def run_quietly(
    what: str,
    command: Sequence[str | os.PathLike[str]],
    *,
    log: Path,
    advice: str,
    variables: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run a command with its output in a log file, showing only that time passes.

    Raises:
        SetupError: the command failed; the message holds its last lines, the log's path and the advice.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    say(f"{what} …")
    began = time.monotonic()
    with log.open("w", encoding="utf-8", errors="replace") as output:
        try:
            process = subprocess.Popen(
                [os.fspath(part) for part in command],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=None if variables is None else dict(variables),
                cwd=cwd,
            )
        except OSError as error:
            raise SetupError(f"{what}: {command[0]} cannot be started: {error}. {advice}") from error
        finished = threading.Event()
        ticker = threading.Thread(target=_tick, args=(what, began, finished), daemon=True)
        ticker.start()
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            raise
        finally:
            finished.set()
            ticker.join()
            clear()
    if code != 0:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        tail = "\n".join(f"    {line}" for line in lines[-15:])
        raise SetupError(f"{what} failed (exit code {code}). Its last lines:\n{tail}\nAll of it: {log}\n{advice}")
    say(f"{what}: done in {time.monotonic() - began:.0f} s")


def _tick(what: str, began: float, finished: threading.Event) -> None:
    spoken = 0
    while not finished.wait(1):
        seconds = int(time.monotonic() - began)
        status(f"{what} … {seconds} s")
        if not interactive() and seconds // QUIET_REPORT_SECONDS > spoken:
            spoken = seconds // QUIET_REPORT_SECONDS
            say(f"{what} … {seconds} s")


def table(rows: Sequence[Sequence[str]], *, header: Sequence[str]) -> str:
    """Columns padded to their widest entry; the first is aligned left, the rest right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [cell.rjust(width) for cell, width in zip(row, widths)]  # noqa: B905 — equal by construction
        return "  ".join([row[0].ljust(widths[0]), *cells[1:]])

    return "\n".join([line(header), "  ".join("─" * width for width in widths), *(line(row) for row in rows)])
