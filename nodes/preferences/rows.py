"""Questions and decisions as they lie in the store's tables. Every function works inside the caller's transaction."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .records import Answer, Asked, Decision, Picture, Question

_PER_QUERY = 500
_QUESTIONS = (
    "SELECT q.id, q.kind, prompts.text, q.open, d.id, d.verdict, d.made, chosen.hash "
    "FROM questions AS q JOIN prompts ON prompts.id = q.prompt "
    "LEFT JOIN decisions AS d ON d.id = q.decision LEFT JOIN pictures AS chosen ON chosen.id = d.chosen"
)
_PICTURES = (
    "SELECT place.question, pictures.hash, width, height, seed "
    "FROM question_pictures AS place JOIN pictures ON pictures.id = place.picture "
    "WHERE place.question IN ({}) ORDER BY place.question, position"
)
_STARS = (
    "SELECT decision, hash, stars FROM ratings JOIN pictures ON pictures.id = ratings.picture WHERE decision IN ({})"
)


# ---- reading ----


def read_questions(connection: sqlite3.Connection, where: str, values: Iterable[Any] = ()) -> list[Asked]:
    """The questions that a condition on `questions AS q` (with its ORDER BY and LIMIT) names."""
    rows = connection.execute(f"{_QUESTIONS} WHERE {where}", tuple(values)).fetchall()
    pictures: dict[int, list[Picture]] = {}
    for question, name, width, height, seed in _listed(connection, _PICTURES, [row[0] for row in rows]):
        pictures.setdefault(question, []).append(Picture(name.hex(), width, height, seed))
    stars: dict[int, dict[str, int]] = {}
    for decision, name, count in _listed(connection, _STARS, [row[4] for row in rows if row[5] == "stars"]):
        stars.setdefault(decision, {})[name.hex()] = count
    found = []
    for id, kind, prompt, waits, decision, verdict, made, chosen in rows:
        standing = None
        if decision is not None:
            answer = Answer(verdict, chosen.hex() if chosen else "", stars.get(decision, {}))
            standing = Decision(decision, answer, made)
        found.append(Asked(id, Question(kind, prompt, tuple(pictures[id])), standing, bool(waits)))
    return found


def _listed(connection: sqlite3.Connection, query: str, ids: Sequence[int]) -> Iterator[tuple]:
    for start in range(0, len(ids), _PER_QUERY):
        part = ids[start : start + _PER_QUERY]
        yield from connection.execute(query.format(", ".join("?" * len(part))), part)


# ---- asking ----


def missing_pictures(connection: sqlite3.Connection, pictures: Iterable[Picture]) -> list[Picture]:
    """Those of the pictures that have no row."""
    query = "SELECT 1 FROM pictures WHERE hash = ?"
    return [found for found in pictures if not connection.execute(query, (bytes.fromhex(found.hash),)).fetchone()]


def picture_ids(connection: sqlite3.Connection, pictures: Iterable[Picture]) -> list[int]:
    """Ids of the rows that pictures have."""
    query = "SELECT id FROM pictures WHERE hash = ?"
    found = [connection.execute(query, (bytes.fromhex(picture.hash),)).fetchone() for picture in pictures]
    return [row[0] for row in found if row is not None]


def insert_pictures(connection: sqlite3.Connection, pictures: Iterable[Picture]) -> None:
    """Make rows for pictures that have none yet."""
    connection.executemany(
        "INSERT OR IGNORE INTO pictures (hash, width, height) VALUES (?, ?, ?)",
        [(bytes.fromhex(found.hash), found.width, found.height) for found in pictures],
    )


def insert_question(connection: sqlite3.Connection, profile: int, question: Question) -> bool:
    """Keep a question, whose pictures are known; False if it was there. A prompt that was missing is put down now."""
    values = (profile, bytes.fromhex(question.key))
    known = connection.execute(
        "SELECT q.id, text FROM questions AS q JOIN prompts ON prompts.id = q.prompt WHERE profile = ? AND key = ?",
        values,
    ).fetchone()
    if known is not None:
        if question.prompt and not known[1]:
            prompt = _prompt_id(connection, question.prompt)
            connection.execute("UPDATE questions SET prompt = ? WHERE id = ?", (prompt, known[0]))
        return False
    cursor = connection.execute(
        "INSERT INTO questions (profile, key, kind, prompt) VALUES (?, ?, ?, ?)",
        (*values, question.kind, _prompt_id(connection, question.prompt)),
    )
    connection.executemany(
        "INSERT INTO question_pictures (question, position, picture, seed) "
        "SELECT ?, ?, id, ? FROM pictures WHERE hash = ?",
        [(cursor.lastrowid, position, picture.seed, bytes.fromhex(picture.hash))
         for position, picture in enumerate(question.pictures)],
    )  # fmt: skip
    return True


def _prompt_id(connection: sqlite3.Connection, text: str) -> int:
    """Id of a prompt, which is put down if it is new."""
    found = connection.execute("SELECT id FROM prompts WHERE text = ?", (text,)).fetchone()
    if found is not None:
        return found[0]
    return connection.execute("INSERT INTO prompts (text) VALUES (?)", (text,)).lastrowid


# ---- deciding ----


def insert_decision(connection: sqlite3.Connection, profile: int, asked: Asked, answer: Answer) -> int:
    """Put down a decision, which now stands; its id. Earlier ones stay, to come back when this one is taken back."""
    ids = {}
    for name in {answer.chosen, *answer.stars} - {""}:
        row = connection.execute("SELECT id FROM pictures WHERE hash = ?", (bytes.fromhex(name),)).fetchone()
        ids[name] = row[0]
    cursor = connection.execute(
        "INSERT INTO decisions (profile, question, verdict, chosen, made) VALUES (?, ?, ?, ?, ?)",
        (profile, asked.id, answer.verdict, ids.get(answer.chosen), int(time.time())),
    )
    decision = cursor.lastrowid
    connection.executemany(
        "INSERT INTO ratings (decision, picture, stars) VALUES (?, ?, ?)",
        [(decision, ids[name], stars) for name, stars in answer.stars.items()],
    )
    settle(connection, asked.id)
    return decision


def settle(connection: sqlite3.Connection, question: int) -> None:
    """Let the newest decision of a question stand."""
    newest = connection.execute(
        "SELECT id, verdict FROM decisions WHERE question = ? ORDER BY id DESC LIMIT 1", (question,)
    ).fetchone()
    decision, verdict = newest or (None, None)
    waits = decision is None
    if verdict == "stars":
        (unrated,) = connection.execute(
            "SELECT COUNT(*) FROM question_pictures WHERE question = ? AND picture NOT IN "
            "(SELECT picture FROM ratings WHERE decision = ?)",
            (question, decision),
        ).fetchone()
        waits = unrated > 0
    connection.execute(
        "UPDATE questions SET decision = ?, verdict = ?, open = ? WHERE id = ?", (decision, verdict, waits, question)
    )


def remove_decision(connection: sqlite3.Connection, profile: int, decision: int | None) -> int | None:
    """Take back a decision, the profile's newest if None is named; the id of its question, None if there is none."""
    which, values = ("1", ()) if decision is None else ("id = ?", (decision,))
    found = connection.execute(
        f"SELECT id, question FROM decisions WHERE profile = ? AND {which} ORDER BY id DESC LIMIT 1",
        (profile, *values),
    ).fetchone()
    if found is None:
        return None
    connection.execute("DELETE FROM decisions WHERE id = ?", (found[0],))
    settle(connection, found[1])
    return found[1]


def raise_revision(connection: sqlite3.Connection, profile: int) -> None:
    connection.execute("UPDATE profiles SET revision = revision + 1 WHERE id = ?", (profile,))


# ---- removing ----


def drop_oldest_waiting(connection: sqlite3.Connection, profile: int, most: int, keep: Iterable[str]) -> list[str]:
    """Forget what has waited longest and was never answered, beyond `most`; hashes of pictures that nobody needs now.

    Args:
        keep: keys of questions that stay in any case.
    """
    kept = {bytes.fromhex(name) for name in keep}
    rows = connection.execute(
        "SELECT id, key, prompt FROM questions WHERE profile = ? AND open = 1 AND decision IS NULL "
        "ORDER BY id DESC LIMIT -1 OFFSET ?",
        (profile, most),
    ).fetchall()
    touched: set[int] = set()
    for id, key, prompt in rows:
        if key in kept:
            continue
        places = connection.execute("SELECT picture FROM question_pictures WHERE question = ?", (id,))
        touched.update(picture for (picture,) in places)
        connection.execute("DELETE FROM questions WHERE id = ?", (id,))
        connection.execute(
            "DELETE FROM prompts WHERE id = ? AND NOT EXISTS (SELECT 1 FROM questions WHERE prompt = ?)",
            (prompt, prompt),
        )
    return remove_unused_pictures(connection, touched)


def any_unused_picture(connection: sqlite3.Connection) -> bool:
    """Whether a picture is in no question."""
    query = "SELECT 1 FROM pictures WHERE id NOT IN (SELECT picture FROM question_pictures) LIMIT 1"
    return connection.execute(query).fetchone() is not None


def remove_unused_pictures(connection: sqlite3.Connection, ids: Iterable[int] | None = None) -> list[str]:
    """Remove those of the pictures (None = of all) that are in no question; their hashes."""
    if ids is None:
        query = "SELECT id FROM pictures WHERE id NOT IN (SELECT picture FROM question_pictures)"
        ids = [id for (id,) in connection.execute(query)]
    removed = []
    for id in ids:
        if connection.execute("SELECT 1 FROM question_pictures WHERE picture = ? LIMIT 1", (id,)).fetchone():
            continue
        (name,) = connection.execute("SELECT hash FROM pictures WHERE id = ?", (id,)).fetchone()
        connection.execute("DELETE FROM pictures WHERE id = ?", (id,))
        removed.append(name.hex())
    return removed
