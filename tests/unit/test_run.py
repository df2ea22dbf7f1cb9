"""What a training run leaves, without a host: files, figures, words. The host's two modules are stand-ins."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open

from attune.nodes.training import products
from attune.nodes.training import run_records as module
from attune.nodes.training.records import reward_record
from attune.training.adapters import LoraConfig
from attune.training.interfaces import AttuneError
from attune.training.run_state import pack_history
from attune.training.trainer import TrainerConfig

TENSORS = {"layer.lora_down.weight": torch.ones(2, 4), "layer.lora_up.weight": torch.ones(4, 2)}


class Callbacks:
    """Stands in for `LiveCallbacks`: remembers how the run ended."""

    def __init__(self, total: int, **_: Any) -> None:
        self.total, self.updates = total, 0
        self.identity = {"workflow": "", "run": "warm"}
        self.ends: list[dict[str, str]] = []
        self.at_first_update = lambda: None

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
    model = SimpleNamespace(model=SimpleNamespace(), patches={})
    request = module.TrainingRequest(model, plan, LoraConfig(rank=2), TrainerConfig(steps=steps), name, resume)
    return module.RunRecords(request, folder, {"base_hash": "b", "data_hash": "d"})


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["warm", "w" * 80, "暖" * 60, "w" * 200])
def test_every_run_name_leads_to_new_files_with_numbers_in_a_row(name: str, tmp_path: Path):
    """A name is cut so that ending and number fit: they are what tells the files apart."""
    run = run_of(name, tmp_path / "run")
    finished = [run._save(TENSORS, step, {}) for step in (1, 2)]
    run.save_stopped(stopped_at(3))
    run.save_stopped(stopped_at(4))
    stopped = [end["file"] for end in run.callbacks.ends]
    for files, ending in ((finished, ""), (stopped, "_stopped")):
        assert [Path(file).stem[-4:] for file in files] == ["_001", "_002"]
        (stem,) = {Path(file).stem[:-4] for file in files}
        assert stem.endswith(ending) and name.startswith(stem.removesuffix(ending))
        assert len(stem) <= 76 and len(stem.encode()) <= 156
    with safe_open(tmp_path / "loras" / finished[1], "pt") as file:
        assert file.metadata()["ss_steps"] == "2"


def test_the_lora_and_the_report_say_by_which_formula_it_was_trained(tmp_path: Path):
    reward = SimpleNamespace(name="Mix", formula="0.7·z(A) + 0.3·z(B)", reward_id="combined:1")
    run = run_of("mixed", tmp_path / "run")
    run.identity |= reward_record(SimpleNamespace(reward=reward))
    with safe_open(tmp_path / "loras" / run._save(TENSORS, 1, {}), "pt") as file:
        metadata = file.metadata()
    assert metadata["attune.reward"] == "0.7·z(A) + 0.3·z(B)"
    assert metadata["attune.reward_id"] == "combined:1"
    assert reward_record(SimpleNamespace()) == {}
    del reward.formula
    assert reward_record(SimpleNamespace(reward=reward))["reward"] == "Mix"


# ---- how a run ends --------------------------------------------------------------------------------------------------


class Interrupt(Exception):
    pass


Interrupt.__name__ = "InterruptProcessingException"


class Weights:
    """As much of a policy as a run that broke off needs."""

    roles = ("policy",)

    def load_tensors(self, tensors: Any, role: str) -> None:
        pass

    def tensors(self, role: str) -> dict[str, torch.Tensor]:
        return TENSORS


def no_room(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


def saved_state(run: Any, step: int, *, best: int = 0) -> None:
    """What the trainer leaves: one state, and so many updates done in this call."""
    table = module.StateFolder(run.folder)
    history = pack_history([{"step": n + 1, "loss": 1.0 / (n + 1)} for n in range(step)])
    evaluations = {"best_step": best, "best_tensors": TENSORS if best else {}}
    weights = {"adapters": TENSORS, "auxiliary": {}, "average": None}
    table.write(step, {**weights, "history": history, "evaluations": evaluations})
    run.callbacks.updates = step


def stopped_at(step: int, *, kept: int | None = None) -> Any:
    """What the trainer gives when it was asked to stop."""
    history = [{"step": n + 1, "loss": 1.0 / (n + 1)} for n in range(step)]
    return module.TrainResult(TENSORS, step, "stopped", history, 0.0, 0.5, kept_step=step if kept is None else kept)


def test_a_lora_of_the_best_weights_has_their_figures(tmp_path: Path):
    """Cancelled after update 4 with the best weights at 2: the file is of update 2, by Cancel and by Stop and save."""
    run = run_of("warm", tmp_path / "run")
    run.request = replace(run.request, trainer=TrainerConfig(steps=9, evaluate_every=2, keep="best"))
    saved_state(run, 4, best=2)
    run.broke_off(Weights(), Interrupt())
    run.save_stopped(stopped_at(4, kept=2))
    assert len(run.callbacks.ends) == 2
    for end in run.callbacks.ends:
        with safe_open(tmp_path / "loras" / end["file"], "pt") as file:
            metadata = file.metadata()
        assert metadata["ss_steps"] == "2"
        assert json.loads(metadata["attune.metrics"])["loss"] == pytest.approx(0.5)


def test_a_full_disk_ends_a_stopped_run_in_the_live_view_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = run_of("warm", tmp_path / "run")
    monkeypatch.setattr(products, "save_lora", no_room)
    problem = run.save_stopped(stopped_at(3))
    assert problem == ("The LoRA so far could not be saved: OSError: [Errno 28] No space left on device.")
    (end,) = run.callbacks.ends
    assert (end["status"], end["file"]) == ("stopped", "")
    assert end["message"] == f"{problem} Press Run to go on from here."


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (Interrupt(), "stopped", "The LoRA so far could not be saved: OSError: "),
        (ValueError("expected 4 channels"), "failed", "ValueError: expected 4 channels"),
        (AttuneError("The reward returned nan. Choose another."), "failed", "The reward returned nan. Choose another."),
        (KeyError(), "failed", "KeyError"),
    ],
)
def test_a_full_disk_does_not_hide_what_ended_the_run(
    error: Exception, status: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = run_of("warm", tmp_path / "run")
    saved_state(run, 2)
    monkeypatch.setattr(products, "save_lora", no_room)
    run.broke_off(Weights(), error)
    (end,) = run.callbacks.ends
    assert (end["status"], end["file"]) == (status, "")
    assert end["message"].startswith(message)


def test_a_run_that_broke_off_leaves_its_newest_state_as_a_lora(tmp_path: Path):
    run = run_of("warm", tmp_path / "run")
    saved_state(run, 2)
    run.broke_off(Weights(), Interrupt())
    (end,) = run.callbacks.ends
    assert (tmp_path / "loras" / end["file"]).name == "warm_stopped_001.safetensors"
    assert end["message"].startswith("LoRA so far: ")


def test_a_run_that_went_back_after_a_collapse_says_so(tmp_path: Path):
    run = run_of("warm", tmp_path / "run")
    assert run.note == ""
    went_back = {"after_update": 9, "setting": "weights", "before": "after update 9", "now": "after update 6"}
    run.changes = [{"after_update": 9, "setting": "training learning_rate", "before": 2.0, "now": 1.0}, went_back]
    assert run.note == "It collapsed after update 9 and went on from the weights after update 6."


# ---- how long it took ------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its last entry is the time."""
    moments = [100.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: moments[-1]))
    return moments


def begun(folder: Path, clock: list[float], *, resume: bool = True, seconds: float, step: int) -> Any:
    """A run that began and has come to `step` within `seconds`."""
    run = run_of("warm", folder, resume=resume)
    run.begin(None)
    saved_state(run, step)
    run.callbacks.at_first_update()
    clock.append(clock[-1] + seconds)
    return run


def finished(run: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The report of a run that ends here."""
    sampling = ModuleType("sampling")
    sampling.apply_lora = lambda model, tensors: model
    monkeypatch.setitem(sys.modules, "attune.nodes.host.sampling", sampling)
    history = [{"step": 1, "loss": 1.0}]
    run.finish(module.TrainResult(TENSORS, run.callbacks.updates, "finished", history, 0.0, 0.5))
    return module.read_record(run.folder)


def test_seconds_add_up_over_cancel_error_and_resume(tmp_path: Path, clock, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "run"
    begun(folder, clock, seconds=10, step=1).save_stopped(stopped_at(1))
    begun(folder, clock, seconds=20, step=2).broke_off(Weights(), Interrupt())
    begun(folder, clock, seconds=30, step=3).broke_off(Weights(), ValueError("no"))
    run = begun(folder, clock, seconds=40, step=4)
    assert finished(run, monkeypatch)["seconds"] == 100
    run = run_of("warm", folder)
    run.begin(None)
    clock.append(clock[-1] + 50)
    assert finished(run, monkeypatch)["seconds"] == 100, "loading a finished run is not training"


@pytest.mark.parametrize("broken", [False, True])
def test_a_run_that_starts_fresh_takes_over_no_seconds(broken: bool, tmp_path: Path, clock, monkeypatch):
    """Also if it is cancelled, and if its process is killed before it could write a record of its own."""
    folder = tmp_path / "run"
    name = finished(begun(folder, clock, seconds=1000, step=4), monkeypatch)["lora_name"]
    fresh = begun(folder, clock, resume=False, seconds=10, step=1)
    if not broken:
        fresh.save_stopped(stopped_at(1))
    report = finished(begun(folder, clock, seconds=5, step=2), monkeypatch)
    assert report["seconds"] == (5 if broken else 15)
    assert report["lora_name"] == name, "the same weights are in that file already"


def test_what_was_set_anew_on_the_way_stands_in_the_report_and_in_the_lora(tmp_path: Path, clock, monkeypatch):
    changes = [{"after_update": 1, "setting": "training learning_rate", "before": 0.1, "now": 0.01}]
    run = begun(tmp_path / "run", clock, seconds=1, step=2)
    run.save_stopped(replace(stopped_at(2), changes=changes))
    report = finished(begun(tmp_path / "other", clock, seconds=1, step=2), monkeypatch)
    with safe_open(tmp_path / "loras" / run.callbacks.ends[-1]["file"], "pt") as file:
        assert json.loads(file.metadata()["attune.settings"])["set_anew"] == changes
    assert run._settings()["set_anew"] == changes
    assert "set_anew" not in report


@pytest.mark.parametrize("resume", [True, False])
def test_a_call_that_did_nothing_leaves_the_record_as_it_was(resume: bool, tmp_path: Path, clock, monkeypatch):
    """A fresh start included: without an update the trainer keeps the earlier run's states too."""
    folder = tmp_path / "run"
    report = finished(begun(folder, clock, seconds=7, step=4), monkeypatch)
    run = run_of("warm", folder, resume=resume)
    run.begin(None)
    clock.append(clock[-1] + 50)
    run.broke_off(Weights(), AttuneError("The run cannot be resumed."))
    assert module.read_record(folder) == report
