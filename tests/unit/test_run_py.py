"""The command line of `run.py`, as far as it sets nothing up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from attune.training.__main__ import JOBS


def run(repository: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: run.py finds `scripts` beside itself, which no test may."""
    command = [sys.executable, str(repository / "run.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)


def parsed(repository: Path, *words: str) -> list:
    """What run.py makes of its arguments: [those it knows, the rest]."""
    code = f"import json, run; known, rest = run.parse({list(words)!r}); print(json.dumps([vars(known), rest]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repository, check=True)
    return json.loads(done.stdout)


def test_the_help_of_train_names_every_job_and_what_it_does(repository: Path):
    done = run(repository, "train", "--help")
    assert done.returncode == 0
    # Lines are broken at hyphens too.
    text = "".join(done.stdout.split())
    assert "run.pytrainJOB--help" in text
    for name, (_, what) in JOBS.items():
        assert "".join(f"{name}: {what}".split()) in text


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("--minutes", "3")])
def test_what_follows_a_job_is_for_the_job(repository: Path, words: tuple[str, ...]):
    known, rest = parsed(repository, "train", "demo-model", *words)
    assert (known["job"], rest) == ("demo-model", list(words))


@pytest.mark.parametrize("command", ["demo", "test", "serve", "evidence"])
def test_every_other_command_has_its_own_help(repository: Path, command: str):
    done = run(repository, command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: run.py {command}")
    # Where everything computes on the CPU, an option that asks for it would do nothing.
    assert ("--cpu" in done.stdout) == (command in {"demo", "serve"})


def test_a_command_that_knows_no_more_words_says_which(repository: Path):
    done = run(repository, "evidence", "import-time", "--cpu")
    assert done.returncode == 2
    assert "evidence does not know: --cpu" in done.stderr


# A job that is told to end, which takes it a while; and `run.py` waiting for it.
SAVING = """
import signal, sys, time
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
signal.signal(signal.SIGINT, lambda *_: told.append(2))
print("at work", flush=True)
while not told:
    time.sleep(0.01)
time.sleep(0.5)
print("saved", sum(told), flush=True)
sys.exit(7)
"""
WAITING = f"""
import signal, subprocess, sys, run
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
sys.exit(run.wait_for(subprocess.Popen([sys.executable, "-c", {SAVING!r}])))
"""


@pytest.mark.needs_system("posix", "Windows has no signal that asks a process to end")
@pytest.mark.parametrize(("kind", "everybody", "code"), [("SIGTERM", False, 143), ("SIGINT", True, 7)])
def test_a_job_saves_its_work_when_its_command_is_told_to_end(repository: Path, kind: str, everybody: bool, code: int):
    """SIGTERM reaches the command alone, Ctrl-C all of a terminal; the job hears of either once."""
    command = [sys.executable, "-c", WAITING]
    told = {"stdout": subprocess.PIPE, "text": True, "cwd": repository, "start_new_session": True}
    with subprocess.Popen(command, **told) as waiting:
        assert waiting.stdout.readline() == "at work\n"
        (os.killpg if everybody else os.kill)(waiting.pid, getattr(signal, kind))
        assert waiting.stdout.read() == f"saved {2 if everybody else 1}\n"
        assert waiting.wait() == code
