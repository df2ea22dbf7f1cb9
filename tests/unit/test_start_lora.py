"""A run that goes on from the LoRA of an earlier one: its weights, what it is compared with, and what does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from attune.nodes.training.products import USER_ADAPTER, product_of
from attune.nodes.training.run_schemas import TRAIN_LORA
from attune.tests import mixture_bed as bed
from attune.tests.unit.test_diff_instruct import (
    IDEAL_SPREAD,
    RING,
    RING_LORA,
    Points,
    Right,
    distilled,
    objective,
    small,
    spread,
)
from attune.tests.unit.test_objective_contract import CONTEXT, LORA, small_unet
from attune.training.adapters import LoraConfig, LoraMetadata, Policy, load_lora, lora_file_tensors, save_lora
from attune.training.denoisers import DiffusersDenoiser, process_of
from attune.training.interfaces import TrainingError
from attune.training.objectives.diff_instruct import DiffInstructObjective
from attune.training.objectives.diff_instruct_config import ASSISTANT, GENERATOR
from attune.training.one_step import generate, level_of
from attune.training.run_state import check_same_run
from attune.training.trainer import TrainerConfig, train

ROLES = (GENERATOR, ASSISTANT)


@pytest.fixture(scope="module")
def denoiser() -> DiffusersDenoiser:
    return DiffusersDenoiser(small_unet(), process_of("flow"), torch.zeros(3, CONTEXT))


def product(start: Any, lora: LoraConfig = LORA, plan: Any = None) -> Any:
    return product_of(SimpleNamespace(model=None, plan=plan, lora=lora, trainer=TrainerConfig(), start=start))


def moved(denoiser: DiffusersDenoiser, lora: LoraConfig = LORA) -> dict[str, torch.Tensor]:
    """A LoRA that does something, by its keys in a file."""
    with Policy(denoiser, lora, roles=ROLES) as policy, torch.no_grad():
        for value in policy.parameters(GENERATOR):
            value.add_(0.05)
        return lora_file_tensors(policy.tensors(GENERATOR))


def test_the_file_of_a_run_is_where_another_goes_on(denoiser: DiffusersDenoiser, tmp_path: Path) -> None:
    """The trained role has its weights to the last bit; the assistant and the reference know nothing of them."""
    start = moved(denoiser)
    with Policy(denoiser, LORA, roles=ROLES) as policy:
        fresh = policy.tensors(ASSISTANT)
        save_lora(tmp_path / "a.safetensors", _by_path(start, policy), metadata=LoraMetadata(title="a"))
        product(load_lora(tmp_path / "a.safetensors")[0]).begin(policy)
        assert _same(lora_file_tensors(policy.tensors(GENERATOR)), start)
        assert _same(policy.tensors(ASSISTANT), fresh)
        product(None).begin(policy)
        assert _same(lora_file_tensors(policy.tensors(GENERATOR)), start), "without a start nothing is touched"


def _by_path(stored: dict[str, torch.Tensor], policy: Policy) -> dict[str, torch.Tensor]:
    paths = {f"lora_unet_{path.replace('.', '_')}": path for path in policy.paths}
    return {f"{paths[key.partition('.')[0]]}.{key.partition('.')[2]}": value for key, value in stored.items()}


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_keys_that_a_host_names_otherwise_find_their_layers(denoiser: DiffusersDenoiser) -> None:
    start = moved(denoiser)
    with Policy(denoiser, LORA, roles=ROLES) as policy:
        first = policy.paths[0]
        old = f"lora_unet_{first.replace('.', '_')}"
        renamed = {key.replace(f"{old}.", "diffusion_model.odd."): value for key, value in start.items()}
        made = product(renamed)
        with pytest.raises(TrainingError, match="cannot go on with the LoRA at start_lora"):
            made.begin(policy)
        made.rename = {first: "diffusion_model.odd"}
        made.begin(policy)
        assert _same(lora_file_tensors(policy.tensors(GENERATOR)), start)


def test_whole_weights_go_on_from_whole_weights(denoiser: DiffusersDenoiser) -> None:
    whole = replace(LORA, kind="full")
    start, thin = moved(denoiser, whole), moved(denoiser)
    with Policy(denoiser, whole, roles=ROLES) as policy:
        product(start, whole).begin(policy)
        assert _same(lora_file_tensors(policy.tensors(GENERATOR)), start)
        with pytest.raises(TrainingError, match=r"Choose whole weights \(full\).* It is low rank: set trains"):
            product(thin, whole).begin(policy)
    with (
        Policy(denoiser, LORA, roles=ROLES) as policy,
        pytest.raises(TrainingError, match="It is full: set trains in Train LoRA to that"),
    ):
        product(start).begin(policy)


def test_a_layer_without_an_alpha_acts_as_in_every_loader(denoiser: DiffusersDenoiser) -> None:
    """As with an alpha of its rank, whatever alpha the run has; what is no LoRA is refused with what to do."""
    start, strong = moved(denoiser), replace(LORA, alpha=4.0 * LORA.rank)
    silent = {name: value for name, value in start.items() if not name.endswith(".alpha")}
    assert float(next(value for name, value in start.items() if name.endswith(".alpha"))) == LORA.rank
    with Policy(denoiser, strong, roles=ROLES) as policy:
        product(silent, strong).begin(policy)
        for name, value in lora_file_tensors(policy.tensors(GENERATOR)).items():
            if name.endswith(".lora_up.weight"):
                torch.testing.assert_close(4 * value, start[name])
        with pytest.raises(TrainingError, match=r"is not a LoRA tensor.* Connect one that Train LoRA has trained"):
            product({"a.lora_A.weight": torch.zeros(1)}).begin(policy)


def test_another_rank_is_refused_with_what_to_set(denoiser: DiffusersDenoiser) -> None:
    start, wide = moved(denoiser), replace(LORA, rank=LORA.rank + 3)
    with Policy(denoiser, wide, roles=ROLES) as policy:
        before = policy.tensors(GENERATOR)
        with pytest.raises(TrainingError, match=f"Its rank is {LORA.rank}: set rank in LoRA Settings to that"):
            product(start, wide).begin(policy)
        assert _same(policy.tensors(GENERATOR), before)


def test_a_user_adapter_cannot_begin_with_a_lora() -> None:
    plan = SimpleNamespace(product=USER_ADAPTER, adapter=lambda seed: None, encoder=None)
    assert product(None, plan=plan).noun == USER_ADAPTER
    with pytest.raises(TrainingError, match="Disconnect start_lora"):
        product({}, plan=plan)


def test_the_report_and_the_file_say_which_it_was(denoiser: DiffusersDenoiser) -> None:
    start = moved(denoiser)
    assert len(product(start).settings()["start_lora"]) == 16 and "start_lora" not in product(None).settings()


def test_a_run_with_another_start_is_another_run(tmp_path: Path) -> None:
    one, other = {"start LoRA": 16 * "a"}, {"start LoRA": 16 * "b"}
    assert check_same_run(one, one, folder=tmp_path) == []
    for saved, now in ((one, other), (one, {}), ({}, one)):
        with pytest.raises(TrainingError, match=r"another LoRA to go on from than now, or none \(start_lora\)"):
            check_same_run(saved, now, folder=tmp_path)


def test_the_input_is_a_socket_at_the_end_that_may_stay_empty() -> None:
    kind, name, words = TRAIN_LORA[-1]
    assert (kind, name, words["optional"]) == ("LORA_MODEL", "start_lora", True)


def test_the_teacher_stays_the_model_without_the_lora(denoiser: DiffusersDenoiser) -> None:
    """Its figures are those that a run has which begins anew; the generator's are those of the LoRA."""
    trainer = TrainerConfig(steps=1, learning_rate=1e-9, sample_every=0, evaluate_every=1, weight_decay=0.0)

    def figures(start: Any) -> dict[str, float]:
        with Policy(denoiser, LORA, roles=ROLES) as policy:
            product(start).begin(policy)
            return train(policy, objective(small()), trainer).history[0]

    plain, begun = figures(None), figures(moved(denoiser))
    assert {n: v for n, v in plain.items() if n.startswith("teacher_")} == {
        n: v for n, v in begun.items() if n.startswith("teacher_")
    }
    assert abs(plain["evaluation_reward"] - begun["evaluation_reward"]) > 1e-3


def test_a_distilled_generator_is_trained_on_with_a_reward() -> None:
    """It begins on the ring and stays there, while the reward moves it."""
    first = distilled(RING, steps=300)[0]
    config = replace(RING, images_per_prompt=128, chunk=128, reward_weight=0.3, assistant_warmup=20)
    trainer = TrainerConfig(
        steps=150, learning_rate=2e-3, warmup_steps=0, betas=(0.0, 0.99), ema=0.9, weight_decay=0.0, sample_every=0
    )
    made = DiffInstructObjective(
        bed.PROMPTS, Right(differentiable=True), Points(), config, latent_shape=bed.LATENT_SHAPE
    )
    with Policy(bed.RingDenoiser(width=64, seed=0), RING_LORA, roles=made.roles) as policy:
        product(lora_file_tensors(first.tensors), RING_LORA).begin(policy)
        begun = _points(policy, config)
        policy.load_tensors(train(policy, made, trainer).tensors, GENERATOR)
        after = _points(policy, config)
    assert spread(begun) < 1.3 * IDEAL_SPREAD and spread(after) < 1.5 * IDEAL_SPREAD
    assert _score(after) > _score(begun) + 0.5


def _points(policy: Policy, config: Any) -> torch.Tensor:
    noise = torch.randn(4000, *bed.LATENT_SHAPE, generator=torch.Generator().manual_seed(7))
    with torch.no_grad(), policy.role(GENERATOR):
        sigma = level_of(policy.process, config.init_timestep)
        return generate(policy, noise, [None] * len(noise), sigma=sigma).flatten(1)


def _score(points: torch.Tensor) -> float:
    return float(-(points[:, 0] - bed.RADIUS).square().mean())
