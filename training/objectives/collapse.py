"""When a one-step generator has collapsed: its pictures are all alike, or its colours have run away. Ours.

Both happen where a reward, or guidance as a reward, has more weight than the teacher can hold against, and both go on
quietly while the reward rises. A run is compared with its teacher on the same prompts and noise.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch


def saturation(images: torch.Tensor) -> float:
    """Mean over pixels of the largest less the smallest colour value: 0 grey … 1 pure colours; images [B, h, w, 3]."""
    return float((images.amax(-1) - images.amin(-1)).mean())


def collapse_reason(figures: Mapping[str, float], *, diversity: float, saturation: float) -> str:
    """Why an evaluated generator counts as collapsed, as a sentence; "" if it does not.

    Args:
        figures: "evaluation_diversity", "teacher_diversity", "evaluation_saturation", "teacher_saturation"; what is
            missing is not judged.
        diversity: share of the teacher's that must be left; saturation: how much above the teacher's is allowed. Each
            0 = not judged.
    """
    own, others = figures.get("evaluation_diversity"), figures.get("teacher_diversity")
    if diversity and own is not None and others and own < diversity * others:
        return (
            f"The pictures of a prompt have become alike: their diversity is {own:.3g}, less than {diversity:.0%} of "
            f"the teacher's {others:.3g} (guard_diversity). Lower reward_weight, or raise assistant_updates."
        )
    own, others = figures.get("evaluation_saturation"), figures.get("teacher_saturation")
    if saturation and own is not None and others is not None and own > others + saturation:
        return (
            f"Colours have run away: their saturation is {own:.2f}, the teacher's {others:.2f} (guard_saturation "
            f"{saturation:g}). Lower reward_weight or cfg."
        )
    return ""
