"""The losses of DAG as pure functions: log-probabilities and flows come in, one value per transition goes out.

| here                  | alignment by GFlowNets (Zhang et al. 2024)                    |
| --------------------- | ------------------------------------------------------------- |
| `flow`, `flow_next`   | log F̃(x_t, t, c) and log F̃(x_s, s, c)                         |
| `log_forward`         | log P_F(x_s | x_t), the sampler's step                        |
| `log_backward`        | log P_B(x_t | x_s), the noising kernel                        |
| residual δ            | log F̃(x_t) + log P_F − log P_B − log F̃(x_s)                   |

A transition is balanced where δ = 0. Everything is in the unit of one convention, see `DAGConfig`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from ..diffusion import Convention, DiffusionProcess
from .ddpo import policy_loss


def annealed(beta: float, done: int, updates: int) -> float:
    """β_e = β·min(1, done/updates): linear from 0; `updates` = 0 is β from the start."""
    return beta if updates == 0 else beta * min(1.0, done / updates)


def unit_scale(process: DiffusionProcess, sigma: torch.Tensor) -> torch.Tensor:
    """√(α² + β²), [B]: x divided by it is about unit-sized at every noise level; for eps and v it is the VP sample."""
    return (process.alpha(sigma).square() + process.beta(sigma).square()).sqrt()


def density_change(
    process: DiffusionProcess, sigma: torch.Tensor, sigma_next: torch.Tensor, *, dimensions: int, convention: Convention
) -> torch.Tensor:
    """What log P_B − log P_F gains when both are densities of unit-sized states x/c, c = `unit_scale`; [B].

    Of D dimensions: log P_F gains D·log c_s and log P_B gains D·log c_t. The paper's states are such (VP); in the
    host's coordinates the flow network would have to learn D·log(c_s/c_t) for every step before anything else.
    """
    change = unit_scale(process, sigma).log() - unit_scale(process, sigma_next).log()
    return change if convention == "mean" else dimensions * change


def residual(
    flow: torch.Tensor, log_forward: torch.Tensor, log_backward: torch.Tensor, flow_next: torch.Tensor
) -> torch.Tensor:
    """δ = log F̃(x_t) + log P_F − log P_B − log F̃(x_s); all [B].

    With log P_ref(x_s | x_t), the reference's own step, in place of `log_backward` the target gains the factor p_ref;
    `dag` derives it.
    """
    return flow + log_forward - log_backward - flow_next


def scaled_gradient(value: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """`value` itself, whose gradient is multiplied with `scale`."""
    return value.detach() + scale * (value - value.detach())


class BalanceLoss(NamedTuple):
    """`loss` [B]; `residual` detached, [B]."""

    loss: torch.Tensor
    residual: torch.Tensor


def balance_loss(
    flow: torch.Tensor,
    log_forward: torch.Tensor,
    log_backward: torch.Tensor,
    flow_next: torch.Tensor,
    *,
    credit: torch.Tensor | None = None,
) -> BalanceLoss:
    """DAG-DB: δ². Gradients reach log P_F and the flows at both ends; log P_B has none.

    ∂/∂ log P_F = 2·credit,   ∂/∂ flow = 2·δ,   ∂/∂ flow_next = −2·δ

    Args:
        credit: what the policy answers for in place of δ, [B]; of "to the end" the residual Δ of the rest of the way
            (see `dag`), with which this is for each log P_F the gradient of its own Δ², sub-trajectory balance.
    """
    delta = residual(flow, log_forward, log_backward.detach(), flow_next)
    loss = delta.square()
    if credit is not None:
        loss = loss + 2 * (credit - delta).detach() * (log_forward - log_forward.detach())
    return BalanceLoss(loss, delta.detach())


class KLLoss(NamedTuple):
    """`flow_loss` and `policy_loss` [B]; the rest detached, [B]."""

    flow_loss: torch.Tensor
    policy_loss: torch.Tensor
    residual: torch.Tensor
    ratio: torch.Tensor
    clipped: torch.Tensor


def kl_loss(
    flow: torch.Tensor,
    log_new: torch.Tensor,
    log_old: torch.Tensor,
    log_backward: torch.Tensor,
    flow_next: torch.Tensor,
    advantage: torch.Tensor,
    *,
    clip_range: float,
) -> KLLoss:
    """DAG-KL: the flows learn from δ², the policy from KL(P_F(·|x_t) ‖ P_B·F̃(x_s)/F̃(x_t)).

    That divergence is E[δ] under P_F, and its gradient is E[δ·∇log P_F] (E[∇log P_F] = 0): a policy gradient with the
    pseudo-reward −δ. With advantages A of `pseudo_advantages` it is taken as max(−A·ρ, −A·clip(ρ, 1 ± clip_range)).

    Args:
        log_new: with gradients, which reach the policy loss alone; log_old: of the behaviour policy.
        advantage: of the pseudo-reward.
    """
    balance = balance_loss(flow, log_new.detach(), log_backward, flow_next)
    policy = policy_loss(log_new, log_old, advantage, clip_range=clip_range)
    return KLLoss(balance.loss, policy.loss, balance.residual, policy.ratio, policy.clipped)


def leave_one_out(values: torch.Tensor, groups: torch.Tensor, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(b, s): mean and root mean square deviation of every value's companions, without itself; float64 [N].

    b_i = Σ_{j≠i} R_j / (n − 1),   s_i² = Σ_{j≠i} (R_j − b_j)² / (n − 1), over the n values of the group of i.
    A value that is alone in its group is compared with all others; if there is none, b is the value itself.

    Args:
        values: [N]; groups: equal integers are one group, [N]; kept: values that count, bool [N].
    """
    exact, member = values.double(), kept.double()
    _, group = groups.unique(return_inverse=True)
    count = torch.zeros(int(group.max()) + 1, dtype=torch.float64, device=values.device).index_add(0, group, member)
    # Who is alone joins the group of everybody, without being counted there twice.
    alone = count[group] < 2

    def others(of: torch.Tensor) -> torch.Tensor:
        own = of * member
        total = torch.zeros_like(count).index_add(0, group, own)[group]
        return torch.where(alone, own.sum(), total) - own

    size = torch.where(alone, member.sum(), count[group]) - 1
    mean = torch.where(size > 0, others(exact) / size.clamp_min(1), exact)
    deviation = (others((exact - mean).square()).clamp_min(0) / size.clamp_min(1)).sqrt()
    return mean, deviation


def pseudo_advantages(rewards: torch.Tensor, groups: torch.Tensor, kept: torch.Tensor, *, clamp: float) -> torch.Tensor:
    """A = clamp((R − b)/(s + 1e-8), ±clamp) with `leave_one_out` b and s; 0 where not kept. [N], without gradients."""
    rewards = rewards.detach()
    mean, deviation = leave_one_out(rewards, groups, kept)
    advantage = ((rewards.double() - mean) / (deviation + 1e-8)).clamp(-clamp, clamp)
    return torch.where(kept, advantage, 0).to(rewards.dtype)


def noise_anchor(
    process: DiffusionProcess, x: torch.Tensor, x0: torch.Tensor, x0_behaviour: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """mean‖ε̃_θ − ε̃_behaviour‖² per sample, [B]: how far the guided noise moved from the one that played."""
    own = process.noise_from_x0(x, x0, sigma)
    behaviour = process.noise_from_x0(x, x0_behaviour.detach(), sigma)
    return (own - behaviour).square().flatten(1).mean(1)


def effective_sample_size(residuals: torch.Tensor) -> float:
    """(Σw)² / (n·Σw²) of w = e^−δ, in (0, 1]; NaN without a residual.

    w is the importance weight of a transition: what the flows want, P_B·F̃(x_s)/F̃(x_t), over P_F. At 1 all are alike and
    every step counts in full; at 1/n one step speaks for all.
    """
    if not len(residuals):
        return math.nan
    log_weight = -residuals.double()
    log_size = 2 * log_weight.logsumexp(0) - (2 * log_weight).logsumexp(0)
    return float(log_size.exp()) / len(residuals)
