"""What is kept of a refinement: sessions, their rounds, what a person said to them. Ours.

A session is one intention, followed over several rounds. Its rounds are a tree: every round builds on its parent, and
`head` is the one that the next round will build on. Every record checks itself when it is made, so that whatever lies
in the store or comes out of a node has passed here. Texts are kept letter for letter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from .checks import (
    DIGEST,
    KEY,
    MOST_PICTURES,
    MOST_STEPS,
    RefinementError,
    check_name,
    check_seed,
    check_stars,
    check_switch,
    check_text,
    is_number,
    is_whole,
    numbers,
    plain,
)

ScheduleType = Literal["linear", "cosine", "karras"]
SCHEDULE_TYPES: tuple[str, ...] = get_args(ScheduleType)
# What feedback asks of a chosen picture: to stay as it is or show more or less of the same; to follow other words; to
# follow the words that the prompt had already.
Change = Literal["none", "words", "insisted"]

ANEW = "anew"  # in a round's embedding: another thing or look was asked for, see `embedding_update`
DIRECTION = "direction"  # in a round's embedding: digest of what pictures gave, see `embedding_update`
REWARDS = "the rewards"  # rater of a round that no person decided


@dataclass(frozen=True)
class Schedule:
    """How a round samples.

    Attributes:
        type: spacing of the noise levels.
        steps: network evaluations per picture, 1 or more.
        strength: share of the noise levels that is gone through, in (0, 1]: the host's denoise. 1 = from pure noise.
        seeds: one per picture, 0 … 2^64 − 1.
        fresh: whether the seeds are new; False = the last round's noise again.
        sampler: name of the host's sampler.
        guidance: classifier-free guidance scale.
        arm: of an A/B test, to which the session belongs; "" = no test.
        test: name of that test; "" = no test, or one of before names were kept.
        own_noise: whether what the sampler draws between steps follows from each picture's seed; False = from that of
            the first for all, as in the first rounds that were ever kept.
    """

    type: ScheduleType
    steps: int
    strength: float
    seeds: tuple[int, ...]
    fresh: bool = True
    sampler: str = "euler"
    guidance: float = 7.0
    arm: str = ""
    own_noise: bool = False
    test: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", tuple(self.seeds))
        if self.type not in SCHEDULE_TYPES:
            raise RefinementError(f"A schedule is one of {', '.join(SCHEDULE_TYPES)}; not {self.type!r}.")
        if not is_whole(self.steps) or not 1 <= self.steps <= MOST_STEPS:
            raise RefinementError(f"A round takes 1 to {MOST_STEPS} steps, not {self.steps!r}.")
        if not is_number(self.strength) or not 0 < self.strength <= 1:
            raise RefinementError(f"The strength must be above 0 and at most 1; it is {self.strength!r}.")
        if not is_number(self.guidance) or self.guidance < 0:
            raise RefinementError(f"The guidance must be a number of at least 0; it is {self.guidance!r}.")
        if not 1 <= len(self.seeds) <= MOST_PICTURES:
            raise RefinementError(f"A round makes 1 to {MOST_PICTURES} pictures, not {len(self.seeds)}.")
        for seed in self.seeds:
            check_seed(seed)
        check_switch(self.fresh, "Fresh noise")
        check_switch(self.own_noise, "Own noise")
        check_name(self.sampler, "The sampler's name")
        check_name(self.arm, "The name of the arm of an A/B test", empty=True)
        check_name(self.test, "The name of an A/B test", empty=True)


@dataclass(frozen=True)
class Picture:
    """A picture of a round.

    Attributes:
        hash: of its pixels, 64 hex digits; names its file.
        seed: it was made with, 0 … 2^64 − 1.
        scores: reward's name → raw score, finite. A reward that could not score the picture is left out.
    """

    hash: str
    seed: int
    scores: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not DIGEST.fullmatch(self.hash):
            raise RefinementError(f"{self.hash[:80]!r} is not a picture's hash: it must be 64 hex digits.")
        check_seed(self.seed)
        object.__setattr__(self, "scores", numbers(self.scores, "A picture's scores"))


@dataclass(frozen=True)
class Feedback:
    """What a person said to a round.

    Attributes:
        comment: in any words and language; "" = none.
        liked: positions in the round's pictures, 0 = the first. The first of them is the chosen picture.
        disliked: positions, none of them liked.
        rating: 1 … 5 stars for the round; None = not rated.
        accepted: this is it: the session has what was meant.
        rater: who says so; "" = the artist; `REWARDS` = nobody, see `by_person`.
    """

    comment: str = ""
    liked: tuple[int, ...] = ()
    disliked: tuple[int, ...] = ()
    rating: int | None = None
    accepted: bool = False
    rater: str = ""

    def __post_init__(self) -> None:
        check_text(self.comment, "The comment")
        check_name(self.rater, "The rater's name", empty=True)
        check_switch(self.accepted, "Accepted")
        for name in ("liked", "disliked"):
            positions = tuple(getattr(self, name))
            if not all(is_whole(place) and 0 <= place < MOST_PICTURES for place in positions):
                raise RefinementError(f"Pictures are {name} by their position, 0 or more; not by {positions!r}.")
            if len(set(positions)) != len(positions):
                raise RefinementError(f"A picture is {name} twice: {positions!r}.")
            object.__setattr__(self, name, positions)
        both = set(self.liked) & set(self.disliked)
        if both:
            raise RefinementError(f"Picture {min(both) + 1} is both liked and disliked. Choose one of them.")
        if self.rating is not None:
            check_stars(self.rating)

    @property
    def chosen(self) -> int | None:
        """Position of the picture that the next round builds on; None = none was liked."""
        return self.liked[0] if self.liked else None

    @property
    def by_person(self) -> bool:
        """Whether a person said so, or one that is simulated: nobody learns a taste from what rewards decided."""
        return self.rater != REWARDS

    def checked(self, pictures: int) -> Feedback:
        """The same, if it speaks of a round with that many pictures.

        Raises:
            RefinementError: it names a picture that the round does not have, or accepts without saying which picture.
        """
        beyond = [place for place in (*self.liked, *self.disliked) if place >= pictures]
        if beyond:
            raise RefinementError(f"The round has {pictures} pictures; there is no picture {beyond[0] + 1}.")
        if self.accepted and not self.liked:
            raise RefinementError("Choose the picture that is accepted.")
        return self


@dataclass(frozen=True)
class Weights:
    """The weights of the rewards, and how a round moved them.

    Attributes:
        rule: id of what decided, for example "rule" or "learned".
        before, after: reward's name → weight.
        details: further figures of the rule, as JSON holds them.
    """

    rule: str
    before: dict[str, float]
    after: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.rule, "The weights' rule")
        object.__setattr__(self, "before", numbers(self.before, "The weights before"))
        object.__setattr__(self, "after", numbers(self.after, "The weights after"))
        object.__setattr__(self, "details", plain(self.details, "The details of the weights"))


@dataclass(frozen=True)
class Round:
    """One round: what it was made with, what came out, what was said.

    Attributes:
        key: 32 random hex digits.
        parent: key of the round it builds on; None = it is the first.
        number: its depth, 1 = the first.
        attempt: how often its pictures were made anew before, 0 = never.
        prompt, negative: the words it was made with.
        embedding: parameters of the embedding's update, as JSON holds them.
        weights: None = no rewards were weighed.
        feedback: None = the round is open.
        seconds: it took to make.
        lora: hash of the LoRAs it was made with, and the session's own version, see `round_lora`; "" = none.
        latents: digest of the batch's latents; "" = not kept.
        made: seconds since 1970.
    """

    key: str
    parent: str | None
    number: int
    attempt: int
    prompt: str
    negative: str
    embedding: dict[str, Any]
    schedule: Schedule
    weights: Weights | None
    pictures: tuple[Picture, ...]
    feedback: Feedback | None
    seconds: float
    lora: str
    latents: str
    made: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "pictures", tuple(self.pictures))
        for name, key in (("key", self.key), ("parent", self.parent)):
            if key is not None and not KEY.fullmatch(key):
                raise RefinementError(f"{key[:80]!r} is not a round's {name}: it must be 32 hex digits.")
        if not is_whole(self.number) or self.number < 1 or (self.number == 1) != (self.parent is None):
            raise RefinementError(
                f"A round without a parent has the number 1, others a higher one; not {self.number!r}."
            )
        if not is_whole(self.attempt) or self.attempt < 0:
            raise RefinementError(f"A round's attempt is a whole number of at least 0, not {self.attempt!r}.")
        check_text(self.prompt, "The prompt")
        check_text(self.negative, "The negative prompt")
        object.__setattr__(self, "embedding", plain(self.embedding, "The embedding's parameters"))
        if not 1 <= len(self.pictures) <= MOST_PICTURES:
            raise RefinementError(f"A round has 1 to {MOST_PICTURES} pictures, not {len(self.pictures)}.")
        if not is_number(self.seconds) or self.seconds < 0:
            raise RefinementError(f"A round takes a number of seconds of at least 0, not {self.seconds!r}.")
        for name, digest in (("LoRA", self.lora), ("latents", self.latents)):
            check_name(digest, f"The hash of the {name}", empty=True)
        if self.feedback is not None:
            self.feedback.checked(len(self.pictures))

    @property
    def chosen(self) -> Picture | None:
        """The picture that the next round builds on; None = the round is open, or none was liked."""
        place = None if self.feedback is None else self.feedback.chosen
        return None if place is None else self.pictures[place]


def direction_of(embedding: object) -> str:
    """The digest of the direction that the parameters of an update name; "" = none."""
    found = embedding.get(DIRECTION) if isinstance(embedding, Mapping) else None
    return found if isinstance(found, str) and DIGEST.fullmatch(found) else ""


@dataclass(frozen=True)
class SessionState:
    """A session as one run of a graph sees it: everything from which the next round follows.

    Attributes:
        key: 32 random hex digits; never changes.
        name: what the person calls it; may change.
        revision: rises with every move that changes what the next run makes (commit, acceptance, other pictures, undo,
            redo, branch, another first wish), and with nothing else.
        seed: from which the seeds of the rounds follow, 0 … 2^64 − 1.
        prompt, negative: the first wish.
        path: the rounds from the first to the head, all committed.
        attempt: of the round to be made.
        open: the round that was made of this state and waits for a person; None = not made yet.
        replay: a round that is to be made again as it was; the path then ends at its parent.
        arm: of an A/B test, to which the session's newest rounds belong; "" = none.
        test: name of that test.
        undone: keys of rounds that Redo comes back to, the next last.
        passed: rounds that came after the head and in whose place other pictures were asked for, oldest first; none
            where a round is made again.
    """

    key: str
    name: str
    revision: int
    seed: int
    prompt: str
    negative: str
    path: tuple[Round, ...] = ()
    attempt: int = 0
    open: Round | None = None
    replay: Round | None = None
    arm: str = ""
    test: str = ""
    undone: tuple[str, ...] = ()
    passed: tuple[Round, ...] = ()

    @property
    def number(self) -> int:
        """Of the round to be made: 1 = the first."""
        return len(self.path) + 1

    @property
    def last(self) -> Round | None:
        """The head; None before the first round."""
        return self.path[-1] if self.path else None

    @property
    def feedback(self) -> Feedback | None:
        """What was said to the last round; None before the first."""
        return self.path[-1].feedback if self.path else None

    @property
    def current_prompt(self) -> str:
        """The words that the next round refines: the last round's, at first the wish."""
        return self.path[-1].prompt if self.path else self.prompt

    @property
    def accepted_in(self) -> Round | None:
        """The newest round on the path that has what was meant; None = nothing was accepted, or it was undone."""
        return next((past for past in reversed(self.path) if past.feedback and past.feedback.accepted), None)

    @property
    def accepted(self) -> bool:
        """Whether a round on the path has what was meant: rounds that were made of it later take nothing back."""
        return self.accepted_in is not None
