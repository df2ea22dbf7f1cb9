"""Weights of the rewards, learned from what a person chose.

Of two pictures with z-scores R(A), R(B) of the rewards the person prefers A with the probability

    P(A ≻ B) = σ(w·(R(A) − R(B))/κ),   w_i ≥ 0, Σ w_i = 1,

and of a whole round picks A before each of the others with

    P(A) = exp(w·R(A)/κ) / Σ_X exp(w·R(X)/κ),

which for two pictures is the same. A round's worst is picked by the same rule with the signs turned. A tie is half a
choice each way.

| symbol | code name | meaning                                                                        |
| ------ | --------- | ------------------------------------------------------------------------------ |
| w      | weights   | softmax(θ), shares of the rewards                                               |
| κ      | noise     | how much worse a picture may be and still be chosen often                       |
| v      | slopes    | w/κ: all v > 0 are a w and a κ, in one way                                       |
| a      |           | 1 + `prior`: shape of the prior                                                  |

w and κ are estimated together, as the most probable v. In v the log-likelihood is concave, and so is the logarithm of
the prior, v_i ~ Gamma(a, rate b) independently; under it w is Dirichlet(a, …, a) and 1/κ is Gamma(n·a, b). Hence there
is one solution, strictly inside, and Newton's method finds it from anywhere: the same on every run. Without choices it
is w_i = 1/n and κ = `usual_noise` (that sets b).

κ must not be fixed instead: w sums to 1, so that a person who chooses more sharply than assumed could only be explained
by a w that leans to one reward more than they do.

Limits: w_i ≥ 0, so a dislike of what a reward likes ends at 0. Choices among pictures in which two rewards go together
cannot tell those two apart; the prior then gives both the same.

References:
    Bradley & Terry 1952 (two pictures); Luce 1959, "Individual choice behavior" (several). Estimating w and κ together,
    and the prior, are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .checks import RefinementError
from .records import Feedback, Round
from .running_scores import Running, scores_of, z_scores

_ITERATIONS, _HALVINGS = 200, 60
# Newton's decrement from which one whole step more leaves an error of about its size.
_CLOSE = 1e-10


@dataclass(frozen=True)
class Choice:
    """One picture picked before others.

    Attributes:
        differences: z-scores of what won less those of each that lost, [losers, rewards].
        tie: a single loser that was found as good.
    """

    differences: np.ndarray
    tie: bool = False

    def __post_init__(self) -> None:
        found = np.asarray(self.differences, dtype=np.float64)
        if found.ndim != 2 or not found.size or not np.isfinite(found).all():
            raise RefinementError(
                f"A choice holds finite differences [losers, rewards], not {found.tolist()} of shape {found.shape}."
            )
        if self.tie and len(found) != 1:
            raise RefinementError(f"A tie is between two pictures, not {len(found) + 1}.")
        object.__setattr__(self, "differences", found)


def choices_of(z: Sequence[Mapping[str, float]], feedback: Feedback | None, names: Sequence[str]) -> list[Choice]:
    """What a round's feedback says about the rewards.

    Every liked picture was picked before all that are not liked; every disliked one is worse than all about which
    nothing was said. Two liked pictures are not compared. What a reward could not score has no part.

    Args:
        z: z-scores of each picture, by reward; NaN or missing = not scored.
        names: the rewards, in the order of `Choice.differences`.
    """
    if feedback is None:
        return []
    rows = np.array([[picture.get(name, math.nan) for name in names] for picture in z]).reshape(len(z), len(names))
    known = [place for place in range(len(z)) if names and np.isfinite(rows[place]).all()]
    liked, disliked = set(feedback.liked), set(feedback.disliked)
    rest = [place for place in known if place not in liked]
    neutral = [place for place in rest if place not in disliked]
    found = [Choice(rows[place] - rows[rest]) for place in known if place in liked and rest]
    found += [Choice(rows[neutral] - rows[place]) for place in known if place in disliked and neutral]
    return found


def choices_so_far(
    rounds: Iterable[Round], running: Mapping[str, Running], names: Sequence[str], *, costs: Collection[str] = ()
) -> list[Choice]:
    """What a person's choices in some rounds say about the rewards.

    Rounds that the rewards decided have no part: the weights would learn from themselves, and end at the reward that
    they began with.

    Args:
        running: moments by which scores become z-scores. costs: rewards of which less is better.
        names: the rewards, in the order of `Choice.differences`.
    """
    return [
        choice
        for past in rounds
        if past.feedback is not None and past.feedback.by_person
        for choice in choices_of(z_scores(scores_of(past), running, costs=costs), past.feedback, names)
    ]


@dataclass(frozen=True)
class Learned:
    """An estimate.

    Attributes:
        weights: w, by reward; > 0, sum 1.
        noise: κ.
        deviations: how uncertain each weight is: its deviation by the curvature at the estimate.
        choices: how many it stands on.
        agreement: share of the choices in which what won has the highest w·R; a tie counts half. NaN without a choice.
    """

    weights: dict[str, float]
    noise: float
    deviations: dict[str, float]
    choices: int
    agreement: float


def learn(choices: Sequence[Choice], names: Sequence[str], *, prior: float = 1.0, usual_noise: float = 0.5) -> Learned:
    """The most probable weights.

    Args:
        choices: of any number of rounds, all by the same rewards in the order of `names`.
        names: the rewards, at least one.
        prior: a − 1 > 0: how hard it is pulled to equal weights.
        usual_noise: κ without any choice, > 0.

    Raises:
        RefinementError: no reward, choices by another number of rewards, or a knob that is not above 0.
    """
    _check(choices, names, prior, usual_noise)
    rate = len(names) * prior * usual_noise
    evidence = _padded(choices, len(names))

    def at(slopes: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        return objective(slopes, *evidence, prior, rate)

    slopes = _most_probable(at, np.full(len(names), 1 / (len(names) * usual_noise)))
    _, _, curvature = at(slopes)
    total = slopes.sum()
    weights = slopes / total
    turn = (np.eye(len(names)) - weights[:, None]) / total  # ∂w/∂v
    spread = np.sqrt(np.diag(turn @ np.linalg.inv(curvature) @ turn.T).clip(0))
    return Learned(
        dict(zip(names, weights.tolist(), strict=True)),
        float(1 / total),
        dict(zip(names, spread.tolist(), strict=True)),
        len(choices),
        _agreement(weights, choices),
    )


def _check(choices: Sequence[Choice], names: Sequence[str], prior: float, usual_noise: float) -> None:
    for knob, value in (("prior", prior), ("usual_noise", usual_noise)):
        if not 0 < value < math.inf:
            raise RefinementError(f"{knob} must be above 0, not {value!r}.")
    if not names:
        raise RefinementError("Weights need a reward. Connect at least one.")
    for choice in choices:
        if choice.differences.shape[1] != len(names):
            raise RefinementError(f"A choice is by {choice.differences.shape[1]} rewards, not by {len(names)}.")


def _most_probable(at: Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray]], start: np.ndarray) -> np.ndarray:
    """v [n] where `at`, which gives value, gradient and Hessian, is lowest: Newton's method with halved steps."""
    slopes, (value, slope, curvature) = start, at(start)
    for _ in range(_ITERATIONS):
        step = -np.linalg.solve(curvature, slope)
        decrement = float(-slope @ step)
        if decrement <= _CLOSE:
            return slopes + step
        size = 1.0
        for _ in range(_HALVINGS):
            tried = slopes + size * step
            if (tried > 0).all():
                found = at(tried)
                if found[0] <= value - 1e-4 * size * decrement:
                    break
            size /= 2
        else:
            break  # no representable step improves
        slopes, (value, slope, curvature) = tried, found
    return slopes


def objective(
    slopes: np.ndarray, differences: np.ndarray, mask: np.ndarray, ties: np.ndarray, prior: float, rate: float
) -> tuple[float, np.ndarray, np.ndarray]:
    """−log posterior of v but for a constant, its gradient [n] and its Hessian [n, n].

    Σ_c log(1 + Σ_j exp(−v·D_cj)) − prior·Σ log v + rate·Σ v; a tie counts half, and half with D turned.

    Args:
        slopes: v [n], > 0.
        differences: D [C, losers, n]; mask: which losers there are [C, losers]; ties: [C].
    """
    signs = [(1.0, np.where(ties, 0.5, 1.0)), (-1.0, np.where(ties, 0.5, 0.0))]
    value = float(-prior * np.log(slopes).sum() + rate * slopes.sum())
    slope, curvature = -prior / slopes + rate, np.diag(prior / slopes**2)
    for sign, share in signs:
        margins = np.where(mask, -sign * (differences @ slopes), -np.inf)  # (C, losers)
        top = np.maximum(margins.max(1, initial=0), 0)
        odds = np.exp(margins - top[:, None])
        whole = np.exp(-top) + odds.sum(1)
        lost = odds / whole[:, None]  # P(each loser)
        mean = sign * (lost[:, None] @ differences)[:, 0]  # (C, n)
        value += float(share @ (top + np.log(whole)))
        slope = slope - share @ mean
        rows = (share[:, None] * lost)[..., None] * differences  # (C, losers, n)
        curvature = curvature + rows.reshape(-1, len(slopes)).T @ differences.reshape(-1, len(slopes))
        curvature = curvature - (share[:, None] * mean).T @ mean
    return value, slope, curvature


def _padded(choices: Sequence[Choice], rewards: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    most = max((len(choice.differences) for choice in choices), default=1)
    differences, mask = np.zeros((len(choices), most, rewards)), np.zeros((len(choices), most), dtype=bool)
    for row, choice in enumerate(choices):
        differences[row, : len(choice.differences)] = choice.differences
        mask[row, : len(choice.differences)] = True
    return differences, mask, np.array([choice.tie for choice in choices], dtype=bool)


def _agreement(weights: np.ndarray, choices: Sequence[Choice]) -> float:
    if not choices:
        return math.nan
    right = [0.5 if choice.tie else float((choice.differences @ weights).min() > 0) for choice in choices]
    return math.fsum(right) / len(right)


def share_of_learned(choices: int, half_after: float) -> float:
    """ρ_n = n/(n + n₀): how much the learned weights count beside the rule. 0 without choices, ½ after n₀."""
    return choices / (choices + half_after)
