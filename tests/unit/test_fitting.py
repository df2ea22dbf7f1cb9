"""What is done to make a training step fit into memory, in which order, and what is said about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from attune.nodes.training.fitting import Fit, begun_precision, fitting
from attune.tests.small_unets import larger_denoiser
from attune.training.adapters import LoraConfig, Policy, quantised
from attune.training.denoisers import DiffusersDenoiser
from attune.training.interfaces import Prompt, TrainingError
from attune.training.memory import MemorySettings, estimate, module_bytes
from attune.training.objectives.supervised import SupervisedConfig, SupervisedObjective
from attune.training.trainer import TrainerConfig, train

SHAPE = (4, 8, 8)
AUTO = MemorySettings("auto", "auto")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def denoiser() -> DiffusersDenoiser:
    return larger_denoiser()


COND = torch.zeros(5, 64)
STEP = {"batch": 4, "guidance": 1.0, "autocast": None, "average": False}


def fit(policy: Policy, settings: MemorySettings, free: int, **more: Any) -> Fit:
    return fitting(policy, settings, SHAPE, COND, lambda: free, knob="batch_size", **STEP, **more)


def needed(policy: Policy) -> int:
    """Bytes beyond what is there already."""
    found = estimate(policy, SHAPE, COND, **STEP)
    return found.total - module_bytes(policy.module)


@pytest.mark.parametrize(
    ("settings", "saves", "begun", "expected"),
    [
        (MemorySettings(), True, None, ("",)),
        (MemorySettings(), True, "nf4", ("",)),
        (MemorySettings("nf4"), False, None, ("nf4",)),
        (MemorySettings("int8"), True, "", ("int8",)),
        (AUTO, True, None, ("", "nf4")),
        (AUTO, False, None, ("",)),  # the originals would lie beside the copies
        (AUTO, True, "nf4", ("nf4",)),
        (AUTO, True, "", ("",)),  # a run goes on as it was begun
    ],
)
def test_precisions_in_their_order(settings: MemorySettings, saves: bool, begun: str | None, expected: tuple) -> None:
    assert settings.precisions(saves=saves, begun=begun) == expected


def test_what_fits_is_left_as_it_is(denoiser: DiffusersDenoiser) -> None:
    with Policy(denoiser, LoraConfig(rank=2)) as policy:
        found = fit(policy, AUTO, needed(policy) + 1000)
    assert (found.checkpointing, found.precision, found.problem, found.note) == (False, "", "", "")
    assert found.needed.activations > 0


def test_first_checkpointing_then_nf4(denoiser: DiffusersDenoiser) -> None:
    with Policy(denoiser, LoraConfig(rank=2)) as policy:
        plain = needed(policy)
        found = fit(policy, AUTO, int(0.8 * plain))
        assert (found.checkpointing, found.problem) == (True, "")
        assert found.needed.activations < 0.8 * plain
        assert found.note.startswith("Saving memory: gradient checkpointing (")
        assert "too little without" in found.note
        nothing = fit(policy, AUTO, 1000)
        assert "Training needs about" in nothing.problem
        assert nothing.checkpointing
    with quantised(denoiser.module, "nf4"), Policy(denoiser, LoraConfig(rank=2)) as policy:
        last = fit(policy, AUTO, plain, earlier=nothing)
    assert (last.precision, last.checkpointing, last.problem) == ("nf4", False, "")
    assert last.note == f"Saving memory: base weights in NF4 ({nothing.without})"
    assert last.figures()["base_precision"] == "nf4"


def test_what_is_asked_for_is_done(denoiser: DiffusersDenoiser) -> None:
    with Policy(denoiser, LoraConfig(rank=2)) as policy:
        enough = 10 * needed(policy)
        on = fit(policy, MemorySettings(gradient_checkpointing="on"), enough)
        assert on.checkpointing
        assert on.note == "Saving memory: gradient checkpointing"
        off = fit(policy, MemorySettings(gradient_checkpointing="off"), 1000)
    assert not off.checkpointing
    assert off.problem


def test_processes_choose_alike(denoiser: DiffusersDenoiser) -> None:
    """One that has enough memory does what another needs."""
    asked = []

    def agree(flag: bool) -> bool:
        asked.append(flag)
        return len(asked) == 1

    with Policy(denoiser, LoraConfig(rank=2)) as policy:
        found = fit(policy, AUTO, 10 * needed(policy), agree=agree)
    assert asked == [False, False]
    assert found.checkpointing
    assert not found.problem
    assert "elsewhere" in found.without


def test_a_run_remembers_its_precision_and_is_not_resumed_with_another(
    denoiser: DiffusersDenoiser, tmp_path: Path
) -> None:
    def run(folder: Path) -> None:
        with Policy(denoiser, LoraConfig(rank=2)) as policy:
            objective = SupervisedObjective(
                [torch.ones(SHAPE)], [Prompt("", COND)], SupervisedConfig(batch=1, caption_dropout=0)
            )
            same = {"base model": "as the host tells it"}
            train(policy, objective, TrainerConfig(steps=1, sample_every=0), run_folder=folder, identity=same)

    assert begun_precision(tmp_path / "plain") is None
    run(tmp_path / "plain")
    assert begun_precision(tmp_path / "plain") == ""
    with quantised(denoiser.module, "nf4"):
        run(tmp_path / "stored")
        with pytest.raises(TrainingError, match=r"base precision .*= 'as loaded', now it is 'nf4'"):
            run(tmp_path / "plain")
    assert begun_precision(tmp_path / "stored") == "nf4"
    with pytest.raises(TrainingError, match=r"started with base precision .*= 'nf4', now it is 'as loaded'"):
        run(tmp_path / "stored")


def test_unknown_words_are_quoted() -> None:
    with pytest.raises(TrainingError, match="base_precision must be one of as loaded, auto, nf4, int8; not 'fp4'"):
        MemorySettings("fp4")
    with pytest.raises(TrainingError, match="gradient_checkpointing must be one of auto, on, off; not True"):
        MemorySettings(gradient_checkpointing=True)


def test_what_is_free_is_asked_before_anything_is_measured(denoiser):
    told: list[str] = []

    def free() -> int:
        told.append("free")
        return 10**12

    def pictures() -> None:
        told.append("pictures")

    with Policy(denoiser, LoraConfig(rank=2)) as policy:
        fitting(policy, MemorySettings(), SHAPE, COND, free, knob="", pictures=pictures, **STEP)
    assert told == ["free", "pictures"]
