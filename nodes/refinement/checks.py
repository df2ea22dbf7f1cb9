"""What a record of a refinement may hold: its limits, the checks that every record makes, and their errors. Ours."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from ...training.interfaces import AttuneError
from ..visible_line import has_half_letter, visible_line

KEY = re.compile(r"[0-9a-f]{32}")
DIGEST = re.compile(r"[0-9a-f]{64}")
LARGEST_SEED = 2**64 - 1
MOST_STARS = 5
MOST_PICTURES = 64
MOST_STEPS = 10_000
# Letters of a prompt or a comment; bytes of what a round keeps beside them.
LONGEST_TEXT = 200_000
LARGEST_DETAILS = 1_000_000
# Letters of a rule's, a sampler's, a reward's, an arm's or a rater's name.
LONGEST_NAME = 200
LONGEST_SESSION_NAME = 60


class RefinementError(AttuneError):
    """What was asked for cannot be done; says why and what to do. Nothing was changed."""


class UnknownError(RefinementError):
    """There is no such session, round or picture (any more)."""


class StaleError(RefinementError):
    """The session has moved on since the page or the run that asks looked at it."""


def session_name(name: str) -> str:
    """A session's name as it is kept: one line without stray blanks and letters that nobody sees.

    Raises:
        RefinementError: nothing is left that can be seen, it is too long, or looks like a key.
    """
    check_text(name, "The session's name")
    plain_name = visible_line(name)
    if not plain_name:
        raise RefinementError("The session has no name. Type one, for example 'the cat at dusk'.")
    if len(plain_name) > LONGEST_SESSION_NAME:
        raise RefinementError(
            f"The name {plain_name[:30]!r}… has {len(plain_name)} letters; up to {LONGEST_SESSION_NAME} are allowed."
        )
    if KEY.fullmatch(plain_name):
        raise RefinementError(f"{plain_name!r} looks like a session's key. Choose another name.")
    return plain_name


def check_text(text: str, what: str) -> None:
    """
    Raises:
        RefinementError: the text is too long, or holds half of a character, which no file can.
    """
    if not isinstance(text, str):
        raise RefinementError(f"{what} must be text, not {type(text).__name__}.")
    if len(text) > LONGEST_TEXT:
        raise RefinementError(f"{what} has {len(text)} letters; up to {LONGEST_TEXT} are kept. Shorten it.")
    if has_half_letter(text):
        raise RefinementError(f"{what} holds half of a character. Type it anew.")


def check_name(name: str, what: str, *, empty: bool = False) -> None:
    """
    Raises:
        RefinementError: no text, empty without leave, too long, or not writable.
    """
    check_text(name, what)
    if len(name) > LONGEST_NAME or not (name or empty):
        raise RefinementError(f"{what} must have {0 if empty else 1} to {LONGEST_NAME} letters; it has {len(name)}.")


def check_switch(value: bool, what: str) -> None:
    """
    Raises:
        RefinementError: neither true nor false.
    """
    if not isinstance(value, bool):
        raise RefinementError(f"{what} is true or false, not {value!r}.")


def check_seed(seed: int) -> None:
    """
    Raises:
        RefinementError: not a whole number from 0 to 2^64 − 1.
    """
    if not is_whole(seed) or not 0 <= seed <= LARGEST_SEED:
        raise RefinementError(f"A seed is a whole number from 0 to {LARGEST_SEED}, not {seed!r}.")


def check_stars(stars: int) -> None:
    """
    Raises:
        RefinementError: not 1 to 5.
    """
    if not is_whole(stars) or not 1 <= stars <= MOST_STARS:
        raise RefinementError(f"A rating is 1 to {MOST_STARS} stars, not {stars!r}.")


def numbers(values: Mapping[str, float], what: str) -> dict[str, float]:
    """A copy of named numbers, as floats.

    Raises:
        RefinementError: a name is not usable, or a value is not a finite number.
    """
    for name, value in values.items():
        check_name(name, "A reward's name")
        if not is_number(value):
            raise RefinementError(f"{what} hold {value!r} for {name!r}; only finite numbers can be kept.")
    return {name: float(value) for name, value in values.items()}


def plain(values: Mapping[str, Any], what: str) -> dict[str, Any]:
    """A copy as it comes back from JSON: tuples are lists, keys are text.

    Raises:
        RefinementError: JSON cannot hold it, or it is too large.
    """
    try:
        text = json.dumps(values, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise RefinementError(f"{what} cannot be kept as JSON ({error}).") from error
    if size > LARGEST_DETAILS:
        raise RefinementError(f"{what} take {size} bytes; up to {LARGEST_DETAILS} are kept.")
    return json.loads(text)


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False
