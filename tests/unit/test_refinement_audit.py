"""The audit of a session: every change has a row, and whatever was edited, removed, inserted or reordered is found."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from attune.nodes.refinement.audit import row_hash
from attune.nodes.refinement.checks import RefinementError
from attune.nodes.refinement.records import Feedback, SessionState
from attune.nodes.refinement.report import report_of
from attune.nodes.refinement.report_html import report_html
from attune.nodes.refinement.report_picture import report_picture
from attune.nodes.refinement.store import SessionStore
from attune.tests.refinement_sessions import opened, play, propose

TRIGGERS = ("session_audit_stays", "session_audit_remains")


@pytest.fixture
def sessions(tmp_path: Path) -> SessionStore:
    return opened(tmp_path)


@pytest.fixture
def played(sessions: SessionStore) -> SessionState:
    """A session with something of every kind, and another one beside it."""
    state = sessions.create("cats", "a cat", seed=7)
    state = sessions.reword(state.key, 0, "a black cat", seed=7)
    first = propose(sessions, state)
    state = sessions.again(state.key, state.revision, first.key)
    state = play(sessions, state, (3, 4), Feedback("darker", liked=(1,), rating=4))
    state = play(sessions, state, (5, 6))
    state = sessions.undo(state.key, state.revision)
    state = sessions.redo(state.key, state.revision)
    state = sessions.branch(state.key, state.revision, state.path[0].key)
    propose(sessions, state, (7, 8))
    state = sessions.accept(state.key, state.revision, state.path[0].key, 0)
    sessions.rate(state.key, state.last.key, "Ann", {0: 5})
    sessions.rename(state.key, "black cats")
    sessions.replayed(state.key, state.last.key, exact=False)
    play(sessions, sessions.create("other", "a dog"))
    return sessions.state(state.key)


def tamper(sessions: SessionStore, statement: str, values: tuple = ()) -> None:
    """As somebody would who opens the file with another program and knows how to drop the triggers."""
    sessions.store.close()
    with closing(sqlite3.connect(sessions.store.path)) as connection:
        kept = [
            connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0]
            for name in TRIGGERS
        ]
        for name in TRIGGERS:
            connection.execute(f"DROP TRIGGER {name}")
        assert connection.execute(statement, values).rowcount > 0, "the test must change something"
        for sql in kept:
            connection.execute(sql)
        connection.commit()


def test_every_change_has_one_row_in_order(sessions: SessionStore, played: SessionState):
    rows = sessions.audit_rows(played.key)
    assert [row.kind for row in rows] == [
        "created", "worded", "proposed", "again", "proposed", "committed", "proposed", "committed", "undone", "redone",
        "branched", "proposed", "accepted", "rated", "renamed", "replayed",
    ]  # fmt: skip
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    assert all(row.previous == before.own for before, row in pairwise(rows)) and not rows[0].previous
    verdict = sessions.verify(played.key, pictures=True)
    assert verdict.sound and verdict.rows == len(rows) and verdict.last == rows[-1].own


def test_a_row_says_what_the_round_was_made_with_and_what_was_chosen(sessions: SessionStore, played: SessionState):
    row = next(row for row in sessions.audit_rows(played.key) if row.kind == "committed")
    comment = hashlib.sha256(b"darker").hexdigest()
    assert row.round == played.path[0].key
    assert (row.body["rule"], row.body["weights_before"], row.body["weights_after"]) == (
        "rule", {"judge": 1.0}, {"judge": 0.5}
    )  # fmt: skip
    assert row.body["rewards"] == [{"judge": 3.0}, {"judge": 4.0}]
    assert row.body["choice"] == {
        "comment": comment, "liked": [1], "disliked": [], "rating": 4, "accepted": False, "rater": ""
    }  # fmt: skip
    assert (row.body["schedule"]["seeds"], row.body["seed"], row.body["lora"]) == (["3", "4"], "7", "")
    assert (row.body["head"], row.body["revision"]) == (row.round, 3)


def test_the_hash_is_that_of_the_documented_values(sessions: SessionStore, played: SessionState):
    """Written out once more, so that a report can be checked without this pack."""
    with sessions.store.reading() as connection:
        number, made, round_, kind, body, previous, own = connection.execute(
            "SELECT number, made, round, kind, body, previous, own FROM session_audit WHERE number = 2 AND session = 1"
        ).fetchone()
    values = [played.key, number, made, round_, kind, body, previous]
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == own


def test_rows_cannot_be_changed_or_deleted(sessions: SessionStore, played: SessionState):
    for statement in (
        "UPDATE session_audit SET made = 0",
        "DELETE FROM session_audit",
        "DELETE FROM session_audit WHERE number = 1",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="never changed"), sessions.store.writing() as connection:
            connection.execute(statement)
    assert sessions.verify(played.key).sound


EDITS = {
    column: f"UPDATE session_audit SET {column} = {value} WHERE session = 1 AND number = 6"
    for column, value in {
        "made": "made + 1",
        "round": "'" + "0" * 32 + "'",
        "kind": "'accepted'",
        "body": """replace(body, '"judge":0.5', '"judge":0.6')""",
        "previous": "replace(previous, substr(previous, 1, 1), 'z')",
        "own": "replace(own, substr(own, 1, 1), 'z')",
        "session": "2",
    }.items()
}


@pytest.mark.parametrize("column", [*EDITS, "body's blanks", "body that is no JSON"])
def test_any_edited_column_is_found(sessions: SessionStore, played: SessionState, column: str):
    more = {
        "body's blanks": "UPDATE session_audit SET body = body || ' ' WHERE session = 1 AND number = 6",
        "body that is no JSON": "UPDATE session_audit SET body = 'x' WHERE session = 1 AND number = 6",
    }
    if column == "session":
        tamper(sessions, "UPDATE session_audit SET number = 100 WHERE session = 2 AND number = 1")
    tamper(sessions, {**EDITS, **more}[column])
    verdict = sessions.verify(played.key)
    assert not verdict.sound
    assert any("6" in problem or "7" in problem for problem in verdict.problems), verdict.problems


@pytest.mark.parametrize("number", [1, 8, 16])
def test_a_removed_row_is_found(sessions: SessionStore, played: SessionState, number: int):
    tamper(sessions, "DELETE FROM session_audit WHERE session = 1 AND number = ?", (number,))
    assert not sessions.verify(played.key).sound


def test_removed_rows_at_the_end_are_found_even_when_the_count_is_mended(sessions: SessionStore, played: SessionState):
    tamper(sessions, "DELETE FROM session_audit WHERE session = 1 AND number > 12")
    tamper(
        sessions,
        "UPDATE sessions SET audit_rows = 12, "
        "audit_hash = (SELECT own FROM session_audit WHERE session = 1 AND number = 12) WHERE id = 1",
    )
    problems = sessions.verify(played.key).problems
    assert any("own row" in problem for problem in problems), "name and head are those of later rows"
    assert any("was edited" in problem and played.last.key[:12] in problem for problem in problems)


def test_an_inserted_row_is_found(sessions: SessionStore, played: SessionState):
    """With a right hash of its own, behind the last and in between."""
    last = sessions.verify(played.key).last
    own = row_hash(played.key, 17, 1, "", "renamed", "{}", last)
    insert = (
        "INSERT INTO session_audit (session, number, made, round, kind, body, previous, own) "
        "VALUES (1, ?, 1, '', ?, '{}', ?, ?)"
    )
    tamper(sessions, insert, (17, "renamed", last, own))
    assert any("states 16 audit rows" in problem for problem in sessions.verify(played.key).problems)
    tamper(sessions, "DELETE FROM session_audit WHERE session = 1 AND number = 17")
    assert sessions.verify(played.key).sound
    tamper(sessions, "UPDATE session_audit SET number = number + 1000 WHERE session = 1 AND number > 5")
    tamper(sessions, "UPDATE session_audit SET number = number - 999 WHERE session = 1 AND number > 1000")
    (before,) = (row.own for row in sessions.audit_rows(played.key) if row.number == 5)
    tamper(sessions, insert, (6, "renamed", before, row_hash(played.key, 6, 1, "", "renamed", "{}", before)))
    assert not sessions.verify(played.key).sound


def test_two_rows_that_change_places_are_found(sessions: SessionStore, played: SessionState):
    for before, after in ((9, 100), (10, 9), (100, 10)):
        tamper(sessions, "UPDATE session_audit SET number = ? WHERE session = 1 AND number = ?", (after, before))
    assert not sessions.verify(played.key).sound


COMMITTED = "(SELECT id FROM session_rounds WHERE session = 1 AND status = 'committed' LIMIT 1)"


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (f"UPDATE session_rounds SET prompt = 'a dog' WHERE id = {COMMITTED}", "was edited"),
        (f"UPDATE session_rounds SET feedback = replace(feedback, 'dark', 'x') WHERE id = {COMMITTED}", "was edited"),
        (f"UPDATE session_rounds SET seconds = seconds + 1e-9 WHERE id = {COMMITTED}", "was edited"),
        (f"UPDATE session_rounds SET schedule = 'no JSON' WHERE id = {COMMITTED}", "was edited"),
        (f"UPDATE session_rounds SET prompt = x'ff00' WHERE id = {COMMITTED}", "was edited"),
        (f"UPDATE session_pictures SET scores = '{{}}' WHERE round = {COMMITTED} AND position = 1", "was edited"),
        (f"UPDATE session_pictures SET position = 9 WHERE round = {COMMITTED} AND position = 1", "was edited"),
        (f"DELETE FROM session_ratings WHERE round = {COMMITTED}", "was edited"),
        (f"UPDATE session_ratings SET stars = 1 WHERE round = {COMMITTED}", "was edited"),
        (f"DELETE FROM session_rounds WHERE id = {COMMITTED}", "was removed"),
        ("UPDATE session_rounds SET session = 1 WHERE session = 2", "was inserted"),
        ("UPDATE sessions SET prompt = 'a dog' WHERE id = 1", "own row"),
        ("UPDATE sessions SET seed = '8' WHERE id = 1", "own row"),
        ("UPDATE sessions SET head = '' WHERE id = 1", "own row"),
        ("UPDATE sessions SET revision = revision + 1 WHERE id = 1", "own row"),
        ("UPDATE sessions SET folded = 'x' WHERE id = 1", "found by its name"),
        ("UPDATE sessions SET changed = changed + 1 WHERE id = 1", "time of its last change"),
        ("UPDATE sessions SET audit_rows = audit_rows - 1 WHERE id = 1", "states 15"),
    ],
)  # fmt: skip
def test_an_edited_session_is_found(sessions: SessionStore, played: SessionState, statement: str, words: str):
    tamper(sessions, statement)
    problems = sessions.verify(played.key, pictures=True).problems
    assert any(words in problem for problem in problems), problems
    assert sessions.verify(played.key).rows == 16


ROW = "UPDATE session_audit SET {} WHERE session = 1 AND number = 6"


@pytest.mark.parametrize(
    ("statement", "words", "rounds"),
    [
        (ROW.format("body = 'xx'"), "row 6", 2),
        (ROW.format("body = '[1]'"), "row 6", 2),
        (ROW.format("""body = '{"records": [["a", "b"]], "session": "x"}'"""), "row 6", 2),
        (ROW.format("body = x'ff00'"), "row 6", 2),
        (ROW.format(f"body = '{'[' * 100_000}'"), "row 6", 2),
        (ROW.format("made = 'abc'"), "row 6", 2),
        (ROW.format("made = x'00ff'"), "row 6", 2),
        (ROW.format("kind = x'00ff'"), "row 6", 2),
        (ROW.format("body = CAST(x'ff' AS TEXT)"), "row 6", 2),
        (ROW.format("number = 'six'"), "row 6 is missing", 2),
        (f"UPDATE session_rounds SET feedback = '{{' WHERE id = {COMMITTED}", "was edited", 0),
        (f"UPDATE session_rounds SET made = x'00' WHERE id = {COMMITTED}", "was edited", 0),
        (f"UPDATE session_rounds SET prompt = CAST(x'ff' AS TEXT) WHERE id = {COMMITTED}", "was edited", 2),
        (f"UPDATE session_rounds SET prompt = x'ff00' WHERE id = {COMMITTED}", "was edited", 0),
        ("UPDATE session_rounds SET schedule = '' WHERE session = 1 AND number = 2", "was edited", 1),
        (f"UPDATE session_rounds SET key = x'ff00' WHERE id = {COMMITTED}", "was removed", 0),
        (f"DELETE FROM session_rounds WHERE id = {COMMITTED}", "was removed", 0),
        (f"UPDATE session_ratings SET rater = x'00' WHERE round = {COMMITTED}", "was edited", 2),
        ("UPDATE sessions SET head = x'00' WHERE id = 1", "", 2),
        ("UPDATE sessions SET undone = 'x' WHERE id = 1", "", 2),
    ],
)  # fmt: skip
def test_a_report_shows_what_it_is_there_to_show(
    sessions: SessionStore, played: SessionState, statement: str, words: str, rounds: int
):
    """Whatever was written into the store: a report with the verdict, or words that say what is damaged."""
    tamper(sessions, statement)
    if not words:
        with pytest.raises(RefinementError, match="damaged in Attune's database"):
            report_of(sessions, played.key)
        assert [found.name for found in sessions.summaries()] == ["other"], "the others can still be seen"
        return
    report = report_of(sessions, played.key, everything=True)
    assert not report["audit"]["sound"] and any(words in problem for problem in report["audit"]["problems"]), report
    assert len(report["rounds"]) == rounds
    assert any("missing from all figures" in problem for problem in report["audit"]["problems"]) == (rounds < 2)
    page = report_html(json.loads(json.dumps(report)), sessions.files(played.key).pictures.get)
    assert "Audit: something was changed" in page
    assert report_picture(report, sessions.files(played.key).pictures.get).isfinite().all()


def test_a_picture_that_was_changed_or_removed_is_found(sessions: SessionStore, played: SessionState):
    files = sessions.files(played.key).pictures
    first, second = (picture.hash for picture in played.path[0].pictures)
    files.path(first).write_bytes(files.read(second))
    files.path(second).unlink()
    assert sessions.verify(played.key).sound, "the rows are as they were"
    problems = sessions.verify(played.key, pictures=True).problems
    assert [bool(re.search("pixels have changed", problem)) for problem in problems] == [True, False]
    assert "not there any more" in problems[1]


def test_many_problems_are_counted_not_listed(sessions: SessionStore, played: SessionState):
    tamper(sessions, "UPDATE session_audit SET previous = 'x', made = 0 WHERE session = 1")
    problems = sessions.verify(played.key).problems
    assert len(problems) == 21 and re.fullmatch(r"… and \d+ more\.", problems[-1])


@pytest.mark.parametrize(
    "move",
    [
        lambda sessions, state: sessions.commit(state.key, state.revision, state.open.key, Feedback(liked=(5,))),
        lambda sessions, state: sessions.undo(state.key, state.revision + 1),
        lambda sessions, state: sessions.rate(state.key, "0" * 32, "Ann", {0: 1}),
        lambda sessions, state: sessions.rename(state.key, "other"),
    ],
)
def test_what_is_refused_leaves_no_row(
    sessions: SessionStore, played: SessionState, move: Callable[[SessionStore, SessionState], object]
):
    propose(sessions, played, (9, 10))
    state = sessions.state(played.key)
    rows = sessions.audit_rows(state.key)
    with pytest.raises(RuntimeError):
        move(sessions, state)
    assert sessions.audit_rows(state.key) == rows and sessions.state(state.key) == state
    assert sessions.verify(state.key).sound


def test_a_move_that_breaks_half_way_is_undone_wholly(sessions: SessionStore, played: SessionState):
    """The audit row cannot be written: neither is the answer."""
    round_ = propose(sessions, played, (9, 10))
    before = sessions.record(played.key)
    with sessions.store.writing() as connection:
        connection.execute(
            "CREATE TRIGGER broken BEFORE INSERT ON session_audit BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
    with pytest.raises(sqlite3.IntegrityError, match="disk full"):
        sessions.commit(played.key, played.revision, round_.key, Feedback(liked=(0,)))
    assert sessions.record(played.key) == before
    with sessions.store.writing() as connection:
        connection.execute("DROP TRIGGER broken")
    state = sessions.commit(played.key, played.revision, round_.key, Feedback(liked=(0,)))
    assert state.last == dataclasses.replace(round_, feedback=Feedback(liked=(0,)))
