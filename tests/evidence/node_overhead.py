"""node-overhead: the One-Step Sampler node against the bare call of the network.

One step, 16 pictures of 64 × 64, the demo model with a one-step LoRA, everything loaded by the host's stock loaders and
the node executed as the host does: reading the LoRA's timestep, noise, prompts, memory management, patches, progress
and words included. The bare call is `diffusion_model(…)` with the very arguments that the node gave it. That both are
the same bits, and that the node calls the network once, is checked in every trial.

Node and network take turns in a process of its own per seed, the first one alternating; a trial's figure is the median
over pairs of node seconds / network seconds. One thread, so that both sides are work and not waiting for other threads;
the host's own number of threads is among the attempts, as is a single picture, of which the same overhead is a larger
part.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from .record import ROOT, Claim, Stopwatch, bootstrap, record

CLAIM = Claim("node-overhead", 1.05, "<=", "×", "the One-Step Sampler node against the bare network call")
PICTURES = 16


def trial(*, seed: int, pairs: int, pictures: int = PICTURES, threads: int = 1) -> dict[str, float]:
    """Run one trial in a process of its own. `threads`: 0 = as the host sets them."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "seed": seed, "pairs": pairs, "pictures": pictures, "threads": threads, "base": folder,
            "comfyui": os.environ.get("ATTUNE_COMFYUI") or str(ROOT / ".host" / "ComfyUI"),
        }  # fmt: skip
        driver = Path(__file__).with_name("_node_overhead_trial.py")
        done = subprocess.run(
            [sys.executable, str(driver), json.dumps(settings)], capture_output=True, text=True, timeout=1800
        )
        if done.returncode:
            raise RuntimeError(f"The trial failed:\n{(done.stdout + done.stderr)[-3000:]}")
        return json.loads(done.stdout.strip().splitlines()[-1])


def main(quick: bool) -> None:
    watch = Stopwatch()
    seeds, pairs = ((0, 1), 10) if quick else (tuple(range(7)), 100)
    rows = []
    for seed in seeds:
        rows.append({"seed": seed, **trial(seed=seed, pairs=pairs)})
        print(f"seed {seed}: {', '.join(f'{name} {value:.4g}' for name, value in rows[-1].items())}", flush=True)
    others = {
        "the host's own number of threads": trial(seed=0, pairs=pairs, threads=0),
        "a single picture": trial(seed=0, pairs=pairs, pictures=1),
    }
    ratios = [row["ratio"] for row in rows]
    record(
        CLAIM,
        statistics.median(ratios),
        ci=bootstrap(ratios, statistics.median),
        seeds=len(seeds),
        seconds=watch.seconds,
        quick=quick,
        samples=ratios,
        attempts=[{"what": what, "value": found["ratio"]} for what, found in others.items()],
        details={"trials": rows, "others": others, "pairs": pairs, "pictures": PICTURES, "size": [64, 64]},
    )
