"""Weights of the rewards from the directions in which each of them pulls.

| symbol | code name | meaning                                                                          |
| ------ | --------- | -------------------------------------------------------------------------------- |
| g_i    |           | gradient of reward i, of whatever is moved: weights of a LoRA, a latent, a choice |
| G      | gram      | ⟨g_i, g_j⟩, all that is needed of the gradients: symmetric, [n, n]                |
| w      | weights   | ≥ 0, sum 1                                                                       |

*Influence*: a reward whose direction helps the others gets more of the weight,

    log w_i += (lr/μ)·Σ_j ⟨g_i, g_j⟩,   then softmax.

*MGDA*: the convex combination of the gradients that is shortest. Its direction d = Σ w_i g_i raises every reward by at
least ‖d‖² per unit (⟨g_i, d⟩ ≥ ‖d‖²), and where it is 0 none can be raised without lowering another.

Where nothing is trained between the rounds there still is a gradient: that of the expected reward with respect to the
log-probabilities with which the pictures of the batch are kept. At equal probabilities it is g_i = (z_i − mean z_i)/N,
so that G is the covariance of the rewards over the batch, divided by N (`batch_gram`).

References:
    influence: Fan et al. 2024, "DoGE: domain reweighting with generalization estimation", algorithm 1, there of
    domains of text. MGDA: Désidéri 2012; Sener & Koltun 2018, "Multi-task learning as multi-objective optimization",
    eq. 3, and their closed form for two. The solver for more is Frank & Wolfe's with pairwise steps (Lacoste-Julien &
    Jaggi 2015), exact line search. `batch_gram` and `scaled` are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from .checks import RefinementError

# Of the largest entry of the Gram matrix: how far the shortest combination may be from the true one, squared.
_GAP = 1e-13
_STEPS = 100_000
# Of the longest gradient, squared: what is shorter is rounding.
_NO_PULL = 1e-12


def batch_gram(z: Sequence[Mapping[str, float]], names: Sequence[str]) -> np.ndarray:
    """G of a batch's z-scores, see the module: [n, n].

    Args:
        z: z-scores of each picture, by reward. Pictures that a reward could not score are left out.
        names: the rewards.
    """
    rows = np.array([[picture.get(name, math.nan) for name in names] for picture in z], dtype=np.float64)
    rows = rows.reshape(len(z), len(names))
    rows = rows[np.isfinite(rows).all(1)]
    if not len(rows):
        return np.zeros((len(names), len(names)))
    centred = (rows - rows.mean(0)) / len(rows)
    return centred.T @ centred


def gram_of(gradients: np.ndarray) -> np.ndarray:
    """G of gradients [n, parameters]."""
    return checked(np.asarray(gradients, dtype=np.float64) @ np.asarray(gradients, dtype=np.float64).T)


def checked(gram: np.ndarray) -> np.ndarray:
    """G in float64, made symmetric.

    Raises:
        RefinementError: not square, or not finite.
    """
    found = np.asarray(gram, dtype=np.float64)
    if found.ndim != 2 or found.shape[0] != found.shape[1] or not found.size:
        raise RefinementError(f"Products of gradients are a table [rewards, rewards], not of shape {found.shape}.")
    if not np.isfinite(found).all():
        raise RefinementError(
            "A gradient of a reward is not finite. Lower the learning rate, or leave that reward out."
        )
    return (found + found.T) / 2


def pulling(gram: np.ndarray) -> np.ndarray:
    """Which rewards have a gradient at all, bool [n].

    One without says nothing about the direction; in `shortest` it would be the shortest of all, and take all of the
    weight.
    """
    lengths = np.diag(checked(gram))
    return lengths > _NO_PULL * lengths.max()


def scaled(gram: np.ndarray) -> np.ndarray:
    """G in units of the gradients' mean squared length, so that a learning rate means the same for every model."""
    gram = checked(gram)
    size = np.trace(gram) / len(gram)
    return gram / size if size > 0 else gram


def by_influence(before: np.ndarray, gram: np.ndarray, *, learning_rate: float, mu: float = 1.0) -> np.ndarray:
    """One update by influence.

    Args:
        before: w [n], > 0; need not sum to 1.
        gram: G; give it `scaled` unless the formula's own unit is wanted.
        learning_rate: lr ≥ 0; 0 leaves the weights as they are.
        mu: μ > 0: how much a change of the weights costs.

    Raises:
        RefinementError: a weight or a knob is out of range; shapes differ.
    """
    weights, gram = np.asarray(before, dtype=np.float64), checked(gram)
    if weights.shape != (len(gram),):
        raise RefinementError(f"There are {len(weights)} weights for the gradients of {len(gram)} rewards.")
    if not (weights > 0).all() or not np.isfinite(weights).all():
        raise RefinementError(f"Weights that are moved by influence must be above 0, not {weights.tolist()}.")
    if not (0 <= learning_rate < math.inf and 0 < mu < math.inf):
        raise RefinementError(f"lr must be at least 0 and μ above 0, not {learning_rate!r} and {mu!r}.")
    logits = np.log(weights) + learning_rate / mu * gram.sum(1)
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


def shortest(gram: np.ndarray) -> np.ndarray:
    """MGDA: w [n] of the shortest convex combination; of several that are as short, one.

    Two rewards: w_1 = ⟨g_2 − g_1, g_2⟩/‖g_1 − g_2‖², clipped to [0, 1]; equal gradients share.

    Raises:
        RefinementError: not a table of finite products, or the solver came to no end.
    """
    gram = checked(gram)
    if len(gram) == 2:
        return _shortest_of_two(gram)
    weights = np.full(len(gram), 1 / len(gram))
    tolerance = _GAP * max(float(np.abs(gram).max()), np.finfo(float).tiny)
    for _ in range(_STEPS):
        slope = gram @ weights
        best = int(slope.argmin())
        if weights @ slope - slope[best] <= tolerance:
            return weights / weights.sum()
        held = np.flatnonzero(weights > 0)
        worst = int(held[slope[held].argmax()])
        curvature = gram[best, best] + gram[worst, worst] - 2 * gram[best, worst]
        step = (slope[worst] - slope[best]) / curvature if curvature > 0 else math.inf
        if step >= weights[worst]:
            weights[best] += weights[worst]
            weights[worst] = 0.0
        else:
            weights[best] += step
            weights[worst] -= step
    raise RefinementError("The shortest combination of the gradients was not found. Use another rule for the weights.")


def _shortest_of_two(gram: np.ndarray) -> np.ndarray:
    apart = gram[0, 0] + gram[1, 1] - 2 * gram[0, 1]
    first = 0.5 if apart <= 0 else min(1.0, max(0.0, (gram[1, 1] - gram[0, 1]) / apart))
    return np.array([first, 1 - first])
