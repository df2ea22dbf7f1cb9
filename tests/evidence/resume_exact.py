"""resume-exact: a run that is killed and resumed ends with the very weights of the uninterrupted one.

The run is DDPO on the demo model on the CPU with everything on that has a state: rollouts used for one and a half
updates, a buffer of rewards, gradient accumulation, warm-up, a running average, adapter dropout. It is killed
(SIGKILL, no chance to tidy up) at a random moment, 20 times anew, resumed in a fresh process, and its LoRA compared
bit by bit.
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from .record import Claim, Stopwatch, record

CLAIM = Claim("resume-exact", 20, ">=", "of 20", "killed at random moments and resumed: final weights bit-equal")
QUICK = Claim("resume-exact", 2, ">=", "of 2", CLAIM.what)
UPDATES = 10
# States are saved now and then, so that a kill loses updates, which the resumed run must play again alike.
RUN = {"updates": UPDATES, "checkpoint_seconds": 1.5}


def start(folder: Path) -> subprocess.Popen[str]:
    """Start (or resume) the run in `folder`; it prints one line per update."""
    trial = Path(__file__).with_name("_resume_trial.py")
    return subprocess.Popen(
        [sys.executable, str(trial), json.dumps({"folder": str(folder)} | RUN)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(folder: Path) -> tuple[str, float]:
    """Run to the end; returns a hash of the final LoRA and the seconds between updates.

    Raises:
        RuntimeError: the run failed; with its output.
    """
    process, lines, moments = start(folder), [], []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("update"):
            moments.append(time.monotonic())
    if process.wait():
        raise RuntimeError("The run failed:\n" + "".join(lines[-40:]))
    digest = hashlib.sha256((folder / "final.safetensors").read_bytes()).hexdigest()
    return digest, (moments[-1] - moments[0]) / max(1, len(moments) - 1)


def kill(folder: Path, *, after_update: int, delay: float) -> bool:
    """Start, wait for that update and `delay` seconds more, kill. False if the run ended before."""
    process = start(folder)
    for line in process.stdout:
        if line.startswith(f"update {after_update}"):
            break
    # What the child goes on writing must not fill the pipe and stop it.
    threading.Thread(target=process.stdout.read, daemon=True).start()
    time.sleep(delay)
    alive = process.poll() is None
    process.kill()
    process.wait()
    return alive


def main(quick: bool) -> None:
    watch, claim = Stopwatch(), QUICK if quick else CLAIM
    trials, generator = int(claim.goal), random.Random(0)
    with tempfile.TemporaryDirectory() as base:
        reference, pace = finish(Path(base) / "reference")
        rows = []
        for number in range(trials):
            folder = Path(base) / f"trial{number}"
            point = {"after_update": generator.randrange(0, UPDATES - 1), "delay": generator.random() * pace}
            while not kill(folder, **point):  # it was too fast to be killed: nothing was shown, so again
                point = {"after_update": generator.randrange(0, UPDATES - 1), "delay": generator.random() * pace}
            digest, _ = finish(folder)
            rows.append({**point, "equal": digest == reference})
            print(f"trial {number + 1}: killed {point['delay']:.2f} s after update {point['after_update']}: "
                  f"{'equal' if rows[-1]['equal'] else 'DIFFERENT'}", flush=True)  # fmt: skip
    record(
        claim,
        sum(row["equal"] for row in rows),
        ci=None,
        seeds=trials,
        seconds=watch.seconds,
        quick=quick,
        details={"trials": rows, "updates": UPDATES, "seconds_per_update": pace},
    )
