"""Drift on played trajectories: at which steps it is measured, and what the estimate is worth."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from attune.tests.two_processes import in_two
from attune.training.denoisers import MixtureDenoiser, process_of
from attune.training.interfaces import Prompt
from attune.training.objectives.dag import DAGObjective
from attune.training.objectives.dag_config import DAGConfig
from attune.training.objectives.ddpo import DDPOConfig, DDPOObjective
from attune.training.objectives.divergence import FEWEST, MOST, looks
from attune.training.objectives.drift import PictureDrift
from attune.training.objectives.refl import ReFLConfig, ReFLObjective
from attune.training.rollout import play, step_divergence

PREDICTIONS = pytest.mark.parametrize("prediction", ["eps", "v", "flow"])
METHODS = pytest.mark.parametrize("method", ["ddpo", "dag", "refl", "draft"])
MEANS = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])


class Leaning(nn.Module):
    """The exact denoiser of two clouds. With its adapter the output leans, depending on state and level;
    a layer that passes the output on unchanged is where autocast rounds."""

    device, unconditional = torch.device("cpu"), None

    def __init__(self, prediction="v", lean=0.2, *, layer=False):
        super().__init__()
        self.base = MixtureDenoiser(process_of(prediction), MEANS, 0.3, torch.tensor([0.5, 0.5]))
        self.process = self.base.process
        self.lean = nn.Parameter(torch.tensor(lean))
        self.layer = nn.Linear(2, 2, bias=False).requires_grad_(False) if layer else None
        if layer:
            self.layer.weight.copy_(torch.eye(2))
        self.acting, self.dropping, self.calls = True, False, []

    @contextmanager
    def role(self, name):
        self.acting = name is not None
        yield self
        self.acting = True

    def training_mode(self, on):
        self.dropping = on

    def forward(self, x, sigma, cond=(), *, guidance=1.0):
        self.calls.append((len(x), self.acting, self.dropping))
        x0 = self.base(x, sigma)
        if self.acting:
            level = (sigma / self.process.sigmas.max()).reshape(-1, 1, 1, 1)
            scale = self.process.output_scale(sigma).reshape(-1, 1, 1, 1)
            x0 = x0 + scale * self.lean * (1 + 0.3 * torch.tanh(x) + level)
        return x0 if self.layer is None else self.layer(x0.flatten(1)).float().reshape(x.shape)


class Points:
    def decode(self, latents):
        return torch.cat([latents, torch.zeros_like(latents[:, :1])], 1).permute(0, 2, 3, 1)


class Right:
    name, reward_id, differentiable, higher_is_better = "Right", "right", True, True

    def __call__(self, images, prompts, context=None):
        return images[:, 0, 0, 0]


COMMON = {"prompts_per_update": 4, "images_per_prompt": 8, "steps": 50, "guidance": 1.0, "chunk": 16}
# Of fewer steps.
WINDOW = {"refl": {"stop_from": 4, "stop_to": 7}, "draft": {"stop_from": 4, "stop_to": 7}}
PROMPTS = [Prompt(f"point {index}", None) for index in range(8)]


def practising(method, policy, share=None, **knobs):
    knobs = COMMON | knobs
    if method == "dag":
        kind, config = DAGObjective, DAGConfig(**{"flow_channels": (16, 16), "transitions": 1} | knobs)
    elif method == "ddpo":
        kind, config = DDPOObjective, DDPOConfig(**{"transitions": 1} | knobs)
    else:
        kind, config = ReFLObjective, ReFLConfig(**{"mode": method, "stop_to": 49, "last_steps": 2} | knobs)
    objective = kind(PROMPTS, Right(), Points(), config, latent_shape=(2, 1, 1))
    objective.prepare(policy, *(() if share is None else (share,)))
    return objective


def drifts(objective, updates, *, half=False):
    """The figure after each of some updates of a policy that stays as it is."""
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(updates):
        with torch.autocast("cpu", torch.bfloat16, enabled=half, cache_enabled=False):
            list(objective.losses(generator))
        found.append(objective.metrics()["kl_to_reference"])
    return torch.tensor(found)


@torch.no_grad()
def true_divergence(policy, steps, count=1500):
    """Of many trajectories, at all of their steps."""
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(count, 2, 1, 1, generator=generator)
    paths = play(policy, policy.process, noise, [None] * count, steps=steps, guidance=1.0, generator=generator)
    total = 0.0
    for index in range(steps):
        x, sigma, after = paths.states[:, index], *(paths.sigmas[i].expand(count) for i in (index, index + 1))
        own = policy(x, sigma)
        with policy.role(None):
            reference = policy(x, sigma)
        total += step_divergence(policy.process, x, own, reference, sigma, after).mean().item()
    return total


# ---- the plan ----


@PREDICTIONS
@pytest.mark.parametrize("steps", [1, 2, 3, 6, 20, 50])
@pytest.mark.parametrize("rollouts", [1, 2, 6, 32])
def test_every_stretch_and_the_last_step_are_measured_each_on_another_rollout(prediction, steps, rollouts):
    process = process_of(prediction)
    sigmas = process.schedule(steps)
    for turn in range(5):
        found = looks(process, sigmas, rollouts, turn)
        assert len(found) == min(MOST, max(FEWEST, rollouts))
        assert found == looks(process, sigmas, rollouts, turn), "a function of the rollouts' number"
        assert max(Counter(look.row for look in found).values()) == -(-len(found) // rollouts)
        assert [look.step for look in found] == sorted(look.step for look in found)
        last = [look.factor for look in found if look.step == steps - 1]
        assert len(last) >= len(found) / 2 and sum(last) == pytest.approx(1.0)


@PREDICTIONS
def test_over_many_sets_of_rollouts_every_step_counts_once(prediction):
    """Σ of the factors of a step, which is why the mean of the figure is the sum over the steps."""
    process = process_of(prediction)
    sigmas, counted, turns = process.schedule(20), torch.zeros(20), 1000
    for turn in range(turns):
        for look in looks(process, sigmas, 32, turn):
            counted[look.step] += look.factor / turns
    torch.testing.assert_close(counted, torch.ones(20), rtol=0.02, atol=0.0)


# ---- the figure ----


@METHODS
@PREDICTIONS
def test_the_figure_is_the_trajectories_divergence_whatever_is_learned_from(method, prediction):
    """One of 50 steps is learned from (DDPO, DAG), or the last ones are not played without gradients (ReFL, DRaFT)."""
    policy = Leaning(prediction)
    found = drifts(practising(method, policy), 12)
    assert found.mean().item() == pytest.approx(true_divergence(policy, 50), rel=0.1)
    assert found.std() < 0.15 * found.mean()


@METHODS
def test_it_costs_no_more_than_one_look_at_each_rollout_without_dropout(method):
    policy = Leaning()
    knobs = {"prompts_per_update": 2, "images_per_prompt": 3, "chunk": 4, "steps": 8, **WINDOW.get(method, {})}
    objective = practising(method, policy, **knobs)
    measured, seen = objective.practice.measured, []

    def counted(*arguments, **named):
        policy.calls.clear()
        value = measured(*arguments, **named)
        seen.extend(policy.calls)
        return value

    objective.practice.measured = counted
    list(objective.losses(torch.Generator().manual_seed(0)))
    assert seen == [(4, True, False), (4, False, False), (2, True, False), (2, False, False)]
    assert policy.dropping, "learning goes on with it"


@METHODS
def test_no_draw_of_a_run_depends_on_it(method):
    states = []
    for silent in (False, True):
        objective = practising(method, Leaning(), steps=8, **WINDOW.get(method, {}))
        if silent:
            objective.practice.measured = lambda *arguments, **named: 0.0
        generator = torch.Generator().manual_seed(4)
        torch.manual_seed(0)
        for _ in range(3):
            list(objective.losses(generator))
        states.append((generator.get_state(), torch.random.get_rng_state()))
        assert (objective.metrics()["kl_to_reference"] == 0) is silent
    assert all(torch.equal(*pair) for pair in zip(*states, strict=True))


@METHODS
def test_rounding_to_16_bit_is_no_drift(method):
    """A flow model's last step magnifies it: half a per mille of the output would pass for many nats."""
    found = []
    for half in (False, True):
        objective = practising(method, Leaning("flow", 0.002, layer=True), steps=20, **WINDOW.get(method, {}))
        found.append(drifts(objective, 3, half=half).mean().item())
    assert found[1] == pytest.approx(found[0], rel=0.2)


def test_rounding_is_no_drift_of_training_pictures_either():
    found = []
    for half in (False, True):
        drift = PictureDrift(Leaning("flow", 0.002, layer=True))
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            drift.measure(64, 1, lambda number: (torch.full((2, 1, 1), 0.7), None))
        found.append(drift.kl_to_reference)
    assert 0 < found[1] == pytest.approx(found[0], rel=1e-3)


@METHODS
def test_processes_measure_what_one_does_with_all_the_prompts(method):
    knobs = {"steps": 8, "images_per_prompt": 2, **WINDOW.get(method, {})}
    expected = drifts(practising(method, Leaning(), prompts_per_update=2, **knobs), 1).item()

    def work(share):
        return drifts(practising(method, Leaning(), share, prompts_per_update=1, **knobs), 1).item()

    assert in_two(work) == [pytest.approx(expected, rel=1e-4)] * 2
