"""R_total(t): the rewards of a session as one, by the weights of its round.

    R_total = Σ_i λ_i · sign_i · (r_i − mean_i) / deviation_i / Σ_i |λ_i|

Mean and deviation are the running ones of the session's earlier rounds; a reward that has none yet enters as it is.
What was chosen in earlier rounds goes along, so that a reward which compares with it (consistency) can be trained on.

Source: the sum is VCA's; z-scores by running moments are ours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import torch

from ...training.interfaces import Reward, RewardContext, checked_scores
from ...training.presentable import compares_batch, compares_pictures
from .checks import RefinementError
from .draft import Judge
from .running_scores import Running

# Stands in the id. Raise it whenever a change here gives other scores.
VERSION = 1


class TotalReward:
    """Several rewards of a session as one; higher is better.

    Args:
        judges: the rewards.
        weights: judge's name → λ.
        running: judge's name → moments of earlier rounds.
        previous: chosen pictures of earlier rounds, oldest first, each [B, h, w, 3].

    Raises:
        RefinementError: no reward has a weight.
    """

    higher_is_better = True
    calibration = None
    similarities = None
    needs_previous = False

    def __init__(
        self,
        judges: Sequence[Judge],
        weights: Mapping[str, float],
        running: Mapping[str, Running],
        previous: Sequence[torch.Tensor] = (),
    ) -> None:
        total = sum(abs(weights.get(judge.name, 0.0)) for judge in judges)
        if not total:
            raise RefinementError("No reward of this session has a weight. Give at least one of them a weight.")
        self.judges = [judge for judge in judges if weights.get(judge.name, 0.0)]
        self.weights = {judge.name: weights[judge.name] / total for judge in self.judges}
        self.running, self.previous = dict(running), tuple(previous)
        inner: list[Reward] = [judge.reward for judge in self.judges]
        parts = ", ".join(f"{self.weights[judge.name]:.2f} {judge.name}" for judge in self.judges)
        self.name = f"R_total ({parts})"
        self.formula = " + ".join(f"{self.weights[judge.name]:.3g}·z({judge.name})" for judge in self.judges)
        self.reward_id = f"total:v{VERSION}:{self._digest()}"
        self.differentiable = all(reward.differentiable for reward in inner)
        self.uses_prompt = any(getattr(reward, "uses_prompt", False) for reward in inner)
        self.contextual = bool(previous) or any(getattr(reward, "contextual", False) for reward in inner)
        self.compares_batch = any(compares_batch(reward) for reward in inner)
        self.compares_pictures = any(compares_pictures(reward) for reward in inner)
        self.patchers = tuple(
            dict.fromkeys(part for reward in inner for part in getattr(reward, "patchers", ()) if part is not None)
        )
        features = next((f for f in (getattr(r, "image_features", None) for r in inner) if callable(f)), None)
        if features is not None:
            self.image_features = features

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], context: RewardContext | None = None
    ) -> torch.Tensor:
        """Images [B, h, w, c] in [0, 1] and B prompts → scores float32 [B], with gradients where all parts have them.

        Raises:
            RewardError: a part returned something unusable; names it.
        """
        extra = {} if context is None else context.extra
        known = RewardContext(tuple(part.to(images.device) for part in self.previous), extra)
        total = torch.zeros(len(images), device=images.device)
        for judge in self.judges:
            scores = checked_scores(judge.reward, images, prompts, known).to(images.device)
            moments = self.running.get(judge.name)
            shift, divisor = (moments.mean, moments.deviation) if moments and moments.deviation else (0.0, 1.0)
            sign = -1.0 if judge.is_cost else 1.0
            total = total + self.weights[judge.name] * sign * (scores - shift) / divisor
        return total

    def _digest(self) -> str:
        used = [
            [judge.reward.reward_id, self.weights[judge.name], *_moments(self.running.get(judge.name))]
            for judge in self.judges
        ]
        seen = hashlib.blake2b(json.dumps(used).encode(), digest_size=16)
        for chosen in self.previous:
            seen.update(chosen.detach().float().cpu().contiguous().numpy().tobytes())
        return seen.hexdigest()


def _moments(running: Running | None) -> tuple[float, float]:
    return (0.0, 1.0) if running is None else (running.mean, running.deviation)
