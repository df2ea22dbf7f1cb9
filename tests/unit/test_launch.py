"""Several processes of one job: they save when their launcher is told to end, and it adds no traceback of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

# A job; it needs a moment to save, and says in words why it fails.
JOB = """
import os, signal, sys, time
told = []
for kind in (signal.SIGINT, signal.SIGTERM):
    signal.signal(kind, lambda *_: told.append(1))
if sys.argv[1] == "fail":
    print("no such run", file=sys.stderr)
    sys.exit(3)
os.write(1, b"at work\\n")  # in one piece: both write at once
while not told:
    time.sleep(0.01)
time.sleep(0.5)
os.write(1, f"saved {len(told)}\\n".encode())
sys.exit(130)
"""


def launched(repository: Path, folder: Path, word: str) -> subprocess.Popen[str]:
    (folder / "job.py").write_text(JOB, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    options += ["--multi_gpu", "--main_process_port", str(port)]
    command: list[object] = [sys.executable, repository / "scripts" / "module.py", "attune.training.launch", *options]
    command += [folder / "job.py", word]
    pipe, variables = subprocess.PIPE, os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([str(part) for part in command], stdout=pipe, stderr=pipe, text=True, env=variables)


@pytest.mark.needs_system("posix", "Windows has no signal that asks a process to end")
@pytest.mark.parametrize(("kind", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_both_processes_save_and_nothing_looks_like_a_failure(repository: Path, tmp_path: Path, kind: str, code: int):
    with launched(repository, tmp_path, "work") as process:
        begun = [process.stdout.readline() for _ in range(2)]
        process.send_signal(getattr(signal, kind))
        told, errors = process.communicate()
    assert begun == ["at work\n"] * 2
    assert told == "saved 1\n" * 2
    assert process.returncode == code
    assert "Traceback" not in errors


def test_a_process_that_fails_says_why_and_the_launcher_only_repeats_its_code(repository: Path, tmp_path: Path):
    with launched(repository, tmp_path, "fail") as process:
        _, errors = process.communicate()
    assert process.returncode == 3
    assert "no such run" in errors and "Traceback" not in errors
