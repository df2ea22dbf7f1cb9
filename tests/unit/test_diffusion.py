"""The noise processes, against closed forms written out by hand in each family's own notation."""

from __future__ import annotations

import math

import pytest
import torch

from attune.training.denoisers import process_of
from attune.training.diffusion import Gaussian, log_probability
from attune.training.interfaces import TrainingError

PREDICTIONS = ("eps", "v", "flow")


def levels(prediction):
    """Two noise levels of a process, t noisier than s, as [1] tensors in float64."""
    process = process_of(prediction)
    return process, process.sigmas[[700]].double(), process.sigmas[[350]].double()


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_maps_invert_each_other(prediction):
    process, sigma, _ = levels(prediction)
    x0, noise = torch.randn(2, 1, 4, 3, 3, dtype=torch.float64)
    x = process.add_noise(x0, noise, sigma)
    torch.testing.assert_close(process.noise_from_x0(x, x0, sigma), noise)
    torch.testing.assert_close(process.x0_from_noise(x, noise, sigma), x0)


def test_v_target_is_that_of_the_vp_notation():
    """v = √ā·noise − √(1−ā)·x0 with ā = 1/(1+σ²)."""
    process, sigma, _ = levels("v")
    x0, noise = torch.randn(2, 1, 4, 3, 3, dtype=torch.float64)
    a = 1 / (1 + sigma.item() ** 2)
    torch.testing.assert_close(process.velocity(x0, noise, sigma), math.sqrt(a) * noise - math.sqrt(1 - a) * x0)


def test_posterior_is_ddim_eta_one_in_vp_notation():
    """alignment.md §1: σ² = (1−ā_s)/(1−ā_t)·(1−ā_t/ā_s); μ = √ā_s x̂0 + √(1−ā_s−σ²) ε̃; x_VP = x/√(1+σ²)."""
    process, t, s = levels("eps")
    x0, x = torch.randn(2, 1, 4, 3, 3, dtype=torch.float64)
    a_t, a_s = (1 / (1 + level.item() ** 2) for level in (t, s))
    variance = (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)
    x_vp = x * math.sqrt(a_t)
    noise = (x_vp - math.sqrt(a_t) * x0) / math.sqrt(1 - a_t)
    mean = math.sqrt(a_s) * x0 + math.sqrt(1 - a_s - variance) * noise
    step = process.posterior(x, x0, t, s)
    torch.testing.assert_close(step.mean * math.sqrt(a_s), mean)
    assert step.deviation.item() * math.sqrt(a_s) == pytest.approx(math.sqrt(variance))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_posterior_is_bayes_rule(prediction):
    """p(x_s|x_t,x0) ∝ p(x_t|x_s)·p(x_s|x0): as functions of x_s their logs differ by a constant."""
    process, t, s = levels(prediction)
    x0, x_t = torch.randn(2, 1, 1, 1, 1, dtype=torch.float64)
    step = process.posterior(x_t, x0, t, s)
    prior = Gaussian(process.alpha(s) * x0, process.beta(s).reshape(1, 1, 1, 1))
    gaps = []
    for value in (-1.5, 0.0, 0.7, 2.0):
        x_s = torch.full_like(x0, value)
        kernel = process.kernel(x_s, s, t)
        joint = log_probability(kernel, x_t, convention="sum") + log_probability(prior, x_s, convention="sum")
        gaps.append((joint - log_probability(step, x_s, convention="sum")).item())
    assert gaps == pytest.approx([gaps[0]] * 4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_kernel_composes(prediction):
    """Noising x0 to s and on to t is noising x0 to t: the variances add up."""
    process, t, s = levels(prediction)
    x0 = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    to_t = process.kernel(process.alpha(s) * x0, s, t)
    ratio = process.alpha(t) / process.alpha(s)
    assert to_t.mean.item() == pytest.approx(process.alpha(t).item())
    total = to_t.deviation.item() ** 2 + (ratio * process.beta(s)).item() ** 2
    assert total == pytest.approx(process.beta(t).item() ** 2)


def test_flow_kernel_is_finite_at_pure_noise():
    process = process_of("flow")
    one, half = torch.tensor([1.0]), torch.tensor([0.5])
    step = process.kernel(torch.ones(1, 1, 1, 1), half, one)
    assert step.mean.item() == 0 and step.deviation.item() == pytest.approx(1)
    back = process.posterior(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), one, half)
    assert torch.isfinite(back.mean).all() and back.deviation.item() == pytest.approx(0.5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_eta_zero_is_deterministic_and_keeps_the_noise(prediction):
    process, t, s = levels(prediction)
    x0, noise = torch.randn(2, 1, 4, 3, 3, dtype=torch.float64)
    step = process.posterior(process.add_noise(x0, noise, t), x0, t, s, eta=0.0)
    assert step.deviation.abs().max() == 0
    torch.testing.assert_close(step.mean, process.add_noise(x0, noise, s))


def test_log_probability_conventions():
    """A standard Gaussian at its mean: −½·log(2π) per dimension; sum = D·mean."""
    step = Gaussian(torch.zeros(2, 3, 2, 2), torch.ones(2, 1, 1, 1))
    value = torch.zeros(2, 3, 2, 2)
    mean = log_probability(step, value, convention="mean")
    torch.testing.assert_close(mean, torch.full((2,), -0.5 * math.log(2 * math.pi)))
    torch.testing.assert_close(log_probability(step, value, convention="sum"), 12 * mean)
    value[0, 0, 0, 0] = 2.0
    assert log_probability(step, value, convention="sum")[0].item() == pytest.approx(
        12 * mean[1].item() - 2.0, abs=1e-5
    )


def test_log_probability_refuses_what_it_does_not_know():
    step = Gaussian(torch.zeros(1, 2), torch.ones(1, 1))
    with pytest.raises(ValueError, match="median"):
        log_probability(step, torch.zeros(1, 2), convention="median")
    with pytest.raises(ValueError, match=r"\(1, 2\).*\(1, 3\)"):
        log_probability(step, torch.zeros(1, 3))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_schedule_never_reaches_zero(prediction):
    process = process_of(prediction)
    sigmas = process.schedule(20)
    assert len(sigmas) == 21 and (sigmas.diff() < 0).all()
    assert sigmas[0].item() == pytest.approx(process.sigma_max)
    assert sigmas[-1].item() == pytest.approx(process.sigma_min) and sigmas[-1] > 0
    with pytest.raises(TrainingError, match="not 0"):
        process.schedule(0)
