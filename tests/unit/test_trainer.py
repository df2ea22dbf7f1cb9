"""The loop: it learns, and whatever interrupts it, the run goes on as if nothing had happened."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from attune.training import memory, run_lock
from attune.training.adapters import LoraConfig, LoraMetadata, Policy, load_lora, module_tensors, save_lora
from attune.training.checkpoint import read_state, unflatten
from attune.training.denoisers import DiffusersDenoiser, process_of
from attune.training.interfaces import Prompt, RunCallbacks, TrainingError
from attune.training.run_lock import check_free, only_one
from attune.training.run_state import StateFolder, check_same_run, common_state, pack_history, unpack_history
from attune.training.share import ALONE, Share
from attune.training.trainer import TrainerConfig, TrainResult, train

CONTEXT = 16
LORA = LoraConfig(rank=2, dropout=0.1, targets=("cross-attention",))
CONFIG = TrainerConfig(steps=5, learning_rate=1e-2, warmup_steps=2, accumulation=2, ema=0.9, schedule="cosine")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


class Interrupted(BaseException):
    """As the host's own: not an Exception that somebody might catch."""


def tiny_unet() -> torch.nn.Module:
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return UNet2DConditionModel(
            sample_size=4,
            block_out_channels=(32, 64),
            layers_per_block=1,
            cross_attention_dim=CONTEXT,
            attention_head_dim=16,
            norm_num_groups=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        ).eval()


@pytest.fixture(scope="module")
def denoiser() -> DiffusersDenoiser:
    return DiffusersDenoiser(tiny_unet(), process_of("v"), torch.zeros(3, CONTEXT))


@dataclass(frozen=True)
class ChaseConfig:
    batch: int = 2
    parts: int = 2


class Chase:
    """Mean squared distance of the prediction to one picture, from random noise; draws sample by sample."""

    name = "chase"

    def __init__(self, config: ChaseConfig | None = None, *, spoil: Callable[[int, torch.Tensor], Any] | None = None):
        self.config = config or ChaseConfig()
        self.target = torch.linspace(-1, 1, 64).reshape(4, 4, 4)
        self.seen, self.average = 0, torch.zeros(())
        self.spoil = spoil or (lambda seen, loss: loss)
        self.policy: Policy | None = None

    def prepare(self, policy: Policy, share: Share = ALONE) -> None:
        self.policy = policy

    def losses(self, generator: torch.Generator) -> Iterator[torch.Tensor]:
        for _ in range(self.config.parts):
            draws = [self._draw(generator) for _ in range(self.config.batch)]
            x, sigma, cond = zip(*draws, strict=True)
            predicted = self.policy(torch.stack(x), torch.stack(sigma), list(cond))
            loss = (predicted - self.target).square().mean() / self.config.parts
            self.seen += self.config.batch
            # What is learned depends on the objective's memory, so that forgetting it would show.
            self.average = 0.9 * self.average + 0.1 * loss.detach()
            yield self.spoil(self.seen, loss * (1 + self.average))

    def _draw(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        sigma = 0.3 + 2 * torch.rand((), generator=generator)
        x = self.target + sigma * torch.randn(4, 4, 4, generator=generator)
        return x, sigma, torch.randn(3, CONTEXT, generator=generator)

    def metrics(self) -> dict[str, float]:
        return {"seen": float(self.seen)}

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen, "average": self.average}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen, self.average = state["seen"], state["average"]

    def sample_requests(self) -> Sequence[Prompt]:
        return []


class Recorder(RunCallbacks):
    def __init__(self, stop_after: float = math.inf) -> None:
        self.reports: list[tuple[int, Mapping[str, float]]] = []
        self.samples: list[tuple[int, torch.Tensor]] = []
        self.polls, self.stop_after = 0, stop_after

    def on_report(self, step: int, metrics: Mapping[str, float]) -> None:
        self.reports.append((step, metrics))

    def on_samples(self, step: int, images: torch.Tensor) -> None:
        self.samples.append((step, images))

    def should_stop(self) -> bool:
        self.polls += 1
        return self.polls > self.stop_after


def run(
    denoiser: DiffusersDenoiser, config: TrainerConfig = CONFIG, *, objective: Chase | None = None, **keywords: Any
) -> TrainResult:
    """A whole run, from a fresh adapter."""
    lora = keywords.pop("lora", LORA)
    with Policy(denoiser, lora) as policy:
        return train(policy, objective or Chase(), config, callbacks=keywords.pop("callbacks", Recorder()), **keywords)


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture(scope="module")
def uninterrupted(denoiser: DiffusersDenoiser) -> TrainResult:
    torch.set_num_threads(1)
    return run(denoiser)


def check_equal(result: TrainResult, expected: TrainResult) -> None:
    assert result.tensors.keys() == expected.tensors.keys()
    different = [name for name, value in result.tensors.items() if not torch.equal(value, expected.tensors[name])]
    assert not different
    assert result.history == expected.history
    assert (result.steps_done, result.status) == (expected.steps_done, expected.status)


# ---- it learns ----


def test_training_lowers_the_loss_and_reports(denoiser: DiffusersDenoiser) -> None:
    recorder = Recorder()
    config = TrainerConfig(steps=40, learning_rate=2e-2, warmup_steps=4)
    result = run(denoiser, config, lora=LoraConfig(rank=4, targets=("everything",)), callbacks=recorder)
    losses = [report["loss"] for report in result.history]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert (result.status, result.steps_done) == ("finished", 40)
    assert [step for step, _ in recorder.reports] == list(range(1, 41))
    assert [report for _, report in recorder.reports] == result.history
    assert set(result.history[0]) == {"step", "loss", "learning_rate", "gradient_norm", "seen"}
    assert 0 < result.seconds_per_step < result.seconds


def test_the_base_stays_frozen_and_torch_keeps_its_generator(denoiser: DiffusersDenoiser) -> None:
    weights = {name: value.clone() for name, value in denoiser.module.state_dict().items()}
    state = torch.get_rng_state()
    run(denoiser)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[name]) for name, value in denoiser.module.state_dict().items())
    assert all(p.grad is None for p in denoiser.module.parameters())


def test_equal_seeds_give_equal_runs_and_others_do_not(denoiser: DiffusersDenoiser, uninterrupted: TrainResult) -> None:
    torch.manual_seed(1234)
    check_equal(run(denoiser), uninterrupted)
    assert run(denoiser, replace(CONFIG, seed=1)).history != uninterrupted.history


def test_it_trains_inside_the_hosts_inference_mode(denoiser: DiffusersDenoiser, uninterrupted: TrainResult) -> None:
    with torch.inference_mode():
        result = run(denoiser)
    check_equal(result, uninterrupted)


def test_accumulation_equals_the_large_batch(denoiser: DiffusersDenoiser, tmp_path: Path) -> None:
    """The first moment after one update is 0.1·gradient: of 2 × 3 samples as of 6 at once."""

    class Forgetful(Chase):
        """Without the memory that makes one loss depend on the ones before."""

        def losses(self, generator: torch.Generator) -> Iterator[torch.Tensor]:
            for loss in super().losses(generator):
                yield loss / (1 + self.average)

    moments = []
    for accumulation, batch in ((1, 6), (2, 3), (6, 1)):
        config = TrainerConfig(steps=1, accumulation=accumulation, clip_norm=0, weight_decay=0)
        folder = tmp_path / str(accumulation)
        objective = Forgetful(ChaseConfig(batch=batch, parts=1))
        result = run(denoiser, config, objective=objective, lora=LoraConfig(rank=2), run_folder=folder)
        tensors, document = read_state(folder / "state-1.safetensors")
        state = unflatten(document, tensors)["optimizer"]
        moments.append((torch.cat([entry["exp_avg"].flatten() for entry in state.values()]), result.history[0]))
    for moment, report in moments[1:]:
        assert moments[0][0].abs().max() > 1e-4
        torch.testing.assert_close(moment, moments[0][0], rtol=1e-3, atol=1e-7)
        assert report["loss"] == pytest.approx(moments[0][1]["loss"], rel=1e-5)
        assert report["gradient_norm"] == pytest.approx(moments[0][1]["gradient_norm"], rel=1e-4)


def test_gradients_are_clipped_before_the_step_and_reported_before_clipping(
    denoiser: DiffusersDenoiser, tmp_path: Path
) -> None:
    config = TrainerConfig(steps=1, clip_norm=0.01)
    result = run(denoiser, config, run_folder=tmp_path)
    tensors, document = read_state(tmp_path / "state-1.safetensors")
    state = unflatten(document, tensors)["optimizer"]
    moment = torch.cat([entry["exp_avg"].flatten() for entry in state.values()])
    assert result.history[0]["gradient_norm"] > 0.02
    assert moment.norm().item() == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_the_average_is_what_is_returned(denoiser: DiffusersDenoiser) -> None:
    """Decays .1, 2/11, .25 of the first three updates, computed by hand from the weights after each."""
    config = TrainerConfig(steps=3, warmup_steps=0, learning_rate=1e-2, ema=0.9)
    seen: list[dict[str, torch.Tensor]] = []

    with Policy(denoiser, LORA) as policy:
        expected = policy.tensors()

        class Watch(Recorder):
            def on_report(self, step: int, metrics: Mapping[str, float]) -> None:
                seen.append(policy.tensors())

        result = train(policy, Chase(), config, callbacks=Watch())
        last = policy.tensors()
    for decay, weights in zip((1 / 10, 2 / 11, 3 / 12), seen, strict=True):
        expected = {name: decay * value + (1 - decay) * weights[name] for name, value in expected.items()}
    for name, value in result.tensors.items():
        torch.testing.assert_close(value, expected[name])
    assert all(torch.equal(value, last[name]) for name, value in seen[-1].items())
    assert any(not torch.allclose(value, last[name]) for name, value in result.tensors.items())


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.25, 0.5, 0.75, 1, 1, 1, 1]),
        ("linear", [0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.25, 0.5, 0.75, 1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2]),
    ],
)
def test_the_rate_rises_and_follows_its_schedule(schedule: Any, expected: list[float]) -> None:
    """Three updates of warm-up, then four: progress 0, 1/4, 1/2, 3/4."""
    config = TrainerConfig(steps=7, warmup_steps=3, learning_rate=2.0, schedule=schedule)
    assert [config.rate(step) / 2 for step in range(7)] == pytest.approx(expected)


def test_the_scheduled_rate_is_the_one_used(denoiser: DiffusersDenoiser) -> None:
    config = TrainerConfig(steps=4, warmup_steps=2, schedule="linear", learning_rate=1e-3)
    result = run(denoiser, config)
    assert [report["learning_rate"] for report in result.history] == [config.rate(step) for step in range(4)]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains_float32_adapters(denoiser: DiffusersDenoiser, precision: Any, tmp_path: Path) -> None:
    config = replace(CONFIG, precision=precision, steps=3)
    result = run(denoiser, config, run_folder=tmp_path)
    assert {value.dtype for value in result.tensors.values()} == {torch.float32}
    exact = run(denoiser, replace(config, precision="fp32"))
    assert result.history[0]["loss"] == pytest.approx(exact.history[0]["loss"], rel=0.05)
    assert result.history[0]["loss"] != exact.history[0]["loss"]
    check_equal(run(denoiser, config, run_folder=tmp_path), result)


def test_an_overflow_in_fp16_skips_the_update_and_lowers_the_scale(denoiser: DiffusersDenoiser, tmp_path: Path) -> None:
    """The scaler starts at 65536: a gradient of 1e35 then overflows float32, and the update must not be applied."""
    config = TrainerConfig(steps=1, precision="fp16", warmup_steps=0)
    huge = Chase(spoil=lambda seen, loss: loss * 1e35)
    with Policy(denoiser, LORA) as policy:
        before = policy.tensors()
        result = train(policy, huge, config, callbacks=Recorder(), run_folder=tmp_path)
        assert all(torch.equal(value, before[name]) for name, value in policy.tensors().items())
    assert "gradient_norm" not in result.history[0]
    tensors, document = read_state(tmp_path / "state-1.safetensors")
    assert unflatten(document, tensors)["scaler"]["scale"] == 32768.0


def test_previews_come_with_the_weights_that_would_be_saved(denoiser: DiffusersDenoiser) -> None:
    recorder = Recorder()
    shown: list[dict[str, torch.Tensor]] = []

    def sampler(policy: Policy) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        torch.randn(7)  # must not shift the training's own randomness
        shown.append(policy.tensors())
        return torch.full((1, 4, 4, 3), float(len(shown)))

    result = run(denoiser, replace(CONFIG, sample_every=2), callbacks=recorder, sampler=sampler)
    assert [step for step, _ in recorder.samples] == [0, 2, 4, 5]
    assert [images[0, 0, 0, 0].item() for _, images in recorder.samples] == [1, 2, 3, 4]
    assert all(torch.equal(value, shown[-1][name]) for name, value in result.tensors.items())
    check_equal(result, run(denoiser))


# ---- it stops, and goes on ----


class Bomb:
    """Raises in the middle of the network at its `count`-th call, or in the backward pass of that call."""

    def __init__(self, denoiser: DiffusersDenoiser, count: int, *, backward: bool = False) -> None:
        self.count, self.backward = count, backward
        self.layer = denoiser.module.mid_block

    def __enter__(self) -> None:
        self.hook = self.layer.register_forward_hook(self._tick)

    def __exit__(self, *exception: object) -> None:
        self.hook.remove()

    def _tick(self, layer: torch.nn.Module, arguments: Any, output: torch.Tensor) -> None:
        self.count -= 1
        if self.count == 0 and self.backward:
            output.register_hook(self._explode)
        elif self.count == 0:
            raise Interrupted

    def _explode(self, gradient: torch.Tensor) -> None:
        raise Interrupted


CALLS = CONFIG.steps * CONFIG.accumulation * ChaseConfig().parts
KILLS = [(1, False), (1, True), (CALLS, True)] + [
    (random.Random(index).randint(2, CALLS), bool(index % 2)) for index in range(7)
]


@pytest.mark.parametrize(("count", "backward"), KILLS)
def test_killed_anywhere_and_resumed_it_ends_bit_equal(
    denoiser: DiffusersDenoiser, uninterrupted: TrainResult, tmp_path: Path, count: int, backward: bool
) -> None:
    with pytest.raises(Interrupted), Bomb(denoiser, count, backward=backward):
        run(denoiser, run_folder=tmp_path)
    done = (count - 1) // (CONFIG.accumulation * ChaseConfig().parts)
    assert StateFolder(tmp_path).files()[0].name == f"state-{done}.safetensors"
    recorder = Recorder()
    check_equal(run(denoiser, run_folder=tmp_path, callbacks=recorder), uninterrupted)
    assert [step for step, _ in recorder.reports] == list(range(done + 1, CONFIG.steps + 1))


def test_killed_again_and_again_it_ends_bit_equal(
    denoiser: DiffusersDenoiser, uninterrupted: TrainResult, tmp_path: Path
) -> None:
    for count in (2, 6, 7, 5):
        with pytest.raises(Interrupted), Bomb(denoiser, count):
            run(denoiser, run_folder=tmp_path)
    check_equal(run(denoiser, run_folder=tmp_path), uninterrupted)


@pytest.mark.parametrize("place", ["report", "preview", "optimizer"])
def test_killed_between_and_inside_writes_it_ends_bit_equal(
    denoiser: DiffusersDenoiser, uninterrupted: TrainResult, tmp_path: Path, place: str
) -> None:
    """After the optimizer and before the average, memory holds half an update: the last state on disk must win."""
    count = 0

    def third(*arguments: Any) -> torch.Tensor:
        nonlocal count
        count += 1
        if count == 3:
            raise Interrupted
        return torch.zeros(1, 4, 4, 3)

    keywords: dict[str, Any] = {}
    hook = None
    if place == "report":
        keywords["callbacks"] = Recorder()
        keywords["callbacks"].on_report = third
    elif place == "preview":
        keywords["sampler"] = third
    else:
        hook = register_optimizer_step_post_hook(third)
    try:
        with pytest.raises(Interrupted):
            run(denoiser, replace(CONFIG, sample_every=1), run_folder=tmp_path, **keywords)
    finally:
        if hook:
            hook.remove()
    done = {"report": 3, "preview": 2, "optimizer": 0}[place]
    assert StateFolder(tmp_path).files()[0].name == f"state-{done}.safetensors"
    check_equal(run(denoiser, run_folder=tmp_path), uninterrupted)


def test_an_objective_that_writes_into_its_state_loses_time_but_not_exactness(
    denoiser: DiffusersDenoiser, tmp_path: Path
) -> None:
    class InPlace(Chase):
        def losses(self, generator: torch.Generator) -> Iterator[torch.Tensor]:
            for loss in super().losses(generator):
                self.average.mul_(0.5)
                yield loss

    expected = run(denoiser, objective=InPlace())
    with pytest.raises(Interrupted), Bomb(denoiser, 11):
        run(denoiser, objective=InPlace(), run_folder=tmp_path)
    check_equal(run(denoiser, objective=InPlace(), run_folder=tmp_path), expected)


@pytest.mark.parametrize("polls", [0, 1, 2, 6, 7, 13, 29])
def test_stopped_at_any_moment_it_leaves_a_loadable_lora_and_goes_on(
    denoiser: DiffusersDenoiser, uninterrupted: TrainResult, tmp_path: Path, polls: int
) -> None:
    result = run(denoiser, run_folder=tmp_path / "run", callbacks=Recorder(stop_after=polls))
    assert result.status == "stopped"
    assert result.steps_done == polls // 6  # two runs of two losses, each closed by one more poll
    save_lora(tmp_path / "a.safetensors", result.tensors, metadata=LoraMetadata("stopped"))
    with Policy(denoiser, LORA) as policy:
        policy.load_tensors(module_tensors(load_lora(tmp_path / "a.safetensors")[0], policy.paths))
        assert all(torch.equal(value, result.tensors[name]) for name, value in policy.tensors().items())
    check_equal(run(denoiser, run_folder=tmp_path / "run"), uninterrupted)


def test_a_finished_run_is_returned_without_training(
    denoiser: DiffusersDenoiser, uninterrupted: TrainResult, tmp_path: Path
) -> None:
    run(denoiser, run_folder=tmp_path)
    with Bomb(denoiser, 1):
        again = run(denoiser, run_folder=tmp_path)
    check_equal(again, uninterrupted)


def test_more_steps_continue_a_constant_run(denoiser: DiffusersDenoiser, tmp_path: Path) -> None:
    config = replace(CONFIG, schedule="constant")
    run(denoiser, replace(config, steps=2), run_folder=tmp_path)
    check_equal(run(denoiser, config, run_folder=tmp_path), run(denoiser, config))


def test_starting_over_removes_what_was_there(
    denoiser: DiffusersDenoiser, uninterrupted: TrainResult, tmp_path: Path
) -> None:
    run(denoiser, replace(CONFIG, steps=4, seed=9), run_folder=tmp_path)
    recorder = Recorder(stop_after=13)
    run(denoiser, run_folder=tmp_path, resume=False, callbacks=recorder)
    assert [file.name for file in StateFolder(tmp_path).files()] == ["state-2.safetensors", "state-1.safetensors"]
    check_equal(run(denoiser, run_folder=tmp_path), uninterrupted)


@pytest.mark.parametrize("end", ["stopped", "cancelled", "failed"])
def test_starting_over_that_comes_to_no_update_leaves_what_was_there(
    denoiser: DiffusersDenoiser, uninterrupted: TrainResult, tmp_path: Path, end: str
) -> None:
    run(denoiser, run_folder=tmp_path, callbacks=Recorder(stop_after=13))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    keywords: dict[str, Any] = {"run_folder": tmp_path, "resume": False}
    if end == "stopped":
        assert run(denoiser, replace(CONFIG, seed=9), callbacks=Recorder(stop_after=4), **keywords).steps_done == 0
    elif end == "failed":
        with pytest.raises(TrainingError, match="became nan"):
            run(denoiser, objective=Chase(spoil=lambda seen, loss: _nan(loss)), **keywords)
    else:
        with pytest.raises(Interrupted), Bomb(denoiser, 3):
            run(denoiser, replace(CONFIG, seed=9), **keywords)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    check_equal(run(denoiser, run_folder=tmp_path), uninterrupted)


@pytest.mark.parametrize("change", range(8))
def test_starting_over_can_be_killed_between_any_two_files(
    denoiser: DiffusersDenoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: int
) -> None:
    """Killed before the n-th change in its folder, the next start goes on with either run, from one of its updates."""
    earlier, later = (replace(CONFIG, seed=seed, checkpoint_seconds=0, steps=3) for seed in (9, 0))
    folder, copy, changes = tmp_path / "run", tmp_path / "copy", 0
    run(denoiser, earlier, run_folder=folder, callbacks=Recorder(stop_after=13))

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **keywords: Any) -> Any:
            nonlocal changes
            changes += 1
            if changes > change:  # and none after it: a killed process does not tidy up
                raise Interrupted
            return function(*arguments, **keywords)

        return changed

    with monkeypatch.context() as patched:
        for owner, name in ((Path, "unlink"), (Path, "rename"), (os, "replace")):
            patched.setattr(owner, name, counting(getattr(owner, name)))
        with contextlib.suppress(Interrupted):
            run(denoiser, later, run_folder=folder, resume=False)
    resumed = []
    for config in (earlier, later):
        shutil.copytree(folder, copy)
        recorder = Recorder()
        with contextlib.suppress(TrainingError):
            check_equal(run(denoiser, config, run_folder=copy, callbacks=recorder), run(denoiser, config))
            resumed.append((config.seed, 3 - len(recorder.reports)))
            assert all(file.name.startswith("state-") for file in copy.iterdir() if file.suffix == ".safetensors")
        shutil.rmtree(copy)
    assert len(resumed) == 1
    seed, updates = resumed[0]
    assert updates == 2 if seed == earlier.seed else updates >= 1


def test_the_last_two_states_are_kept(denoiser: DiffusersDenoiser, tmp_path: Path) -> None:
    run(denoiser, replace(CONFIG, checkpoint_seconds=0), run_folder=tmp_path)
    assert names_in(tmp_path) == ["run.lock", "state-4.safetensors", "state-5.safetensors"]


def test_a_damaged_newest_state_falls_back_to_the_one_before(
    denoiser: DiffusersDenoiser, uninterrupted: TrainResult, tmp_path: Path
) -> None:
    run(denoiser, replace(CONFIG, checkpoint_seconds=0), run_folder=tmp_path)
    (tmp_path / "state-5.safetensors").write_bytes(b"\0" * 100)
    check_equal(run(denoiser, run_folder=tmp_path), uninterrupted)
    for file in tmp_path.iterdir():
        file.write_bytes(b"")
    with pytest.raises(TrainingError, match=r"No saved state.*Start over"):
        run(denoiser, run_folder=tmp_path)


class Member(Share):
    """One of two processes; `others` holds what the other one answers, in the order of the questions."""

    def __init__(self, index: int = 0, others: Sequence[Any] = ()) -> None:
        self.index, self.count, self.others = index, 2, list(others)

    def gather(self, own: torch.Tensor) -> torch.Tensor:
        other = torch.tensor(self.others.pop(0)) if self.others else own
        return torch.cat([own, other] if self.index == 0 else [other, own])

    def lowest(self, number: int) -> int:
        return min(number, self.others.pop(0)) if self.others else number

    def any(self, flag: bool) -> bool:
        return bool(flag) or (bool(self.others.pop(0)) if self.others else False)


def test_processes_go_on_from_the_newest_state_that_all_have(denoiser: DiffusersDenoiser, tmp_path: Path) -> None:
    """The other process was ended before it had saved the fifth."""
    run(denoiser, replace(CONFIG, checkpoint_seconds=0), run_folder=tmp_path)
    folder = StateFolder(tmp_path)
    assert common_state(folder, Member(others=[-2, [[4, 3]], False]))["step"] == 4
    assert common_state(folder, Member(others=[-1, [[4, -1]], False]))["step"] == 4
    assert common_state(folder, Member(others=[-2, [[5, 4]], True, False]))["step"] == 4, "the fifth is damaged there"
    assert common_state(StateFolder(tmp_path / "none"), Member(others=[0])) is None
    with pytest.raises(TrainingError, match=r"no state in common .*process 0: update 5, 4; process 1: none\)"):
        common_state(folder, Member(others=[0, [[-1, -1]]]))
    with pytest.raises(TrainingError, match="process 0: none; process 1: update 3, 2"):
        common_state(StateFolder(tmp_path / "none"), Member(others=[-2, [[3, 2]]]))
    StateFolder(tmp_path / "begun").write(0, {})
    assert common_state(StateFolder(tmp_path / "begun"), Member(others=[0, [[-1]]])) is None


def test_states_later_than_the_one_gone_on_from_are_removed(
    denoiser: DiffusersDenoiser, uninterrupted: TrainResult, tmp_path: Path
) -> None:
    run(denoiser, replace(CONFIG, steps=4, schedule="constant", checkpoint_seconds=0), run_folder=tmp_path)
    config = replace(CONFIG, steps=4, schedule="constant")
    stale = (tmp_path / "state-4.safetensors").read_bytes()
    (tmp_path / "state-9.safetensors").write_bytes(b"damaged")
    (tmp_path / "state-4.safetensors").unlink()
    with pytest.raises(Interrupted):
        run(denoiser, config, run_folder=tmp_path, objective=Chase(spoil=_interrupt))
    assert (tmp_path / "state-9.safetensors").is_file(), "nothing was written yet, and it might be readable tomorrow"
    run(denoiser, config, run_folder=tmp_path)
    assert [file.name for file in StateFolder(tmp_path).files()] == ["state-4.safetensors", "state-3.safetensors"]
    assert StateFolder(tmp_path).newest()["step"] == 4
    (tmp_path / "state-9.safetensors").mkdir()
    (tmp_path / "state-4.safetensors").unlink()
    with pytest.raises(
        TrainingError, match=r"update 4 is saved, but a later one .*Delete .*state-9\.safetensors by hand"
    ):
        run(denoiser, config, run_folder=tmp_path)
    assert (tmp_path / "state-4.safetensors").stat().st_size == len(stale)


def _interrupt(seen: int, loss: torch.Tensor) -> torch.Tensor:
    raise Interrupted


def test_processes_draw_dropout_of_their_own_and_the_same_on_a_resume(
    denoiser: DiffusersDenoiser, tmp_path: Path
) -> None:
    config = replace(CONFIG, checkpoint_seconds=0)
    first, second = (run(denoiser, config, share=Member(index)) for index in (0, 1))
    assert first.history[0]["gradient_norm"] != second.history[0]["gradient_norm"]
    check_equal(run(denoiser, config, share=Member(1)), second)
    run(denoiser, config, share=Member(1), run_folder=tmp_path, callbacks=Recorder(stop_after=3))
    check_equal(run(denoiser, config, share=Member(1), run_folder=tmp_path), second)


def test_an_old_state_that_cannot_be_removed_does_not_end_the_run(
    denoiser: DiffusersDenoiser, uninterrupted: TrainResult, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(denoiser, run_folder=tmp_path, callbacks=Recorder(stop_after=13))
    (tmp_path / "state-1.safetensors").mkdir()  # a folder: not even root can unlink it
    check_equal(run(denoiser, replace(CONFIG, checkpoint_seconds=0), run_folder=tmp_path), uninterrupted)
    names = [file.name for file in StateFolder(tmp_path).files()]
    assert names == ["state-5.safetensors", "state-4.safetensors", "state-1.safetensors"]
    assert "could not be removed, and stays" in caplog.text
    assert "state-1.safetensors" in caplog.text


def test_starting_over_is_refused_where_the_old_states_cannot_be_removed(
    denoiser: DiffusersDenoiser, tmp_path: Path
) -> None:
    (tmp_path / "state-9.safetensors").mkdir()
    with pytest.raises(TrainingError, match=r"cannot start fresh.*state-9\.safetensors by hand, or choose another"):
        run(denoiser, run_folder=tmp_path, resume=False)
    assert names_in(tmp_path) == ["run.lock", "state-9.safetensors"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"config": replace(CONFIG, seed=3)}, r"training seed \(training_seed in the node\) = 0, now it is 3"),
        ({"config": replace(CONFIG, steps=50)}, "training steps = 5, now it is 50"),
        ({"lora": replace(LORA, rank=4)}, "LoRA rank = 2, now it is 4"),
        ({"lora": replace(LORA, targets=("everything",))}, "LoRA targets"),
        ({"objective": Chase(ChaseConfig(batch=3))}, "method setting batch = 2, now it is 3"),
        ({"identity": {"VAE": "other"}}, "with VAE not set, now it is 'other'"),
        ({"identity": {"base model": "91c2" * 4}}, "started with base model weights other than now: the checkpoint or"),
    ],
)
def test_another_run_is_not_continued(
    denoiser: DiffusersDenoiser, tmp_path: Path, changed: dict[str, Any], told: str
) -> None:
    run(denoiser, run_folder=tmp_path, callbacks=Recorder(stop_after=7))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(TrainingError, match=told):
        run(denoiser, changed.pop("config", CONFIG), run_folder=tmp_path, **changed)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("end", ["stopped", "cancelled", "failed"])
def test_a_run_that_came_to_no_update_does_not_keep_its_name(
    denoiser: DiffusersDenoiser, uninterrupted: TrainResult, tmp_path: Path, end: str
) -> None:
    other: dict[str, Any] = {"run_folder": tmp_path, "identity": {"data": "8f3a" * 4}, "lora": replace(LORA, rank=4)}
    if end == "stopped":
        run(denoiser, replace(CONFIG, seed=9), callbacks=Recorder(stop_after=4), **other)
    elif end == "failed":
        with pytest.raises(TrainingError, match="became nan"):
            run(denoiser, objective=Chase(spoil=lambda seen, loss: _nan(loss)), **other)
    else:
        with pytest.raises(Interrupted):
            run(denoiser, objective=Chase(spoil=_interrupt), **other)
    assert (tmp_path / "state-0.safetensors").is_file()
    check_equal(run(denoiser, run_folder=tmp_path), uninterrupted)


def test_a_start_is_no_start_while_a_later_state_might_be_read_tomorrow(
    denoiser: DiffusersDenoiser, tmp_path: Path
) -> None:
    run(denoiser, replace(CONFIG, checkpoint_seconds=0), run_folder=tmp_path, callbacks=Recorder(stop_after=7))
    assert [file.name for file in StateFolder(tmp_path).files()] == ["state-1.safetensors", "state-0.safetensors"]
    (tmp_path / "state-1.safetensors").write_bytes(b"damaged")
    with pytest.raises(TrainingError, match="training seed"):
        run(denoiser, replace(CONFIG, seed=9), run_folder=tmp_path)
    assert (tmp_path / "state-1.safetensors").read_bytes() == b"damaged"


def test_a_lower_rate_continues_the_same_run_and_is_put_down(
    denoiser: DiffusersDenoiser, uninterrupted: TrainResult, tmp_path: Path
) -> None:
    """What the guard advises: the updates done stay done, those to come follow the new rate."""
    with pytest.raises(TrainingError, match=r"Lower learning_rate \(now 0\.01\) or raise warmup_steps: the same run"):
        run(denoiser, run_folder=tmp_path, objective=Chase(spoil=lambda seen, loss: _nan(loss) if seen == 20 else loss))
    lower = replace(CONFIG, learning_rate=1e-3, warmup_steps=4)
    for _ in range(2):  # the second one only loads it
        result = run(denoiser, lower, run_folder=tmp_path)
        assert result.history[:2] == uninterrupted.history[:2]
        rates = [row["learning_rate"] for row in result.history]
        assert rates == [*(CONFIG.rate(step) for step in (0, 1)), *(lower.rate(step) for step in (2, 3, 4))]
        assert result.changes == [
            {"after_update": 2, "setting": "training learning_rate", "before": 0.01, "now": 1e-3},
            {"after_update": 2, "setting": "training warmup_steps", "before": 2, "now": 4},
        ]
    # A finished run is loaded as it is: a rate that nothing followed is no change of it.
    assert len(run(denoiser, CONFIG, run_folder=tmp_path).changes) == 2
    assert uninterrupted.changes == []


@pytest.mark.parametrize(
    ("method", "field", "widget"),
    [
        ("supervised", "batch", "batch_size"),
        ("diffusion-dpo", "batch", "pairs_per_update"),
        ("dag-kl", "updates_per_rollout", "updates_per_round"),
        ("ddpo", "guidance", "cfg"),
    ],
)
def test_a_refusal_names_the_widget_and_every_way_out(tmp_path: Path, method: str, field: str, widget: str) -> None:
    saved, now = ({"method": method, "method setting": {field: value}} for value in (3, 4))
    told = (
        rf"method setting {field} \({widget} in the node\) = 3, now it is 4\. Set it back, choose another run name, or"
    )
    with pytest.raises(TrainingError, match=f"{told} set if_run_exists to start fresh"):
        check_same_run(saved, now, folder=tmp_path)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("data", r"started with data other than now: the pictures, captions, prompts, reward or size differ\. Set it"),
        ("VAE", r"started with VAE weights other than now\. Set it back"),
        ("text encoder", r"started with text encoder weights other than now\. Set it back"),
        ("lucky stone", r"started with lucky stone other than now\. Set it back"),
    ],
)
def test_what_is_known_by_its_hash_is_told_in_words(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(TrainingError, match=told) as caught:
        check_same_run({name: "8f3a" * 4}, {name: "91c2" * 4}, folder=tmp_path)
    assert "8f3a" not in str(caught.value)
    check_same_run({name: "8f3a" * 4}, {name: "8f3a" * 4}, folder=tmp_path)


@pytest.mark.parametrize(
    ("name", "saved", "current", "told"),
    [
        ("held-out reward", "", "clip", "with held-out reward not set, now it is 'clip'"),
        ("held-out reward", "clip", None, "with held-out reward = 'clip', now it is not set"),
        (
            "base precision",
            None,
            "nf4",
            r"precision \(base_precision in the node\) = 'as loaded', now it is 'nf4'",
        ),
        (
            "base precision",
            "nf4",
            None,
            r"precision \(base_precision in the node\) = 'nf4', now it is 'as loaded'",
        ),
        ("processes", None, 2, "with processes = 1, now it is 2"),
        ("method setting transitions", 3, 4, r"transitions \(trained_steps in the node\) = 3, now it is 4"),
        ("LoRA seed", 3, 4, r"LoRA seed \(training_seed in the node\) = 3, now it is 4"),
        ("processes", 2, None, "with processes = 2, now it is 1"),
        ("VAE", None, "91c2" * 4, r"with VAE weights other than now\."),
        ("method setting flow_warmup", None, 5, r"flow_warmup = 0, now it is 5"),
        ("method setting encoder_learning_rate", 0.0, 1e-3, r"encoder_learning_rate = 0\.0, now it is 0\.001"),
    ],
)
def test_what_is_not_set_is_told_in_words(tmp_path: Path, name: str, saved: Any, current: Any, told: str) -> None:
    given = [{} if value is None else {name: value} for value in (saved, current)]
    with pytest.raises(TrainingError, match=told):
        check_same_run(*given, folder=tmp_path)
    check_same_run({name: ""}, {}, folder=tmp_path)


def test_a_setting_that_came_later_stands_at_what_was_done_before(tmp_path: Path) -> None:
    check_same_run({"method setting": {}}, {"method setting": {"flow_warmup": 0}}, folder=tmp_path)


def test_a_setting_that_its_method_calls_free_may_change(
    denoiser: DiffusersDenoiser, uninterrupted: TrainResult, tmp_path: Path
) -> None:
    @dataclass(frozen=True)
    class Freer(ChaseConfig):
        pieces: int = 1

        def identity(self) -> dict[str, Any]:
            return {"batch": self.batch, "parts": self.parts}

    run(denoiser, objective=Chase(Freer(pieces=4)), run_folder=tmp_path, callbacks=Recorder(stop_after=7))
    check_equal(run(denoiser, objective=Chase(Freer(pieces=2)), run_folder=tmp_path), uninterrupted)
    with pytest.raises(TrainingError, match="method setting batch = 2, now it is 3"):
        run(denoiser, objective=Chase(Freer(batch=3)), run_folder=tmp_path)


def test_a_run_on_another_base_is_not_continued(denoiser: DiffusersDenoiser, tmp_path: Path) -> None:
    run(denoiser, run_folder=tmp_path, callbacks=Recorder(stop_after=7))
    other = DiffusersDenoiser(tiny_unet(), denoiser.process, denoiser.unconditional)
    with torch.no_grad():
        other.module.conv_out.bias.add_(1)
    with pytest.raises(TrainingError, match="base model"):
        run(other, run_folder=tmp_path)


def test_a_run_under_another_noise_process_is_not_continued(denoiser: DiffusersDenoiser, tmp_path: Path) -> None:
    run(denoiser, run_folder=tmp_path, callbacks=Recorder(stop_after=7))
    process = denoiser.process
    for changed in (replace(process, sigmas=2 * process.sigmas), replace(process, prediction="flow")):
        other = DiffusersDenoiser(denoiser.module, changed, denoiser.unconditional)
        with pytest.raises(TrainingError, match=r"noise process (smallest sigma|prediction) = "):
            run(other, run_folder=tmp_path)


# ---- one at a time ----


def test_a_second_run_of_the_name_is_refused_while_the_first_is_at_work(
    denoiser: DiffusersDenoiser, uninterrupted: TrainResult, tmp_path: Path
) -> None:
    """Inside one process too: what is locked is the opened file. The first goes on as if nothing had been asked."""
    second = DiffusersDenoiser(tiny_unet(), denoiser.process, denoiser.unconditional)

    def intrude(step: int, metrics: Mapping[str, float]) -> None:
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        for resume in (True, False):
            told = "Another program is training 'warm' at this moment.*Wait until it is done, or choose another run"
            with pytest.raises(TrainingError, match=told), ThreadPoolExecutor() as threads:
                threads.submit(run, second, run_folder=folder, resume=resume).result()
        with pytest.raises(TrainingError, match="'warm'"):
            check_free(folder)
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
        refused.append(step)

    folder, refused, recorder = tmp_path / "warm", [], Recorder()
    check_free(folder)
    assert not folder.exists()
    recorder.on_report = intrude
    check_equal(
        run(denoiser, replace(CONFIG, checkpoint_seconds=0), run_folder=folder, callbacks=recorder), uninterrupted
    )
    assert refused == [1, 2, 3, 4, 5]
    check_free(folder)


def test_other_processes_of_the_run_are_told_too(tmp_path: Path) -> None:
    with only_one(tmp_path), pytest.raises(TrainingError, match="Another program"), only_one(tmp_path, Member()):
        pass
    with pytest.raises(TrainingError, match="Another program"), only_one(tmp_path, Member(1, others=[True])):
        pass
    assert names_in(tmp_path) == ["run.lock"]


@pytest.mark.needs_system("posix", "forks")
def test_a_killed_run_leaves_its_folder_free(tmp_path: Path) -> None:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        with only_one(tmp_path):
            os.write(write, b"in")
            time.sleep(600)
        os._exit(0)
    os.read(read, 2)
    with pytest.raises(TrainingError, match="Another program"):
        check_free(tmp_path)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    check_free(tmp_path)


def test_where_nothing_can_be_locked_it_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsupported(file: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(run_lock, "_lock", unsupported)
    with only_one(tmp_path), only_one(tmp_path):
        assert caplog.text.count("nothing keeps two runs of this name apart") == 2


# ---- it refuses to ruin anything ----


def _nan(loss: torch.Tensor) -> torch.Tensor:
    return loss * float("nan")


def _steep(loss: torch.Tensor) -> torch.Tensor:
    """Finite, with a gradient that is not: √0."""
    return (loss - loss.detach()).sqrt() + loss.detach()


@pytest.mark.parametrize(("spoil", "told"), [(_nan, "the loss became nan"), (_steep, "the gradient norm became")])
def test_the_guard_stops_before_the_weights_are_ruined(
    denoiser: DiffusersDenoiser, uninterrupted: TrainResult, tmp_path: Path, spoil: Any, told: str
) -> None:
    """The tenth loss, in update 3, is spoiled; weights are those after update 2, and a healthy run goes on there."""
    objective = Chase(spoil=lambda seen, loss: spoil(loss) if seen == 20 else loss)
    with Policy(denoiser, LORA) as policy:
        after: list[dict[str, torch.Tensor]] = []
        recorder = Recorder()
        recorder.on_report = lambda step, metrics: after.append(policy.tensors())
        with pytest.raises(TrainingError, match=f"in update 3: {told}.*after update 2 is saved.*Lower learning_rate"):
            train(policy, objective, CONFIG, callbacks=recorder, run_folder=tmp_path)
        assert len(after) == 2
        assert all(torch.equal(value, after[-1][name]) for name, value in policy.tensors().items())
        assert all(torch.isfinite(value).all() for value in policy.tensors().values())
    assert StateFolder(tmp_path).newest()["step"] == 2
    check_equal(run(denoiser, run_folder=tmp_path), uninterrupted)


def test_the_guard_names_a_state_only_if_it_is_saved(
    denoiser: DiffusersDenoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After update 2 nothing can be saved any more: the newest state is the one before the first update."""

    def full(folder: StateFolder, step: int, tree: Mapping[str, Any]) -> Path:
        if step:
            raise TrainingError("The disk is full.")
        return write(folder, step, tree)

    write = StateFolder.write
    monkeypatch.setattr(StateFolder, "write", full)
    objective = Chase(spoil=lambda seen, loss: _nan(loss) if seen == 20 else loss)
    with pytest.raises(TrainingError, match="in update 3: the loss became nan") as caught:
        run(denoiser, objective=objective, run_folder=tmp_path)
    assert "is saved" not in str(caught.value)
    with pytest.raises(TrainingError, match="in update 1: the loss became nan") as caught:
        run(denoiser, objective=Chase(spoil=lambda seen, loss: _nan(loss)))
    assert "is saved" not in str(caught.value)


def test_too_little_memory_is_told_with_what_to_lower(
    denoiser: DiffusersDenoiser, uninterrupted: TrainResult, tmp_path: Path
) -> None:
    """Once as a GPU says it, once as the CPU does; in update 3, after whose failure the run goes on."""

    def gpu() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    for name, run_out in (("gpu", gpu), ("cpu", lambda: torch.empty(2**50))):
        objective = Chase(spoil=lambda seen, loss, run_out=run_out: run_out() if seen == 20 else loss)
        told = r"Memory ran out after 2 updates.*after update 2 is saved.*Lower chunk \(now 4\), or use smaller"
        with pytest.raises(TrainingError, match=told):
            run(denoiser, objective=objective, run_folder=tmp_path / name, knob="chunk (now 4)")
        check_equal(run(denoiser, run_folder=tmp_path / name), uninterrupted)


def test_other_errors_of_torch_stay_what_they_are(denoiser: DiffusersDenoiser) -> None:
    with pytest.raises(RuntimeError, match="shape"):
        run(denoiser, objective=Chase(spoil=lambda seen, loss: loss.reshape(7)))


def test_losses_that_cannot_train_are_refused(denoiser: DiffusersDenoiser) -> None:
    for spoil, told in (
        (lambda seen, loss: loss.detach(), "does not depend on the LoRA"),
        (lambda seen, loss: loss.repeat(2), r"shape \(2,\)"),
    ):
        with pytest.raises(TrainingError, match=told):
            run(denoiser, objective=Chase(spoil=spoil))
    with pytest.raises(TrainingError, match="gave no loss"):
        run(denoiser, objective=Chase(ChaseConfig(parts=0)))


def test_a_folder_that_cannot_exist_is_known_before_training(denoiser: DiffusersDenoiser, tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    with pytest.raises(TrainingError, match=r"could not be saved.*folder is writable"), Bomb(denoiser, 1):
        run(denoiser, run_folder=blocker / "run")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


FULL_DISK = """
import importlib.util, resource, signal, sys
from pathlib import Path

root, tests, folder, when = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
for name, file in (("attune", root / "__init__.py"), ("trainer_tests", tests)):
    spec = importlib.util.spec_from_file_location(
        name, file, submodule_search_locations=[str(root)] if name == "attune" else None
    )
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])

import torch
import trainer_tests as t

torch.set_num_threads(1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def fill(step=0, metrics=None):
    if step == when:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))

fill()
recorder = t.Recorder()
recorder.on_report = fill
denoiser = t.DiffusersDenoiser(t.tiny_unet(), t.process_of("v"), torch.zeros(3, t.CONTEXT))
try:
    t.run(denoiser, t.replace(t.CONFIG, checkpoint_seconds=0), run_folder=folder, callbacks=recorder)
except t.TrainingError as error:
    print("REFUSED", error)
"""


@pytest.mark.needs_system("posix", "Windows has no file size limit to fill a disk with")
@pytest.mark.parametrize(("when", "left"), [(0, []), (3, ["state-1.safetensors", "state-2.safetensors"])])
def test_a_full_disk_leaves_whole_states_or_none(
    denoiser: DiffusersDenoiser,
    uninterrupted: TrainResult,
    tmp_path: Path,
    repository: Path,
    when: int,
    left: list[str],
) -> None:
    arguments = [str(repository), __file__, str(tmp_path), str(when)]
    process = subprocess.run([sys.executable, "-c", FULL_DISK, *arguments], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert "REFUSED The state of this run could not be saved" in process.stdout, process.stdout + process.stderr
    assert "disk has room" in process.stdout
    assert names_in(tmp_path) == ["run.lock", *left]
    if left:
        check_equal(run(denoiser, run_folder=tmp_path), uninterrupted)


@pytest.mark.parametrize(
    ("keywords", "quoted"),
    [
        ({"steps": 0}, "0"),
        ({"steps": 1.5}, r"1\.5"),
        ({"learning_rate": 0.0}, r"0\.0"),
        ({"learning_rate": float("inf")}, "inf"),
        ({"warmup_steps": -1}, "-1"),
        ({"schedule": "zigzag"}, "constant, linear, cosine; not 'zigzag'"),
        ({"accumulation": 0}, "0"),
        ({"clip_norm": -1.0}, r"-1\.0"),
        ({"weight_decay": -0.5}, r"-0\.5"),
        ({"betas": (0.9, 1.0)}, r"\(0\.9, 1\.0\)"),
        ({"betas": (0.9,)}, r"\(0\.9,\)"),
        ({"ema": 1.0}, r"1\.0"),
        ({"seed": -1}, "-1"),
        ({"seed": 2**64}, str(2**64)),
        ({"precision": "fp4"}, "'fp4'"),
        ({"checkpoint_seconds": -1}, "-1"),
        ({"sample_every": -1}, "-1"),
    ],
)
def test_impossible_settings_are_quoted(keywords: dict[str, Any], quoted: str) -> None:
    name = next(iter(keywords))
    with pytest.raises(TrainingError, match=f"{name}.*{quoted}"):
        TrainerConfig(**keywords)


def test_unknown_settings_are_quoted() -> None:
    with pytest.raises(TypeError, match="learning_rat"):
        TrainerConfig(learning_rat=1e-3)


def test_the_largest_seed_of_the_host_works(denoiser: DiffusersDenoiser) -> None:
    assert run(denoiser, replace(CONFIG, steps=1, seed=2**64 - 1)).steps_done == 1


def test_history_survives_its_table() -> None:
    history = [{"step": 1, "loss": 1 / 3}, {"step": 2, "loss": math.inf, "reward": -0.1}]
    packed = pack_history(history)
    assert unpack_history(packed) == history
    assert unpack_history(pack_history([])) == []


# ---- memory ----


def test_the_estimate_follows_batch_guidance_and_precision(denoiser: DiffusersDenoiser) -> None:
    cond = torch.zeros(3, CONTEXT)
    with Policy(denoiser, LoraConfig(rank=2, targets=("everything",))) as policy:
        one = memory.estimate(policy, (4, 4, 4), cond, batch=1)
        assert one.parameters == sum(p.numel() * 4 for p in denoiser.module.parameters())
        assert memory.module_bytes(policy.module, policy.device) == one.parameters
        assert memory.module_bytes(policy.module, torch.device("meta")) == 0
        assert one.optimizer == 3 * sum(p.numel() * 4 for p in policy.parameters())
        assert one.total == one.parameters + one.optimizer + one.activations
        two, four = (memory.estimate(policy, (4, 4, 4), cond, batch=n, average=True) for n in (2, 4))
        assert four.activations - two.activations == pytest.approx(2 * (two.activations - one.activations), abs=8)
        assert four.activations > 3 * one.activations
        assert four.optimizer == one.optimizer * 4 // 3
        guided = memory.estimate(policy, (4, 4, 4), cond, batch=1, guidance=3.0)
        assert 1.8 < guided.activations / one.activations < 2.3
        full = memory.estimate(policy, (4, 4, 4), cond, batch=256)
        half = memory.estimate(policy, (4, 4, 4), cond, batch=256, autocast=torch.bfloat16)
        assert half.activations < 0.8 * full.activations
        larger = memory.estimate(policy, (4, 8, 8), cond, batch=1)
        assert 2.5 < larger.activations / one.activations < 5


def test_a_single_picture_is_measured_once(denoiser: DiffusersDenoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    monkeypatch.setattr(memory, "activation_bytes", lambda *_, batch, **__: measured.append(batch) or 1000 + 10 * batch)
    with Policy(denoiser, LORA) as policy:
        one, four = (memory.estimate(policy, (4, 4, 4), None, batch=batch) for batch in (1, 4))
    assert measured == [1, 1, 2]
    assert (one.activations, four.activations) == (int(1010 * 1.15), int(1040 * 1.15))


@pytest.mark.parametrize(
    ("fits", "told"),
    [
        (0, "Not even one picture fits.*Use smaller pictures, a smaller or quantised checkpoint, or a lower LoRA rank"),
        (1, r"Two pictures at a time do not fit into memory\. Lower chunk \(now 8\), or use smaller pictures"),
    ],
)
def test_memory_that_runs_out_while_measuring_is_told_with_what_to_lower(
    denoiser: DiffusersDenoiser, monkeypatch: pytest.MonkeyPatch, fits: int, told: str
) -> None:
    def call(self: DiffusersDenoiser, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        if len(x) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return x

    monkeypatch.setattr(DiffusersDenoiser, "__call__", call)
    with Policy(denoiser, LORA) as policy, pytest.raises(TrainingError, match=told):
        memory.estimate(policy, (4, 4, 4), torch.zeros(3, CONTEXT), batch=8, knob="chunk (now 8)")


def test_advice_speaks_only_when_it_does_not_fit() -> None:
    needed = memory.MemoryEstimate(parameters=4 << 30, optimizer=1 << 30, activations=8 << 30)
    assert memory.advice(needed, 14 << 30) is None
    assert memory.advice(needed, 9 << 30, resident=4 << 30) is None
    told = memory.advice(needed, 9 << 30)
    assert "13.0 GB" in told
    assert "4.0 GB more than there is" in told
    assert "2.0 times smaller: use smaller pictures." in told
    told = memory.advice(needed, 9 << 30, knob="chunk (now 8)")
    assert "2.0 times smaller: lower chunk (now 8), or use smaller pictures." in told
    assert "smaller or quantised checkpoint" in memory.advice(needed, 3 << 30)
