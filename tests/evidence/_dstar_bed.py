"""Diff-Instruct* on the demo model: the runs that dstar-distil, dstar-reward and dstar-diverse look at.

Every run practises on prompts of concept, style and background, some of which leave out one or two; none of them is
measured on. First a one-step generator is distilled from the model with guidance 3, without any reward; from there two
branches of equal length raise the demo reward: one holds to the teacher by the pseudo-Huber distance of scores
(Diff-Instruct*), the other by the KL divergence (Diff-Instruct++). Everything else is the same, the noise and the
prompts included.
The teacher is the model itself with 20 deterministic steps and guidance 3.

Measured on prompts that name all three, with fixed noise, by the running average of the weights:
    match       mean share of pictures whose background (read from the pixels of the edge), style (of six) and concept
                (of all) are the wished ones; style and concept as the demo judge sees them
    reward      of the demo reward, which the branches raise; judge: of the held-out one
    diversity   how much four pictures of a prompt differ, by the judge's features
    kid         distance of the pictures from the teacher's, by the judge's features

Tried with seed 0: an assistant's rate of 4e-3 with this rank broke the distillation: a match of 0.53 after 100 updates.

A run is kept in a file beside the results' cache and used again by the other claims, as long as the commit and the plan
are the same.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from attune.nodes.rewards.load import load_reward
from attune.training.adapters import LoraConfig, Policy
from attune.training.demo import data
from attune.training.demo.pipeline import DemoPipeline, prompt_text
from attune.training.demo.quality import background_of
from attune.training.demo.train_one_step import encoded, practice_texts, random_wish
from attune.training.diversity import grouped_diversity
from attune.training.interfaces import Prompt, RunCallbacks
from attune.training.objectives.collapse import saturation
from attune.training.objectives.diff_instruct import DiffInstructObjective
from attune.training.objectives.diff_instruct_config import ASSISTANT, GENERATOR, DiffInstructConfig
from attune.training.one_step import generate, level_of
from attune.training.rollout import play
from attune.training.trained import parted
from attune.training.trainer import TrainerConfig, train

from ._dag_bed import kernel_distance
from .ddpo_learns import DEMO
from .record import ROOT, commit

SEEDS = (0, 1, 2)
CACHE = ROOT / ".cache" / "evidence"
TEACHER_STEPS, GUIDANCE = 20, 3.0
NOISE_SEED, WISH_SEED, AT_ONCE = 4321, 77, 32


@dataclass(frozen=True)
class Plan:
    """How much is done; the quick plan only proves that the script works.

    Attributes:
        distilled: updates of the distillation; preferred: of each branch, measured after every `every` of them.
        practice: prompts; wishes: prompts that are measured on; copies: pictures of each of the first quarter of them.
    """

    distilled: int
    preferred: int
    every: int
    practice: int
    wishes: int
    copies: int


FULL, QUICK = Plan(100, 120, 20, 1500, 192, 4), Plan(2, 2, 1, 16, 8, 2)
LORA = LoraConfig(
    rank=32,
    alpha=32.0,
    targets=("cross-attention", "self-attention", "feed-forward", "projection", "convolution", "timestep"),
)
DISTIL = DiffInstructConfig(
    prompts_per_update=32,
    init_timestep=999,
    guidance=GUIDANCE,
    assistant_learning_rate=1e-3,
    guard_diversity=0.0,
    guard_saturation=0.0,
)
PREFER = replace(DISTIL, prompts_per_update=16, reward_weight=8.0, reward_rise=10)
BRANCHES = {"score": PREFER, "kl": replace(PREFER, distance="kl")}
TRAINER = TrainerConfig(learning_rate=1e-3, betas=(0.0, 0.99), weight_decay=0.0, ema=0.95, sample_every=0)


class Bed:
    """The demo model, its rewards, and what is measured."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.pipeline = DemoPipeline.load(DEMO / "attune_demo.safetensors")
        self.reward, self.judge = (load_reward(DEMO / f"attune_demo_{name}.safetensors", "cpu") for name in
                                   ("reward", "judge"))  # fmt: skip
        rng = np.random.default_rng(WISH_SEED)
        wishes = [random_wish(rng) for _ in range(plan.wishes)]
        few = wishes[: max(1, plan.wishes // 4)]
        # Each prompt once, and the first quarter as often again as their diversity needs.
        self.wishes = [*wishes, *(wish for wish in few for _ in range(plan.copies - 1))]
        self.texts = [prompt_text(wish.concept, wish.style, wish.background) for wish in self.wishes]
        self.first = range(len(wishes))
        self.several = {prompt_text(wish.concept, wish.style, wish.background) for wish in few}
        self.prompts = encoded(self.pipeline, self.texts)
        generator = torch.Generator().manual_seed(NOISE_SEED)
        self.noise = torch.randn(len(self.texts), *self.pipeline.latent_shape, generator=generator)
        self.concepts = self.judge.text_features([prompt_text(name) for name in data.CONCEPT_NAMES])
        self.teacher_images = self.pictures(self.teacher)
        self.teacher_features = self.judge.image_features(self.teacher_images)
        self.teacher_figures = self.measure(self.teacher_images)

    def teacher(self, noise: torch.Tensor, cond: Sequence[Any]) -> torch.Tensor:
        denoiser = self.pipeline.denoiser
        return play(denoiser, denoiser.process, noise, cond, steps=TEACHER_STEPS, guidance=GUIDANCE,
                    generator=torch.Generator(), eta=0.0).pictures  # fmt: skip

    @torch.no_grad()
    def pictures(self, draw: Callable[[torch.Tensor, Sequence[Any]], torch.Tensor]) -> torch.Tensor:
        """Images of all measured prompts by what makes latents of noise and conditionings."""
        parts = []
        for start in range(0, len(self.texts), AT_ONCE):
            cond = [prompt.positive for prompt in self.prompts[start : start + AT_ONCE]]
            parts.append(self.pipeline.decoder.decode(draw(self.noise[start : start + AT_ONCE], cond)))
        return torch.cat(parts)

    @torch.no_grad()
    def measure(self, images: torch.Tensor) -> dict[str, float]:
        """The figures of pictures of all measured prompts."""
        features = self.judge.image_features(images)
        wishes, own = [self.wishes[i] for i in self.first], features[: len(self.first)]
        concepts = [data.CONCEPT_NAMES[i] for i in (own @ self.concepts.T).argmax(1)]
        shares = {
            "background": _share(background_of(images[: len(own)]), [wish.background for wish in wishes]),
            "style": _share([self._style(f, w) for f, w in zip(own, wishes, strict=True)], [w.style for w in wishes]),
            "concept": _share(concepts, [wish.concept for wish in wishes]),
        }
        several = [i for i, text in enumerate(self.texts) if text in self.several]
        return shares | {
            "match": sum(shares.values()) / len(shares),
            "reward": self.reward(images, self.texts)[: len(own)].mean().item(),
            "judge": self.judge(images, self.texts)[: len(own)].mean().item(),
            "diversity": grouped_diversity(features[several], [self.texts[i] for i in several]),
            "saturation": saturation(images),
            "kid": kernel_distance(features, self.teacher_features),
        }

    def _style(self, feature: torch.Tensor, wish: data.Attributes) -> str:
        texts = self.judge.text_features([prompt_text(wish.concept, style, wish.background) for style in data.STYLES])
        return data.STYLES[int((texts @ feature).argmax())]

    def one_step(self, policy: Policy) -> Callable[[torch.Tensor, Sequence[Any]], torch.Tensor]:
        """What makes latents with the generator as it is."""
        sigma = level_of(policy.process, DISTIL.init_timestep)

        def draw(noise: torch.Tensor, cond: Sequence[Any]) -> torch.Tensor:
            with policy.role(GENERATOR):
                return generate(policy, noise, cond, sigma=sigma)

        return draw

    def seconds(self, draw: Callable[[torch.Tensor, Sequence[Any]], torch.Tensor], *, count: int = 16) -> float:
        """The median of five times of `count` pictures' latents."""
        cond, times = [prompt.positive for prompt in self.prompts[:count]], []
        with torch.no_grad():
            draw(self.noise[:count], cond)
            for _ in range(5):
                began = time.process_time()
                draw(self.noise[:count], cond)
                times.append(time.process_time() - began)
        return sorted(times)[2]

    # ---- runs ----

    def run(self, seed: int, branches: Mapping[str, DiffInstructConfig]) -> dict[str, Any]:
        """One distillation and its branches: points measured, and times."""
        texts = [text for text in practice_texts(self.plan.practice, seed) if text not in set(self.texts)]
        prompts = encoded(self.pipeline, texts)
        torch.manual_seed(seed)
        with Policy(self.pipeline.denoiser, replace(LORA, seed=seed), roles=(GENERATOR, ASSISTANT)) as policy:
            distilled = self._trained(policy, prompts, DISTIL, self.plan.distilled, seed, {}, {})
            points = [{"step": self.plan.distilled} | self._averaged(policy, distilled.tensors)]
            with policy.role(None):
                teacher = self.seconds(self.teacher)
            times = {"one step": self.seconds(self.one_step(policy)), "teacher": teacher}
            print(seed, "distilled", _rounded(points[0]), _rounded(times), flush=True)
            assistant = policy.tensors(ASSISTANT)
            found = {"seed": seed, "distilled": points[0], "seconds": times, "teacher": self.teacher_figures}
            for branch, config in branches.items():
                found[branch] = self._branch(policy, prompts, branch, config, seed, distilled.tensors, assistant)
        return found

    def _branch(
        self, policy: Policy, prompts: Sequence[Prompt], branch: str, config: DiffInstructConfig, seed: int,
        generator: Mapping[str, torch.Tensor], assistant: Mapping[str, torch.Tensor],
    ) -> list[dict[str, float]]:  # fmt: skip
        """Points along a branch. It is one run, measured by what a run of each length gives."""
        points: list[dict[str, float]] = []
        bed = self

        class Measure(RunCallbacks):
            def on_samples(self, step: int, images: torch.Tensor) -> None:
                points.append({"step": step} | bed.measure(images))
                print(seed, branch, _rounded(points[-1]), flush=True)

        self._trained(policy, prompts, config, self.plan.preferred, seed, generator, assistant,
                      every=self.plan.every, callbacks=Measure())  # fmt: skip
        return points

    def _trained(
        self, policy: Policy, prompts: Sequence[Prompt], config: DiffInstructConfig, updates: int, seed: int,
        generator: Mapping[str, torch.Tensor], assistant: Mapping[str, torch.Tensor], *, every: int = 0,
        callbacks: RunCallbacks | None = None,
    ) -> Any:  # fmt: skip
        if generator:
            policy.load_tensors(parted(generator)[0], GENERATOR)
            policy.load_tensors(assistant, ASSISTANT)
        objective = DiffInstructObjective(
            prompts, self.reward, self.pipeline.decoder, config, latent_shape=self.pipeline.latent_shape
        )
        trainer = replace(TRAINER, steps=updates, seed=seed, sample_every=every)
        return train(policy, objective, trainer, callbacks=callbacks,
                     sampler=lambda trained: self.pictures(self.one_step(trained)))  # fmt: skip

    def _averaged(self, policy: Policy, tensors: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """Figures of the averaged generator, which stays in the policy."""
        policy.load_tensors(parted(tensors)[0], GENERATOR)
        return self.measure(self.pictures(self.one_step(policy)))


def _share(found: Sequence[str], wished: Sequence[str]) -> float:
    return float(np.mean([one == other for one, other in zip(found, wished, strict=True)]))


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in figures.items()}


def runs(*, quick: bool, branches: Mapping[str, DiffInstructConfig] = BRANCHES) -> list[dict[str, Any]]:
    """A run with every seed; taken from the cache where this commit has made it before."""
    plan, seeds = (QUICK, SEEDS[:2]) if quick else (FULL, SEEDS)
    torch.set_flush_denormal(True)
    key = {"commit": commit(), "plan": asdict(plan), "distil": asdict(DISTIL), "lora": asdict(LORA)}
    key |= {"branches": {name: asdict(config) for name, config in branches.items()}, "trainer": asdict(TRAINER)}
    key = json.loads(json.dumps(key))
    bed, found = None, []
    for seed in seeds:
        file = CACHE / f"dstar{'' if branches else '-distilled'}{'-quick' if quick else ''}-{seed}.json"
        known = _read(file)
        if known.get("key") != key or key["commit"].endswith("+changes"):
            bed = bed or Bed(plan)
            known = {"key": key, "run": bed.run(seed, branches)}
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(known), encoding="utf-8")
        found.append(known["run"])
    return found


def _read(file: Any) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def conditions(*, quick: bool) -> dict[str, Any]:
    """What the records say of how the runs were made."""
    return {
        "plan": asdict(QUICK if quick else FULL),
        "distillation": asdict(DISTIL),
        "branches": {name: asdict(config) for name, config in BRANCHES.items()},
        "LoRA": asdict(LORA),
        "trainer": asdict(TRAINER),
    }


def at_reward(points: Sequence[Mapping[str, float]], reward: float, figure: str) -> float:
    """A figure where the branch first reaches a reward, by straight lines between its points.

    Raises:
        ValueError: it never does.
    """
    for before, after in itertools.pairwise(points):
        low, high = before["reward"], after["reward"]
        if low <= reward <= high and high > low:
            share = (reward - low) / (high - low)
            return before[figure] + share * (after[figure] - before[figure])
    raise ValueError(f"the branch never reaches a reward of {reward:.3f}")
