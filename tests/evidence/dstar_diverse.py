"""dstar-diverse: at the same reward, the distance of scores keeps more diversity than the KL divergence.

Bed: `_dstar_bed`. Both branches begin with the same generator and are equally long; they are compared at the highest
reward that both reach, by straight lines between their measured points. `dstar_diverse_ring` asks the same in two
dimensions, and says why it does not hold.
"""

from __future__ import annotations

from ._dstar_bed import at_reward, conditions, runs
from .record import Claim, Stopwatch, bootstrap, record

CLAIM = Claim("dstar-diverse", 1.1, ">=", "×", "at equal reward: diversity of Diff-Instruct*, of the KL variant's")


def main(quick: bool) -> None:
    watch, found = Stopwatch(), runs(quick=quick)
    values, rewards = [], []
    for run in found:
        both = [run["score"], run["kl"]]
        rewards.append(min(max(point["reward"] for point in points) for points in both))
        score, kl = (at_reward(points, rewards[-1], "diversity") for points in both)
        values.append(score / kl)
    record(
        CLAIM,
        sum(values) / len(values),
        ci=bootstrap(values),
        seeds=len(found),
        seconds=watch.seconds,
        quick=quick,
        samples=values,
        attempts=[{"what": f"seed {run['seed']}", "value": v} for run, v in zip(found, values, strict=True)],
        details={
            "rewards compared at": rewards,
            "branches": [{name: run[name] for name in ("score", "kl")} for run in found],
            "teacher": found[0]["teacher of the branches"],
        }
        | conditions(quick=quick),
    )
