"""Atomic files and the flattening of nested states."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from attune.training.checkpoint import (
    ABANDONED,
    OUTDATED,
    CheckpointError,
    flatten,
    read_state,
    unflatten,
    write_state,
)


def test_state_round_trip_keeps_types_and_bits(tmp_path):
    tensors = {}
    tree = {0: {"exp_avg": torch.randn(3), "step": torch.tensor(2.0)}, "names": ["a", None, 1.5], "deep": {"x": (1, 2)}}
    document = flatten(tree, "optimizer", tensors)
    write_state(tmp_path / "new" / "state.safetensors", tensors, document)
    loaded = unflatten(*reversed(read_state(tmp_path / "new" / "state.safetensors")))
    assert torch.equal(loaded[0]["exp_avg"], tree[0]["exp_avg"])
    assert loaded["names"] == ["a", None, 1.5] and loaded["deep"]["x"] == [1, 2]
    assert set(loaded) == {0, "names", "deep"}


class Copies(TorchDispatchMode):
    """Counts the numbers that are copied inside."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if function._overloadpacket in (torch.ops.aten.clone, torch.ops.aten._to_copy, torch.ops.aten.copy_):
            self.numbers += found.numel()
        return found


def test_only_what_shares_memory_or_is_scattered_is_copied_for_the_file(tmp_path):
    """Whole weights with their moments fill so much memory that there is no room for them twice."""
    large = torch.randn(50, 40)
    tied, scattered = large[10:20], torch.randn(6, 5).T
    tensors = {"large": large, "tied": tied, "scattered": scattered, "half": torch.ones(3).bfloat16()}
    with Copies() as copies:
        write_state(tmp_path / "state.safetensors", tensors, {})
    assert copies.numbers == tied.numel() + scattered.numel()
    found, _ = read_state(tmp_path / "state.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], value) for name, value in tensors.items())
    # A view may come first, and alone.
    write_state(tmp_path / "state.safetensors", {"tied": tied, "large": large}, {})
    found, _ = read_state(tmp_path / "state.safetensors")
    assert torch.equal(found["tied"], tied) and torch.equal(found["large"], large)
    write_state(tmp_path / "state.safetensors", {"tied": tied}, {})
    assert torch.equal(read_state(tmp_path / "state.safetensors")[0]["tied"], tied)


@pytest.mark.needs_system("posix", "Windows has no permission bits")
def test_files_have_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    write_state(tmp_path / "state.safetensors", {"x": torch.zeros(1)}, {})
    assert stat.S_IMODE((tmp_path / "state.safetensors").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "plain").stat().st_mode
    )


def test_a_foreign_file_is_refused_by_name(tmp_path):
    (tmp_path / "foreign.safetensors").write_bytes(b"not a safetensors file at all")
    with pytest.raises(CheckpointError, match=r"foreign\.safetensors"):
        read_state(tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="does not exist"):
        read_state(tmp_path / "missing.safetensors")


def test_a_file_without_state_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "lora.safetensors")
    with pytest.raises(CheckpointError, match="not a training state"):
        read_state(tmp_path / "lora.safetensors")


def ended_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid


def left_behind(path: Path, *, idle: float) -> Path:
    path.write_bytes(b"half")
    os.utime(path, (time.time() - idle,) * 2)
    return path


def test_the_next_write_sweeps_what_killed_processes_left(tmp_path):
    """Only files of our naming, whose process is gone for a while, or which nobody can be writing any more."""
    gone, here, windows = ended_process(), os.getppid(), os.name == "nt"
    swept = [
        left_behind(
            tmp_path / f".warm_001.safetensors.{gone}.partial", idle=OUTDATED + 1 if windows else ABANDONED + 1
        ),
        left_behind(tmp_path / f".state-4.safetensors.{here}.partial", idle=OUTDATED + 1),
        left_behind(tmp_path / f".state-4.safetensors.{10**30}.partial", idle=OUTDATED + 1),
    ]
    kept = [
        left_behind(tmp_path / f".state-5.safetensors.{gone}.partial", idle=ABANDONED / 2),
        left_behind(tmp_path / f".state-5.safetensors.{here}.partial", idle=ABANDONED + 1),
        left_behind(tmp_path / "mine.partial", idle=OUTDATED + 1),
        left_behind(tmp_path / f"mine.{gone}.partial", idle=OUTDATED + 1),
        left_behind(tmp_path / ".mine.partial", idle=OUTDATED + 1),
        left_behind(tmp_path / "warm_002.safetensors", idle=OUTDATED + 1),
    ]
    folder = tmp_path / f".folder.{gone}.partial"
    folder.mkdir()
    os.utime(folder, (0, 0))
    write_state(tmp_path / "state.safetensors", {"x": torch.zeros(1)}, {})
    assert not [file.name for file in swept if file.exists()]
    assert [file.name for file in (*kept, folder) if file.exists()] == [file.name for file in (*kept, folder)]
    assert read_state(tmp_path / "state.safetensors")[0]["x"].shape == (1,)
