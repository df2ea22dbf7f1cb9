"""Runs that train whole weights: they go on, they say what memory they need, and what the nodes make of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from attune.nodes.training.fitting import fitting
from attune.nodes.training.job_file import job_of, read_job, write_job
from attune.nodes.training.products import product_of
from attune.nodes.training.run_schemas import TRAIN_LORA
from attune.nodes.training.widgets import lora_config, trained_shape
from attune.tests.small_unets import CONTEXT, frozen_denoiser
from attune.training import memory
from attune.training.adapters import WHOLE, LoraConfig, Policy
from attune.training.denoisers import DiffusersDenoiser
from attune.training.interfaces import Auxiliary, Prompt, RunCallbacks, TrainingError
from attune.training.memory import MemorySettings, advice, estimate, module_bytes
from attune.training.objectives.supervised import SupervisedConfig, SupervisedObjective
from attune.training.run_state import check_same_run
from attune.training.trained import Trained
from attune.training.trainer import TrainerConfig, train

SHAPE = (4, 8, 8)
COND = torch.ones(5, CONTEXT)
ALL = LoraConfig(kind="full", targets=("everything",))
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def denoiser() -> DiffusersDenoiser:
    return frozen_denoiser()


# ---- runs ----


class Interrupted(BaseException):
    """As the host's own: not an Exception that somebody might catch."""


class Killer(RunCallbacks):
    """Kills the run after an update."""

    def __init__(self, step: int) -> None:
        self.at = step

    def on_report(self, step: int, metrics: Any) -> None:
        if step == self.at:
            raise Interrupted


def run(denoiser: DiffusersDenoiser, folder: Path, callbacks: RunCallbacks | None = None) -> Any:
    """A whole run, with whatever a state must hold: average, warm-up, dropout."""
    picture = torch.linspace(-1, 1, 256).reshape(4, 8, 8)
    objective = SupervisedObjective([picture], [Prompt("", COND)], SupervisedConfig(batch=2))
    config = TrainerConfig(steps=6, learning_rate=1e-3, warmup_steps=2, ema=0.9, checkpoint_seconds=0.0, sample_every=0)
    with Policy(denoiser, LoraConfig(kind="full", dropout=0.2)) as policy:
        return train(policy, objective, config, run_folder=folder, callbacks=callbacks or RunCallbacks())


def test_a_killed_run_goes_on_to_the_same_weights(denoiser: DiffusersDenoiser, tmp_path: Path) -> None:
    expected = run(denoiser, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(denoiser, tmp_path / "killed", Killer(4))
    result = run(denoiser, tmp_path / "killed")
    assert result.steps_done == expected.steps_done == 6
    assert result.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(value, result.tensors[name]) for name, value in expected.tensors.items())
    assert [row["loss"] for row in result.history] == [row["loss"] for row in expected.history]
    assert all(value.any() for value in expected.tensors.values())


def test_runs_that_say_nothing_of_the_kind_are_low_rank_and_go_on(tmp_path: Path) -> None:
    earlier = {"method": "ddpo", "LoRA": {"rank": 8}}
    assert check_same_run(earlier, {"method": "ddpo", "LoRA": {"rank": 8, "kind": "low rank"}}, folder=tmp_path) == []
    with pytest.raises(TrainingError, match=r"LoRA kind \(trains in the node\) = 'low rank', now it is 'full'"):
        # The rank differs because of it.
        check_same_run(earlier, {"method": "ddpo", "LoRA": {"rank": 4, "kind": "full"}}, folder=tmp_path)


def test_runs_that_say_nothing_of_the_part_are_of_the_whole_network_and_go_on(tmp_path: Path) -> None:
    earlier = {"LoRA": {"rank": 8}}
    assert check_same_run(earlier, {"LoRA": {"rank": 8, "part": WHOLE}}, folder=tmp_path) == []
    with pytest.raises(TrainingError, match=r"LoRA part \(part in the node\) = 'whole network', now it is 'up path'"):
        check_same_run(earlier, {"LoRA": {"rank": 8, "part": "up path"}}, folder=tmp_path)


# ---- memory ----


@pytest.mark.parametrize("lora", [ALL, LoraConfig(rank=2, targets=("everything",))])
@pytest.mark.parametrize("roles", [("policy",), ("generator", "assistant")])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_estimate_is_what_the_optimizer_then_holds(
    denoiser: DiffusersDenoiser, lora: LoraConfig, roles: tuple[str, ...], ema: float
) -> None:
    """Weights, gradients and moments of every role; the running average of the first alone."""
    base = module_bytes(denoiser.module)
    with Policy(denoiser, lora, roles=roles) as policy:
        others = [policy.named_parameters(role) for role in roles[1:]]
        auxiliary = Auxiliary({f"assistant.{name}": p for named in others for name, p in named.items()}, 1e-3)
        trained = Trained(policy, roles[0], auxiliary, TrainerConfig(ema=ema))
        for parameter in trained.all:
            parameter.grad = torch.ones_like(parameter)
        trained.optimizer.step()
        states = trained.optimizer.state.values()
        held = [*(p.grad for p in trained.all), *(state[key] for state in states for key in ("exp_avg", "exp_avg_sq"))]
        held += trained.average or []
        found = estimate(policy, SHAPE, COND, batch=1, average=ema > 0)
        assert found.optimizer == sum(tensor.nbytes for tensor in held)
        assert found.parameters == base + sum(p.nbytes for p in trained.all)
        assert found.full is (lora.kind == "full")


def test_whole_weights_need_what_their_size_says(denoiser: DiffusersDenoiser) -> None:
    base = module_bytes(denoiser.module)
    with Policy(denoiser, ALL, roles=("generator", "assistant")) as policy:
        norms = sum(p.nbytes for name, p in denoiser.module.named_parameters() if "norm" in name)
        found = estimate(policy, SHAPE, COND, batch=1)
    assert found.parameters == 3 * base - 2 * norms
    assert found.optimizer == 2 * 3 * (base - norms)


def test_a_refusal_says_what_to_do_instead(denoiser: DiffusersDenoiser) -> None:
    off = MemorySettings(gradient_checkpointing="off")
    step = {"batch": 4, "guidance": 1.0, "autocast": None, "average": False}
    with Policy(denoiser, ALL) as policy:
        needed = estimate(policy, SHAPE, COND, batch=4)
        resident = module_bytes(policy.module)
        room = needed.total - resident
        told = fitting(policy, off, SHAPE, COND, lambda: room - 1000, knob="batch_size", **step).problem
        auto = fitting(policy, MemorySettings(), SHAPE, COND, lambda: needed.optimizer, knob="", **step).problem
    assert "Or set gradient_checkpointing to auto, or use low rank instead of full (the setting trains)." in told
    assert "use low rank instead of full (the setting trains), fewer target layers, or a smaller" in auto
    assert "gradient_checkpointing" not in auto
    low = replace(needed, full=False)
    assert "full" not in advice(low, needed.optimizer, resident=resident)
    assert "full" not in advice(low, room - 1000, resident=resident)


def test_memory_that_runs_out_while_measuring_says_the_same(
    denoiser: DiffusersDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing_left(*_: Any, **__: Any) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(memory, "activation_bytes", nothing_left)
    with Policy(denoiser, ALL) as policy, pytest.raises(TrainingError, match="low rank instead of full"):
        estimate(policy, SHAPE, COND, batch=1)


# ---- nodes ----


def test_without_lora_settings_full_means_every_layer() -> None:
    chosen = lora_config(16, 4.0, 0.1, {"feed_forward": True})
    assert trained_shape(None, "low rank") == LoraConfig()
    assert trained_shape(chosen, "low rank") == chosen
    assert trained_shape(None, "full") == ALL
    assert trained_shape(chosen, "full") == LoraConfig(kind="full", dropout=0.1, targets=("feed-forward",))


def test_the_widget_stands_last_offers_both_kinds_and_begins_with_a_lora() -> None:
    kind, name, words = [slot for slot in TRAIN_LORA if slot.kind != "LORA_MODEL"][-1]
    assert (kind, name, words["optional"]) == ("Combo", "trains", True)
    assert words["options"] == ["low rank", "full"]
    assert words["default"] == LoraConfig().kind


def test_a_job_carries_the_kind_and_can_set_it(tmp_path: Path) -> None:
    graph = {"7": {"class_type": "AttuneTrainLora", "inputs": {"run_name": "a", "trains": "full"}}}
    write_job(tmp_path / "job.json", job_of(graph, "7", run="a", version="1"))
    assert read_job(tmp_path / "job.json")["graph"]["7"]["inputs"]["trains"] == "full"
    other = read_job(tmp_path / "job.json", {"AttuneTrainLora.trains": "low rank"})
    assert other["graph"]["7"]["inputs"]["trains"] == "low rank"


def test_a_product_of_whole_weights_says_so_and_takes_no_base_of_few_bits() -> None:
    def product(lora: LoraConfig) -> Any:
        return product_of(SimpleNamespace(model=None, plan=None, lora=lora, trainer=TrainerConfig(seed=3), start=None))

    tensors = {"a.diff": torch.zeros(1000, 2000), "a.diff_b": torch.zeros(1000)}
    full = product(ALL)
    assert (full.noun, full.precisions) == ("LoRA of whole weights", False)
    assert full.words(tensors) == "whole layers, 2 million weights"
    assert full.settings() == {"lora": {"dropout": 0.0, "targets": ("everything",), "kind": "full", "part": WHOLE}}
    low = product(LoraConfig(rank=4))
    assert (low.noun, low.precisions, low.settings()["lora"]["rank"]) == ("LoRA", True, 4)
