"""DAG's pure losses against closed forms, finite differences and expectations by quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from attune.training.denoisers import process_of
from attune.training.diffusion import Gaussian, log_probability
from attune.training.objectives import dag_losses
from attune.training.objectives.dag_losses import balance_loss, kl_loss, leave_one_out, pseudo_advantages
from attune.training.objectives.windows import draw_windows, window_states


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


# ---- the residual and its losses ----


def test_balance_loss_closed_form():
    """δ = 1 + (−2) − (−4) − 0.5 = 2.5: loss 6.25, gradients 2·δ = 5 to flow and log P_F, −5 to the next flow, and none
    to log P_B. At δ = 0 there is neither."""
    flow, log_forward, flow_next, log_backward = (
        numbers(value, 0.0).requires_grad_() for value in (1.0, -2.0, 0.5, -4.0)
    )
    result = balance_loss(flow, log_forward, log_backward, flow_next)
    assert result.loss.tolist() == [6.25, 0.0] and result.residual.tolist() == [2.5, 0.0]
    result.loss.sum().backward()
    assert flow.grad.tolist() == [5.0, 0.0] and log_forward.grad.tolist() == [5.0, 0.0]
    assert flow_next.grad.tolist() == [-5.0, 0.0] and log_backward.grad is None


def test_credit_moves_the_policy_alone():
    """δ = 2.5 as above and credit 7: the loss stays δ², the flows' gradients ±2·δ, log P_F's is 2·7."""
    flow, log_forward, flow_next = (numbers(value).requires_grad_() for value in (1.0, -2.0, 0.5))
    result = balance_loss(flow, log_forward, numbers(-4.0), flow_next, credit=numbers(7.0))
    assert result.loss.tolist() == [6.25] and result.residual.tolist() == [2.5]
    result.loss.sum().backward()
    assert [value.grad.item() for value in (flow, log_forward, flow_next)] == [5.0, 14.0, -5.0]


def test_kl_loss_closed_form():
    """δ as above: flow loss 6.25. On-policy ρ = 1: policy loss −A = −2 with gradient −A. With log ρ = 0.5 and A = 2 the
    ratio is cut to 1.1, loss −2.2 without gradient; flows never feel the policy's loss, nor the policy theirs."""
    flow, flow_next = numbers(1.0, 1.0).requires_grad_(), numbers(0.5, 0.5).requires_grad_()
    log_new = numbers(-2.0, -2.0).requires_grad_()
    advantage, log_backward = numbers(2.0, 2.0).requires_grad_(), numbers(-4.0, -4.0).requires_grad_()
    log_old = numbers(-2.0, -2.5).requires_grad_()
    result = kl_loss(flow, log_new, log_old, log_backward, flow_next, advantage, clip_range=0.1)
    torch.testing.assert_close(result.flow_loss, numbers(6.25, 6.25))
    torch.testing.assert_close(result.policy_loss, numbers(-2.0, -2.2))
    assert result.clipped.tolist() == [0.0, 1.0]
    result.policy_loss.sum().backward()
    assert log_new.grad.tolist() == [-2.0, 0.0] and flow.grad is None and flow_next.grad is None
    log_new.grad = None
    result.flow_loss.sum().backward()
    assert log_new.grad is None and flow.grad.tolist() == [5.0, 5.0] and flow_next.grad.tolist() == [-5.0, -5.0]
    assert log_old.grad is None and advantage.grad is None and log_backward.grad is None


def test_losses_have_the_gradients_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    flow, log_new, log_backward, flow_next, advantage = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    flow, log_new, flow_next = (value.clone().requires_grad_() for value in (flow, log_new, flow_next))
    log_old = (log_new + 0.02 * torch.randn(6, generator=generator, dtype=torch.float64)).detach()

    def balance(flow, log_new, flow_next):
        return balance_loss(flow, log_new, log_backward, flow_next).loss

    def divergence(flow, log_new, flow_next):
        found = kl_loss(flow, log_new, log_old, log_backward, flow_next, advantage, clip_range=0.5)
        return found.policy_loss

    def flows(flow, flow_next):
        found = kl_loss(flow, log_new.detach(), log_old, log_backward, flow_next, advantage, clip_range=0.5)
        return found.flow_loss

    assert torch.autograd.gradcheck(balance, (flow, log_new, flow_next))
    assert torch.autograd.gradcheck(divergence, (flow, log_new, flow_next))
    assert torch.autograd.gradcheck(flows, (flow, flow_next))


def test_expected_gradients_of_both_variants_agree_up_to_two():
    """One step in one dimension: P_F = N(m, s²), target log-density log P_B + log F̃(x_s) − log F̃(x_t) = log N(x; 0.7,
    0.5²) − 0.3. KL = log(.5/s) + (s² + (m − .7)²)/(2·.5²) − ½ + .3, so ∂KL/∂m = (m − .7)/.25. The expectations under
    P_F are exact by Gauss-Hermite quadrature: E[∂DB] = 2·∂KL, and the surrogate with A = −δ gives ∂KL."""
    nodes, heights = np.polynomial.hermite_e.hermegauss(40)
    heights = torch.tensor(heights / heights.sum())
    mean, deviation = numbers(0.2).requires_grad_(), 0.4
    points = (mean + deviation * torch.tensor(nodes)).detach()
    step = Gaussian(mean.expand(40, 1), numbers(deviation).reshape(1, 1))
    log_forward = log_probability(step, points[:, None], convention="sum")
    target = Gaussian(numbers(0.7).expand(40, 1), numbers(0.5).reshape(1, 1))
    log_backward = log_probability(target, points[:, None], convention="sum")
    zeros = torch.zeros(40, dtype=torch.float64)
    expected = (0.2 - 0.7) / 0.25

    balance = balance_loss(zeros + 0.3, log_forward, log_backward, zeros)
    (gradient,) = torch.autograd.grad((heights * balance.loss).sum(), mean, retain_graph=True)
    assert gradient.item() == pytest.approx(2 * expected)

    found = kl_loss(
        zeros + 0.3, log_forward, log_forward.detach(), log_backward, zeros, -balance.residual, clip_range=0.2
    )
    (gradient,) = torch.autograd.grad((heights * found.policy_loss).sum(), mean)
    assert gradient.item() == pytest.approx(expected)
    # E[δ] under P_F is the divergence itself.
    divergence = math.log(0.5 / 0.4) + (0.16 + 0.25) / 0.5 - 0.5 + 0.3
    assert (heights * found.residual).sum().item() == pytest.approx(divergence)


def test_a_constant_baseline_leaves_the_expected_gradient():
    """E[∇log P_F] = 0: A = −δ − b has the expected gradient of A = −δ for every b, by the same quadrature."""
    nodes, heights = np.polynomial.hermite_e.hermegauss(40)
    heights, gradients = torch.tensor(heights / heights.sum()), []
    for baseline in (0.0, 3.0):
        mean = numbers(0.2).requires_grad_()
        points = (mean + 0.4 * torch.tensor(nodes)).detach()[:, None]
        log_new = log_probability(Gaussian(mean.expand(40, 1), numbers(0.4).reshape(1, 1)), points, convention="sum")
        reward = points.squeeze(1).square()
        found = kl_loss(*[log_new.detach()] + [log_new, log_new.detach()] + 2 * [log_new.detach()], reward - baseline,
                        clip_range=0.2)  # fmt: skip
        gradients += torch.autograd.grad((heights * found.policy_loss).sum(), mean)
    torch.testing.assert_close(gradients[0], gradients[1])
    assert gradients[0].item() == pytest.approx(-2 * 0.2)  # −∂E[x²]/∂m


# ---- advantages ----


def test_leave_one_out_closed_form():
    """Of 1, 2, 6: b = 4, 3.5, 1.5; R − b = −3, −1.5, 4.5; s² = (1.5² + 4.5²)/2, (3² + 4.5²)/2, (3² + 1.5²)/2."""
    mean, deviation = leave_one_out(numbers(1, 2, 6), torch.zeros(3).long(), torch.ones(3).bool())
    assert mean.tolist() == [4.0, 3.5, 1.5]
    torch.testing.assert_close(deviation.square(), numbers(11.25, 14.625, 5.625))
    advantage = pseudo_advantages(numbers(1, 2, 6), torch.zeros(3).long(), torch.ones(3).bool(), clamp=1.5)
    torch.testing.assert_close(advantage, numbers(-3 / math.sqrt(11.25), -1.5 / math.sqrt(14.625), 1.5))


def test_groups_do_not_mix_and_blocked_values_do_not_count():
    """Groups {1, 2, 6} and {101, 102, 106} in any order have the same deviations; a blocked value moves none of them
    and has no advantage. Who is alone in a group is compared with everybody else."""
    values = numbers(1, 102, 2, 999, 106, 6, 101)
    groups, kept = torch.tensor([7, 3, 7, 3, 3, 7, 3]), torch.tensor([1, 1, 1, 0, 1, 1, 1]).bool()
    mean, deviation = leave_one_out(values, groups, kept)
    assert mean[[0, 2, 5]].tolist() == [4.0, 3.5, 1.5]
    torch.testing.assert_close(mean[[6, 1, 4]], numbers(104.0, 103.5, 101.5))
    torch.testing.assert_close(deviation[[0, 2, 5]], deviation[[6, 1, 4]])
    assert pseudo_advantages(values, groups, kept, clamp=5.0)[3] == 0
    mean, _ = leave_one_out(numbers(1, 2, 6, 11), torch.tensor([0, 0, 0, 1]), torch.ones(4).bool())
    assert mean.tolist() == [4.0, 3.5, 1.5, 3.0]


def test_an_advantage_of_nobody_to_compare_with_is_nothing():
    for kept in ([True], [False]):
        advantage = pseudo_advantages(numbers(3.0), torch.tensor([0]), torch.tensor(kept), clamp=5.0)
        assert advantage.tolist() == [0.0]


# ---- parts ----


def test_beta_rises_linearly_over_the_first_half():
    assert [dag_losses.annealed(8.0, done, 4) for done in range(6)] == [0.0, 2.0, 4.0, 6.0, 8.0, 8.0]
    assert dag_losses.annealed(8.0, 0, 0) == 8.0


def test_a_scaled_gradient_keeps_the_value():
    value = numbers(3.0, 5.0).requires_grad_()
    scaled = dag_losses.scaled_gradient(value, numbers(2.0, 0.5))
    assert scaled.tolist() == [3.0, 5.0]
    scaled.sum().backward()
    assert value.grad.tolist() == [2.0, 0.5]


@pytest.mark.parametrize("prediction", ["eps", "v", "flow"])
@pytest.mark.parametrize("convention", ["mean", "sum"])
def test_density_change_is_that_of_unit_sized_states(prediction, convention):
    """With y = x/c the kernel N(x_t; r·x_s, d²) is N(y_t; r·x_s/c_t, (d/c_t)²) and the step N(x_s; m, e²) is N(y_s;
    m/c_s, (e/c_s)²): log P_B − log P_F of the y is that of the x plus the density change."""
    process = process_of(prediction)
    t, s = process.sigmas[[700]].double(), process.sigmas[[300]].double()
    x, x0, x_next = torch.randn(3, 1, 4, 3, 3, dtype=torch.float64)
    back, step = process.kernel(x_next, s, t), process.posterior(x, x0, t, s)
    c_t, c_s = dag_losses.unit_scale(process, t), dag_losses.unit_scale(process, s)
    plain = log_probability(back, x, convention=convention) - log_probability(step, x_next, convention=convention)
    scaled = log_probability(
        Gaussian(back.mean / c_t, back.deviation / c_t), x / c_t, convention=convention
    ) - log_probability(Gaussian(step.mean / c_s, step.deviation / c_s), x_next / c_s, convention=convention)
    change = dag_losses.density_change(process, t, s, dimensions=36, convention=convention)
    torch.testing.assert_close(plain + change, scaled)


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_unit_scale_gives_the_vp_sample(prediction):
    """√(1 + σ²) = 1/√ā: x·√ā has the variance ā·σ_data² + 1 − ā, which is 1 for unit data."""
    process = process_of(prediction)
    sigma = process.sigmas[[0, 500, 999]]
    torch.testing.assert_close(dag_losses.unit_scale(process, sigma), (1 + sigma.square()).sqrt())


def test_the_anchor_is_the_distance_of_the_noise():
    """x0 moved by 0.5 at σ = 2 moves the noise by −0.25: mean square 0.0625; equal predictions have none."""
    process, x = process_of("eps"), torch.zeros(1, 2, 1, 1)
    moved = torch.full((1, 2, 1, 1), 0.5, requires_grad=True)
    still = torch.zeros(1, 2, 1, 1, requires_grad=True)
    found = dag_losses.noise_anchor(process, x, moved, still, torch.tensor([2.0]))
    assert found.item() == pytest.approx(0.0625)
    found.sum().backward()
    assert still.grad is None and moved.grad.flatten().tolist() == pytest.approx([0.125, 0.125])
    assert dag_losses.noise_anchor(process, x, still, still, torch.tensor([2.0])).item() == 0.0


def test_effective_sample_size_closed_form():
    """w = 1, 1, 2: (4)²/(3·6) = 8/9; equal residuals of any size: 1; one that rules: 1/n, without overflow."""
    size = dag_losses.effective_sample_size
    assert size(numbers(0.0, 0.0, -math.log(2))) == pytest.approx(8 / 9)
    assert size(torch.full((5,), -800.0)) == pytest.approx(1.0)
    assert size(numbers(0.0, -2000.0, 0.0, 0.0)) == pytest.approx(0.25)


# ---- windows ----


def test_windows_are_neighbouring_steps_and_cost_one_picture_more():
    """5 of 8 steps: 6 states where the window lies inside, 7 where it goes on past the end."""
    visits = draw_windows(64, 2, 8, torch.Generator().manual_seed(0), count=5)
    assert visits.shape == (64 * 2 * 5, 2)
    for row in range(128):
        steps = visits[visits[:, 0] == row, 1]
        assert ((steps.diff() == 1) | (steps.diff() == -7)).all()
        states, before, after = window_states(visits[visits[:, 0] == row], 8)
        assert len(states) == (7 if steps[-1] < steps[0] else 6)
        assert (states[before] == visits[visits[:, 0] == row]).all()
        assert (states[after][:, 1] == steps + 1).all()
    first = visits.reshape(64, 2, 5, 2)[:, :, 0, 1]
    assert (first[:, 0] == first[:, 1]).all()  # pictures of one prompt share a window


def test_every_transition_is_drawn_equally_often():
    """Over 64 prompts and 8 steps each start occurs 8 times; of 5 prompts, on average over seeds, equally often."""
    steps = draw_windows(64, 1, 8, torch.Generator().manual_seed(0), count=3)[:, 1]
    assert torch.bincount(steps).tolist() == [24] * 8
    counts = sum(
        torch.bincount(draw_windows(5, 1, 8, torch.Generator().manual_seed(seed), count=3)[:, 1], minlength=8)
        for seed in range(800)
    )
    expected = 800 * 5 * 3 / 8
    assert (counts - expected).abs().max() < 4 * math.sqrt(expected)


def test_all_steps_are_drawn_in_order():
    visits = draw_windows(2, 1, 4, torch.Generator().manual_seed(0))
    assert visits.tolist() == [[row, step] for row in range(2) for step in range(4)]
