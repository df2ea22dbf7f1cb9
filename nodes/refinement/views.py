"""Sessions as the page reads and changes them: plain data in, plain data out. The routes are in `nodes_routes`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from .checks import KEY, RefinementError, check_text
from .kpis import CAP
from .prompt_diff import prompt_diff
from .records import Feedback, Round, SessionState
from .report import comparison_report, report_of, shown_comparison, shown_report
from .round_lora import version_of
from .store import SessionStore
from .tree import Tree

# ---- out ----


def sessions_view(store: SessionStore) -> dict[str, Any]:
    """All sessions, the one that was changed last first."""
    shown = ("key", "name", "revision", "prompt", "rounds", "accepted", "changed")
    return {"sessions": [{name: getattr(found, name) for name in shown} for found in store.summaries()]}


def session_view(store: SessionStore, key: str) -> dict[str, Any]:
    """A session with the rounds of its path, those of all branches, and the round that waits for a person."""
    return view_of(store.state(key), store.tree(key))


def view_of(state: SessionState, tree: Tree) -> dict[str, Any]:
    """See `session_view`."""
    path = [past.key for past in state.path]
    before = state.current_prompt
    waiting = None if state.open is None else round_view(state.open, before)
    if waiting is not None and state.open is not None:
        # After Undo the round that waits was answered before: the page begins with that answer.
        earlier = tree.earlier_answer(state.open)
        waiting["feedback"] = None if earlier is None else feedback_view(earlier)
    return {
        "key": state.key,
        "name": state.name,
        "revision": state.revision,
        "number": state.number,
        "attempt": state.attempt,
        "prompt": state.prompt,
        "accepted": state.accepted,
        "path": path,
        "rounds": [round_view(found, _prompt_before(found, tree, state.prompt)) for found in tree.rounds],
        "open": waiting,
        "can_redo": bool(state.undone),
    }


def _prompt_before(found: Round, tree: Tree, wish: str) -> str:
    return wish if found.parent is None else tree.round(found.parent).prompt


def round_view(found: Round, before: str) -> dict[str, Any]:
    """
    Args:
        before: the prompt of the round before, to say what has changed.
    """
    said = found.feedback
    schedule = found.schedule
    return {
        "key": found.key,
        "parent": found.parent,
        "number": found.number,
        "attempt": found.attempt,
        "prompt": found.prompt,
        "negative": found.negative,
        "changes": [list(part) for part in prompt_diff(before, found.prompt)] if before != found.prompt else [],
        "schedule": {name: getattr(schedule, name) for name in ("type", "steps", "strength", "arm")},
        "weights": None if found.weights is None else found.weights.after,
        "pictures": [{"hash": part.hash, "seed": str(part.seed), "scores": part.scores} for part in found.pictures],
        "feedback": None if said is None else feedback_view(said),
        "seconds": found.seconds,
        "version": version_of(found),
    }


def feedback_view(said: Feedback) -> dict[str, Any]:
    return {
        "comment": said.comment,
        "liked": list(said.liked),
        "disliked": list(said.disliked),
        "rating": said.rating,
        "accepted": said.accepted,
    }


def report_view(store: SessionStore, key: str, asked: Mapping[str, str]) -> dict[str, Any]:
    """A session's report as the page of Session Report shows it.

    Args:
        asked: judge, most_rounds, all: as the node's widgets say; "" or missing = as the node's defaults.

    Raises:
        RefinementError: most_rounds is no number of rounds. UnknownError: there is no such session.
    """
    cap = asked.get("most_rounds") or str(CAP)
    if not re.fullmatch(r"[1-9][0-9]{0,5}", cap):
        raise RefinementError(f"most_rounds must be a whole number of at least 1, not {cap[:40]!r}.")
    judge = asked.get("judge", "").strip()
    return shown_report(report_of(store, key, judge=judge, cap=int(cap), everything=asked.get("all") == "1"))


def comparison_view(store: SessionStore, key: str, first: str, second: str, asked: Mapping[str, str]) -> dict[str, Any]:
    """Two ways through a session side by side, as the page of Session Report shows them.

    Args:
        first, second: keys of the rounds at their ends. asked: judge, see `report_view`.

    Raises:
        UnknownError: there is no such session or round.
    """
    judge = asked.get("judge", "").strip()
    return shown_comparison(comparison_report(store.record(key), first, second, judge=judge))


# ---- in ----


def act(store: SessionStore, action: str, body: Any) -> dict[str, Any]:
    """Do what a page asks for.

    Args:
        action: of `ACTIONS`.
        body: JSON as it came: key, and what the action takes; revision = the session's as the page has it.

    Returns:
        the session as it then is; after "delete" its key and what could not be deleted yet.

    Raises:
        RefinementError: no such action, or a body that does not fit it. UnknownError, StaleError as the store.
    """
    if action not in ACTIONS:
        raise RefinementError(f"A session can be told: {', '.join(ACTIONS)}; not {action[:40]!r}.")
    if not isinstance(body, Mapping):
        raise RefinementError("What was sent is not a JSON object.")
    names, work = ACTIONS[action]
    unknown = sorted(set(body) - {"key", *names})
    if unknown:
        raise RefinementError(f"{action} does not take {unknown[0][:40]!r}; it takes: key, {', '.join(names)}.")
    key = body.get("key")
    if not isinstance(key, str) or not KEY.fullmatch(key):
        raise RefinementError("Say which session is meant by its key.")
    found = work(store, key, body)
    return found if found is not None else session_view(store, key)


def _commit(store: SessionStore, key: str, body: Mapping[str, Any]) -> None:
    store.commit(key, _whole(body, "revision"), _text(body, "round"), feedback_of(body))


def feedback_of(body: Mapping[str, Any]) -> Feedback:
    """
    Raises:
        RefinementError: something in it is of another kind.
    """
    rating = body.get("rating")
    if rating is not None and (isinstance(rating, bool) or not isinstance(rating, int)):
        raise RefinementError("rating must be a whole number or nothing.")
    accepted = body.get("accepted", False)
    if not isinstance(accepted, bool):
        raise RefinementError("accepted must be true or false.")
    places = {}
    for name in ("liked", "disliked"):
        places[name] = body.get(name, [])
        if not isinstance(places[name], list):
            raise RefinementError(f"{name} must be a list of positions.")
    return Feedback(_text(body, "comment", ""), tuple(places["liked"]), tuple(places["disliked"]), rating, accepted)


def _again(store: SessionStore, key: str, body: Mapping[str, Any]) -> None:
    store.again(key, _whole(body, "revision"), _text(body, "round"))


def _undo(store: SessionStore, key: str, body: Mapping[str, Any]) -> None:
    store.undo(key, _whole(body, "revision"))


def _redo(store: SessionStore, key: str, body: Mapping[str, Any]) -> None:
    store.redo(key, _whole(body, "revision"))


def _branch(store: SessionStore, key: str, body: Mapping[str, Any]) -> None:
    store.branch(key, _whole(body, "revision"), None if body.get("round") is None else _text(body, "round"))


def _accept(store: SessionStore, key: str, body: Mapping[str, Any]) -> None:
    store.accept(key, _whole(body, "revision"), _text(body, "round"), _whole(body, "position"))


def _rate(store: SessionStore, key: str, body: Mapping[str, Any]) -> None:
    stars = body.get("stars")
    if not isinstance(stars, Mapping) or not all(re.fullmatch("[0-9]{1,3}", place) for place in stars):
        raise RefinementError("stars must be an object of position: 1 … 5.")
    store.rate(key, _text(body, "round"), _text(body, "rater", ""), {int(place): n for place, n in stars.items()})


def _rename(store: SessionStore, key: str, body: Mapping[str, Any]) -> None:
    store.rename(key, _text(body, "name"))


def _delete(store: SessionStore, key: str, body: Mapping[str, Any]) -> dict[str, Any]:
    return {"key": key, "left": store.delete(key)}


def _text(body: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = body.get(name, default)
    if not isinstance(value, str):
        raise RefinementError(f"{name} must be a text.")
    check_text(value, name)
    return value


def _whole(body: Mapping[str, Any], name: str) -> int:
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise RefinementError(f"{name} must be a whole number.")
    return value


_SAID = ("comment", "liked", "disliked", "rating", "accepted")
ACTIONS: dict[str, tuple[tuple[str, ...], Callable[..., dict[str, Any] | None]]] = {
    "commit": (("revision", "round", *_SAID), _commit),
    "again": (("revision", "round"), _again),
    "undo": (("revision",), _undo),
    "redo": (("revision",), _redo),
    "branch": (("revision", "round"), _branch),
    "accept": (("revision", "round", "position"), _accept),
    "rate": (("round", "rater", "stars"), _rate),
    "rename": (("name",), _rename),
    "delete": ((), _delete),
}
