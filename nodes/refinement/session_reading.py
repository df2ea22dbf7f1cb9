"""What the store's rows say together: a session's state, its tree, everything about it. Inside a transaction."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from . import audit
from .checks import RefinementError, StaleError, check_seed, check_text
from .records import Round, SessionState
from .session_rows import (
    RoundRow,
    SessionRow,
    read_ratings,
    read_rounds,
    read_sound_rounds,
    round_digests,
    session_digest,
)
from .tree import Tree


@dataclass(frozen=True)
class Summary:
    """A session in a list.

    Attributes:
        rounds: that were committed, on all branches.
        accepted: whether a round on the way to its head has what was meant, see `SessionState.accepted`.
        changes: rows of its audit.
        created, changed: seconds since 1970.
    """

    key: str
    name: str
    revision: int
    prompt: str
    rounds: int
    accepted: bool
    changes: int
    created: int
    changed: int


@dataclass(frozen=True)
class SessionRecord:
    """Everything about a session at one moment, for reports.

    Attributes:
        rounds: all that were committed, on all branches, in that order.
        passed: rounds in whose place other pictures were asked for.
        ratings: (round's key, position) → rater → stars.
        rows: of the audit. verdict: whether all is as it was written.
        created, changed: seconds since 1970.
    """

    state: SessionState
    rounds: tuple[Round, ...]
    passed: tuple[Round, ...]
    ratings: Mapping[tuple[str, int], Mapping[str, int]]
    rows: tuple[audit.AuditRow, ...]
    verdict: audit.AuditVerdict
    created: int
    changed: int


def read_state(connection: sqlite3.Connection, session: SessionRow, replay: str | None = None) -> SessionState:
    """A session as the next run sees it; see `SessionStore.state`.

    Raises:
        UnknownError: there is no round to replay of that key. RefinementError: a round is damaged.
    """
    return _state(session, read_rounds(connection, session.id), session.head or None, replay)


def _state(session: SessionRow, rows: Sequence[RoundRow], head: str | None, replay: str | None = None) -> SessionState:
    tree = Tree(row.round for row in rows if row.status == "committed")
    again = tree.round(replay) if replay is not None else None
    if again is not None:
        head = again.parent
    path = tree.path(head)
    waiting = next((row.round for row in rows if row.status == "open" and row.round.parent == head), None)
    known = [*path, *(round_ for round_ in (again or waiting,) if round_)]
    tested = next((round_.schedule for round_ in reversed(known) if round_.schedule.arm), None)
    return SessionState(
        session.key,
        session.name,
        session.revision,
        session.seed,
        session.prompt,
        session.negative,
        path,
        again.attempt if again else next_attempt(rows, head),
        None if again else waiting,
        again,
        tested.arm if tested else "",
        tested.test if tested else "",
        () if again else session.undone,
        () if again else tuple(row.round for row in rows if row.status == "passed" and row.round.parent == head),
    )


def next_attempt(rows: Sequence[RoundRow], head: str | None) -> int:
    """Which attempt the next run makes of this head: one more for every time that other pictures were asked for."""
    here = [row for row in rows if row.round.parent == head]
    return max((row.round.attempt + (row.status == "passed") for row in here), default=0)


def next_place(connection: sqlite3.Connection, session: SessionRow) -> tuple[str | None, int, int]:
    """Of the round to be made: its parent, number and attempt."""
    parent = session.head or None
    number = len(read_tree(connection, session).path(parent)) + 1
    return parent, number, next_attempt(read_rounds(connection, session.id), parent)


def read_tree(connection: sqlite3.Connection, session: SessionRow) -> Tree:
    """All committed rounds."""
    return Tree(row.round for row in read_rounds(connection, session.id, "status = 'committed'"))


def read_record(connection: sqlite3.Connection, session: SessionRow) -> SessionRecord:
    """Everything about a session that can be read; the verdict tells what cannot."""
    rows, wrong = read_sound_rounds(connection, session.id)
    rooted = _rooted(rows)
    if len(rooted) < len(rows):
        wrong.append(f"{len(rows) - len(rooted)} rounds build on one that cannot be read.")
    rows, verdict = rooted, check_audit(connection, session)
    if wrong:
        told = "Not all rounds can be read: they, and what builds on them, are missing from all figures."
        verdict = dataclasses.replace(verdict, problems=(*verdict.problems, told, *wrong))
    head = session.head if session.head in {row.round.key for row in rows if row.status == "committed"} else None
    return SessionRecord(
        _state(session, rows, head),
        tuple(row.round for row in rows if row.status == "committed"),
        tuple(row.round for row in rows if row.status == "passed"),
        read_ratings(connection, session.id),
        tuple(audit.read_rows(connection, session.id)),
        verdict,
        session.created,
        session.changed,
    )


def _rooted(rows: Sequence[RoundRow]) -> list[RoundRow]:
    """Those of which every round before is there."""
    committed = {row.round.key: row.round for row in rows if row.status == "committed"}
    rooted: set[str | None] = {None}
    # A round comes later than its parent, but for one that was put in by somebody else.
    for key, round_ in committed.items():
        if round_.parent in rooted:
            rooted.add(key)
    return [row for row in rows if row.round.parent in rooted]


def check_audit(connection: sqlite3.Connection, session: SessionRow) -> audit.AuditVerdict:
    """Whether a session's rows are what was written."""
    records = round_digests(connection, session.id)
    return audit.check(connection, session.id, session_digest(connection, session.id), records)


def readable_rounds(connection: sqlite3.Connection, session: SessionRow) -> list[Round]:
    """All rounds; none where some are damaged, of which the audit tells."""
    try:
        return [row.round for row in read_rounds(connection, session.id)]
    except RefinementError:
        return []


def read_summary(connection: sqlite3.Connection, row: SessionRow) -> Summary:
    """A session as lists show it."""
    (rounds,) = connection.execute(
        "SELECT COUNT(*) FROM session_rounds WHERE session = ? AND status = 'committed'", (row.id,)
    ).fetchone()
    # UNION, not UNION ALL: it ends even where somebody has bent the way into a ring.
    (accepted,) = connection.execute(
        "WITH RECURSIVE way (key, parent, feedback) AS (SELECT key, parent, feedback FROM session_rounds "
        "WHERE session = :id AND key = :head UNION SELECT past.key, past.parent, past.feedback "
        "FROM session_rounds AS past JOIN way ON past.key = way.parent WHERE past.session = :id) "
        "SELECT COALESCE(MAX(instr(feedback, '\"accepted\":true') > 0), 0) FROM way",
        {"id": row.id, "head": row.head},
    ).fetchone()
    return Summary(
        row.key, row.name, row.revision, row.prompt, rounds, bool(accepted), row.audit_rows, row.created, row.changed
    )  # fmt: skip


def key_of(connection: sqlite3.Connection, name: str) -> str | None:
    """The key of the session of that name."""
    query = "SELECT key FROM sessions WHERE name <> '' AND folded = ?"
    found = connection.execute(query, (name.casefold(),)).fetchone()
    return found[0] if found else None


def check_free(connection: sqlite3.Connection, name: str, *, but: str = "") -> None:
    """
    Raises:
        RefinementError: a session (other than `but`) has that name.
    """
    if key_of(connection, name) not in (None, but):
        raise RefinementError(f"Another session is called {name!r}. Choose another name, or continue that session.")


def check_wish(prompt: str, negative: str, seed: int) -> None:
    """
    Raises:
        RefinementError: a session cannot begin with these.
    """
    check_text(prompt, "The prompt")
    check_text(negative, "The negative prompt")
    check_seed(seed)


def check_revision(session: SessionRow, revision: int) -> None:
    """
    Raises:
        StaleError: the session is at another revision.
    """
    if session.revision != revision:
        raise StaleError(
            f"The session {session.name!r} has moved on: it is at revision {session.revision}, and this was made for "
            f"revision {revision}. Nothing was changed. Press Run, or reload the page."
        )
