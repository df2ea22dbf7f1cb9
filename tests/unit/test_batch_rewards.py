"""Rewards that look beyond the picture, in training: the same scores however few pictures are looked at in one call."""

from __future__ import annotations

import pytest
import torch

from attune.nodes.rewards.combine import CombineConfig, CombinedReward
from attune.nodes.rewards.dialogue import DiversityReward, RelevanceReward
from attune.tests import mixture_bed as bed
from attune.tests.colour_rewards import NamedColour, gated
from attune.training.adapters import LoraConfig, Policy
from attune.training.interfaces import Prompt, Reward, TrainingError
from attune.training.objectives.dag import DAGObjective
from attune.training.objectives.dag_config import DAGConfig
from attune.training.objectives.ddpo import DDPOConfig, DDPOObjective
from attune.training.objectives.refl import ReFLConfig, ReFLObjective
from attune.training.presentable import compares_batch, compares_pictures
from attune.training.share import Share

COLOURS = ("red", "green", "blue")
PROMPTS = [Prompt(text, None) for text in COLOURS]
PRACTICE = {"prompts_per_update": 3, "images_per_prompt": 2, "steps": 4, "guidance": 1.0}


class Eyes:
    """A reward with features: the colours' direction."""

    name, reward_id, differentiable, higher_is_better = "Eyes", "eyes", True, True

    def image_features(self, images: torch.Tensor, with_gradients: bool = False) -> torch.Tensor:
        return torch.nn.functional.normalize(images.flatten(1, 2).mean(1) + 0.1, dim=-1)

    def __call__(self, images, prompts, context=None):
        return images.flatten(1).mean(1)


class Two(Share):
    """One of two processes, of which only the number matters here."""

    count = 2


def relevance() -> RelevanceReward:
    return RelevanceReward(NamedColour(), temperature=0.5)


def both() -> CombinedReward:
    return CombinedReward([Eyes(), DiversityReward(Eyes())], CombineConfig(weights=(1.0, 1.0), scale="raw scores"))


def refl(reward: Reward, *, prompts=PROMPTS, **knobs) -> ReFLObjective:
    config = ReFLConfig(**PRACTICE | {"mode": "draft", "last_steps": 1, "chunk": 2} | knobs)
    return ReFLObjective(prompts, reward, bed.PointDecoder(), config, latent_shape=bed.LATENT_SHAPE)


def dag(reward: Reward, *, held_out: Reward | None = None, **knobs) -> DAGObjective:
    settings = PRACTICE | {"transitions": 2, "anneal_updates": 0, "flow_channels": (16, 16), "chunk": 2} | knobs
    return DAGObjective(
        PROMPTS, reward, bed.PointDecoder(), DAGConfig(**settings), latent_shape=bed.LATENT_SHAPE, held_out=held_out
    )


def ddpo(reward: Reward, *, prompts=PROMPTS, **knobs) -> DDPOObjective:
    config = DDPOConfig(**PRACTICE | {"chunk": 2} | knobs)
    return DDPOObjective(prompts, reward, bed.PointDecoder(), config, latent_shape=bed.LATENT_SHAPE)


def learned(make, reward: Reward, **knobs) -> tuple[torch.Tensor, dict[str, float]]:
    """The policy's gradient of one update, and the reward that is reported with the number of blocked pictures."""
    lora = LoraConfig(rank=2, alpha=2.0, targets=("everything",), seed=1)
    with Policy(bed.RingDenoiser(width=8), lora) as policy:
        with torch.no_grad():
            for value in policy.parameters():
                value.copy_(0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(3)))
        objective = make(reward, **knobs)
        objective.prepare(policy)
        for loss in objective.losses(torch.Generator().manual_seed(0)):
            loss.backward()
        found = [value.grad if value.grad is not None else torch.zeros_like(value) for value in policy.parameters()]
        figures = {name: objective.metrics().get(name, 0.0) for name in ("reward", "blocked")}
        return torch.cat([value.flatten() for value in found]), figures


@pytest.mark.parametrize("make", [refl, dag, ddpo])
@pytest.mark.parametrize("guard", [False, True])
def test_relevance_does_not_depend_on_the_chunk(make, guard):
    def reward() -> Reward:
        return gated(1.0, reward=relevance()) if guard else relevance()

    whole, figures = learned(make, reward(), chunk=1000)
    assert whole.abs().max() > 1e-4 and guard == (0 < figures["blocked"] < 6)
    for chunk in (1, 2, 5):
        found, other = learned(make, reward(), chunk=chunk)
        assert other == pytest.approx(figures, abs=1e-5)
        torch.testing.assert_close(found, whole, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("reward", [DiversityReward(Eyes()), both()])
def test_diversity_follows_its_gradient_in_chunks_of_whole_groups(reward):
    whole, figures = learned(refl, reward, chunk=6)
    assert whole.abs().max() > 1e-4 and figures["reward"] > 0
    for chunk in (2, 4):
        found, other = learned(refl, reward, chunk=chunk)
        assert other == pytest.approx(figures, abs=1e-5)
        torch.testing.assert_close(found, whole, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"chunk": 3}, "chunk of 3 pictures cuts the 2 of a prompt apart. Set chunk to a multiple of 2, for example 2"),
        ({"chunk": 1}, "for example 2"),
        ({"images_per_prompt": 1}, "Set images_per_prompt to at least 2"),
        ({"prompts": PROMPTS[:2]}, "Write at least 3 prompts, no two of them the same, or set chunk to 6"),
        ({"prompts": [*PROMPTS, PROMPTS[0]]}, "with 3 different prompts the same one can come up twice"),
    ],
)
def test_diversity_is_refused_where_a_group_would_be_cut(knobs, says):
    for reward in (DiversityReward(Eyes()), both(), gated(reward=DiversityReward(Eyes()))):
        with pytest.raises(TrainingError, match="compares the pictures of one prompt") as caught:
            refl(reward, **knobs)
        assert says in str(caught.value)
    refl(relevance(), **knobs)
    refl(Eyes(), **knobs)


def test_a_chunk_of_all_pictures_cuts_nothing():
    refl(DiversityReward(Eyes()), prompts=PROMPTS[:1], chunk=6)
    refl(DiversityReward(Eyes()), chunk=7)


@pytest.mark.parametrize("make", [refl, ddpo])
def test_several_processes_need_a_prompt_for_each_group(make):
    objective = make(DiversityReward(Eyes()), chunk=6)
    with pytest.raises(TrainingError, match=r"Write at least 6 prompts, no two of them the same\."):
        objective.prepare(None, Two())
    make(Eyes(), chunk=6).prepare(None, Two())
    objective = make(DiversityReward(Eyes()), prompts=[Prompt(f"{n}", None) for n in range(6)], chunk=6)
    objective.prepare(None, Two())


def test_ddpo_compares_copies_of_a_prompt_within_one_process():
    ddpo(DiversityReward(Eyes()), prompts=PROMPTS[:1]).prepare(None, Share())


def test_dag_refuses_what_compares_pictures_and_takes_it_as_held_out():
    for reward in (DiversityReward(Eyes()), both(), gated(reward=both())):
        with pytest.raises(TrainingError, match="must score what every step promises by itself"):
            dag(reward)
        ddpo(reward)
    dag(Eyes(), held_out=DiversityReward(Eyes()))


def test_what_a_reward_says_of_itself():
    for reward, batch, others in (
        (Eyes(), False, False), (relevance(), True, False), (DiversityReward(Eyes()), True, True), (both(), True, True),
        (gated(reward=relevance()), True, False),
    ):  # fmt: skip
        assert (compares_batch(reward), compares_pictures(reward)) == (batch, others)


def test_the_prompts_of_all_processes_count():
    class Gathering(Share):
        count = 2

        def gather(self, own):
            return torch.cat([own, 2 - own])

    objective = ddpo(relevance())
    objective.practice.prepare(None, Gathering())
    assert objective.practice.everyone([0, 0, 1]) == [0, 0, 1, 2, 2, 1]
