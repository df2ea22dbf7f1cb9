"""DDPO and DAG-KL on the demo model, side by side: the runs that dag-sample, dag-diverse and dag-cost look at.

All practise on the same prompts, with the same number of rollouts per update, learning rate, LoRA and sampler steps;
the reward is the size of the picture as a JPEG file (a black box). DDPO learns from all eight steps of a rollout.
DAG-KL is run twice:
    dag-kl        the target exp(βr), β = 10, four steps of a rollout: with its five predictions of x̂0 about as many
                  calls of the network as DDPO. What dag-sample and dag-cost look at
    dag-kl-prior  the target p_ref·exp(βr), β = 0.25, all eight steps. What dag-diverse looks at
Every few updates the policy is measured on prompts whose concepts are never practised, with fixed noise, by the sampler
of the rollouts without its noise: reward, the judge that is never optimised, diversity, Vendi score, and the distance
of the pictures from the base model's (KID). Measuring does not count as training time; time is the processor's, on one
core, so that other programs beside do not count.

What was tried before, on a seed that is not measured, on practised prompts; gain in deviations, diversity of the base
model 0.064:
    - 64 rollouts per update, DDPO from four drawn steps: DAG-KL (β 10, four steps) leads by 1.9 in the area over 16
      updates. That compares unequal numbers of network calls; from all eight steps DDPO has .16, .70, 1.39, 2.05 after
      4, 8, 12, 16 updates, DAG-KL .19, .80, 1.67, 2.95, an area of 1.26. One trained step per rollout: as DDPO;
    - 16 rollouts per update, from each of which both learn more (taken): DDPO .53, 2.22, 3.10 after 16, 32, 48 updates,
      DAG-KL 1.25, 3.84, 3.70. With β 2: .82, 3.57. At a gain of 2.2 its diversity is below DDPO's (.040 against .053);
    - β 1, 64 rollouts: stops at .3, diversity rises to .075. No β in between was found at which exp(βr) keeps variety
      and learns: 4 has DDPO's gain and diversity, within 5 %;
    - p_ref, 16 rollouts, four steps: β .1 stops at .5 (diversity .076), .2 at 2.0 (.065), .3 at 3.2 (.038), .4 goes on
      to 3.6 (.029). DDPO has .056 at a gain of 2.0, .037 at 2.6, .032 at 3.1. All eight steps, β .25: 2.6 with .059;
    - the demo's learned reward instead of the file's size: DDPO gains .2 at best, too little to compare;
    - credit "to the end", which dag-target needs: one seed, 16 unseen prompts: .16, .54, 1.06, 1.66, 2.12, 2.32 after
      8, 16, … 48 updates, where credit by the step has .18, .64, 1.61, 2.49, 2.41, 2.43. It is slower here, and keeps
      more variety: .022 at a gain of 2.1, .028 at 2.3, against .007 at 2.5 (base model .060).

Runs are kept in a file beside the results' cache and used again by the other claims, as long as the commit and the plan
are the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attune.nodes.rewards.load import load_reward
from attune.nodes.rewards.statistics import StatisticReward
from attune.training.adapters import LoraConfig, Policy
from attune.training.demo.pipeline import DemoPipeline
from attune.training.diversity import grouped_diversity
from attune.training.interfaces import RunCallbacks
from attune.training.objectives.dag import DAGObjective
from attune.training.objectives.dag_config import DAGConfig
from attune.training.objectives.ddpo import DDPOConfig, DDPOObjective
from attune.training.rollout import play
from attune.training.trainer import TrainerConfig, train

from .ddpo_learns import DEMO, prompts
from .record import ROOT, commit

METHODS = ("ddpo", "dag-kl", "dag-kl-prior")
SEEDS = (0, 1, 2)
EVALUATION_SEED = 4321
CACHE = ROOT / ".cache" / "evidence"


@dataclass(frozen=True)
class Plan:
    """How much is done; the quick plan only proves that the script works."""

    updates: int
    every: int
    unseen_prompts: int
    images_per_prompt: int


FULL, QUICK = Plan(48, 8, 64, 8), Plan(2, 1, 4, 2)
COMMON = {"prompts_per_update": 2, "images_per_prompt": 8, "steps": 8, "guidance": 1.0, "chunk": 64}
DDPO = DDPOConfig(**COMMON, transitions=8, minimum=8)
DAG = DAGConfig(**COMMON, variant="KL", transitions=4, beta=10.0, anneal_updates=0, flow_channels=(16, 32))
PRIOR = replace(DAG, reference_prior=True, beta=0.25, transitions=8)
TRAINER = TrainerConfig(learning_rate=3e-3, sample_every=0)


def vendi_score(features: torch.Tensor) -> float:
    """exp of the entropy of the eigenvalues of K/n, K the cosines of n features [n, D]: from 1 (all alike) to n.

    References:
        Friedman & Dieng 2023, "The Vendi Score".
    """
    vectors = torch.nn.functional.normalize(features.double(), dim=1)
    values = torch.linalg.eigvalsh(vectors @ vectors.T / len(vectors)).clamp_min(1e-12)
    return float((-(values * values.log()).sum()).exp())


def kernel_distance(one: torch.Tensor, two: torch.Tensor) -> float:
    """KID: the unbiased squared MMD of features [n, D] and [m, D] under the kernel (x·y/D + 1)³.

    References:
        Bińkowski et al. 2018, "Demystifying MMD GANs".
    """

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a.double() @ b.double().T / a.shape[1] + 1) ** 3

    n, m = len(one), len(two)
    same, other = kernel(one, one), kernel(two, two)
    within = (same.sum() - same.trace()) / (n * (n - 1)) + (other.sum() - other.trace()) / (m * (m - 1))
    return float(within - 2 * kernel(one, two).mean())


class Bed:
    """The demo model, the rewards, and the prompts."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.pipeline = DemoPipeline.load(DEMO / "attune_demo.safetensors")
        self.judge = load_reward(DEMO / "attune_demo_judge.safetensors", "cpu")
        self.reward = StatisticReward("JPEG size", "as low as possible")
        self.practice, unseen = prompts(plan.unseen_prompts)
        self.texts = [text for text in unseen for _ in range(plan.images_per_prompt)]
        self.base_features: torch.Tensor | None = None

    @torch.no_grad()
    def measure(self, policy: Policy) -> dict[str, float]:
        """Figures of the policy's pictures of the unseen prompts."""
        generator, parts = torch.Generator().manual_seed(EVALUATION_SEED), []
        for start in range(0, len(self.texts), 64):
            part = self.pipeline.prompts(self.texts[start : start + 64])
            noise = torch.randn(len(part), *self.pipeline.latent_shape, generator=generator)
            path = play(policy, policy.process, noise, [prompt.positive for prompt in part], steps=COMMON["steps"],
                        guidance=COMMON["guidance"], generator=generator, eta=0.0)  # fmt: skip
            parts.append(self.pipeline.decoder.decode(path.pictures))
        images = torch.cat(parts)
        rewards, features = self.reward(images, self.texts), self.judge.reward.image_features(images)
        if self.base_features is None:
            self.base_features = features
        groups = features.split(self.plan.images_per_prompt)
        return {
            "reward": rewards.mean().item(),
            "reward_deviation": rewards.std().item(),
            "held_out": self.judge(images, self.texts).mean().item(),
            "diversity": grouped_diversity(features, self.texts),
            "vendi": float(np.mean([vendi_score(group) for group in groups])),
            "kid": kernel_distance(features, self.base_features),
        }

    def objective(self, method: str) -> Any:
        config = {"ddpo": DDPO, "dag-kl": DAG, "dag-kl-prior": PRIOR}[method]
        kind = DDPOObjective if method == "ddpo" else DAGObjective
        return kind(
            self.pipeline.prompts(self.practice), self.reward, self.pipeline.decoder, config,
            latent_shape=self.pipeline.latent_shape, held_out=self.judge,
        )  # fmt: skip

    def run(self, method: str, seed: int) -> dict[str, Any]:
        """One training run: what it was measured at, and what it cost until then."""
        plan = self.plan
        config = replace(TRAINER, steps=plan.updates, seed=seed)
        points: list[dict[str, float]] = []
        with Policy(self.pipeline.denoiser, LoraConfig(rank=8, seed=seed)) as policy:

            class Measure(RunCallbacks):
                """Looks at the policy now and then; the time that takes is no training time."""

                looking = 0.0

                def on_report(watch, step: int, metrics: Mapping[str, float]) -> None:
                    if step % plan.every and step != plan.updates:
                        return
                    now = time.process_time()
                    policy.training_mode(False)
                    cost = {"step": step, "seconds": now - began - watch.looking}
                    cost |= {name: metrics[name] for name in ("rollouts", "reward_calls")}
                    points.append(cost | self.measure(policy))
                    watch.looking += time.process_time() - now
                    print(method, seed, {name: round(value, 4) for name, value in points[-1].items()}, flush=True)

            start = {"step": 0, "seconds": 0.0, "rollouts": 0.0, "reward_calls": 0.0}
            points.append(start | self.measure(policy))
            began = time.process_time()
            train(policy, self.objective(method), config, callbacks=Measure())
        return {"method": method, "seed": seed, "points": points}


def runs(quick: bool) -> list[dict[str, Any]]:
    """Every method with every seed; taken from the cache where this commit has made them before."""
    plan, seeds = (QUICK, SEEDS[:2]) if quick else (FULL, SEEDS)
    torch.set_flush_denormal(True)
    key = {"commit": commit(), "plan": asdict(plan), "dag": asdict(DAG), "prior": asdict(PRIOR), "ddpo": asdict(DDPO)}
    key["seeds"] = list(seeds)
    file = CACHE / f"dag-runs{'-quick' if quick else ''}.json"
    known = _read(file)
    if known.get("key") == json.loads(json.dumps(key)) and not key["commit"].endswith("+changes"):
        return known["runs"]
    bed = Bed(plan)
    found = [bed.run(method, seed) for seed in seeds for method in METHODS]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"key": key, "runs": found}), encoding="utf-8")
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def gains(run: Mapping[str, Any]) -> list[float]:
    """Reward over the base model's, in deviations of its scores, at every measured point."""
    first = run["points"][0]
    return [(point["reward"] - first["reward"]) / first["reward_deviation"] for point in run["points"]]


def area(run: Mapping[str, Any], axis: str, until: float) -> float:
    """∫ gain d(axis) from 0 to `until`, by straight lines between the points; divided by `until`."""
    places = np.array([point[axis] for point in run["points"]], dtype=float)
    values = np.array(gains(run))
    grid = np.unique(np.concatenate([places[places <= until], [until]]))
    return float(np.trapezoid(np.interp(grid, places, values), grid) / until)


def pairs(
    found: Sequence[Mapping[str, Any]], method: str = "dag-kl"
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """(DDPO, DAG-KL) of every seed."""
    by = {(run["method"], run["seed"]): run for run in found}
    return [(by["ddpo", seed], by[method, seed]) for seed in sorted({seed for _, seed in by})]


def at_gain(run: Mapping[str, Any], gain: float, figure: str) -> float:
    """A figure where the run first reaches a gain, by straight lines between the points."""
    values, points = gains(run), run["points"]
    for (low, before), (high, after) in zip(
        zip(values, points, strict=True), list(zip(values, points, strict=True))[1:], strict=False
    ):
        if low <= gain <= high and high > low:
            share = (gain - low) / (high - low)
            return before[figure] + share * (after[figure] - before[figure])
    raise ValueError(f"the run never reaches a gain of {gain}")
