"""ppd-antagonists: where people want opposite things, one taste for all serves nobody; the user adapter serves both.

Bed: `_ppd_bed` with a population in which everybody has a counterpart with the opposite taste, among those who teach
and among the unseen. Figure: win rate of the adapter's pictures over the base model's, for unseen people with four
choices. Diffusion-DPO's, from the same pairs, is in the details: it should be about a half.
"""

from __future__ import annotations

import torch

from ._ppd_bed import SEEDS, Bed, Shared, conditions, plan_of
from .record import Claim, Stopwatch, bootstrap, record

CLAIM = Claim("ppd-antagonists", 0.7, ">=", "", "opposite tastes, unseen people: win rate against the base model")


def main(quick: bool) -> None:
    torch.set_flush_denormal(True)
    plan = plan_of(quick=quick, antagonists=True)
    seeds, watch, shared = SEEDS[:2] if quick else SEEDS, Stopwatch(), Shared.load()
    rows = []
    for seed in seeds:
        bed = Bed(plan, seed, shared)
        own = bed.personal_pictures(bed.embeddings())
        rows.append(
            {
                "seed": seed,
                "personal": bed.compared(own, bed.base_pictures),
                "diffusion-dpo": bed.compared(bed.dpo_pictures, bed.base_pictures),
            }
        )
        print(rows[-1], flush=True)
    values = [row["personal"]["win_rate"] for row in rows]
    record(
        CLAIM,
        sum(values) / len(values),
        ci=bootstrap(values),
        seeds=len(seeds),
        seconds=watch.seconds,
        quick=quick,
        samples=values,
        attempts=[
            {"what": f"{method}, seed {row['seed']}", "value": row[method]["win_rate"]}
            for method in ("personal", "diffusion-dpo")
            for row in rows
        ],
        details={"runs": rows} | conditions(plan),
    )
