"""Do choices, and what the weights prefer, lean to some look? The part of the report that measures it. Ours.

Of every attribute that can be seen without a model (`visible_attributes`) two things are told by `fairness`:

    choices    what the person liked, against as many pictures of the same rounds drawn at random
    weights    the picture that the round's weights rank first, against the one that equal weights would

Six things are looked at, so that one of them warns by chance more often than a single one would: of 150 simulated
sessions of random choices among four pictures, 5 % of the reports warned after 8 rounds, none after 12 or 40.

Rounds of one session are few: with fewer than `FEWEST_ROUNDS` the report says so and nothing else. With the sessions of
"all sessions" their rounds count together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .checks import UnknownError
from .fairness import BOUND, FEWEST_ROUNDS, Fairness, Judged, fairness, picked_by
from .kpis import made_once
from .records import Round
from .running_scores import running_scores, scores_of, z_scores
from .session_reading import SessionRecord
from .visible_attributes import ATTRIBUTES, attributes_of

# Hash of a picture → uint8 [h, w, 3]; raises UnknownError where it is gone.
Pictures = Callable[[str], np.ndarray]
# Of more rounds the newest count: reading a picture takes time.
MOST_ROUNDS = 100
# Who leans, and what to do about it.
_SAID = {
    "choices": ("Choices", "choose against it a few times"),
    "weights": ("The weights", "lower the weight of the reward that prefers it"),
}
_KNOWN: dict[str, dict[str, str]] = {}
_MOST_KNOWN = 20_000
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Looked:
    """A round, each of its pictures in words.

    Attributes:
        values: attribute → value of every picture.
        liked: positions, where it was not the rewards that decided.
        weights: reward → weight; empty = none were weighed. z: z-scores of every picture.
    """

    values: dict[str, tuple[str, ...]]
    liked: tuple[int, ...]
    weights: dict[str, float]
    z: list[dict[str, float]]


def looked_at(
    sessions: Sequence[tuple[SessionRecord, Pictures]],
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    most: int = MOST_ROUNDS,
) -> list[Looked]:
    """The newest answered rounds of sessions, on all branches.

    Of pictures that were answered again after an undo the last answer counts; a round with a picture that is gone has
    no part.

    Args:
        sessions: the most important one first. progress: told (rounds read, of how many).
    """
    wanted = [(record, round_, get) for record, get in sessions for round_ in reversed(made_once(record.rounds))][:most]
    found = []
    for done, (record, round_, get) in enumerate(wanted):
        progress(done, len(wanted))
        try:
            seen = [_attributes(picture.hash, get) for picture in round_.pictures]
        except UnknownError:
            continue
        said = round_.feedback
        liked = said.liked if said is not None and said.by_person else ()
        weights = dict(round_.weights.after) if round_.weights is not None else {}
        z = _z_scores(round_, {known.key: known for known in record.rounds}) if weights else []
        values = {name: tuple(one[name] for one in seen) for name in ATTRIBUTES}
        found.append(Looked(values, liked, weights, z))
    return found


def fairness_report(rounds: Sequence[Looked], *, bound: float = BOUND) -> dict[str, Any]:
    """What the report says; see the module.

    Returns:
        rounds: with a choice; fewest: that it takes; enough; bound; warns: whether anything does; words; measured: of
        every attribute and of choices and weights: of, attribute, shares (value → [expected, found]), distance,
        interval, chance, rounds, warns, words. Empty where there are too few rounds.
    """
    chosen = sum(bool(looked.liked) for looked in rounds)
    measured = []
    if chosen >= FEWEST_ROUNDS:
        measured += [_measured("choices", fairness(_choices(rounds, name), name, bound=bound)) for name in ATTRIBUTES]
    weighed = [looked for looked in rounds if len(looked.weights) > 1]
    if len(weighed) >= FEWEST_ROUNDS:
        measured += [
            _measured("weights", fairness(_preferred(weighed, name), name, bound=bound)) for name in ATTRIBUTES
        ]
    warnings = [found for found in measured if found["warns"]]
    return {
        "rounds": chosen,
        "fewest": FEWEST_ROUNDS,
        "enough": bool(measured),
        "bound": bound,
        "warns": bool(warnings),
        "words": _warning(warnings) if warnings else _calm(measured, chosen),
        "measured": measured,
    }


def _warning(found: Sequence[dict[str, Any]]) -> str:
    told = []
    for of, (who, remedy) in _SAID.items():
        own = [part["words"] for part in found if part["of"] == of]
        if own:
            told.append(f"{who} lean to one look: {'; '.join(own)}. If you did not ask for that, {remedy}.")
    return " ".join(told)


def _calm(measured: Sequence[dict[str, Any]], chosen: int) -> str:
    if not measured:
        return (
            "Fairness: too few rounds to tell whether choices or weights lean to some look: "
            f"{chosen} of at least {FEWEST_ROUNDS} with a choice."
        )
    who = " and ".join(dict.fromkeys(found["of"] for found in measured))
    looks = f"{', '.join(ATTRIBUTES[:-1])} and {ATTRIBUTES[-1]}"
    return f"Fairness: by {looks}, {who} lean no more than chance or the bound allows."


def _measured(of: str, found: Fairness) -> dict[str, Any]:
    return {
        "of": of,
        "attribute": found.attribute,
        "shares": {value: list(shares) for value, shares in found.shares.items()},
        "distance": found.distance,
        "interval": list(found.interval),
        "chance": found.chance,
        "rounds": found.rounds,
        "warns": found.warns,
        "words": _words(of, found),
    }


def _words(of: str, found: Fairness) -> str:
    """What gained most, in a few words."""
    if not found.shares:
        return f"{found.attribute}: nothing to compare"
    value, (expected, seen) = next(iter(found.shares.items()))
    against = "of what was shown" if of == "choices" else "by equal weights"
    return f"{found.attribute} {value}, {100 * seen:.0f} % ({100 * expected:.0f} % {against})"


def _choices(rounds: Iterable[Looked], name: str) -> list[Judged]:
    return [Judged(looked.values[name], looked.liked) for looked in rounds]


def _preferred(rounds: Iterable[Looked], name: str) -> list[Judged]:
    """What the weights of each round rank first, and what equal ones would."""
    found = []
    for looked in rounds:
        equal = dict.fromkeys(looked.weights, 1.0)
        found += picked_by([looked.z], [looked.values[name]], looked.weights, instead=equal)
    return found


def _z_scores(round_: Round, known: dict[str, Round]) -> list[dict[str, float]]:
    """As Dynamic Weights saw the round: over it and those before it on its way."""
    way, at = [scores_of(round_)], round_.parent
    while at is not None and at in known:
        way.append(scores_of(known[at]))
        at = known[at].parent
    weights = round_.weights
    costs = weights.details.get("costs", []) if weights is not None else []
    return z_scores(way[0], running_scores(reversed(way)), costs=[name for name in costs if isinstance(name, str)])


def _attributes(name: str, pictures: Pictures) -> dict[str, str]:
    """Of a picture by its hash: pixels never change under it, so that it is read once."""
    found = _KNOWN.get(name)
    if found is None:
        found = attributes_of(pictures(name))
        with _LOCK:
            while len(_KNOWN) >= _MOST_KNOWN:
                _KNOWN.pop(next(iter(_KNOWN)))
            _KNOWN[name] = found
    return found
