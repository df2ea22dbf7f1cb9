"""What files hold: read once, told while it is read, stopped, and kept from one session to the next."""

from __future__ import annotations

import hashlib
import os
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
