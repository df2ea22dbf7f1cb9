"""dstar-reward: a one-step generator is preferred by the reward over its 20-step guided teacher, in a fraction of time.

Bed: `_dstar_bed`, the branch of Diff-Instruct* at its end. Figures:
    dstar-reward       its reward in relation to the teacher's
    dstar-reward.time  the time of 16 pictures' latents in relation to the teacher's, on one core; decoding, which both
                       need alike, is left out
The judge, which is never optimised, stands in the details beside the reward.
"""

from __future__ import annotations

from ._dstar_bed import conditions, runs
from .record import Claim, Stopwatch, bootstrap, record

CLAIM = Claim("dstar-reward", 1.10, ">=", "×", "one step, aligned: reward, of the 20-step guided teacher's")
TIME = Claim("dstar-reward.time", 0.06, "<=", "×", "the same: time of sampling, of the teacher's")


def main(quick: bool) -> None:
    watch, found = Stopwatch(), runs(quick=quick)
    rewards = [run["score"][-1]["reward"] / run["teacher of the branches"]["reward"] for run in found]
    times = [run["seconds"]["one step"] / run["seconds"]["teacher"] for run in found]
    judges = [run["score"][-1]["judge"] / run["teacher of the branches"]["judge"] for run in found]
    for claim, values in ((CLAIM, rewards), (TIME, times)):
        record(
            claim,
            sum(values) / len(values),
            ci=bootstrap(values),
            seeds=len(found),
            seconds=watch.seconds,
            quick=quick,
            samples=values,
            attempts=[{"what": f"seed {run['seed']}", "value": v} for run, v in zip(found, values, strict=True)],
            details={
                "held-out judge, of the teacher's": judges,
                "branches": [run["score"] for run in found],
                "teacher": found[0]["teacher of the branches"],
                "seconds": [run["seconds"] for run in found],
            }
            | conditions(quick=quick),
        )
