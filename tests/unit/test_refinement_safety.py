"""Sessions that must not be lost, mixed up or left behind: many at once, kills, deletion to the last byte."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from attune.nodes.refinement import erasing
from attune.nodes.refinement.checks import RefinementError, StaleError, UnknownError
from attune.nodes.refinement.records import Feedback
from attune.nodes.refinement.session_files import SessionFiles
from attune.nodes.refinement.store import SessionStore
from attune.tests.refinement_sessions import made, opened, play, propose

ROOT = Path(__file__).resolve().parents[2]
PRELUDE = f"""
import importlib.util, os, signal, sys
spec = importlib.util.spec_from_file_location("runner", {str(ROOT / "scripts" / "module.py")!r})
runner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runner)
runner.map_package()
from pathlib import Path
from attune.nodes.refinement.checks import RefinementError, StaleError
from attune.nodes.refinement.records import Feedback
from attune.tests.refinement_sessions import made, opened, play, propose
sessions, key = opened(Path(sys.argv[1])), sys.argv[2]
"""
# Commits that SQLite itself ends the process in, between the answer and its audit row.
DIE = """
state = sessions.state(key)
with sessions.store.reading() as connection:
    connection.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
    connection.execute("CREATE TEMP TRIGGER dying BEFORE INSERT ON main.session_audit BEGIN SELECT die(); END")
sessions.commit(key, state.revision, state.open.key, Feedback("darker", liked=(1,)))
"""
PLAY = """
sys.stdout.write("ready\\n"); sys.stdout.flush()
number = int(sys.argv[3])
while True:
    number += 2
    state = sessions.state(key)
    try:
        round_ = propose(sessions, state, (number, number + 1))
        state = sessions.commit(key, state.revision, round_.key, Feedback(str(number), liked=(0,)))
    except StaleError:
        continue
    sys.stdout.write(f"{number}\\n"); sys.stdout.flush()
    if len(state.path) >= int(sys.argv[4]): break
"""


@pytest.fixture
def sessions(tmp_path: Path) -> SessionStore:
    return opened(tmp_path)


def process(code: str, folder: Path, *values: object) -> subprocess.Popen:
    command = [sys.executable, "-c", PRELUDE + code, str(folder), *map(str, values)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder.anchor)


def places_of(folder: Path, needle: bytes) -> list[str]:
    """Files whose bytes or whose name hold it."""
    return [
        file.name
        for file in folder.rglob("*")
        if file.is_file() and (needle in file.read_bytes() or needle in str(file).encode())
    ]


# ---- kills ----


@pytest.mark.needs_system("posix", "a process can be killed in the middle of anything")
def test_a_kill_in_the_middle_of_a_commit_leaves_the_round_open(sessions: SessionStore, tmp_path: Path):
    state = sessions.create("cats", "a cat")
    round_ = propose(sessions, state)
    other = process(DIE, tmp_path, state.key)
    other.communicate(timeout=120)
    assert other.returncode == -signal.SIGKILL
    fresh = opened(tmp_path)
    assert fresh.state(state.key).open == round_ and fresh.state(state.key).path == ()
    assert fresh.verify(state.key, pictures=True).sound
    state = fresh.commit(state.key, 0, round_.key, Feedback("darker", liked=(1,)))
    state = fresh.undo(state.key, state.revision)
    assert state.open.pictures == round_.pictures and fresh.verify(state.key).sound


@pytest.mark.needs_system("posix", "a process can be killed in the middle of anything")
def test_kills_at_any_time_lose_at_most_the_answer_in_flight(sessions: SessionStore, tmp_path: Path):
    state = sessions.create("cats", "a cat")
    told = 0
    for turn in range(4):
        other = process(PLAY, tmp_path, state.key, 1000 * turn, 10_000)
        assert other.stdout.readline() == "ready\n"
        time.sleep(0.3 + 0.17 * turn)
        other.send_signal(signal.SIGKILL)
        told += len(other.communicate(timeout=60)[0].split())
        now = opened(tmp_path).state(state.key)
        assert told <= len(now.path) <= told + turn + 1, "what was told is kept; one may not have been told, per kill"
        assert opened(tmp_path).verify(state.key, pictures=True).sound
    assert told > 0
    propose(sessions, sessions.state(state.key), (9001, 9002))
    record = sessions.record(state.key)
    rounds = [*record.rounds, *record.passed, record.state.open]
    named = {picture.hash for round_ in rounds for picture in round_.pictures}
    assert set(sessions.files(state.key).pictures.names()) == named, "what kills left lying is gone with the next round"
    assert set(sessions.files(state.key).latents.names()) == {round_.latents for round_ in rounds}


# ---- at once ----


def test_of_many_that_move_at_once_one_does(sessions: SessionStore):
    state = sessions.create("cats", "a cat")
    round_ = propose(sessions, state)
    done, refused, start = [], [], threading.Barrier(8)

    def commit(number: int) -> None:
        start.wait()
        try:
            done.append(sessions.commit(state.key, 0, round_.key, Feedback(str(number), liked=(0,))))
        except StaleError as error:
            refused.append(error)

    threads = [threading.Thread(target=commit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(done), len(refused)) == (1, 7)
    assert sessions.state(state.key) == done[0] and sessions.verify(state.key).sound
    assert [row.kind for row in sessions.audit_rows(state.key)] == ["created", "proposed", "committed"]


def test_several_sessions_at_once_do_not_mix(tmp_path: Path):
    """One thread per session; each with pictures that only it has, in one file."""
    sessions = opened(tmp_path)
    states = [sessions.create(f"session {number}", f"wish {number}") for number in range(4)]
    errors = []

    def run(number: int) -> None:
        try:
            state = states[number]
            for turn in range(5):
                first = 1000 * number + 10 * turn
                state = play(sessions, state, (first, first + 1), Feedback(f"{number}.{turn}", liked=(0,)))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors
    for number, state in enumerate(states):
        path = opened(tmp_path).state(state.key).path
        assert [round_.feedback.comment for round_ in path] == [f"{number}.{turn}" for turn in range(5)]
        assert {picture.seed // 1000 for round_ in path for picture in round_.pictures} == {number}
        assert sessions.verify(state.key, pictures=True).sound


def test_two_processes_follow_one_session(sessions: SessionStore, tmp_path: Path):
    """Each proposes and commits what it can; the other's late runs are refused, none is lost or doubled."""
    state = sessions.create("cats", "a cat")
    others = [process(PLAY, tmp_path, state.key, 100_000 * number, 12) for number in (1, 2)]
    told = [line for other in others for line in other.communicate(timeout=300)[0].split()[1:]]
    assert all(other.returncode == 0 for other in others)
    path = sessions.state(state.key).path
    assert sorted(told) == sorted(round_.feedback.comment for round_ in path) and len(path) >= 12
    assert [round_.number for round_ in path] == list(range(1, len(path) + 1))
    assert sessions.verify(state.key, pictures=True).sound
    assert all(sessions.files(state.key).hold(round_) for round_ in path)


def test_two_processes_make_one_session_of_one_name(tmp_path: Path):
    code = "print(sessions.find_or_create('cats', 'a cat').key)"
    others = [process(code, tmp_path, "") for _ in range(2)]
    keys = {other.communicate(timeout=120)[0].strip() for other in others}
    assert len(keys) == 1 and opened(tmp_path).names() == ["cats"]


# ---- deletion ----


def test_nothing_of_a_deleted_session_is_left(sessions: SessionStore, tmp_path: Path):
    """Two people's rounds in turn, so that their rows share pages that are split; then one of them goes."""
    ann, bob = sessions.create("Annabella-Secret", "a xylograph"), sessions.create("Bob", "a zeppelin")
    for turn in range(12):
        words = Feedback("make it quizzical " * 40, liked=(0,), rater="Quentin")
        ann = play(
            sessions, ann, (100 + turn, 200 + turn), words, prompt="a xylograph " * 50, embedding={"n": "jukebox"}
        )
        bob = play(sessions, bob, (300 + turn, 400 + turn), prompt="a zeppelin " * 50)
    sessions.rate(ann.key, ann.last.key, "Quentin", {0: 3})
    picture, latents = ann.last.pictures[0].hash, ann.last.latents
    content = sessions.files(ann.key).pictures.read(picture)
    needles = [
        b"xylograph",
        b"Annabella",
        b"quizzical",
        b"jukebox",
        b"Quentin",
        picture.encode(),
        latents.encode(),
        content,
    ]
    assert all(places_of(tmp_path, needle) for needle in needles), "the test must be able to find them"
    before = sessions.record(bob.key)
    assert sessions.delete(ann.key) == ""
    assert {needle: places_of(tmp_path, needle) for needle in needles} == {needle: [] for needle in needles}
    assert sessions.record(bob.key) == before and sessions.verify(bob.key, pictures=True).sound
    with pytest.raises(UnknownError):
        sessions.state(ann.key)
    assert sessions.create("annabella-secret", "").number == 1, "the name is free"


def test_a_deletion_that_was_killed_is_carried_through_at_the_next_start(sessions: SessionStore, tmp_path: Path):
    state = play(sessions, sessions.create("Annabella-Secret", "a cat"), prompt="a xylograph")
    erasing.mark(sessions.store, state.key)
    assert sessions.names() == [] and places_of(tmp_path, b"xylograph")
    assert opened(tmp_path).names() == []
    assert places_of(tmp_path, b"xylograph") == places_of(tmp_path, b"Annabella") == []
    assert not (tmp_path / "sessions" / state.key).exists()


def test_a_run_that_is_late_leaves_nothing_of_a_deleted_session(
    sessions: SessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The session is deleted by somebody else just after the run has written its pictures."""
    state = sessions.create("cats", "a cat")
    written = SessionFiles.put

    def put(self: SessionFiles, *arguments: object) -> None:
        written(self, *arguments)
        assert opened(tmp_path).delete(state.key) == ""
        written(self, *arguments)

    monkeypatch.setattr(SessionFiles, "put", put)
    with pytest.raises(UnknownError):
        propose(sessions, state)
    assert not (tmp_path / "sessions" / state.key).exists()


def test_what_a_killed_late_run_has_written_goes_at_the_next_start(sessions: SessionStore, tmp_path: Path):
    state = play(sessions, sessions.create("cats", "a cat"))
    assert sessions.delete(state.key) == ""
    inputs = made()
    sessions.files(state.key).put(inputs["pictures"], inputs["pixels"], inputs["latents"])
    stranger = tmp_path / "sessions" / ("f" * 32)
    stranger.mkdir()
    assert opened(tmp_path).names() == []
    assert not (tmp_path / "sessions" / state.key).exists()
    assert stranger.exists(), "what the store does not know of stays: the database may have been put back"


def test_where_another_program_reads_the_traces_go_later(tmp_path: Path):
    sessions = opened(tmp_path, patience=0.2)
    state = play(sessions, sessions.create("cats", "a cat"), prompt="a xylograph")
    with closing(sqlite3.connect(sessions.store.path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM session_rounds").fetchone()
        assert sessions.delete(state.key) != ""
        assert sessions.names() == []
    assert opened(tmp_path).names() == [] and places_of(tmp_path, b"xylograph") == []


def test_pictures_that_another_run_cleans_away_are_written_again(
    sessions: SessionStore, monkeypatch: pytest.MonkeyPatch
):
    state = sessions.create("cats", "a cat")
    written, calls = SessionFiles.put, []

    def put(self: SessionFiles, pictures, *rest: object) -> None:
        written(self, pictures, *rest)
        calls.append(1)
        if len(calls) == 1:
            self.pictures.remove([pictures[0].hash])

    monkeypatch.setattr(SessionFiles, "put", put)
    round_ = propose(sessions, state)
    assert len(calls) == 2 and sessions.files(state.key).hold(round_)


def test_a_folder_that_cannot_be_written_changes_nothing(sessions: SessionStore, tmp_path: Path):
    state = sessions.create("cats", "a cat")
    (tmp_path / "sessions").write_text("a file is in the way")
    with pytest.raises(RefinementError, match="cannot be kept"):
        propose(sessions, state)
    assert sessions.state(state.key) == state and len(sessions.audit_rows(state.key)) == 1
