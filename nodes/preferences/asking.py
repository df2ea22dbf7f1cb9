"""From a batch of pictures to questions about them, and from answers to what is handed on. Ours.

Only pictures of one prompt are compared. A picture that is there twice is asked about once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import ceil, comb
from typing import Any, Literal, get_args

import numpy as np
import torch

from ..pair_drawing import counted
from .pictures import picture_of, to_pixels
from .records import MOST_PICTURES, Answer, Asked, Picture, PreferenceError, Question
from .store import MOST_WAITING, PreferenceStore

Mode = Literal["pairs", "all pairs", "best of each prompt", "stars"]
MODES: tuple[str, ...] = get_args(Mode)
# What happens to a question that nobody has answered.
FALLBACKS = ("leave out", "first", "best by reward", "wait")
ORDERS = ("as they come", "most informative first")
INFORMATIVE = ORDERS[1]
# Nats that an answer is expected to tell; before any choice it is about 0.2.
_HARDLY_ANYTHING = 0.03
_LOOK_SECONDS = 0.25


@dataclass(frozen=True)
class Shown:
    """A picture of the batch.

    Attributes:
        image: [h, w, 3] in [0, 1].
        prompt: what it was to show. seed: it was made with; None = not known.
        pixels, picture: in 8 bits, and as records name it.
        blocked: a safety gate holds it back: it is neither asked about nor handed on.
    """

    image: torch.Tensor = field(repr=False)
    prompt: str
    seed: int | None
    pixels: np.ndarray = field(repr=False)
    picture: Picture
    blocked: bool = False


def show(
    images: Sequence[torch.Tensor], prompts: Sequence[str], seeds: Sequence[int | None], blocked: Sequence[bool]
) -> list[Shown]:
    """The pictures of a batch, each with its prompt and seed.

    Raises:
        PictureError: one is no picture.
    """
    made = []
    for image, prompt, seed, held in zip(images, prompts, seeds, blocked, strict=True):
        pixels = to_pixels(image)
        made.append(Shown(image, prompt, seed, pixels, picture_of(pixels, seed), held))
    return made


def seeds_of(sizes: Sequence[int], seeds: Sequence[int] | None) -> list[int | None]:
    """One seed per picture.

    Args:
        sizes: pictures of each batch, as they came.
        seeds: one per picture, one per batch, one for all, or None.

    Raises:
        PreferenceError: the numbers do not fit.
    """
    count = sum(sizes)
    if seeds is None:
        return [None] * count
    if len(seeds) == 1:
        return list(seeds) * count
    if len(seeds) == len(sizes):
        return [seed for seed, size in zip(seeds, sizes, strict=True) for _ in range(size)]
    if len(seeds) != count:
        raise PreferenceError(
            f"There are {count} pictures in {len(sizes)} batches, but {len(seeds)} seeds. Give one seed per picture, "
            "one per batch, or one for all."
        )
    return list(seeds)


def questions_about(shown: Sequence[Shown], mode: str) -> list[Question]:
    """The questions of a batch, prompt by prompt in the order in which the prompts come first.

    Args:
        mode: "pairs": the first with the second, the third with the fourth …; "all pairs": every two; "best of each
            prompt": one question for all of a prompt; "stars": the same, each picture gets stars.

    Raises:
        ValueError: unknown mode. PreferenceError: no prompt has two different pictures ("stars": there is no picture),
            or there would be more questions than a profile keeps.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}; not {mode!r}")
    groups: dict[str, dict[str, Picture]] = {}
    for found in shown:
        if not found.blocked:
            groups.setdefault(found.prompt, {}).setdefault(found.picture.hash, found.picture)
    count = sum(_count(len(pictures), mode) for pictures in groups.values())
    if count > MOST_WAITING:
        raise PreferenceError(
            f"{sum(map(len, groups.values()))} pictures would be {count:,} questions in the mode {mode!r}; a profile "
            f"keeps up to {MOST_WAITING} that wait. Set mode to 'best of each prompt', which asks about up to "
            f"{MOST_PICTURES} pictures at once, or give fewer pictures."
        )
    questions = []
    for prompt, pictures in groups.items():
        for part in _parts(list(pictures.values()), mode):
            questions.append(Question("stars" if mode == "stars" else "best", prompt, tuple(part)))
    if not questions:
        raise PreferenceError(_why_none(shown, mode))
    return questions


def _count(pictures: int, mode: str) -> int:
    """How many questions there are at most about so many pictures of a prompt."""
    if mode == "all pairs":
        return comb(pictures, 2)
    return pictures // 2 if mode == "pairs" else ceil(pictures / MOST_PICTURES)


def _parts(pictures: list[Picture], mode: str) -> list[Sequence[Picture]]:
    if mode == "all pairs":
        return list(combinations(pictures, 2))
    size = 2 if mode == "pairs" else MOST_PICTURES
    parts = [pictures[start : start + size] for start in range(0, len(pictures), size)]
    return parts if mode == "stars" else [part for part in parts if len(part) > 1]


def _why_none(shown: Sequence[Shown], mode: str) -> str:
    blocked = sum(found.blocked for found in shown)
    if blocked == len(shown):
        return f"There is nothing to choose from: the safety gate held back all {blocked} pictures."
    return (
        f"There is nothing to choose from: of {len(shown)} pictures no prompt has two different ones. Set the batch "
        "size of the latent to 2 or more, and give one prompt per batch or per picture."
    )


def ordered(shown: Sequence[Shown], asked: Sequence[Asked], judge: Any) -> tuple[list[str], str]:
    """Keys of the questions, those from whose answer the judge learns most first; then the answered ones.

    Args:
        judge: a Preference Reward: `questions_first` (lists of pictures → places, and what each tells, in nats).

    Returns:
        The keys, and advice to the person; "" = none.

    Raises:
        PreferenceError: the judge is no Preference Reward.
    """
    find = getattr(judge, "questions_first", None)
    if find is None:
        raise PreferenceError(
            f"Only a Preference Reward knows which question is the most informative. Connect one to reward, or set "
            f"order to {ORDERS[0]!r}."
        )
    images = {found.picture.hash: found.image for found in shown}
    unsure = [found for found in asked if found.open and len(found.question.hashes) > 1]
    if not unsure:
        return [found.question.key for found in asked], ""
    places, told = find([[images[name] for name in found.question.hashes] for found in unsure])
    first = [unsure[place].question.key for place in places]
    few = sum(nats >= _HARDLY_ANYTHING for nats in told)
    advice = ""
    if few == 0:
        advice = " Your taste about these pictures is known well enough: choose between others to teach more."
    elif few < len(told):
        advice = f" The first {few} of the waiting ones teach something new, the others hardly anything."
    return [*first, *(found.question.key for found in asked if found.question.key not in set(first))], advice


# ---- waiting ----


def wait_for_answers(
    store: PreferenceStore, key: str, names: Sequence[str], *, seconds: float, on_look: Callable[[int, int], None]
) -> list[Asked]:
    """The questions of those keys as soon as all are answered, or as they stand when the time is over.

    Args:
        seconds: to wait at most.
        on_look: called with (answered, all) at every look; may raise to cancel.

    Raises:
        UnknownError: the profile was deleted meanwhile.
    """
    deadline = time.monotonic() + seconds
    while True:
        asked = store.questions(key, names)
        answered = sum(not found.open for found in asked)
        on_look(answered, len(asked))
        rest = deadline - time.monotonic()
        if answered == len(asked) or rest <= 0:
            return asked
        time.sleep(min(_LOOK_SECONDS, rest))


# ---- what is handed on ----


@dataclass(frozen=True)
class Picked:
    """What came of the questions.

    Attributes:
        chosen, rejected: places of pictures in the batch; each at most once, none in both.
        waiting: questions without an answer.
        by_rule: of those, how many the fallback answered here; that is kept nowhere.
        alone: different pictures that no question is about.
    """

    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    waiting: int
    by_rule: int
    alone: int


def pick(
    shown: Sequence[Shown], asked: Sequence[Asked], fallback: str, scores: Sequence[float] | None = None
) -> Picked:  # fmt: skip
    """What a person chose, and what a rule chooses where nobody has.

    A picture that won one comparison and lost another is handed on as rejected: the chosen ones lost to none.

    Args:
        fallback: one of `FALLBACKS`; "first": of each question; "wait": those that are still open are left out.
        scores: of the pictures, higher is better, NaN = held back; for "best by reward".
    """
    place = {}
    for number, found in enumerate(shown):
        place.setdefault(found.picture.hash, number)
    won: dict[int, None] = {}
    lost: dict[int, None] = {}
    waiting = by_rule = 0
    for question in asked:
        places = [place[name] for name in question.question.hashes]
        waiting += question.open
        # Stars for some of the pictures are no answer yet: a run that nobody watches must not end without a picture.
        if question.open and fallback in ("first", "best by reward"):
            best = _best(places, fallback, scores)
            by_rule += best is not None
            better = [] if best is None else [best]
        else:
            better = [place[name] for name in winners(question)]
        if better:
            won |= dict.fromkeys(better)
            lost |= dict.fromkeys(number for number in places if number not in better)
    asked_about = {name for question in asked for name in question.question.hashes}
    alone = {found.picture.hash for found in shown if not found.blocked} - asked_about
    return Picked(tuple(number for number in won if number not in lost), tuple(lost), waiting, by_rule, len(alone))


def _best(places: Sequence[int], fallback: str, scores: Sequence[float] | None) -> int | None:
    if fallback == "first":
        return places[0]
    known = [number for number in places if scores[number] == scores[number]]
    return max(known, key=lambda number: scores[number]) if known else None


def winners(asked: Asked) -> list[str]:
    """Hashes of the pictures that a person prefers to the others; [] where none is, or the stars are not complete."""
    if asked.open:
        return []
    answer = asked.decision.answer if asked.decision else Answer("skip")
    if answer.verdict == "chosen":
        return [answer.chosen]
    if answer.verdict == "stars" and len(set(answer.stars.values())) > 1:
        most = max(answer.stars.values())
        return [name for name in asked.question.hashes if answer.stars.get(name) == most]
    return []


def words_of(picked: Picked, questions: int, held_back: int) -> str:
    """What came of a run, in a line."""
    text = f"{questions - picked.waiting} of {counted(questions, 'question')} answered."
    if picked.waiting:
        text += f" {picked.waiting} waiting for you"
        text += f", {picked.by_rule} answered by rule for this run." if picked.by_rule else "."
    if picked.alone:
        has = "has" if picked.alone == 1 else "have"
        text += f" {counted(picked.alone, 'picture')} {has} no partner to be compared with."
    if held_back:
        text += f" {counted(held_back, 'picture')} held back by the safety gate."
    return text
