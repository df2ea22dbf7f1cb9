"""What a guarded reward says about pictures besides scores, and how it is asked.

A reward with a safety gate around it has two more attributes; any other reward lacks them:

| attribute     | meaning                                                                                       |
| ------------- | --------------------------------------------------------------------------------------------- |
| `unsafe`      | images [B, h, w, c] → bool [B], on their device: what is not to be scored, shown or learned from |
| `presentable` | images [B, h, w, c] → the same, with unsafe pictures made unrecognisable                       |

Both judge a picture once, however often they are asked. One such reward in a run guards everything that the run shows,
also what other rewards look at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from .interfaces import RewardContext

# In `RewardContext.extra`: the prompts of a whole batch, for a reward that is shown a part of it.
BATCH_PROMPTS = "prompts"


def is_guarded(rewards: Iterable[Any]) -> bool:
    """Whether one of these rewards (None counts as none) has a safety gate."""
    return any(callable(getattr(reward, "unsafe", None)) for reward in rewards)


@torch.no_grad()
def unsafe_pictures(images: torch.Tensor, rewards: Iterable[Any]) -> torch.Tensor:
    """Images [B, h, w, c] → bool [B] on their device: unsafe by the gate of any of these rewards (None is skipped)."""
    found = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    for reward in rewards:
        unsafe = getattr(reward, "unsafe", None)
        if callable(unsafe) and len(images):
            found |= unsafe(images).to(found.device)
    return found


@torch.no_grad()
def presentable(images: torch.Tensor, rewards: Iterable[Any]) -> torch.Tensor:
    """Images [B, h, w, c] in [0, 1] → the same, unsafe ones made unrecognisable by the gates of these rewards.

    A gate does not judge pixels that are no numbers; a diverged network's picture is judged, and shown, with black and
    white in their place. Without a gate the pictures are returned as they are.
    """
    guards = [reward for reward in rewards if is_guarded([reward])]
    if not guards or not len(images):
        return images
    images = images.nan_to_num(nan=0.0, posinf=1.0, neginf=0.0)
    shown = images
    # Every gate judges the pictures themselves, not what another one has made of them.
    for guard in guards:
        shown = torch.where(guard.unsafe(images)[:, None, None, None], guard.presentable(images), shown)
    return shown


def compares_batch(reward: Any) -> bool:
    """Whether a score depends on what is scored beside the picture: on the other pictures, or on their prompts."""
    return bool(getattr(reward, "compares_batch", getattr(reward, "contextual", False)))


def compares_pictures(reward: Any) -> bool:
    """Whether a score depends on the other pictures themselves, so that all that belong together are scored at once."""
    return bool(getattr(reward, "compares_pictures", compares_batch(reward)))


def rest_of_batch(reward: Any, prompts: Sequence[str]) -> RewardContext | None:
    """What a reward is told when it is shown only a part, as the safe pictures, of a batch with these prompts.

    A reward that compares pictures may tell their prompts apart, which needs those of the others too; for any other
    there is nothing to tell, and its scores can be remembered.
    """
    return RewardContext(extra={BATCH_PROMPTS: tuple(prompts)}) if compares_batch(reward) else None
