"""weights-pareto: with as many pictures, dynamic weights cover more of the trade-off than any fixed weights.

A session on the demo model: a prompt that leaves style and background open, 6 rounds of 4 pictures, schedules as Round
Schedule makes them, every later round from the picture that the last one kept. What is kept is the best by the weighted
z-scores of diversity, consistency and relevance (`nodes.rewards.dialogue`, by the demo reward). All settings begin with
the same first round, take the same schedules and seeds and make as many pictures; they differ in the weights alone:
    the rule, as it is and with a time scale of 3
    fixed weights: all 15 of a grid of quarters, a third each, and the rule's limit
    MGDA on the z-scores of the batch
    a random choice, which shows how much weights matter at all
Figure: the hypervolume of the pictures that a session kept, in deviations of all pictures that any setting made, above
−2 in each reward, mean over sessions: the rule's over the best fixed setting's. The best is looked for after the fact,
in its favour, also in every resample of the interval. The picture that the first round kept has no consistency yet and
does not count. If the figure is below 1, the claim is not reproduced.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from attune.nodes.refinement.dynamic_weights import WeightsConfig, lambda_div, weigh
from attune.nodes.refinement.gradient_weights import batch_gram
from attune.nodes.refinement.noise_levels import sigmas
from attune.nodes.refinement.pareto import distance_to_front, hypervolume
from attune.nodes.refinement.records import Feedback, Picture, Round, Schedule, SessionState
from attune.nodes.refinement.running_scores import ranked, running_scores, weighed, z_scores
from attune.nodes.refinement.schedules import RoundScheduleConfig, round_schedule
from attune.nodes.rewards.dialogue import ConsistencyReward, DiversityReward, RelevanceReward
from attune.nodes.rewards.load import load_reward
from attune.training.demo import data
from attune.training.demo.pipeline import DemoPipeline, prompt_text
from attune.training.interfaces import Prompt, RewardContext

from .ddpo_learns import DEMO
from .record import Claim, Stopwatch, bootstrap, record

CLAIM = Claim("weights-pareto", 1.0, ">=", "×", "hypervolume of dynamic weights over that of the best fixed ones")
SEEDS = (0, 1, 2)
NAMES = ("Diversity", "Consistency", "Relevance")
ROLES = dict(zip(NAMES, ("diversity", "consistency", "relevance"), strict=True))
BATCH, FLOOR = 4, -2.0
AT_ONCE = 32
SCHEDULE = RoundScheduleConfig(steps=8, guidance=3.0)
RANDOM = "random choice"


@dataclass(frozen=True)
class Plan:
    """How much is done; the quick plan only proves that the script works."""

    sessions: int
    rounds: int


FULL, QUICK = Plan(8, 6), Plan(2, 3)


def settings() -> dict[str, WeightsConfig | None]:
    """Every setting by name; None chooses at random."""
    found: dict[str, WeightsConfig | None] = {
        "rule": WeightsConfig(),
        "rule, time scale 3": WeightsConfig(time_scale=3.0),
    }
    for parts in itertools.product(range(5), repeat=3):
        if sum(parts) == 4:
            given = {name: part / 4 for name, part in zip(NAMES, parts, strict=True)}
            found["fixed " + "/".join(f"{part / 4:g}" for part in parts)] = WeightsConfig("fixed", given=given)
    return found | {
        "fixed equal": WeightsConfig("fixed equal"), "fixed limit": WeightsConfig("fixed limit"),
        "mgda": WeightsConfig("mgda"), RANDOM: None
    }  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A round's pictures.

    Attributes:
        schedule: it was made with.
        latents: [B, 16, 8, 8]; images: [B, h, w, 3].
        scores: of each.
    """

    schedule: Schedule
    latents: torch.Tensor
    images: torch.Tensor
    scores: list[dict[str, float]]


class Session:
    """One prompt; rounds by the path of positions that led to them, each made once for all settings.

    Args:
        bed: model and rewards. text: the prompt. seed: of the session.
    """

    def __init__(self, bed: Bed, text: str, seed: int) -> None:
        self.bed, self.prompt = bed, bed.pipeline.prompts([text])[0]
        self.start = SessionState("0" * 32, text, 0, seed, text, "")
        self.made: dict[tuple[int, ...], Made] = {}

    def _state(self, path: tuple[int, ...]) -> SessionState:
        past = []
        for number, choice in enumerate(path, 1):
            schedule = self.made[path[: number - 1]].schedule
            pictures = tuple(Picture("0" * 64, seed) for seed in schedule.seeds)
            key, parent = f"{number:032x}", f"{number - 1:032x}" if number > 1 else None
            made = {"prompt": self.prompt.text, "negative": "", "embedding": {}, "schedule": schedule, "weights": None}
            said = {"pictures": pictures, "feedback": Feedback(liked=(choice,))}
            kept = {"seconds": 0.0, "lora": "", "latents": "", "made": 0}
            past.append(Round(key=key, parent=parent, number=number, attempt=0, **made, **said, **kept))
        return dataclasses.replace(self.start, path=tuple(past))

    def make(self, paths: Sequence[tuple[int, ...]]) -> None:
        """The rounds that follow these paths of one length, if they are not there yet: all at once."""
        new = [path for path in dict.fromkeys(paths) if path not in self.made]
        if not new:
            return
        number = len(new[0]) + 1
        schedules = [
            round_schedule(SCHEDULE, self._state(path), batch=BATCH, lambda_div=lambda_div(WeightsConfig(), number))
            for path in new
        ]
        if any(schedule != schedules[0] for schedule in schedules):
            raise AssertionError("Rounds of one number differ in more than their start.")
        starts = [self.made[path[:-1]].latents[path[-1]] if path else self.bed.blank for path in new]
        for path, latents in zip(new, self.bed.sample(self.prompt, schedules[0], torch.stack(starts)), strict=True):
            images = self.bed.pipeline.decoder.decode(latents)
            before = [self.made[path[:place]].images[choice][None] for place, choice in enumerate(path)]
            scores = self.bed.scores(images, self.prompt.text, before)
            self.made[path] = Made(schedules[0], latents, images, scores)

    def play(self, rounds: int, rng: np.random.Generator) -> dict[str, tuple[int, ...]]:
        """The positions that every setting keeps, round by round."""
        paths: dict[str, tuple[int, ...]] = dict.fromkeys(settings(), ())
        for number in range(1, rounds + 1):
            self.make(list(paths.values()))
            for name, config in settings().items():
                known = [self.made[paths[name][:place]].scores for place in range(number)]
                best = int(rng.integers(BATCH))
                if config is not None:
                    z = z_scores(known[-1], running_scores(known))
                    weights = weigh(config, ROLES, number, gram=batch_gram(z, NAMES)).after
                    best = ranked(weighed(z, weights))[0]
                paths[name] += (best,)
        return paths

    def points(self, path: tuple[int, ...]) -> np.ndarray:
        """Scores of what a path kept after the first round, [rounds − 1, 3]."""
        rows = [self.made[path[:place]].scores[choice] for place, choice in enumerate(path) if place]
        return np.array([[row[name] for name in NAMES] for row in rows])


class Bed:
    """The demo model and the rewards."""

    def __init__(self) -> None:
        self.pipeline = DemoPipeline.load(DEMO / "attune_demo.safetensors")
        reward = load_reward(DEMO / "attune_demo_reward.safetensors", "cpu")
        others = [prompt_text(name) for name in data.CONCEPT_NAMES]
        self.rewards = DiversityReward(reward), ConsistencyReward(reward), RelevanceReward(reward, contrast=others)

    @property
    def blank(self) -> torch.Tensor:
        """What a session starts from, [16, 8, 8]."""
        return torch.zeros(self.pipeline.latent_shape)

    @torch.no_grad()
    def sample(self, prompt: Prompt, schedule: Schedule, starts: torch.Tensor) -> torch.Tensor:
        """Euler's method from latents [K, 16, 8, 8], each with all of the schedule's noise: [K, B, 16, 8, 8]."""
        process = self.pipeline.denoiser.process
        levels = sigmas(schedule.type, schedule.steps, process.sigma_min, process.sigma_max, strength=schedule.strength)
        shape = starts.shape[1:]
        noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in schedule.seeds])
        x = (starts[:, None] + levels[0] * noise).flatten(0, 1)
        for sigma, following in itertools.pairwise(levels):
            parts = [
                self.pipeline.denoiser(
                    part, sigma.expand(len(part)), [prompt.positive] * len(part), guidance=schedule.guidance
                )
                for part in x.split(AT_ONCE)
            ]
            x0 = torch.cat(parts)
            x = x0 + following / sigma * (x - x0)
        return x.unflatten(0, (len(starts), len(schedule.seeds)))

    def scores(self, images: torch.Tensor, text: str, before: Sequence[torch.Tensor]) -> list[dict[str, float]]:
        """Of a round's pictures, by all rewards."""
        context, texts = RewardContext(previous=list(before)), [text] * len(images)
        columns = [reward(images, texts, context).tolist() for reward in self.rewards]
        return [dict(zip(NAMES, row, strict=True)) for row in zip(*columns, strict=True)]


def trial(bed: Bed, plan: Plan, seed: int) -> dict[str, Any]:
    """Hypervolumes and distances to the session's front of every setting, one per session."""
    rng = np.random.default_rng([seed, 11])
    concepts = rng.permutation(data.CONCEPT_NAMES)[: plan.sessions]
    played = []
    for number, concept in enumerate(concepts):
        session = Session(bed, prompt_text(str(concept)), 1000 * seed + number)
        played.append((session, session.play(plan.rounds, rng)))
    every = [
        [row[name] for name in NAMES]
        for session, _ in played
        for path, made in session.made.items()
        for row in made.scores
        if path
    ]
    middle, unit = np.mean(every, axis=0), np.std(every, axis=0)
    found: dict[str, Any] = {"hypervolume": {}, "distance": {}, "pictures": len(every)}
    for name in settings():
        kept = [(session.points(paths[name]) - middle) / unit for session, paths in played]
        fronts = [
            np.vstack([(session.points(path) - middle) / unit for path in paths.values()]) for session, paths in played
        ]
        found["hypervolume"][name] = [hypervolume(points, [FLOOR] * len(NAMES)) for points in kept]
        found["distance"][name] = [
            float(distance_to_front(points, front).mean()) for points, front in zip(kept, fronts, strict=True)
        ]
    return found


def ratio(volumes: Mapping[str, Sequence[float]], rows: Sequence[int] | None = None) -> float:
    """The rule's mean hypervolume over the best fixed setting's, of some sessions."""
    means = {name: np.mean(np.array(own)[rows] if rows is not None else own) for name, own in volumes.items()}
    return float(means["rule"] / max(mean for name, mean in means.items() if name.startswith("fixed")))


def main(quick: bool) -> None:
    torch.set_flush_denormal(True)
    watch, plan, seeds = Stopwatch(), QUICK if quick else FULL, SEEDS[:2] if quick else SEEDS
    bed, runs = Bed(), []
    for seed in seeds:
        runs.append(trial(bed, plan, seed))
        print(f"seed {seed}: {ratio(runs[-1]['hypervolume']):.3f}, {watch.seconds:.0f} s", flush=True)
    volumes, distances = (
        {name: [value for run in runs for value in run[figure][name]] for name in settings()}
        for figure in ("hypervolume", "distance")
    )
    table = {
        name: {"hypervolume": float(np.mean(volumes[name])), "distance to the front": float(np.mean(distances[name]))}
        for name in settings()
    }
    for name, row in sorted(table.items(), key=lambda item: -item[1]["hypervolume"]):
        print(f"{name:22} {row['hypervolume']:7.3f} {row['distance to the front']:7.3f}")
    value, everybody = ratio(volumes), range(len(volumes["rule"]))
    print("reproduced" if CLAIM.holds(value) else "not reproduced")
    record(
        CLAIM,
        value,
        ci=bootstrap(everybody, lambda rows: ratio(volumes, list(rows)), draws=2000),
        seeds=len(seeds),
        seconds=watch.seconds,
        quick=quick,
        samples=[ratio(run["hypervolume"]) for run in runs],
        attempts=[{"what": name, "value": row["hypervolume"]} for name, row in table.items()],
        details={
            "settings": table,
            "sessions per seed": plan.sessions,
            "rounds, pictures": [plan.rounds, BATCH],
            "schedule": dataclasses.asdict(SCHEDULE),
        },
    )
