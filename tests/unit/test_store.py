"""The store on real files: transactions, migrations, threads, processes, kills, damage; and the cache on disk."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from attune.nodes.migrations import MIGRATIONS
from attune.nodes.picture_hashes import content_hash
from attune.nodes.rewards.cache import CachedReward, ScoreStore, hashed_once
from attune.nodes.rewards.kept_scores import KeptScores, key_digest
from attune.nodes.rewards.pictures import content_hashes
from attune.nodes.store import Store, StoreError, shared_store
from attune.training.interfaces import AttuneError

ROOT = Path(__file__).resolve().parents[2]
STEP = (
    "CREATE TABLE parents (id INTEGER PRIMARY KEY)",
    "CREATE TABLE notes (text TEXT, parent REFERENCES parents(id))",
)
PRELUDE = f"""
import importlib.util, sys, time
spec = importlib.util.spec_from_file_location("runner", {str(ROOT / "scripts" / "module.py")!r})
runner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runner)
runner.map_package()
from pathlib import Path
from attune.nodes.store import Store
STEP = {STEP!r}
store = Store(Path(sys.argv[1]), [STEP], patience=60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "user" / "attune" / "attune.sqlite3"


@pytest.fixture
def store(path: Path) -> Store:
    return Store(path, [STEP])


def process(code: str, path: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code, str(path)], stdout=subprocess.PIPE, text=True, cwd=path.parent.anchor
    )


def add(store: Store, *texts: str) -> None:
    with store.writing() as connection:
        connection.executemany("INSERT INTO notes (text) VALUES (?)", [(text,) for text in texts])


def notes(store: Store) -> list[str]:
    with store.reading() as connection:
        return [text for (text,) in connection.execute("SELECT text FROM notes ORDER BY rowid")]


# ---- one process ----


def test_what_is_written_is_there_when_the_file_is_opened_again(store, path):
    assert not path.exists(), "nothing is opened before it is needed"
    add(store, "one", "two")
    store.close()
    assert notes(Store(path, [STEP])) == ["one", "two"]
    with store.reading() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_block_that_fails_leaves_nothing(store):
    add(store, "one")

    def fail() -> None:
        with store.writing() as connection:
            connection.execute("INSERT INTO notes (text) VALUES ('two')")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert notes(store) == ["one"]
    add(store, "three")
    assert notes(store) == ["one", "three"]


def test_foreign_keys_are_enforced(store):
    with pytest.raises(sqlite3.IntegrityError), store.writing() as connection:
        connection.execute("INSERT INTO notes VALUES ('orphan', 7)")
    assert notes(store) == []


def test_writing_blocks_do_not_nest(store):
    with store.writing() as connection:
        connection.execute("INSERT INTO notes (text) VALUES ('outer')")
        with pytest.raises(RuntimeError, match="inside another"), store.writing():
            pass
    assert notes(store) == ["outer"]


def test_threads_take_turns(store):
    def work(number: int) -> None:
        for turn in range(20):
            add(store, f"{number}/{turn}/a", f"{number}/{turn}/b")
            assert len(notes(store)) % 2 == 0

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = notes(store)
    assert len(found) == len(set(found)) == 240
    assert all(a[:-1] == b[:-1] for a, b in zip(found[::2], found[1::2], strict=True)), "pairs stay together"


def test_one_store_per_file(path):
    assert shared_store(path) is shared_store(path.parent / "." / path.name)
    assert shared_store(path) is not shared_store(path.with_name("other.sqlite3"))


def test_a_file_that_was_moved_away_is_begun_anew(store, path):
    """As the message about a damaged file asks for, while the host runs."""
    add(store, "old")
    if os.name == "nt":
        store.close()
    path.rename(path.with_name("kept.sqlite3"))
    assert notes(store) == []
    add(store, "new")
    assert notes(Store(path, [STEP])) == ["new"]


def test_scrubbing_leaves_nothing_of_what_was_deleted(store, path):
    for number in range(300):
        add(store, f"secret {number} {'x' * (number % 50)}", f"public {number}")
    with store.writing() as connection:
        connection.execute("DELETE FROM notes WHERE text LIKE 'secret%'")
    files = [path, path.with_name(f"{path.name}-wal")]
    assert any(b"secret" in file.read_bytes() for file in files)
    assert store.scrub() is True
    assert [file.name for file in files if b"secret" in file.read_bytes()] == []
    assert len(notes(store)) == 300
    with store.writing(), pytest.raises(RuntimeError, match="middle of a transaction"):
        store.scrub()


def test_scrubbing_beside_a_reader_says_that_the_log_stays(path):
    hasty = Store(path, [STEP], patience=0.1)
    add(hasty, "kept")
    reader = sqlite3.connect(path, isolation_level=None)
    try:
        reader.execute("BEGIN")
        assert reader.execute("SELECT COUNT(*) FROM notes").fetchone() == (1,)
        assert hasty.scrub() is False
    finally:
        reader.close()
    assert hasty.scrub() is True


# ---- schema ----


def test_migrations_run_once_and_in_order(path):
    add(Store(path, [STEP]), "kept")
    longer = [STEP, ("ALTER TABLE notes ADD COLUMN stars INTEGER DEFAULT 3",)]
    for _ in range(2):
        store = Store(path, longer)
        with store.reading() as connection:
            assert connection.execute("SELECT text, stars FROM notes").fetchall() == [("kept", 3)]
            assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        store.close()


def test_a_migration_that_fails_changes_nothing(path):
    add(Store(path, [STEP]), "kept")
    broken = Store(path, [STEP, ("CREATE TABLE extra (a)", "ALTER TABLE nowhere ADD COLUMN b")])
    with pytest.raises(StoreError, match="nowhere"), broken.reading():
        pass
    with Store(path, [STEP]).reading() as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {"parents", "notes"}


def test_a_newer_file_is_left_alone(path):
    store = Store(path, [STEP, ("CREATE TABLE extra (a)",)])
    add(store, "kept")
    store.close()
    before = path.read_bytes()
    with pytest.raises(AttuneError, match=r"newer version of Attune \(its schema is 2, this version knows 1\)"):
        add(Store(path, [STEP]), "lost")
    assert path.read_bytes() == before
    assert {file.name for file in path.parent.iterdir()} == {path.name}


def test_the_packs_own_schema(path):
    with Store(path).reading() as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"scores", "calibrations"} <= tables


# ---- several processes ----


def test_processes_that_begin_at_once_share_a_new_file(path):
    """Each opens, migrates and writes 40 transactions of two rows."""
    code = """
for turn in range(40):
    with store.writing() as connection:
        connection.executemany("INSERT INTO notes (text) VALUES (?)", [(sys.argv[1],), (sys.argv[1],)])
"""
    with process(code, path) as one, process(code, path) as two, process(code, path) as three:
        assert [other.wait(120) for other in (one, two, three)] == [0, 0, 0]
    assert len(notes(Store(path, [STEP]))) == 240


def test_another_process_that_writes_for_too_long_is_named(path):
    add(Store(path, [STEP]), "kept")
    code = """
with store.writing() as connection:
    connection.execute("INSERT INTO notes (text) VALUES ('slow')")
    print("in", flush=True)
    time.sleep(60)
"""
    with process(code, path) as other:
        try:
            assert other.stdout.readline() == "in\n"
            hasty = Store(path, [STEP], patience=0.2)
            assert notes(hasty) == ["kept"], "reading does not wait for a writer"
            with pytest.raises(StoreError, match=r"another program.*within 0\.2 s.*Close the other ComfyUI"):
                add(hasty, "refused")
        finally:
            other.kill()
    add(hasty, "later")
    assert notes(hasty) == ["kept", "later"]


def test_a_kill_in_the_middle_of_a_write_leaves_whole_transactions(path):
    add(Store(path, [STEP]), *"ab")
    code = """
number = 0
while True:
    with store.writing() as connection:
        for part in range(50):
            connection.execute("INSERT INTO notes (text) VALUES (?)", (f"{number}/{part}",))
    number += 1
    print(number, flush=True)
"""
    for round_ in range(2):
        with process(code, path) as other:
            for _ in range(2 + 3 * round_):
                done = int(other.stdout.readline())
            time.sleep(0.002 * round_)
            other.kill()
        found = notes(Store(path, [STEP]))
        assert (len(found) - 2) % 50 == 0
        assert found[:2] == ["a", "b"]
        # What was reported as done is there: the newest run's transactions begin at 0.
        assert len(found) - 2 >= 50 * done
    with Store(path, [STEP]).reading() as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_kill_inside_an_open_transaction_leaves_none_of_it(path):
    add(Store(path, [STEP]), "kept")
    code = """
with store.writing() as connection:
    connection.executemany("INSERT INTO notes (text) VALUES (?)", [("x" * 1000,)] * 20000)
    print("in", flush=True)
    time.sleep(60)
"""
    with process(code, path) as other:
        assert other.stdout.readline() == "in\n"
        other.kill()
    assert notes(Store(path, [STEP])) == ["kept"]


# ---- files that cannot be used ----


@pytest.mark.parametrize("content", [b"this is no database at all, but long enough to look" * 40, b"\0" * 4096])
def test_a_damaged_file_says_what_to_do_and_stays(path, content):
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"attune\.sqlite3 is damaged.*move that file away.*-wal and -shm"):
        add(Store(path, [STEP]), "lost")
    assert path.read_bytes() == content


def test_damage_in_the_middle_is_found_when_it_is_read(path):
    store = Store(path, [STEP])
    add(store, *("text " * 200 for _ in range(200)))
    store.close()
    content = bytearray(path.read_bytes())
    content[3 * 4096 : -4096] = os.urandom(len(content) - 4 * 4096)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="is damaged"):
        notes(Store(path, [STEP]))


@pytest.mark.needs_system("posix", "folders without write permission are refused to their owner")
def test_a_read_only_folder_says_what_to_do(path):
    add(Store(path, [STEP]), "kept")
    code = """
import os
os.geteuid() or os.setuid(65534)
try:
    with store.writing() as connection:
        connection.execute("INSERT INTO notes (text) VALUES ('lost')")
except Exception as error:
    print(type(error).__name__, error)
"""
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        with process(code, path) as other:
            said = other.communicate(timeout=60)[0]
    finally:
        path.parent.chmod(0o755)
        path.chmod(0o644)
    assert said.startswith("StoreError")
    assert f"Make the folder {path.parent}" in said
    assert notes(Store(path, [STEP])) == ["kept"]


@pytest.mark.needs_system("posix", "folders can be locked")
def test_a_folder_that_is_locked_while_the_store_is_open_says_what_to_do(path):
    add(Store(path, [STEP]), "kept")
    code = """
import os
with store.reading():
    pass
store.path.parent.chmod(0)
os.geteuid() or os.setuid(65534)
try:
    with store.reading():
        print("read")
except Exception as error:
    print(type(error).__name__, error)
"""
    try:
        with process(code, path) as other:
            said = other.communicate(timeout=60)[0]
    finally:
        path.parent.chmod(0o755)
    assert said.startswith("StoreError")
    assert f"Make the folder {path.parent}" in said
    assert notes(Store(path, [STEP])) == ["kept"]


def test_a_folder_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "user").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="cannot be opened or written"):
        add(Store(tmp_path / "user" / "attune.sqlite3", [STEP]), "lost")


# ---- scores on disk ----


class Counting:
    """The mean brightness as a reward that counts what it is asked."""

    name = "Counting"
    reward_id = "counting"
    differentiable = True
    higher_is_better = True

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, images, prompts, context=None):
        self.calls += 1
        return images.flatten(1).mean(1)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 8, 8, 3, generator=torch.Generator().manual_seed(5))


def cached(path: Path, reward: object | None = None, **limits: int) -> CachedReward:
    """A cached reward as after a restart of the host: nothing in memory, the disk behind it."""
    memory = ScoreStore()
    memory.attach(KeptScores(Store(path), **limits))
    return CachedReward(reward or Counting(), memory)


def test_scores_survive_the_process_exactly_and_cost_no_forward_pass(path, images):
    reward = cached(path)
    first = reward(images, ["a", "b", "a"])
    assert (reward.hits, reward.forward_calls) == (0, 1)
    again = reward(images, ["a", "b", "a"])
    assert (reward.hits, reward.forward_calls, reward.reward.calls) == (3, 1, 1)
    later = cached(path)
    assert torch.equal(later(images, ["a", "b", "a"]), first) and torch.equal(first, again)
    assert (later.hits, later.forward_calls, later.reward.calls) == (3, 0, 0)
    later(images, ["a", "b", "c"])
    assert (later.hits, later.forward_calls) == (5, 1)


def test_a_new_process_finds_the_scores(path, images):
    cached(path)(images, ["a cat"] * 3)
    code = """
import torch
from attune.nodes.rewards.cache import CachedReward, ScoreStore
from attune.nodes.rewards.kept_scores import KeptScores
class Silent:
    name, reward_id, differentiable, higher_is_better = "Silent", "counting", True, True
    def __call__(self, *_):
        raise SystemExit("asked")
memory = ScoreStore()
memory.attach(KeptScores(Store(Path(sys.argv[1]))))
reward = CachedReward(Silent(), memory)
images = torch.rand(3, 8, 8, 3, generator=torch.Generator().manual_seed(5))
print(reward(images, ["a cat"] * 3).tolist(), reward.hits, reward.forward_calls)
"""
    with process(code, path) as other:
        assert other.communicate(timeout=120)[0].split("] ")[1].split() == ["3", "0"]
    assert other.returncode == 0


def test_no_prompt_can_be_read_in_the_file(path, images):
    reward = cached(path)
    reward(images, ["a secret garden"] * 3)
    reward.store._kept.store.close()
    content = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"counting" in content
    assert b"secret" not in content


def test_digests_differ_where_anything_differs():
    keys = [("r", "h", "p"), ("rh", "", "p"), ("r", "hp", ""), ("r", "h", "q"), ("s", "h", "p"), ("r", "h", "\ud800")]
    assert len({key_digest(key) for key in keys}) == len(keys)


def test_the_scores_used_longest_ago_are_dropped(path, monkeypatch):
    clock = [1_000_000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    kept = KeptScores(Store(path), limit=20)
    for number in range(20):
        clock[0] += 1
        kept.remember({("r", str(number), ""): float(number)})
    clock[0] += 200_000
    assert kept.find([("r", "0", "")]) == {("r", "0", ""): 0.0}
    kept.remember({("r", "new", ""): 1.0})
    known = kept.find([("r", str(number), "") for number in range(20)] + [("r", "new", "")])
    assert {key[1] for key in known} == {"0", "new", *(str(number) for number in range(3, 20))}


def test_finding_scores_again_writes_nothing_on_the_same_day(path):
    kept = KeptScores(Store(path))
    kept.remember({("r", "a", ""): 0.1})
    with kept.store.reading() as connection:
        before = connection.total_changes
        assert kept.find([("r", "a", ""), ("r", "b", "")]) == {("r", "a", ""): 0.1}
        assert connection.total_changes == before


def test_many_scores_are_found_at_once(path):
    kept = KeptScores(Store(path))
    scores = {("r", str(number), "p"): number / 7 for number in range(1234)}
    kept.remember(scores)
    assert KeptScores(Store(path)).find(scores) == scores


def test_a_failing_disk_never_fails_a_score_and_warns_once(path, images, caplog):
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database" * 100)
    reward = cached(path)
    with caplog.at_level(logging.WARNING, "attune"):
        for turn in range(3):
            reward.store._kept._resume = 0.0
            expected = (images + turn).flatten(1).mean(1)
            assert torch.equal(reward(images + turn, ["a"] * 3), expected)
    (record,) = caplog.records
    assert "is damaged" in record.getMessage() and "not on disk" in record.getMessage()
    reward(images, ["a"] * 3)
    assert reward.forward_calls == 3, "memory still serves"


def test_a_disk_that_fails_is_left_alone_for_a_while(path, images):
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database" * 100)
    reward = cached(path)
    reward(images, ["a"] * 3)
    path.unlink()
    reward(images, ["b"] * 3)
    assert not path.exists()
    reward.store._kept._resume = 0.0
    reward(images, ["c"] * 3)
    assert torch.equal(cached(path)(images, ["c"] * 3), images.flatten(1).mean(1))


@pytest.mark.needs_system("posix", "the folder of an open file cannot be moved elsewhere")
@pytest.mark.parametrize("instead", ["a file", "links in a circle"])
def test_a_path_that_cannot_be_followed_any_more_is_explained_and_scoring_goes_on(path, images, instead):
    reward = cached(path)
    reward(images, ["a"] * 3)
    path.parent.rename(path.parent.with_name("elsewhere"))
    if instead == "a file":
        path.parent.write_text("no folder")
    else:
        path.parent.symlink_to(path.parent)
    with pytest.raises(StoreError, match=f"cannot be opened or written.*the folder {path.parent}"):
        notes(reward.store._kept.store)
    assert torch.equal(reward(images, ["b"] * 3), images.flatten(1).mean(1))
    assert reward.forward_calls == 2


# ---- hashes ----


def test_hashes_of_a_batch_equal_those_of_its_pictures():
    for size in (4, 400):
        batch = torch.rand(3, size, size, 3)
        assert content_hashes(batch) == [content_hash(picture) for picture in batch]
    assert content_hashes(batch[:0]) == []


def test_rewards_asked_about_one_batch_share_its_hashes(monkeypatch, images):
    from attune.nodes.rewards import cache

    hashed = []
    monkeypatch.setattr(cache, "content_hashes", lambda batch: hashed.append(len(batch)) or content_hashes(batch))
    first, second = (CachedReward(Counting(), ScoreStore()) for _ in range(2))
    with hashed_once(images):
        first(images, ["a"] * 3)
        second(images, ["a"] * 3)
        second(images[:1], ["a"])
    first(images, ["a"] * 3)
    assert hashed == [3, 1, 3]
