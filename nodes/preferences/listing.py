"""Preferences as the page reads and changes them: plain data in, plain data out. The routes are in `nodes_routes`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from .records import HASH, KEY, Answer, Asked, PreferenceError, Profile, Summary, whole_text
from .store import PreferenceStore

MOST_AT_ONCE = 500
_WORDS = ("tie", "skip")
# What the store holds as a whole number.
_LARGEST = 2**63 - 1


# ---- out ----


def profile_json(profile: Profile) -> dict[str, Any]:
    return asdict(profile)


def summary_json(found: Summary) -> dict[str, Any]:
    """A profile and its counts; `choices`: all that were answered and not skipped."""
    counts = asdict(found)
    counts.pop("profile")
    choices = found.chosen + found.ties + found.rated
    return profile_json(found.profile) | counts | {"choices": choices}


def asked_json(asked: Asked) -> dict[str, Any]:
    """A question, and what stands."""
    question, decision = asked.question, None
    if asked.decision is not None:
        answer = asked.decision.answer
        choice = answer.chosen or (answer.verdict if answer.verdict in _WORDS else None)
        stars = dict(answer.stars) if answer.verdict == "stars" else None
        decision = {"id": asked.decision.id, "choice": choice, "stars": stars, "made": asked.decision.made}
    return {
        "id": asked.id, "key": question.key, "kind": question.kind, "prompt": question.prompt,
        "pictures": [asdict(picture) for picture in question.pictures], "open": asked.open, "decision": decision,
    }  # fmt: skip


def profiles(store: PreferenceStore) -> dict[str, Any]:
    return {"profiles": [summary_json(found) for found in store.summaries()]}


# ---- asked for ----


def waiting(store: PreferenceStore, query: Mapping[str, str]) -> dict[str, Any]:
    """Questions that wait, in the order of `PreferenceStore.waiting`.

    Args:
        query: profile; optionally limit (1 … 500, default 50) and before (a question's id).
    """
    _only(query, "profile", "limit", "before")
    key = _key(query)
    limit = _number(query, "limit", 50, MOST_AT_ONCE)
    before = _number(query, "before", None, _LARGEST)
    found = store.waiting(key, most=limit, before=before)
    return {"profile": summary_json(store.summary(key)), "questions": [asked_json(asked) for asked in found]}


def questions(store: PreferenceStore, body: Mapping[str, Any]) -> dict[str, Any]:
    """The questions of those keys, in their order, and the keys of those that are not kept any more."""
    _only(body, "profile", "questions")
    key, names = _key(body), body.get("questions")
    if not isinstance(names, list) or len(names) > MOST_AT_ONCE or not all(_is_hash(name) for name in names):
        raise PreferenceError(f"'questions' must be a list of up to {MOST_AT_ONCE} keys of questions.")
    found = store.questions(key, names)
    known = {asked.question.key for asked in found}
    return {
        "profile": summary_json(store.summary(key)),
        "questions": [asked_json(asked) for asked in found],
        "missing": [name for name in names if name not in known],
    }


def create(store: PreferenceStore, body: Mapping[str, Any]) -> dict[str, Any]:
    _only(body, "name")
    return _after(store, store.create(_text(body, "name")).key)


def rename(store: PreferenceStore, body: Mapping[str, Any]) -> dict[str, Any]:
    _only(body, "profile", "name")
    return _after(store, store.rename(_key(body), _text(body, "name")).key)


def delete(store: PreferenceStore, body: Mapping[str, Any]) -> dict[str, Any]:
    _only(body, "profile")
    why = store.delete(_key(body))
    note = f"The profile is deleted, but traces of it stay until ComfyUI is started again. {why}" if why else ""
    return {"deleted": True, "clean": not why, "note": note, **profiles(store)}


def decide(store: PreferenceStore, body: Mapping[str, Any]) -> dict[str, Any]:
    _only(body, "profile", "question", "choice", "stars")
    key, name = _key(body), body.get("question")
    if not _is_hash(name):
        raise PreferenceError("'question' must be the key of a question.")
    asked = store.decide(key, name, _answer(body))
    return _after(store, key) | {"question": asked_json(asked)}


def undo(store: PreferenceStore, body: Mapping[str, Any]) -> dict[str, Any]:
    _only(body, "profile", "decision")
    key, decision = _key(body), body.get("decision")
    if decision is not None and not (_is_whole(decision) and 0 < decision <= _LARGEST):
        raise PreferenceError("'decision' must be the id of a decision, or be left out for the newest.")
    asked = store.undo(key, decision)
    return _after(store, key) | {"question": None if asked is None else asked_json(asked)}


ACTIONS: dict[str, Callable[[PreferenceStore, Mapping[str, Any]], dict[str, Any]]] = {
    "create": create,
    "rename": rename,
    "delete": delete,
    "questions": questions,
    "decide": decide,
    "undo": undo,
}
# Those that change a profile, which other tabs are told of.
CHANGES = ("create", "rename", "delete", "decide", "undo")


def act(store: PreferenceStore, action: str, body: Any) -> dict[str, Any]:
    """Do what the page asks.

    Args:
        action: one of `ACTIONS`.
        body: the JSON that was sent.

    Raises:
        UnknownError: there is no such action, profile or question. PreferenceError: bad values, or it cannot be done;
            nothing was changed.
    """
    if action not in ACTIONS:
        raise PreferenceError(f"Preferences cannot {action!r}. They can: {', '.join(ACTIONS)}.")
    if not isinstance(body, Mapping):
        raise PreferenceError("Send a JSON object.")
    return ACTIONS[action](store, body)


def _after(store: PreferenceStore, key: str) -> dict[str, Any]:
    return {"profile": summary_json(store.summary(key))}


# ---- in ----


def _only(body: Mapping[str, Any], *known: str) -> None:
    unknown = [str(name)[:40] for name in body if name not in known]
    if unknown:
        raise PreferenceError(f"{unknown[0]!r} is not understood here. Send: {', '.join(known)}.")


def _key(body: Mapping[str, Any]) -> str:
    key = body.get("profile")
    if not isinstance(key, str) or not KEY.fullmatch(key):
        raise PreferenceError("'profile' must be a profile's key: 32 hex digits.")
    return key


def _text(body: Mapping[str, Any], name: str) -> str:
    text = body.get(name)
    if not isinstance(text, str):
        raise PreferenceError(f"'{name}' must be a text.")
    return whole_text(text, f"'{name}'")


def _number(query: Mapping[str, str], name: str, default: int | None, most: int) -> int | None:
    if name not in query:
        return default
    text = query[name]
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 0 < int(text) <= most):
        raise PreferenceError(f"'{name}' must be a whole number from 1 to {most}.")
    return int(text)


def _answer(body: Mapping[str, Any]) -> Answer:
    choice, stars = body.get("choice"), body.get("stars")
    if (choice is None) == (stars is None):
        raise PreferenceError("Send either 'choice' or 'stars'.")
    if stars is not None:
        if not isinstance(stars, Mapping) or not all(_is_hash(name) for name in stars):
            raise PreferenceError("'stars' must be an object: hash of a picture → 1 to 5.")
        return Answer("stars", stars=dict(stars))
    if choice in _WORDS:
        return Answer(choice)
    if not _is_hash(choice):
        raise PreferenceError("'choice' must be the hash of a picture, tie, or skip.")
    return Answer("chosen", choice)


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and HASH.fullmatch(value) is not None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
