"""What each round samples with: type, steps, strength and seeds, from the session and the knobs alone.

Round t = 1, 2, … takes

    type      the t-th of the cycle linear, cosine, karras, linear, …; or always the same
    n_t       steps + (t − 1)·more_steps
    d_t       max(d_min, d_0·q^(t − 1)), and at least d_words where the feedback asked for something else: a picture
              that is to show it must be free to change; 1 where nothing was chosen, since there is no picture to start
              from. Where other pictures were asked for once, half of what the chosen picture fixes is let go,
              (1 + d_t)/2; from the second time on all of it: much of a picture outlives any noise short of all
    seeds     new ones with probability λ_div(t), else those of the last round: its noise again

**Where seeds come from.** Nothing is drawn from a random generator. The coin for "new or not" and every new seed are
    BLAKE2b(JSON [session's seed, what happened, attempt, what for, place]) mod 2^53,
and "what happened" is number, attempt and seeds of every round of the path. Keys of rounds, which are random, and the
clock are not in it. Hence the same session, made again with the same choices, takes the same seeds, on every machine;
undo and redo come back to the same pictures; two branches that part at a round go on with the same noise, so that what
differs between them is what was decided differently. A seed below 2^53 is one that a page can write without rounding.

"Other pictures" (attempt 1, 2, …) always takes new seeds: old noise would give the old pictures. So does the first
round, one whose feedback asked for what the prompt had said already, and pictures beyond the number that the last round
had.

**Replay.** A round that is made again takes what is recorded, whatever the knobs say now.

**A/B test.** Arm B has the same knobs but for those in `arm_b`; the session's key says which arm it is in
(`ab_arms.arm_of`). Once a session has rounds in an arm it stays there as long as the test has that name. A person
writes the knobs of arm B as "steps 12, strength 0.6" (`settings_of_arm`).

References:
    ours; λ_div is `dynamic_weights`. Image-to-image by part of the noise levels: Meng et al. 2022, "SDEdit".
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from .ab_arms import arm_of
from .checks import MOST_PICTURES, MOST_STEPS, RefinementError
from .records import SCHEDULE_TYPES, Change, Schedule, SessionState

Types = Literal["in turn", "linear", "cosine", "karras"]
Seeds = Literal["by the weight of diversity", "always new", "always the last round's"]
TYPES: tuple[str, ...] = get_args(Types)
SEEDS: tuple[str, ...] = get_args(Seeds)
_SEED_BITS = 53


@dataclass(frozen=True)
class RoundScheduleConfig:
    """Knobs of the schedule.

    Attributes:
        type: "in turn", or one type for all rounds.
        steps: of the first round, ≥ 1.
        more_steps: every later round takes as many more than the one before; may be negative, at least 1 step is taken.
        strength: d_0, of the first round, in (0, 1].
        decay: q, what is left of the strength from round to round, in (0, 1]; 1 = the same in every round.
        least_strength: d_min, in (0, 1].
        words_strength: d_words, 0 … 1; 0 = the strength does not look at the feedback.
        seeds: when a round takes new noise.
        sampler: the host's name of it.
        guidance: classifier-free guidance scale, ≥ 0.
        arm_b: what arm B of an A/B test has instead, as (knob, value) pairs; empty = no test.
        test: name of the test; another name divides the sessions anew.
    """

    type: Types = "in turn"
    steps: int = 20
    more_steps: int = 0
    strength: float = 1.0
    decay: float = 0.75
    least_strength: float = 0.3
    words_strength: float = 1.0
    seeds: Seeds = "by the weight of diversity"
    sampler: str = "euler"
    guidance: float = 7.0
    arm_b: tuple[tuple[str, Any], ...] = ()
    test: str = ""

    def __post_init__(self) -> None:
        if self.type not in TYPES:
            raise RefinementError(f"There is no type {self.type!r}; choose one of: {', '.join(TYPES)}.")
        if self.seeds not in SEEDS:
            raise RefinementError(f"There is no choice of seeds {self.seeds!r}; choose one of: {', '.join(SEEDS)}.")
        for name in ("steps", "more_steps"):
            if isinstance(getattr(self, name), bool) or not isinstance(getattr(self, name), int):
                raise RefinementError(f"{name} must be a whole number, not {getattr(self, name)!r}.")
        if not 1 <= self.steps <= MOST_STEPS:
            raise RefinementError(f"A round takes 1 to {MOST_STEPS} steps, not {self.steps}.")
        for name in ("strength", "decay", "least_strength"):
            if not 0 < getattr(self, name) <= 1:
                raise RefinementError(f"{name} must be above 0 and at most 1, not {getattr(self, name)!r}.")
        if not 0 <= self.words_strength <= 1:
            raise RefinementError(f"words_strength must be between 0 and 1, not {self.words_strength!r}.")
        if not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise RefinementError(f"The guidance must be a number of at least 0, not {self.guidance!r}.")
        self._check_arm()

    def _check_arm(self) -> None:
        for knob, _ in self.arm_b:
            if knob not in KNOBS:
                raise RefinementError(f"Arm B cannot change {knob!r}; it may change: {', '.join(sorted(KNOBS))}.")
        if self.arm_b:
            self.of_arm("B")

    def of_arm(self, arm: str) -> RoundScheduleConfig:
        """The knobs of an arm, without a test of their own. "A" and "" are these."""
        return dataclasses.replace(self, **(dict(self.arm_b) if arm == "B" else {}), arm_b=())

    def type_of(self, number: int) -> str:
        """Of round `number`, 1 = the first."""
        return SCHEDULE_TYPES[(number - 1) % len(SCHEDULE_TYPES)] if self.type == "in turn" else self.type

    def steps_of(self, number: int) -> int:
        """n_t."""
        return min(MOST_STEPS, max(1, self.steps + (number - 1) * self.more_steps))

    def strength_of(self, number: int, change: Change = "none") -> float:
        """d_t of a round that starts from a chosen picture."""
        return max(
            self.least_strength,
            self.strength * self.decay ** (number - 1),
            0.0 if change == "none" else self.words_strength,
        )


KNOBS = tuple(field.name for field in fields(RoundScheduleConfig) if field.name not in {"arm_b", "test"})


def settings_of_arm(text: str) -> tuple[tuple[str, Any], ...]:
    """What a person wrote of arm B, as (knob, value) pairs.

    Args:
        text: a knob's name and its value, with commas, semicolons or line breaks between: "steps 12, strength 0.6";
            "=" and ":" behind the name may be there. Empty = nothing.

    Raises:
        RefinementError: there is no such knob, it stands there twice, or its value is of another kind.
    """
    found: dict[str, Any] = {}
    for entry in filter(None, (part.strip() for part in re.split(r"[,;\n]", text))):
        name, _, value = re.sub(r"^(\w+)\s*[=:]\s*", r"\1 ", entry).partition(" ")
        if name not in KNOBS:
            raise RefinementError(
                f"{entry!r} is no setting of a round. Write one of {', '.join(KNOBS)}, then its value."
            )
        if name in found:
            raise RefinementError(f"{name} stands twice in the settings of the test. Leave one out.")
        kind = type(getattr(RoundScheduleConfig, name))
        try:
            found[name] = kind(value.strip())
        except ValueError:
            wanted = "a whole number" if kind is int else "a number"
            raise RefinementError(
                f"{name} needs {wanted} in the settings of the test, not {value.strip()!r}."
            ) from None
    return tuple(found.items())


def arm_in(test: str, state: SessionState) -> str:
    """The arm of a test, "A" or "B", that a session is in."""
    return state.arm if state.arm and state.test == test else arm_of(state.key, test)


def arm_for(config: RoundScheduleConfig, state: SessionState) -> str:
    """The arm that the session is in; "" without a test."""
    return arm_in(config.test, state) if config.arm_b else ""


def round_schedule(
    config: RoundScheduleConfig, state: SessionState, *, batch: int, lambda_div: float = 1.0, change: Change = "none"
) -> Schedule:
    """The schedule of the round to be made.

    Args:
        config: the knobs.
        state: the session; see the module for what of it counts.
        batch: pictures, ≥ 1. A replay makes as many as it did.
        lambda_div: λ_div(t), the probability of new noise, 0 … 1.
        change: what the feedback asked of the chosen picture, see `Refined.change`.

    Raises:
        RefinementError: the batch or λ_div is out of range.
    """
    if state.replay is not None:
        return state.replay.schedule
    if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= MOST_PICTURES:
        raise RefinementError(f"A round makes 1 to {MOST_PICTURES} pictures, not {batch!r}.")
    if not 0 <= lambda_div <= 1:
        raise RefinementError(f"The probability of new noise must be between 0 and 1, not {lambda_div!r}.")
    arm, number = arm_for(config, state), state.number
    knobs = config.of_arm(arm)
    fresh = _takes_new_noise(knobs, state, lambda_div, change)
    kept: Sequence[int] = () if fresh or state.last is None else state.last.schedule.seeds[:batch]
    return Schedule(
        type=knobs.type_of(number),
        steps=knobs.steps_of(number),
        strength=_freed(knobs.strength_of(number, change), state.attempt) if _has_start(state) else 1.0,
        seeds=(*kept, *(_drawn(state, "seed", place) for place in range(len(kept), batch))),
        fresh=fresh,
        sampler=knobs.sampler,
        guidance=knobs.guidance,
        arm=arm,
        test=config.test if arm else "",
    )


def held(attempt: int) -> float:
    """What of a chosen picture still counts after other pictures were asked for `attempt` times: 1, ½, then 0."""
    return max(0.0, 1 - attempt / 2)


def _freed(strength: float, attempt: int) -> float:
    # The first attempt is to be exact to the bit.
    return 1 - (1 - strength) * held(attempt) if attempt else strength


def why_raised(config: RoundScheduleConfig, state: SessionState, change: Change) -> str:
    """Why the round puts more noise on the chosen picture than its number says; "" = it does not."""
    if state.replay is not None or not _has_start(state):
        return ""
    knobs = config.of_arm(arm_for(config, state))
    strength = knobs.strength_of(state.number, change)
    reasons = ["your comment asked for something else"] if strength > knobs.strength_of(state.number) else []
    reasons += ["you asked for other pictures"] if state.attempt and strength < 1 else []
    return " and ".join(reasons)


def schedule_text(found: Schedule, number: int, *, why: str = "") -> str:
    """The schedule of round `number` in a line. why: see `why_raised`."""
    start = "from pure noise" if found.strength == 1 else f"{found.strength:.0%} noise on the chosen picture"
    noise = "new noise" if found.fresh else "the last round's noise"
    if why:
        start += f", as {why}"
    arm = f", arm {found.arm} of the test" if found.arm else ""
    return f"Round {number}: {start}, {found.steps} steps, {found.type}, {noise}{arm}."


def _has_start(state: SessionState) -> bool:
    """Whether the round starts from a picture."""
    return state.last is not None and state.last.chosen is not None


def _takes_new_noise(knobs: RoundScheduleConfig, state: SessionState, lambda_div: float, change: Change) -> bool:
    if state.last is None or state.attempt > 0 or change == "insisted" or knobs.seeds == "always new":
        return True
    if knobs.seeds == "always the last round's":
        return False
    return _drawn(state, "new noise", 0) / 2**_SEED_BITS < lambda_div


def _drawn(state: SessionState, purpose: str, place: int) -> int:
    """A number below 2^53 that follows from the session; see the module."""
    happened = [[past.number, past.attempt, list(past.schedule.seeds)] for past in state.path]
    text = json.dumps([state.seed, happened, state.attempt, purpose, place], separators=(",", ":"))
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=b"attune.seeds").digest()
    return int.from_bytes(digest, "big") % 2**_SEED_BITS
