"""What a round of a refinement session asks of training: what the families `refinement` and `training` both know.

A session's wire gives it by `lesson()`, and what it keeps of its pictures by `kept()`; the Multi-Round Objective asks
for nothing else, so that it works with whatever gives them. Ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch


@dataclass(frozen=True)
class RoundLesson:
    """
    Attributes:
        session: key of the session, 32 hex digits.
        name: what the person calls it.
        number: of the round that is to be made, 1 = the first.
        after: key of the round that it builds on; "" in the first.
        prompt, negative: that the round is made with.
        version: `weights_id` of the session's LoRA to go on from; "" = there is none. Where the round is made again: of
            the one that it was made with.
        version_round: number of the round that was made with it; 0 = there is none.
        again: whether a round is made again as it was.
    """

    session: str
    name: str
    number: int
    after: str
    prompt: str
    negative: str
    version: str = ""
    version_round: int = 0
    again: bool = False


@dataclass(frozen=True)
class KeptPictures:
    """A round of whose pictures something is to be kept.

    Attributes:
        prompt: that its pictures were made with.
        liked, others: latents [N, C, …] and [M, C, …] as samplers give them, N and M ≥ 1.
    """

    prompt: str
    liked: torch.Tensor = field(repr=False)
    others: torch.Tensor = field(repr=False)


class GivesLessons(Protocol):
    """The wire of a session, as training sees it."""

    def lesson(self) -> RoundLesson: ...

    def kept(self) -> Sequence[KeptPictures]:
        """Of the rounds before, oldest first; empty where they are to teach nothing."""
        ...
