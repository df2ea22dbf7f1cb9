"""weights-learned: from 50 choices, the learned weights of the rewards are those by which a person chose.

Pictures of the demo model, of prompts that leave style and background open, other pictures for every seed; rewards as a
session has them, computed on those pictures: diversity, consistency and relevance (`nodes.rewards.dialogue`, by the
demo reward) and colourfulness. Simulated people are hidden from what learns. Their weights come from a flat Dirichlet
distribution; their utility w·z, scaled to the deviation 1 over the pictures, decides with a sharpness that is
log-uniform from 1 to 4 (2 is that of `preference.population`). Everyone makes 50 choices in 10 sessions of 5 rounds; a
round has 4 pictures of the session's prompt, and what is chosen is what the next round's consistency looks back to.

What is learned from: z-scores by the running statistics of these 50 rounds, as `running_scores` has them. The people
themselves judge by deviations of all pictures, so that the scales are not quite the same. Figure: the mean cosine of
learned and true weights.
    weights-learned          the best of a round's four pictures is chosen, by Luce's rule (Bradley-Terry for several)
    weights-learned.pairs    two of the four are compared, by Bradley-Terry
Beside it in the details: the share of people whose cosine is at least 0.9, the same after 5, 10 and 20 choices, and for
equal weights, which know nothing (their cosine is not 0, since all weights are positive); how often people chose what
is best by their own weights.

The prior of `learn` was chosen on a seed that is not measured, 80 people: with a − 1 = 0.25, 0.5, 1, 2, 4 the cosine
after 10 choices was .83, .86, .87, .87, .85 and after 50 .92, .93, .93, .93, .92 (pairs: .89, .90, .91, .91, .90).
1 was taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from attune.nodes.refinement.learned_weights import Choice, learn
from attune.nodes.refinement.running_scores import running_scores, z_scores
from attune.nodes.rewards.dialogue import ConsistencyReward, DiversityReward, RelevanceReward, diversity_credits
from attune.nodes.rewards.load import load_reward
from attune.nodes.rewards.statistics import StatisticReward
from attune.training.demo import data
from attune.training.demo.pipeline import DemoPipeline, prompt_text
from attune.training.interfaces import RewardContext

from .ddpo_learns import DEMO, pictures
from .record import Claim, Stopwatch, bootstrap, record

ROUNDS = Claim(
    "weights-learned", 0.9, ">=", "", "weights learned from 50 choices of one in four: cosine with the true ones"
)
PAIRS = Claim("weights-learned.pairs", 0.9, ">=", "", "weights learned from 50 choices between two: the same cosine")
SEEDS = (0, 1, 2)
NAMES = ("Diversity", "Consistency", "Relevance", "Colourfulness")
SESSIONS, ROUNDS_EACH, BATCH = 10, 5, 4
AFTER = (5, 10, 20, 50)
SHARPNESS = (1.0, 4.0)


@dataclass(frozen=True)
class Plan:
    """How much is done; the quick plan only proves that the script works."""

    people: int
    prompts: int
    pictures: int


FULL, QUICK = Plan(100, 24, 10), Plan(12, 6, 5)


class Pool:
    """Pictures of some prompts, [P, n], with what of their scores does not depend on the round.

    Attributes:
        features: unit vectors [P, n, D]; fixed: relevance and colourfulness [P, n, 2].
        images: [P, n, h, w, 3]; texts: P prompts.
    """

    def __init__(self, plan: Plan, seed: int) -> None:
        pipeline = DemoPipeline.load(DEMO / "attune_demo.safetensors")
        self.reward = load_reward(DEMO / "attune_demo_reward.safetensors", "cpu")
        names = np.random.default_rng([seed, 7]).permutation(data.CONCEPT_NAMES)[: plan.prompts]
        self.texts = [prompt_text(str(name)) for name in names]
        every = [text for text in self.texts for _ in range(plan.pictures)]
        drawn = pictures(pipeline.denoiser, pipeline, every, seed=1000 + seed)
        shape = (plan.prompts, plan.pictures)
        self.images = drawn.reshape(*shape, *drawn.shape[1:])
        self.features = self.reward.image_features(drawn).reshape(*shape, -1)
        relevance = RelevanceReward(self.reward, contrast=self.texts)
        own = torch.cat(
            [relevance(part, [text] * len(part)) for part, text in zip(self.images, self.texts, strict=True)]
        )
        colour = StatisticReward("colourfulness")(drawn, every)
        self.fixed = torch.stack([own, colour], 1).reshape(*shape, 2)

    def scores(self, prompt: int, shown: Sequence[int], chain: Sequence[torch.Tensor]) -> list[dict[str, float]]:
        """Of a round's pictures; `chain`: features of what was chosen before, oldest first."""
        features = self.features[prompt, list(shown)]
        varied = diversity_credits(features, [""] * len(shown))
        past = torch.stack(list(chain)) if chain else torch.zeros(0, features.shape[1])
        smooth = torch.zeros(len(shown))
        if chain:
            smooth = ((past[1:] * past[:-1]).sum() + features @ past[-1]) / len(chain)
        table = torch.cat([torch.stack([varied, smooth], 1), self.fixed[prompt, list(shown)]], 1)
        return [dict(zip(NAMES, row, strict=True)) for row in table.tolist()]

    def check(self) -> None:
        """That these are the scores of the rewards themselves, on a round."""
        shown, before = self.images[0, :4], [self.images[0, 4:5], self.images[0, 3:4]]
        found = self.scores(0, range(4), [self.features[0, 4], self.features[0, 3]])
        true = (
            DiversityReward(self.reward)(shown, [""] * 4),
            ConsistencyReward(self.reward)(shown, [""] * 4, RewardContext(previous=before)),
        )
        for name, expected in zip(NAMES, true, strict=False):
            own = torch.tensor([picture[name] for picture in found])
            if not torch.allclose(own, expected, atol=1e-5):
                raise AssertionError(f"{name}: {own} instead of {expected}")

    def usual(self, seed: int) -> np.ndarray:
        """Scores of 200 sessions of random choices: [pictures, 4]."""
        rng = np.random.default_rng([seed, 8])
        rows = []
        for _ in range(200):
            prompt, chain = int(rng.integers(len(self.texts))), []
            for number in range(ROUNDS_EACH):
                shown = rng.choice(self.features.shape[1], BATCH, replace=False).tolist()
                # The first round says nothing about consistency, which is 0 there.
                if number:
                    rows += [[picture[name] for name in NAMES] for picture in self.scores(prompt, shown, chain)]
                chain.append(self.features[prompt, shown[int(rng.integers(BATCH))]])
        return np.array(rows)


@dataclass(frozen=True)
class Person:
    """Hidden weights [4] and noise."""

    weights: np.ndarray
    noise: float


def lived(pool: Pool, person: Person, unit: np.ndarray, rng: np.random.Generator, *, pairs: bool) -> list[Choice]:
    """Fifty rounds of a person: what the choices say about z-scores."""
    rounds, picked = [], []
    for _ in range(SESSIONS):
        prompt, chain = int(rng.integers(len(pool.texts))), []
        for _ in range(ROUNDS_EACH):
            shown = rng.choice(pool.features.shape[1], BATCH, replace=False).tolist()
            scores = pool.scores(prompt, shown, chain)
            utility = np.array([[picture[name] for name in NAMES] for picture in scores]) / unit @ person.weights
            rivals = rng.choice(BATCH, 2, replace=False) if pairs else np.arange(BATCH)
            # The largest of utilities with Gumbel's noise: of two by Bradley-Terry, of several by Luce.
            best = int(rivals[(utility[rivals] / person.noise + rng.gumbel(size=len(rivals))).argmax()])
            rounds.append(scores)
            picked.append((best, [int(rival) for rival in rivals if rival != best]))
            chain.append(pool.features[prompt, shown[best]])
    running = running_scores(rounds)
    choices = []
    for scores, (best, others) in zip(rounds, picked, strict=True):
        z = np.array([[picture[name] for name in NAMES] for picture in z_scores(scores, running)])
        choices.append(Choice(z[best] - z[others]))
    return choices


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def trial(plan: Plan, seed: int) -> dict[str, Any]:
    """Cosines of everybody, after so many choices, both ways of choosing."""
    pool = Pool(plan, seed)
    pool.check()
    usual, rng = pool.usual(seed), np.random.default_rng([seed, 9])
    unit = usual.std(0)
    people = []
    for _ in range(plan.people):
        weights = rng.dirichlet(np.ones(len(NAMES)))
        spread = float((usual / unit @ weights).std())
        people.append(Person(weights, spread / float(np.exp(rng.uniform(*np.log(SHARPNESS))))))
    found: dict[str, Any] = {
        "pairs": {n: [] for n in AFTER},
        "rounds": {n: [] for n in AFTER},
        "equal": [],
        "own best": [],
    }
    for person in people:
        found["equal"].append(cosine(np.ones(len(NAMES)), person.weights))
        for how in ("pairs", "rounds"):
            choices = lived(pool, person, unit, rng, pairs=how == "pairs")
            if how == "pairs":
                found["own best"].append(np.mean([(one.differences @ person.weights > 0).all() for one in choices]))
            for n in AFTER:
                learned = learn(choices[:n], NAMES)
                found[how][n].append(cosine(np.array(list(learned.weights.values())), person.weights))
    return found


def summary(cosines: Sequence[float]) -> dict[str, float]:
    return {"mean": float(np.mean(cosines)), "share from 0.9": float(np.mean(np.array(cosines) >= 0.9))}


def main(quick: bool) -> None:
    torch.set_flush_denormal(True)
    watch, plan, seeds = Stopwatch(), QUICK if quick else FULL, SEEDS[:2] if quick else SEEDS
    runs: list[Mapping[str, Any]] = []
    for seed in seeds:
        runs.append(trial(plan, seed))
        figures = {how: {n: round(summary(runs[-1][how][n])["mean"], 3) for n in AFTER} for how in ("pairs", "rounds")}
        print(f"seed {seed}: {figures}, equal weights {np.mean(runs[-1]['equal']):.3f}", flush=True)
    for claim, how in ((ROUNDS, "rounds"), (PAIRS, "pairs")):
        means = [float(np.mean(run[how][AFTER[-1]])) for run in runs]
        everybody = [value for run in runs for value in run[how][AFTER[-1]]]
        record(
            claim,
            float(np.mean(means)),
            ci=bootstrap(everybody),
            seeds=len(seeds),
            seconds=watch.seconds,
            quick=quick,
            samples=means,
            attempts=[{"what": f"seed {seed}", "value": mean} for seed, mean in zip(seeds, means, strict=True)],
            details={
                "people per seed": plan.people,
                "after choices": {n: summary([value for run in runs for value in run[how][n]]) for n in AFTER},
                "equal weights": summary([value for run in runs for value in run["equal"]]),
                "rewards": NAMES,
                "sessions, rounds, pictures": [SESSIONS, ROUNDS_EACH, BATCH],
                "sharpness": SHARPNESS,
                "of two, the better by their own weights": float(np.mean([run["own best"] for run in runs])),
                "prompts, pictures each": [plan.prompts, plan.pictures],
            },
        )
