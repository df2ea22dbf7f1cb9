"""ppd-blend: between two people, the picture moves from the one's taste to the other's.

Bed: `_ppd_bed`, adapters trained as those of ppd-unseen. Pairs of unseen people of opposite inclination (their true
tastes have a negative cosine), who have made 16 choices each; α ∈ {0, ¼, ½, ¾, 1} of the second. Over some prompts with
fixed noise: the mean utility of the pictures to the second person. Figures, means over pairs of people and seeds:
    ppd-blend              Spearman's correlation of α with that utility, embeddings blended
    ppd-blend.predictions  the same, noise predictions blended

Four choices each, as in ppd-unseen, and 8 prompts missed the goal in the first record: 0.742 (seeds: 0.75, 0.92, 0.55),
both ways of blending alike. 20 of 24 pairs had 0.9 or more, 3 of them −0.8 and less: there the first person's embedding
already served the second better than their own did, so that blending towards it could only lose. What four noisy
choices say of a person is right in 7 of 10 further choices; that is the affair of ppd-shots, not of blending. Looked at
on those seeds, 0 to 2, afterwards: with 8 choices and 24 prompts 1 such pair was left, with 16 choices and 16 prompts
none. Since that chose the numbers, what is recorded is of other seeds, with people and adapters of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from attune.training.adapters.user_policy import Personal, UserPolicy, personal
from attune.training.demo.train_user import draw
from attune.training.preference.blending import blend_predictions, blend_tokens

from ._ppd_bed import Bed, Shared, conditions, plan_of
from .record import Claim, Stopwatch, bootstrap, record

CLAIM = Claim("ppd-blend", 0.9, ">=", "", "two tastes blended by embedding: Spearman(α, utility to the second)")
PREDICTIONS = Claim("ppd-blend.predictions", 0.9, ">=", "", "the same, blended by noise prediction")
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
PAIRS, PROMPTS, CHOICES = 8, 16, 16
SEEDS = (3, 4, 5)


class Blended:
    """A denoiser for two people whose predictions are blended."""

    def __init__(self, policy: UserPolicy, people: Sequence[torch.Tensor], weights: Sequence[float]) -> None:
        self.policy, self.people, self.weights, self.process = policy, people, weights, policy.process

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, cond: Sequence[Any], *, guidance: float) -> torch.Tensor:
        without = self.policy(x, sigma, cond, guidance=guidance)
        each = [
            self.policy(x, sigma, [Personal(row, tokens) for row in cond], guidance=guidance) for tokens in self.people
        ]
        return blend_predictions(without, each, self.weights)


def opposites(bed: Bed, count: int) -> list[tuple[int, int]]:
    """Pairs of neighbours in the list of the unseen, whose true tastes point away from each other."""
    tastes = torch.nn.functional.normalize(bed.people.tastes, dim=1)
    found = [(a, b) for a in range(len(tastes)) for b in range(a + 1, len(tastes)) if tastes[a] @ tastes[b] < 0]
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(bed.seed)).tolist()
    return [found[place] for place in order[:count]]


def embeddings(bed: Bed, count: int) -> torch.Tensor:
    """[people, k, d], of `count` choices of every unseen person, drawn for this claim."""
    pool, everybody = bed.telling_pool, torch.arange(bed.plan.unseen_people)
    generator = torch.Generator().manual_seed(bed.seed + 60_000)
    pairs = pool.draw_pairs(len(everybody), count, generator)
    encoder = bed.encoder  # which may have to be trained first
    with torch.no_grad():
        return encoder(pool.choices(pool.judged(bed.people, everybody, pairs, generator)))


def spearman(values: Sequence[float]) -> float:
    """Of the values with their order; equal ones share their mean rank, and where all are equal it is 0."""
    given = torch.tensor(values, dtype=torch.float64)
    ranks = (given[:, None] > given).sum(1) + 0.5 * (given[:, None] == given).sum(1)
    if len(given.unique()) < 2:
        return 0.0
    places = torch.arange(len(values), dtype=torch.float64)
    return torch.corrcoef(torch.stack([places, ranks]))[0, 1].item()


def trial(bed: Bed, pairs: int, count: int) -> dict[str, Any]:
    tokens = embeddings(bed, CHOICES)
    prompts = [bed.prompts[name] for name in bed.measured[:count]]
    noise = torch.randn(count, *bed.pipeline.latent_shape, generator=torch.Generator().manual_seed(bed.seed + 50_000))
    rows = []
    with bed.policy() as policy:
        for a, b in opposites(bed, pairs):
            curves: dict[str, list[float]] = {"embedding": [], "predictions": []}
            for share in SHARES:
                weights = (1 - share, share)
                blended = blend_tokens([tokens[a], tokens[b]], weights)
                both = Blended(policy, [tokens[a], tokens[b]], weights)
                for how, denoiser, asked in (
                    ("embedding", policy, [personal(prompt, blended) for prompt in prompts]),
                    ("predictions", both, prompts),
                ):
                    images = draw(denoiser, bed.pipeline, asked, noise)[1]
                    utility = bed.people.utilities(torch.full((count,), b), bed.people.attributes(images))
                    curves[how].append(utility.mean().item())
            rows.append({"people": [a, b], "curves": curves} | {how: spearman(own) for how, own in curves.items()})
    return {"seed": bed.seed, "pairs": rows} | {
        how: sum(row[how] for row in rows) / len(rows) for how in ("embedding", "predictions")
    }


def main(quick: bool) -> None:
    torch.set_flush_denormal(True)
    plan, seeds, watch, shared = plan_of(quick=quick), SEEDS[:2] if quick else SEEDS, Stopwatch(), Shared.load()
    rows = []
    for seed in seeds:
        rows.append(trial(Bed(plan, seed, shared), *((1, 2) if quick else (PAIRS, PROMPTS))))
        print(rows[-1], flush=True)
    for claim, how in ((CLAIM, "embedding"), (PREDICTIONS, "predictions")):
        values = [row[how] for row in rows]
        record(
            claim,
            sum(values) / len(values),
            ci=bootstrap(values),
            seeds=len(seeds),
            seconds=watch.seconds,
            quick=quick,
            samples=values,
            attempts=[{"what": f"seed {row['seed']}", "value": row[how]} for row in rows],
            details={"runs": rows} | conditions(plan),
        )
