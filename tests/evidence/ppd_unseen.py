"""ppd-unseen: with four choices of a person it has never seen, the user adapter draws what that person likes better.

Bed: `_ppd_bed`. Figures, means over seeds:
    ppd-unseen       win rate of the adapter's pictures over the base model's, for unseen people and prompts
    ppd-unseen.dpo   the same over those of Diffusion-DPO, which learned one taste for all from the same pairs
"""

from __future__ import annotations

import torch

from ._ppd_bed import SEEDS, Bed, Shared, conditions, plan_of
from .record import Claim, Stopwatch, bootstrap, record

CLAIM = Claim("ppd-unseen", 0.76, ">=", "", "unseen people, 4 choices: win rate against the base model")
DPO = Claim("ppd-unseen.dpo", 0.65, ">=", "", "unseen people, 4 choices: win rate against Diffusion-DPO")


def main(quick: bool) -> None:
    torch.set_flush_denormal(True)
    plan, seeds, watch, shared = plan_of(quick=quick), SEEDS[:2] if quick else SEEDS, Stopwatch(), Shared.load()
    rows = []
    for seed in seeds:
        bed = Bed(plan, seed, shared)
        own = bed.personal_pictures(bed.embeddings())
        rows.append(
            {
                "seed": seed,
                "base": bed.compared(own, bed.base_pictures),
                "dpo": bed.compared(own, bed.dpo_pictures),
                "dpo over base": bed.compared(bed.dpo_pictures, bed.base_pictures),
            }
        )
        print(rows[-1], flush=True)
    for claim, opponent in ((CLAIM, "base"), (DPO, "dpo")):
        values = [row[opponent]["win_rate"] for row in rows]
        record(
            claim,
            sum(values) / len(values),
            ci=bootstrap(values),
            seeds=len(seeds),
            seconds=watch.seconds,
            quick=quick,
            samples=values,
            attempts=[{"what": f"seed {row['seed']}", "value": row[opponent]["win_rate"]} for row in rows],
            details={"runs": rows} | conditions(plan),
        )
