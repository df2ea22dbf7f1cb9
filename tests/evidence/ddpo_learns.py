"""ddpo-learns: DDPO raises a black-box reward on prompts it never practised, without wrecking the picture.

Bed: the demo model. Reward: the size of the picture as a JPEG file, as low as possible (Black et al. 2023's
compressibility task): it has no gradient, so nothing but a policy gradient can learn it. The figure is the gain in
standard deviations of the base model's scores, on unseen prompts (concepts that no practice prompt names) and fixed
seeds, over the seeds of training. Reported beside it: the demo judge, which is never optimised, and diversity.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from attune.nodes.rewards.load import load_reward
from attune.nodes.rewards.statistics import StatisticReward
from attune.training.adapters import LoraConfig, Policy
from attune.training.demo import data
from attune.training.demo.pipeline import DemoPipeline, prompt_text
from attune.training.interfaces import RunCallbacks
from attune.training.objectives.ddpo import DDPOConfig, DDPOObjective
from attune.training.rollout import play
from attune.training.trainer import TrainerConfig, train

from .record import ROOT, Claim, Stopwatch, bootstrap, plot_path, record

CLAIM = Claim("ddpo-learns", 1.0, ">=", "sd", "DDPO's gain of a black-box reward on unseen prompts")
DEMO = ROOT / "workflows" / "demo"
SEEDS = (0, 1, 2)
EVALUATION_SEED = 1234
GUIDANCE, SAMPLER_STEPS = 3.0, 20


@dataclass(frozen=True)
class Plan:
    """How much is done; the quick plan only proves that the script works."""

    updates: int
    unseen_prompts: int
    images_per_prompt: int


FULL, QUICK = Plan(16, 64, 8), Plan(3, 4, 2)


def prompts(count_unseen: int) -> tuple[list[str], list[str]]:
    """Practice prompts and unseen ones; no concept is in both."""
    rng = np.random.default_rng(0)
    concepts = list(rng.permutation(data.CONCEPT_NAMES))
    practice, rest = concepts[:40], concepts[40:]

    def write(names: list[str], count: int) -> list[str]:
        styles, backgrounds = list(data.STYLES), list(data.BACKGROUNDS)
        chosen = [names[i % len(names)] for i in range(count)]
        return [prompt_text(name, str(rng.choice(styles)), str(rng.choice(backgrounds))) for name in chosen]

    return write(practice, len(practice)), write(rest, count_unseen)


@torch.no_grad()
def pictures(policy: Policy, pipeline: DemoPipeline, texts: list[str]) -> torch.Tensor:
    """One picture per text, from fixed seeds, by the deterministic sampler: float32 [B, h, w, 3]."""
    generator = torch.Generator().manual_seed(EVALUATION_SEED)
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


def main(quick: bool) -> None:
    plan, seeds = (QUICK, SEEDS[:2]) if quick else (FULL, SEEDS)
    watch = Stopwatch()
    torch.set_flush_denormal(True)
    pipeline = DemoPipeline.load(DEMO / "attune_demo.safetensors")
    judge = load_reward(DEMO / "attune_demo_judge.safetensors", "cpu")
    reward = StatisticReward("JPEG size", "as low as possible")
    practice, unseen = prompts(plan.unseen_prompts)
    texts = [text for text in unseen for _ in range(plan.images_per_prompt)]
    config = DDPOConfig(
        prompts_per_update=8, images_per_prompt=8, steps=8, guidance=1.0, transitions=4, chunk=64, minimum=8
    )
    trainer = TrainerConfig(steps=plan.updates, learning_rate=3e-3, sample_every=0)

    def measure(policy: Policy) -> dict[str, Any]:
        images = pictures(policy, pipeline, texts)
        return {
            "reward": reward(images, texts),
            "held_out": judge(images, texts).mean().item(),
            "diversity": diversity(judge.reward.image_features(images), plan.images_per_prompt),
        }

    gains, rows, curves, base = [], [], [], None
    for seed in seeds:
        with Policy(pipeline.denoiser, LoraConfig(rank=8, seed=seed)) as policy:
            base = base or measure(policy)
            objective = DDPOObjective(
                pipeline.prompts(practice), reward, pipeline.decoder, config, latent_shape=pipeline.latent_shape,
                held_out=judge,
            )  # fmt: skip
            result = train(
                policy,
                objective,
                TrainerConfig(**(asdict(trainer) | {"seed": seed})),
                callbacks=_Progress(seed, plan.updates),
            )
            after = measure(policy)
        gain = float((after["reward"].mean() - base["reward"].mean()) / base["reward"].std())
        gains.append(gain)
        curves.append([row["reward"] for row in result.history])
        rows.append({
            "seed": seed,
            "gain_sd": gain,
            "reward_before": base["reward"].mean().item(),
            "reward_after": after["reward"].mean().item(),
            "held_out_before": base["held_out"],
            "held_out_after": after["held_out"],
            "diversity_before": base["diversity"],
            "diversity_after": after["diversity"],
            "seconds": result.seconds,
        })  # fmt: skip
        print(rows[-1], flush=True)
    _plot(curves, quick)
    record(
        CLAIM,
        float(np.mean(gains)),
        ci=bootstrap(gains),
        seeds=len(seeds),
        seconds=watch.seconds,
        quick=quick,
        attempts=[{"what": f"DDPO, {plan.updates} updates of 64 rollouts, seed {r['seed']}", "value": r["gain_sd"]}
                  for r in rows],
        details={
            "per_seed": rows, "ddpo": asdict(config), "trainer": asdict(trainer), "unseen_prompts": len(unseen),
            "images": len(texts), "practice_prompts": len(practice),
        },
    )  # fmt: skip


def _plot(curves: list[list[float]], quick: bool) -> None:
    from attune.nodes.training.charts import Curve, curve_chart

    drawn = [
        Curve("reward", f"Reward (minus JPEG size), training seed {seed}", list(range(1, len(curve) + 1)), curve)
        for seed, curve in enumerate(curves)
    ]
    chart = curve_chart(drawn, title="DDPO learns", details="reward of the rollouts over the updates")
    chart.save(plot_path(CLAIM, quick=quick))
