"""What a session's rewards say of a round's pictures. Ours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from ...training.interfaces import RewardContext, checked_scores
from ...training.presentable import compares_batch, unsafe_pictures
from .draft import Judge

# Pictures per call of a reward that looks at each alone; bounds memory without a setting.
_AT_ONCE = 8


def score_round(
    judges: Sequence[Judge],
    images: torch.Tensor,
    prompt: str,
    previous: Sequence[torch.Tensor],
    on_picture: Callable[[], None],
) -> list[dict[str, float]]:
    """Reward's name → raw score of every picture; a picture that a safety gate holds back has none.

    Args:
        images: [B, h, w, 3] in [0, 1].
        previous: chosen pictures of earlier rounds, oldest first.
        on_picture: called for every picture and reward; may raise to cancel.

    Raises:
        RewardError: a reward cannot score them.
    """
    found: list[dict[str, float]] = [{} for _ in images]
    safe = (~unsafe_pictures(images, [judge.reward for judge in judges])).nonzero().flatten().tolist()
    context = RewardContext(tuple(previous))
    for judge in judges:
        step = len(safe) if compares_batch(judge.reward) else _AT_ONCE
        for start in range(0, len(safe), max(1, step)):
            places = safe[start : start + step]
            with torch.no_grad():
                scores = checked_scores(judge.reward, images[places], [prompt] * len(places), context)
            for place, score in zip(places, scores.tolist(), strict=True):
                if math.isfinite(score):
                    found[place][judge.name] = score
                on_picture()
    return found
