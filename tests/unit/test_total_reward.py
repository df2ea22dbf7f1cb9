"""R_total of a session: the weighted z-scores it promises, and the products of its rewards' gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from attune.nodes.refinement.checks import RefinementError
from attune.nodes.refinement.draft import Judge, unique_names
from attune.nodes.refinement.reward_gradients import choice_gram
from attune.nodes.refinement.running_scores import running_of
from attune.nodes.refinement.scoring import score_round
from attune.nodes.refinement.total_reward import TotalReward

PICTURES = torch.rand(3, 4, 5, 3, generator=torch.Generator().manual_seed(1))
PROMPTS = ["a cat"] * 3


@dataclass
class Linear:
    """Mean of the pictures times a pattern: a reward whose gradient is known."""

    name: str
    pattern: torch.Tensor
    higher_is_better: bool = True
    differentiable: bool = True
    seen: list[Any] = field(default_factory=list)

    @property
    def reward_id(self) -> str:
        return f"linear:{self.name}:{self.pattern.flatten().tolist()[:4]}"

    def __call__(self, images: torch.Tensor, prompts: Any, context: Any = None) -> torch.Tensor:
        self.seen.append(context)
        return (images * self.pattern).flatten(1).sum(1)


def pattern(seed: int) -> torch.Tensor:
    return torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(seed))


def judges() -> list[Judge]:
    return [Judge("fit", "relevance", Linear("fit", pattern(1))),
            Judge("cost", "", Linear("cost", pattern(2), higher_is_better=False))]  # fmt: skip


def test_it_is_the_weighted_sum_of_signed_z_scores():
    found, running = judges(), {"fit": running_of([1.0, 3.0, 8.0])}
    total = TotalReward(found, {"fit": 3.0, "cost": 1.0}, running)
    fit, cost = (judge.reward(PICTURES, PROMPTS) for judge in found)
    mean, deviation = running["fit"].mean, running["fit"].deviation
    # A reward without moments enters as it is, a cost with its sign turned.
    expected = 0.75 * (fit - mean) / deviation - 0.25 * cost
    torch.testing.assert_close(total(PICTURES, PROMPTS), expected)
    assert total.differentiable and not total.needs_previous


def test_a_reward_without_weight_is_not_asked_and_something_must_have_one():
    found = judges()
    TotalReward(found, {"fit": 1.0, "cost": 0.0}, {})(PICTURES, PROMPTS)
    assert found[0].reward.seen and not found[1].reward.seen
    with pytest.raises(RefinementError, match="has a weight"):
        TotalReward(found, {"fit": 0.0}, {})


def test_earlier_choices_go_along_and_count_as_another_reward():
    found = judges()
    plain, later = (TotalReward(found, {"fit": 1.0}, {}, part) for part in ((), (PICTURES[:1],)))
    later(PICTURES, PROMPTS)
    assert torch.equal(found[0].reward.seen[-1].previous[0], PICTURES[:1])
    other = TotalReward(found, {"fit": 1.0}, {}, (PICTURES[1:2],))
    assert len({plain.reward_id, later.reward_id, other.reward_id}) == 3
    assert later.contextual and not plain.contextual


def test_products_of_gradients_are_those_of_the_patterns():
    found, running = judges(), {"fit": running_of([1.0, 3.0, 8.0]), "cost": running_of([0.0, 1.0])}
    earlier = PICTURES[:1]
    gram = choice_gram(found, PICTURES, (1, 2), "a dog", previous=[earlier], running=running)
    fit, cost = (judge.reward.pattern.double().flatten() / running[judge.name].deviation for judge in found)
    expected = [[float(fit @ fit), float(-fit @ cost)], [float(-fit @ cost), float(cost @ cost)]]
    np.testing.assert_allclose(gram, expected, rtol=1e-5)
    (context,) = found[0].reward.seen
    assert context.previous == (earlier,)


def test_a_picture_that_a_gate_holds_back_has_no_score():
    class Gated(Linear):
        def unsafe(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tensor([bool((image == PICTURES[1]).all()) for image in images])

        def presentable(self, images: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(images)

    gated = Judge("gated", "", Gated("gated", pattern(3)))
    steps: list[int] = []
    found = score_round([judges()[0], gated], PICTURES, "a cat", [], lambda: steps.append(1))
    assert found[1] == {} and set(found[0]) == set(found[2]) == {"fit", "gated"} and len(steps) == 4
    assert math.isclose(found[2]["gated"], float((PICTURES[2] * pattern(3)).sum()), rel_tol=1e-5)


def test_equal_names_are_told_apart():
    assert unique_names(["clip", "clip", "clip 2", "clip"]) == ["clip", "clip 2", "clip 2 2", "clip 3"]
