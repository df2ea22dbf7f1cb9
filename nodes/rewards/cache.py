"""Scores that are never computed twice."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar

import torch

from ...training.interfaces import Reward, RewardContext, checked_scores
from ...training.presentable import BATCH_PROMPTS
from .kept_scores import KeptScores, Key
from .pictures import content_hashes
from .wrapping import WrappedReward, is_contextual


class ScoreStore:
    """Scores by (reward id, picture hash, prompt); the least recently used are forgotten first. Safe between threads.

    In memory, and beyond it on disk once `attach` has been called.

    Args:
        limit: how many scores are kept in memory; one takes about 300 bytes.
    """

    def __init__(self, limit: int = 100_000) -> None:
        self.limit = limit
        self._scores: OrderedDict[Key, float] = OrderedDict()
        self._lock = threading.Lock()
        self._kept: KeptScores | None = None

    def attach(self, kept: KeptScores | None) -> None:
        """Ask the disk for what memory does not know, and keep there what is new; None ends it."""
        self._kept = kept

    def __len__(self) -> int:
        return len(self._scores)

    def find(self, keys: Iterable[Key]) -> dict[Key, float]:
        """The scores that are known among `keys`."""
        keys = list(keys)
        with self._lock:
            known = {key: self._scores[key] for key in keys if key in self._scores}
            for key in known:
                self._scores.move_to_end(key)
        if self._kept is not None and len(known) < len(keys):
            found = self._kept.find(key for key in keys if key not in known)
            self._hold(found)
            known |= found
        return known

    def remember(self, scores: dict[Key, float]) -> None:
        """Store scores, and forget the oldest beyond the limit."""
        self._hold(scores)
        if self._kept is not None:
            self._kept.remember(scores)

    def _hold(self, scores: dict[Key, float]) -> None:
        with self._lock:
            self._scores.update(scores)
            for key in scores:
                self._scores.move_to_end(key)
            while len(self._scores) > self.limit:
                self._scores.popitem(last=False)


SHARED = ScoreStore()


class PictureHashes:
    """Hashes of a set of pictures, each made once, when it is first asked for."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}

    def of(self, numbers: Sequence[int], batch: torch.Tensor) -> list[str]:
        """Hashes of the pictures with these numbers within the set, which the batch [B, h, w, c] holds."""
        if any(number not in self._known for number in numbers):
            self._known.update(zip(numbers, content_hashes(batch), strict=True))
        return [self._known[number] for number in numbers]

    def part(self, numbers: Sequence[int]) -> PictureHashes:
        """Of a part of the set, in which those pictures are counted from 0."""
        found = PictureHashes()
        found._known = {place: self._known[n] for place, n in enumerate(numbers) if n in self._known}
        return found


class _Hashes:
    """Of one batch, made when first asked for."""

    def __init__(self, images: torch.Tensor, make: Callable[[], list[str]]) -> None:
        self.images, self.make = images, make
        self.values: list[str] | None = None

    def get(self) -> list[str]:
        if self.values is None:
            self.values = self.make()
        return self.values


_hashed: ContextVar[_Hashes | None] = ContextVar("attune_hashed", default=None)


@contextlib.contextmanager
def hashed_once(images: torch.Tensor, hashes: Callable[[], list[str]] | None = None) -> Iterator[None]:
    """Within the block, cached rewards that are given this very batch share the work of hashing it.

    For whoever asks several rewards about the same pictures, and does not change them meanwhile.

    Args:
        images: [B, h, w, c].
        hashes: gives their hashes, where somebody may know them; asked at most once.
    """
    around = _hashed.get()
    if around is None or around.images is not images:
        around = _Hashes(images, hashes or (lambda: content_hashes(images)))
    token = _hashed.set(around)
    try:
        yield
    finally:
        _hashed.reset(token)


def _hashes_of(images: torch.Tensor) -> list[str]:
    shared = _hashed.get()
    return shared.get() if shared is not None and shared.images is images else content_hashes(images)


class CachedReward(WrappedReward):
    """A reward that remembers: the same picture with the same prompt costs no second forward pass.

    Also within one call: equal pictures are scored once. Calls that need gradients, and scores that depend on more than
    picture and prompt, pass straight through, since a stored number has no graph and no context. A reward that is not
    contextual is not shown earlier rounds, so that its scores stay the same with and without them.

    Args:
        reward: the reward that does the work. Its `reward_id` names the scores, so reloading the same file finds them.
        store: where scores are kept; all cached rewards share one by default.

    Attributes:
        hits: how many pictures were answered from the store.
        forward_calls: how often the reward itself was called.
    """

    def __init__(self, reward: Reward, store: ScoreStore | None = None) -> None:
        super().__init__(reward)
        self.store = SHARED if store is None else store
        self.hits = 0
        self.forward_calls = 0

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], context: RewardContext | None = None
    ) -> torch.Tensor:
        """Images [B, h, w, c] in [0, 1] and B prompts → scores float32 [B].

        Raises:
            RewardError: as `checked_scores`; a bad score is never stored.
        """
        if context is not None and not is_contextual(self.reward):
            extra = {name: value for name, value in context.extra.items() if name != BATCH_PROMPTS}
            context = RewardContext(extra=extra) if extra else None
        storable = context is None and not is_contextual(self.reward)
        needs_graph = torch.is_grad_enabled() and images.requires_grad
        if not storable or needs_graph or len(images) != len(prompts):
            self.forward_calls += 1
            return checked_scores(self.reward, images, prompts, context)
        keys = [(self.reward_id, name, prompt) for name, prompt in zip(_hashes_of(images), prompts, strict=True)]
        scores = self.store.find(keys)
        missing = {key: index for index, key in enumerate(keys) if key not in scores}
        self.hits += sum(key in scores for key in keys)
        if missing:
            self.forward_calls += 1
            chosen = list(missing.values())
            fresh = checked_scores(self.reward, images[chosen], [prompts[index] for index in chosen])
            found = dict(zip(missing, fresh.tolist(), strict=True))
            self.store.remember(found)
            scores |= found
        return torch.tensor([scores[key] for key in keys], dtype=torch.float32, device=images.device)
