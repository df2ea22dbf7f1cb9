"""Example files: those that a newer version ships come to a folder that is there; nothing of a person is touched."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from attune.nodes.example_files import add_missing


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name in ("warm.txt", "dark.txt", "more/soft.txt"):
        path = tmp_path / "shipped" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"shipped {name}")
    return tmp_path / "shipped"


def files(folder: Path) -> dict[str, str]:
    """Everything below, hidden files too."""
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_that_is_not_there_comes_whole(source: Path, tmp_path: Path):
    target = tmp_path / "input" / "wildcards" / "attune"
    assert add_missing(source, target) == []
    assert files(target.parent) == {f"attune/{name}": words for name, words in files(source).items()}


def test_files_that_are_missing_come_to_a_folder_that_is_there(source: Path, tmp_path: Path):
    target = tmp_path / "input"
    (target / "mine").mkdir(parents=True)
    (target / "warm.txt").write_text("changed by me")
    (target / "mine" / "own.txt").write_text("mine")
    assert add_missing(source, target) == []
    expected = files(source) | {"warm.txt": "changed by me", "mine/own.txt": "mine"}
    assert files(target) == expected
    times = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    assert add_missing(source, target) == []
    assert files(target) == expected and {path: path.stat().st_mtime_ns for path in target.rglob("*")} == times


def test_a_file_of_a_person_where_a_folder_should_be_stays(source: Path, tmp_path: Path):
    target = tmp_path / "input"
    target.mkdir()
    (target / "more").write_text("a file of mine")
    (error,) = add_missing(source, target)
    assert isinstance(error, OSError)
    assert files(target) == {"more": "a file of mine", "warm.txt": "shipped warm.txt", "dark.txt": "shipped dark.txt"}


@pytest.mark.needs_system("posix", "links can be made by anybody")
def test_a_link_that_leads_nowhere_stays(source: Path, tmp_path: Path):
    target = tmp_path / "input"
    target.mkdir()
    (target / "warm.txt").symlink_to(tmp_path / "gone.txt")
    assert add_missing(source, target) == []
    assert os.readlink(target / "warm.txt") == str(tmp_path / "gone.txt") and not (tmp_path / "gone.txt").exists()


@pytest.mark.parametrize("there", [False, True], ids=["no folder", "a folder"])
def test_what_is_broken_off_leaves_no_half_of_a_file(
    source: Path, tmp_path: Path, there: bool, monkeypatch: pytest.MonkeyPatch
):
    target = tmp_path / "input" / "examples"
    target.parent.mkdir()
    if there:
        target.mkdir()

    def half(of: str | Path, to: str | Path, **more: object) -> None:
        Path(to).write_text(Path(of).read_text()[:5])
        raise OSError(errno.ENOSPC, "the disk is full")

    with monkeypatch.context() as full:
        full.setattr(shutil, "copy2", half)
        full.setattr(shutil, "copytree", lambda of, to: (Path(to).mkdir(), half(of / "warm.txt", to / "warm.txt")))
        assert add_missing(source, target)
    assert files(target.parent) == {}
    assert add_missing(source, target) == []
    assert files(target.parent) == {f"examples/{name}": words for name, words in files(source).items()}
