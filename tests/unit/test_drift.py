"""The drift that is measured on training pictures: against closed forms, and against that of played trajectories."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools

import pytest
import torch
from torch import nn

from attune.tests.two_processes import in_two
from attune.training.denoisers import MixtureDenoiser, process_of
from attune.training.diffusion import DiffusionProcess, expand
from attune.training.interfaces import Prompt
from attune.training.objectives.ddpo import DDPOConfig, DDPOObjective
from attune.training.objectives.diffusion_dpo import DiffusionDPOConfig, DiffusionDPOObjective, Pair
from attune.training.objectives.drift import PICTURES_PER_MEASUREMENT, STEPS, PictureDrift
from attune.training.objectives.supervised import SupervisedConfig, SupervisedObjective
from attune.training.rollout import play, step_divergence

PREDICTIONS = ["eps", "v", "flow"]
MEANS = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
HALVES = torch.tensor([0.5, 0.5])


class Between(nn.Module):
    """A policy between two exact denoisers: of `own` with its adapter, of `reference` without, its output shifted."""

    device, unconditional = torch.device("cpu"), None

    def __init__(self, own, reference, shift=(0.0, 0.0)):
        super().__init__()
        self.own, self.reference, self.process = own, reference, own.process
        self.shift = nn.Parameter(torch.tensor(shift))
        self.acting, self.calls, self.dropping = True, [], True

    def training_mode(self, on):
        self.dropping = on

    @contextlib.contextmanager
    def role(self, name):
        self.acting = name is not None
        yield self
        self.acting = True

    def forward(self, x, sigma, cond=(), *, guidance=1.0):
        self.calls.append((len(x), self.acting, torch.is_grad_enabled()))
        if not self.acting:
            return self.reference(x, sigma)
        return self.own(x, sigma) + expand(self.process.output_scale(sigma), x) * self.shift.reshape(1, 2, 1, 1)


def shifted(prediction, *shift):
    """Its network's own output differs from the reference's by `shift`, at every level."""
    exact = MixtureDenoiser(process_of(prediction), MEANS, 0.3, HALVES)
    return Between(exact, exact, shift)


def supervised(policy, latents, *, batch=4, share=None):
    objective = SupervisedObjective(list(latents), [Prompt("x", None)], SupervisedConfig(batch=batch))
    objective.prepare(policy, *(() if share is None else (share,)))
    return objective


def dpo(policy, latents, *, batch=4, share=None):
    pairs = [Pair(one, other, Prompt("x", None)) for one, other in zip(latents[::2], latents[1::2], strict=True)]
    objective = DiffusionDPOObjective(pairs, DiffusionDPOConfig(batch=batch, chunk=3))
    objective.prepare(policy, *(() if share is None else (share,)))
    return objective


METHODS = pytest.mark.parametrize("method", [supervised, dpo])


def measured(objective, updates, seed=0):
    """The figure after each of some updates of a policy that stays as it is."""
    generator, found = torch.Generator().manual_seed(seed), []
    for _ in range(updates):
        for loss in objective.losses(generator):
            assert loss.requires_grad
        found.append(objective.metrics()["kl_to_reference"])
    return found


def played(policy, count, *, steps=STEPS, seed=0):
    """(trajectories, their mean divergence as the sum over all steps of `step_divergence`)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 2, 1, 1, generator=generator)
    paths = play(policy, policy.process, noise, [None] * count, steps=steps, guidance=1.0, generator=generator)
    return paths, divergence(policy, paths)


@torch.no_grad()
def divergence(policy, paths):
    total = 0.0
    for index, (sigma, after) in enumerate(itertools.pairwise(paths.sigmas)):
        x = paths.states[:, index]
        own = policy(x, sigma.expand(len(x)))
        with policy.role(None):
            reference = policy(x, sigma.expand(len(x)))
        after, sigma = after.expand(len(x)), sigma.expand(len(x))
        total += step_divergence(policy.process, x, own, reference, sigma, after).mean().item()
    return total


def noised(process, paths, latents):
    """These trajectories with noised pictures as their states."""
    x0 = latents.repeat(20, 1, 1, 1)
    generator = torch.Generator().manual_seed(8)
    states = [process.add_noise(x0, torch.randn(x0.shape, generator=generator), sigma.expand(len(x0)))
              for sigma in paths.sigmas]  # fmt: skip
    return dataclasses.replace(paths, states=torch.stack(states, 1))


# ---- the formula ----


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_divergence_of_a_step_is_a_difference_of_the_signal_to_noise_ratio(prediction):
    """½·(SNR(next) − SNR(σ))·‖x̂0 − x̂0_ref‖², from whatever state."""
    process = process_of(prediction)
    sigmas = process.schedule(STEPS)
    x, own, reference = torch.randn(3, STEPS, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    found = step_divergence(process, x, own, reference, sigmas[:-1], sigmas[1:])
    snr = process.signal_to_noise(sigmas.double())
    expected = 0.5 * (snr[1:] - snr[:-1]) * (own - reference).square().flatten(1).sum(1)
    torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=1e-6)


def test_turns_are_taken_and_two_of_three_are_the_last_steps():
    drift = PictureDrift(shifted("v", 1.0, 0.0))
    assert [drift._turn(number) for number in range(11)] == [3, 3, 2, 3, 3, 1, 3, 3, 0, 3, 3]
    assert drift._middles[-1] == STEPS - 1 and drift._factors[-1] == 1.0
    few = shifted("v", 1.0, 0.0)
    few.process = DiffusionProcess("v", process_of("v").sigmas[:2])
    assert (PictureDrift(few)._turns, PictureDrift(few)._middles) == ([0], [0]), "a sampler of one step"


# ---- against trajectories ----


@METHODS
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_equals_the_divergence_of_trajectories_where_the_states_do_not_matter(method, prediction):
    """An output shifted by (0.3, −0.4) at every level and state: what the network is asked does not matter."""
    policy = shifted(prediction, 0.3, -0.4)
    _, expected = played(policy, 4)
    found = measured(method(policy, torch.randn(16, 2, 1, 1), batch=8), 60)
    assert found[-1] == pytest.approx(expected, rel=1e-3)
    config = DDPOConfig(prompts_per_update=1, images_per_prompt=20, steps=STEPS, guidance=1.0)
    practising = DDPOObjective([Prompt("x", None)], Anything(), Points(), config, latent_shape=(2, 1, 1))
    practising.prepare(policy)
    list(practising.losses(torch.Generator().manual_seed(0)))
    assert found[-1] == pytest.approx(practising.metrics()["kl_to_reference"], rel=0.05), "of 16 of the 20 steps"


class Points:
    """Shows a 2-D point as a picture of one pixel."""

    def decode(self, latents):
        return torch.cat([latents, torch.zeros_like(latents[:, :1])], 1).permute(0, 2, 3, 1)


class Anything:
    name, reward_id, differentiable, higher_is_better = "Anything", "anything", False, True

    def __call__(self, images, prompts, context=None):
        return torch.zeros(len(images))


@METHODS
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_is_near_that_of_trajectories_where_the_policy_makes_pictures_like_those_of_training(method, prediction):
    """The policy is the exact denoiser of the pictures, two clouds; its reference of one wider cloud in between."""
    process = process_of(prediction)
    own = MixtureDenoiser(process, MEANS, 0.3, HALVES)
    policy = Between(own, MixtureDenoiser(process, MEANS[:1] * 0.2, 0.6, torch.ones(1)))
    paths, expected = played(policy, 2000)
    latents = own.sample(400, torch.Generator().manual_seed(1))
    objective, found = method(policy, latents), []
    for _ in range(1200):
        objective._drift.measure(PICTURES_PER_MEASUREMENT, len(latents), objective._picture)
        found.append(objective._drift.kl_to_reference)
    found = found[9:]  # once around
    assert sum(found) / len(found) == pytest.approx(divergence(policy, noised(process, paths, latents)), rel=0.05)
    # The sampler's 20 steps are coarse, so that its states are a little narrower than noised pictures.
    assert sum(found) / len(found) == pytest.approx(expected, rel=0.15)


@METHODS
def test_an_untouched_policy_has_none_and_the_first_update_is_measured(method):
    assert measured(method(shifted("v", 0.0, 0.0), torch.randn(8, 2, 1, 1)), 8) == [0.0] * 8
    assert measured(method(shifted("v", 1.0, 0.0), torch.randn(8, 2, 1, 1)), 1)[0] > 0


# ---- when, and at what cost ----


@METHODS
@pytest.mark.parametrize("batch", [1, 3, 4, 16])
def test_one_measurement_for_so_many_pictures_without_gradients_and_dropout(method, batch):
    policy, updates = shifted("eps", 0.1, 0.1), 40
    objective = method(policy, torch.randn(20, 2, 1, 1), batch=batch)
    plain = PictureDrift._look
    made = []

    def look(drift, *arguments):
        policy.calls.clear()
        value = plain(drift, *arguments)
        made.append((list(policy.calls), policy.dropping))
        return value

    objective._drift._look = look.__get__(objective._drift)
    measured(objective, updates)
    pictures = batch * updates * (2 if method is dpo else 1)
    assert len(made) == -(-pictures // PICTURES_PER_MEASUREMENT)
    assert all(calls == [(1, True, False), (1, False, False)] and not dropping for calls, dropping in made)
    assert policy.dropping, "learning goes on with it"


def test_a_large_batch_is_measured_once_around_and_no_more():
    policy = shifted("eps", 0.1, 0.1)
    drift = PictureDrift(policy)
    drift.measure(1000, 1, lambda number: (torch.zeros(2, 1, 1), None))
    assert len(policy.calls) == 2 * len(drift._turns)


def test_the_newest_measurement_of_a_stretch_stands_and_survives_a_resume():
    drift = PictureDrift(shifted("v", 0.0, 0.0))
    drift._look = lambda number, count, picture: torch.tensor(float(number + 1))
    found = []
    for learned in (4, 4, 8, 8, 24, 64):
        drift.measure(learned, 1, None)
        found.append(list(drift.newest))
    # The last four have the values 4 to 7; 4 and 5 are of the last step, and so is 7.
    assert found == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 2], [0, 0, 3, 2], [0, 6, 3, 16 / 3]]
    assert drift.kl_to_reference == sum(drift.newest)
    other = PictureDrift(shifted("v", 0.0, 0.0))
    other.load_state_dict(drift.state_dict())
    assert other.state_dict() == drift.state_dict() and other.kl_to_reference == drift.kl_to_reference
    other.load_state_dict(None)  # of a run that knew none


@METHODS
def test_no_draw_of_a_run_depends_on_it(method):
    """Neither the run's generator nor torch's own, from which adapter dropout draws."""
    states = []
    for silent in (False, True):
        objective = method(shifted("flow", 0.1, 0.0), torch.randn(8, 2, 1, 1))
        if silent:
            objective._drift.measure = lambda *arguments: None
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(4)
        for _ in range(5):
            list(objective.losses(generator))
        states.append((generator.get_state(), torch.random.get_rng_state()))
        assert (objective.metrics()["kl_to_reference"] == 0) is silent
    assert all(torch.equal(*pair) for pair in zip(*states, strict=True))


# ---- several processes ----


@METHODS
def test_two_processes_measure_what_one_with_twice_the_batch_does(method):
    latents = torch.randn(16, 2, 1, 1, generator=torch.Generator().manual_seed(2))

    def policy():
        exact = MixtureDenoiser(process_of("eps"), MEANS, 0.3, HALVES)
        return Between(exact, MixtureDenoiser(process_of("eps"), MEANS * 0.5, 0.4, HALVES))

    expected = measured(method(policy(), latents, batch=6), 12)

    def work(share):
        return measured(method(policy(), latents, batch=3, share=share), 12)

    found = in_two(work)
    assert found[0] == found[1]
    assert found[0] == pytest.approx(expected, rel=1e-5)
    assert expected[-1] > 0
