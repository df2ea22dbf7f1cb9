"""Two tastes or more in one picture: by embedding, or by noise prediction.

    by embedding:   u = Σ_i w_i·u_i
    by prediction:  ε = ε(∅) + Σ_i w_i·(ε(u_i) − ε(∅))

The first costs one call of the network however many people there are. The second costs one call each, and lets every
taste act by itself instead of asking the adapter for somebody in between. With one person and w = 1 both are that
person; weights need not sum to one: their sum is the strength. Predictions may be of noise, v or the clean picture,
which are linear in each other at one noise level. Ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..interfaces import TrainingError


def blend_tokens(tokens: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Σ_i w_i·u_i of embeddings of one shape.

    Raises:
        TrainingError: nobody, another number of weights, or embeddings of different shapes.
    """
    _check(tokens, weights)
    return sum(weight * own for weight, own in zip(weights, tokens, strict=True))


def blend_predictions(
    without: torch.Tensor, predictions: Sequence[torch.Tensor], weights: Sequence[float]
) -> torch.Tensor:
    """ε(∅) + Σ_i w_i·(ε(u_i) − ε(∅)) of predictions of one shape.

    Raises:
        TrainingError: as `blend_tokens`.
    """
    _check([without, *predictions], [1.0, *weights])
    return without + sum(weight * (own - without) for weight, own in zip(weights, predictions, strict=True))


def _check(parts: Sequence[torch.Tensor], weights: Sequence[float]) -> None:
    shapes = {tuple(part.shape) for part in parts}
    if not parts or len(parts) != len(weights) or len(shapes) > 1:
        raise TrainingError(
            f"Blending needs one weight for each taste and embeddings of one shape; there are {len(parts)} of "
            f"the shapes {sorted(shapes)} and {len(weights)} weights. Use embeddings of one encoder."
        )
