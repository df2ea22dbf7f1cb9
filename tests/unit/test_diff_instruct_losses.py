"""Diff-Instruct*'s losses where everything is known: a Gaussian generator, a Gaussian reference, exact scores.

x0 = m + s·z. Noised to σ it is N(m, s² + σ²), which the assistant knows; the reference draws from N(r, v). Expectations
over z and noise are Gauss–Hermite quadratures.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attune.training.objectives.diff_instruct_losses import (
    distance,
    distance_gradient,
    guidance_reward_loss,
    huber_constant,
    matching_loss,
    sample_weight,
    score_function_loss,
)

SIGMA, REFERENCE, VARIANCE, CONSTANT = 0.8, -0.6, 0.7, 0.3
KINDS = pytest.mark.parametrize("kind", ["l2", "pseudo-huber"])
NODES, HEIGHTS = (torch.tensor(part) for part in np.polynomial.hermite_e.hermegauss(60))
HEIGHTS = HEIGHTS / HEIGHTS.sum()


def clean(x, mean, variance):
    """E[x0 | x] of x = x0 + σ·noise, x0 ~ N(mean, variance)."""
    return mean + variance / (variance + SIGMA**2) * (x - mean)


def quadrature(mean, scale):
    """Pictures [3600, 1], noised ones, and heights that sum to 1."""
    z, noise = (part.flatten()[:, None] for part in torch.meshgrid(NODES, NODES, indexing="ij"))
    x0 = mean + scale * z
    return x0, x0 + SIGMA * noise, (HEIGHTS[:, None] * HEIGHTS).flatten()


def expected_distance(theta, played, kind):
    """E over x_t of the generator `played` of D(D_ψ − D_ref), where the assistant knows the generator `theta`."""
    _, x, heights = quadrature(*played)
    gap = clean(x, theta[0], theta[1] ** 2) - clean(x, REFERENCE, VARIANCE)
    return (heights * distance(gap, kind, CONSTANT)).sum()


def pseudo_gradient(kind, *, detached=False, coefficient=1.0):
    theta = torch.tensor([0.5, 0.9], dtype=torch.float64, requires_grad=True)
    known = theta.detach()  # the assistant's parameters are fixed
    x0, x, heights = quadrature(*theta)
    assistant, reference = clean(x, known[0], known[1] ** 2), clean(x, REFERENCE, VARIANCE)
    if detached:
        assistant, reference = assistant.detach(), reference.detach()
    loss = matching_loss(x0, assistant, reference, kind=kind, constant=CONSTANT, coefficient=coefficient)
    return torch.autograd.grad((heights * loss).sum(), theta)[0]


def differences(kind, *, total=False):
    """∂E/∂θ by central differences: the pictures of sg[θ], or of θ too."""
    theta, found = torch.tensor([0.5, 0.9], dtype=torch.float64), []
    for place in range(2):
        sides = []
        for step in (1e-4, -1e-4):
            moved = theta.clone()
            moved[place] += step
            sides.append(expected_distance(moved, moved if total else theta, kind))
        found.append((sides[0] - sides[1]) / 2e-4)
    return torch.stack(found)


@KINDS
def test_the_pseudo_gradient_is_that_of_the_expected_distance(kind):
    torch.testing.assert_close(pseudo_gradient(kind), differences(kind), rtol=1e-5, atol=1e-7)


@KINDS
def test_without_gradients_through_the_networks_it_is_not(kind):
    assert (pseudo_gradient(kind, detached=True) - differences(kind)).abs().max() > 0.05


def test_half_the_coefficient_is_the_total_derivative_of_l2():
    """a = ½: the pictures move with the generator as well."""
    torch.testing.assert_close(
        pseudo_gradient("l2", coefficient=0.5), differences("l2", total=True), rtol=1e-5, atol=1e-7
    )


def test_the_kl_variant_has_the_gradient_of_the_divergence():
    """KL(N(m, s² + σ²) ‖ N(r, v + σ²)) in closed form; in units of predictions it is multiplied with σ²."""
    theta = torch.tensor([0.5, 0.9], dtype=torch.float64, requires_grad=True)
    x0, x, heights = quadrature(*theta)
    known = theta.detach()
    loss = matching_loss(x0, clean(x, known[0], known[1] ** 2), clean(x, REFERENCE, VARIANCE), kind="kl")
    (found,) = torch.autograd.grad((heights * loss).sum(), theta)
    own, other = theta[1] ** 2 + SIGMA**2, VARIANCE + SIGMA**2
    divergence = 0.5 * (own / other + (theta[0] - REFERENCE) ** 2 / other - 1 - (own / other).log())
    (expected,) = torch.autograd.grad(divergence, theta)
    torch.testing.assert_close(found, SIGMA**2 * expected, rtol=1e-5, atol=1e-7)


def test_guidance_as_a_reward_follows_the_prompts_likelihood():
    """−E[log N(x; r, v + σ²) − log N(x; 0.2, 1 + σ²)], multiplied with σ² as above."""
    theta = torch.tensor([0.5, 0.9], dtype=torch.float64, requires_grad=True)
    x0, x, heights = quadrature(*theta)
    loss = guidance_reward_loss(x0, clean(x, REFERENCE, VARIANCE), clean(x, 0.2, 1.0))
    (found,) = torch.autograd.grad((heights * loss).sum(), theta, retain_graph=True)

    def log_density(mean, variance):
        return -0.5 * (x - mean).square() / (variance + SIGMA**2)

    reward = (log_density(REFERENCE, VARIANCE) - log_density(0.2, 1.0)).squeeze(1)
    (expected,) = torch.autograd.grad(-(heights * reward).sum(), theta)
    torch.testing.assert_close(found, SIGMA**2 * expected, rtol=1e-5, atol=1e-7)


@KINDS
def test_guidance_within_the_distance_is_another_reference(kind):
    """Variant "in": the guided prediction is linear in x, as another Gaussian reference's would be; by differences."""
    guidance = 2.5

    def guided(x):
        free = clean(x, 0.2, 1.0)
        return free + guidance * (clean(x, REFERENCE, VARIANCE) - free)

    theta = torch.tensor([0.5, 0.9], dtype=torch.float64, requires_grad=True)
    x0, x, heights = quadrature(*theta)
    known = theta.detach()
    loss = matching_loss(x0, clean(x, known[0], known[1] ** 2), guided(x), kind=kind, constant=CONSTANT)
    (found,) = torch.autograd.grad((heights * loss).sum(), theta)
    expected = []
    for place in range(2):
        sides = []
        for step in (1e-4, -1e-4):
            moved = known.clone()
            moved[place] += step
            _, x, heights = quadrature(*known)
            sides.append((heights * distance(clean(x, moved[0], moved[1] ** 2) - guided(x), kind, CONSTANT)).sum())
        expected.append((sides[0] - sides[1]) / 2e-4)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-5, atol=1e-7)


@KINDS
def test_the_distances_gradient_is_its_derivative(kind):
    gap = torch.randn(4, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(distance(gap, kind, CONSTANT).sum(), gap)
    torch.testing.assert_close(distance_gradient(gap, kind, CONSTANT), expected)
    assert distance_gradient(torch.zeros(1, 2), kind, 0.0).tolist() == [[0.0, 0.0]]


def test_closed_forms():
    gap = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert distance(gap, "l2", 0.0).tolist() == [12.5, 0.0]
    assert distance(gap, "pseudo-huber", 12.0).tolist() == [1.0, 0.0]
    assert distance_gradient(gap, "pseudo-huber", 0.0)[0].tolist() == pytest.approx([0.6, 0.8])
    assert huber_constant(10_000) == pytest.approx(0.054)
    assert sample_weight(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 0.0]])).tolist() == [0.5]
    for function in (distance, distance_gradient):
        with pytest.raises(ValueError, match="'cosine'"):
            function(gap, "cosine", 0.0)


def test_the_score_function_follows_a_reward_without_gradients():
    """r = −‖x − t‖²: smoothed by the noise its gradient stays −2·(x0 − t); every group compares with its own mean."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.tensor([[0.3, -0.5], [1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    target, copies = torch.tensor([1.0, 0.5], dtype=torch.float64), 100_000
    noise = torch.randn(2 * copies, 2, dtype=torch.float64, generator=generator)
    repeated, groups = x0.repeat_interleave(copies, 0), torch.arange(2).repeat_interleave(copies)
    rewards = -(repeated.detach() + 0.5 * noise - target).square().sum(1)
    loss = score_function_loss(repeated, noise, rewards, groups, deviation=0.5)
    (found,) = torch.autograd.grad(loss.sum() / copies, x0)
    torch.testing.assert_close(found, 2 * (x0 - target).detach(), rtol=0.03, atol=0.03)


def test_the_score_functions_variance_is_as_documented():
    """A linear reward of slope v in D dimensions: E‖gradient‖² = (D + 2)·‖v‖², of which ‖v‖² is the mean's."""
    generator, dimensions, copies = torch.Generator().manual_seed(1), 6, 50_000
    slope = torch.arange(1.0, dimensions + 1)
    x0 = torch.zeros(copies, dimensions, requires_grad=True)
    noise = torch.randn(copies, dimensions, generator=generator)
    loss = score_function_loss(x0, noise, 0.2 * noise @ slope, torch.zeros(copies).long(), deviation=0.2)
    (each,) = torch.autograd.grad(loss.sum(), x0)
    assert each.square().sum(1).mean().item() == pytest.approx((dimensions + 2) * slope.square().sum().item(), rel=0.05)
    torch.testing.assert_close(each.mean(0), -slope, rtol=0.05, atol=0.2)
