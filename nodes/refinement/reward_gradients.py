"""How rewards pull at the chosen pictures: products of their gradients, by which weights can be balanced. Ours.

    G_ij = mean over chosen pictures x of ⟨∂z_i/∂x, ∂z_j/∂x⟩,   ∂z_i/∂x = ± ∂r_i/∂x / deviation_i

The gradients are those in the pictures' pixels: the direction in which each reward would change what was chosen. They
are of z-scores, so that a reward's unit has no part in it; the deviation is the session's running one. A reward that
never differed has z = 0 everywhere, and pulls nowhere: its row is 0. What to make of such rows is up to the rule
(`dynamic_weights`).

A reward that compares pictures is asked about the whole round, of which the chosen ones are a part: a picture alone
has nothing to be compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ...training.interfaces import RewardContext, checked_scores
from ...training.presentable import compares_batch
from .checks import RefinementError
from .draft import Judge
from .records import Round
from .running_scores import Running


def comparable(past: Round) -> list[int]:
    """Positions of a round's pictures that rewards may be asked about: those that no safety gate held back."""
    scored = [place for place, picture in enumerate(past.pictures) if picture.scores]
    return scored or list(range(len(past.pictures)))


def choice_gram(
    judges: Sequence[Judge],
    images: torch.Tensor,
    chosen: Sequence[int],
    prompt: str,
    *,
    previous: Sequence[torch.Tensor] = (),
    running: Mapping[str, Running],
) -> np.ndarray:
    """G, float64 [rewards, rewards].

    Args:
        images: of one round, [B, h, w, 3]. chosen: positions of what was chosen, at least one.
        prompt: the round's.
        previous: chosen pictures of the rounds before it, oldest first, each [N, h, w, 3].
        running: judge's name → moments of its scores so far.

    Raises:
        RefinementError: a reward has no gradient.
    """
    flat = [judge.name for judge in judges if not judge.reward.differentiable]
    if flat:
        raise RefinementError(
            f"{flat[0]} has no gradient, which this rule needs. Set rule to learned or rule, or disconnect that reward."
        )
    places, context = list(chosen), RewardContext(tuple(previous))
    rows = []
    for judge in judges:
        moments = running.get(judge.name)
        if moments is None or not moments.deviation:
            rows.append(torch.zeros_like(images[places]))
            continue
        whole = compares_batch(judge.reward)
        pull = _pull(
            judge, images if whole else images[places], places if whole else range(len(places)), prompt, context
        )
        rows.append(pull / moments.deviation)
    stacked = torch.stack(rows).flatten(2).double()  # (rewards, N, values)
    return torch.einsum("inv,jnv->ij", stacked, stacked).div(len(places)).numpy()


def _pull(
    judge: Judge, images: torch.Tensor, places: Sequence[int], prompt: str, context: RewardContext
) -> torch.Tensor:
    """Where a reward would move the pictures at `places`, [N, h, w, 3], in its own unit; better is up."""
    places = list(places)
    with torch.inference_mode(False), torch.enable_grad():
        asked = images.clone().requires_grad_(True)
        scores = checked_scores(judge.reward, asked, [prompt] * len(asked), context)[places]
        if not scores.requires_grad:
            return torch.zeros_like(images[places])
        (gradient,) = torch.autograd.grad(scores.sum(), asked, allow_unused=True)
    if gradient is None:
        return torch.zeros_like(images[places])
    return (-gradient if judge.is_cost else gradient)[places]
