"""refine-intent: after the same rounds and evaluations, the loop shows more of what is meant than other ways.

Bed: `_refine_bed`. Figures, each the lower end of the 95 % interval (people drawn together with both of their sessions)
of the gain in the share of a person's wishes that the picture shows which stands in the end:
    refine-intent          against the best of as many pictures of the first wish
    refine-intent.fabric   against liked and disliked pictures in the self-attention (FABRIC), of the first wish
"""

from __future__ import annotations

from dataclasses import asdict

from ._refine_bed import FULL, QUICK, by_round, gain, paired, runs, shares
from .record import Claim, Stopwatch, record

WHAT = "wishes shown after six rounds, lower end of the interval of the loop's gain over"
CLAIMS = {
    "re-roll": Claim("refine-intent", 0.001, ">=", "", f"{WHAT} the best of as many pictures"),
    "fabric": Claim("refine-intent.fabric", 0.001, ">=", "", f"{WHAT} FABRIC"),
}


def main(quick: bool) -> None:
    watch, plan, found = Stopwatch(), QUICK if quick else FULL, runs(quick=quick)
    loop = [person[-1] for person in shares(found, "refine", plan.rounds)]
    for way, claim in CLAIMS.items():
        other = [person[-1] for person in shares(found, way, plan.rounds)]
        value, interval = paired(list(zip(loop, other, strict=True)), gain)
        each = [
            gain([(a[-1], b[-1]) for a, b in zip(*(shares([run], name, plan.rounds) for name in ("refine", way)),
                                                 strict=True)])
            for run in found
        ]  # fmt: skip
        record(
            claim,
            interval[0],
            ci=interval,
            seeds=len(found),
            seconds=watch.seconds,
            quick=quick,
            samples=each,
            attempts=[{"what": f"seed {seed}, mean gain", "value": one} for seed, one in enumerate(each)],
            details={"mean gain": value, "ways": by_round(found, plan.rounds), "plan": asdict(plan)},
        )
