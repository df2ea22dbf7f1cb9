"""Records as plain values that JSON holds, and back. Seeds are text there: other readers round them beyond 2^53."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .checks import RefinementError
from .records import Feedback, Picture, Round, Schedule, Weights


def canonical(value: Any) -> str:
    """The one way in which a value is written as JSON: for hashes, and for whatever is compared as text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def plain_schedule(schedule: Schedule) -> dict[str, Any]:
    return {
        "type": schedule.type,
        "steps": schedule.steps,
        "strength": schedule.strength,
        "seeds": [str(seed) for seed in schedule.seeds],
        "fresh": schedule.fresh,
        "sampler": schedule.sampler,
        "guidance": schedule.guidance,
        "arm": schedule.arm,
        "own_noise": schedule.own_noise,
        "test": schedule.test,
    }


def plain_weights(weights: Weights) -> dict[str, Any]:
    return {"rule": weights.rule, "before": weights.before, "after": weights.after, "details": weights.details}


def plain_feedback(feedback: Feedback) -> dict[str, Any]:
    return {
        "comment": feedback.comment,
        "liked": list(feedback.liked),
        "disliked": list(feedback.disliked),
        "rating": feedback.rating,
        "accepted": feedback.accepted,
        "rater": feedback.rater,
    }


def plain_picture(picture: Picture) -> dict[str, Any]:
    return {"hash": picture.hash, "seed": str(picture.seed), "scores": picture.scores}


def plain_round(round_: Round) -> dict[str, Any]:
    return {
        "key": round_.key,
        "parent": round_.parent,
        "number": round_.number,
        "attempt": round_.attempt,
        "prompt": round_.prompt,
        "negative": round_.negative,
        "embedding": round_.embedding,
        "schedule": plain_schedule(round_.schedule),
        "weights": None if round_.weights is None else plain_weights(round_.weights),
        "pictures": [plain_picture(picture) for picture in round_.pictures],
        "feedback": None if round_.feedback is None else plain_feedback(round_.feedback),
        "seconds": round_.seconds,
        "lora": round_.lora,
        "latents": round_.latents,
        "made": round_.made,
    }


def schedule_of(values: Mapping[str, Any]) -> Schedule:
    """
    Raises:
        RefinementError: values that are no schedule.
    """
    return _made(Schedule, {**values, "seeds": tuple(_seed(seed) for seed in values.get("seeds", ()))})


def weights_of(values: Mapping[str, Any]) -> Weights:
    """
    Raises:
        RefinementError: values that are no weights.
    """
    return _made(Weights, values)


def feedback_of(values: Mapping[str, Any]) -> Feedback:
    """
    Raises:
        RefinementError: values that are no feedback; unknown names are.
    """
    return _made(Feedback, values)


def picture_of(values: Mapping[str, Any]) -> Picture:
    """
    Raises:
        RefinementError: values that are no picture.
    """
    return _made(Picture, {**values, "seed": _seed(values.get("seed"))})


def _made(kind: type, values: Mapping[str, Any]) -> Any:
    try:
        return kind(**values)
    except (TypeError, AttributeError, ValueError) as error:
        raise RefinementError(f"These values are no {kind.__name__.lower()} ({error}).") from error


def _seed(value: Any) -> int:
    # Only what `str` of a whole number gives: int() alone takes blanks, underscores and other scripts' digits.
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        return int(value)
    raise RefinementError(f"A seed must be written in digits, not as {value!r}.")
