"""ReFL and DRaFT: their gradients against finite differences of the reward through the sampler, and limiting cases."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from attune.training.denoisers import MixtureDenoiser, process_of
from attune.training.diffusion import expand
from attune.training.interfaces import Prompt, TrainingError
from attune.training.objectives.refl import ReFLConfig, ReFLObjective, approach, finish, lean_decode, reward_loss
from attune.training.share import Share

PREDICTIONS = ["eps", "v", "flow"]


class Bent(nn.Module):
    """The exact denoiser of a mixture, its x0 bent by two parameters; guidance amplifies the bend."""

    device, unconditional = torch.device("cpu"), None

    def __init__(self, prediction="eps", bend=(0.0, 0.0)):
        super().__init__()
        means = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
        self.base = MixtureDenoiser(process_of(prediction), means, 0.3, torch.tensor([0.5, 0.5]))
        self.process = self.base.process
        self.bend = nn.Parameter(torch.tensor(bend))
        self.on, self.calls, self.dropout_on, self.guidances = True, [], [], set()

    @contextmanager
    def role(self, name):
        assert name is None
        self.on = False
        yield self
        self.on = True

    def training_mode(self, on):
        self.dropout_on.append(on)

    def forward(self, x, sigma, cond, *, guidance=1.0):
        assert len(x) == len(sigma) == len(cond)
        self.calls.append((len(x), torch.is_grad_enabled(), self.on, sigma[0].item()))
        self.guidances.add(guidance)
        x0 = self.base(x, sigma)
        bend = self.bend.reshape(1, 2, 1, 1)
        return x0 + guidance * (bend + bend.square() * torch.tanh(x)) if self.on else x0


class PointDecoder:
    """Shows a 2-D point as the first two channels of a one-pixel picture."""

    decoded = 0

    def decode(self, latents):
        self.decoded += len(latents)
        return torch.cat([latents, torch.zeros_like(latents[:, :1])], 1).permute(0, 2, 3, 1)

    def encode(self, images):
        return images.permute(0, 3, 1, 2)[:, :2]


class Nearness:
    """Differentiable: 1 − the squared distance to (1, 1)."""

    name, reward_id, differentiable, higher_is_better = "Nearness", "nearness", True, True

    def __call__(self, images, prompts, context=None):
        return self.value(images)

    @staticmethod
    def value(images):
        return 1 - (images[:, 0, 0, :2] - 1).square().sum(1)


class Distance(Nearness):
    """The same as a cost."""

    name, higher_is_better = "Distance", False

    def __call__(self, images, prompts, context=None):
        return -self.value(images)


class Gated(Nearness):
    """Holds back what lies left of the middle."""

    name = "Gated"

    def unsafe(self, images):
        assert not torch.is_grad_enabled()
        return images[:, 0, 0, 0] < 0


def refl(policy, reward=None, *, share=None, held_out=None, **knobs):
    settings = {"prompts_per_update": 2, "images_per_prompt": 3, "steps": 6, "stop_from": 2, "stop_to": 5,
                "guidance": 1.0, "chunk": 6}  # fmt: skip
    objective = ReFLObjective(
        [Prompt(f"point {index}", None) for index in range(3)], reward or Nearness(), PointDecoder(),
        ReFLConfig(**settings | knobs), latent_shape=(2, 1, 1), held_out=held_out,
    )  # fmt: skip
    objective.prepare(policy, *(() if share is None else (share,)))
    return objective


def gradient(policy, objective, seed=0):
    policy.bend.grad = None
    total = 0.0
    for loss in objective.losses(torch.Generator().manual_seed(seed)):
        loss.backward()
        total += loss.item()
    return total, policy.bend.grad.clone()


def undisturbed(objective):
    """Whose calls of the network are those of learning: its drift is not measured."""
    objective.practice.measured = lambda *arguments, **named: 0.0
    return objective


# ---- the loss ----


def test_loss_closed_forms():
    """ReFL with weight .1 and margin 2 at scores .5, 3: losses .15, 0, slopes −.1, 0. DRaFT: −.5, −3, slopes −1."""
    for mode, losses, slopes in (("refl", [0.15, 0.0], [-0.1, 0.0]), ("draft", [-0.5, -3.0], [-1.0, -1.0])):
        scores = torch.tensor([0.5, 3.0], requires_grad=True)
        found = reward_loss(scores, mode=mode, weight=0.1, margin=2.0)
        found.sum().backward()
        torch.testing.assert_close(found.detach(), torch.tensor(losses))
        torch.testing.assert_close(scores.grad, torch.tensor(slopes))
    scores = torch.tensor([0.5, 3.0], requires_grad=True)
    found = reward_loss(scores, mode="refl", weight=0.1, margin=None)
    found.sum().backward()
    torch.testing.assert_close(found.detach(), torch.tensor([-0.05, -0.3]))
    torch.testing.assert_close(scores.grad, torch.tensor([-0.1, -0.1]))
    with pytest.raises(ValueError, match="'dpok'"):
        reward_loss(scores, mode="dpok", weight=1.0, margin=0.0)


# ---- the gradient through the sampler ----


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("calls", [1, 2, 5])
def test_gradient_is_that_of_the_reward_through_the_last_steps(prediction, calls):
    """In float64, central differences of the mean reward of what `finish` and the decoder make of fixed latents."""
    policy = Bent(prediction, (0.1, -0.2)).double()
    process = policy.process
    sigmas = process.schedule(8).double()[8 - calls : 8]
    noise = torch.randn(5, 2, 1, 1, generator=torch.Generator().manual_seed(1)).double()
    start = process.add_noise(torch.tensor([0.4, 0.3]).reshape(1, 2, 1, 1).expand(5, -1, -1, -1).double(), noise,
                              sigmas[:1].expand(5))  # fmt: skip

    def value():
        clean = finish(policy, process, start, [None] * 5, sigmas, guidance=1.5)
        return Nearness.value(lean_decode(PointDecoder(), clean)).mean()

    value().backward()
    slope, step = policy.bend.grad.clone(), 1e-5
    for index in range(2):
        with torch.no_grad():
            policy.bend[index] += step
            high = value()
            policy.bend[index] -= 2 * step
            low = value()
            policy.bend[index] += step
        assert slope[index].item() == pytest.approx(((high - low) / (2 * step)).item(), rel=1e-6)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("mode", ["refl", "draft"])
def test_objective_has_the_gradient_of_its_own_loss(prediction, mode):
    """The whole update. Full backpropagation (K = T) has no part without gradients, so that the differences of the loss
    are the gradient; for ReFL the part without gradients is frozen by moving the window to its very beginning."""
    policy = Bent(prediction, (0.1, -0.2)).double()
    knobs = {"stop_from": 0, "stop_to": 0, "margin": 50.0, "weight": 1.0, "last_steps": 6}
    objective = refl(policy, mode=mode, **knobs)
    _, found = gradient(policy, objective)
    step = 1e-2
    for index in range(2):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                policy.bend[index] += sign * step
            values.append(gradient(policy, objective)[0])
            with torch.no_grad():
                policy.bend[index] -= sign * step
        assert found[index].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=5e-3)
    assert found.abs().min() > 1e-3


def test_steps_played_without_gradients_have_none():
    """DRaFT-K's gradient is K-dependent: the true one only at K = T, and each K makes K calls with gradients (and one
    recomputation of all but the last)."""
    slopes = {}
    for last_steps in (1, 3, 6):
        policy = Bent(bend=(0.1, -0.2))
        objective = undisturbed(refl(policy, mode="draft", last_steps=last_steps))
        losses = list(objective.losses(torch.Generator().manual_seed(0)))
        learning = [grad for _, grad, on, _ in policy.calls if on]
        assert learning == [False] * (6 - last_steps) + [True] * last_steps
        sum(losses).backward()
        assert len([call for call in policy.calls if call[1]]) == 2 * last_steps - 1
        slopes[last_steps] = policy.bend.grad
    assert slopes[1].norm() < slopes[3].norm() < slopes[6].norm()


def test_draft_1_is_refl_at_the_last_step():
    """But for the noise of the steps, which is switched off here: with the margin out of reach, ReLU(margin − r) has
    the slope −1 as −r has, and so both have one gradient; the losses differ by the margin."""
    policy = Bent(bend=(0.1, -0.2))
    draft = refl(policy, mode="draft", last_steps=1)
    window = refl(policy, stop_from=5, stop_to=5, weight=1.0, margin=100.0)
    window.config = _quiet(window.config)
    window._played_steps = lambda generator: 5  # without a draw, so that the noise after it is the same
    first, second = gradient(policy, draft), gradient(policy, window)
    torch.testing.assert_close(first[0] + 100.0, second[0], rtol=1e-4, atol=0)
    torch.testing.assert_close(first[1], second[1], rtol=1e-4, atol=1e-6)


def _quiet(config):
    class Quiet(ReFLConfig):
        eta = 0.0

    return Quiet(**dataclasses.asdict(config))


def test_window_is_drawn_evenly_and_reaches_both_ends():
    objective = refl(Bent(), stop_from=2, stop_to=5)
    generator = torch.Generator().manual_seed(0)
    drawn = [objective._played_steps(generator) for _ in range(800)]
    assert {drawn.count(step) // 50 for step in (2, 3, 4, 5)} <= {3, 4}
    assert set(drawn) == {2, 3, 4, 5}


def test_refl_calls_the_network_once_with_gradients_after_the_drawn_steps():
    policy = Bent()
    objective = undisturbed(refl(policy, stop_from=4, stop_to=4))
    list(objective.losses(torch.Generator().manual_seed(0)))
    sigmas = policy.process.schedule(6)
    learned = [(grad, sigma) for _, grad, on, sigma in policy.calls if on]
    assert learned == [(False, sigma) for sigma in sigmas[:4].tolist()] + [(True, sigmas[4].item())]


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_approach_is_the_sampler(eta):
    """Steps of `process.posterior`, one after the other, on any chunk."""
    policy, process = Bent("v"), process_of("v")
    sigmas = process.schedule(5)[:4]
    noises = torch.randn(4, 3, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    x = start = process.initial(noises[0], sigmas[:1].expand(3))
    for index in range(3):
        levels = sigmas[index].expand(3), sigmas[index + 1].expand(3)
        step = process.posterior(x, policy.base(x, levels[0]), *levels, eta=eta)
        x = step.mean + step.deviation * noises[index + 1]
    for chunk in (1, 2, 3):
        draws, told = iter(noises[1:]), []
        found = approach(
            policy, process, start, [None] * 3, sigmas, guidance=1.0, eta=eta, draw=lambda: next(draws), chunk=chunk,  # noqa: B023
            on_step=lambda *done: told.append(done), on_state=lambda *state: None,  # noqa: B023
        )  # fmt: skip
        torch.testing.assert_close(found, x.detach())
        assert told[-1] == (3 * -(-3 // chunk),) * 2
        assert not found.requires_grad


@pytest.mark.parametrize("mode", ["refl", "draft"])
def test_guidance_acts_in_every_call(mode):
    policy = Bent()
    gradient(policy, refl(policy, mode=mode, last_steps=3, guidance=3.5))
    assert policy.guidances == {3.5}


def test_a_cost_is_lowered():
    """The same direction with the sign of reward and margin turned: margin 2 of the reward is reached at cost −2."""
    found = [gradient(policy, refl(policy, reward))
             for reward in (Nearness(), Distance()) for policy in [Bent(bend=(0.1, -0.2))]]  # fmt: skip
    assert found[0][0] == pytest.approx(found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])
    assert found[0][1][0] < 0, "the reward lies to the right, and the loss falls in that direction"


def test_pictures_that_reach_the_margin_teach_nothing():
    policy = Bent()
    loss, slope = gradient(policy, refl(policy, margin=-1e6))
    assert loss == 0 and slope.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("reward", [Nearness, Distance, Gated])
def test_the_share_of_pictures_that_teach_is_told(reward):
    """One margin between the scores of an update's pictures: those below it, of all that are not blocked."""

    def told(margin: float | None, **changes) -> float | None:
        objective = refl(Bent(bend=(0.1, -0.2)), reward(), margin=margin, **changes)
        list(objective.losses(torch.Generator().manual_seed(0)))
        return objective.metrics().get("below_margin")

    seen: list[torch.Tensor] = []

    class Remembering(reward):
        def __call__(self, images, prompts, context=None):
            seen.append(super().__call__(images, prompts, context).detach())
            return seen[-1] + 0 * images.sum()

    list(refl(Bent(bend=(0.1, -0.2)), Remembering()).losses(torch.Generator().manual_seed(0)))
    sign = 1 if reward.higher_is_better else -1
    scores = (sign * torch.cat(seen)).sort().values
    assert len(scores.unique()) == len(scores) > 2
    for below in range(1, len(scores)):
        margin = ((scores[below - 1] + scores[below]) / 2).item()
        assert told(margin) == told(margin, chunk=2) == pytest.approx(below / len(scores))
    assert (told(-1e6), told(1e6), told(None)) == (0, 1, None)


def test_without_a_margin_the_gradient_is_that_of_one_out_of_reach():
    policy = Bent(bend=(0.1, -0.2))
    (near, without), (far, within) = (gradient(policy, refl(policy, margin=margin)) for margin in (None, 100.0))
    torch.testing.assert_close(without, within, rtol=1e-4, atol=1e-6)
    assert far > near


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("knobs", [{"weight": 1.0}, {"mode": "draft", "last_steps": 2}])
def test_it_learns(prediction, knobs):
    policy = Bent(prediction)
    objective = refl(policy, **knobs)
    optimizer, generator = torch.optim.Adam(policy.parameters(), lr=0.05), torch.Generator().manual_seed(0)
    before = objective.evaluate()["evaluation_reward"]
    for _ in range(25):
        optimizer.zero_grad()
        for loss in objective.losses(generator):
            loss.backward()
        optimizer.step()
    assert objective.evaluate()["evaluation_reward"] > before + 0.5
    assert policy.bend[1] > 0.3


# ---- one draw for all ways to compute it ----


@pytest.mark.parametrize("mode", ["refl", "draft"])
def test_chunks_change_nothing(mode):
    found = {}
    for chunk in (1, 4, 6):
        policy = Bent(bend=(0.1, -0.2))
        found[chunk] = gradient(policy, refl(policy, mode=mode, last_steps=2, chunk=chunk))
        assert max(size for size, *_ in policy.calls) <= max(chunk, 6)
    for chunk in (1, 4):
        assert found[chunk][0] == pytest.approx(found[6][0], rel=1e-5)
        torch.testing.assert_close(found[chunk][1], found[6][1], rtol=1e-4, atol=1e-7)


def test_two_processes_of_half_the_prompts_learn_what_one_does():
    class Part(Share):
        def __init__(self, index):
            self.index, self.count = index, 2

    policy = Bent(bend=(0.1, -0.2))
    _, whole = gradient(policy, refl(policy, prompts_per_update=2), seed=6)
    halves = [gradient(policy, refl(policy, prompts_per_update=1, share=Part(index)), seed=6)[1] for index in (0, 1)]
    torch.testing.assert_close(sum(halves) / 2, whole)


def test_dropout_acts_on_learning_alone():
    policy = Bent()
    objective = refl(policy)
    measured = objective.practice.measured
    objective.practice.measured = lambda *arguments, **named: (
        policy.training_mode("measured") or measured(*arguments, **named)
    )
    list(objective.losses(torch.Generator().manual_seed(0)))
    assert policy.dropout_on == [False, True, False, "measured", True]


def test_half_precision_leaves_the_gradient_of_the_steps_learned_from():
    """Some versions of torch would hand on the 16-bit copies of weights from the part without gradients."""

    class Layered(Bent):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)
            with torch.no_grad():
                self.layer.weight.copy_(0.1 * torch.eye(2))

        def forward(self, x, sigma, cond, *, guidance=1.0):
            moved = self.layer(x.flatten(1)).float().reshape(x.shape)
            return super().forward(x, sigma, cond, guidance=guidance) + 0.1 * moved

    policy = Layered()
    with torch.autocast("cpu", torch.bfloat16):
        losses = list(refl(policy).losses(torch.Generator().manual_seed(0)))
    sum(losses).backward()
    assert policy.layer.weight.grad.abs().max() > 0


# ---- what is reported, and what is held back ----


def test_figures():
    policy = Bent(bend=(0.2, 0.0))
    objective = refl(policy, held_out=Distance())
    list(objective.losses(torch.Generator().manual_seed(0)))
    found = objective.metrics()
    assert {"reward", "reward_deviation", "held_out_reward", "diversity", "kl_to_reference", "rollouts",
            "reward_calls"} <= found.keys()  # fmt: skip
    assert found["held_out_reward"] == pytest.approx(-found["reward"], rel=1e-5)
    assert (found["rollouts"], found["reward_calls"]) == (6, 6)
    assert found["kl_to_reference"] > 0
    with torch.no_grad():
        policy.bend.zero_()
    list(objective.losses(torch.Generator().manual_seed(0)))
    assert objective.metrics()["kl_to_reference"] == 0
    assert objective.metrics()["rollouts"] == 12
    assert objective.best_metric == "evaluation_held_out_reward" in objective.evaluate()


def test_divergence_closed_form():
    """A shift of the network's output by d moves the mean of a step by c·d, c its factor of the output: the KL of a
    step is (c·d)²/(2·deviation²), and the trajectory's is the sum over all its steps, wherever it is stopped."""
    policy = Bent("flow", (0.3, 0.0))
    process = policy.process
    policy.forward = lambda x, sigma, cond, *, guidance=1.0: (
        policy.base(x, sigma)
        + (expand(process.output_scale(sigma), x) * policy.bend.reshape(1, 2, 1, 1) if policy.on else 0)
    )
    one, levels, expected = torch.ones(1, 1, 1, 1), process.schedule(6), 0.0
    for sigma, sigma_next in zip(levels[:6, None], levels[1:, None], strict=True):
        steps = [process.posterior(one, x0 * one, sigma, sigma_next) for x0 in (0, 1)]
        moved = 0.3 * process.output_scale(sigma) * (steps[1].mean - steps[0].mean)
        expected += (moved / steps[0].deviation).square().item() / 2
    windows = [{"stop_from": first, "stop_to": last} for first, last in ((0, 0), (3, 3), (2, 5))]
    for knobs in [*windows, {"mode": "draft", "last_steps": 6}, {"mode": "draft", "last_steps": 2}]:
        objective = refl(policy, **knobs)
        list(objective.losses(torch.Generator().manual_seed(0)))
        assert objective.metrics()["kl_to_reference"] == pytest.approx(expected, rel=1e-3)


def test_blocked_pictures_are_not_learned_from():
    """The gradient is that of the others alone, over the number of all; none if all are blocked."""
    policy = Bent(bend=(0.1, -0.2))
    objective = refl(policy, Gated(), mode="draft")
    loss, found = gradient(policy, objective)
    assert 0 < objective.metrics()["blocked"] < 6
    assert objective.metrics()["reward_calls"] == 6 - objective.metrics()["blocked"]

    class Everything(Gated):
        def unsafe(self, images):
            return torch.ones(len(images), dtype=torch.bool)

    class Zeroed(Nearness):
        def __call__(self, images, prompts, context=None):
            return torch.where(images[:, 0, 0, 0] < 0, torch.zeros(()), self.value(images))

    other = gradient(policy, refl(policy, Zeroed(), mode="draft"))
    assert loss == pytest.approx(other[0])
    torch.testing.assert_close(found, other[1])
    objective = refl(policy, Everything())
    loss, found = gradient(policy, objective)
    assert loss == 0 and found.tolist() == [0.0, 0.0]
    assert "below_margin" not in objective.metrics(), "nothing is known of them"


def test_counts_survive_a_resume():
    objective = refl(Bent())
    list(objective.losses(torch.Generator().manual_seed(0)))
    resumed = refl(Bent())
    resumed.load_state_dict(objective.state_dict())
    assert resumed.metrics() == objective.metrics()
    list(resumed.losses(torch.Generator().manual_seed(0)))
    assert resumed.metrics()["rollouts"] == 12


# ---- refusals ----


def test_a_reward_without_gradients_is_refused_with_a_way_out():
    class Counting(Nearness):
        name, differentiable = "Words in the picture", False

    with pytest.raises(TrainingError, match=r"Words in the picture .*DDPO or the DAG"):
        refl(Bent(), Counting())


@pytest.mark.parametrize(
    ("knobs", "said"),
    [({"mode": "dpok"}, "'dpok'"), ({"stop_from": 5, "stop_to": 4}, "stop_from 5 and stop_to 4"),
     ({"stop_to": 6}, "0 … 5"), ({"stop_from": -1}, "-1"),
     ({"mode": "draft", "last_steps": 7}, r"1 … 6, the number of steps .*, not 7"),
     ({"mode": "draft", "last_steps": 0}, "not 0"), ({"weight": 0.0}, "weight"), ({"chunk": 0}, "chunk"),
     ({"images_per_prompt": 0}, "images_per_prompt")],
)  # fmt: skip
def test_bad_settings_are_refused(knobs, said):
    with pytest.raises(TrainingError, match=said):
        refl(Bent(), **knobs)


def test_settings_of_the_other_mode_do_not_matter():
    assert ReFLConfig(mode="draft", steps=8, last_steps=2).steps == 8
    assert ReFLConfig(steps=40, last_steps=99).steps == 40


def test_only_the_chunk_is_free_on_a_resume():
    settings = ReFLConfig()
    assert ReFLConfig(chunk=1).identity() == settings.identity()
    assert {field.name for field in dataclasses.fields(settings)} - set(settings.identity()) == {"chunk"}
