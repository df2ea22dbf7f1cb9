"""Diversity, consistency and relevance: closed forms, properties, gradients."""

from __future__ import annotations

import math

import pytest
import torch

from attune.nodes.feature_store import FeatureStore
from attune.nodes.rewards import StatisticReward, dialogue, score_table
from attune.nodes.rewards.dialogue import (
    ConsistencyReward,
    DiversityReward,
    RelevanceReward,
    dialogue_reward,
    diversity_credits,
    information,
)
from attune.training.interfaces import RewardContext, RewardError

CHANNELS = {"red": 0, "green": 1, "blue": 2}


class Encoder:
    """Features are the mean colour as a unit vector; the score of a prompt is the colour channel that it names."""

    name, reward_id, differentiable, higher_is_better, uses_prompt = "Encoder", "encoder:1", True, True, True

    def image_features(self, images, *, with_gradients=False):
        features = torch.nn.functional.normalize(images.flatten(1, 2).mean(1), dim=-1)
        return features if with_gradients else features.detach()

    def __call__(self, images, prompts, context=None):
        features = self.image_features(images, with_gradients=True)
        channels = torch.tensor([CHANNELS[prompt] for prompt in prompts])
        return features.gather(1, channels[:, None])[:, 0]


class FastEncoder(Encoder):
    """Scores all pairs at once, and in the pictures' own precision."""

    def similarities(self, images, prompts):
        return torch.stack([self(images, [prompt] * len(images)) for prompt in prompts], 1)


def colour(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).expand(1, 2, 2, 3)


RED, GREEN, BLUE, YELLOW = colour(1, 0, 0), colour(0, 1, 0), colour(0, 0, 1), colour(1, 1, 0)
COS = 1 / math.sqrt(2)


class CountingEncoder(FastEncoder):
    """Counts the pictures that it looks at."""

    def __init__(self, identity: str = "counting") -> None:
        self.reward_id = identity
        self.seen = 0

    def image_features(self, images, *, with_gradients=False):
        self.seen += len(images)
        return super().image_features(images, with_gradients=with_gradients)

    def feature_similarities(self, features, prompts):
        return features[:, [CHANNELS[prompt] for prompt in prompts]]


@pytest.fixture
def store(monkeypatch) -> FeatureStore:
    store = FeatureStore(limit=100)
    monkeypatch.setattr(dialogue, "FEATURES", store)
    return store


@pytest.mark.parametrize("kind", [DiversityReward, ConsistencyReward, RelevanceReward])
def test_a_picture_is_encoded_once(store, kind):
    encoder = CountingEncoder()
    images, prompts = torch.cat([RED, GREEN, RED]), ["red", "green", "blue"]
    context = RewardContext(previous=[YELLOW]) if kind is ConsistencyReward else None
    first = kind(encoder)(images, prompts, context)
    assert encoder.seen == (3 if context else 2)
    assert torch.equal(kind(encoder)(images.clone(), prompts, context), first)
    assert encoder.seen == (3 if context else 2)
    plain = kind(FastEncoder())(images, prompts, context)
    torch.testing.assert_close(first, plain)
    kind(encoder)(torch.cat([images, BLUE]), [*prompts, "red"], context)
    assert encoder.seen == (4 if context else 3), "only the new picture"


def test_the_features_used_longest_ago_are_forgotten():
    store, encoder = FeatureStore(limit=2), CountingEncoder()
    for images, seen in ((RED, 1), (GREEN, 2), (RED, 2), (BLUE, 3), (RED, 3), (GREEN, 4)):
        store.of(encoder, images)
        assert encoder.seen == seen
    assert len(store) == 2
    assert store.of(encoder, torch.cat([RED, GREEN, BLUE, YELLOW])).shape == (4, 3), "more at once than are kept"
    assert store.of(encoder, RED[:0]).shape == (0, 3)


def test_another_encoder_has_features_of_its_own(store):
    DiversityReward(CountingEncoder("a"))(RED, ["p"])
    other = CountingEncoder("b")
    DiversityReward(other)(RED, ["p"])
    assert other.seen == 1


@pytest.mark.parametrize("kind", [DiversityReward, RelevanceReward])
def test_gradients_are_not_taken_from_what_is_remembered(store, kind):
    encoder, prompts = CountingEncoder(), ["red", "green", "red"]
    with torch.inference_mode():
        kind(encoder)(torch.cat([RED, GREEN, YELLOW]), prompts)
        context = RewardContext(previous=[BLUE + 0.5 * RED])
        ConsistencyReward(encoder)(RED, ["p"], context)
    images = torch.cat([RED, GREEN, YELLOW]).requires_grad_()
    kind(encoder)(images, prompts)[2].backward()
    assert images.grad.abs().sum() > 0
    # What was remembered in inference mode may stand in a graph.
    leaf = YELLOW.clone().requires_grad_()
    ConsistencyReward(encoder)(leaf, ["p"], RewardContext(previous=[BLUE + 0.5 * RED])).sum().backward()
    assert leaf.grad.abs().sum() > 0


def test_cancel_is_asked_for_before_every_prompt_of_a_slow_reward():
    encoder, asked = Encoder(), []
    encoder.between = lambda: asked.append(1)
    RelevanceReward(encoder)(torch.cat([RED, GREEN]), ["red", "green"])
    assert len(asked) == 2


def test_diversity_is_the_mean_distance_to_the_others():
    """Red, green, yellow: cos are 0, 1/√2, 1/√2. Credits: mean(1, 1−c), mean(1, 1−c), 1−c."""
    scores = DiversityReward(Encoder())(torch.cat([RED, GREEN, YELLOW]), ["p"] * 3)
    assert scores.tolist() == pytest.approx([(2 - COS) / 2, (2 - COS) / 2, 1 - COS], abs=1e-6)


def test_the_mean_of_the_credits_is_r_div():
    features = torch.nn.functional.normalize(torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    distances = [1 - float(features[i] @ features[j]) for i in range(6) for j in range(6) if i != j]
    assert diversity_credits(features, ["p"] * 6).mean().item() == pytest.approx(sum(distances) / 30, abs=1e-6)


def test_diversity_compares_within_a_prompt_only():
    reward = DiversityReward(Encoder())
    scores = reward(torch.cat([RED, GREEN, RED, BLUE]), ["a", "b", "a", "c"])
    assert scores.tolist() == pytest.approx([0, 0, 0, 0], abs=1e-6), "equal ones, and two that are alone"
    assert reward(torch.cat([RED, GREEN]), ["a", "a"]).tolist() == pytest.approx([1, 1])


def test_a_duplicate_lowers_diversity():
    reward = DiversityReward(Encoder())
    different = reward(torch.cat([RED, GREEN, BLUE]), ["p"] * 3).mean()
    assert reward(torch.cat([RED, GREEN, RED]), ["p"] * 3).mean() < different


def test_consistency_of_the_chain():
    """Rounds red, yellow, then green: (cos(red, yellow) + cos(yellow, green)) / 2 = 1/√2."""
    context = RewardContext(previous=[RED, YELLOW])
    scores = ConsistencyReward(Encoder())(torch.cat([GREEN, YELLOW]), ["p"] * 2, context)
    assert scores.tolist() == pytest.approx([COS, (COS + 1) / 2], abs=1e-6)


def test_consistency_of_the_first_round_is_zero_and_rounds_without_a_choice_are_left_out():
    reward = ConsistencyReward(Encoder())
    assert reward(RED, ["p"]).tolist() == [0]
    empty = torch.zeros(0, 2, 2, 3)
    assert reward(RED, ["p"], RewardContext(previous=[empty])).tolist() == [0]
    with_gap = reward(GREEN, ["p"], RewardContext(previous=[RED, empty, YELLOW]))
    assert with_gap.tolist() == reward(GREEN, ["p"], RewardContext(previous=[RED, YELLOW])).tolist()


def test_consistency_needs_no_equal_sizes_and_has_a_slope_in_the_first_round():
    reward = ConsistencyReward(Encoder())
    table = score_table([RED[0], torch.ones(5, 7, 3)], ["", ""], reward, context=RewardContext(previous=[RED]))
    assert table.scores == pytest.approx((1, 1 / math.sqrt(3)), abs=1e-6)
    images = RED.clone().requires_grad_()
    reward(images, [""]).sum().backward()
    assert images.grad.tolist() == torch.zeros_like(images).tolist()


def test_several_choices_of_a_round_count_as_their_mean():
    scores = ConsistencyReward(Encoder())(YELLOW, ["p"], RewardContext(previous=[torch.cat([RED, GREEN])]))
    assert scores.tolist() == pytest.approx([1], abs=1e-6)


def test_relevance_closed_form_and_bound():
    """Red and green with their own prompts: s = [[1, 0], [0, 1]], so each is log(e^(1/κ) / ((e^(1/κ) + 1)/2))."""
    reward = RelevanceReward(Encoder(), temperature=0.5)
    expected = 2 - math.log((math.exp(2) + 1) / 2)
    assert reward(torch.cat([RED, GREEN]), ["red", "green"]).tolist() == pytest.approx([expected] * 2, abs=1e-5)
    sharp = RelevanceReward(Encoder(), temperature=0.01)(torch.cat([RED, GREEN]), ["red", "green"])
    assert sharp.tolist() == pytest.approx([math.log(2)] * 2, abs=1e-5), "the bound log B is reached"
    assert RelevanceReward(Encoder())(torch.cat([RED, GREEN]), ["green", "red"]).max() < 0


def test_prompts_that_repeat_count_as_often_as_they_occur():
    """Three pictures, prompts red, red, blue: mean over j has red twice."""
    scores = RelevanceReward(Encoder(), temperature=1.0)(torch.cat([RED, RED, BLUE]), ["red", "red", "blue"])
    red = 1 - math.log((2 * math.e + 1) / 3)
    blue = 1 - math.log((2 + math.e) / 3)
    assert scores.tolist() == pytest.approx([red, red, blue], abs=1e-5)


def test_contrast_prompts_make_one_prompt_comparable():
    reward = RelevanceReward(Encoder(), contrast=["green", "blue"])
    scores = reward(torch.cat([RED, YELLOW]), ["red", "red"])
    assert scores[0] > scores[1]
    assert reward.reward_id != RelevanceReward(Encoder(), contrast=["green"]).reward_id
    with pytest.raises(RewardError, match="there is only one: \\['red'\\]"):
        RelevanceReward(Encoder())(torch.cat([RED, YELLOW]), ["red", "red"])


def test_all_pairs_at_once_or_one_by_one_is_the_same():
    pictures, prompts = torch.cat([RED, YELLOW, BLUE]), ["red", "green", "blue"]
    slow, fast = (RelevanceReward(encoder)(pictures, prompts) for encoder in (Encoder(), FastEncoder()))
    assert torch.allclose(slow, fast, atol=1e-6)


def test_costs_are_turned_round():
    class Cost(Encoder):
        higher_is_better = False

        def __call__(self, images, prompts, context=None):
            return -super().__call__(images, prompts)

    pictures, prompts = torch.cat([RED, GREEN]), ["red", "green"]
    assert torch.equal(RelevanceReward(Cost())(pictures, prompts), RelevanceReward(Encoder())(pictures, prompts))


@pytest.mark.parametrize("kind", ["diversity", "consistency", "relevance"])
def test_gradients_by_finite_differences(kind):
    reward = dialogue_reward(kind, FastEncoder())
    generator = torch.Generator().manual_seed(3)
    pictures = torch.rand(3, 2, 2, 3, generator=generator, dtype=torch.float64)
    context = RewardContext(previous=[torch.rand(2, 2, 2, 3, generator=generator, dtype=torch.float64)])

    def total(images: torch.Tensor) -> torch.Tensor:
        return reward(images, ["red", "red", "blue"], context).double().sum()

    assert torch.autograd.gradcheck(total, pictures.requires_grad_(), eps=1e-6, atol=1e-6)


def test_information_is_largest_where_the_own_score_stands_out():
    scores = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    own, counts = torch.tensor([0, 0]), torch.tensor([1, 1, 1])
    found = information(scores, own, counts, temperature=0.1)
    assert found[1].item() == pytest.approx(0, abs=1e-6)
    assert 0 < found[0] <= math.log(3)


def test_what_a_reward_lacks_is_said():
    with pytest.raises(RewardError, match="Brightness \\(high\\) has no features"):
        DiversityReward(StatisticReward("brightness"))
    with pytest.raises(RewardError, match="does not look at the prompt"):
        RelevanceReward(StatisticReward("brightness"))
    with pytest.raises(RewardError, match="above 0, not 0"):
        RelevanceReward(Encoder(), temperature=0)
    with pytest.raises(RewardError, match="diversity, consistency, relevance"):
        dialogue_reward("novelty", Encoder())


@pytest.mark.parametrize("kind", ["diversity", "consistency", "relevance"])
def test_wrapped_attributes_are_passed_on(kind):
    reward = dialogue_reward(kind, Encoder())
    assert reward.contextual
    assert reward.higher_is_better
    assert reward.differentiable
    assert reward.reward_id.endswith("encoder:1")
    assert "Encoder" in reward.name
