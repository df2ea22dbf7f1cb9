"""dstar-distil: one step after distillation shows what the prompt asks for as well as the 20-step guided teacher.

Bed: `_dstar_bed`; the match is the mean share of pictures with the wished background, style and concept, of one step in
relation to the teacher's. The distance of its pictures from the teacher's (KID) stands in the details.
"""

from __future__ import annotations

from ._dstar_bed import conditions, runs
from .record import Claim, Stopwatch, bootstrap, record

CLAIM = Claim("dstar-distil", 0.95, ">=", "×", "one step after distillation: match with the prompt, of the teacher's")


def main(quick: bool) -> None:
    watch, found = Stopwatch(), runs(quick=quick)
    values = [run["distilled"]["match"] / run["teacher"]["match"] for run in found]
    record(
        CLAIM,
        sum(values) / len(values),
        ci=bootstrap(values),
        seeds=len(found),
        seconds=watch.seconds,
        quick=quick,
        samples=values,
        attempts=[{"what": f"seed {run['seed']}", "value": v} for run, v in zip(found, values, strict=True)],
        details={"distilled": [run["distilled"] for run in found], "teacher": found[0]["teacher"]}
        | conditions(quick=quick),
    )
