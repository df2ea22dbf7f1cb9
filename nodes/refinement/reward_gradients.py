"""How rewards pull at the chosen pictures: products of their gradients, by which weights can be balanced. Ours.

    G_ij = mean over chosen pictures x of ⟨∂z_i/∂x, ∂z_j/∂x⟩

The gradients are those in the pictures' pixels: the direction in which each reward would change what was chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ...training.interfaces import RewardContext, checked_scores
from .draft import Judge
from .records import RefinementError


def gram_of(judges: Sequence[Judge], chosen: Sequence[torch.Tensor], prompts: Sequence[str]) -> np.ndarray | None:
    """float64 [rewards, rewards], of the newest round's chosen pictures; None = nothing was chosen yet.

    Args:
        chosen: of every round with a choice, oldest first, each [N, h, w, 3]. prompts: of these rounds.

    Raises:
        RefinementError: a reward has no gradient.
    """
    if not chosen:
        return None
    flat = [judge.name for judge in judges if not judge.reward.differentiable]
    if flat:
        raise RefinementError(
            f"{flat[0]} has no gradient, which this rule needs. Set rule to learned or rule, or disconnect that reward."
        )
    context, rows = RewardContext(tuple(chosen[:-1])), []
    with torch.inference_mode(False), torch.enable_grad():
        for judge in judges:
            images = chosen[-1].clone().requires_grad_(True)
            scores = checked_scores(judge.reward, images, [prompts[-1]] * len(images), context)
            (gradient,) = torch.autograd.grad(scores.sum(), images, allow_unused=True)
            sign = -1.0 if judge.is_cost else 1.0
            rows.append(torch.zeros_like(images) if gradient is None else sign * gradient)
    stacked = torch.stack(rows).flatten(2).double()  # (rewards, N, values)
    return torch.einsum("inv,jnv->ij", stacked, stacked).div(len(chosen[-1])).numpy()
