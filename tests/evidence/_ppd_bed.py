"""The bed of the ppd-claims: the demo model, people it has never seen, prompts it has never practised.

People like warm or cool, colourful or grey, bright or dark pictures by hidden weights (`preference.population`): a part
that all share and a larger one of their own. They choose by Bradley-Terry with noise. For every seed anew: which
concepts are practised, tell about a person, or are measured (no concept serves twice); who learns and who is unseen;
their choices; set encoder and adapter. No prompt names style or background, which would leave taste nothing to choose.

*Win rate*: of two pictures of one prompt and one noise, how often the person's true utility of the first is larger;
equal pictures count half. "Bradley-Terry" in the details is the same with the noise of choosing.

Diffusion-DPO learns one LoRA from the same pairs, on the same noise levels, for as many updates of as many pairs; so
both make the same number of network evaluations.

What was tried before, on a seed that is not measured, with 64 unseen people, one picture each, 4 choices, 3 attributes,
nothing in common, 400 people with 16 pairs each, β 20, 16 pairs per update:
    - tokens 4 × 128, 1e-3: after 80 and 160 updates of 240 win rates 0.42 and 0.66, utility gained −0.05 and 0.06;
    - tokens 2 × 8, 8e-3: after 120 and 240 of 240 0.69 and 0.75, gained 0.21 and 0.31, the judge from 0.73 to 0.71 and
      0.70; with 1 and 8 choices 0.58 and 0.81.
With a taste in common, on the split and the seed of the demo's own adapter, 64 people, two pictures each, 4 choices:
    - 400 people, 400 updates at 8e-3: 0.66, gained 0.29, the judge from 0.76 to 0.71;
    - 2000 people, 1200 updates at 5e-3 with an average: 0.65, gained 0.30, the judge 0.68. The encoder is not the
      reason: it foretells 0.71 of choices from 4, where knowing the population exactly gives 0.72. The margins are:
      their mean is 0.06 of their deviation where there is little noise and 0.15 where there is most, whose size
      drowns the rest;
    - the same, 800 updates on the noisiest quarter of the levels: 0.84, gained 0.49, the judge 0.74. Taken.
Diffusion-DPO on those pairs, 300 updates, win rate over the base model: 0.45 at 4e-3 and at 5e-4, and 0.52 at 1e-3 on
all levels; what people have in common is little beside what they differ in. 1e-3 was kept from dpo-learns. What one
taste for all could reach was looked at after the record, on seeds 0 and 1: the same adapter with the mean of all
embeddings, shown to everybody, wins 0.62 over the base model and 0.62 to 0.66 over that LoRA; one's own embedding wins
0.81 and 0.82 over the mean.

Trained adapters are kept in `.cache/evidence`, by what they were trained from: claims about the same ones share them,
and a script that was stopped goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attune.nodes.rewards.load import load_reward
from attune.training.adapters import LoraConfig, Policy
from attune.training.adapters.user_policy import UserPolicy, personal
from attune.training.checkpoint import read_tensors, write_atomically
from attune.training.demo import data
from attune.training.demo.features import DemoFeatures
from attune.training.demo.pipeline import DemoPipeline, prompt_text
from attune.training.demo.train_user import (
    Drawn,
    UserRecipe,
    choices_of,
    draw,
    draw_pool,
    pool_of,
    train_adapter,
    train_encoder,
)
from attune.training.digests import file_digest
from attune.training.interfaces import Denoiser, Prompt
from attune.training.objectives.diffusion_dpo import DiffusionDPOConfig, DiffusionDPOObjective
from attune.training.objectives.personal_dpo import PersonalPair
from attune.training.preference.pool import Pool
from attune.training.preference.population import Population
from attune.training.preference.set_encoder import SetEncoder, load_set_encoder, save_set_encoder
from attune.training.trainer import train

from .record import ROOT

DEMO, CACHE = ROOT / "workflows" / "demo", ROOT / ".cache" / "evidence"
SEEDS = (0, 1, 2)
SUPPORT = 4
LORA = LoraConfig(rank=8)
# As dpo-learns found it: with a β of 200 and more it hardly leaves the base model in this many updates.
DPO = DiffusionDPOConfig(batch=16, beta=20.0, chunk=16)
DPO_RATE = 1e-3


class SameLevels(DiffusionDPOObjective):
    """Diffusion-DPO on the noise levels that Personal DPO has."""

    _lowest_noise = UserRecipe().dpo.noise_from


@dataclass(frozen=True)
class Plan:
    """How much is done; the quick plan only proves that the scripts work."""

    practised: int
    telling: int
    measured: int
    recipe: UserRecipe
    unseen_people: int
    pictures_each: int


FULL = Plan(60, 25, 28, UserRecipe(), 128, 2)
QUICK = Plan(4, 9, 3, UserRecipe(pictures=4, teachers=6, choices=3), 6, 1)
QUICK = replace(
    QUICK,
    recipe=replace(
        QUICK.recipe,
        tastes=replace(QUICK.recipe.tastes, people=12),
        encoder_training=replace(QUICK.recipe.encoder_training, steps=3, people=4, support=2, query=2),
        dpo=replace(QUICK.recipe.dpo, batch=2),
        trainer=replace(QUICK.recipe.trainer, steps=2),
    ),
)


def plan_of(*, quick: bool, antagonists: bool = False) -> Plan:
    """The plan of a claim."""
    plan = QUICK if quick else FULL
    tastes = plan.recipe.tastes
    if antagonists:
        tastes = replace(tastes, common=(), antagonists=True)
    return replace(plan, recipe=replace(plan.recipe, tastes=tastes))


@dataclass(frozen=True)
class Shared:
    """What all seeds look at."""

    pipeline: DemoPipeline
    features: DemoFeatures
    judge: Any

    @classmethod
    def load(cls) -> Shared:
        return cls(
            DemoPipeline.load(DEMO / "attune_demo.safetensors"),
            DemoFeatures(DEMO / "attune_demo_reward.safetensors"),
            load_reward(DEMO / "attune_demo_judge.safetensors", "cpu"),
        )


class Bed:
    """Everything about one seed; what is asked for is made, or read if it was made before."""

    def __init__(self, plan: Plan, seed: int, shared: Shared) -> None:
        self.plan, self.seed, self.shared = plan, seed, shared
        self.pipeline = shared.pipeline
        tastes = replace(plan.recipe.tastes, seed=1000 * seed + 1)
        self.recipe = replace(plan.recipe, seed=seed, tastes=tastes)
        concepts = [str(name) for name in np.random.default_rng([seed, 1]).permutation(data.CONCEPT_NAMES)]
        ends = np.cumsum([plan.practised, plan.telling, plan.measured])
        self.practised, self.telling, self.measured = (
            concepts[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)
        )
        base = [file_digest(DEMO / "attune_demo.safetensors"), concepts]
        self.folder = CACHE / f"ppd-{seed}-{_name_of([*base, conditions(plan), _code()])}"
        self.pools = CACHE / f"ppd-pictures-{_name_of([*base, plan.recipe.pictures, plan.practised, plan.telling])}"

    # ---- who and what there is ----

    def _drawn(self, concepts: Sequence[str], seed: int) -> Drawn:
        return draw_pool(self.pipeline, concepts, self.recipe.pictures, seed=seed, folder=self.pools)

    @cached_property
    def _practice(self) -> tuple[Drawn, Pool, Population]:
        drawn = self._drawn(self.practised, 20_000_000 + 100_000 * self.seed)
        population = Population(self.recipe.tastes)
        pool = pool_of(drawn, self.shared.features, population)
        population.get_used_to(pool.attributes)
        return drawn, pool, population

    @cached_property
    def people(self) -> Population:
        """The unseen."""
        count = self.plan.unseen_people
        tastes = replace(self.recipe.tastes, people=count, seed=1000 * self.seed + 2)
        population = Population(tastes)
        population.get_used_to(self._practice[1].attributes)
        return population

    @cached_property
    def prompts(self) -> dict[str, Prompt]:
        """By concept."""
        names = [*self.practised, *self.telling, *self.measured]
        return dict(zip(names, self.pipeline.prompts([prompt_text(name) for name in names]), strict=True))

    @cached_property
    def pairs(self) -> list[PersonalPair]:
        """What both methods learn from."""
        drawn, pool, population = self._practice
        return choices_of(drawn, pool, population, {p.text: p for p in self.prompts.values()}, self.recipe)

    @cached_property
    def telling_pool(self) -> Pool:
        """What the unseen choose from."""
        return pool_of(self._drawn(self.telling, 30_000_000 + 100_000 * self.seed), self.shared.features, self.people)

    @cached_property
    def told(self) -> torch.Tensor:
        """Eight choices of every unseen person, as the set encoder reads them: [people, 8, 3, F]; of other prompts than
        those that are practised or measured, each of another."""
        pool, generator = self.telling_pool, torch.Generator().manual_seed(self.seed + 5)
        everybody = torch.arange(self.plan.unseen_people)
        pairs = pool.draw_pairs(len(everybody), 8, generator)
        return pool.choices(pool.judged(self.people, everybody, pairs, generator))

    def embeddings(self, count: int = SUPPORT) -> torch.Tensor:
        """[people, k, d], of each unseen person's first choices."""
        encoder, told = self.encoder, self.told[:, :count]  # either may have to be made first, with gradients
        with torch.no_grad():
            return encoder(told)

    # ---- what is trained ----

    @cached_property
    def encoder(self) -> SetEncoder:
        file = self.folder / "encoder.safetensors"
        if not file.exists():
            _, pool, population = self._practice
            encoder, figures = train_encoder(population, pool, self.recipe, self.shared.features.features_id)
            print(f"seed {self.seed}: {figures}", flush=True)
            save_set_encoder(file, encoder, details=figures)
        return load_set_encoder(file)

    @cached_property
    def adapter(self) -> dict[str, torch.Tensor]:
        return self._trained("adapter", lambda run: train_adapter(
            self.pipeline, self.pairs, self.encoder, self.recipe, folder=run))  # fmt: skip

    @cached_property
    def lora(self) -> dict[str, torch.Tensor]:
        """Diffusion-DPO of the same pairs."""

        def learn(run: Path) -> Any:
            dpo = replace(DPO, batch=self.recipe.dpo.batch, chunk=self.recipe.dpo.chunk)
            trainer = replace(self.recipe.trainer, learning_rate=DPO_RATE, seed=self.seed)
            with Policy(self.pipeline.denoiser, replace(LORA, seed=self.seed)) as policy:
                return train(policy, SameLevels(self.pairs, dpo), trainer, run_folder=run)

        return self._trained("lora", learn)

    def _trained(self, name: str, learn: Any) -> dict[str, torch.Tensor]:
        file = self.folder / f"{name}.safetensors"
        if not file.exists():
            result = learn(self.folder / name)
            write_atomically(file, result.tensors, {"seconds": str(result.seconds), "updates": str(result.steps_done)})
            print(f"seed {self.seed}: {name} trained in {result.seconds:.0f} s", flush=True)
        return read_tensors(file)[0]

    # ---- what is measured ----

    @cached_property
    def asked(self) -> tuple[torch.Tensor, list[Prompt], torch.Tensor]:
        """Person [N], prompt and noise [N, 16, 8, 8] of every picture that is compared."""
        who = torch.arange(self.plan.unseen_people).repeat_interleave(self.plan.pictures_each)
        prompts = [self.prompts[self.measured[place % len(self.measured)]] for place in range(len(who))]
        generator = torch.Generator().manual_seed(self.seed + 40_000)
        return who, prompts, torch.randn(len(who), *self.pipeline.latent_shape, generator=generator)

    def policy(self) -> UserPolicy:
        """The trained adapter on the demo model."""
        policy = UserPolicy(self.pipeline.denoiser, self.recipe.adapter)
        policy.load_tensors(self.adapter)
        return policy

    def pictures(self, denoiser: Denoiser, tokens: torch.Tensor | None = None) -> torch.Tensor:
        """What is asked for, drawn by a denoiser; for whom tokens [N, k, d] tell."""
        _, prompts, noise = self.asked
        if tokens is not None:
            prompts = [personal(prompt, own) for prompt, own in zip(prompts, tokens, strict=True)]
        return draw(denoiser, self.pipeline, prompts, noise)[1]

    @cached_property
    def base_pictures(self) -> torch.Tensor:
        return self.pictures(self.pipeline.denoiser)

    @cached_property
    def dpo_pictures(self) -> torch.Tensor:
        weights = self.lora
        with Policy(self.pipeline.denoiser, replace(LORA, seed=self.seed)) as policy:
            policy.load_tensors(weights)
            return self.pictures(policy)

    def personal_pictures(self, tokens: torch.Tensor) -> torch.Tensor:
        """For people's tokens [people, k, d]."""
        who, _, _ = self.asked
        with self.policy() as policy:
            return self.pictures(policy, tokens[who])

    def utilities(self, images: torch.Tensor) -> torch.Tensor:
        """Of the pictures that are asked for, to those who asked, [N]."""
        return self.people.utilities(self.asked[0], self.people.attributes(images))

    def compared(self, images: torch.Tensor, others: torch.Tensor) -> dict[str, float]:
        """The win rate of images over others, and what goes with it."""
        own, theirs = self.utilities(images), self.utilities(others)
        texts = [prompt.text for prompt in self.asked[1]]
        return {
            "win_rate": ((own > theirs).float() + 0.5 * (own == theirs)).mean().item(),
            "bradley_terry": self.people.probability(own, theirs).mean().item(),
            "utility_gained": (own - theirs).mean().item(),
            "judge": self.shared.judge(images, texts).mean().item(),
            "judge_of_the_other": self.shared.judge(others, texts).mean().item(),
        }


def _name_of(parts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _code() -> list[str]:
    """What is trained depends on the learning code: after a change of it nothing is taken from the cache."""
    reward = file_digest(DEMO / "attune_demo_reward.safetensors")
    return [reward, *(hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(ROOT.glob("training/**/*.py")))]


def conditions(plan: Plan) -> dict[str, Any]:
    """For the record."""
    return {"plan": asdict(plan), "diffusion_dpo": asdict(DPO), "diffusion_dpo_rate": DPO_RATE, "lora": asdict(LORA)}
