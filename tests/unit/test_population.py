"""Simulated people: choices as the formula says, antagonists that cancel out, attributes as rewards measure them."""

from __future__ import annotations

import pytest
import torch

from attune.nodes.rewards.statistics import MEASURES
from attune.training.interfaces import TrainingError
from attune.training.preference.attributes import ATTRIBUTES
from attune.training.preference.pool import Pool
from attune.training.preference.population import Population, PopulationConfig


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def population(**words) -> Population:
    found = Population(PopulationConfig(**{"people": 6, "seed": 3} | words))
    found.get_used_to(drawn(200, len(found.config.attributes)))
    return found


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_are_the_rewards_of_those_names(name):
    images = torch.rand(5, 9, 7, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ATTRIBUTES[name](images), MEASURES[name](images), rtol=1e-4, atol=1e-5)


def test_choices_are_bradley_terry_with_lapses():
    """Sharpness 2, utilities 1 and ½: σ(1) = .731059; with a tenth of tosses .05 + .9·.731059 = .707953."""
    first, second = torch.tensor(1.0), torch.tensor(0.5)
    assert population(sharpness=2.0).probability(first, second).item() == pytest.approx(0.731059, abs=1e-6)
    assert population(sharpness=2.0, lapses=0.1).probability(first, second).item() == pytest.approx(0.707953, abs=1e-6)
    people = population(sharpness=2.0)
    who, pictures = torch.zeros(20_000, dtype=torch.long), drawn(2, 4, seed=1)
    chosen = people.chooses_first(who, *(part.expand(20_000, 4) for part in pictures), torch.Generator().manual_seed(0))
    wanted = people.probability(*(people.utilities([0], part[None]) for part in pictures)).item()
    assert chosen.float().mean().item() == pytest.approx(wanted, abs=0.015)


def test_everybodys_utility_has_the_deviation_one_over_the_pool():
    people = population(common=(("warmth", 1.0),), spread=0.5)
    pool = drawn(200, 4)
    utilities = torch.stack([people.utilities(torch.full((200,), person), pool) for person in range(6)])
    torch.testing.assert_close(utilities.std(1), torch.ones(6))
    assert people.tastes[:, 0].mean() > 0.3, "what all have in common"


def test_antagonists_cancel_each_other_out():
    people = population(antagonists=True)
    assert torch.equal(people.tastes[::2], -people.tastes[1::2])
    pictures = drawn(2, 6, 4, seed=1)
    wins = people.probability(*(people.utilities(torch.arange(6), part[:1].expand(6, 4)) for part in pictures))
    assert wins.mean().item() == pytest.approx(0.5, abs=1e-6)


def test_equal_seeds_are_equal_people():
    assert torch.equal(population().tastes, population().tastes)
    assert not torch.equal(population().tastes, population(seed=4).tastes)


@pytest.mark.parametrize(
    "words",
    [
        {"people": 0}, {"people": 3, "antagonists": True}, {"attributes": ()}, {"common": (("size", 1.0),)},
        {"sharpness": 0.0}, {"lapses": 2.0}, {"antagonists": True, "common": (("warmth", 1.0),)},
    ],
)  # fmt: skip
def test_bad_populations_are_refused(words):
    with pytest.raises(TrainingError):
        PopulationConfig(**{"people": 6} | words)


def test_what_cannot_be_measured_is_said():
    with pytest.raises(TrainingError, match="no attribute 'size'"):
        Population(PopulationConfig(attributes=("size",)))
    with pytest.raises(TrainingError, match="get_used_to"):
        Population(PopulationConfig()).utilities([0], torch.zeros(1, 4))


# ---- pools ----


def pool() -> Pool:
    prompts = ["a"] * 5 + ["b"] * 2 + ["c"] * 3
    return Pool(prompts, drawn(10, 6), drawn(10, 6, seed=1), drawn(10, 4, seed=2))


def test_pairs_are_two_pictures_of_one_prompt_and_a_persons_pairs_are_of_different_prompts():
    found, names = pool(), pool().prompts
    pairs = found.draw_pairs(50, 3, torch.Generator().manual_seed(0))
    assert pairs.shape == (50, 3, 2)
    for own in pairs.tolist():
        assert all(a != b and names[a] == names[b] for a, b in own)
        assert len({names[a] for a, _ in own}) == 3
    assert set(pairs.flatten().tolist()) == set(range(10))
    assert found.draw_pairs(2, 7, torch.Generator()).shape == (2, 7, 2), "more pairs than prompts"


def test_judged_pairs_have_the_chosen_one_first():
    people = population(sharpness=1e6)
    found, who = pool(), torch.arange(6)
    judged = found.judged(people, who, found.draw_pairs(6, 3, torch.Generator().manual_seed(0)), torch.Generator())
    utilities = people.utilities(who[:, None, None].expand(judged.shape), found.attributes[judged])
    assert (utilities[..., 0] >= utilities[..., 1]).all()
    choices = found.choices(judged)
    assert torch.equal(choices[2, 1, 1], found.pictures[judged[2, 1, 0]])
    assert torch.equal(choices[2, 1, 0], found.texts[judged[2, 1, 0]])


def test_a_single_picture_cannot_be_compared():
    with pytest.raises(TrainingError, match="single picture of 'b'"):
        Pool(["a", "a", "b"], *(torch.zeros(3, 2),) * 3).groups()


def test_what_does_not_vary_is_named():
    people = Population(PopulationConfig(people=4, attributes=("warmth", "contrast")))
    attributes = drawn(6, 2)
    attributes[:, 1] = 0.5
    with pytest.raises(TrainingError, match=r"All 6 pictures have the same contrast.*Leave that attribute out"):
        people.get_used_to(attributes)
