"""Sessions and rounds as they lie in the store's tables. Every function works inside the caller's transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from .audit import digest, readable
from .checks import KEY, LONGEST_SESSION_NAME, RefinementError, UnknownError
from .plain_records import (
    canonical,
    feedback_of,
    plain_feedback,
    plain_schedule,
    plain_weights,
    schedule_of,
    weights_of,
)
from .records import Feedback, Picture, Round, direction_of

# open: waits for a person. passed: other pictures were asked for. committed: a person has answered.
Status = Literal["open", "passed", "committed"]
_SESSION = "id, key, name, revision, seed, prompt, negative, head, undone, created, changed, audit_rows"
_ROUND = (
    "id, status, key, parent, number, attempt, prompt, negative, embedding, schedule, weights, feedback, seconds, "
    "lora, latents, made"
)


@dataclass(frozen=True)
class SessionRow:
    """A session's own row. `head`: "" = before the first round. `undone`: keys of rounds, the next to redo last."""

    id: int
    key: str
    name: str
    revision: int
    seed: int
    prompt: str
    negative: str
    head: str
    undone: tuple[str, ...]
    created: int
    changed: int
    audit_rows: int


@dataclass(frozen=True)
class RoundRow:
    """A round with what the store knows beside it."""

    id: int
    status: Status
    round: Round


# ---- sessions ----


def read_session(connection: sqlite3.Connection, key: str) -> SessionRow:
    """
    Raises:
        UnknownError: there is no such session. RefinementError: its row holds what is no session.
    """
    found = None
    if KEY.fullmatch(key):
        query = f"SELECT {_SESSION} FROM sessions WHERE name <> '' AND key = ?"
        found = connection.execute(query, (key,)).fetchone()
    if found is None:
        raise UnknownError(
            "This session is not there any more: it was deleted, or it is kept on another computer. Choose a session "
            "in the Refinement Session node and press Run."
        )
    return _session(found)


def read_sessions(connection: sqlite3.Connection) -> list[SessionRow]:
    """All sessions, the one that was changed last first; without those whose rows hold what is no session."""
    query = f"SELECT {_SESSION} FROM sessions WHERE name <> '' ORDER BY changed DESC, id DESC"
    found = []
    for row in connection.execute(query).fetchall():
        with suppress(RefinementError):
            found.append(_session(row))
    return found


def _session(row: tuple) -> SessionRow:
    id, key, name, revision, seed, prompt, negative, head, undone, *rest = row
    try:
        texts, numbers = (key, name, seed, prompt, negative, head, undone), (revision, *rest)
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(number, int) for number in numbers):
            raise ValueError("a column of another type")
        return SessionRow(id, key, name, revision, int(seed), prompt, negative, head, tuple(json.loads(undone)), *rest)
    except (ValueError, TypeError, RecursionError) as error:
        raise RefinementError(
            f"The session {str(name)[:LONGEST_SESSION_NAME]!r} is damaged in Attune's database ({error}): somebody has "
            "written into it. Put a backup of the database in its place, or begin another session."
        ) from error


def session_digest(connection: sqlite3.Connection, id: int) -> str:
    """Digest of a session's own fields, as the audit keeps it."""
    fields = "name, prompt, negative, seed, revision, head, undone, created"
    row = connection.execute(f"SELECT {fields} FROM sessions WHERE id = ?", (id,)).fetchone()
    return digest([readable(value) for value in row])


# ---- rounds ----


def read_rounds(
    connection: sqlite3.Connection, session: int, where: str = "1", values: Iterable[Any] = ()
) -> list[RoundRow]:  # fmt: skip
    """The rounds of a session that a condition on `session_rounds` names, in the order in which they were made.

    Raises:
        RefinementError: a row holds what is no round: somebody else has written into the store.
    """
    query = f"SELECT {_ROUND} FROM session_rounds WHERE session = ? AND ({where}) ORDER BY id"
    return [_round(connection, row) for row in connection.execute(query, (session, *values)).fetchall()]


def read_sound_rounds(connection: sqlite3.Connection, session: int) -> tuple[list[RoundRow], list[str]]:
    """All rounds that can be read, and what is wrong with each of the others, in words."""
    query = f"SELECT {_ROUND} FROM session_rounds WHERE session = ? ORDER BY id"
    found, wrong = [], []
    for row in connection.execute(query, (session,)).fetchall():
        try:
            found.append(_round(connection, row))
        except RefinementError as error:
            wrong.append(str(error))
    return found, wrong


def _round(connection: sqlite3.Connection, row: tuple) -> RoundRow:
    id, status, key, parent, number, attempt, prompt, negative, embedding, schedule, weights, said, *rest = row
    pictures = connection.execute(
        "SELECT hash, seed, scores FROM session_pictures WHERE round = ? ORDER BY position", (id,)
    ).fetchall()
    try:
        if not isinstance(rest[-1], int) or (status == "committed") != bool(said):
            raise ValueError("a column that no round has")
        made = Round(
            key,
            parent or None,
            number,
            attempt,
            prompt,
            negative,
            json.loads(embedding),
            schedule_of(json.loads(schedule)),
            weights_of(json.loads(weights)) if weights else None,
            tuple(Picture(name, int(seed), json.loads(scores)) for name, seed, scores in pictures),
            feedback_of(json.loads(said)) if said else None,
            *rest,
        )
    except (ValueError, TypeError, AttributeError, RecursionError, RefinementError) as error:
        raise RefinementError(
            f"Round {readable(number)} of this session is damaged in Attune's database ({error}). Put a backup of the "
            "database in its place, or begin another session."
        ) from error
    return RoundRow(id, status, made)


def insert_round(connection: sqlite3.Connection, session: int, round_: Round) -> None:
    """Put down an open round."""
    cursor = connection.execute(
        "INSERT INTO session_rounds (session, key, parent, number, attempt, status, prompt, negative, embedding, "
        "schedule, weights, feedback, seconds, lora, latents, made) "
        "VALUES (?, ?, ?, ?, ?, 'open', ?, ?, ?, ?, ?, '', ?, ?, ?, ?)",
        (
            session,
            round_.key,
            round_.parent or "",
            round_.number,
            round_.attempt,
            round_.prompt,
            round_.negative,
            canonical(round_.embedding),
            canonical(plain_schedule(round_.schedule)),
            canonical(plain_weights(round_.weights)) if round_.weights else "",
            round_.seconds,
            round_.lora,
            round_.latents,
            round_.made,
        ),
    )
    connection.executemany(
        "INSERT INTO session_pictures (round, position, hash, seed, scores) VALUES (?, ?, ?, ?, ?)",
        [
            (cursor.lastrowid, position, picture.hash, str(picture.seed), canonical(picture.scores))
            for position, picture in enumerate(round_.pictures)
        ],
    )


def remove_round(connection: sqlite3.Connection, id: int) -> None:
    connection.execute("DELETE FROM session_rounds WHERE id = ?", (id,))


def pass_round(connection: sqlite3.Connection, id: int) -> None:
    """Other pictures take the place of an open round's."""
    connection.execute("UPDATE session_rounds SET status = 'passed' WHERE id = ?", (id,))


def answer_round(connection: sqlite3.Connection, id: int, feedback: Feedback) -> None:
    """Keep what was said to a round, which is committed by it."""
    connection.execute(
        "UPDATE session_rounds SET status = 'committed', feedback = ? WHERE id = ?",
        (canonical(plain_feedback(feedback)), id),
    )


def round_digest(connection: sqlite3.Connection, id: int) -> str:
    """Digest of all that the store holds of a round, as the audit keeps it; reads without understanding."""
    (*fields,) = connection.execute(f"SELECT {_ROUND} FROM session_rounds WHERE id = ?", (id,)).fetchone()
    pictures = connection.execute(
        "SELECT position, hash, seed, scores FROM session_pictures WHERE round = ? ORDER BY position", (id,)
    ).fetchall()
    ratings = connection.execute(
        "SELECT position, rater, stars FROM session_ratings WHERE round = ? ORDER BY position, rater", (id,)
    ).fetchall()
    return digest([[readable(value) for value in row] for row in (fields[1:], *pictures, *ratings)])


def round_digests(connection: sqlite3.Connection, session: int) -> dict[str, str]:
    """Key → digest of all rounds of a session."""
    rows = connection.execute("SELECT id, key FROM session_rounds WHERE session = ?", (session,)).fetchall()
    return {str(readable(key)): round_digest(connection, id) for id, key in rows}


# ---- ratings ----


def put_rating(connection: sqlite3.Connection, round_: int, position: int, rater: str, stars: int) -> None:
    """Keep a rater's stars for a picture, in place of that rater's earlier ones."""
    connection.execute(
        "INSERT INTO session_ratings (round, position, rater, stars) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (round, position, rater) DO UPDATE SET stars = excluded.stars",
        (round_, position, rater, stars),
    )


def read_ratings(connection: sqlite3.Connection, session: int) -> dict[tuple[str, int], dict[str, int]]:
    """(round's key, position) → rater → stars, of all pictures that were rated."""
    rows = connection.execute(
        "SELECT made.key, position, rater, stars FROM session_ratings JOIN session_rounds AS made ON made.id = round "
        "WHERE session = ? ORDER BY made.id, position, rater",
        (session,),
    )
    found: dict[tuple[str, int], dict[str, int]] = {}
    for key, position, rater, stars in rows:
        # What somebody else has written may be of any type; the audit tells of it.
        if isinstance(rater, str) and isinstance(stars, int):
            found.setdefault((key, position), {})[rater] = stars
    return found


# ---- files ----


def used_files(connection: sqlite3.Connection, session: int) -> tuple[set[str], set[str], set[str]]:
    """Hashes of pictures, digests of latents and digests of directions that rounds of a session name."""
    pictures = connection.execute(
        "SELECT DISTINCT hash FROM session_pictures JOIN session_rounds ON session_rounds.id = round WHERE session = ?",
        (session,),
    )
    latents = connection.execute(
        "SELECT DISTINCT latents FROM session_rounds WHERE session = ? AND latents <> ''", (session,)
    )
    embeddings = connection.execute("SELECT embedding FROM session_rounds WHERE session = ?", (session,))
    directions = {direction_of(_readable_json(text)) for (text,) in embeddings}
    return {name for (name,) in pictures}, {name for (name,) in latents}, directions


def _readable_json(text: Any) -> Any:
    """What JSON says; None where somebody else has written something that is none."""
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return None
