"""Scores that are never computed twice."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch

from ...training.interfaces import Reward, RewardContext, checked_scores
from .pictures import content_hash
from .wrapping import WrappedReward, is_contextual

Key = tuple[str, str, str]


class ScoreStore:
    """Scores by (reward id, picture hash, prompt); the least recently used are forgotten first. Safe between threads.

    Args:
        limit: how many scores are kept; one takes about 300 bytes.
    """

    def __init__(self, limit: int = 100_000) -> None:
        self.limit = limit
        self._scores: OrderedDict[Key, float] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._scores)

    def find(self, keys: Iterable[Key]) -> dict[Key, float]:
        """The scores that are known among `keys`."""
        with self._lock:
            known = {key: self._scores[key] for key in keys if key in self._scores}
            for key in known:
                self._scores.move_to_end(key)
            return known

    def remember(self, scores: dict[Key, float]) -> None:
        """Store scores, and forget the oldest beyond the limit."""
        with self._lock:
            self._scores.update(scores)
            for key in scores:
                self._scores.move_to_end(key)
            while len(self._scores) > self.limit:
                self._scores.popitem(last=False)


SHARED = ScoreStore()


class CachedReward(WrappedReward):
    """A reward that remembers: the same picture with the same prompt costs no second forward pass.

    Also within one call: equal pictures are scored once. Calls that need gradients, and scores that depend on more than
    picture and prompt, pass straight through, since a stored number has no graph and no context.

    Args:
        reward: the reward that does the work. Its `reward_id` names the scores, so reloading the same file finds them.
        store: where scores are kept; all cached rewards share one by default.
    """

    def __init__(self, reward: Reward, store: ScoreStore | None = None) -> None:
        super().__init__(reward)
        self.store = SHARED if store is None else store

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], context: RewardContext | None = None
    ) -> torch.Tensor:
        """Images [B, h, w, c] in [0, 1] and B prompts → scores float32 [B].

        Raises:
            RewardError: as `checked_scores`; a bad score is never stored.
        """
        contextual = is_contextual(self.reward) or (context is not None and bool(context.previous or context.extra))
        needs_graph = torch.is_grad_enabled() and images.requires_grad
        if contextual or needs_graph or len(images) != len(prompts):
            return checked_scores(self.reward, images, prompts, context)
        keys = [(self.reward_id, content_hash(image), prompt) for image, prompt in zip(images, prompts, strict=True)]
        scores = self.store.find(keys)
        missing = {key: index for index, key in enumerate(keys) if key not in scores}
        if missing:
            chosen = list(missing.values())
            fresh = checked_scores(self.reward, images[chosen], [prompts[index] for index in chosen], context)
            found = dict(zip(missing, fresh.tolist(), strict=True))
            self.store.remember(found)
            scores |= found
        return torch.tensor([scores[key] for key in keys], dtype=torch.float32, device=images.device)
