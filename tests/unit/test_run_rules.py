"""What a run may do besides stepping: evaluate, keep the best, end early, train for itself, log; and a job's file."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from attune.nodes.training.job_file import job_of, read_job, write_job
from attune.nodes.training.records import write_record
from attune.training.adapters import LoraConfig, Policy
from attune.training.denoisers import DiffusersDenoiser, process_of
from attune.training.evaluation import Evaluations, over_budget
from attune.training.interfaces import AttuneError, Auxiliary, RunCallbacks, TrainingError
from attune.training.objectives.practice import evaluated_prompts
from attune.training.run_log import RunLog
from attune.training.run_state import StateFolder, check_same_run
from attune.training.share import ALONE, Share
from attune.training.trained import given_by, parted
from attune.training.trainer import TrainerConfig, TrainResult, train
from attune.training.trainer_config import KL_WINDOW

LORA = LoraConfig(rank=1)


class Parabola:
    """(offset − 3)²·10 in a number of its own, beside a LoRA that follows a picture; figures are told in advance."""

    name = "parabola"

    def __init__(self, values: list[float] | None = None, *, high: bool = True, kl: float = 0.0) -> None:
        self.values, self.kl = values, kl
        self.best_metric, self.best_is_high = "quality", high
        self.offset = nn.Parameter(torch.zeros(1))
        self.evaluated = 0

    def prepare(self, policy: Any, share: Share) -> None:
        self.policy = policy
        self.share = share

    def auxiliary(self) -> Auxiliary:
        return Auxiliary({"offset": self.offset}, 0.1)

    def losses(self, generator: torch.Generator) -> Iterator[torch.Tensor]:
        x = torch.randn(1, 4, 4, 4, generator=generator)
        predicted = self.policy(x, torch.ones(1), [torch.zeros(3, 8)])
        yield (predicted - 1).square().mean() + 10 * (self.offset - 3).square().sum()

    def evaluate(self) -> dict[str, float]:
        self.evaluated += 1
        return {} if self.values is None else {"quality": self.values[self.evaluated - 1]}

    def metrics(self) -> dict[str, float]:
        return {"kl_to_reference": self.kl}

    def state_dict(self) -> dict[str, Any]:
        return {"evaluated": self.evaluated}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.evaluated = state["evaluated"]

    def sample_requests(self) -> list:
        return []


@pytest.fixture(scope="module")
def denoiser() -> DiffusersDenoiser:
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=4, block_out_channels=(8,), layers_per_block=1, cross_attention_dim=8, attention_head_dim=8,
            norm_num_groups=4, down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
        ).eval()  # fmt: skip
    return DiffusersDenoiser(unet, process_of("v"), torch.zeros(3, 8))


def run(denoiser: DiffusersDenoiser, objective: Any, keeping: dict | None = None, **knobs: Any) -> TrainResult:
    config = TrainerConfig(**({"steps": 6, "warmup_steps": 0, "learning_rate": 1e-2, "sample_every": 0} | knobs))
    with Policy(denoiser, LORA) as policy:
        return train(policy, objective, config, **(keeping or {}))


# ---- evaluations ----


@pytest.mark.parametrize("high", [True, False])
def test_the_best_weights_are_kept(denoiser, high):
    values = [1.0, 5.0, 2.0] if high else [1.0, -5.0, 2.0]
    seen = []

    class Watch(RunCallbacks):
        def on_report(self, step, metrics):
            seen.append(metrics)

    best = run(denoiser, Parabola(values, high=high), {"callbacks": Watch()}, evaluate_every=2, keep="best")
    assert best.kept_step == 4 and best.steps_done == 6
    assert [m.get("quality") for m in seen] == [None, values[0], None, values[1], None, values[2]]
    assert [m.get("best_step") for m in seen] == [None, 2, None, 4, None, 4]
    at_four = run(denoiser, Parabola(), steps=4)
    assert all(torch.equal(value, at_four.tensors[name]) for name, value in best.tensors.items())
    last = run(denoiser, Parabola(values, high=high), evaluate_every=2)
    assert last.kept_step == 6
    assert any(not torch.equal(value, last.tensors[name]) for name, value in best.tensors.items())


class Tied(Parabola):
    """Figures as told, and another one for where they are equal."""

    tie_metric = "certainty"

    def __init__(self, values: list[float], certainties: list[float], **words: Any) -> None:
        super().__init__(values, **words)
        self.certainties = certainties

    def evaluate(self) -> dict[str, float]:
        found = super().evaluate()
        return found | {"certainty": self.certainties[self.evaluated - 1]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.evaluated = state["evaluated"] + 1  # an evaluation follows the update whose state is saved


@pytest.mark.parametrize(
    ("values", "certainties", "kept"),
    [
        ([5.0, 5.0, 5.0], [1.0, 3.0, 2.0], 4),
        ([5.0, 5.0, 5.0], [3.0, 3.0, 2.0], 2),  # equal in both: the earlier one
        ([5.0, 4.0, 5.0], [1.0, 9.0, 0.5], 2),
    ],
)
def test_equal_figures_are_told_apart_by_another(denoiser, tmp_path, values, certainties, kept):
    rules = {"evaluate_every": 2, "keep": "best"}
    assert run(denoiser, Tied(values, certainties), **rules).kept_step == kept
    cost = Tied([-value for value in values], certainties, high=False)
    assert run(denoiser, cost, **rules).kept_step == kept
    run(denoiser, Tied(values, certainties), {"run_folder": tmp_path}, **rules, steps=2)
    assert run(denoiser, Tied(values, certainties), {"run_folder": tmp_path}, **rules).kept_step == kept


def test_patience_waits_as_long_as_equal_weights_become_more_certain(denoiser):
    rules = {"evaluate_every": 1, "patience": 2, "steps": 6}
    certain = run(denoiser, Tied([1.0] * 6, [1.0, 2.0, 3.0, 3.0, 2.0, 9.0]), **rules)
    assert (certain.steps_done, certain.status) == (5, "ended")
    assert "quality (where it stayed the same, certainty) has not become better in 2 evaluations" in certain.reason
    assert run(denoiser, Parabola([1.0] * 6), **rules).steps_done == 3


@pytest.mark.parametrize(
    ("count", "shown", "each"),
    [
        (1, [0], 16),
        (2, [0, 1], 8),
        (5, [0, 1, 2, 3, 4], 3),
        (8, list(range(8)), 2),
        (9, [0, 1, 2, 3, 5, 6, 7, 8], 2),
        (80, [5, 15, 25, 35, 45, 55, 65, 75], 2),
    ],
)
def test_evaluated_prompts_are_spread_over_the_list(count, shown, each):
    assert evaluated_prompts(count) == [index for index in shown for _ in range(each)]


def test_the_best_survive_a_stop(denoiser, tmp_path):
    values = [1.0, 5.0, 2.0]
    folder = {"run_folder": tmp_path}
    run(denoiser, Parabola(values), folder, evaluate_every=2, keep="best", steps=4)
    resumed = run(denoiser, Parabola(values), folder, evaluate_every=2, keep="best")
    straight = run(denoiser, Parabola(values), evaluate_every=2, keep="best")
    assert resumed.kept_step == straight.kept_step == 4
    assert all(torch.equal(value, straight.tensors[name]) for name, value in resumed.tensors.items())


def test_an_evaluation_that_was_interrupted_is_made_up_for(denoiser, tmp_path):
    class Torn(Parabola):
        def evaluate(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(denoiser, Torn([9.0]), {"run_folder": tmp_path}, evaluate_every=2, keep="best")
    resumed = run(denoiser, Parabola([9.0, 1.0, 1.0]), {"run_folder": tmp_path}, evaluate_every=2, keep="best")
    assert resumed.kept_step == 2, "the interrupted one had the best weights"


def test_an_interrupted_evaluation_can_end_the_run_it_belongs_to(denoiser, tmp_path):
    """Patience is used up by the very evaluation that was interrupted; and its update is reported after all."""

    class Torn(Parabola):
        def evaluate(self):
            if self.evaluated == 2:
                raise KeyboardInterrupt
            return super().evaluate()

    seen = []

    class Watch(RunCallbacks):
        def on_report(self, step, metrics):
            seen.append((step, metrics["quality"]))

    rules = {"evaluate_every": 1, "patience": 2, "keep": "best"}
    with pytest.raises(KeyboardInterrupt):
        run(denoiser, Torn([3.0, 2.0, 1.0, 9.0]), {"run_folder": tmp_path}, **rules)
    objective = Parabola([1.0, 9.0])
    objective.load_state_dict = lambda state: None
    resumed = run(denoiser, objective, {"run_folder": tmp_path, "callbacks": Watch()}, **rules)
    assert (resumed.status, resumed.steps_done, resumed.kept_step) == ("ended", 3, 1)
    assert seen == [(3, 1.0)]


def test_best_weights_asked_for_later_are_the_best_since_then(denoiser, tmp_path):
    folder = {"run_folder": tmp_path}
    run(denoiser, Parabola([9.0, 5.0]), folder, steps=2, evaluate_every=1)
    objective = Parabola([8.0, 5.0, 5.0, 5.0])
    objective.load_state_dict = lambda state: None
    assert run(denoiser, objective, folder, evaluate_every=1, keep="best").kept_step == 3


def test_patience_ends_a_run_that_no_longer_improves(denoiser):
    result = run(denoiser, Parabola([3.0, 2.0, 1.0, 9.0]), evaluate_every=1, patience=2, keep="best")
    assert (result.status, result.steps_done, result.kept_step) == ("ended", 3, 1)
    assert "2 evaluations since update 1" in result.reason


def test_an_exhausted_patience_on_the_last_update_is_a_finished_run(denoiser):
    result = run(denoiser, Parabola([3.0, 2.0, 1.0]), evaluate_every=1, patience=2, steps=3)
    assert result.status == "finished"


def test_a_drift_beyond_its_budget_ends_the_run(denoiser):
    result = run(denoiser, Parabola(kl=2.0), kl_budget=1.5)
    assert (result.status, result.steps_done) == ("ended", KL_WINDOW)
    assert "2 nats" in result.reason and "budget of 1.5" in result.reason
    assert run(denoiser, Parabola(kl=2.0), kl_budget=2.5).status == "finished"


def test_the_budget_is_compared_with_a_mean_of_several_updates():
    config = TrainerConfig(kl_budget=1.0)
    assert not over_budget([{"kl_to_reference": 9.0}] * (KL_WINDOW - 1), config), "too few to judge by"
    calm = [{"kl_to_reference": 0.1}] * KL_WINDOW
    assert not over_budget([*calm, {"kl_to_reference": 3.0}], config), "one outlier"
    assert over_budget([*calm, *[{"kl_to_reference": 1.1}] * KL_WINDOW], config)


def test_a_budget_for_what_is_not_measured_is_refused(denoiser):
    class Driftless(Parabola):
        def metrics(self):
            return {}

    with pytest.raises(TrainingError, match="does not measure how far the model drifts"):
        run(denoiser, Driftless(), kl_budget=1.0)


def test_half_precision_keeps_no_casts_between_passes(denoiser):
    class Look(Parabola):
        def losses(self, generator):
            assert torch.is_autocast_enabled("cpu") and not torch.is_autocast_cache_enabled()
            yield from super().losses(generator)

    assert run(denoiser, Look(), steps=1, precision="bf16").steps_done == 1


def test_what_cannot_be_kept_is_refused(denoiser):
    class Blind(Parabola):
        evaluate = None

    with pytest.raises(TrainingError, match="nothing to tell better weights"):
        run(denoiser, Blind(), evaluate_every=1, keep="best")
    with pytest.raises(TrainingError, match="set evaluate_every"):
        TrainerConfig(keep="best")
    with pytest.raises(TrainingError, match="keep must be one of"):
        TrainerConfig(keep="first")


def test_rules_are_no_part_of_a_runs_identity(denoiser, tmp_path):
    folder = {"run_folder": tmp_path}
    run(denoiser, Parabola(), folder, steps=2)
    result = run(denoiser, Parabola([1.0, 2.0]), folder, steps=4, evaluate_every=2, keep="best", kl_budget=5.0)
    assert result.steps_done == 4


# ---- what an objective trains for itself ----


def test_auxiliary_tensors_are_trained_at_their_own_rate_and_are_no_part_of_the_lora(denoiser):
    """AdamW's first step moves a number by its learning rate: 0.1, where the run's own is 0.01."""
    objective = Parabola()
    result = run(denoiser, objective, steps=1, weight_decay=0.0)
    assert objective.offset.item() == pytest.approx(0.1, rel=1e-4)
    assert not any("offset" in name for name in result.tensors)


def test_auxiliary_tensors_are_resumed(denoiser, tmp_path):
    straight, first, second = Parabola(), Parabola(), Parabola()
    expected = run(denoiser, straight)
    run(denoiser, first, {"run_folder": tmp_path}, steps=3)
    resumed = run(denoiser, second, {"run_folder": tmp_path})
    assert second.offset.item() == straight.offset.item()
    assert resumed.history == expected.history


class Belonging(Parabola):
    """Its number belongs to the LoRA."""

    def auxiliary(self) -> Auxiliary:
        return Auxiliary({"offset": self.offset}, 0.1, kept=True)


def test_kept_auxiliary_tensors_are_of_the_best_update_too(denoiser, tmp_path):
    """AdamW's first steps move the number by nearly 0.1 each: 0.2 after the second update, the best of four."""
    objective = Belonging([1.0, 3.0, 2.0, 2.5])
    result = run(denoiser, objective, {"run_folder": tmp_path}, steps=4, evaluate_every=1, keep="best",
                 weight_decay=0.0)  # fmt: skip
    assert result.kept_step == 2 and objective.offset.item() == pytest.approx(0.4, rel=0.1)
    own, auxiliary = parted(result.tensors)
    assert auxiliary["offset"].item() == pytest.approx(0.2, rel=0.05)
    assert own and not any("offset" in name for name in own)
    step, given = given_by(StateFolder(tmp_path).newest(), best=True)
    assert step == 2 and torch.equal(given["auxiliary:offset"], auxiliary["offset"])


def test_kept_auxiliary_tensors_are_averaged_as_the_lora_is(denoiser, tmp_path):
    """The decay of the first average is 1/10, of the second 2/11: 0.9·0.1 = 0.09, then 0.09·2/11 + 0.2·9/11 = 0.18."""
    objective = Belonging()
    result = run(denoiser, objective, {"run_folder": tmp_path}, steps=2, ema=0.99, weight_decay=0.0)
    assert objective.offset.item() == pytest.approx(0.2, rel=0.01)
    assert parted(result.tensors)[1]["offset"].item() == pytest.approx(0.18, rel=0.01)
    assert given_by(StateFolder(tmp_path).newest(), best=False)[1]["auxiliary:offset"].item() == pytest.approx(
        0.18, rel=0.01
    )
    resumed = run(denoiser, Belonging(), {"run_folder": tmp_path}, steps=3, ema=0.99, weight_decay=0.0)
    straight = run(denoiser, Belonging(), steps=3, ema=0.99, weight_decay=0.0)
    assert torch.equal(*(parted(found.tensors)[1]["offset"] for found in (resumed, straight)))


class Collapsing(Belonging):
    """Its weights are worth nothing where the figure is below 0."""

    def collapse(self, figures: Mapping[str, float]) -> str:
        return "All alike." if figures.get("quality", 0) < 0 else ""


FIGURES_OF_A_COLLAPSE = [1.0, 3.0, -1.0, -1.0, 2.0, 2.0]


class BreakOff(RunCallbacks):
    """Cancel, as soon as this update is told of."""

    def __init__(self, step: int) -> None:
        self.at = step

    def on_report(self, step: int, metrics: Any) -> None:
        if step == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("keep", ["last", "best"])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_run_that_breaks_off_as_it_collapses_gives_its_last_sound_weights(denoiser, tmp_path, keep, ema):
    knobs = {"evaluate_every": 1, "keep": keep, "ema": ema, "weight_decay": 0.0}
    expected = run(denoiser, Collapsing(FIGURES_OF_A_COLLAPSE), **knobs)
    assert (expected.status, expected.kept_step, expected.steps_done) == ("ended", 2, 3)
    with pytest.raises(KeyboardInterrupt):
        run(denoiser, Collapsing(FIGURES_OF_A_COLLAPSE),
            {"callbacks": BreakOff(3), "run_folder": tmp_path}, **knobs)  # fmt: skip
    step, given = given_by(StateFolder(tmp_path).newest(), best=keep == "best")
    assert step == 2 and given.keys() == expected.tensors.keys()
    assert all(torch.equal(value, given[name]) for name, value in expected.tensors.items())


def test_weights_that_are_sound_and_the_best_are_kept_once():
    """In memory, in the saved state, and after a resume; what is only sound is kept besides."""
    config, copies = TrainerConfig(steps=9, evaluate_every=1, keep="best"), []

    def tensors() -> dict[str, torch.Tensor]:
        copies.append({"weight": torch.full((1,), float(len(copies)))})
        return copies[-1]

    def resumed(state: dict[str, Any]) -> Evaluations:
        found = Evaluations(Collapsing(), config)
        found.load_state_dict(state)
        return found

    evaluations = Evaluations(Collapsing([1.0, 3.0, 2.0]), config)
    for step in (1, 2):
        evaluations.measure(step, tensors)
    assert len(copies) == 2 and evaluations.sound_tensors is evaluations.best_tensors is copies[1]
    state = evaluations.state_dict()
    assert not state["sound_tensors"] and state["best_tensors"] == copies[1]
    again = resumed(state)
    assert again.sound_tensors is again.best_tensors and again.sound_tensors == copies[1] and again.sound_step == 2
    evaluations.measure(3, tensors)
    assert len(copies) == 3 and evaluations.sound_tensors is copies[2] and evaluations.best_tensors is copies[1]
    again = resumed(evaluations.state_dict())
    assert (again.sound_tensors, again.best_tensors) == (copies[2], copies[1])
    assert (again.sound_step, again.best_step) == (3, 2)


def test_a_collapsed_run_goes_on_from_its_sound_weights_once_something_is_set_anew(denoiser, tmp_path):
    """With its average and with what belongs to it. A lower rate is enough; with nothing changed it ends again."""
    knobs = {"evaluate_every": 1, "ema": 0.9, "weight_decay": 0.0}
    ended = run(denoiser, Collapsing(FIGURES_OF_A_COLLAPSE), {"run_folder": tmp_path}, **knobs)
    again = run(denoiser, Collapsing(FIGURES_OF_A_COLLAPSE), {"run_folder": tmp_path}, **knobs)
    assert again.reason == ended.reason and again.steps_done == 3 and again.history == ended.history
    slow = knobs | {"learning_rate": 1e-9}
    gone = run(denoiser, Collapsing([0.0] * 6), {"run_folder": tmp_path}, **slow)
    assert (gone.status, gone.steps_done, gone.kept_step) == ("finished", 6, 6)
    # The offset's own rate does not follow, so that only the LoRA stays where it was sound.
    for name, value in parted(ended.tensors)[0].items():
        torch.testing.assert_close(gone.tensors[name], value, atol=1e-7, rtol=0)
    assert [change["setting"] for change in gone.changes] == ["training learning_rate", "weights"]
    assert gone.changes[1] == {
        "after_update": 3, "setting": "weights", "before": "after update 3", "now": "after update 2"
    }  # fmt: skip
    assert [row["step"] for row in gone.history] == [1, 2, 3, 4, 5, 6]


def test_a_collapse_that_a_resume_finds_is_known_when_the_run_goes_on(denoiser, tmp_path):
    """The evaluation that would have found it was interrupted; with something set anew the run is not stuck there."""

    class Torn(Collapsing):
        def evaluate(self) -> dict[str, float]:
            if self.evaluated == 2:
                raise KeyboardInterrupt
            return super().evaluate()

    knobs = {"evaluate_every": 1, "weight_decay": 0.0}
    with pytest.raises(KeyboardInterrupt):
        run(denoiser, Torn(FIGURES_OF_A_COLLAPSE), {"run_folder": tmp_path}, **knobs)
    found = run(denoiser, Collapsing(FIGURES_OF_A_COLLAPSE), {"run_folder": tmp_path}, **knobs)
    assert (found.status, found.steps_done, found.kept_step) == ("ended", 3, 2)
    assert StateFolder(tmp_path).newest()["evaluations"]["collapsed"] == "All alike."
    gone = run(denoiser, Collapsing([0.0] * 6), {"run_folder": tmp_path}, **(knobs | {"learning_rate": 1e-3}))
    assert (gone.status, gone.steps_done) == ("finished", 6)
    assert [change["setting"] for change in gone.changes] == ["training learning_rate", "weights"]


@pytest.mark.parametrize(
    ("schedule", "steps", "words"),
    [
        ("constant", 6, "With such a change the same run goes on from there."),
        ("constant", 3, "With such a change and more steps the same run goes on from there."),
        ("linear", 3, "It has no update left: make such a change in a new run"),
    ],
)
def test_a_collapse_says_how_to_go_on_with_the_updates_that_are_left(denoiser, schedule, steps, words):
    knobs = {"evaluate_every": 1, "weight_decay": 0.0, "schedule": schedule, "steps": steps}
    result = run(denoiser, Collapsing(FIGURES_OF_A_COLLAPSE), **knobs)
    assert (result.kept_step, result.steps_done) == (2, 3) and words in result.reason


def test_the_weights_that_a_collapse_is_said_to_give_are_those_it_gives(denoiser, tmp_path):
    """Also where best ones are left from the time when they were to be kept."""
    knobs = {"evaluate_every": 1, "weight_decay": 0.0}
    run(denoiser, Collapsing([3.0, 1.0]), {"run_folder": tmp_path}, keep="best", **(knobs | {"steps": 2}))
    # Its count of evaluations is that of before the last one.
    result = run(denoiser, Collapsing([3.0, -1.0]), {"run_folder": tmp_path}, keep="last", **knobs)
    assert result.kept_step == 2 and "gives are the weights after update 2" in result.reason


def test_a_run_that_goes_on_from_sound_weights_can_collapse_before_it_was_looked_at(denoiser):
    """It gives what it began with. Fresh weights are not looked at: a one-step generator begins with a blur."""
    knobs = {"evaluate_every": 1, "weight_decay": 0.0}
    with Policy(denoiser, LORA) as policy:
        start = policy.tensors()
    begun = run(denoiser, Collapsing([1.0, -1.0]), {"begun": True}, **knobs)
    assert (begun.status, begun.steps_done, begun.kept_step) == ("ended", 1, 0)
    assert "gives are the weights that it began with" in begun.reason and "goes on from there" in begun.reason
    assert all(torch.equal(value, start[name]) for name, value in parted(begun.tensors)[0].items())
    for values, keeping in (([-1.0] * 6, {}), ([-1.0] * 7, {"begun": True})):
        objective = Collapsing(values)
        assert run(denoiser, objective, keeping, **knobs).status == "finished"
        assert objective.evaluated == len(values)
    unguarded = Belonging([1.0] * 6)
    assert (
        run(denoiser, unguarded, {"begun": True}, **knobs).history
        == run(denoiser, Belonging([1.0] * 6), **knobs).history
    )
    assert unguarded.evaluated == 6


def test_what_led_to_a_collapse_may_be_set_anew_after_it_alone(tmp_path):
    saved, now = ({"method setting": {"reward_weight": weight, "distance": "l2"}} for weight in (5.0, 0.0))
    (change,) = check_same_run(saved, now, folder=tmp_path, collapsed=True)
    assert change == {"setting": "method setting reward_weight", "before": 5.0, "now": 0.0}
    with pytest.raises(TrainingError, match="reward_weight"):
        check_same_run(saved, now, folder=tmp_path)
    with pytest.raises(TrainingError, match="distance"):
        check_same_run(saved, {"method setting": {"reward_weight": 5.0}}, folder=tmp_path, collapsed=True)


def test_the_gradient_of_the_auxiliary_does_not_eat_the_clip_of_the_lora(denoiser):
    """Its gradient is −60 at first, a thousand times the LoRA's: clipped together, the LoRA would hardly be heard."""
    history = run(denoiser, Parabola(), steps=1, clip_norm=1.0).history
    assert history[0]["gradient_norm"] < 5


# ---- shares ----


class Second(Share):
    index, count = 1, 2


def test_a_share_is_its_contiguous_part():
    assert Second().take([1, 2, 3, 4]) == [3, 4]
    assert Second().take(torch.arange(6)).tolist() == [3, 4, 5]
    assert ALONE.take([1, 2, 3]) == [1, 2, 3]
    with pytest.raises(TrainingError, match="5 samples cannot be shared evenly by 2"):
        Second().rows(5)


# ---- the log ----


def lines(folder) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_log_holds_a_line_per_update_and_rewrites_what_is_done_again(tmp_path):
    first = RunLog(tmp_path)
    for step in (1, 2, 3):
        first.add(step, {"step": step, "loss": float(step), "reward": math.nan})
    assert lines(tmp_path) == [{"loss": 1.0, "step": 1}, {"loss": 2.0, "step": 2}, {"loss": 3.0, "step": 3}]
    again = RunLog(tmp_path)
    again.add(3, {"loss": 30.0})
    again.add(4, {"loss": 40.0})
    assert [row["loss"] for row in lines(tmp_path)] == [1.0, 2.0, 30.0, 40.0]


def test_a_torn_last_line_is_dropped(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"loss": 1.0, "step": 1}\n{"loss": 2.0, "st')
    RunLog(tmp_path).add(2, {"loss": 5.0})
    assert [row["loss"] for row in lines(tmp_path)] == [1.0, 5.0]


def test_a_log_that_cannot_be_written_costs_no_run(tmp_path, caplog):
    (tmp_path / "taken").write_text("a file where the folder should be")
    RunLog(tmp_path / "taken").add(1, {"loss": 1.0})
    assert "could not be written" in caplog.text


def test_tensorboard_gets_every_figure_and_forgets_what_is_done_again(tmp_path):
    """Where the library is not installed nothing is written for it, and the other log is whole all the same."""
    first = RunLog(tmp_path)
    for step in (1, 2, 3):
        first.add(step, {"step": step, "loss": float(step), "reward": math.nan if step == 2 else 0.5})
    first.close()
    again = RunLog(tmp_path)
    again.add(3, {"loss": 30.0})
    again.close()
    assert [row["loss"] for row in lines(tmp_path)] == [1.0, 2.0, 30.0]
    if importlib.util.find_spec("tensorboard") is None:
        assert [file.name for file in tmp_path.iterdir()] == ["log.jsonl"]
        return
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert found.Tags()["scalars"] == ["loss", "reward"]
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(1, 1.0), (2, 2.0), (3, 30.0)]
    assert [event.step for event in found.Scalars("reward")] == [1]


def test_a_log_with_bytes_that_are_no_text_costs_no_run(tmp_path):
    """As a disk leaves them that lost its power while a line was written."""
    begun = b'{"loss": 1.0, "step": 1}\n\xff\xfe\x00\n' + b"[" * 100_000 + b'\n{"loss": 2.0, "step": 2}\n'
    (tmp_path / "log.jsonl").write_bytes(begun)
    RunLog(tmp_path).add(3, {"loss": 3.0})
    assert [row["step"] for row in lines(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("name", ["log.jsonl", "run.json", "job.json"])
def test_what_is_half_written_is_named_after_its_process(tmp_path, monkeypatch, name):
    """Two programs that write beside each other would rename each other's halves."""
    names, replace = [], os.replace

    def noted(source, target):
        names.append(Path(source).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", noted)
    monkeypatch.setattr(Path, "replace", lambda self, target: noted(self, target))
    if name == "log.jsonl":
        RunLog(tmp_path).add(1, {"loss": 1.0})
    elif name == "run.json":
        write_record(tmp_path, {})
    else:
        write_job(tmp_path / name, {})
    assert names == [f".{name}.{os.getpid()}.partial"]
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == [name]


def test_tensorboard_that_fails_costs_no_run(tmp_path, caplog):
    class Full:
        """As the library's own writer, whose thread found the disk full."""

        def add_scalar(self, name: str, value: float, step: int) -> None:
            raise OSError("No space left on device")

        close = None

    log = RunLog(tmp_path)
    log.add(1, {"loss": 1.0})
    log._board = Full()
    log.add(2, {"loss": 2.0})
    log.add(3, {"loss": 3.0})
    log.close()
    assert [row["loss"] for row in lines(tmp_path)] == [1.0, 2.0, 3.0]
    assert caplog.text.count("TensorBoard") == 1 and "No space left" in caplog.text


# ---- job files ----

GRAPH = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}, "_meta": {"title": "x"}},
    "2": {"class_type": "AttuneTrainLora", "inputs": {"model": ["1", 0], "steps": 3, "if_run_exists": "start fresh"}},
    "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 3]}},
}


def test_a_job_holds_what_the_training_depends_on_and_resumes():
    job = job_of(GRAPH, "2", run="mine", version="1")
    assert list(job["graph"]) == ["1", "2"] and "_meta" not in job["graph"]["1"]
    assert job["graph"]["2"]["inputs"]["if_run_exists"] == "resume"
    assert GRAPH["2"]["inputs"]["if_run_exists"] == "start fresh", "the prompt itself is left as it is"
    with pytest.raises(AttuneError, match="no node '9'"):
        job_of(GRAPH, "9", run="mine", version="1")


def test_a_run_whose_lora_a_job_goes_on_from_resumes_in_it_too():
    """Begun anew each time the job is carried out, it would give another LoRA to go on from."""
    earlier = {"model": ["1", 0], "if_run_exists": "start fresh", "job_file_only": True}
    graph = GRAPH | {"0": {"class_type": "AttuneTrainLora", "inputs": earlier}}
    graph["2"] = {"class_type": "AttuneTrainLora", "inputs": GRAPH["2"]["inputs"] | {"start_lora": ["0", 1]}}
    inputs = job_of(graph, "2", run="mine", version="1")["graph"]["0"]["inputs"]
    assert inputs == {"model": ["1", 0], "if_run_exists": "resume", "job_file_only": False}
    assert earlier["if_run_exists"] == "start fresh"


def test_settings_reach_the_node_by_class_or_id(tmp_path):
    write_job(tmp_path / "job.json", job_of(GRAPH, "2", run="mine", version="1"))
    settings = {"AttuneTrainLora.steps": "7", "1.ckpt_name": "b.safetensors"}
    graph = read_job(tmp_path / "job.json", settings)["graph"]
    assert graph["2"]["inputs"]["steps"] == 7 and graph["1"]["inputs"]["ckpt_name"] == "b.safetensors"


@pytest.mark.parametrize(
    ("setting", "words"),
    [("9.steps", "no node of this job is called '9'"), ("steps", "no node of this job is called ''"),
     ("2.model", "connected to another node"), ("2.stepz", "has no widget 'stepz'")],
)  # fmt: skip
def test_a_setting_that_cannot_be_made_is_refused(tmp_path, setting, words):
    write_job(tmp_path / "job.json", job_of(GRAPH, "2", run="mine", version="1"))
    with pytest.raises(AttuneError, match=words):
        read_job(tmp_path / "job.json", {setting: "1"})


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "no JSON"), ('{"nodes": []}', "A workflow is not a job file"), ("[1]", "format is 'list'"),
     ('{"format": "attune-job-1", "graph": {}, "node": "1"}', "no training node '1'"),
     ('{"format": "attune-job-1", "graph": {"1": 5}, "node": "1"}', "no training node '1'"),
     ('{"format": "attune-job-1", "graph": {"1": {"class_type": "AttuneTrainLora"}}, "node": "1"}', "node '1'"),
     ('{"format": "attune-job-1", "graph": {}, "node": []}', "no training node"),
     ('{"format": "attune-job-1", "graph": {"2": {}, "1": {"class_type": "AttuneTrainLora", "inputs": {}}}, '
      '"node": "1"}', "no training node '1'")],
)  # fmt: skip
def test_what_is_no_job_file_is_refused(tmp_path, text, words):
    (tmp_path / "job.json").write_text(text)
    with pytest.raises(AttuneError, match=words):
        read_job(tmp_path / "job.json")
