"""How different pictures of one prompt are: mean pairwise 1 − cos of frozen features. Ours."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch

Features = Callable[[torch.Tensor], torch.Tensor]


def feature_source(reward: Any) -> Features | None:
    """The picture features of a reward's own encoder, if it has one: images [B, h, w, 3] → [B, D]."""
    # A cached reward keeps the one that does the work in `reward`.
    for candidate in (reward, getattr(reward, "reward", None)):
        features = getattr(candidate, "image_features", None)
        if callable(features):
            return features
    return None


def pixel_features(images: torch.Tensor) -> torch.Tensor:
    """Features for want of better: every picture shrunk to 16×16 and centred, [B, 768]."""
    small = torch.nn.functional.interpolate(images[..., :3].movedim(-1, 1), size=(16, 16), mode="area")
    flat = small.flatten(1)
    return flat - flat.mean(1, keepdim=True)


@torch.no_grad()
def diversity(images: torch.Tensor, features: Features, *, group: int) -> float:
    """Mean pairwise 1 − cos of the features within a prompt, averaged over prompts.

    Args:
        images: [prompts·group, h, w, 3].
        group: pictures per prompt; with fewer than 2 there is no pair and the result is NaN.
    """
    if group < 2:
        return math.nan
    groups = [index // group for index in range(len(images))]
    return grouped_diversity(features(images), groups)


def grouped_diversity(features: torch.Tensor, groups: Sequence[Hashable]) -> float:
    """Mean pairwise 1 − cos within each group, averaged over the groups that have a pair; NaN if none has.

    Args:
        features: [B, D]; groups: what each belongs to, B of them.
    """
    vectors = torch.nn.functional.normalize(features.float(), dim=1)
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    spreads = []
    for rows in members.values():
        if len(rows) > 1:
            cosines = vectors[rows] @ vectors[rows].T
            spreads.append(1 - float(cosines.sum() - cosines.diagonal().sum()) / (len(rows) * (len(rows) - 1)))
    return sum(spreads) / len(spreads) if spreads else math.nan
