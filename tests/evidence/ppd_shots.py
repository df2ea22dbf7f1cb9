"""ppd-shots: the more choices, the better it fits; and nobody is served by another person's embedding.

Bed: `_ppd_bed`, the same adapters as ppd-unseen. With k choices of an unseen person, k ∈ {0, 1, 2, 4, 8} (0: nobody is
shown, which is the base model), the win rate over the base model. Figures:
    ppd-shots         the smallest step from one k to the next, of the means over seeds: not below 0 if it never falls
    ppd-shots.other   win rate of the pictures for one's own embedding (4 choices) over those for another person's
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch

from ._ppd_bed import SEEDS, SUPPORT, Bed, Shared, conditions, plan_of
from .record import Claim, Stopwatch, bootstrap, record

CLAIM = Claim("ppd-shots", 0.0, ">=", "", "win rate over 0, 1, 2, 4, 8 choices: its smallest step")
OTHER = Claim("ppd-shots.other", 0.55, ">=", "", "one's own embedding against another person's: win rate")
COUNTS = (1, 2, 4, 8)


def trial(bed: Bed) -> dict[str, Any]:
    pictures = {count: bed.personal_pictures(bed.embeddings(count)) for count in COUNTS}
    # The next person's: drawn independently of one's own.
    others = bed.personal_pictures(bed.embeddings().roll(1, 0))
    wins = {count: bed.compared(found, bed.base_pictures)["win_rate"] for count, found in pictures.items()}
    return {
        "seed": bed.seed,
        "win_rates": {"0": bed.compared(bed.base_pictures, bed.base_pictures)["win_rate"]}
        | {str(count): value for count, value in wins.items()},
        "own over other": bed.compared(pictures[SUPPORT], others),
        "other over base": bed.compared(others, bed.base_pictures),
    }


def smallest_step(rows: list[dict[str, Any]]) -> float:
    means = [sum(row["win_rates"][str(count)] for row in rows) / len(rows) for count in (0, *COUNTS)]
    return min(later - earlier for earlier, later in pairwise(means))


def main(quick: bool) -> None:
    torch.set_flush_denormal(True)
    plan, seeds, watch, shared = plan_of(quick=quick), SEEDS[:2] if quick else SEEDS, Stopwatch(), Shared.load()
    rows = []
    for seed in seeds:
        rows.append(trial(Bed(plan, seed, shared)))
        print(rows[-1], flush=True)
    own = [row["own over other"]["win_rate"] for row in rows]
    for claim, value, interval, samples in (
        (CLAIM, smallest_step(rows), bootstrap(rows, smallest_step), [smallest_step([row]) for row in rows]),
        (OTHER, sum(own) / len(own), bootstrap(own), own),
    ):
        record(
            claim,
            value,
            ci=interval,
            seeds=len(seeds),
            seconds=watch.seconds,
            quick=quick,
            samples=samples,
            attempts=[{"what": f"seed {row['seed']}", "value": own} for row, own in zip(rows, samples, strict=True)],
            details={"runs": rows} | conditions(plan),
        )
