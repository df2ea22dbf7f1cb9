"""Rewards of a dialogue: is the batch varied, does it stay with what was chosen before, does it fit its own prompt.

Each looks at more than one picture (`contextual`), gives every picture its own credit, and stands on any reward that
has features (`image_features`) or, for relevance, on any reward that looks at the prompt.

| symbol | code name | meaning |
| --- | --- | --- |
| F(x) | features | unit feature vector of a picture, frozen |
| N | size of a group | pictures of one prompt in the batch |
| B, C | batch, contrast | prompts of the batch, further prompts to tell apart from |
| κ | temperature | how sharply similarities are compared |

References:
    R_div and R_cons: multi-round visual refinement (VCA), as recalled from the authors' pages; per-picture credit ours.
    R_MI: the role is theirs; InfoNCE: van den Oord et al. 2018, "Representation learning with contrastive predictive
    coding", eq. 4 (there as a loss; its negative plus log B bounds the mutual information from below).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F

from ...training.interfaces import Reward, RewardContext, RewardError, checked_scores
from ...training.presentable import BATCH_PROMPTS
from ..feature_store import FEATURES
from .wrapping import WrappedReward, formula_of, refuse_gate, uses_prompt

Kind = Literal["diversity", "consistency", "relevance"]
KINDS: tuple[str, ...] = get_args(Kind)
TEMPERATURE = 0.07
# Stands in the ids, by which calibrations are kept. Raise it whenever a change here gives other scores.
VERSION = 1


class _FeatureReward(WrappedReward):
    """What diversity and consistency share: they look at features and never at the inner reward's score.

    Raises:
        RewardError: the reward has no picture features, or a safety gate is inside.
    """

    contextual = True
    uses_prompt = False
    higher_is_better = True
    calibration = None
    similarities = None
    needs_previous = False
    kind: str

    def __init__(self, reward: Reward) -> None:
        super().__init__(reward)
        refuse_gate(reward)
        if not callable(getattr(reward, "image_features", None)):
            raise RewardError(
                f"{reward.name} has no features of pictures, which {self.kind} compares. Connect a reward of the CLIP "
                "kind, such as attune_demo_reward, CLIPScore or PickScore."
            )

    @property
    def name(self) -> str:
        return f"{self.kind.capitalize()} ({self.reward.name})"

    @property
    def reward_id(self) -> str:
        return f"{self.kind}:v{VERSION}:{self.reward.reward_id}"

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        """Unit vectors float32 [B, D]; with gradients where the pictures ask for them."""
        if torch.is_grad_enabled() and images.requires_grad:
            return self.reward.image_features(images, with_gradients=True)
        return FEATURES.of(self.reward, images)


class DiversityReward(_FeatureReward):
    """R_div: how different the pictures of one prompt are from each other, 0 (all equal) … 2.

    R_div = 1 / (N(N−1)) Σ_{i≠j} (1 − cos(F(x_i), F(x_j))) is the mean over the group of the credits
    r_i = mean_{j≠i} (1 − cos(F(x_i), F(x_j))), which are the scores. A picture that is alone with its prompt scores 0.
    """

    kind = "diversity"
    compares_batch = True

    @property
    def formula(self) -> str:
        return f"mean over the others of 1 − cos, features of {self.reward.name}"

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], context: RewardContext | None = None
    ) -> torch.Tensor:
        """Images [B, h, w, c] in [0, 1] and B prompts, which say who belongs together → credits float32 [B]."""
        features = self._features(images)
        return diversity_credits(features, prompts)


def diversity_credits(features: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
    """Unit vectors [B, D] and B prompts → mean of 1 − cos to the others of the same prompt, [B]. Differentiable."""
    names = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    group = torch.tensor([names[prompt] for prompt in prompts], device=features.device)
    others = (group[:, None] == group[None]) & ~torch.eye(len(group), dtype=torch.bool, device=features.device)
    distance = (1 - features @ features.T) * others  # (B, B)
    return distance.sum(1) / others.sum(1).clamp_min(1)


class ConsistencyReward(_FeatureReward):
    """R_cons: how smoothly the rounds follow each other, −1 … 1; 0 in the first round.

    R_cons = mean over consecutive rounds of cos(F(x_s), F(x_{s+1})), the chain being what was chosen in the earlier
    rounds, oldest first, and then the picture that is scored. Several choices in one round count as their mean feature;
    a round without a choice is left out.
    """

    kind = "consistency"
    compares_batch = False
    needs_previous = True

    @property
    def formula(self) -> str:
        return f"mean cos of consecutive rounds, features of {self.reward.name}"

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], context: RewardContext | None = None
    ) -> torch.Tensor:
        """Images [B, h, w, c] in [0, 1] → scores float32 [B]; `context.previous` holds the choices, oldest first."""
        rounds = [chosen for chosen in (context.previous if context is not None else ()) if len(chosen)]
        if not rounds:
            # Of slope zero rather than without one, for what asks for gradients.
            return 0 * images.float().flatten(1).sum(1)
        with torch.no_grad():
            means = [self._features(chosen.to(images.device)).mean(0) for chosen in rounds]
        past = F.normalize(torch.stack(means), dim=-1)  # (rounds, D)
        earlier = (past[1:] * past[:-1]).sum()
        last = self._features(images) @ past[-1]  # (B,)
        return (earlier + last) / len(rounds)


class RelevanceReward(WrappedReward):
    """R_MI: can the picture be told to belong to its own prompt among others, at most log(B + C).

    r_i = log [exp(s_ii/κ) / (1/(B + C) Σ_j exp(s_ij/κ))], s_ij the inner reward's score of picture i with prompt j; j
    runs over the prompts of the batch and the contrast prompts. Its mean is the InfoNCE bound on the mutual information
    of picture and prompt. Contrast prompts are ours: without them a batch of a single prompt tells nothing.

    Args:
        reward: any reward that looks at the prompt: a CLIP kind, or a vision-language model.
        temperature: κ > 0. Lower is stricter.
        contrast: further prompts that the pictures should not show.

    Raises:
        RewardError: the reward does not look at prompts, a safety gate is inside, or the temperature is not above 0.
    """

    contextual = True
    uses_prompt = True
    higher_is_better = True
    calibration = None
    similarities = None
    compares_batch = True
    compares_pictures = False
    needs_previous = False

    def __init__(self, reward: Reward, *, temperature: float = TEMPERATURE, contrast: Sequence[str] = ()) -> None:
        super().__init__(reward)
        refuse_gate(reward)
        if not uses_prompt(reward):
            raise RewardError(
                f"{reward.name} does not look at the prompt, so it cannot say which prompt a picture belongs to. "
                "Connect a reward of the CLIP kind or a vision-language model."
            )
        if not temperature > 0:
            raise RewardError(f"The temperature must be above 0, not {temperature:g}.")
        self.temperature, self.contrast = temperature, tuple(contrast)

    @property
    def name(self) -> str:
        return f"Relevance ({self.reward.name})"

    @property
    def reward_id(self) -> str:
        return f"relevance:v{VERSION}:{self.temperature!r}:{list(self.contrast)!r}:{self.reward.reward_id}"

    @property
    def formula(self) -> str:
        return f"InfoNCE of {formula_of(self.reward)}, κ = {self.temperature:g}"

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], context: RewardContext | None = None
    ) -> torch.Tensor:
        """Images [B, h, w, c] in [0, 1] and B prompts → scores float32 [B].

        Where pictures were left out of the batch, `context.extra["prompts"]` holds the prompts of all of it, so that a
        picture scores as if none had been.

        Raises:
            RewardError: all prompts are equal and there is no contrast prompt.
        """
        if len(images) != len(prompts):
            raise RewardError(f"{self.name}: {len(images)} images but {len(prompts)} prompts; give one per image.")
        batch = context.extra.get(BATCH_PROMPTS, prompts) if context is not None else prompts
        occurrences = [*batch, *self.contrast]
        rivals = list(dict.fromkeys(occurrences))
        if len(rivals) < 2:
            raise RewardError(
                f"{self.name} tells prompts apart, but there is only one: {rivals[:1]}. Score pictures of several "
                "prompts together, or write contrast prompts (things the picture should not show)."
            )
        table = self._similarities(images, rivals)  # (B, rivals)
        sign = 1.0 if self.reward.higher_is_better else -1.0
        counts = torch.tensor([occurrences.count(text) for text in rivals], device=images.device)
        own = torch.tensor([rivals.index(prompt) for prompt in prompts], device=images.device)
        return information(sign * table, own, counts, temperature=self.temperature)

    def _similarities(self, images: torch.Tensor, rivals: Sequence[str]) -> torch.Tensor:
        """Scores of every picture with every prompt, float32 [B, prompts]."""
        at_once: Callable[..., Any] | None = getattr(self.reward, "similarities", None)
        if at_once is not None:
            from_features = getattr(self.reward, "feature_similarities", None)
            if from_features is None or (torch.is_grad_enabled() and images.requires_grad):
                return at_once(images, rivals)
            return from_features(FEATURES.of(self.reward, images), rivals)
        between = getattr(self.reward, "between", lambda: None)
        columns = []
        for text in rivals:
            between()
            columns.append(checked_scores(self.reward, images, [text] * len(images)))
        return torch.stack(columns, 1)


def information(scores: torch.Tensor, own: torch.Tensor, counts: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """log [exp(s_ii/κ) / mean_j exp(s_ij/κ)] per picture. Differentiable.

    Args:
        scores: [B, P], of every picture with every distinct prompt.
        own: int64 [B], the column of each picture's own prompt.
        counts: [P], how often each prompt occurs; the mean is over occurrences.
        temperature: κ.

    Returns:
        [B], at most log(sum of counts).
    """
    scaled = scores / temperature
    mean = torch.logsumexp(scaled + counts.to(scaled).log(), 1) - math.log(int(counts.sum()))
    return scaled.gather(1, own[:, None])[:, 0] - mean


def dialogue_reward(
    kind: str, reward: Reward, *, temperature: float = TEMPERATURE, contrast: Sequence[str] = ()
) -> WrappedReward:
    """One of the three by name.

    Raises:
        RewardError: there is no such kind, or the reward lacks what it needs.
    """
    if kind == "diversity":
        return DiversityReward(reward)
    if kind == "consistency":
        return ConsistencyReward(reward)
    if kind == "relevance":
        return RelevanceReward(reward, temperature=temperature, contrast=contrast)
    raise RewardError(f"There is no dialogue reward {kind!r}; choose one of: {', '.join(KINDS)}.")
