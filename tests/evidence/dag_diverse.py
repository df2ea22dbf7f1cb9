"""dag-diverse: at the same reward, DAG-KL's pictures of a prompt differ more than DDPO's.

Both runs of a seed are looked at where they first reach the same gain: the lower of their two best ones. There the
diversity (mean pairwise 1 − cos of the judge's features within a prompt) of DAG-KL is divided by DDPO's. Values between
two measured points lie on straight lines. DAG-KL has the reference in its target here; the figure without it stands in
the details, with Vendi score and KID. See `_dag_bed`, also for what was tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._dag_bed import at_gain, gains, pairs, runs
from .record import Claim, Stopwatch, bootstrap, record

CLAIM = Claim("dag-diverse", 1.2, ">=", "×", "DAG-KL's diversity over DDPO's at the same reward, target p_ref·exp(βr)")


def main(quick: bool) -> None:
    watch, found = Stopwatch(), runs(quick)
    rows, others = (matched(pairs(found, method)) for method in ("dag-kl-prior", "dag-kl"))
    ratios = [row["diversity_dag"] / row["diversity_ddpo"] for row in rows]
    record(
        CLAIM,
        float(np.mean(ratios)),
        ci=bootstrap(ratios),
        seeds=len(rows),
        seconds=watch.seconds,
        quick=quick,
        samples=ratios,
        attempts=[{"what": f"seed {row['seed']}", "value": ratio} for row, ratio in zip(rows, ratios, strict=True)],
        details={"matched": rows, "without the reference": others},
    )


def matched(paired: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[dict[str, float]]:
    """Both runs' figures where they first reach the lower of their best gains, a row per seed."""
    rows = []
    for ddpo, dag in paired:
        level = min(max(gains(ddpo)), max(gains(dag)))
        row = {"seed": dag["seed"], "gain": level}
        for figure in ("diversity", "vendi", "kid", "held_out"):
            row |= {f"{figure}_ddpo": at_gain(ddpo, level, figure), f"{figure}_dag": at_gain(dag, level, figure)}
        rows.append(row)
        print(row, flush=True)
    return rows
