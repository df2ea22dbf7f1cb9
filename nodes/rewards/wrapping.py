"""What may be asked of any reward, bare or wrapped.

Besides the protocol `Reward`, a reward may carry these attributes; every wrapper passes on what it does not change:

| attribute        | meaning                                                                          | absent means |
| ---------------- | -------------------------------------------------------------------------------- | ------------ |
| `uses_prompt`    | the score depends on the prompt, so an empty prompt is a mistake                 | False        |
| `contextual`     | the score depends on the batch around a picture or on earlier rounds             | False        |
| `compares_batch` | the score depends on the pictures beside it, which then must have one size       | `contextual` |
| `compares_pictures` | on those pictures themselves, not only on their prompts           | `compares_batch` |
| `needs_previous` | the score means nothing without earlier rounds, which training does not have     | False        |
| `gated`          | unsafe pictures are kept from it; whatever compares pictures belongs inside      | False        |
| `unsafe`         | images [B, h, w, c] → bool [B]: what the gate holds back; see `presentable`      | no gate      |
| `presentable`    | images → the same, unsafe ones blurred, to be shown (`training/presentable.py`)  | no gate      |
| `refusal`        | prompt, picture's name → why it cannot score such a prompt, "" if it can         | scores any   |
| `formula`        | how the score is made, for people and for metadata                               | the name     |
| `calibration`    | where scores of a reference set lie (`calibration.Calibration`)                  | none         |
| `patchers`       | the host's model patchers of all networks inside, for its memory management      | none         |
| `image_features` | images [B, h, w, c] → unit vectors [B, D], frozen features                       | no encoder   |
| `text_features`, `features_id` | prompts → unit vectors [B, D] beside those; identity of both       | no texts     |
| `similarities`   | images and P prompts → scores [B, P], all pairs at once                          | pair by pair |
| `feature_similarities` | the same from `image_features` instead of images; only beside `similarities` | not so      |
| `between`        | called before every few pictures; what it raises ends the scoring                | never        |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ...training.interfaces import Reward, RewardContext, RewardError

if TYPE_CHECKING:
    from .calibration import Calibration


class WrappedReward:
    """A reward around another one. Subclasses change what they are for; all else is the inner reward's.

    Args:
        reward: the inner reward.
    """

    def __init__(self, reward: Reward) -> None:
        self.reward = reward

    def __getattr__(self, name: str) -> Any:
        # Before `reward` is set (copying, unpickling), asking for it would lead here for ever.
        if name == "reward" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.reward, name)

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], context: RewardContext | None = None
    ) -> torch.Tensor:
        """Images [B, h, w, c] in [0, 1] and B prompts → scores float32 [B]."""
        return self.reward(images, prompts, context)


def uses_prompt(reward: Reward) -> bool:
    return bool(getattr(reward, "uses_prompt", False))


def is_contextual(reward: Reward) -> bool:
    return bool(getattr(reward, "contextual", False))


def formula_of(reward: Reward) -> str:
    return str(getattr(reward, "formula", reward.name))


def calibration_of(reward: Reward) -> Calibration | None:
    return getattr(reward, "calibration", None)


def patchers_of(reward: Reward) -> list[Any]:
    """The host's patchers of every network inside; empty outside the host and for rewards without a network."""
    return [patcher for patcher in getattr(reward, "patchers", ()) if patcher is not None]


def refuse_gate(reward: Reward) -> None:
    """
    Raises:
        RewardError: a safety gate is inside. What compares pictures would compare its stand-ins (a blur is unlike all
            others, and would be the most varied of the batch); what combines rewards would show unsafe pictures to the
            other parts.
    """
    if getattr(reward, "gated", False):
        raise RewardError(
            f"{reward.name} has a safety gate inside, which must come last: connect the reward without the gate here, "
            "and Safety Gate behind this node."
        )
