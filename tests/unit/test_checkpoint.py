"""Atomic files and the flattening of nested states."""

from __future__ import annotations

import os
import stat

import pytest
import torch

from attune.training.checkpoint import CheckpointError, flatten, read_state, unflatten, write_state


def test_state_round_trip_keeps_types_and_bits(tmp_path):
    tensors = {}
    tree = {0: {"exp_avg": torch.randn(3), "step": torch.tensor(2.0)}, "names": ["a", None, 1.5], "deep": {"x": (1, 2)}}
    document = flatten(tree, "optimizer", tensors)
    write_state(tmp_path / "new" / "state.safetensors", tensors, document)
    loaded = unflatten(*reversed(read_state(tmp_path / "new" / "state.safetensors")))
    assert torch.equal(loaded[0]["exp_avg"], tree[0]["exp_avg"])
    assert loaded["names"] == ["a", None, 1.5] and loaded["deep"]["x"] == [1, 2]
    assert set(loaded) == {0, "names", "deep"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
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
