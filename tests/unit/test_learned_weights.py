"""Weights learned from choices: derivatives, closed forms, a grid, recovery of known weights."""

from __future__ import annotations

import math

import numpy as np
import pytest

from attune.nodes.refinement.checks import RefinementError
from attune.nodes.refinement.learned_weights import (
    Choice,
    _padded,
    choices_of,
    choices_so_far,
    learn,
    objective,
    share_of_learned,
)
from attune.nodes.refinement.records import REWARDS, Feedback, Picture, Round, Schedule
from attune.nodes.refinement.running_scores import running_scores, scores_of

AB = ("a", "b")


def random_choices(count: int, rewards: int, seed: int, *, weights=None, noise: float = 0.5, size: int = 2):
    """Pictures with normal z-scores; picked by Luce's rule with these weights, by the largest of Gumbel's noise."""
    rng = np.random.default_rng(seed)
    weights = np.ones(rewards) / rewards if weights is None else np.asarray(weights)
    found = []
    for _ in range(count):
        z = rng.normal(size=(size, rewards))
        best = int((z @ weights / noise + rng.gumbel(size=size)).argmax())
        found.append(Choice(z[best] - np.delete(z, best, 0)))
    return found


def values(learned) -> np.ndarray:
    return np.array(list(learned.weights.values()))


def test_objective_by_hand():
    """v = (1, 2); one choice by D = (1, −1) and (0.5, 0), one tie by (2, 0), prior 0.5, rate 0.3:
    log(1 + e^1 + e^−0.5) + ½ log(1 + e^−2) + ½ log(1 + e^2) − 0.5·log 2 + 0.3·3."""
    choices = [Choice([[1.0, -1.0], [0.5, 0.0]]), Choice([[2.0, 0.0]], tie=True)]
    value, _, _ = objective(np.array([1.0, 2.0]), *_padded(choices, 2), 0.5, 0.3)
    expected = math.log(1 + math.e + math.exp(-0.5)) + 0.5 * math.log1p(math.exp(-2)) + 0.5 * math.log1p(math.exp(2))
    assert value == pytest.approx(expected - 0.5 * math.log(2) + 0.9)


def test_derivatives_by_finite_differences():
    choices = [*random_choices(4, 3, 0, size=3), *random_choices(3, 3, 1), Choice([[0.3, -1.0, 0.2]], tie=True)]
    padded, at, width = _padded(choices, 3), np.array([0.7, 0.2, 1.4]), 1e-5
    _, slope, curvature = objective(at, *padded, 0.5, 0.8)
    for i, unit in enumerate(np.eye(3) * width):
        up, down = (objective(at + sign * unit, *padded, 0.5, 0.8) for sign in (1, -1))
        assert slope[i] == pytest.approx((up[0] - down[0]) / (2 * width), rel=1e-6)
        assert curvature[i] == pytest.approx((up[1] - down[1]) / (2 * width), rel=1e-5, abs=1e-6)
    assert np.linalg.eigvalsh(curvature).min() > 0


def test_far_scores_do_not_overflow():
    value, slope, curvature = objective(np.array([3e3, 1.0]), *_padded([Choice([[-1.0, 0.0]])], 2), 0.5, 0.1)
    assert np.isfinite([value, *slope, *curvature.flatten()]).all()


def test_without_choices_all_count_the_same():
    learned = learn([], ("a", "b", "c", "d"), usual_noise=0.7)
    assert values(learned) == pytest.approx([0.25] * 4)
    assert learned.noise == pytest.approx(0.7)
    assert math.isnan(learned.agreement)
    assert learned.choices == 0


def test_one_reward_is_all_there_is():
    assert learn([Choice([[1.0]]), Choice([[-0.5]])], ("a",)).weights == {"a": 1.0}


def test_estimate_is_the_best_of_a_grid():
    """Two rewards: no v of a grid of 120 × 120 is more probable, and the best of it is the nearest."""
    choices = random_choices(12, 2, 3, weights=(0.8, 0.2))
    learned = learn(choices, AB, prior=0.5, usual_noise=0.5)
    padded = _padded(choices, 2)
    best = objective(values(learned) / learned.noise, *padded, 0.5, 0.5)[0]
    axis = np.linspace(0.01, 6, 120)
    grid = np.array([[objective(np.array([a, b]), *padded, 0.5, 0.5)[0] for b in axis] for a in axis])
    place = np.unravel_index(grid.argmin(), grid.shape)
    assert best <= grid.min()
    assert axis[list(place)] == pytest.approx(values(learned) / learned.noise, abs=axis[1] - axis[0])


def test_slope_at_the_estimate_is_zero():
    choices = random_choices(40, 4, 5, weights=(0.6, 0.3, 0.1, 0.0), size=5)
    learned = learn(choices, "abcd", prior=0.3, usual_noise=0.4)
    _, slope, _ = objective(values(learned) / learned.noise, *_padded(choices, 4), 0.3, 4 * 0.3 * 0.4)
    assert np.abs(slope).max() < 1e-7


@pytest.mark.parametrize("size", [2, 6])
def test_many_choices_recover_weights_and_noise(size):
    """4000 choices: w within 4 of the deviations that the estimate states for itself, κ within a tenth."""
    truth = np.array([0.6, 0.3, 0.1])
    learned = learn(random_choices(4000, 3, 11, weights=truth, noise=0.4, size=size), "abc")
    spread = np.array(list(learned.deviations.values()))
    assert (np.abs(values(learned) - truth) < 4 * spread).all()
    assert spread.max() < 0.03
    assert learned.noise == pytest.approx(0.4, rel=0.1)


def test_stated_uncertainty_is_the_observed_one():
    """100 people of one taste, 60 choices each: the deviation of their estimates is the stated one, within 30 %."""
    people = [learn(random_choices(60, 2, 100 + seed, weights=(0.5, 0.5)), AB) for seed in range(100)]
    observed = np.std([person.weights["a"] for person in people])
    assert observed == pytest.approx(np.mean([person.deviations["a"] for person in people]), rel=0.3)


def test_fixing_the_noise_would_bias_the_weights():
    """Why κ is estimated: a person eight times as sharp as usual, w = (0.7, 0.3), is found as they are."""
    learned = learn(random_choices(3000, 2, 2, weights=(0.7, 0.3), noise=0.0625), AB)
    assert learned.weights["a"] == pytest.approx(0.7, abs=0.02)
    assert learned.noise < 0.1


def test_swapping_rewards_swaps_weights():
    choices = random_choices(20, 2, 8, weights=(0.9, 0.1))
    turned = [Choice(choice.differences[:, ::-1]) for choice in choices]
    assert values(learn(choices, AB)) == pytest.approx(values(learn(turned, AB))[::-1])


def test_order_of_choices_does_not_matter_and_runs_repeat():
    choices = random_choices(30, 3, 4, size=4)
    one, again, turned = learn(choices, "abc"), learn(choices, "abc"), learn(choices[::-1], "abc")
    assert one == again
    assert values(one) == pytest.approx(values(turned), rel=1e-9)


def test_ties_pull_towards_indifference():
    """Choices for a; ties over pictures that differ in a make a count less."""
    choices = [Choice([[1.0, 0.0]])] * 5
    tied = [*choices, *[Choice([[1.0, 0.0]], tie=True)] * 5]
    assert learn(choices, AB).weights["a"] > learn(tied, AB).weights["a"] > 0.3
    turned = [*choices, *[Choice([[-1.0, 0.0]], tie=True)] * 5]
    assert values(learn(tied, AB)) == pytest.approx(values(learn(turned, AB)))


def test_choices_of_a_round():
    """Liked 0, disliked 3 of five, the last not scored by b: 0 before 1, 2, 3; 1 and 2 before 3."""
    z = [{"a": float(n), "b": 10.0 * n} for n in range(4)] + [{"a": 9.0, "b": math.nan}]
    found = choices_of(z, Feedback(liked=(0,), disliked=(3,)), AB)
    assert [choice.differences.tolist() for choice in found] == [
        [[-1.0, -10.0], [-2.0, -20.0], [-3.0, -30.0]],
        [[-2.0, -20.0], [-1.0, -10.0]],
    ]
    two = choices_of(z[:3], Feedback(liked=(0, 2)), AB)
    assert [choice.differences.tolist() for choice in two] == [[[-1.0, -10.0]], [[1.0, 10.0]]]


@pytest.mark.parametrize("feedback", [None, Feedback(), Feedback(liked=(0, 1)), Feedback(disliked=(0, 1))])
def test_no_comparison_no_choice(feedback):
    assert choices_of([{"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 1.0}], feedback, AB) == []


def test_share_of_learned():
    assert [share_of_learned(n, 10) for n in (0, 10, 30)] == [0, 0.5, 0.75]


def test_agreement_counts_what_the_weights_explain():
    learned = learn(
        [Choice([[1.0, 0.0]]), Choice([[0.0, 1.0]]), Choice([[-0.1, 0.0]]), Choice([[1.0, 1.0]], tie=True)], AB
    )
    assert learned.agreement == pytest.approx(2.5 / 4)


def test_bad_input_is_refused():
    for words, run in (
        ("prior must be above 0, not 0", lambda: learn([], AB, prior=0)),
        ("usual_noise must be above 0", lambda: learn([], AB, usual_noise=-1)),
        ("at least one", lambda: learn([], ())),
        ("by 3 rewards, not by 2", lambda: learn(random_choices(1, 3, 0), AB)),
        ("finite differences", lambda: Choice([[math.nan]])),
        ("finite differences", lambda: Choice([1.0])),
        ("between two pictures, not 3", lambda: Choice([[1.0], [2.0]], tie=True)),
    ):
        with pytest.raises(RefinementError, match=words):
            run()


def a_round(number: int, rater: str) -> Round:
    """Two pictures of which the second, that "a" prefers, was liked."""
    pictures = tuple(Picture(f"{number}{place}" * 32, place, {"a": float(place), "b": 0.0}) for place in range(2))
    return Round(
        f"{number:032x}", None if number == 1 else f"{number - 1:032x}", number, 0, "a cat", "", {},
        Schedule("linear", 2, 1.0, (1, 2)), None, pictures, Feedback(liked=(1,), rater=rater), 1.0, "", "", 1,
    )  # fmt: skip


def test_nothing_is_learned_of_a_person_from_what_the_rewards_decided():
    rounds = [a_round(1, REWARDS), a_round(2, ""), a_round(3, "a simulated person")]
    running = running_scores([scores_of(past) for past in rounds])
    assert choices_so_far(rounds[:1], running, AB) == []
    found = choices_so_far(rounds, running, AB)
    assert [choice.differences.tolist() for choice in found] == [[[2.0, 0.0]], [[2.0, 0.0]]]
    turned = choices_so_far(rounds, running, AB, costs=["a"])
    assert [choice.differences.tolist() for choice in turned] == [[[-2.0, 0.0]], [[-2.0, 0.0]]]
