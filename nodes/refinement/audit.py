"""The audit of a session: one row per change, each of which holds the hash of the one before. Ours.

    own hash = sha256(canonical JSON of [session, number, time, round, kind, body, previous row's hash])

The session's row keeps how many there are and the last hash. So whoever edits, removes, inserts or reorders rows
without writing every later hash anew is found out, and so is an edit of the rounds themselves: a row holds digests of
what it has changed. What the chain cannot show is a history that somebody has written anew from some row to the end,
hashes included: for that, keep the last hash elsewhere (the report prints it).

A row's body holds, as JSON:
    head, revision: of the session after the change.
    session: digest of the session's own fields after the change.
    records: round → digest of what the store holds of it after the change; null = removed.
    rule, weights_before, weights_after, rewards (per picture), schedule, lora: of the round that the change is about.
    choice: what was said to it, with the comment as its sha256.
    seed: the session's. detail: what else belongs to that kind of change.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .plain_records import canonical, plain_feedback, plain_schedule
from .records import Feedback, Round

# created, worded (the first wish was changed), renamed, proposed (a run has made pictures), again (other pictures were
# asked for), committed, accepted, undone, redone, branched, rated, replayed.
KINDS = (
    "created", "worded", "renamed", "proposed", "again", "committed", "accepted", "undone", "redone", "branched",
    "rated", "replayed",
)  # fmt: skip
_MOST_PROBLEMS = 20
_ROW = "number, made, round, kind, body, previous, own"


@dataclass(frozen=True)
class AuditRow:
    """One change. `number`: 1, 2, …; `made`: seconds since 1970; `round`: key, "" = none; `body`: see the module."""

    number: int
    made: int
    round: str
    kind: str
    body: dict[str, Any]
    previous: str
    own: str


@dataclass(frozen=True)
class AuditVerdict:
    """Whether a session is as it was written.

    Attributes:
        rows: of the audit.
        last: hash of the last row.
        problems: what is wrong, in words; empty = nothing.
    """

    rows: int
    last: str
    problems: tuple[str, ...]

    @property
    def sound(self) -> bool:
        return not self.problems


def digest(value: Any) -> str:
    """sha256 of a value's canonical JSON, 64 hex digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def readable(value: Any) -> str | int:
    """What somebody else has written may be of any type; its repr tells what JSON cannot hold."""
    return value if isinstance(value, (str, int)) else repr(value)


def row_hash(session: str, number: int, made: int, round_: str, kind: str, body: str, previous: str) -> str:
    """The hash of a row whose body is that text."""
    return digest([session, number, made, round_, kind, body, previous])


def about(round_: Round | None, feedback: Feedback | None = None) -> dict[str, Any]:
    """What a row says of the round it is about, and of what is said to it now (None: what was said before)."""
    if round_ is None:
        return dict.fromkeys(("rule", "weights_before", "weights_after", "rewards", "choice", "schedule", "lora"))
    weights, said = round_.weights, feedback or round_.feedback
    return {
        "rule": weights.rule if weights else None,
        "weights_before": weights.before if weights else None,
        "weights_after": weights.after if weights else None,
        "rewards": [picture.scores for picture in round_.pictures],
        "choice": _choice(said) if said else None,
        "schedule": plain_schedule(round_.schedule),
        "lora": round_.lora,
    }


def _choice(feedback: Feedback) -> dict[str, Any]:
    return {**plain_feedback(feedback), "comment": hashlib.sha256(feedback.comment.encode()).hexdigest()}


def append(
    connection: sqlite3.Connection, session: int, kind: str, round_: str, body: Mapping[str, Any], made: int
) -> None:  # fmt: skip
    """Add a row behind the last one, inside the caller's transaction."""
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no kind of change; there are {', '.join(KINDS)}.")
    key, count, previous = connection.execute(
        "SELECT key, audit_rows, audit_hash FROM sessions WHERE id = ?", (session,)
    ).fetchone()
    text = canonical(body)
    own = row_hash(key, count + 1, made, round_, kind, text, previous)
    connection.execute(
        "INSERT INTO session_audit (session, number, made, round, kind, body, previous, own) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (session, count + 1, made, round_, kind, text, previous, own),
    )
    connection.execute(
        "UPDATE sessions SET audit_rows = ?, audit_hash = ?, changed = ? WHERE id = ?", (count + 1, own, made, session)
    )


def read_rows(connection: sqlite3.Connection, session: int) -> list[AuditRow]:
    """The rows of a session in their order. Those that hold what no row can are left out: `check` tells of them."""
    rows = connection.execute(f"SELECT {_ROW} FROM session_audit WHERE session = ? ORDER BY number", (session,))
    return [
        AuditRow(number, made, round_, kind, content, previous, own)
        for number, made, round_, kind, body, previous, own in rows
        if isinstance(number, int)
        and isinstance(made, int)
        and all(isinstance(text, str) for text in (round_, kind, previous, own))
        and (content := _body(body)) is not None
    ]


def _body(text: Any) -> dict[str, Any] | None:
    """A row's body; None where it is none."""
    try:
        body = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def check(connection: sqlite3.Connection, session: int, own_digest: str, records: Mapping[str, str]) -> AuditVerdict:
    """Compare a session with its audit.

    Args:
        connection: in a transaction, so that nobody changes the session meanwhile.
        session: its id.
        own_digest: digest of its own fields as they are now.
        records: round → digest of what the store holds of it now.
    """
    key, count, last = connection.execute(
        "SELECT key, audit_rows, audit_hash FROM sessions WHERE id = ?", (session,)
    ).fetchone()
    rows = connection.execute(
        f"SELECT {_ROW} FROM session_audit WHERE session = ? ORDER BY number, id", (session,)
    ).fetchall()
    problems = _chain_problems(key, rows, count, last)
    problems += _record_problems([body for *_, body, _, _ in rows], own_digest, records)
    problems += _column_problems(connection, session, rows)
    if len(problems) > _MOST_PROBLEMS:
        problems = [*problems[:_MOST_PROBLEMS], f"… and {len(problems) - _MOST_PROBLEMS} more."]
    return AuditVerdict(len(rows), last, tuple(problems))


def _chain_problems(key: str, rows: Sequence[tuple], count: int, last: str) -> list[str]:
    problems = []
    previous = ""
    for place, row in enumerate(rows, start=1):
        number, made, round_, kind, body, stated_previous, own = map(readable, row)
        if number != place:
            problems.append(f"Audit row {place} is missing or out of its place: the row found there is {number}.")
        if stated_previous != previous:
            problems.append(f"Audit row {number} does not continue the row before it: one was removed or inserted.")
        if row_hash(key, number, made, round_, kind, body, stated_previous) != own:
            problems.append(f"Audit row {number} ({kind}) was edited: its content does not have its hash.")
        previous = own
    if (len(rows), previous) != (count, last):
        problems.append(
            f"The session states {count} audit rows that end in {last[:12] or 'nothing'}; there are {len(rows)} that "
            f"end in {previous[:12] or 'nothing'}."
        )
    return problems


def _column_problems(connection: sqlite3.Connection, session: int, rows: Sequence[tuple]) -> list[str]:
    """Of the columns that follow from others, and are in no digest."""
    name, folded, changed = connection.execute(
        "SELECT name, folded, changed FROM sessions WHERE id = ?", (session,)
    ).fetchone()
    problems = []
    if isinstance(name, str) and name and folded != name.casefold():
        problems.append("The session's own row was edited: it can no longer be found by its name.")
    if rows and changed != rows[-1][1]:
        problems.append("The session's own row was edited: the time of its last change.")
    return problems


def _record_problems(bodies: Iterable[str], own_digest: str, records: Mapping[str, str]) -> list[str]:
    expected: dict[str, str | None] = {}
    stated = None
    for text in bodies:
        body = _body(text) or {}
        # Anything else is an edited row, which the chain has told of.
        if isinstance(body.get("records"), dict) and "session" in body:
            expected |= body["records"]
            stated = body["session"]
    problems = []
    if stated != own_digest:
        problems.append("The session's own row was edited: its name, first wish, seed or place in the tree.")
    for key, value in expected.items():
        if value is None and key in records:
            problems.append(f"The round {key[:12]} is there although it was replaced.")
        elif value is not None and key not in records:
            problems.append(f"The round {key[:12]} was removed.")
        elif value is not None and records[key] != value:
            problems.append(f"The round {key[:12]} was edited: it is not what was audited.")
    inserted = sorted(records.keys() - expected.keys())
    return problems + [f"The round {key[:12]} was inserted: no audit row tells of it." for key in inserted]
