"""What a training run leaves, without a host: the names of its LoRA files. The host's two modules are stand-ins."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open

from attune.nodes.training import run as module
from attune.training.adapters import LoraConfig
from attune.training.trainer import TrainerConfig

TENSORS = {"layer.lora_down.weight": torch.ones(2, 4), "layer.lora_up.weight": torch.ones(4, 2)}


class Callbacks:
    """Stands in for `LiveCallbacks`: remembers how the run ended."""

    def __init__(self, total: int, **_: Any) -> None:
        self.total, self.updates = total, 0
        self.ends: list[dict[str, str]] = []

    def start(self, **_: Any) -> None:
        pass

    def end(self, status: str, *, file: str, message: str) -> None:
        self.ends.append({"status": status, "file": file, "message": message})


@pytest.fixture(autouse=True)
def _host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The host's folders are temporary ones; what shows a run in the page is `Callbacks`."""
    paths = ModuleType("folder_paths")
    paths.get_folder_paths = lambda _: [str(tmp_path / "loras")]
    paths.get_user_directory = lambda: str(tmp_path / "user")
    callbacks = ModuleType("callbacks")
    callbacks.LiveCallbacks = Callbacks
    monkeypatch.setitem(sys.modules, "folder_paths", paths)
    monkeypatch.setitem(sys.modules, "attune.nodes.training.callbacks", callbacks)
    monkeypatch.delitem(sys.modules, "attune.nodes.host.folders", raising=False)
    importlib.import_module("attune.nodes.host.folders")
    yield
    # It holds the stand-in: the next one who imports it gets a fresh one.
    sys.modules.pop("attune.nodes.host.folders", None)


def run_of(name: str, folder: Path, *, resume: bool = True, steps: int = 4) -> Any:
    """A run that has not begun."""
    plan = SimpleNamespace(title="Supervised", method="supervised", settings=dict, curve_titles={})
    model = SimpleNamespace(model=SimpleNamespace())
    request = module.TrainingRequest(model, plan, LoraConfig(rank=2), TrainerConfig(steps=steps), name, resume)
    return module._Run(request, folder, {"base_hash": "b", "data_hash": "d"})


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["warm", "w" * 80, "暖" * 60, "w" * 200])
def test_every_run_name_leads_to_new_files_with_numbers_in_a_row(name: str, tmp_path: Path):
    """A name is cut so that ending and number fit: they are what tells the files apart."""
    run = run_of(name, tmp_path / "run")
    finished = [run._save(TENSORS, step, {}) for step in (1, 2)]
    run.save_stopped(TENSORS, 3, [])
    run.save_stopped(TENSORS, 4, [])
    stopped = [end["file"] for end in run.callbacks.ends]
    for files, ending in ((finished, ""), (stopped, "_stopped")):
        assert [Path(file).stem[-4:] for file in files] == ["_001", "_002"]
        (stem,) = {Path(file).stem[:-4] for file in files}
        assert stem.endswith(ending) and name.startswith(stem.removesuffix(ending))
        assert len(stem) <= 76 and len(stem.encode()) <= 156
    with safe_open(tmp_path / "loras" / finished[1], "pt") as file:
        assert file.metadata()["ss_steps"] == "2"
