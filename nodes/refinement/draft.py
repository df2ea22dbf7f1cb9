"""A round in the making: what the wire between the nodes of a refinement carries. Every node adds its part. Ours."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from ...training.interfaces import Reward
from ..round_lesson import KeptPictures, RoundLesson
from .checks import RefinementError
from .chosen import chosen_latents_of_rounds, kept_rounds
from .records import Change, Round, Schedule, SessionState, Weights
from .round_lora import newest_version

if TYPE_CHECKING:
    from .store import SessionStore


@dataclass(frozen=True)
class Judge:
    """A reward that counts in the session.

    Attributes:
        name: under which scores and weights are kept; unique in a draft.
        role: by which the rule of the weights knows it; "" = none.
        reward: as it was connected.
    """

    name: str
    role: str
    reward: Reward

    @property
    def is_cost(self) -> bool:
        return not self.reward.higher_is_better


@dataclass(frozen=True)
class Draft:
    """A session, and what has been decided so far of its next round.

    Attributes:
        state: of the session, from which all of it follows.
        prompt, negative: that the round is made with.
        unwanted: the prompt of the last round, where this one has another: the embedding leans away from it.
        change: what the feedback asked of the chosen picture.
        keeps_look: whether what it has beside its words is to stay, see `Refined.keeps_look`.
        embedding: parameters of its update; empty = the prompt is encoded plainly.
        direction: δ of the chosen and refused pictures that these name, where it was found in this run.
        schedule: None = not decided yet. weights: None = no rewards are weighed.
        judges: the rewards that are weighed.
        lora: the LoRAs that the pictures were made with, see `round_lora`; "" = none.
        liked: the liked pictures of earlier rounds, see `chosen_pictures`; None = nobody has read them yet.
        store: where the session's files are; None = nobody is to read them.
        test, arm: of an A/B test of the weights, and where in it the session is; "" = no test.
        run: of the host, that took it up last; "" = none yet.
        began: when that run came to this session, by the machine's monotonic clock, in seconds.
    """

    state: SessionState
    prompt: str
    negative: str
    unwanted: tuple[str, ...] = ()
    change: Change = "none"
    keeps_look: bool = True
    embedding: Mapping[str, Any] = field(default_factory=dict)
    direction: torch.Tensor | None = field(default=None, repr=False, compare=False)
    schedule: Schedule | None = None
    weights: Weights | None = None
    judges: tuple[Judge, ...] = ()
    lora: str = ""
    liked: tuple[torch.Tensor, ...] | None = field(default=None, repr=False, compare=False)
    store: SessionStore | None = field(default=None, repr=False, compare=False)
    test: str = ""
    arm: str = ""
    run: str = field(default="", compare=False)
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, state: SessionState, store: SessionStore | None = None) -> Draft:
        """A round that nothing has been decided of: the words of the last one, or those of a replay."""
        recorded = state.replay
        if recorded is not None:
            return cls(
                state, recorded.prompt, recorded.negative, embedding=recorded.embedding, weights=recorded.weights,
                store=store,
            )  # fmt: skip
        last = state.last
        return cls(state, state.current_prompt, state.negative if last is None else last.negative, store=store)

    def with_(self, **parts: Any) -> Draft:
        """The same with other parts. A replay keeps what is recorded of words, embedding and weights."""
        if self.state.replay is not None:
            for name in ("prompt", "negative", "embedding", "weights"):
                parts.pop(name, None)
        return replace(self, **parts)

    def in_test(self, test: str, arm: str) -> Draft:
        """The same in an arm of a test of the weights.

        Raises:
            RefinementError: the schedule is under test already, or weights are.
        """
        if self.test and self.test != test:
            raise RefinementError(
                f'Two A/B tests at once: one Dynamic Weights tests "{self.test}", another "{test}". A session can be '
                "in one: set test_rule of one of them to off."
            )
        if self.schedule is not None and self.schedule.arm and self.schedule.test != test:
            raise two_tests(test, self.schedule.test)
        draft = replace(self, test=test, arm=arm)
        return draft if self.schedule is None else replace(draft, schedule=draft.marked(self.schedule))

    def marked(self, schedule: Schedule) -> Schedule:
        """A schedule with the arm of the test of the weights, under which rounds are counted."""
        return replace(schedule, test=self.test, arm=self.arm) if self.test else schedule

    @property
    def seconds(self) -> float:
        """Since the run came to this session."""
        return max(0.0, time.monotonic() - self.began)

    def lesson(self) -> RoundLesson:
        """What the round asks of training."""
        state = self.state
        version, number = newest_version(state)
        return RoundLesson(
            state.key, state.name, state.number, state.last.key if state.last is not None else "", self.prompt,
            self.negative, version, number, again=state.replay is not None,
        )  # fmt: skip

    def kept(self) -> list[KeptPictures]:
        """What is to be kept of the rounds before, see `kept_rounds`."""
        if self.store is None:
            return []
        found = chosen_latents_of_rounds(self.store, self.state, kept_rounds(self.state))
        return [KeptPictures(past.prompt, liked, others) for past, liked, others in found if len(others)]

    def decided(self) -> Schedule:
        """The schedule.

        Raises:
            RefinementError: there is none yet.
        """
        if self.schedule is None:
            raise RefinementError(
                "This session has no schedule for its round. Put Round Schedule between Refinement Session and here."
            )
        return self.schedule


def two_tests(weights: str, schedule: str) -> RefinementError:
    """What is said where one session is to be in two tests at once."""
    return RefinementError(
        f'Two A/B tests at once: Dynamic Weights tests "{weights}", Round Schedule "{schedule}". A session can be in '
        "one: set test_rule to off, or test_type to off and test_settings to nothing."
    )


def chosen_rounds(state: SessionState) -> list[Round]:
    """The rounds of the path in which a picture was chosen, oldest first."""
    return [past for past in state.path if past.chosen is not None]


def unique_names(names: Sequence[str]) -> list[str]:
    """Names that are told apart: the second of two equal ones becomes "name 2"."""
    found: list[str] = []
    for name in names:
        number, free = 1, name
        while free in found:
            number += 1
            free = f"{name} {number}"
        found.append(free)
    return found
