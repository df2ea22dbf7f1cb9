"""What a set of comparisons says of a person's taste: a direction in an encoder's features, and how sure that is.

Bradley & Terry (1952) with a linear score s(x) = wᵀF(x) and a Gaussian prior on w; the posterior is Laplace's.

| symbol | code name | meaning |
| --- | --- | --- |
| F(x) | features | unit feature vector of a picture |
| d_i | differences | F(preferred) − F(other) of comparison i |
| y_i | outcomes | 1 = preferred, 1/2 = tie |
| c_i | weights | how much comparison i counts |
| w | direction | taste; w ~ N(0, σ²I) before any choice |
| m | margins | wᵀd, the log-odds of preferring the one to the other |
| H | precision | Σ c_i p_i(1 − p_i) d_i d_iᵀ + I/σ², inverse covariance of w after the choices |

    ŵ = argmin Σ c_i [log(1 + e^{m_i}) − y_i m_i] + |w|²/2σ²,   w | choices ≈ N(ŵ, H⁻¹)

σ is the one of greatest evidence times a wide prior on it (MacKay 1992): with a handful of choices the evidence hardly
depends on it. All is computed in the span of the differences, outside of which the posterior is the prior: exact, and
cheap where choices are few.

References:
    Bradley & Terry 1952, "Rank analysis of incomplete block designs". MacKay 1992, "The evidence framework applied to
    classification networks", eq. 10 for the evidence and the moderated output. Ties as half a win each: usual practice.
    Houlsby et al. 2011, "Bayesian active learning for classification and preference learning", for choosing questions
    by information; the Gaussian approximation of it is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .records import PreferenceError

# Margin of a typical pair before any choice: a person prefers one of two with a probability of about σ(1.5) = 0.82.
_TYPICAL_MARGIN, _SPREAD = 1.5, 0.75
_MARGINS = torch.logspace(math.log10(0.15), math.log10(24.0), 12, dtype=torch.float64).tolist()
_STEPS, _PRECISE = 60, 1e-16
# Directions in which the differences reach less than this part of their longest one are rounding.
_RANK = 1e-9


@dataclass(frozen=True)
class Evidence:
    """Comparisons in numbers, n of them in D dimensions; float64.

    Attributes:
        differences: [n, D]. outcomes: [n], 1 or 1/2. weights: [n], > 0.
    """

    differences: torch.Tensor
    outcomes: torch.Tensor
    weights: torch.Tensor

    def part(self, chosen: torch.Tensor | Sequence[int]) -> Evidence:
        """Those of the comparisons that a bool [n] or their places name."""
        chosen = torch.as_tensor(chosen)
        return Evidence(self.differences[chosen], self.outcomes[chosen], self.weights[chosen])


@dataclass(frozen=True)
class Taste:
    """The posterior of a direction in D dimensions; float64.

    Attributes:
        direction: [D], its mean ŵ.
        basis: [D, r], orthonormal columns that span what was compared.
        covariance: [r, r] in that basis; outside of it there is the prior.
        scale: σ, the prior's standard deviation.
    """

    direction: torch.Tensor
    basis: torch.Tensor
    covariance: torch.Tensor
    scale: float

    def margins(self, differences: torch.Tensor) -> torch.Tensor:
        """Mean of wᵀd of differences [m, D]: [m]."""
        return differences @ self.direction

    def joint(self, differences: torch.Tensor) -> torch.Tensor:
        """Covariance of wᵀd of differences [m, D]: [m, m]."""
        inside = differences @ self.basis
        outside = differences - inside @ self.basis.T
        return inside @ self.covariance @ inside.T + self.scale**2 * (outside @ outside.T)

    def variances(self, differences: torch.Tensor) -> torch.Tensor:
        """The diagonal of `joint`: [m]."""
        inside = differences @ self.basis
        outside = differences - inside @ self.basis.T
        return ((inside @ self.covariance) * inside).sum(1) + self.scale**2 * outside.square().sum(1)

    def probabilities(self, differences: torch.Tensor) -> torch.Tensor:
        """How probable it is that the first of the two is preferred, doubts about w included: [m]."""
        return moderated(self.margins(differences), self.variances(differences))


def moderated(margins: torch.Tensor, variances: torch.Tensor) -> torch.Tensor:
    """E σ(m) for m ~ N(margin, variance); MacKay 1992, eq. 10: σ(m / √(1 + π v/8))."""
    return torch.sigmoid(margins / (1 + math.pi / 8 * variances).sqrt())


def fit(evidence: Evidence, *, scale: float | None = None, on_step: Callable[[], None] = lambda: None) -> Taste:
    """The posterior after these comparisons; without any it is the prior.

    Args:
        scale: σ; None = the one that explains the comparisons best.
        on_step: called now and then; may raise to cancel.

    Raises:
        PreferenceError: the compared pictures have the same features.
    """
    if not len(evidence.differences):
        width = evidence.differences.shape[1]
        empty = evidence.differences.new_zeros
        # A pair of unlike pictures, at right angles, is √2 apart.
        return Taste(empty(width), empty(width, 0), empty(0, 0), scale or _TYPICAL_MARGIN / math.sqrt(2))
    basis = _span(evidence.differences)
    inside = Evidence(evidence.differences @ basis, evidence.outcomes, evidence.weights)
    scale = best_scale(inside, on_step) if scale is None else scale
    mode, precision = posterior(inside, scale)
    return Taste(basis @ mode, basis, torch.cholesky_inverse(torch.linalg.cholesky(precision)), scale)


def _span(differences: torch.Tensor) -> torch.Tensor:
    """Orthonormal columns [D, r] that span the rows [n, D]."""
    _, lengths, rows = torch.linalg.svd(differences, full_matrices=False)
    if not lengths[0] > _RANK:
        raise PreferenceError(
            "The encoder sees no difference between the pictures that were compared, so it cannot say what is liked "
            "about them. Choose between pictures that differ more, or connect another encoder."
        )
    return rows[lengths > _RANK * lengths[0]].T


def posterior(
    evidence: Evidence, scale: float, start: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """ŵ [D] and H [D, D] in the coordinates of the differences, by Newton's method; the loss is convex.

    Args:
        start: where to begin; it changes the time alone.
    """
    mode = evidence.differences.new_zeros(evidence.differences.shape[1]) if start is None else start.clone()
    for _ in range(_STEPS):
        slope, precision = _slope(evidence, scale, mode)
        step = torch.cholesky_solve(slope[:, None], torch.linalg.cholesky(precision))[:, 0]
        decrease = float(slope @ step)
        if decrease < _PRECISE:
            break
        length, here = 1.0, loss(evidence, scale, mode)
        while length > 1e-6 and loss(evidence, scale, mode - length * step) > here - 0.1 * length * decrease:
            length /= 2
        mode = mode - length * step
    return mode, _slope(evidence, scale, mode)[1]


def loss(evidence: Evidence, scale: float, direction: torch.Tensor) -> torch.Tensor:
    """Minus the log-posterior of a direction [D], up to a constant. Differentiable."""
    margins = evidence.differences @ direction
    terms = F.softplus(margins) - evidence.outcomes * margins
    return (evidence.weights * terms).sum() + direction.square().sum() / (2 * scale**2)


def _slope(evidence: Evidence, scale: float, direction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradient [D] and Hessian [D, D] of `loss`."""
    rows = evidence.differences
    chance = torch.sigmoid(rows @ direction)
    slope = rows.T @ (evidence.weights * (chance - evidence.outcomes)) + direction / scale**2
    bent = rows.T @ ((evidence.weights * chance * (1 - chance))[:, None] * rows)
    return slope, bent + torch.eye(len(direction), dtype=rows.dtype) / scale**2


def best_scale(evidence: Evidence, on_step: Callable[[], None] = lambda: None) -> float:
    """σ of greatest evidence times the prior on it: log of a typical pair's margin ~ N(log 1.5, 0.75²)."""
    typical = float(evidence.differences.square().sum(1).mean().sqrt())
    found, start = [], None
    for margin in _MARGINS:
        on_step()
        scale = margin / typical
        start, precision = posterior(evidence, scale, start)
        logarithm = torch.linalg.cholesky(precision).diagonal().log().sum()
        explained = -loss(evidence, scale, start) - len(start) * math.log(scale) - logarithm
        believed = -((math.log(margin / _TYPICAL_MARGIN) / _SPREAD) ** 2) / 2
        found.append((float(explained) + believed, scale))
    return max(found)[1]


def information(margins: torch.Tensor, variances: torch.Tensor) -> torch.Tensor:
    """How much the answer to a pair is expected to tell about the taste, in nats: ½ log(1 + v p(1 − p)), [m]."""
    chance = torch.sigmoid(margins)
    return torch.log1p(variances * chance * (1 - chance)) / 2


def most_informative_first(margins: torch.Tensor, joint: torch.Tensor) -> tuple[list[int], list[float]]:
    """Questions in the order in which each tells most beyond those before it.

    Args:
        margins: [m], of pairs. joint: [m, m], their covariance.

    Returns:
        Places of the pairs, and what each adds, in nats; see `information`.
    """
    joint = joint.clone()
    chance = torch.sigmoid(margins)
    noise = 1 / (chance * (1 - chance)).clamp_min(1e-12)
    rest = torch.ones(len(margins), dtype=torch.bool)
    order, added = [], []
    for _ in range(len(margins)):
        gains = information(margins, joint.diagonal().clamp_min(0)).masked_fill(~rest, -1.0)
        place = int(gains.argmax())
        order.append(place)
        added.append(float(gains[place]))
        rest[place] = False
        # What the answer will say narrows w down, whatever it is.
        joint -= torch.outer(joint[:, place], joint[place]) / (noise[place] + joint[place, place])
    return order, added


def clusters_of(pairs: Sequence[tuple[str, str]]) -> list[int]:
    """A number per pair of names: equal where pairs hang together by common names, so that one tells of the other."""
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        parents.setdefault(name, name)
        while parents[name] != name:
            parents[name] = parents[parents[name]]
            name = parents[name]
        return name

    for first, second in pairs:
        parents[root(first)] = root(second)
    numbers: dict[str, int] = {}
    return [numbers.setdefault(root(first), len(numbers)) for first, _ in pairs]
