"""ddpo-step-weights: our balanced step weights against the plain sum of DDPO's paper.

Bed, reward, prompts, rollouts, updates and seeds of `ddpo-learns`; either kind gets its own best learning rate, chosen
on a seed that is not measured. The figure is the difference of the two gains on unseen prompts, paired by seed, in
standard deviations of the base model's scores.
"""

from __future__ import annotations

import numpy as np
import torch

from .ddpo_learns import FULL, QUICK, SEEDS, Bed, attempts, plot
from .record import Claim, Stopwatch, bootstrap, record

CLAIM = Claim("ddpo-step-weights", 0.25, ">=", "sd", "DDPO's gain by balanced step weights over the paper's plain sum")


def main(quick: bool) -> None:
    plan, seeds = (QUICK, SEEDS[:2]) if quick else (FULL, SEEDS)
    watch = Stopwatch()
    torch.set_flush_denormal(True)
    bed = Bed(plan)
    balanced, plain = bed.runs_at_best_rate("balanced", seeds), bed.runs_at_best_rate("plain", seeds)
    lead = [a["gain_sd"] - b["gain_sd"] for a, b in zip(balanced["runs"], plain["runs"], strict=True)]
    curves = {
        f"{name} steps, mean of {len(seeds)} seeds": np.mean([row["curve"] for row in found["runs"]], 0).tolist()
        for name, found in (("balanced", balanced), ("plain", plain))
    }
    plot(curves, CLAIM, title="Balanced steps and plain steps", quick=quick)
    record(
        CLAIM,
        float(np.mean(lead)),
        ci=bootstrap(lead),
        seeds=len(seeds),
        seconds=watch.seconds,
        quick=quick,
        samples=lead,
        attempts=attempts([*balanced["runs"], *plain["runs"]]),
        details={"balanced": balanced, "plain": plain} | bed.details(),
    )
