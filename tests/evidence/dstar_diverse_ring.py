"""dstar-diverse.ring: the claim of `dstar_diverse` on the ring of eight modes, in two dimensions, with exact scores.

One distilled generator, then branches of equal length: two rewards, both distances with their defaults, three weights
of the reward each, chosen on another seed so that both distances reach the same rewards. "modes" prefers some modes to
others (log-density of the target of `mixture_bed` less that of the ring), "outward" wants points further out, within
their modes. A distance's curve is reward and mean distance of pairs of points, where its branches end; the two curves
are compared at three rewards within what both reach.

Tried on seeds 100 to 102, all branches side by side with the library's losses, no adapters and five weights from 0.05
to 3: five rewards (modes by their place, by their weights, by their direction; outward; denser), 50 to 450 updates, 1,
2 and 5 updates of the assistant, pseudo-Huber, L2, and L2 with a = 1.2. At equal reward they have 0.93 to 1.09, 0.93 to
1.05 and 0.90 to 1.08 of the KL variant's distance of pairs; above 1.06 at 2, 0 and 2 of 144 compared rewards, always
the highest of a curve. Within modes pseudo-Huber often keeps more where the reward chooses modes (to 1.3 times; in the
record as well), less at the highest rewards (0.78) and where it wants points outward. No setting gave 1.1 over a range
of rewards, so that this one, with the defaults of the distances, was taken.

Why: the goals themselves hardly differ, however they are learned. Both were minimised over densities on a grid, with
exact scores and nothing trained (600 steps of Adam, seven weights, eight noise levels): at equal reward pseudo-Huber
then has 0.91 to 1.00 of KL's distance of pairs ("modes"), 1.00 to 1.01 ("outward") and 0.98 to 1.05 (modes by their
place). Scores hardly feel how much of the whole a mode is, as long as modes lie apart; with "modes" fewer are left, 4.2
in place of 4.5 at a reward of -1.15, while modes by their place go either way. Nor is the least KL divergence the most
variety: p·exp(αr)/Z, which has the least of the points themselves, keeps 1.35 to 1.87 ("modes"), KL at all noise levels
1.57 to 1.87.

What differs is what a weight does. The pull of pseudo-Huber has one length, however far a point is from where the
teacher wants it: on the grid "modes" moves nothing up to a weight of 0.2, and 0.43 gets where KL, whose pull grows with
the gap, gets with 0.043. At the same weight KL here has more reward and less variety. That looks like the claim and is
not: the curves of reward and variety lie nearly on each other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from attune.tests import mixture_bed as bed
from attune.training.adapters import LoraConfig, Policy
from attune.training.objectives.diff_instruct import DiffInstructObjective
from attune.training.objectives.diff_instruct_config import ASSISTANT, GENERATOR, DiffInstructConfig
from attune.training.objectives.diff_instruct_losses import Distance
from attune.training.one_step import generate, level_of
from attune.training.trained import parted
from attune.training.trainer import TrainerConfig, train

from .record import Claim, Stopwatch, bootstrap, record

CLAIM = Claim("dstar-diverse.ring", 1.1, ">=", "×", "at equal reward, on a ring: diversity of Diff-Instruct*, of KL's")
# Settings were chosen on the seeds of the quick run, which are not recorded.
SEEDS, QUICK_SEEDS = (0, 1, 2), (100, 101)


@dataclass(frozen=True)
class Plan:
    """How much is done: updates of the distillation and of each branch, points that are measured."""

    distilled: int
    preferred: int
    points: int


FULL, QUICK = Plan(400, 100, 4000), Plan(40, 25, 500)
LORA = LoraConfig(rank=16, alpha=16.0, targets=("everything",))
DISTIL = DiffInstructConfig(
    prompts_per_update=1, images_per_prompt=256, init_timestep=999, guidance=1.0, assistant_learning_rate=6e-3,
    noise_from=0.0, noise_to=1.0, chunk=256, guard_diversity=0.0, guard_saturation=0.0,
)  # fmt: skip
PREFER = replace(DISTIL, reward_rise=20)
TRAINER = TrainerConfig(
    learning_rate=2e-3,
    warmup_steps=0,
    betas=(0.0, 0.99),
    ema=0.98,
    weight_decay=0.0,
    schedule="constant",
    sample_every=0,
)
# KL pulls in proportion to the gap between the scores, pseudo-Huber with a constant force: one number means two things.
WEIGHTS: dict[Distance, tuple[float, ...]] = {"pseudo-huber": (0.6, 1.2, 2.4), "kl": (0.12, 0.35, 0.9)}
COMPARED_AT = (0.25, 0.5, 0.75)


def ring_density(points: torch.Tensor) -> torch.Tensor:
    """log of the ring's density at points [B, 2], up to a constant."""
    return (-torch.cdist(points, bed.MEANS).square() / (2 * bed.DEVIATION**2)).logsumexp(1)


def prefers_modes(points: torch.Tensor) -> torch.Tensor:
    return bed.log_target(points) - ring_density(points)


def prefers_outward(points: torch.Tensor) -> torch.Tensor:
    # Shifted under the root: a point in the middle has no direction outward, and must have a gradient.
    return -((points.square().sum(1) + 1e-6).sqrt() - 2.0).square()


REWARDS = {"modes": prefers_modes, "outward": prefers_outward}


class PointReward:
    """A function of points, asked about what `PointDecoder` shows of them."""

    differentiable, higher_is_better = True, True

    def __init__(self, name: str) -> None:
        self.name, self.reward_id = name, name

    def __call__(self, images: torch.Tensor, prompts: Sequence[str], context: object = None) -> torch.Tensor:
        return REWARDS[self.name](images[:, 0, 0, :2])


class Run:
    """A distilled generator and what branches make of it."""

    def __init__(self, policy: Policy, plan: Plan, seed: int) -> None:
        self.policy, self.plan, self.seed = policy, plan, seed
        trained = self._train(DISTIL, "modes", plan.distilled)
        self.start, self.assistant = trained, policy.tensors(ASSISTANT)
        self.distilled = {name: self._measured(reward) for name, reward in REWARDS.items()}

    def branch(self, reward: str, config: DiffInstructConfig) -> dict[str, float]:
        """Where a branch ends."""
        self.policy.load_tensors(self.start, GENERATOR)
        self.policy.load_tensors(self.assistant, ASSISTANT)
        self._train(config, reward, self.plan.preferred)
        return {"weight": config.reward_weight} | self._measured(REWARDS[reward])

    def _train(self, config: DiffInstructConfig, reward: str, updates: int) -> dict[str, torch.Tensor]:
        """The average of the generator's weights, which the policy then holds."""
        objective = DiffInstructObjective(
            bed.PROMPTS, PointReward(reward), bed.PointDecoder(), config, latent_shape=bed.LATENT_SHAPE
        )
        result = train(self.policy, objective, replace(TRAINER, steps=updates, seed=self.seed))
        average = parted(result.tensors)[0]
        self.policy.load_tensors(average, GENERATOR)
        return average

    @torch.no_grad()
    def _measured(self, reward: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
        generator = torch.Generator().manual_seed(4321)
        noise = torch.randn(self.plan.points, *bed.LATENT_SHAPE, generator=generator)
        with self.policy.role(GENERATOR):
            sigma = level_of(self.policy.process, DISTIL.init_timestep)
            points = generate(self.policy, noise, [None] * len(noise), sigma=sigma).flatten(1)
        shares, near = bed.mode_shares(points), torch.cdist(points, bed.MEANS).argmin(1)
        within = [points[near == mode].var(0, correction=0).sum() * shares[mode] / 2 for mode in near.unique()]
        return {
            "reward": reward(points).mean().item(),
            "distance of pairs": torch.pdist(points[:2000]).mean().item(),
            "modes": math.exp(torch.special.entr(shares).sum().item()),
            "deviation within modes": math.sqrt(torch.stack(within).sum().item()),
        }


def at_reward(points: Sequence[Mapping[str, float]], reward: float, figure: str) -> float:
    """A figure at a reward, by straight lines between the ends of branches.

    Raises:
        ValueError: the reward lies outside of them.
    """
    ordered = sorted(points, key=lambda point: point["reward"])
    for low, high in itertools.pairwise(ordered):
        if low["reward"] <= reward <= high["reward"]:
            share = (reward - low["reward"]) / max(high["reward"] - low["reward"], 1e-12)
            return low[figure] + share * (high[figure] - low[figure])
    raise ValueError(f"no branches on both sides of a reward of {reward:.3f}")


def compared(score: Sequence[Mapping[str, float]], kl: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """At each reward the ratios of the figures, of the score's to the KL's."""
    low = max(min(point["reward"] for point in points) for points in (score, kl))
    high = min(max(point["reward"] for point in points) for points in (score, kl))
    found = []
    for share in COMPARED_AT:
        reward = low + share * (high - low)
        figures = ("distance of pairs", "modes", "deviation within modes")
        found.append({"reward": reward} | {f: at_reward(score, reward, f) / at_reward(kl, reward, f) for f in figures})
    return found


def run(seed: int, plan: Plan) -> dict[str, Any]:
    """The branches of one seed, and how they compare."""
    found: dict[str, Any] = {"seed": seed}
    with Policy(
        bed.RingDenoiser(width=64, seed=seed), replace(LORA, seed=seed), roles=(GENERATOR, ASSISTANT)
    ) as policy:
        made = Run(policy, plan, seed)
        found["distilled"] = made.distilled
        for reward in REWARDS:
            ends = {
                kind: [made.branch(reward, replace(PREFER, distance=kind, reward_weight=w)) for w in weights]
                for kind, weights in WEIGHTS.items()
            }
            found[reward] = ends | {"compared": compared(ends["pseudo-huber"], ends["kl"])}
            print(seed, reward, found[reward], flush=True)
    return found


def main(quick: bool) -> None:
    watch = Stopwatch()
    plan, seeds = (QUICK, QUICK_SEEDS) if quick else (FULL, SEEDS)
    torch.set_flush_denormal(True)
    found = [run(seed, plan) for seed in seeds]
    rows = {r: [[c["distance of pairs"] for c in one[r]["compared"]] for one in found] for r in REWARDS}
    values = [sum(sum(rows[r][i]) for r in REWARDS) / (len(REWARDS) * len(COMPARED_AT)) for i in range(len(found))]
    record(
        CLAIM,
        sum(values) / len(values),
        ci=bootstrap(values),
        seeds=len(found),
        seconds=watch.seconds,
        quick=quick,
        samples=values,
        attempts=[
            {"what": f"seed {one['seed']}, {r}, at {share:g} of the shared rewards", "value": value}
            for r in REWARDS
            for one, ratios in zip(found, rows[r], strict=True)
            for share, value in zip(COMPARED_AT, ratios, strict=True)
        ],
        details={
            "plan": asdict(plan), "distillation": asdict(DISTIL), "branches": asdict(PREFER), "weights": WEIGHTS,
            "trainer": asdict(TRAINER), "LoRA": asdict(LORA), "runs": found,
        },
    )  # fmt: skip
