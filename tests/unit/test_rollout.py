"""Rollouts on the exact denoiser of a Gaussian mixture, whose samples and densities are known."""

from __future__ import annotations

import pytest
import torch

from attune.training.denoisers import MixtureDenoiser, process_of
from attune.training.rollout import play, step_log_probability

MEANS = torch.tensor([[-1.5, 0.0], [1.5, 0.5], [0.0, 1.8]])
WEIGHTS = torch.tensor([0.5, 0.3, 0.2])


def mixture(prediction, means=MEANS, weights=WEIGHTS, deviation=0.2):
    return MixtureDenoiser(process_of(prediction), means, deviation, weights)


@pytest.mark.parametrize("prediction", ["eps", "v", "flow"])
def test_sampler_reproduces_the_known_distribution(prediction):
    """Mode weights within 4 standard errors (4·√(.25/4000) ≈ .03), mode positions and widths within a few percent."""
    denoiser = mixture(prediction)
    generator = torch.Generator().manual_seed(0)
    count = 4000
    noise = torch.randn(count, 2, 1, 1, generator=generator)
    played = play(denoiser, denoiser.process, noise, [None] * count, steps=100, guidance=1.0, generator=generator)
    points = played.pictures.flatten(1)
    nearest = torch.cdist(points, MEANS).argmin(1)
    share = torch.bincount(nearest, minlength=3) / count
    torch.testing.assert_close(share, WEIGHTS, atol=0.04, rtol=0)
    for mode in range(3):
        own = points[nearest == mode]
        torch.testing.assert_close(own.mean(0), MEANS[mode], atol=0.05, rtol=0)
        torch.testing.assert_close(own.std(0), torch.full((2,), 0.2), atol=0.04, rtol=0)


@pytest.mark.parametrize("prediction", ["eps", "v", "flow"])
def test_recorded_log_probabilities_are_those_of_a_second_look(prediction):
    """Recomputing each step with the same network gives the recorded log-probability: ratio 1 on-policy."""
    denoiser = mixture(prediction)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(8, 2, 1, 1, generator=generator)
    played = play(denoiser, denoiser.process, noise, [None] * 8, steps=10, guidance=1.0, generator=generator)
    for index in range(played.steps):
        x, x_next = played.states[:, index], played.states[:, index + 1]
        sigma, sigma_next = played.sigmas[index].expand(8), played.sigmas[index + 1].expand(8)
        again = step_log_probability(denoiser.process, x, denoiser(x, sigma), x_next, sigma, sigma_next)
        torch.testing.assert_close(again, played.log_forward[:, index])


def test_forward_and_backward_paths_balance_as_steps_shrink():
    """For one Gaussian the sampler becomes the exact reversal of the noising: the gap of
    Σ log P_F − log P_B to log p(x_0) − log p(x_T) shrinks about as 1/√steps (2.8 nats at 50, 0.6 at 800)."""
    denoiser = mixture("eps", means=torch.zeros(1, 2), weights=torch.ones(1), deviation=1.0)

    def log_normal(x, variance):
        x = x.flatten(1)
        return -0.5 * (x.square().sum(1) / variance + 2 * torch.log(torch.tensor(2 * torch.pi * variance)))

    def gap(steps):
        generator = torch.Generator().manual_seed(2)
        noise = torch.randn(512, 2, 1, 1, generator=generator)
        played = play(
            denoiser, denoiser.process, noise, [None] * 512, steps=steps, guidance=1.0, generator=generator,
            convention="sum",
        )  # fmt: skip
        ends = log_normal(played.pictures, 1 + played.sigmas[-1].item() ** 2)
        starts = log_normal(played.states[:, 0], 1 + played.sigmas[0].item() ** 2)
        return ((played.log_forward - played.log_backward).sum(1) - (ends - starts)).mean().item()

    coarse, middle, fine = gap(50), gap(200), gap(800)
    assert coarse > middle > fine > 0
    assert fine < 0.3 * coarse


def test_same_seed_same_rollout():
    denoiser = mixture("v")
    paths = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(3)
        noise = torch.randn(4, 2, 1, 1, generator=generator)
        paths.append(play(denoiser, denoiser.process, noise, [None] * 4, steps=5, guidance=1.0, generator=generator))
    assert torch.equal(paths[0].states, paths[1].states)


def test_parts_of_a_batch_are_played_as_the_whole():
    """Eight trajectories, three in a call: the same draws, 3 calls for each of 5 steps, the conditionings in place."""
    denoiser = mixture("v")
    told, conditionings = [], []

    def watched(x, sigma, cond, *, guidance):
        assert len(x) == len(sigma) == len(cond) <= 3
        conditionings.extend(cond)
        return denoiser(x, sigma, cond, guidance=guidance)

    def played(network, **keywords):
        generator = torch.Generator().manual_seed(3)
        noise = torch.randn(8, 2, 1, 1, generator=generator)
        return play(
            network, denoiser.process, noise, list(range(8)), steps=5, guidance=1.0, generator=generator, **keywords
        )

    whole, parts = played(denoiser), played(watched, chunk=3, on_step=lambda done, total: told.append((done, total)))
    torch.testing.assert_close(parts.states, whole.states)
    torch.testing.assert_close(parts.log_forward, whole.log_forward)
    assert told == [(done, 15) for done in range(1, 16)]
    assert conditionings == list(range(8)) * 5


def test_cancel_from_inside_a_rollout():
    denoiser = mixture("v")
    generator = torch.Generator().manual_seed(3)

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(
            denoiser, denoiser.process, torch.randn(1, 2, 1, 1), [None], steps=5, guidance=1.0, generator=generator,
            on_step=stop,
        )  # fmt: skip
