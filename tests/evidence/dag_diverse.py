"""dag-diverse: at the same reward, DAG-KL's pictures of a prompt differ more than DDPO's.

Both runs of a seed are looked at where they first reach the same gain: the lower of their two best ones. There the
diversity (mean pairwise 1 − cos of the judge's features within a prompt) of DAG-KL is divided by DDPO's. Values between
two measured points lie on straight lines. See `_dag_bed`; Vendi score and KID stand in the details.
"""

from __future__ import annotations

import numpy as np

from ._dag_bed import at_gain, gains, pairs, runs
from .record import Claim, Stopwatch, bootstrap, record

CLAIM = Claim("dag-diverse", 1.2, ">=", "×", "DAG-KL's diversity over DDPO's at the same reward")


def main(quick: bool) -> None:
    watch, found = Stopwatch(), runs(quick)
    rows = []
    for ddpo, dag in pairs(found):
        level = min(max(gains(ddpo)), max(gains(dag)))
        row = {"seed": dag["seed"], "gain": level}
        for figure in ("diversity", "vendi", "kid", "held_out"):
            row |= {f"{figure}_ddpo": at_gain(ddpo, level, figure), f"{figure}_dag": at_gain(dag, level, figure)}
        rows.append(row)
        print(row, flush=True)
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
        details={"matched": rows},
    )
