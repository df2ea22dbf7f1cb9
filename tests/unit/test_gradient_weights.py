"""Weights by gradients: closed forms, and the shortest combination against all subsets and a grid."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from attune.nodes.refinement.checks import RefinementError
from attune.nodes.refinement.gradient_weights import batch_gram, by_influence, gram_of, scaled, shortest


def by_subsets(gram: np.ndarray) -> float:
    """Squared length of the shortest combination: the best feasible stationary point of every subset of gradients."""
    best = math.inf
    for size in range(1, len(gram) + 1):
        for members in itertools.combinations(range(len(gram)), size):
            inner = gram[np.ix_(members, members)]
            solution = np.linalg.lstsq(
                np.block([[inner, np.ones((size, 1))], [np.ones((1, size)), np.zeros((1, 1))]]),
                np.eye(size + 1)[-1],
                rcond=None,
            )[0][:size]
            if (solution >= -1e-12).all() and solution.sum() == pytest.approx(1):
                best = min(best, solution @ inner @ solution)
    return best


@pytest.mark.parametrize("rewards", [2, 3, 4, 6])
@pytest.mark.parametrize("width", [1, 2, 3, 40])
@pytest.mark.parametrize("seed", range(5))
def test_shortest_against_all_subsets(rewards, width, seed):
    rng = np.random.default_rng([rewards, width, seed])
    gram = gram_of(rng.normal(size=(rewards, width)) + rng.normal(size=width) * (seed % 3))
    weights = shortest(gram)
    assert (weights >= 0).all() and weights.sum() == pytest.approx(1)
    assert weights @ gram @ weights == pytest.approx(by_subsets(gram), abs=1e-9 * np.abs(gram).max())
    # Every reward rises by at least the squared length.
    assert (gram @ weights >= weights @ gram @ weights - 1e-9 * np.abs(gram).max()).all()


def test_shortest_against_a_grid():
    gram = gram_of(np.random.default_rng(3).normal(size=(3, 5)) + 0.5)
    parts = [(a / 60, b / 60, (60 - a - b) / 60) for a in range(61) for b in range(61 - a)]
    lengths = [np.array(part) @ gram @ np.array(part) for part in parts]
    weights = shortest(gram)
    assert weights @ gram @ weights <= min(lengths)
    assert weights == pytest.approx(parts[int(np.argmin(lengths))], abs=1 / 30)


def test_shortest_closed_forms():
    """Orthogonal gradients of lengths 1, 2: w ∝ 1/length², (4/5, 1/5); of lengths 1, 2, 3: (36, 9, 4)/49. One that lies
    behind another, (1, 0) and (3, 0): all to the shorter."""
    assert shortest(np.diag([1.0, 4.0])) == pytest.approx([0.8, 0.2])
    assert shortest(np.diag([1.0, 4.0, 9.0])) == pytest.approx([36 / 49, 9 / 49, 4 / 49])
    assert shortest(gram_of([[1.0, 0.0], [3.0, 0.0]])) == pytest.approx([1, 0])
    assert shortest(gram_of([[1.0], [1.0]])) == pytest.approx([0.5, 0.5])
    assert shortest(np.zeros((3, 3))) == pytest.approx([1 / 3] * 3)
    assert shortest([[7.0]]) == pytest.approx([1])


def test_opposite_gradients_leave_nothing_to_gain():
    weights = shortest(gram_of([[1.0, 0.0], [-2.0, 0.0], [0.0, 0.0]]))
    assert weights @ gram_of([[1.0, 0.0], [-2.0, 0.0], [0.0, 0.0]]) @ weights == pytest.approx(0, abs=1e-12)


def test_influence_closed_form():
    """Two rewards that agree (⟨g, g⟩ = 1 each, product 1) and one against both (products −1): sums 1, 1, −1. From equal
    weights with lr/μ = 0.5: w ∝ (e^0.5, e^0.5, e^−0.5)."""
    gram = gram_of([[1.0], [1.0], [-1.0]])
    expected = np.exp([0.5, 0.5, -0.5])
    assert by_influence(np.ones(3), gram, learning_rate=1.0, mu=2.0) == pytest.approx(expected / expected.sum())
    assert by_influence(np.array([3.0, 1.0]), np.eye(2), learning_rate=0.3) == pytest.approx([0.75, 0.25])
    assert by_influence(np.array([0.2, 0.3]), gram[:2, :2], learning_rate=0.0) == pytest.approx([0.4, 0.6])


def test_influence_of_huge_gradients_stays_finite():
    assert by_influence(np.ones(2), np.diag([1e6, 1.0]), learning_rate=1.0) == pytest.approx([1, 0])


def test_scale_of_the_gradients_is_taken_out():
    gram = gram_of(np.random.default_rng(0).normal(size=(3, 4)))
    assert scaled(gram) == pytest.approx(scaled(1e6 * gram))
    assert np.trace(scaled(gram)) == pytest.approx(3)
    assert scaled(np.zeros((2, 2))) == pytest.approx(np.zeros((2, 2)))


def test_batch_gram_is_the_gradient_of_the_expected_reward():
    """∂/∂ℓ_k Σ_x softmax(ℓ)_x·z_x at ℓ = 0, by finite differences; a picture that was not scored is left out."""
    rng = np.random.default_rng(1)
    table = rng.normal(size=(5, 2))
    z = [dict(zip("ab", row, strict=True)) for row in table.tolist()] + [{"a": 9.0, "b": math.nan}]

    def expected(logits):
        p = np.exp(logits)
        return p / p.sum() @ table

    width = 1e-6
    gradient = np.array([(expected(width * unit) - expected(-width * unit)) / (2 * width) for unit in np.eye(5)]).T
    assert batch_gram(z, "ab") == pytest.approx(gradient @ gradient.T, rel=1e-6)
    assert batch_gram([], "ab") == pytest.approx(np.zeros((2, 2)))


def test_bad_input_is_refused():
    for words, run in (
        ("not of shape", lambda: shortest(np.ones((2, 3)))),
        ("not finite", lambda: shortest([[math.nan]])),
        ("above 0, not", lambda: by_influence(np.array([0.0, 1.0]), np.eye(2), learning_rate=1.0)),
        ("2 weights .* 3 rewards", lambda: by_influence(np.ones(2), np.eye(3), learning_rate=1.0)),
        ("μ above 0", lambda: by_influence(np.ones(2), np.eye(2), learning_rate=1.0, mu=0)),
    ):
        with pytest.raises(RefinementError, match=words):
            run()
