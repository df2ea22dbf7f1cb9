"""The losses of Diff-Instruct* as pure functions: clean pictures as generator, assistant and reference see them.

A one-step generator makes x0 = g_θ(z, c). It is noised to x_t = α·x0 + β·noise. The assistant ψ predicts the clean
picture D_ψ(x_t) as the generator's distribution has it, the frozen reference D_ref(x_t) as the model does. What is
minimised is a distance between the two scores of x_t,

    E_{t, x_t ~ sg[p_θ,t]} d(y_t),    y_t = s_ψ − s_ref = α·(D_ψ − D_ref)/β²,

without knowing how s_ψ hangs on θ (Luo et al. 2024, score-implicit matching). With d_t(y) = D(β²·y/α), the distance of
the predictions themselves, its gradient is that of

    L(θ) = −D′(e)ᵀ (D_ψ(x_t) − x0),    e = D_ψ(x_t) − D_ref(x_t),

where the parameters of both networks are fixed and **gradients pass through their inputs x_t**: D′(e) is not detached.

| here                      | papers                                                   |
| ------------------------- | -------------------------------------------------------- |
| `x0`                      | g_θ(z, c), with gradients to θ                           |
| `assistant`, `reference`  | D_ψ(x_t), D_ref(x_t), with gradients to x_t              |
| `coefficient` a           | 1: SIM and DI*; 1.2: SiD; 0.5: the total derivative      |
| "kl"                      | Diff-Instruct, DI++: KL(p_θ,t ‖ p_ref,t)                 |

References:
    Luo et al. 2024, "One-Step Diffusion Distillation through Score Implicit Matching".
    Luo et al. 2024, "Diff-Instruct*: Towards Human-Preferred One-step Text-to-image Generative Models".
    Luo et al. 2024, "Diff-Instruct++" (the KL variant, guidance as a reward).
    Zhou et al. 2024, "Score identity Distillation" (`coefficient`, `sample_weight`).

Differences from the papers (all ours):
    - distances are taken between predictions instead of scores, which is a weight w(t); it makes them scale-free;
    - the pseudo-Huber constant is not published: 0.00054·√D is that of consistency training (Song & Dhariwal 2023);
    - `coefficient` acts on every distance, as (1 − a)·D′(e)ᵀe;
    - rewards without gradients, by `score_function_loss`.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch

Distance = Literal["pseudo-huber", "l2", "kl"]
DISTANCES: tuple[str, ...] = get_args(Distance)
HUBER = 0.00054


def huber_constant(dimensions: int) -> float:
    """c of the pseudo-Huber distance for latents of D dimensions."""
    return HUBER * math.sqrt(dimensions)


def distance(gap: torch.Tensor, kind: Distance, constant: float) -> torch.Tensor:
    """D(e) of every sample, [B]: ½‖e‖² for "l2", √(‖e‖² + c²) − c for "pseudo-huber".

    Args:
        gap: e, [B, …]; constant: c ≥ 0.

    Raises:
        ValueError: another kind, which has no such distance.
    """
    squares = gap.flatten(1).square().sum(1)
    if kind == "l2":
        return 0.5 * squares
    if kind == "pseudo-huber":
        return (squares + constant**2).sqrt() - constant
    raise ValueError(f"a distance is 'l2' or 'pseudo-huber'; not {kind!r}")


def distance_gradient(gap: torch.Tensor, kind: Distance, constant: float) -> torch.Tensor:
    """D′(e), [B, …]; at e = 0 it is 0."""
    if kind == "l2":
        return gap
    if kind == "pseudo-huber":
        length = (gap.flatten(1).square().sum(1) + constant**2).clamp_min(1e-24).sqrt()
        return gap / length.reshape(-1, *[1] * (gap.ndim - 1))
    raise ValueError(f"a distance is 'l2' or 'pseudo-huber'; not {kind!r}")


def matching_loss(
    x0: torch.Tensor,
    assistant: torch.Tensor,
    reference: torch.Tensor,
    *,
    kind: Distance,
    constant: float = 0.0,
    coefficient: float = 1.0,
) -> torch.Tensor:
    """−D′(e)ᵀ(D_ψ − x0 − (1 − a)·e) of every sample, [B]; of "kl" sg(e)ᵀx0.

    Its value says nothing; its gradient is that of the expected distance.

    Args:
        x0: the generator's pictures [B, …], with gradients.
        assistant, reference: predictions of the noised pictures, with gradients to these; "kl" needs none.
        constant: c of "pseudo-huber". coefficient: a, without meaning for "kl".
    """
    gap = assistant - reference
    if kind == "kl":
        return (gap.detach() * x0).flatten(1).sum(1)
    pull = assistant - x0 - (1 - coefficient) * gap
    return -(distance_gradient(gap, kind, constant) * pull).flatten(1).sum(1)


def guidance_reward_loss(x0: torch.Tensor, reference: torch.Tensor, unconditional: torch.Tensor) -> torch.Tensor:
    """Guidance as a reward beside the distance (variant "out"), to be multiplied with guidance − 1; [B].

    sg[D_ref(∅) − D_ref(c)]ᵀx0: the gradient of −E log p_ref(c | x_t), up to a weight of the noise level. The other
    variant, "in", takes the guided prediction for the reference's.

    Args:
        reference, unconditional: D_ref of the noised pictures with and without their prompt, [B, …].
    """
    return ((unconditional - reference).detach() * x0).flatten(1).sum(1)


def sample_weight(x0: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """w of every sample, 1 / mean|x0 − D_ref|, [B], without gradients: pictures and noise levels count alike."""
    return 1 / (x0 - reference).detach().abs().flatten(1).mean(1).clamp_min(1e-6)


def score_function_loss(
    x0: torch.Tensor, noise: torch.Tensor, rewards: torch.Tensor, groups: torch.Tensor, *, deviation: float
) -> torch.Tensor:
    """Of a reward without gradients, per sample [B]: its gradient is that of −E r(x0 + deviation·noise).

    The generator is made stochastic by noise on its pictures, whose log-density has the gradient noise/deviation with
    respect to x0 (Williams 1992). Rewards are compared with the mean of the other samples of their group.

    Its variance is what it costs: of a reward with slope v at x0, in D dimensions, a sample's gradient has about
    (D + 1)·‖v‖² besides, and r's curvature adds deviation². So one needs about D samples where a differentiable reward
    needs one. It is meant for latents that are small, or for many pictures.

    Args:
        x0: the generator's pictures, with gradients; copies of one picture side by side or not, [B, …].
        noise: unit Gaussian, that was added, [B, …].
        rewards: of x0 + deviation·noise, higher is better, [B].
        groups: samples with an equal number are compared, each at least two, integers [B].
        deviation: of the noise, > 0; larger is smoother and more biased.
    """
    exact = rewards.detach().double()
    _, group = groups.unique(return_inverse=True)
    count = torch.bincount(group).double()
    total = torch.zeros_like(count).index_add(0, group, exact)
    others = (total[group] - exact) / (count[group] - 1)
    advantage = (exact - others).to(x0.dtype)
    return -advantage * (noise * x0).flatten(1).sum(1) / deviation
