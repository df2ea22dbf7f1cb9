"""What files hold: read once, told while it is read, stopped, and kept from one session to the next."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attune.nodes.rewards.kept_digests import KeptDigests
from attune.nodes.store import FILE_NAME, Store
from attune.training import digests
from attune.training.digests import file_digest, file_digests, keep_in, telling


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch) -> Iterator[None]:
    """Files of some bytes have several blocks, and are worth keeping; nothing of this stays."""
    monkeypatch.setattr(digests, "_BLOCK", 4)
    monkeypatch.setattr(digests, "WORTH_KEEPING", 3)
    monkeypatch.setattr(digests, "_known", {})
    yield
    keep_in(None)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def read_by(*paths: Path) -> list[tuple[int, int]]:
    """What is told while these files are asked for: nothing where none of them is read."""
    told: list[tuple[int, int]] = []
    with telling(lambda done, total: told.append((done, total))):
        found = file_digests(paths)
    assert found == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    return told


def test_a_file_is_read_once_until_it_changes(tmp_path):
    first, second = written(tmp_path / "a", b"0123456789"), written(tmp_path / "b", b"abcde")
    assert read_by(first, second, first) == [(0, 15), (4, 15), (8, 15), (10, 15), (14, 15)]
    assert read_by(first, second) == []
    written(first, b"9876543210")
    os.utime(first, ns=(1, 1))
    assert read_by(first, second) == [(0, 10), (4, 10), (8, 10)]
    (tmp_path / "link").symlink_to(second)
    assert read_by(tmp_path / "link") == []


def test_who_is_told_may_stop_it_and_nothing_half_is_known(tmp_path):
    file = written(tmp_path / "a", b"0123456789")

    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with telling(stop), pytest.raises(KeyboardInterrupt):
        file_digest(file)
    assert len(read_by(file)) == 3


def test_what_is_written_to_meanwhile_is_read_again(tmp_path):
    file = written(tmp_path / "a", b"0123456789")

    def change(done: int, total: int) -> None:
        os.utime(file, ns=(done + 1, done + 1))

    with telling(change):
        file_digest(file)
    assert len(read_by(file)) == 3


def test_a_restart_reads_nothing_again(tmp_path, monkeypatch):
    file = written(tmp_path / "model.safetensors", b"0123456789")
    keep_in(KeptDigests(Store(tmp_path / FILE_NAME)))
    assert len(read_by(file)) == 3
    monkeypatch.setattr(digests, "_known", {})
    keep_in(KeptDigests(Store(tmp_path / FILE_NAME)))
    assert read_by(file) == []
    for change in (lambda: written(file, b"01234567890"), lambda: os.utime(file, ns=(7, 7))):
        change()
        monkeypatch.setattr(digests, "_known", {})
        assert len(read_by(file)) == 3
    assert b"model.safetensors" not in b"".join(part.read_bytes() for part in tmp_path.glob(f"{FILE_NAME}*"))


def test_small_files_and_the_oldest_ones_are_not_kept(tmp_path):
    store = Store(tmp_path / FILE_NAME)
    keep_in(KeptDigests(store, limit=3))
    read_by(written(tmp_path / "small", b"xx"))
    files = [written(tmp_path / str(number), b"0123") for number in range(5)]
    for file in files:
        read_by(file)
    with store.reading() as connection:
        assert connection.execute("SELECT COUNT(*) FROM file_digests").fetchone() == (3,)
    kept = KeptDigests(store)
    assert [kept.find(digests._key(file)) is not None for file in files] == [False, False, True, True, True]


def test_a_store_that_fails_costs_another_reading_and_nothing_else(tmp_path, monkeypatch):
    file = written(tmp_path / "a", b"0123456789")
    (tmp_path / FILE_NAME).mkdir()
    keep_in(KeptDigests(Store(tmp_path / FILE_NAME)))
    assert len(read_by(file)) == 3
    monkeypatch.setattr(digests, "_known", {})
    assert len(read_by(file)) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps the time at which a file was made instead")
def test_another_content_with_the_old_size_and_time_is_read(tmp_path, monkeypatch):
    file = written(tmp_path / "a", b"0123456789")
    keep_in(KeptDigests(Store(tmp_path / FILE_NAME)))
    before = file.stat()
    read_by(file)
    # Longer than the tick in which the file system counts.
    time.sleep(0.02)
    written(file, b"9876543210")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert len(read_by(file)) == 3
    time.sleep(0.02)
    written(file, b"aaaaaaaaaa")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    monkeypatch.setattr(digests, "_known", {})
    assert len(read_by(file)) == 3


def test_another_file_in_its_place_is_read(tmp_path):
    file = written(tmp_path / "a", b"0123456789")
    other = written(tmp_path / "b", b"9876543210")
    for each in (file, other):
        os.utime(each, ns=(7, 7))
    read_by(file)
    other.replace(file)
    assert len(read_by(file)) == 3


@pytest.mark.parametrize("number", [1 << 63, -(1 << 64), 1 << 127])
def test_times_and_numbers_beyond_64_bits_are_kept_like_others(tmp_path, number):
    kept, digest = KeptDigests(Store(tmp_path / FILE_NAME)), "0f" * 32
    for place in range(1, 5):
        key = ["a", 1, 2, 3, 4]
        key[place] = number
        assert kept.find(tuple(key)) is None
        kept.remember(tuple(key), digest)
        assert kept.find(tuple(key)) == digest


@pytest.mark.parametrize("damage", ["garbage", b"\x00\xff", "A" * 64, "0" * 63, "0" * 65, ""])
def test_a_row_without_a_digest_is_no_row(tmp_path, monkeypatch, damage):
    file, store = written(tmp_path / "a", b"0123456789"), Store(tmp_path / FILE_NAME)
    keep_in(KeptDigests(store))
    read_by(file)
    with store.writing() as connection:
        connection.execute("UPDATE file_digests SET digest = ?", (damage,))
    for parts_read in (3, 0):
        monkeypatch.setattr(digests, "_known", {})
        assert len(read_by(file)) == parts_read


def test_a_busy_store_is_waited_for_once_and_asked_again_later(tmp_path, monkeypatch):
    store = Store(tmp_path / FILE_NAME, patience=0.3)
    kept = KeptDigests(store)
    keep_in(kept)
    files = [written(tmp_path / str(number), b"0123") for number in range(6)]
    with store.reading():
        pass
    other = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    read_by(*files)
    assert time.monotonic() - started < 2 * 0.3
    other.execute("ROLLBACK")
    other.close()
    kept._resume = 0.0
    monkeypatch.setattr(digests, "_known", {})
    read_by(*files)
    assert all(kept.find(digests._key(file)) for file in files)


def test_what_was_found_last_is_dropped_last(tmp_path):
    kept = KeptDigests(Store(tmp_path / FILE_NAME), limit=2)
    first, second, third = (((name, 1, 1, 1, 1), name * 64) for name in "abc")
    kept.remember(*first)
    kept.remember(*second)
    assert kept.find(first[0]) == first[1]
    kept.remember(*third)
    assert [kept.find(key) for key, _ in (first, second, third)] == [first[1], None, third[1]]
