"""Rewards that judge by colour, so that a test chooses a picture's score and how unsafe it is."""

from __future__ import annotations

import torch

from attune.nodes.picture_hashes import content_hash
from attune.nodes.rewards.safety import GatedReward, SafetyGate
from attune.training.interfaces import Reward, RewardContext


class Redness:
    """The mean of the red channel, as a stand-in cost: a picture's probability is chosen by its colour."""

    name = "Redness"
    reward_id = "redness"
    differentiable = False
    higher_is_better = False

    def __call__(self, images, prompts, context=None):
        return images[..., 0].flatten(1).mean(1)


class Blueness:
    """The mean of the blue channel as a reward; remembers every picture, prompt and context that reached it."""

    name = "Blueness"
    reward_id = "blueness"
    differentiable = True
    higher_is_better = True
    uses_prompt = True

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.prompts: list[str] = []
        self.contexts: list[RewardContext | None] = []

    def __call__(self, images, prompts, context=None):
        self.seen += [content_hash(image) for image in images]
        self.prompts += prompts
        self.contexts.append(context)
        return images[..., 2].flatten(1).mean(1)


class NamedColour:
    """The mean of the channel that the prompt names: a reward that tells prompts apart."""

    name = "Named colour"
    reward_id = "named-colour"
    differentiable = True
    higher_is_better = True
    uses_prompt = True

    def __call__(self, images, prompts, context=None):
        means = images.flatten(1, 2).mean(1)
        return torch.stack([mean[["red", "green", "blue"].index(p)] for mean, p in zip(means, prompts, strict=True)])


def pictures(*reds: float, blue: float = 0.25) -> torch.Tensor:
    """One 8×8 picture per red value."""
    return torch.stack([torch.tensor([red, 0.0, blue]).expand(8, 8, 3) for red in reds])


def gated(threshold: float = 0.5, floor: float = -9.0, reward: Reward | None = None) -> GatedReward:
    return GatedReward(reward or Blueness(), SafetyGate(threshold, Redness()), floor=floor)
