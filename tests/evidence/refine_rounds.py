"""refine-rounds: the loop takes fewer rounds per accepted picture than drawing the first wish again and again.

Bed: `_refine_bed`. Sessions end after six rounds, accepted or not, so their mean length would say little. The figure is
the estimate for such sessions, rounds lived / pictures accepted (the maximum likelihood of a constant chance per
round), of the loop in relation to that of re-rolling; people are drawn together with both of their sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from ._refine_bed import FULL, QUICK, by_round, paired, runs
from .record import Claim, Stopwatch, record

CLAIM = Claim("refine-rounds", 0.5, "<=", "×", "rounds per accepted picture, in the loop, of re-rolling's")


def ratio(people: Sequence[tuple[float, ...]]) -> float:
    """Of (rounds, accepted) of the loop and (rounds, accepted) of re-rolling; without any accepted, half a one."""
    ours, taken, theirs, also = (sum(column) for column in zip(*people, strict=True))
    return (ours / max(taken, 0.5)) / (theirs / max(also, 0.5))


def main(quick: bool) -> None:
    watch, plan, found = Stopwatch(), QUICK if quick else FULL, runs("intent", quick=quick)
    each = [
        [
            (len(a), float(a[-1]["accepted"]), len(b), float(b[-1]["accepted"]))
            for a, b in zip(run["refine"], run["re-roll"], strict=True)
        ]
        for run in found
    ]
    value, interval = paired([person for run in each for person in run], ratio)
    values = [ratio(run) for run in each]
    record(
        CLAIM,
        value,
        ci=interval,
        seeds=len(found),
        seconds=watch.seconds,
        quick=quick,
        samples=values,
        attempts=[{"what": f"seed {seed}", "value": one} for seed, one in enumerate(values)],
        details={"ways": by_round(found, plan.rounds), "plan": asdict(plan)},
    )
