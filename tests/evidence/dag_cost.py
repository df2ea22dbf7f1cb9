"""dag-cost: what DAG-KL's practice costs: calls of the reward per rollout, and reward against seconds.

Seconds: the area under gain against training time, DAG-KL's over DDPO's, until the earlier end of the two. On the demo
model a decoded picture costs about as much as three calls of the network, so that scoring a picture on its way is dear
here; with guidance, more sampler steps and larger networks it is cheaper in proportion. See `_dag_bed`.
"""

from __future__ import annotations

import numpy as np

from ._dag_bed import area, pairs, runs
from .record import Claim, Stopwatch, bootstrap, record

CALLS = Claim("dag-cost.calls", 12, "<=", "calls", "calls of the reward per rollout of DAG-KL")
SECONDS = Claim(
    "dag-cost.seconds", 1, ">=", "×", "DAG-KL's area under reward against seconds over DDPO's, target exp(βr)"
)


def main(quick: bool) -> None:
    watch, found = Stopwatch(), runs(quick)
    paired = pairs(found)
    calls = [dag["points"][-1]["reward_calls"] / dag["points"][-1]["rollouts"] for _, dag in paired]
    ratios = []
    for ddpo, dag in paired:
        until = min(ddpo["points"][-1]["seconds"], dag["points"][-1]["seconds"])
        ratios.append(area(dag, "seconds", until) / area(ddpo, "seconds", until))
    for claim, values in ((CALLS, calls), (SECONDS, ratios)):
        record(
            claim,
            max(values) if claim is CALLS else float(np.mean(values)),
            ci=None if claim is CALLS else bootstrap(values),
            seeds=len(values),
            seconds=watch.seconds,
            quick=quick,
            samples=values,
            details={"seconds_per_update": [
                {run["method"]: run["points"][-1]["seconds"] / run["points"][-1]["step"] for run in pair}
                for pair in paired
            ]},
        )  # fmt: skip
