"""train-speed: our supervised LoRA step against the host's own TrainLoraNode.

One run, one machine, turn by turn: the same demo checkpoint loaded by the host, the same latents and captions, the same
rank, batch, learning rate, fp32, gradient checkpointing off in both (both have it as an option; the table of attempts
also has the host's default, on). Every trial is a fresh process that reports the median seconds per update after a
warm-up and its peak resident memory. Ours adapts every linear and convolution layer here, as the host's does (the
host's also learns a difference of every norm and bias).

The figure is host seconds / our seconds, the median over pairs of trials.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .record import ROOT, Claim, Stopwatch, bootstrap, record

SPEED = Claim("train-speed", 1.5, ">=", "×", "our supervised LoRA step against the host's own TrainLoraNode")
MEMORY = Claim("train-speed.memory", 1.0, "<=", "×", "our peak memory against the host's TrainLoraNode")
RANK, RATE = 8, 1e-4


def trial(who: str, *, batch: int, updates: int, checkpointing: bool, seed: int) -> dict[str, float]:
    """Run one trial in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "who": who, "batch": batch, "updates": updates, "checkpointing": checkpointing, "seed": seed,
            "base": folder, "comfyui": os.environ.get("ATTUNE_COMFYUI") or str(ROOT / ".host" / "ComfyUI"),
        }  # fmt: skip
        driver = Path(__file__).with_name("_train_speed_trial.py")
        done = subprocess.run(
            [sys.executable, str(driver), json.dumps(settings)], capture_output=True, text=True, timeout=1800
        )
        if done.returncode:
            raise RuntimeError(f"The trial of {who} failed:\n{(done.stdout + done.stderr)[-3000:]}")
        return json.loads(done.stdout.strip().splitlines()[-1])


def main(quick: bool) -> None:
    watch = Stopwatch()
    pairs, updates, batch = (2, 6, 2) if quick else (5, 30, 4)
    ratios: list[float] = []
    memory: list[float] = []
    rows: list[dict[str, Any]] = []
    for seed in range(pairs):
        results = {}
        for who in ("host", "ours") if seed % 2 == 0 else ("ours", "host"):
            results[who] = trial(who, batch=batch, updates=updates, checkpointing=False, seed=seed)
        ratios.append(results["host"]["seconds"] / results["ours"]["seconds"])
        memory.append(results["ours"]["peak_bytes"] / results["host"]["peak_bytes"])
        rows.append({"seed": seed, **{f"{who}.{key}": v for who, r in results.items() for key, v in r.items()}})
        print(f"pair {seed + 1}: {ratios[-1]:.2f}× as fast, {memory[-1]:.2f}× the memory", flush=True)
    attempts = [{"what": f"batch {batch}, no checkpointing, pair {i + 1}", "value": r} for i, r in enumerate(ratios)]
    for other_batch, checkpointing in ((1, False), (batch, True)):
        pair = {
            who: trial(who, batch=other_batch, updates=updates, checkpointing=checkpointing, seed=0)["seconds"]
            for who in ("host", "ours")
        }
        note = "the host's default gradient checkpointing (ours has none here)" if checkpointing else "no checkpointing"
        attempts.append({"what": f"batch {other_batch}, {note}", "value": pair["host"] / pair["ours"]})
    details = {"trials": rows, "rank": RANK, "batch": batch, "updates": updates, "dtype": "float32"}
    for claim, values in ((SPEED, ratios), (MEMORY, memory)):
        record(
            claim, statistics.median(values), ci=bootstrap(values, statistics.median), seeds=pairs,
            seconds=watch.seconds, quick=quick, samples=values, attempts=attempts if claim is SPEED else [],
            details=details,
        )  # fmt: skip
