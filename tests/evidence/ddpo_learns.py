"""ddpo-learns: DDPO raises a black-box reward on prompts it never practised, without wrecking the picture.

Bed: the demo model. Reward: the size of the picture as a JPEG file, as low as possible (Black et al. 2023's
compressibility task): it has no gradient, so nothing but a policy gradient can learn it. The figure is the gain in
standard deviations of the base model's scores, on unseen prompts (concepts that no practice prompt names) and fixed
seeds, over the seeds of training. Reported beside it: the demo judge, which is never optimised, and diversity.
The learning rate is the best of `RATES`: the one whose pictures of the *practice* prompts, drawn by the sampler of the
figure, earn most after a run as long as the measured ones, of a seed that is not measured.

What was tried before, with the present demo model: 16 updates, fixed first, gained 0.47 sd (seed 0; stopped then). 32
was chosen after a look at the unseen prompts of that time, and gained 1.52 sd on them. Because those prompts had been
looked at, the two halves were exchanged: the concepts practised then are the unseen ones now, with styles, backgrounds
and noise of their own, and the length stayed at 32. That missed the goal (the result file's `earlier`): the rate was
then chosen by the rewards of the rollouts, which are drawn in 8 steps without guidance, and the highest rate won there
while it wrecked the guided pictures that are measured. Hence the present rule for the rate, which looks at no unseen
prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from attune.nodes.rewards.load import load_reward
from attune.nodes.rewards.statistics import StatisticReward
from attune.training.adapters import LoraConfig, Policy
from attune.training.demo import data
from attune.training.demo.pipeline import DemoPipeline, prompt_text
from attune.training.interfaces import Denoiser, RunCallbacks
from attune.training.objectives.ddpo import DDPOConfig, DDPOObjective
from attune.training.objectives.transitions import StepWeights
from attune.training.rollout import play
from attune.training.trainer import TrainerConfig, train

from .record import ROOT, Claim, Stopwatch, bootstrap, plot_path, record

CLAIM = Claim("ddpo-learns", 1.0, ">=", "sd", "DDPO's gain of a black-box reward on unseen prompts")
DEMO = ROOT / "workflows" / "demo"
SEEDS = (0, 1, 2)
TRIAL_SEED, RATES = 99, (1e-3, 3e-3, 1e-2)
EVALUATION_SEED = 4321
CONCEPTS = 40  # practised, and as many unseen
GUIDANCE, SAMPLER_STEPS = 3.0, 20


@dataclass(frozen=True)
class Plan:
    """How much is done; the quick plan only proves that the script works."""

    updates: int
    unseen_prompts: int
    images_per_prompt: int


FULL, QUICK = Plan(32, 64, 8), Plan(3, 4, 2)
DDPO = DDPOConfig(prompts_per_update=8, images_per_prompt=8, steps=8, guidance=1.0, transitions=4, chunk=64, minimum=8)
TRAINER = TrainerConfig(sample_every=0)


def prompts(count_unseen: int) -> tuple[list[str], list[str]]:
    """Practice prompts and unseen ones; no concept is in both."""
    concepts = list(np.random.default_rng(0).permutation(data.CONCEPT_NAMES))
    unseen, practice = concepts[:CONCEPTS], concepts[CONCEPTS : 2 * CONCEPTS]
    rng = np.random.default_rng(1)

    def write(names: list[str], count: int) -> list[str]:
        styles, backgrounds = list(data.STYLES), list(data.BACKGROUNDS)
        chosen = [names[i % len(names)] for i in range(count)]
        return [prompt_text(name, str(rng.choice(styles)), str(rng.choice(backgrounds))) for name in chosen]

    return write(practice, len(practice)), write(unseen, count_unseen)


@torch.no_grad()
def pictures(
    policy: Policy | Denoiser, pipeline: DemoPipeline, texts: Sequence[str], *, seed: int = EVALUATION_SEED
) -> torch.Tensor:
    """One picture per text, from a fixed seed, by the deterministic sampler: float32 [B, h, w, 3]."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for start in range(0, len(texts), 64):
        part = pipeline.prompts(texts[start : start + 64])
        noise = torch.randn(len(part), *pipeline.latent_shape, generator=generator)
        played = play(
            policy,
            policy.process,
            noise,
            [prompt.positive for prompt in part],
            steps=SAMPLER_STEPS,
            guidance=GUIDANCE,
            generator=generator,
            eta=0.0,
        )
        parts.append(pipeline.decoder.decode(played.pictures))
    return torch.cat(parts)


def diversity(features: torch.Tensor, per_prompt: int) -> float:
    """Mean pairwise 1 − cos of unit features [P·n, D] within a prompt."""
    groups = features.reshape(-1, per_prompt, features.shape[-1])
    cosines = groups @ groups.transpose(1, 2)
    off_diagonal = cosines.sum((1, 2)) - per_prompt
    return float((1 - off_diagonal / (per_prompt * (per_prompt - 1))).mean())


class _Progress(RunCallbacks):
    def __init__(self, seed: int, updates: int) -> None:
        self.seed, self.updates, self.watch = seed, updates, Stopwatch()

    def on_report(self, step: int, metrics: Any) -> None:
        print(
            f"seed {self.seed}: update {step}/{self.updates}, reward {metrics['reward']:.4g}, "
            f"held-out {metrics['held_out_reward']:.4g}, {self.watch.seconds:.0f} s",
            flush=True,
        )


class Bed:
    """The demo model, the rewards, and the prompts: what every run shares."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.pipeline = DemoPipeline.load(DEMO / "attune_demo.safetensors")
        self.judge = load_reward(DEMO / "attune_demo_judge.safetensors", "cpu")
        self.reward = StatisticReward("JPEG size", "as low as possible")
        self.practice, unseen = prompts(plan.unseen_prompts)
        self.texts = [text for text in unseen for _ in range(plan.images_per_prompt)]
        self.rehearsal = [text for text in self.practice for _ in range(plan.images_per_prompt)]
        with Policy(self.pipeline.denoiser, LoraConfig(rank=8)) as untrained:
            self.base = self.measure(untrained, self.texts)

    def measure(self, policy: Policy, texts: list[str]) -> dict[str, Any]:
        images = pictures(policy, self.pipeline, texts)
        features = self.judge.reward.image_features(images)
        return {
            "reward": self.reward(images, texts),
            "held_out": self.judge(images, texts).mean().item(),
            "diversity": diversity(features, self.plan.images_per_prompt),
        }

    def run(self, weights: StepWeights, rate: float, seed: int, *, trial: bool = False) -> dict[str, Any]:
        """One training run, with its figures on unseen prompts, or on the practised ones if it is a trial."""
        trainer = replace(TRAINER, steps=self.plan.updates, learning_rate=rate, seed=seed)
        with Policy(self.pipeline.denoiser, LoraConfig(rank=8, seed=seed)) as policy:
            objective = DDPOObjective(
                self.pipeline.prompts(self.practice), self.reward, self.pipeline.decoder,
                replace(DDPO, step_weights=weights), latent_shape=self.pipeline.latent_shape, held_out=self.judge,
            )  # fmt: skip
            result = train(policy, objective, trainer, callbacks=_Progress(seed, self.plan.updates))
            after = self.measure(policy, self.rehearsal if trial else self.texts)
        row: dict[str, Any] = {
            "step_weights": weights, "learning_rate": rate, "seed": seed, "seconds": result.seconds,
            "curve": [entry["reward"] for entry in result.history], "reward_after": after["reward"].mean().item(),
        }  # fmt: skip
        if not trial:
            gain = (after["reward"].mean() - self.base["reward"].mean()) / self.base["reward"].std()
            row |= {"gain_sd": gain.item(), "reward_before": self.base["reward"].mean().item()}
            for name in ("held_out", "diversity"):
                row |= {f"{name}_before": self.base[name], f"{name}_after": after[name]}
        print({name: value for name, value in row.items() if name != "curve"}, flush=True)
        return row

    def best_rate(self, weights: StepWeights) -> tuple[float, list[dict[str, Any]]]:
        """The learning rate whose pictures of practised prompts earned most, and all the trials."""
        trials = [self.run(weights, rate, TRIAL_SEED, trial=True) for rate in RATES]
        return max(trials, key=lambda row: row["reward_after"])["learning_rate"], trials

    def runs_at_best_rate(self, weights: StepWeights, seeds: Sequence[int]) -> dict[str, Any]:
        """All of one kind: the trials of the rate, and the measured runs at the best one."""
        rate, trials = self.best_rate(weights)
        return {"runs": [self.run(weights, rate, seed) for seed in seeds], "trials_of_the_rate": trials}

    def details(self) -> dict[str, Any]:
        """What was the same in every run."""
        return {
            "ddpo": asdict(DDPO), "trainer": asdict(TRAINER), "unseen_prompts": self.plan.unseen_prompts,
            "images": len(self.texts), "practice_prompts": len(self.practice),
        }  # fmt: skip


def attempts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The record's list of what was tried."""
    return [
        {"what": f"{row['step_weights']}, rate {row['learning_rate']:g}, seed {row['seed']}", "value": row["gain_sd"]}
        for row in rows
    ]


def main(quick: bool) -> None:
    plan, seeds = (QUICK, SEEDS[:2]) if quick else (FULL, SEEDS)
    watch = Stopwatch()
    torch.set_flush_denormal(True)
    bed = Bed(plan)
    found = bed.runs_at_best_rate("balanced", seeds)
    rows = found["runs"]
    gains = [row["gain_sd"] for row in rows]
    plot({f"training seed {row['seed']}": row["curve"] for row in rows}, CLAIM, title="DDPO learns", quick=quick)
    record(
        CLAIM,
        float(np.mean(gains)),
        ci=bootstrap(gains),
        seeds=len(seeds),
        seconds=watch.seconds,
        quick=quick,
        samples=gains,
        attempts=attempts(rows),
        details=found | bed.details(),
    )


def plot(curves: Mapping[str, Sequence[float]], claim: Claim, *, title: str, quick: bool) -> None:
    """The claim's picture: one panel per named reward curve."""
    from attune.nodes.charts import Curve, curve_chart

    drawn = [
        Curve("reward", f"Reward (minus JPEG size), {name}", list(range(1, len(curve) + 1)), list(curve))
        for name, curve in curves.items()
    ]
    chart = curve_chart(drawn, title=title, details="reward of the rollouts over the updates")
    chart.save(plot_path(claim, quick=quick, part="curves"))
