"""Objectives against closed forms, finite differences and limiting cases."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math

import pytest
import torch
from torch import nn

from attune.training.denoisers import MixtureDenoiser, process_of
from attune.training.diffusion import log_probability
from attune.training.interfaces import Prompt, RewardError, TrainingError
from attune.training.objectives.dag_config import DAGConfig
from attune.training.objectives.ddpo import DDPOConfig, DDPOObjective, PromptStatistics, policy_loss
from attune.training.objectives.refl import ReFLConfig
from attune.training.objectives.supervised import SupervisedConfig, SupervisedObjective, loss_weight
from attune.training.objectives.transitions import step_weights


class ShiftedMixture(nn.Module):
    """The exact mixture denoiser plus one trainable shift of x0 per dimension: a policy with two parameters."""

    def __init__(self, prediction="eps"):
        super().__init__()
        means = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
        self.base = MixtureDenoiser(process_of(prediction), means, 0.3, torch.tensor([0.5, 0.5]))
        self.process = self.base.process
        self.shift = nn.Parameter(torch.zeros(2))
        self.guidances = set()
        self.dropout_on = []

    def training_mode(self, on):
        self.dropout_on.append(on)

    @contextlib.contextmanager
    def role(self, name):
        """Without its shift it is the reference."""
        kept, self.acting = self.acting, name is not None
        yield self
        self.acting = kept

    acting = True
    device = torch.device("cpu")
    unconditional = None

    def forward(self, x, sigma, cond=(), *, guidance=1.0):
        self.guidances.add(guidance)
        return self.base(x, sigma) + self.acting * self.shift.reshape(1, 2, 1, 1).to(x)


class DroppingPolicy(ShiftedMixture):
    """With what makes two looks at one state differ: dropout, and a matrix product that autocast rounds."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            self.layer = nn.Linear(2, 2)
        self.dropout = nn.Dropout(0.1).eval()

    def training_mode(self, on):
        super().training_mode(on)
        self.dropout.train(on)

    def forward(self, x, sigma, cond=(), *, guidance=1.0):
        moved = self.layer(self.dropout(x.flatten(1))).float().reshape(x.shape)
        return super().forward(x, sigma, cond, guidance=guidance) + 0.1 * moved


class PointDecoder:
    """Shows a 2-D point as the first two channels of a one-pixel picture."""

    def decode(self, latents):
        return torch.cat([latents, torch.zeros_like(latents[:, :1])], 1).permute(0, 2, 3, 1)

    def encode(self, images):
        return images.permute(0, 3, 1, 2)[:, :2]


class Rightness:
    """Black-box reward: how far right the point lies."""

    name, reward_id, differentiable, higher_is_better = "Rightness", "rightness", False, True
    calls = 0

    def __call__(self, images, prompts, context=None):
        self.calls += len(images)
        return images[:, 0, 0, 0].detach().clone()


def ddpo(policy=None, reward=None, **knobs):
    settings = {"prompts_per_update": 1, "images_per_prompt": 16, "steps": 8, "guidance": 1.0, "chunk": 7} | knobs
    objective = DDPOObjective(
        [Prompt("a point", None)], reward or Rightness(), PointDecoder(), DDPOConfig(**settings), latent_shape=(2, 1, 1)
    )
    objective.prepare(policy or ShiftedMixture())
    return objective


def update(objective, optimizer, generator):
    optimizer.zero_grad()
    for loss in objective.losses(generator):
        loss.backward()
    optimizer.step()


# ---- settings ----


@pytest.mark.parametrize("config", [DDPOConfig, DAGConfig])
@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"steps": 0}, r"steps \(sampler_steps in the node\) must be at least 1, not 0"),
        ({"steps": 8, "transitions": 9}, r"transitions \(trained_steps in the node\) must be 0 .* 8, the number of "
         r"steps \(sampler_steps in the node\), not 9"),
        ({"updates_per_rollout": 0}, r"updates_per_rollout \(updates_per_round in the node\) must be at least 1"),
    ],
)  # fmt: skip
def test_errors_name_settings_as_the_nodes_do_too(config, knobs, told):
    with pytest.raises(TrainingError, match=told):
        config(**knobs)


@pytest.mark.parametrize(
    "knobs", [{"steps": 0}, {"steps": 8, "stop_from": 8}, {"mode": "draft", "steps": 8, "last_steps": 9}]
)
def test_errors_of_refl_name_the_sampler_steps_as_the_node_does_too(knobs):
    with pytest.raises(TrainingError, match=r"steps \(sampler_steps in the node\)"):
        ReFLConfig(**knobs)


# ---- supervised ----


@pytest.mark.parametrize("prediction", ["eps", "v", "flow"])
def test_unweighted_loss_is_the_error_of_the_networks_own_target(prediction):
    """With min-SNR off: weight·‖x0 error‖² = ‖target error‖² for noise, v and flow."""
    process = process_of(prediction)
    sigma = process.sigmas[[200, 600]].double()
    x0, noise, guess = torch.randn(3, 2, 3, 2, 2, dtype=torch.float64)
    x = process.add_noise(x0, noise, sigma)
    guessed_noise = process.noise_from_x0(x, guess, sigma)
    if prediction == "eps":
        expected = (guessed_noise - noise).square()
    else:
        expected = (process.velocity(guess, guessed_noise, sigma) - process.velocity(x0, noise, sigma)).square()
    weight = loss_weight(process, sigma, 0.0).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(weight * (guess - x0).square(), expected)


def test_min_snr_limits_the_weight():
    """min(SNR, 5) on the x0 error: at SNR 100 the weight is 5, at SNR 1/4 it is 1/4."""
    process = process_of("eps")
    weight = loss_weight(process, torch.tensor([0.1, 2.0]), 5.0)
    torch.testing.assert_close(weight, torch.tensor([5.0, 0.25]))


def test_supervised_loss_has_the_gradient_of_finite_differences():
    policy = ShiftedMixture().double()
    objective = SupervisedObjective(
        [torch.randn(2, 1, 1) for _ in range(4)], [Prompt("x", None)], SupervisedConfig(batch=4, caption_dropout=0.0)
    )
    objective.prepare(policy)

    def loss():
        return sum(objective.losses(torch.Generator().manual_seed(5)))

    value = loss()
    value.backward()
    step = 1e-3
    for index in range(2):
        with torch.no_grad():
            policy.shift[index] += step
            high = loss()
            policy.shift[index] -= 2 * step
            low = loss()
            policy.shift[index] += step
        slope = ((high - low) / (2 * step)).item()
        assert policy.shift.grad[index].item() == pytest.approx(slope, rel=2e-3)


def test_supervised_sees_every_picture_before_any_twice_and_mixes_sizes():
    latents = [torch.zeros(2, 1, 1) for _ in range(3)] + [torch.zeros(2, 2, 1) for _ in range(2)]
    objective = SupervisedObjective(latents, [Prompt("x", None)], SupervisedConfig(batch=5))
    drawn = objective._draw(torch.Generator().manual_seed(0))
    assert sorted(drawn) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("latents", "captions", "said"),
    [(0, 1, "no pictures"), (3, 2, "3 pictures but 2 captions")],
)
def test_supervised_refuses_bad_input(latents, captions, said):
    with pytest.raises(TrainingError, match=said):
        SupervisedObjective(
            [torch.zeros(2, 1, 1)] * latents, [Prompt(str(i), None) for i in range(captions)], SupervisedConfig()
        )


# ---- DDPO ----


def test_policy_loss_closed_forms():
    """ρ = 1: loss −A, gradient −A. ρ = e^.01 with A = 1 is clipped to 1.0001 and has no gradient; with A = −1 it is
    not clipped, because a loss is never made better than it is."""
    log_new = torch.tensor([0.0, 0.01, 0.01], requires_grad=True)
    advantage = torch.tensor([2.0, 1.0, -1.0])
    result = policy_loss(log_new, torch.zeros(3), advantage, clip_range=1e-4)
    torch.testing.assert_close(result.loss, torch.tensor([-2.0, -1.0001, math.exp(0.01)]))
    result.loss.sum().backward()
    torch.testing.assert_close(log_new.grad, torch.tensor([-2.0, 0.0, math.exp(0.01)]))
    assert result.clipped.tolist() == [0.0, 1.0, 0.0]


def test_importance_and_score_form_agree_on_policy():
    """At the first update ρ = 1, so both forms have the gradient −A·∇log p."""
    gradients = []
    for form in ("importance", "score"):
        policy = ShiftedMixture()
        objective = ddpo(policy, form=form)
        for loss in objective.losses(torch.Generator().manual_seed(4)):
            loss.backward()
        gradients.append(policy.shift.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-7)
    assert gradients[0].abs().max() > 0


def test_policy_gradient_points_up_the_reward():
    """Moving every x0 to the right moves the samples right: the gradient of the loss in that direction is negative,
    and training moves the mean reward from 0 to clearly positive."""
    policy, reward = ShiftedMixture(), Rightness()
    objective = ddpo(policy, reward, images_per_prompt=64, clip_range=1.0)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.03)
    generator = torch.Generator().manual_seed(0)
    rewards = []
    for _ in range(25):
        update(objective, optimizer, generator)
        rewards.append(objective.metrics()["reward"])
    assert sum(rewards[-5:]) / 5 > sum(rewards[:3]) / 3 + 0.4
    assert abs(policy.shift[1].item()) < policy.shift[0].item()


def test_a_reward_that_is_a_cost_is_lowered():
    class Cost(Rightness):
        higher_is_better = False

    gradients = []
    for reward in (Rightness(), Cost()):
        policy = ShiftedMixture()
        for loss in ddpo(policy, reward).losses(torch.Generator().manual_seed(0)):
            loss.backward()
        gradients.append(policy.shift.grad)
    torch.testing.assert_close(gradients[0], -gradients[1])


def test_one_reward_call_per_rollout():
    reward = Rightness()
    objective = ddpo(reward=reward, updates_per_rollout=2, transitions=3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        for loss in objective.losses(generator):
            loss.backward()
    assert reward.calls == 16
    assert objective.metrics()["rollouts"] == 16


def test_transition_subsampling_is_unbiased():
    """Averaged over draws, 2 of 8 transitions give the gradient of all 8 (rewards and rollouts held fixed)."""
    policy = ShiftedMixture()
    objective = ddpo(policy, images_per_prompt=8)
    list(objective.losses(torch.Generator().manual_seed(1)))
    played = objective._play(torch.Generator().manual_seed(1))

    def gradient(transitions, seed):
        policy.shift.grad = None
        knobs = {"prompts_per_update": 1, "images_per_prompt": 8, "steps": 8, "guidance": 1.0, "chunk": 64}
        objective.config = DDPOConfig(**knobs, transitions=transitions)
        played.updates_left, played.visits, played.log_old = 2, None, None
        objective._played = played
        for loss in objective.losses(torch.Generator().manual_seed(seed)):
            loss.backward()
        return policy.shift.grad.clone()

    full = gradient(0, 0)
    sampled = torch.stack([gradient(2, seed) for seed in range(300)])
    error = sampled.std(0) / math.sqrt(300)
    assert ((sampled.mean(0) - full).abs() < 4 * error).all()


def test_same_seed_same_gradient_and_chunks_do_not_matter():
    """However few of the 16 pictures fit into a call, the draws are the same."""

    def gradient(chunk):
        policy = ShiftedMixture()
        for loss in ddpo(policy, chunk=chunk).losses(torch.Generator().manual_seed(2)):
            loss.backward()
        return policy.shift.grad

    assert torch.equal(gradient(7), gradient(7))
    for chunk in (1, 3, 5):
        torch.testing.assert_close(gradient(chunk), gradient(16), rtol=1e-4, atol=1e-6)


def test_no_call_of_the_network_is_larger_than_a_chunk():
    policy = ShiftedMixture()
    seen = []
    policy.register_forward_pre_hook(lambda module, arguments: seen.append(len(arguments[0])))
    list(ddpo(policy, chunk=5).losses(torch.Generator().manual_seed(0)))
    assert max(seen) == 5


def test_the_chunk_is_free_on_a_resume_and_nothing_else_is():
    settings = DDPOConfig()
    assert DDPOConfig(chunk=1).identity() == settings.identity()
    assert {field.name for field in dataclasses.fields(settings)} - set(settings.identity()) == {"chunk"}


def test_dropout_acts_on_learning_alone_and_where_rollouts_are_used_once():
    policy = ShiftedMixture()
    list(ddpo(policy).losses(torch.Generator().manual_seed(0)))
    assert policy.dropout_on == [False, True]
    policy = ShiftedMixture()
    objective, generator = ddpo(policy, updates_per_rollout=2), torch.Generator().manual_seed(0)
    for _ in range(2):
        policy.training_mode(True)  # as the trainer does
        list(objective.losses(generator))
        assert policy.dropout_on.pop() is False


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("updates", [1, 2])
def test_an_unchanged_policy_has_ratio_one_and_nothing_clipped(updates, half):
    """Dropout, rounding to 16 bit and other batch sizes than in the rollouts are no change of the policy."""
    objective, generator = ddpo(DroppingPolicy(), updates_per_rollout=updates), torch.Generator().manual_seed(3)
    for _ in range(updates):
        objective._policy.training_mode(True)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            list(objective.losses(generator))
        figures = objective.metrics()
        assert (figures["ratio"], figures["clipped"], figures["log_probability_change"]) == (1.0, 0.0, 0.0)


def test_later_passes_compare_with_the_first():
    """A change of the policy between two passes shows as ρ = exp(log p_new − log p_first), of the same transitions."""
    policy = DroppingPolicy()
    objective, generator = ddpo(policy, updates_per_rollout=2, transitions=3), torch.Generator().manual_seed(3)
    list(objective.losses(generator))
    first, visits = objective._played.log_old, objective._played.visits
    assert first.shape == (16 * 3,)
    with torch.no_grad():
        policy.shift += 0.05
        now = objective._log_probabilities(objective._played, visits)
    list(objective.losses(generator))
    figures = objective.metrics()
    assert figures["ratio"] == pytest.approx((now - first).exp().mean().item(), rel=1e-5)
    assert figures["log_probability_change"] == pytest.approx((now - first).square().mean().sqrt().item(), rel=1e-4)
    assert figures["clipped"] > 0.1
    assert objective._played is None


def test_balanced_steps_weigh_by_the_inverse_of_their_gradient():
    """The weights have mean 1, and undo the measured size of each step's ∂ log P_F / ∂ x0 shift; plain is all ones."""
    policy = ShiftedMixture("flow")
    sigmas = policy.process.schedule(8)
    weights = step_weights(policy.process, sigmas, "balanced")
    assert weights.mean().item() == pytest.approx(1)
    sizes = []
    for sigma, sigma_next in itertools.pairwise(sigmas):
        x0 = torch.zeros(1, 2, 1, 1, requires_grad=True)
        step = policy.process.posterior(torch.ones(1, 2, 1, 1), x0, sigma[None], sigma_next[None])
        value = step.mean.detach() + step.deviation  # one deviation away in every dimension
        log_probability(step, value, convention="sum").backward()
        sizes.append(x0.grad[0, 0].abs().item() * sigma.item())  # flow: x0 = x − σ·output
    products = weights * torch.tensor(sizes)
    torch.testing.assert_close(products, products.mean().expand(8), rtol=1e-3, atol=0)
    assert step_weights(policy.process, sigmas, "plain").tolist() == [1.0] * 8


def test_guidance_reaches_the_network_in_rollout_and_training():
    policy = ShiftedMixture()
    list(ddpo(policy, guidance=3.5).losses(torch.Generator().manual_seed(0)))
    assert policy.guidances == {3.5}


def test_state_between_the_passes_of_one_rollout_survives():
    """Three passes per rollout; saved and loaded into a fresh objective after any of seven: the same weights."""
    knobs = {"updates_per_rollout": 3, "transitions": 4, "clip_range": 0.1}

    def trained(cut):
        policy, generator = DroppingPolicy(), torch.Generator().manual_seed(6)
        objective, optimizer = ddpo(policy, **knobs), torch.optim.Adam(policy.parameters(), lr=0.03)
        for count in range(7):
            if count == cut:
                state = objective.state_dict()
                objective = ddpo(policy, **knobs)
                objective.load_state_dict(state)
            policy.training_mode(True)
            update(objective, optimizer, generator)
        return policy.shift.tolist()

    expected = trained(None)
    assert all(trained(cut) == expected for cut in range(7))


def test_advantages_compare_like_with_like():
    """Two prompts with different reward levels: per-prompt statistics give both the same spread of advantages."""
    statistics = PromptStatistics(buffer=8, minimum=4)
    texts = ["easy"] * 4 + ["hard"] * 4
    rewards = torch.tensor([10.0, 11.0, 12.0, 13.0, 0.0, 1.0, 2.0, 3.0])
    advantage = statistics.advantages(texts, rewards, clamp=5.0)
    torch.testing.assert_close(advantage[:4], advantage[4:])
    # z-scores of 0, 1, 2, 3: mean 1.5, deviation √1.25
    torch.testing.assert_close(advantage[0].item(), -1.5 / math.sqrt(1.25), atol=1e-4, rtol=0)
    young = PromptStatistics(buffer=8, minimum=5).advantages(texts, rewards, clamp=1.0)
    assert young.min() == -1.0 and young.max() == 1.0


def test_equal_rewards_teach_nothing():
    """Twelve float32 rewards of 128.4 differ by nothing: every advantage is 0, not the rounding of their mean."""
    statistics = PromptStatistics(buffer=32, minimum=8)
    assert statistics.advantages(["x"] * 12, torch.full((12,), 128.4), clamp=5.0).tolist() == [0.0] * 12
    assert statistics.advantages(["young"] * 4, torch.full((4,), 0.1), clamp=5.0).tolist() == [0.0] * 4


def test_a_reward_that_returns_nan_is_named():
    class Broken(Rightness):
        name = "Broken"

        def __call__(self, images, prompts, context=None):
            return torch.full((len(images),), float("nan"))

    with pytest.raises(RewardError, match="Broken returned nan for image 1 of 16"):
        list(ddpo(reward=Broken()).losses(torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"images_per_prompt": 1}, "at least 2"),
        ({"transitions": 99}, "99"),
        ({"form": "reinforce"}, "reinforce"),
        ({"step_weights": "heavy"}, "heavy"),
        ({"form": "score", "updates_per_rollout": 2}, "on-policy"),
        ({"clip_range": 0.0}, "positive"),
        ({"buffer": 4}, "buffer of 4"),
    ],
)
def test_ddpo_refuses_bad_settings(knobs, said):
    with pytest.raises(TrainingError, match=said):
        ddpo(**knobs)


def test_a_reward_that_needs_earlier_rounds_is_refused():
    class Dialogue(Rightness):
        needs_previous = True

    with pytest.raises(TrainingError, match="compares with earlier rounds"):
        ddpo(reward=Dialogue())


def test_no_prompts_is_an_error():
    with pytest.raises(TrainingError, match="no prompts"):
        DDPOObjective([], Rightness(), PointDecoder(), DDPOConfig(), latent_shape=(2, 1, 1))
