"""sd15-full-size: one update of every method on a full-size Stable Diffusion 1.5, on a CPU, within 24 GiB.

The network (860 million weights) and the VAE have the real sizes and random weights; pictures of 512×512; float32; the
node's own pre-flight decides whether gradients are checkpointed, told that there are 24 GiB in all. Two sampler steps,
one prompt, two pictures where a method compares: fewer of everything that costs time, of nothing that costs memory,
since batches go through the network picture by picture (with guidance, two at a time).

The figure is the largest peak of resident memory of a process over all methods. A method whose loss is not finite, or
whose LoRA does not move, counts as not having made it: the figure is then infinite.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .record import ROOT, Claim, Stopwatch, record

BUDGET = 24.0
CLAIM = Claim(
    "sd15-full-size", BUDGET, "<=", "GiB", "peak memory of one update on a full-size SD1.5, the worst of all methods"
)
METHODS = ("supervised", "ddpo", "dag-db", "dag-kl", "diffusion-dpo", "refl", "draft")


def trial(method: str, *, size: int, precision: str = "") -> dict[str, Any]:
    """One update in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "method": method, "size": size, "precision": precision, "budget": BUDGET, "base": folder,
            "comfyui": os.environ.get("ATTUNE_COMFYUI") or str(ROOT / ".host" / "ComfyUI"),
        }  # fmt: skip
        driver = Path(__file__).with_name("_sd15_trial.py")
        done = subprocess.run(
            [sys.executable, str(driver), json.dumps(settings)], capture_output=True, text=True, timeout=7200
        )
    if done.returncode:
        raise RuntimeError(f"the trial of {method} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    row = json.loads(done.stdout.strip().splitlines()[-1])
    print(row, flush=True)
    return row


def main(quick: bool) -> None:
    watch = Stopwatch()
    size = 16 if quick else 64
    rows = [trial(method, size=size) for method in METHODS]
    made_it = all(row["finite"] and row["moved"] > 0 for row in rows)
    attempts = [{"what": f"{row['method']}: peak GiB", "value": row["peak_gb"]} for row in rows]
    # JSON knows no infinity: far beyond any goal stands for it.
    value = max(row["peak_gb"] for row in rows) if made_it else 1e9
    record(
        CLAIM, value, ci=None, seeds=1, seconds=watch.seconds, quick=quick, attempts=attempts,
        samples=[row["peak_gb"] for row in rows], details={"methods": rows, "latent": [4, size, size]},
    )  # fmt: skip
