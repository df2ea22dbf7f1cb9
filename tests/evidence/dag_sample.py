"""dag-sample: DAG-KL earns more reward than DDPO from as many practice pictures.

The figure is the area under gain against rollouts, DAG-KL's over DDPO's, over paired seeds. The gain is measured on
prompts whose concepts are never practised. Learning rate, LoRA, sampler steps and rollouts per update are the same, and
the calls of the network nearly so; the rate is the one that ddpo-learns found best for DDPO. See `_dag_bed`, also for
what was tried.
"""

from __future__ import annotations

import numpy as np

from ._dag_bed import area, gains, pairs, runs
from .record import Claim, Stopwatch, bootstrap, plot_path, record

CLAIM = Claim("dag-sample", 1.3, ">=", "×", "DAG-KL's area under reward against rollouts over DDPO's")


def main(quick: bool) -> None:
    watch = Stopwatch()
    found = runs(quick)
    paired = pairs(found)
    rows = []
    for ddpo, dag in paired:
        until = min(ddpo["points"][-1]["rollouts"], dag["points"][-1]["rollouts"])
        rows.append((area(ddpo, "rollouts", until), area(dag, "rollouts", until)))
    ratios = [dag / ddpo for ddpo, dag in rows]
    plot(found, quick=quick)
    record(
        CLAIM,
        float(np.mean([dag for _, dag in rows]) / np.mean([ddpo for ddpo, _ in rows])),
        ci=bootstrap(ratios),
        seeds=len(paired),
        seconds=watch.seconds,
        quick=quick,
        samples=ratios,
        attempts=[
            {"what": f"seed {dag['seed']}", "value": ratio} for (_, dag), ratio in zip(paired, ratios, strict=True)
        ],
        details={"runs": found, "areas": [{"ddpo": ddpo, "dag": dag} for ddpo, dag in rows]},
    )


def plot(found: list, *, quick: bool) -> None:
    """Gain against rollouts, one panel per run."""
    from attune.nodes.charts import Curve, curve_chart

    curves = [
        Curve("reward", f"{run['method']}, seed {run['seed']}", [int(p["rollouts"]) for p in run["points"]], gains(run))
        for run in found
    ]
    chart = curve_chart(curves, title="Gain against rollouts", details="in deviations of the base model's scores")
    chart.save(plot_path(CLAIM, quick=quick, part="curves"))
