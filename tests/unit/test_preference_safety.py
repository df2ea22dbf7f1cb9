"""Preferences that must not be lost, mixed up, or left behind: many at once, kills, deletion to the last byte, size."""

from __future__ import annotations

import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from itertools import combinations, islice
from pathlib import Path

import numpy as np
import pytest

from attune.nodes.preferences import erasing, listing
from attune.nodes.preferences.pictures import PictureFolder, picture_of
from attune.nodes.preferences.records import (
    Answer,
    Embedding,
    Picture,
    PreferenceError,
    Question,
    UnknownError,
    anonymous,
    question_key,
)
from attune.nodes.preferences.store import PreferenceStore
from attune.nodes.store import Store, StoreError
from attune.training.checkpoint import whole_file

ROOT = Path(__file__).resolve().parents[2]
PRELUDE = f"""
import importlib.util, sys, time
spec = importlib.util.spec_from_file_location("runner", {str(ROOT / "scripts" / "module.py")!r})
runner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runner)
runner.map_package()
from pathlib import Path
from attune.nodes.store import Store
from attune.nodes.preferences.pictures import PictureFolder
from attune.nodes.preferences.records import Answer
from attune.nodes.preferences.store import PreferenceStore
folder = Path(sys.argv[1])
store = PreferenceStore(Store(folder / "attune.sqlite3", patience=60), PictureFolder(folder / "pictures"))
"""


def opened(folder: Path, *, patience: float = 60) -> PreferenceStore:
    return PreferenceStore(Store(folder / "attune.sqlite3", patience=patience), PictureFolder(folder / "pictures"))


@pytest.fixture
def store(tmp_path: Path) -> PreferenceStore:
    return opened(tmp_path)


def process(code: str, folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code, str(folder)], stdout=subprocess.PIPE, text=True, cwd=folder.anchor
    )


def make(numbers: range, kind: str = "pair", prompt: str = "a cat") -> tuple[list[Question], dict[str, np.ndarray]]:
    """Questions of two pictures each, of these numbers."""
    made = [np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8) for number in numbers]
    pictures = [picture_of(pixels, seed=number) for number, pixels in zip(numbers, made, strict=True)]
    pixels = {picture.hash: image for picture, image in zip(pictures, made, strict=True)}
    return [Question(kind, prompt, pair) for pair in zip(pictures[::2], pictures[1::2], strict=True)], pixels


# ---- deletion ----


def places_of(folder: Path, needle: bytes) -> list[str]:
    """Files whose bytes or whose name hold it."""
    return [
        file.name
        for file in folder.rglob("*")
        if file.is_file() and (needle in file.read_bytes() or needle in file.name.encode())
    ]


def test_nothing_of_a_deleted_profile_is_left(store: PreferenceStore, tmp_path: Path):
    """Two people's answers in turn, so that their rows share pages that are split; then one of them goes."""
    ann, bob = store.create("Annabella-Secret"), store.create("Bob")
    shared, pixels = make(range(2))
    for person in (ann, bob):
        store.ask(person.key, shared, pixels)
    own, theirs = make(range(100, 300), prompt="of Annabella-Secret"), make(range(300, 500), prompt="of Bob")
    for number in range(100):
        for person, (questions, all_pixels) in ((ann, own), (bob, theirs)):
            asked = questions[number]
            asked = Question("pair", f"{asked.prompt} {number} {'x' * (number % 40)}", asked.pictures)
            store.ask(person.key, [asked], all_pixels)
            store.decide(person.key, asked.key, Answer("chosen", asked.hashes[number % 2]))
            if number % 5 == 0:
                store.decide(person.key, asked.key, Answer("tie"))
            if number % 10 == 0:
                store.undo(person.key)
    store.put_embedding(ann.key, Embedding("encoder", 1, b"Annabella-Secret" * 5000))
    store.rename(ann.key, "Annabella-Secret-2")
    names = list(own[1])
    for needle in (b"Annabella-Secret", ann.key.encode(), bytes.fromhex(names[0]), names[0].encode()):
        assert places_of(tmp_path, needle), "it is there to be deleted"

    before = store.answered(bob.key, most=200)
    assert store.delete(ann.key) == ""
    secrets = [b"Annabella-Secret", b"annabella-secret", ann.key.encode()]
    secrets += [part for name in names for part in (bytes.fromhex(name), name.encode())]
    found = {needle: places_of(tmp_path, needle) for needle in secrets}
    assert {needle: places for needle, places in found.items() if places} == {}
    assert (tmp_path / "attune.sqlite3-wal").stat().st_size < 50_000, "the log was begun anew"

    assert store.answered(bob.key, most=200) == before and store.names() == ["Bob"]
    assert set(store.pictures.names()) == {*theirs[1], *pixels}, "pictures that another profile uses stay"
    assert np.array_equal(store.pictures.get(shared[0].hashes[0]), pixels[shared[0].hashes[0]])
    with store.store.reading() as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_a_deletion_that_was_killed_is_carried_through_at_the_next_start(store: PreferenceStore, tmp_path: Path):
    person = store.create("Annabella-Secret")
    questions, pixels = make(range(4))
    store.ask(person.key, questions, pixels)
    with store.store.reading() as connection:
        (id,) = connection.execute("SELECT id FROM profiles").fetchone()
    erasing.mark(store.store, id)
    assert store.names() == [] and store.find("Annabella-Secret") is None
    again = store.create("Annabella-Secret")
    assert again.key != person.key, "the name is free at once"
    store.rename(again.key, "other")
    store.store.close()

    later = opened(tmp_path)
    assert later.names() == ["other"]
    assert list(later.pictures.names()) == []
    assert places_of(tmp_path, b"Annabella-Secret") == [] and places_of(tmp_path, person.key.encode()) == []


def test_a_picture_that_cannot_be_deleted_goes_at_the_next_start(store: PreferenceStore, tmp_path: Path):
    person = store.create("Annabella-Secret")
    questions, pixels = make(range(2))
    store.ask(person.key, questions, pixels)
    stuck = store.pictures.path(next(iter(pixels)))
    stuck.unlink()
    stuck.mkdir()  # which is no file to delete
    assert "cannot be deleted" in store.delete(person.key)
    assert store.names() == [], "it is gone for everybody all the same"
    stuck.rmdir()
    store.store.close()
    later = opened(tmp_path)
    assert later.names() == [] and list(later.pictures.names()) == []
    assert places_of(tmp_path, b"Annabella-Secret") == []


def test_scores_of_a_deleted_taste_go_with_it(store: PreferenceStore):
    ann, bob = store.create("Ann"), store.create("Bob")
    ids = [f"gate:(preference:v1:{anonymous(person.key)}:3:500:1:0:clip)" for person in (ann, bob)]
    with store.store.writing() as connection:
        for number, id in enumerate(ids):
            connection.execute("INSERT INTO scores VALUES (?, ?, 0.5, 1)", (bytes([number]), id))
            connection.execute("INSERT INTO calibrations VALUES (?, 'mine', 'Taste', 2, 0, 1, '[]', 1)", (id,))
    assert store.delete(ann.key) == ""
    with store.store.reading() as connection:
        for table in ("scores", "calibrations"):
            assert connection.execute(f"SELECT reward_id FROM {table}").fetchall() == [(ids[1],)]


def test_what_a_killed_writer_left_is_waited_for(store: PreferenceStore, tmp_path: Path):
    """A file that is half-written may be somebody's at work: the deletion is not done before it is gone."""
    person = store.create("Annabella-Secret")
    questions, pixels = make(range(2))
    store.ask(person.key, questions, pixels)
    with whole_file(store.pictures.path("ab" * 32)) as partial:
        partial.write_bytes(b"a whole picture")
    partial.write_bytes(b"half a picture")
    assert "Another program" in store.delete(person.key)
    long_ago = time.time() - 10 * 24 * 3600
    os.utime(partial, (long_ago, long_ago))
    assert erasing.finish(store.store, store.pictures) == "" and not partial.exists()


def test_a_damaged_picture_is_kept_anew_when_it_is_asked_about_again(store: PreferenceStore):
    person = store.create("Ann")
    questions, pixels = make(range(2))
    store.ask(person.key, questions, pixels)
    name = questions[0].hashes[0]
    for content in (b"", store.pictures.read(name)[:-5]):
        store.pictures.path(name).write_bytes(content)
        store.ask(person.key, questions, pixels)
        assert np.array_equal(store.pictures.get(name), pixels[name])


def test_pictures_come_and_go_at_once(tmp_path: Path):
    folder, image = PictureFolder(tmp_path), np.zeros((2, 2, 3), np.uint8)
    name, failures = folder.put(image), []

    def work(action: Callable[[], object]) -> None:
        try:
            for _ in range(1500):
                action()
        except Exception as error:
            failures.append(error)

    actions = (lambda: folder.put(image), lambda: folder.remove([name]))
    threads = [threading.Thread(target=work, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_where_another_program_reads_the_traces_go_later(store: PreferenceStore, tmp_path: Path):
    hasty = opened(tmp_path, patience=0.2)
    person = hasty.create("Annabella-Secret")
    reader = sqlite3.connect(tmp_path / "attune.sqlite3", isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT name FROM profiles").fetchall() == [("Annabella-Secret",)]
    try:
        assert "another program" in hasty.delete(person.key).lower()
        assert hasty.names() == []
        assert places_of(tmp_path, b"Annabella-Secret"), "what the reader still sees"
    finally:
        reader.close()
    hasty.store.close()
    assert opened(tmp_path).names() == []
    assert places_of(tmp_path, b"Annabella-Secret") == []


def test_what_keeps_traces_of_a_deleted_profile_is_told(store: PreferenceStore, tmp_path: Path):
    """A full disk, then nothing, then a file that cannot be deleted: each in its own words."""
    ann, bob, eve = (store.create(name) for name in ("Ann", "Bob", "Eve"))
    questions, pixels = make(range(2))
    store.ask(eve.key, questions, pixels)

    class Full(Store):
        """The disk is full as soon as the file is written anew."""

        def scrub(self) -> bool:
            raise StoreError(f"{self.path} could not be written: the disk is full. Free some space, then try again.")

    full = PreferenceStore(Full(store.store.path), store.pictures)
    told = listing.act(full, "delete", {"profile": ann.key})
    assert told["deleted"] and not told["clean"] and [entry["name"] for entry in told["profiles"]] == ["Bob", "Eve"]
    assert "The profile is deleted, but traces of it stay" in told["note"] and "the disk is full" in told["note"]
    assert "Another program" not in told["note"]
    told = listing.act(store, "delete", {"profile": bob.key})
    assert (told["clean"], told["note"]) == (True, ""), "what was left of Ann goes too"
    with store.store.reading() as connection:
        assert connection.execute("SELECT * FROM erasures").fetchall() == []
    stuck = store.pictures.path(questions[0].hashes[0])
    stuck.unlink()
    stuck.mkdir()
    told = listing.act(store, "delete", {"profile": eve.key})
    assert not told["clean"] and str(stuck) in told["note"] and "disk" not in told["note"]


def test_pictures_whose_questions_were_never_kept_go_at_the_next_start(store: PreferenceStore, tmp_path: Path):
    """A process was killed between a picture's file and its question. What the store does not know of stays."""

    class Killed(PictureFolder):
        def put(self, pixels: np.ndarray) -> str:
            super().put(pixels)
            raise KeyboardInterrupt

    questions, pixels = make(range(2))
    person = store.create("x")
    with pytest.raises(KeyboardInterrupt):
        PreferenceStore(store.store, Killed(store.pictures.folder)).ask(person.key, questions, pixels)
    foreign = store.pictures.put(np.zeros((8, 8, 3), np.uint8))
    assert len(list(store.pictures.names())) == 2
    assert opened(tmp_path).names() == ["x"]
    assert list(store.pictures.names()) == [foreign], "perhaps of a database that was moved away for a while"
    assert rows_of(store) == 0


def rows_of(store: PreferenceStore) -> int:
    with store.store.reading() as connection:
        return connection.execute("SELECT COUNT(*) FROM pictures").fetchone()[0]


def test_pictures_of_a_deleted_profile_do_not_come_back_with_a_queued_run(store: PreferenceStore, tmp_path: Path):
    person, bob = store.create("Annabella-Secret"), store.create("Bob")
    questions, pixels = make(range(4))
    for key, asked in ((person.key, questions), (bob.key, questions[:1])):
        store.ask(key, asked, pixels)
    assert store.delete(person.key) == ""
    with pytest.raises(UnknownError):
        store.ask(person.key, questions, pixels)
    assert set(store.pictures.names()) == set(questions[0].hashes), "Bob's stay"
    assert rows_of(store) == 2


# ---- many at once ----


class Overtaken(PictureFolder):
    """A folder in which something happens just after the first picture was written, or after `waits` more."""

    then: Callable[[], object] | None = None
    waits = 0

    def put(self, pixels: np.ndarray) -> str:
        name = super().put(pixels)
        if self.waits:
            self.waits -= 1
            return name
        then, self.then = self.then, None
        if then is not None:
            then()
        return name


def test_a_picture_deleted_between_its_file_and_its_row_is_written_again(store: PreferenceStore, tmp_path: Path):
    questions, pixels = make(range(2))
    guest, bob = store.create("guest"), store.create("Bob")
    store.ask(guest.key, questions, pixels)
    folder = Overtaken(store.pictures.folder)
    folder.then = lambda: store.delete(guest.key)
    PreferenceStore(opened(tmp_path).store, folder).ask(bob.key, questions, pixels)
    assert store.names() == ["Bob"] and folder.then is None
    assert set(store.pictures.names()) == set(pixels)


@pytest.mark.parametrize("place", [0, 1])
def test_a_profile_deleted_while_its_pictures_are_written_takes_them_along(
    store: PreferenceStore, tmp_path: Path, place: int
):
    """Deleted after the first picture's file, or after the last one's; what others ask about stays."""
    questions, pixels = make(range(4))
    ann, bob = store.create("Ann"), store.create("Bob")
    store.ask(bob.key, questions[:1], pixels)
    folder = Overtaken(store.pictures.folder)
    folder.waits, folder.then = 3 * place, lambda: store.delete(ann.key)
    with pytest.raises(UnknownError):
        PreferenceStore(opened(tmp_path).store, folder).ask(ann.key, questions, pixels)
    assert folder.then is None and store.names() == ["Bob"]
    assert set(store.pictures.names()) == set(questions[0].hashes)
    assert rows_of(store) == 2
    for name in questions[1].hashes:
        assert places_of(tmp_path, bytes.fromhex(name)) == []


def test_what_a_run_of_a_deleted_profile_cannot_remove_goes_at_the_next_start(store: PreferenceStore, tmp_path: Path):
    class Stuck(Overtaken):
        def remove(self, names: Iterable[str]) -> None:
            raise PreferenceError("somebody looks at it")

    questions, pixels = make(range(2))
    ann = store.create("Ann")
    folder = Stuck(store.pictures.folder)
    folder.then = lambda: store.delete(ann.key)
    with pytest.raises(UnknownError):
        PreferenceStore(opened(tmp_path).store, folder).ask(ann.key, questions, pixels)
    assert list(store.pictures.names()) == [questions[0].hashes[1]], "written after the deletion"
    assert opened(tmp_path).names() == [] and list(store.pictures.names()) == []


def test_one_deletes_what_another_asks_about(store: PreferenceStore):
    """The same pictures in both: after every deletion the other profile's pictures are whole."""
    bob = store.create("Bob")
    questions, pixels = make(range(8))
    problems: list[BaseException] = []
    done = threading.Event()

    def delete_again_and_again() -> None:
        try:
            for number in range(12):
                person = store.create(f"guest {number}")
                store.ask(person.key, questions, pixels)
                store.delete(person.key)
        except BaseException as error:
            problems.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=delete_again_and_again)
    thread.start()
    turn = 0
    while not done.is_set():
        asked = questions[turn % 4]
        store.ask(bob.key, [asked], pixels)
        for name in asked.hashes:
            assert store.pictures.holds(name)
        turn += 1
    thread.join()
    assert problems == []
    store.ask(bob.key, questions, pixels)
    assert set(store.pictures.names()) == set(pixels)


def test_threads_and_processes_choose_at_once(store: PreferenceStore, tmp_path: Path):
    """Four answer the same questions, each its own and then all of them: every decision counts, none twice."""
    person = store.create("my taste")
    questions, pixels = make(range(160))
    store.ask(person.key, questions, pixels)
    code = """
key = store.find("my taste").key
asked = store.waiting(key, most=500)
for found in asked:
    store.decide(key, found.question.key, Answer("chosen", found.question.hashes[0]))
"""
    problems: list[BaseException] = []

    def choose() -> None:
        try:
            for asked in questions:
                store.decide(person.key, asked.key, Answer("chosen", asked.hashes[0]))
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=choose) for _ in range(2)]
    with process(code, tmp_path) as one, process(code, tmp_path) as two:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [other.wait(120) for other in (one, two)] == [0, 0]
    assert problems == []
    summary = store.summary(person.key)
    assert (summary.chosen, summary.waiting, summary.profile.revision) == (80, 0, 80), "each counted exactly once"
    with store.store.reading() as connection:
        assert connection.execute("SELECT COUNT(*) FROM decisions").fetchone() == (80,)


def test_two_processes_make_one_profile_and_keep_one_picture(tmp_path: Path):
    code = """
import numpy as np
from attune.nodes.preferences.pictures import picture_of
from attune.nodes.preferences.records import Question
made = [np.full((64, 64, 3), value, np.uint8) for value in range(40)]
pictures = [picture_of(pixels) for pixels in made]
key = store.create("my taste").key
for first, second in zip(pictures, pictures[1:]):
    store.ask(key, [Question("pair", "x", (first, second))], {p.hash: m for p, m in zip(pictures, made)})
"""
    with process(code, tmp_path) as one, process(code, tmp_path) as two, process(code, tmp_path) as three:
        assert [other.wait(240) for other in (one, two, three)] == [0, 0, 0]
    store = opened(tmp_path)
    (summary,) = store.summaries()
    assert summary.waiting == 39 and len(list(store.pictures.names())) == 40
    for name in store.pictures.names():
        store.pictures.get(name)


@pytest.mark.needs_system("posix", "a process can be killed in the middle of anything")
def test_a_kill_while_choosing_loses_at_most_the_decision_in_flight(store: PreferenceStore, tmp_path: Path):
    person = store.create("my taste")
    questions, pixels = make(range(400))
    store.ask(person.key, questions, pixels)
    code = """
key = store.find("my taste").key
for found in store.waiting(key, most=500):
    store.decide(key, found.question.key, Answer("chosen", found.question.hashes[1]))
    print(found.question.key, flush=True)
"""
    reported: set[str] = set()
    for round_ in range(3):
        with process(code, tmp_path) as other:
            for _ in range(5 + 7 * round_):
                reported.add(other.stdout.readline().strip())
            os.kill(other.pid, signal.SIGKILL)
            rest = other.stdout.read().split("\n")
        reported |= set(rest[:-1])
        fresh = opened(tmp_path)
        kept = {found.question.key for found in fresh.answered(person.key, most=500)}
        assert reported <= kept, "what was reported as kept is there"
        assert len(kept - reported) <= round_ + 1, "and at most the one in flight beside it, per kill"
        summary = fresh.summary(person.key)
        assert summary.chosen == len(kept) == summary.profile.revision
        reported = kept
        fresh.store.close()


# ---- size ----


def fill(store: PreferenceStore, key: str, count: int) -> list[Question]:
    """`count` answered pairs of 500 pictures, put straight into the tables; and 300 that wait."""
    pictures = [Picture(f"{number:064x}", 512, 512, str(number)) for number in range(500)]
    questions = [
        Question("pair", f"prompt {number % 50}", two)
        for number, two in enumerate(islice(combinations(pictures, 2), count + 300))
    ]
    with store.store.writing() as connection:
        (profile,) = connection.execute("SELECT id FROM profiles WHERE key = ?", (key,)).fetchone()
        connection.executemany(
            "INSERT INTO pictures (id, hash, width, height) VALUES (?, ?, 512, 512)",
            [(number + 1, bytes.fromhex(picture.hash)) for number, picture in enumerate(pictures)],
        )
        connection.executemany(
            "INSERT INTO prompts (id, text) VALUES (?, ?)", [(number + 1, f"prompt {number}") for number in range(50)]
        )
        connection.executemany(
            "INSERT INTO questions (id, profile, key, kind, prompt) VALUES (?, ?, ?, 'pair', ?)",
            [(n + 1, profile, bytes.fromhex(question_key("pair", asked.hashes)), n % 50 + 1)
             for n, asked in enumerate(questions)],
        )  # fmt: skip
        places = [
            (n + 1, place, int(picture.hash, 16) + 1, picture.seed)
            for n, asked in enumerate(questions)
            for place, picture in enumerate(asked.pictures)
        ]
        connection.executemany("INSERT INTO question_pictures VALUES (?, ?, ?, ?)", places)
        connection.executemany(
            "INSERT INTO decisions (id, profile, question, verdict, chosen, made) VALUES (?, ?, ?, 'chosen', ?, 0)",
            [(n + 1, profile, n + 1, int(asked.hashes[n % 2], 16) + 1) for n, asked in enumerate(questions[:count])],
        )
        connection.execute(
            "UPDATE questions SET decision = id, verdict = 'chosen', open = 0 WHERE id <= ?", (count,)
        )  # fmt: skip
    return questions


def test_a_hundred_thousand_choices_stay_fast(store: PreferenceStore):
    """What the picker and a reward ask for, each below 10 ms; of writes the work without the wait for the disk."""
    key = store.create("my taste").key
    store.put_embedding(key, Embedding("encoder", 1, b"x" * 100_000))
    questions = fill(store, key, 100_000)
    summary = store.summary(key)
    assert (summary.chosen, summary.waiting) == (100_000, 300)
    newest = store.answered(key, most=200)
    assert newest[0].question == questions[99_999]
    assert newest[0].decision.answer == Answer("chosen", questions[99_999].hashes[1])
    some = [asked.key for asked in questions[::6000]]
    fresh = iter(questions[100_000:])
    open_one = questions[100_100].key
    queries = {
        "find": lambda: store.find("My Taste"),
        "summary": lambda: store.summary(key),
        "all profiles": store.summaries,
        "waiting": lambda: store.waiting(key, most=50),
        "a node's own questions": lambda: store.questions(key, some),
        "the newest answers": lambda: store.answered(key, most=200),
        "older answers": lambda: store.answered(key, most=200, before=50_000),
        "embedding": lambda: store.embedding(key, "encoder"),
        "decide": lambda: store.decide(key, next(fresh).key, Answer("tie")),
        "change": lambda: store.decide(key, some[3], Answer("tie")),
        "undo": lambda: store.undo(key),
        "skip": lambda: store.decide(key, open_one, Answer("skip")),
    }
    medians = {}
    for name, query in queries.items():
        seconds = []
        for _ in range(15):
            began = time.thread_time()
            query()
            seconds.append(time.thread_time() - began)
        medians[name] = 1000 * statistics.median(seconds)
    print({name: round(value, 2) for name, value in medians.items()})
    assert {name: value for name, value in medians.items() if value >= 10} == {}
