"""Diff-Instruct* on the demo model: the runs that dstar-distil, dstar-reward and dstar-diverse look at.

First a generator is distilled from the model with guidance 3, without any reward, on prompts of concept, style and
background, some of which leave out one or two. It is the recipe of the shipped one-step LoRA with more weights (rank
32) and more updates; the shipped one keeps 0.936 of the teacher's match. From there two branches of equal length raise
the demo reward on some prompts of their own: one holds to the teacher by the pseudo-Huber distance of scores
(Diff-Instruct*), the other by the KL divergence (Diff-Instruct++). Everything else is the same, the noise included.
The teacher is the model itself with 20 deterministic steps and guidance 3.

Measured with fixed noise that no run has seen, by the running average of the weights: the distillation on prompts that
name all three and that it has not practised on; the branches on the prompts that they practise on, eight pictures each.
    match       mean share of pictures whose background (read from the pixels of the edge), style (of six) and concept
                (of all) are the wished ones; style and concept as the demo judge sees them
    reward      of the demo reward, which the branches raise; judge: of the held-out one
    diversity   how much the pictures of a prompt differ, by the judge's features
    kid         distance of the pictures from the teacher's, by the judge's features

Tried, on seeds that are not measured unless said: a branch that practises on 1,500 prompts and is measured on others
stays at 1.04 to 1.05 of the teacher's reward after 90 to 300 updates, with weights of 4, 8, 20 and 40, rates of 1e-3
and 3e-3, a momentum of 0.9, or by the reward alone: what it learns of one picture hardly helps another. On 32 or 64
prompts it passes 1.10 in 40 updates. Distillation (seed 0): an assistant's rate of 4e-3 with rank 32 broke it (a match
of 0.53 after 100 updates); seed 7, rank 32, 1e-3: 0.93 of the teacher's match after 100 updates, 0.95 after 300. On
all prompts, seed 7: rank 8 0.946 after 480 of 900 updates; rank 32, 1e-3, a cosine: 0.970 after 480, 0.967 after 600.

At the same reward no setting tried so far (seed 7, 128 pictures, weights 1, 4, 8 and 20, pseudo-Huber, L2, and L2 with
a = 1.2) keeps clearly more diversity than the KL variant; at 0.868 to 0.88 of reward: pseudo-Huber 0.0112 to 0.0120, KL
0.0121 to 0.0132, L2 0.0113, L2 with a = 1.2 0.0121. With a weight of 0.1 the KL variant does not raise the reward.
Long branches, 240 updates: pseudo-Huber with a weight of 0.5 ends at 0.865 and 0.0104, KL with 1 at 0.900 and 0.0105.
On prompts that leave the background open (seed 7) the reward takes nearly all variety from 0.089: pseudo-Huber ends at
0.858 and 0.0119.

A run is kept in a file beside the results' cache and used again by the other claims, as long as the commit and the plan
are the same; the distilled weights as long as their recipe and all that trains are the same.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from attune.nodes.rewards.load import load_reward
from attune.training.adapters import Policy
from attune.training.demo import data
from attune.training.demo.pipeline import DemoPipeline, prompt_text
from attune.training.demo.quality import background_of
from attune.training.demo.train_one_step import LORA, METHOD, TRAINER, encoded, practice_texts, random_wish
from attune.training.diversity import grouped_diversity
from attune.training.interfaces import Prompt, RunCallbacks
from attune.training.objectives.collapse import saturation
from attune.training.objectives.diff_instruct import DiffInstructObjective
from attune.training.objectives.diff_instruct_config import ASSISTANT, GENERATOR, DiffInstructConfig
from attune.training.one_step import generate, level_of
from attune.training.rollout import play
from attune.training.trained import parted
from attune.training.trainer import train

from ._dag_bed import kernel_distance
from .ddpo_learns import DEMO
from .record import ROOT, commit, last_change

SEEDS = (0, 1, 2)
CACHE = ROOT / ".cache" / "evidence"
TEACHER_STEPS, GUIDANCE = 20, 3.0
NOISE_SEED, WISH_SEED, AT_ONCE = 4321, 77, 32


@dataclass(frozen=True)
class Plan:
    """How much is done; the quick plan only proves that the script works.

    Attributes:
        distilled: updates of the distillation; preferred: of each branch, measured after every `every` of them.
        practice: prompts of the distillation; wishes: prompts that it is measured on; copies: pictures of each of the
            first quarter of them.
        own: prompts of the branches; own_copies: pictures of each that are measured.
    """

    distilled: int
    preferred: int
    every: int
    practice: int
    wishes: int
    copies: int
    own: int
    own_copies: int


FULL, QUICK = Plan(600, 60, 15, 1500, 192, 4, 64, 8), Plan(2, 2, 1, 16, 8, 2, 4, 2)
WIDE = replace(LORA, rank=32, alpha=32.0)
DISTIL = replace(METHOD, assistant_learning_rate=1e-3)
DISTIL_TRAINER = replace(TRAINER, schedule="cosine", evaluate_every=0)
PREFER = replace(DISTIL, prompts_per_update=16, reward_weight=8.0, reward_rise=10, guard_diversity=0.0)
BRANCHES = {"score": PREFER, "kl": replace(PREFER, distance="kl")}
BRANCH_TRAINER = replace(TRAINER, schedule="constant", ema=0.95, evaluate_every=0)


class Look:
    """Prompts with fixed noise, and what is measured on them.

    Args:
        wishes: one per picture.
        first: those that match, reward and judge are measured on: so many from the first on.
        several: prompts that have several pictures, for their diversity.
    """

    def __init__(self, bed: Bed, wishes: Sequence[data.Attributes], first: int, several: set[str], seed: int) -> None:
        self.bed, self.wishes, self.first, self.several = bed, list(wishes), first, several
        self.texts = [text_of(wish) for wish in self.wishes]
        self.prompts = encoded(bed.pipeline, self.texts)
        generator = torch.Generator().manual_seed(seed)
        self.noise = torch.randn(len(self.texts), *bed.pipeline.latent_shape, generator=generator)
        images = self.pictures(bed.teacher)
        self.teacher_features = bed.judge.image_features(images)
        self.teacher = self.measure(images)

    @torch.no_grad()
    def pictures(self, draw: Callable[[torch.Tensor, Sequence[Any]], torch.Tensor]) -> torch.Tensor:
        """Images of all prompts by what makes latents of noise and conditionings."""
        parts = []
        for start in range(0, len(self.texts), AT_ONCE):
            cond = [prompt.positive for prompt in self.prompts[start : start + AT_ONCE]]
            parts.append(self.bed.pipeline.decoder.decode(draw(self.noise[start : start + AT_ONCE], cond)))
        return torch.cat(parts)

    @torch.no_grad()
    def measure(self, images: torch.Tensor) -> dict[str, float]:
        """The figures of pictures of all prompts."""
        bed, wishes = self.bed, self.wishes[: self.first]
        features = bed.judge.image_features(images)
        own = features[: self.first]
        concepts = [data.CONCEPT_NAMES[i] for i in (own @ bed.concepts.T).argmax(1)]
        shares = {
            "background": _share(background_of(images[: self.first]), [wish.background for wish in wishes]),
            "style": _share([bed.style(f, w) for f, w in zip(own, wishes, strict=True)], [w.style for w in wishes]),
            "concept": _share(concepts, [wish.concept for wish in wishes]),
        }
        several = [i for i, text in enumerate(self.texts) if text in self.several]
        return shares | {
            "match": sum(shares.values()) / len(shares),
            "reward": bed.reward(images, self.texts)[: self.first].mean().item(),
            "judge": bed.judge(images, self.texts)[: self.first].mean().item(),
            "diversity": grouped_diversity(features[several], [self.texts[i] for i in several]),
            "saturation": saturation(images),
            "kid": kernel_distance(features, self.teacher_features),
        }


class Bed:
    """The demo model, its rewards, and what is measured."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.pipeline = DemoPipeline.load(DEMO / "attune_demo.safetensors")
        self.reward, self.judge = (load_reward(DEMO / f"attune_demo_{name}.safetensors", "cpu") for name in
                                   ("reward", "judge"))  # fmt: skip
        self.concepts = self.judge.text_features([prompt_text(name) for name in data.CONCEPT_NAMES])
        rng = np.random.default_rng(WISH_SEED)
        wishes = [random_wish(rng) for _ in range(plan.wishes)]
        few = wishes[: max(1, plan.wishes // 4)]
        # Each prompt once, and the first quarter as often again as their diversity needs.
        more = [wish for wish in few for _ in range(plan.copies - 1)]
        self.wide = Look(self, [*wishes, *more], len(wishes), {text_of(wish) for wish in few}, NOISE_SEED)
        own = [wish for wish in wishes[: plan.own] for _ in range(plan.own_copies)]
        self.own = Look(self, own, len(own), {text_of(wish) for wish in own}, NOISE_SEED + 1)

    def teacher(self, noise: torch.Tensor, cond: Sequence[Any]) -> torch.Tensor:
        denoiser = self.pipeline.denoiser
        return play(denoiser, denoiser.process, noise, cond, steps=TEACHER_STEPS, guidance=GUIDANCE,
                    generator=torch.Generator(), eta=0.0).pictures  # fmt: skip

    def style(self, feature: torch.Tensor, wish: data.Attributes) -> str:
        """The style that the judge sees in a picture of a wish."""
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
        cond, noise, times = [prompt.positive for prompt in self.wide.prompts[:count]], self.wide.noise[:count], []
        with torch.no_grad():
            draw(noise, cond)
            for _ in range(5):
                began = time.process_time()
                draw(noise, cond)
                times.append(time.process_time() - began)
        return sorted(times)[2]

    # ---- runs ----

    def run(self, seed: int, branches: Mapping[str, DiffInstructConfig]) -> dict[str, Any]:
        """One distillation and its branches: points measured, and times."""
        torch.manual_seed(seed)
        with Policy(self.pipeline.denoiser, replace(WIDE, seed=seed), roles=(GENERATOR, ASSISTANT)) as policy:
            distilled, assistant = self._distilled(policy, seed)
            policy.load_tensors(distilled, GENERATOR)
            found: dict[str, Any] = {"seed": seed, "distilled": self.wide.measure(self._drawn(policy, self.wide))}
            with policy.role(None):
                teacher = self.seconds(self.teacher)
            found["seconds"] = {"one step": self.seconds(self.one_step(policy)), "teacher": teacher}
            found |= {"teacher": self.wide.teacher, "teacher of the branches": self.own.teacher}
            print(seed, "distilled", _rounded(found["distilled"]), _rounded(found["seconds"]), flush=True)
            for branch, config in branches.items():
                policy.load_tensors(distilled, GENERATOR)
                policy.load_tensors(assistant, ASSISTANT)
                found[branch] = self._branch(policy, branch, config, seed)
        return found

    def _distilled(self, policy: Policy, seed: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Generator and assistant, from their file where the same recipe has made it before."""
        trainer = replace(DISTIL_TRAINER, steps=self.plan.distilled, seed=seed)
        key = {"training": last_change("training"), "texts": len(self.wide.texts), "practice": self.plan.practice}
        key |= {"distil": asdict(DISTIL), "lora": asdict(policy.config), "trainer": asdict(trainer)}
        file, key = CACHE / f"dstar-weights-{self.plan.distilled}-{seed}.safetensors", {"key": json.dumps(key)}
        if not (commit().endswith("+changes") or _metadata(file) != key):
            kept = load_file(file)
            return tuple({name[1:]: t for name, t in kept.items() if name[0] == role} for role in "GA")  # type: ignore[return-value]
        texts = [text for text in practice_texts(self.plan.practice, seed) if text not in set(self.wide.texts)]
        objective = self._objective(encoded(self.pipeline, texts), DISTIL)
        roles = {"G": parted(train(policy, objective, trainer).tensors)[0], "A": policy.tensors(ASSISTANT)}
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({role + name: t for role, tensors in roles.items() for name, t in tensors.items()}, file, key)
        return roles["G"], roles["A"]

    def _branch(self, policy: Policy, branch: str, config: DiffInstructConfig, seed: int) -> list[dict[str, float]]:
        """Points along a branch. It is one run, measured by what a run of each length gives."""
        points: list[dict[str, float]] = []
        bed = self

        class Measure(RunCallbacks):
            def on_samples(self, step: int, images: torch.Tensor) -> None:
                points.append({"step": step} | bed.own.measure(images))
                print(seed, branch, _rounded(points[-1]), flush=True)

        trainer = replace(BRANCH_TRAINER, steps=self.plan.preferred, seed=seed, sample_every=self.plan.every)
        objective = self._objective(self.own.prompts[:: self.plan.own_copies], config)
        train(policy, objective, trainer, callbacks=Measure(), sampler=lambda trained: bed._drawn(trained, bed.own))
        return points

    def _objective(self, prompts: Sequence[Prompt], config: DiffInstructConfig) -> DiffInstructObjective:
        decoder, shape = self.pipeline.decoder, self.pipeline.latent_shape
        return DiffInstructObjective(prompts, self.reward, decoder, config, latent_shape=shape)

    def _drawn(self, policy: Policy, look: Look) -> torch.Tensor:
        return look.pictures(self.one_step(policy))


def text_of(wish: data.Attributes) -> str:
    return prompt_text(wish.concept, wish.style, wish.background)


def _share(found: Sequence[str], wished: Sequence[str]) -> float:
    return float(np.mean([one == other for one, other in zip(found, wished, strict=True)]))


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in figures.items()}


def runs(*, quick: bool, branches: Mapping[str, DiffInstructConfig] = BRANCHES) -> list[dict[str, Any]]:
    """A run with every seed; taken from the cache where this commit has made it before."""
    plan, seeds = (QUICK, SEEDS[:2]) if quick else (FULL, SEEDS)
    torch.set_flush_denormal(True)
    key = {"commit": commit(), "plan": asdict(plan), "distil": asdict(DISTIL), "lora": asdict(WIDE)}
    key |= {
        "branches": {name: asdict(config) for name, config in branches.items()},
        "trainer": [asdict(DISTIL_TRAINER), asdict(BRANCH_TRAINER)],
    }
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


def _metadata(file: Path) -> dict[str, str]:
    try:
        with safe_open(file, "pt") as opened:
            return opened.metadata() or {}
    except (OSError, SafetensorError):
        return {}


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
        "LoRA": asdict(WIDE),
        "trainer": asdict(DISTIL_TRAINER),
        "trainer of the branches": asdict(BRANCH_TRAINER),
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
