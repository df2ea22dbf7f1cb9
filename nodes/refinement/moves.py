"""What changes a session: each function works inside the caller's transaction and adds one audit row. Ours."""

from __future__ import annotations

import dataclasses
import json
import secrets
import sqlite3
import time
from collections.abc import Mapping
from typing import Any

from . import audit
from .checks import RefinementError, StaleError, UnknownError
from .records import Feedback, Round
from .session_rows import (
    RoundRow,
    SessionRow,
    answer_round,
    insert_round,
    pass_round,
    put_rating,
    read_rounds,
    remove_round,
    round_digest,
    session_digest,
)


def new_key() -> str:
    """32 random hex digits."""
    return secrets.token_hex(16)


def create(
    connection: sqlite3.Connection, name: str, prompt: str, negative: str, seed: int, *, key: str
) -> None:  # fmt: skip
    """A new session. What is given has been checked, and nobody has the name."""
    now = int(time.time())
    cursor = connection.execute(
        "INSERT INTO sessions (key, name, folded, prompt, negative, seed, created, changed) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (key, name, name.casefold(), prompt, negative, str(seed), now, now),
    )
    _note(connection, cursor.lastrowid, "created", detail={"name": name})


def reword(connection: sqlite3.Connection, session: SessionRow, prompt: str, negative: str, seed: int) -> None:
    """Another first wish, as long as there is no round that follows from it.

    Raises:
        RefinementError: there is.
    """
    if read_rounds(connection, session.id, "status = 'committed'"):
        raise RefinementError(
            "The session's first wish cannot change any more: rounds follow from it. Say what should change in a "
            "comment, or begin another session."
        )
    connection.execute(
        "UPDATE sessions SET prompt = ?, negative = ?, seed = ?, revision = revision + 1 WHERE id = ?",
        (prompt, negative, str(seed), session.id),
    )
    _note(connection, session.id, "worded")


def rename(connection: sqlite3.Connection, session: SessionRow, name: str) -> None:
    connection.execute(
        "UPDATE sessions SET name = ?, folded = ? WHERE id = ?", (name, name.casefold(), session.id)
    )  # fmt: skip
    _note(connection, session.id, "renamed", detail={"name": name, "before": session.name})


def propose(connection: sqlite3.Connection, session: SessionRow, round_: Round) -> Round:
    """Put down the open round of the session's head, in place of one that was made of other inputs.

    Returns:
        What stands: the same inputs again change nothing.
    """
    standing = open_round(connection, session)
    touched: dict[str, str | None] = {}
    if standing:
        old = standing.round
        if dataclasses.replace(round_, key=old.key, seconds=old.seconds, made=old.made) == old:
            return old
        remove_round(connection, standing.id)
        touched[old.key] = None
    insert_round(connection, session.id, round_)
    _note(connection, session.id, "proposed", round_, touched=touched)
    return round_


def commit(connection: sqlite3.Connection, session: SessionRow, key: str, feedback: Feedback) -> None:
    """Keep what a person says to the open round, which becomes the head.

    Raises:
        StaleError: that round is not open (any more). RefinementError: the feedback names pictures it does not have.
    """
    waiting = _waiting(connection, session, key)
    feedback.checked(len(waiting.round.pictures))
    answer_round(connection, waiting.id, feedback)
    _place(connection, session, key, ())
    _note(connection, session.id, "accepted" if feedback.accepted else "committed", waiting.round, feedback=feedback)


def again(connection: sqlite3.Connection, session: SessionRow, key: str) -> None:
    """Other pictures in place of the open round's.

    Raises:
        StaleError: that round is not open (any more).
    """
    waiting = _waiting(connection, session, key)
    pass_round(connection, waiting.id)
    _place(connection, session, session.head, session.undone)
    _note(connection, session.id, "again", waiting.round)


def undo(connection: sqlite3.Connection, session: SessionRow) -> None:
    """Go back to the head's parent; the head's pictures wait for another answer.

    Raises:
        RefinementError: there is no round yet.
    """
    if not session.head:
        raise RefinementError("There is no round to undo: the session is at its beginning.")
    last = _committed(connection, session, session.head)
    _place(connection, session, last.round.parent or "", (*session.undone, last.round.key))
    _note(connection, session.id, "undone", last.round, touched=_reopen(connection, session, last))


def redo(connection: sqlite3.Connection, session: SessionRow) -> None:
    """Take the last undo back.

    Raises:
        RefinementError: nothing was undone, or another round was committed since.
    """
    if not session.undone:
        raise RefinementError("There is nothing to redo.")
    (*rest, key) = session.undone
    again_ = _committed(connection, session, key)
    _place(connection, session, key, tuple(rest))
    _note(connection, session.id, "redone", again_.round)


def branch(connection: sqlite3.Connection, session: SessionRow, key: str | None) -> None:
    """Go to any committed round, or (None) to the beginning: the next round is committed beside those that follow it.

    The pictures of the newest round that follows wait for another answer.

    Raises:
        UnknownError: there is no such round. RefinementError: the session is there.
    """
    target = _committed(connection, session, key).round if key is not None else None
    if (key or "") == session.head:
        raise RefinementError("The session is at that round already.")
    _place(connection, session, key or "", ())
    following = read_rounds(connection, session.id, "status = 'committed' AND parent = ?", (key or "",))
    touched = _reopen(connection, session, following[-1]) if following else {}
    _note(connection, session.id, "branched", target, touched=touched)


def accept(connection: sqlite3.Connection, session: SessionRow, key: str, position: int) -> None:
    """This picture is what was meant, of the open round or of one that was committed before; it becomes the head.

    Raises:
        UnknownError: there is no such round. RefinementError: it has no such picture.
    """
    waiting = open_round(connection, session)
    if waiting and waiting.round.key == key:
        commit(connection, session, key, Feedback(liked=(position,), accepted=True))
        return
    found = _committed(connection, session, key)
    said = found.round.feedback or Feedback()
    others = tuple(place for place in said.liked if place != position)
    disliked = tuple(place for place in said.disliked if place != position)
    said = dataclasses.replace(said, liked=(position, *others), disliked=disliked, accepted=True)
    answer_round(connection, found.id, said.checked(len(found.round.pictures)))
    _place(connection, session, key, ())
    _note(connection, session.id, "accepted", found.round, feedback=said)


def rate(
    connection: sqlite3.Connection, session: SessionRow, key: str, rater: str, stars: Mapping[int, int]
) -> None:  # fmt: skip
    """Keep a rater's stars for pictures of a round, whatever its status.

    Raises:
        UnknownError: there is no such round. RefinementError: it has no such picture.
    """
    found = read_rounds(connection, session.id, "key = ?", (key,))
    if not found:
        raise UnknownError("This session has no such round. Reload the page to see the rounds it has.")
    beyond = [place for place in stars if not 0 <= place < len(found[0].round.pictures)]
    if beyond:
        raise RefinementError(f"The round has {len(found[0].round.pictures)} pictures; there is no {beyond[0] + 1}.")
    for position, count in stars.items():
        put_rating(connection, found[0].id, position, rater, count)
    detail = {"rater": rater, "stars": {str(position): count for position, count in stars.items()}}
    _note(connection, session.id, "rated", found[0].round, detail=detail)


def replayed(connection: sqlite3.Connection, session: SessionRow, key: str, exact: bool) -> None:
    """Note that a round was made again, and whether it came out bit by bit.

    Raises:
        UnknownError: there is no such round.
    """
    _note(connection, session.id, "replayed", _committed(connection, session, key).round, detail={"exact": exact})


# ---- inside ----


def open_round(connection: sqlite3.Connection, session: SessionRow) -> RoundRow | None:
    """The round that was made of the session's head and waits for a person."""
    found = read_rounds(connection, session.id, "status = 'open' AND parent = ?", (session.head,))
    return found[0] if found else None


def _waiting(connection: sqlite3.Connection, session: SessionRow, key: str) -> RoundRow:
    waiting = open_round(connection, session)
    if waiting is None or waiting.round.key != key:
        raise StaleError(
            "These pictures are not what the session waits for any more: another run has made others, or they were "
            "answered. Nothing was changed. Reload the page, or press Run."
        )
    return waiting


def _committed(connection: sqlite3.Connection, session: SessionRow, key: str) -> RoundRow:
    found = read_rounds(connection, session.id, "status = 'committed' AND key = ?", (key,))
    if not found:
        raise UnknownError("This session has no such round. Reload the page to see the rounds it has.")
    return found[0]


def _place(connection: sqlite3.Connection, session: SessionRow, head: str, undone: tuple[str, ...]) -> None:
    connection.execute(
        "UPDATE sessions SET head = ?, undone = ?, revision = revision + 1 WHERE id = ?",
        (head, json.dumps(undone), session.id),
    )


def _reopen(connection: sqlite3.Connection, session: SessionRow, answered: RoundRow) -> dict[str, str | None]:
    """Have a round's pictures wait for another answer, without a run. What was said to it stays in the tree."""
    if read_rounds(connection, session.id, "status = 'open' AND parent = ?", (answered.round.parent or "",)):
        return {}
    copy = dataclasses.replace(answered.round, key=new_key(), feedback=None)
    insert_round(connection, session.id, copy)
    return {copy.key: _digest(connection, copy.key)}


def _digest(connection: sqlite3.Connection, key: str) -> str:
    (id,) = connection.execute("SELECT id FROM session_rounds WHERE key = ?", (key,)).fetchone()
    return round_digest(connection, id)


def _note(
    connection: sqlite3.Connection,
    id: int,
    kind: str,
    round_: Round | None = None,
    *,
    feedback: Feedback | None = None,
    touched: Mapping[str, str | None] | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """One audit row, after the change; `touched`: digests of rounds beside the one that the row is about."""
    head, revision, seed = connection.execute(
        "SELECT head, revision, seed FROM sessions WHERE id = ?", (id,)
    ).fetchone()  # fmt: skip
    records = {**(touched or {}), **({round_.key: _digest(connection, round_.key)} if round_ else {})}
    body = {
        **audit.about(round_, feedback),
        "head": head,
        "revision": revision,
        "session": session_digest(connection, id),
        "records": records,
        "seed": seed,
        "detail": dict(detail or {}),
    }
    audit.append(connection, id, kind, round_.key if round_ else "", body, int(time.time()))
