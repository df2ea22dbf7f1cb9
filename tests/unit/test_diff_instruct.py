"""Diff-Instruct*: the generator finds the teacher's modes, earns rewards with and without gradients, and is guarded."""

from __future__ import annotations

import dataclasses
import itertools
import math
import shutil
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from attune.nodes.training.plan_diff_instruct import DiffInstructPlan
from attune.nodes.training.widgets import evaluation_interval
from attune.tests import mixture_bed as bed
from attune.tests.unit.test_objective_contract import CONTEXT, LORA, SHAPE, Colour, Decoder, prompts, small_unet
from attune.training.adapters import LoraConfig, Policy
from attune.training.denoisers import DiffusersDenoiser, process_of
from attune.training.interfaces import RunCallbacks, TrainingError
from attune.training.memory import Kept, estimate
from attune.training.objectives.collapse import collapse_reason, saturation
from attune.training.objectives.diff_instruct import DiffInstructObjective
from attune.training.objectives.diff_instruct_config import ASSISTANT, GENERATOR, DiffInstructConfig
from attune.training.one_step import generate, level_of
from attune.training.run_state import StateFolder
from attune.training.share import ALONE
from attune.training.trained import given_by
from attune.training.trainer import TrainerConfig, TrainResult, train
from attune.training.trainer_config import Pace

RING_LORA = LoraConfig(rank=16, alpha=16.0, targets=("everything",))
IDEAL_SPREAD = bed.DEVIATION * math.sqrt(2)


class Points:
    """Points of the ring are their own pictures: two values of a picture of one pixel."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return torch.cat([latents, latents[:, :1]], 1).movedim(1, -1)


class Right:
    """Points further to the right are better, up to a place; a hill, so that nothing runs away."""

    name, reward_id, higher_is_better = "Right", "right", True

    def __init__(self, *, differentiable: bool) -> None:
        self.differentiable = differentiable

    def __call__(self, images: torch.Tensor, prompts: Any, context: Any = None) -> torch.Tensor:
        scores = -(images[:, 0, 0, 0] - bed.RADIUS).square()
        return scores if self.differentiable else scores.detach()


def distilled(config: DiffInstructConfig, *, steps: int, reward: Any = None) -> tuple[TrainResult, torch.Tensor]:
    """A run on the ring, and 8,000 points of its generator."""
    torch.set_flush_denormal(True)
    try:
        return _distilled(config, steps, reward)
    finally:
        torch.set_flush_denormal(False)  # other tests look at the last bit


def _distilled(config: DiffInstructConfig, steps: int, reward: Any) -> tuple[TrainResult, torch.Tensor]:
    denoiser = bed.RingDenoiser(width=64, seed=0)
    trainer = TrainerConfig(
        steps=steps, learning_rate=2e-3, warmup_steps=0, betas=(0.0, 0.99), ema=0.99, weight_decay=0.0, sample_every=0
    )
    objective = DiffInstructObjective(
        bed.PROMPTS, reward or Right(differentiable=True), Points(), config, latent_shape=bed.LATENT_SHAPE
    )
    with Policy(denoiser, RING_LORA, roles=objective.roles) as policy:
        result = train(policy, objective, trainer)
        policy.load_tensors(result.tensors, GENERATOR)
        noise = torch.randn(8000, *bed.LATENT_SHAPE, generator=torch.Generator().manual_seed(7))
        with torch.no_grad(), policy.role(GENERATOR):
            points = generate(policy, noise, [None] * len(noise), sigma=level_of(policy.process, config.init_timestep))
    return result, points.flatten(1)


RING = DiffInstructConfig(
    prompts_per_update=1, images_per_prompt=512, init_timestep=999, guidance=1.0, assistant_learning_rate=6e-3,
    noise_from=0.0, noise_to=1.0, chunk=512,
)  # fmt: skip


def spread(points: torch.Tensor) -> float:
    """Root mean square distance from the nearest mode."""
    return float(torch.cdist(points, bed.MEANS).min(1).values.square().mean().sqrt())


@pytest.mark.parametrize("distance", ["pseudo-huber", "l2", "kl"])
def test_the_generator_has_the_teachers_modes_and_their_width(distance):
    _, points = distilled(dataclasses.replace(RING, distance=distance), steps=600)
    shares = bed.mode_shares(points)
    assert (shares - 1 / bed.MODES).abs().max() < 0.03, shares
    assert spread(points) == pytest.approx(IDEAL_SPREAD, rel=0.12)


def test_several_updates_of_the_assistant_for_one_of_the_generator():
    _, points = distilled(dataclasses.replace(RING, assistant_updates=2, assistant_learning_rate=2e-3), steps=600)
    assert (bed.mode_shares(points) - 1 / bed.MODES).abs().max() < 0.04


@pytest.mark.parametrize("differentiable", [True, False], ids=["gradient", "score function"])
def test_a_reward_moves_points_and_the_teacher_holds_against(differentiable):
    config = dataclasses.replace(
        RING, images_per_prompt=128, chunk=128, reward_weight=0.3, reward_from=100, reward_rise=50, probes=8
    )
    reward = Right(differentiable=differentiable)
    result, points = distilled(config, steps=400, reward=reward)
    plain = distilled(dataclasses.replace(config, reward_weight=0.0), steps=400)[1]
    score = Right(differentiable=True)

    def mean(found: torch.Tensor) -> float:
        return float(score(Points().decode(found[..., None, None]), [""] * len(found)).mean())

    assert mean(points) > mean(plain) + 0.5
    # Still on the ring: where the teacher has no points, there are few.
    assert spread(points) < 1.5 * IDEAL_SPREAD
    weights = [row["reward_weight"] for row in result.history]
    assert weights[99] == 0 < weights[100] < weights[149] < weights[150] == 0.3
    assert "reward" not in result.history[99] and "reward" in result.history[100]


class Watched(Right):
    """Says how many pictures it was shown at a time."""

    def __init__(self) -> None:
        super().__init__(differentiable=False)
        self.shown: list[int] = []
        self.scores: list[float] = []

    def __call__(self, images: torch.Tensor, prompts: Any, context: Any = None) -> torch.Tensor:
        scores = super().__call__(images, prompts, context)
        self.shown.append(len(images))
        self.scores += scores.tolist()
        return scores


class WatchedPoints(Points):
    """Says how many pictures it made at a time."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        self.made.append(len(latents))
        return super().decode(latents)


def test_a_reward_without_a_gradient_is_shown_no_more_than_a_chunk_at_a_time():
    """In parts the gradient and the figures are the same; reported is the mean of all copies of a picture."""
    grads, found = {}, {}
    for chunk in (6, 64):
        reward, decoder = Watched(), WatchedPoints()
        config = dataclasses.replace(RING, images_per_prompt=8, chunk=chunk, reward_weight=1.0, probes=5)
        made = DiffInstructObjective(bed.PROMPTS, reward, decoder, config, latent_shape=bed.LATENT_SHAPE)
        with Policy(bed.RingDenoiser(width=16, seed=0), RING_LORA, roles=made.roles) as policy:
            made.prepare(policy, ALONE)
            list(_backwards(made, torch.Generator().manual_seed(0)))
            grads[chunk] = torch.cat([value.grad.flatten() for value in policy.parameters(GENERATOR)])
        found[chunk] = made.metrics()
        assert sum(reward.shown) == sum(decoder.made) == found[chunk]["reward_calls"] == 40
        assert max(reward.shown) == max(decoder.made) == min(chunk, 40)
        assert found[chunk]["reward"] == pytest.approx(sum(reward.scores) / 40, rel=1e-5)
    torch.testing.assert_close(grads[6], grads[64], rtol=1e-4, atol=1e-6)
    assert found[6] == pytest.approx(found[64], rel=1e-4)
    assert found[6]["reward_deviation"] > 0


def test_a_picture_of_which_a_gate_blocks_one_copy_earns_nothing_and_counts_as_blocked():
    class Gated(Watched):
        def unsafe(self, images):
            return images[:, 0, 0, 0] > 2.0

        def presentable(self, images):
            return torch.zeros_like(images)

    config = dataclasses.replace(RING, images_per_prompt=3, chunk=2, reward_weight=1.0, probes=2, probe_deviation=1.0)
    made = DiffInstructObjective(bed.PROMPTS, Gated(), Points(), config, latent_shape=bed.LATENT_SHAPE)
    made.practice.prepare(SimpleNamespace(device=torch.device("cpu")), ALONE)
    clean = torch.zeros(3, *bed.LATENT_SHAPE, requires_grad=True)
    probes = torch.zeros(3, 2, *bed.LATENT_SHAPE)
    probes[0, 1, 0], probes[1, :, 0], probes[2, 0, 0] = 3.0, 1.0, 0.5
    earned, pictures, judged = made._rewarded(clean, [0] * 3, [0] * 3, probes)
    assert judged.blocked.tolist() == [True, False, False] and len(pictures) == 3
    torch.testing.assert_close(pictures[:, 0, 0, 0], torch.tensor([0.0, 1.0, 0.5]))
    expected = [-((1.0 - bed.RADIUS) ** 2), -((0.5 - bed.RADIUS) ** 2 + bed.RADIUS**2) / 2]
    assert judged.rewards[1:].tolist() == pytest.approx(expected, rel=1e-5)
    earned.sum().backward()
    assert not clean.grad[:2].any(), "blocked, and two copies that score the same"
    assert clean.grad[2].any()


def test_what_copies_need_lies_beside_what_the_network_keeps():
    """The decoder as it says, and each of the pictures that are there at a time twice."""
    picture, cpu = 3 * 4, torch.device("cpu")

    class Telling(Points):
        def decoding_bytes(self, shape: Any) -> int:
            return 1000

    def memory(reward: Any, **changes: Any) -> Any:
        config = dataclasses.replace(RING, images_per_prompt=8, **({"chunk": 4, "probes": 5} | changes))
        made = DiffInstructObjective(bed.PROMPTS, reward, Telling(), config, latent_shape=bed.LATENT_SHAPE)
        return made.picture_memory(cpu)

    black, soft = Watched(), Right(differentiable=True)
    assert memory(black, reward_weight=1.0).beside(10**6, 4) == 1000 + 2 * 4 * picture
    assert memory(black, reward_weight=1.0, chunk=40).beside(10**6, 8) == 1000 + 2 * 40 * picture
    assert memory(black).beside(10**6, 4) == memory(soft).beside(10**6, 4) == 0, "watched only: it takes turns"
    assert memory(soft, reward_weight=1.0).gradients


def test_figures_of_noised_copies_say_so():
    def told(reward: Any, weight: float) -> tuple[Any, Any]:
        config = dataclasses.replace(RING, reward_weight=weight)
        plan = DiffInstructPlan(
            prompts=[], negative=None, reward=reward, held_out=reward, latent={}, vae=None, text_encoder="",
            config=config,
        )  # fmt: skip
        made = DiffInstructObjective(bed.PROMPTS, reward, Points(), config, latent_shape=bed.LATENT_SHAPE)
        return plan.curve_titles, made.about

    black, soft = Watched(), Right(differentiable=True)
    titles, about = told(black, 0.3)
    assert titles["reward"] == "Reward: Right, of slightly noised copies"
    assert titles["held_out_reward"] == "Held-out reward (never optimised): Right, of slightly noised copies"
    assert (
        titles["diversity"] == "Diversity, of slightly noised copies" and titles["loss"] == told(soft, 0.3)[0]["loss"]
    )
    assert about["words"].startswith("Right has no gradient: reward, held-out reward and diversity of an update are of")
    for reward, weight in ((black, 0.0), (soft, 0.3)):
        titles, about = told(reward, weight)
        assert not any("noised" in title for title in titles.values()) and about == {}


def small(**changes: Any) -> DiffInstructConfig:
    return DiffInstructConfig(
        **{"prompts_per_update": 2, "images_per_prompt": 2, "steps": 3, "guidance": 2.0, "init_timestep": 900} | changes
    )


def objective(config: DiffInstructConfig, reward: Any = None) -> DiffInstructObjective:
    return DiffInstructObjective(
        prompts(3), reward or Colour(), Decoder(), config, latent_shape=SHAPE, held_out=Colour()
    )


@pytest.fixture(scope="module")
def denoiser() -> DiffusersDenoiser:
    return DiffusersDenoiser(small_unet(), process_of("flow"), torch.zeros(3, CONTEXT))


def test_only_the_assistant_learns_between_updates_of_the_generator(denoiser):
    """Its weights move in every update, the generator's in the third and sixth alone, and so its average."""
    seen = []

    class Look(RunCallbacks):
        def on_report(self, step, metrics):
            seen.append({role: torch.cat([v.flatten() for v in policy.parameters(role)]).clone() for role in roles})

    config, roles = small(assistant_updates=3), (GENERATOR, ASSISTANT)
    with Policy(denoiser, LORA, roles=roles) as policy:
        trainer = TrainerConfig(steps=6, learning_rate=0.01, sample_every=0, weight_decay=0.1)
        result = train(policy, objective(config), trainer, callbacks=Look())
    moves = {role: [not torch.equal(a[role], b[role]) for a, b in itertools.pairwise(seen)] for role in roles}
    assert moves == {GENERATOR: [False, True, False, False, True], ASSISTANT: [True] * 5}
    assert ["distance" in row for row in result.history] == [False, False, True] * 2
    assert ["gradient_norm" in row for row in result.history] == [False, False, True] * 2
    assert [row["learning_rate"] > 0 for row in result.history] == [False, False, True] * 2


def test_a_warm_up_teaches_the_assistant_alone_and_must_leave_time_for_the_generator(denoiser):
    with Policy(denoiser, LORA, roles=(GENERATOR, ASSISTANT)) as policy:
        before = policy.tensors(GENERATOR)
        with pytest.raises(TrainingError, match="assistant_warmup"):
            train(policy, objective(small(assistant_warmup=4)), TrainerConfig(steps=4, sample_every=0))
        train(policy, objective(small(assistant_warmup=3)), TrainerConfig(steps=4, sample_every=0, learning_rate=0.01))
        assert any(not torch.equal(value, before[name]) for name, value in policy.tensors(GENERATOR).items())


def test_pace_counts_what_has_moved():
    pace = Pace(waits=2, every=3)
    assert [step for step in range(12) if pace.moves(step)] == [4, 7, 10]
    assert [pace.moved(step) for step in (0, 4, 5, 7, 8, 11)] == [0, 0, 1, 1, 2, 3]


def test_the_generators_loss_leaves_nothing_in_the_assistant_or_the_base(denoiser):
    with Policy(denoiser, LORA, roles=(GENERATOR, ASSISTANT)) as policy:
        made = objective(small(reward_weight=1.0))
        made.prepare(policy, ALONE)
        losses = list(_backwards(made, torch.Generator().manual_seed(0)))
        assistants = torch.cat([value.grad.flatten() for value in policy.parameters(ASSISTANT)])
        other = objective(small(reward_weight=0.0))
        other.prepare(policy, ALONE)
        for value in policy.parameters(ASSISTANT):
            value.grad = None
        first = other.losses(torch.Generator().manual_seed(0))
        next(first).backward()  # the assistant's own loss, without the generator's
        alone = torch.cat([value.grad.flatten() for value in policy.parameters(ASSISTANT)])
        assert len(losses) == 2 and torch.equal(assistants, alone)
        assert all(value.requires_grad for value in policy.parameters(ASSISTANT))
        trained = {id(value) for role in policy.roles for value in policy.parameters(role)}
        assert all(value.grad is None for value in policy.module.parameters() if id(value) not in trained)


def _backwards(made: DiffInstructObjective, generator: torch.Generator) -> Any:
    for loss in made.losses(generator):
        loss.backward()
        yield loss.detach()


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize(("distance", "guidance_as"), [("l2", "in"), ("l2", "out"), ("kl", "in")])
def test_the_memory_check_counts_what_a_step_keeps(denoiser, distance, guidance_as, guidance):
    """The passes of generator, assistant and reference that wait for the backward pass together."""
    config = small(distance=distance, guidance_as=guidance_as, guidance=guidance, prompts_per_update=4)
    plan = DiffInstructPlan(
        prompts=[], negative=None, reward=None, held_out=None, latent={}, vae=None, text_encoder="", config=config
    )
    with Policy(denoiser, LORA, roles=(GENERATOR, ASSISTANT)) as policy:
        made = objective(config)
        made.prepare(policy, ALONE)
        rows = made.losses(torch.Generator().manual_seed(0))
        next(rows).backward()
        kept = Kept({t.untyped_storage().data_ptr() for t in (*policy.module.parameters(), *policy.module.buffers())})
        with kept.counting():
            next(rows)
        cond = prompts(1)[0].positive
        needed = estimate(
            policy, SHAPE, cond, batch=plan.batch, guidance=plan.training_guidance, passes=plan.passes
        ).activations
        rows.close()
    assert 0.9 * kept.bytes < needed < 1.4 * kept.bytes


class Grey:
    """Rewards pictures that are all the same grey: what collapses a generator."""

    name, reward_id, differentiable, higher_is_better = "Grey", "grey", True, True

    def __call__(self, images, prompts, context=None):
        return -(images - 0.5).square().mean((1, 2, 3))

    def image_features(self, images):
        return images.flatten(1)


def test_a_collapse_ends_the_run_with_the_last_weights_that_were_sound(tmp_path):
    """A reward that wants all pictures alike, with far too much weight."""
    network = DiffusersDenoiser(small_unet(), process_of("v"), torch.zeros(3, CONTEXT))
    every_layer = LoraConfig(rank=8, alpha=8.0, targets=("everything",))
    config = small(reward_weight=300.0, reward_from=4, guard_diversity=0.5, guard_saturation=0.0, init_timestep=400)
    trainer = TrainerConfig(steps=40, learning_rate=0.02, sample_every=0, evaluate_every=4, warmup_steps=0)

    def run(method: DiffInstructConfig, trainer: TrainerConfig = trainer, folder: str = "run") -> TrainResult:
        with Policy(network, every_layer, roles=(GENERATOR, ASSISTANT)) as policy:
            return train(policy, objective(method, Grey()), trainer, run_folder=tmp_path / folder)

    result = run(config)
    assert result.status == "ended" and "alike" in result.reason and "guard_diversity" in result.reason
    assert 0 < result.kept_step == result.steps_done - 4 < 36
    kept = result.history[result.kept_step - 1]
    assert kept["evaluation_diversity"] >= 0.5 * kept["teacher_diversity"]
    assert result.history[-1]["evaluation_diversity"] < 0.5 * kept["teacher_diversity"]
    again = run(config)
    assert again.reason == result.reason and again.steps_done == result.steps_done
    assert all(torch.equal(value, result.tensors[name]) for name, value in again.tensors.items())
    assert "goes on from there" in result.reason
    step, given = given_by(StateFolder(tmp_path / "run").newest(), best=False)
    assert step == result.kept_step and given.keys() == result.tensors.keys()
    assert all(torch.equal(value, result.tensors[name]) for name, value in given.items())
    shutil.copytree(tmp_path / "run", tmp_path / "off")
    shutil.copytree(tmp_path / "run", tmp_path / "refused")
    # With the guard off the same run goes on, from where it is.
    assert run(dataclasses.replace(config, guard_diversity=0.0), folder="off").steps_done == 40
    with pytest.raises(TrainingError, match="distance"):
        run(dataclasses.replace(config, distance="l2", reward_weight=1.0), folder="refused")
    # With less reward it goes on from the weights that were sound; the assistant is left as it is.
    still = dataclasses.replace(config, reward_weight=1.0, assistant_learning_rate=1e-9)
    before = StateFolder(tmp_path / "run").newest()["auxiliary"]
    one_more = dataclasses.replace(trainer, learning_rate=1e-9, steps=result.steps_done + 1)
    gone = run(still, one_more)
    assert gone.status == "finished" and gone.kept_step == gone.steps_done == result.steps_done + 1
    for name, value in gone.tensors.items():
        torch.testing.assert_close(value, result.tensors[name], atol=1e-6, rtol=0)
    after = StateFolder(tmp_path / "run").newest()["auxiliary"]
    assert all(torch.allclose(after[name], value, atol=1e-6) for name, value in before.items())
    told = {change["setting"]: change for change in gone.changes}
    assert told["weights"]["now"] == f"after update {result.kept_step}"
    assert told["weights"]["after_update"] == result.steps_done and told["method setting reward_weight"]["now"] == 1.0
    # From then on it is an ordinary run: it is resumed where it is, and its settings are these.
    onwards = dataclasses.replace(one_more, steps=one_more.steps + 1)
    assert [c["setting"] for c in run(still, onwards).changes].count("weights") == 1
    with pytest.raises(TrainingError, match="reward_weight"):
        run(config, onwards)


def test_what_was_never_sound_is_not_ended(denoiser):
    """At the start pictures of one call may be alike; only a run that was past this can collapse."""

    made = objective(small())
    made.collapse = lambda figures: "alike"
    trainer = TrainerConfig(steps=4, sample_every=0, evaluate_every=2)
    with Policy(denoiser, LORA, roles=(GENERATOR, ASSISTANT)) as policy:
        result = train(policy, made, trainer)
    assert result.status == "finished" and result.kept_step == 4


class Comparing(Colour):
    """Says that its scores depend on the other pictures of a prompt."""

    compares_pictures = True


def test_a_reward_that_compares_pictures_is_shown_whole_prompts_or_refused():
    objective(small(), Comparing())  # it is only watched
    objective(small(reward_weight=1.0, chunk=4), Comparing())
    with pytest.raises(TrainingError, match="cuts the 2 of a prompt apart"):
        objective(small(reward_weight=1.0, chunk=3), Comparing())
    with pytest.raises(TrainingError, match="only one of each"):
        objective(small(reward_weight=1.0, images_per_prompt=1), Comparing())
    reward = Comparing()
    reward.differentiable = False
    with pytest.raises(TrainingError, match="has no gradient"):
        objective(small(reward_weight=1.0), reward)


def test_evaluations_are_as_asked_for_or_as_the_method_wants():
    plan = SimpleNamespace(evaluations=20)
    assert [evaluation_interval(plan, steps, 0) for steps in (1, 20, 21, 2000)] == [1, 1, 2, 100]
    assert evaluation_interval(plan, 2000, 7) == 7 and evaluation_interval(SimpleNamespace(), 2000, 0) == 0
    assert DiffInstructPlan.evaluations == 20


def test_what_counts_as_collapsed():
    sound = {"evaluation_diversity": 0.1, "teacher_diversity": 0.2, "evaluation_saturation": 0.5}
    figures = sound | {"teacher_saturation": 0.4}
    assert collapse_reason(figures, diversity=0.4, saturation=0.2) == ""
    assert "40%" not in collapse_reason(figures, diversity=0.6, saturation=0.2)
    assert "alike" in collapse_reason(figures, diversity=0.6, saturation=0.2)
    assert "run away" in collapse_reason(figures, diversity=0.4, saturation=0.05)
    assert (
        collapse_reason(figures, diversity=0.0, saturation=0.0) == collapse_reason({}, diversity=1, saturation=1) == ""
    )


def test_saturation_is_none_of_grey_and_one_of_pure_colours():
    pure = torch.tensor([1.0, 0.0, 0.0]).expand(2, 4, 4, 3)
    assert saturation(pure) == 1 and saturation(torch.full((2, 4, 4, 3), 0.3)) == 0
    assert saturation(torch.cat([pure, torch.zeros(2, 4, 4, 3)])) == 0.5


def test_people_see_the_teachers_picture_beside_the_generators(denoiser):
    """From the same noise; the teacher's does not change while the generator learns."""
    with Policy(denoiser, LORA, roles=(GENERATOR, ASSISTANT)) as policy, torch.no_grad():
        made = objective(small())
        made.prepare(policy, ALONE)
        noise = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1))
        first = made.preview(noise, made.sample_requests())
        for value in policy.parameters(GENERATOR):
            value.add_(0.3)
        later = made.preview(noise, made.sample_requests())
        cond = [prompt.positive for prompt in made.sample_requests()]
        with policy.role(None):
            teacher = made.teacher(noise, cond)
        sigma = level_of(policy.process, 900)
        with policy.role(GENERATOR):
            student = generate(policy, noise, cond, sigma=sigma)
    assert first.shape == (6, *SHAPE)
    torch.testing.assert_close(later[0::2], teacher)
    torch.testing.assert_close(later[1::2], student)
    assert torch.equal(first[0::2], later[0::2]) and not torch.equal(first[1::2], later[1::2])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"distance": "cosine"}, "pseudo-huber, l2, kl"),
        ({"guidance_as": "beside"}, "in, out"),
        ({"assistant_updates": 0}, "at least 1"),
        ({"init_timestep": 1000}, "0 … 999"),
        ({"noise_from": 0.9, "noise_to": 0.5}, "noise_from first"),
        ({"probes": 1}, "at least 2"),
        ({"reward_weight": -1.0}, "at least 0"),
        ({"assistant_learning_rate": 0.0}, "above 0"),
        ({"guard_diversity": 1.0}, "below 1"),
        ({"reward_weight": math.nan}, "finite"),
    ],
)
def test_values_out_of_range_are_refused_in_words(changes, words):
    with pytest.raises(TrainingError, match=words):
        DiffInstructConfig(**changes)


def test_levels_of_timesteps():
    process = bed.ring_process()
    assert level_of(process, 0) == process.sigma_min and level_of(process, 999) == process.sigma_max
    assert level_of(process, 399) == float(process.sigmas[399])
    few = dataclasses.replace(process, sigmas=process.sigmas[::100])
    assert level_of(few, 999) == few.sigma_max and level_of(few, 399) == float(few.sigmas[3])
    with pytest.raises(TrainingError, match="0 to 999"):
        level_of(process, 1000)


def test_pictures_that_a_gate_blocks_earn_nothing(denoiser):
    class Gated(Colour):
        def unsafe(self, images):
            return images[..., 0].mean((1, 2)) > 0.5

        def presentable(self, images):
            return torch.zeros_like(images)

    with Policy(denoiser, LORA, roles=(GENERATOR, ASSISTANT)) as policy:
        made = objective(small(reward_weight=1.0), Gated())
        made.prepare(policy, ALONE)
        list(_backwards(made, torch.Generator().manual_seed(0)))
        clean = torch.zeros(4, *SHAPE, requires_grad=True)
        shifted = clean + torch.tensor([3.0, -3.0, 3.0, -3.0]).reshape(4, 1, 1, 1)
        earned, _, found = made._rewarded(shifted, [0, 0, 1, 1], [0, 0, 1, 1], None)
        earned.sum().backward()
    assert found.blocked.tolist() == [True, False, True, False]
    assert earned[found.blocked].tolist() == [0, 0]
    assert not clean.grad[found.blocked].any() and clean.grad[~found.blocked].any()
