"""What every objective owes the trainer, whatever its method: one matrix over all of them, on a real LoRA policy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from attune.nodes.training.figures import FIGURES
from attune.training.adapters import LoraConfig, Policy
from attune.training.adapters.user_attention import UserAdapterConfig
from attune.training.adapters.user_policy import UserPolicy
from attune.training.checkpointing import checkpointing
from attune.training.denoisers import DiffusersDenoiser, process_of
from attune.training.interfaces import Prompt, RunCallbacks
from attune.training.objectives.dag import DAGObjective
from attune.training.objectives.dag_config import DAGConfig
from attune.training.objectives.ddpo import DDPOConfig, DDPOObjective
from attune.training.objectives.diff_instruct import DiffInstructObjective
from attune.training.objectives.diff_instruct_config import DiffInstructConfig
from attune.training.objectives.diffusion_dpo import DiffusionDPOConfig, DiffusionDPOObjective, Pair
from attune.training.objectives.personal_dpo import PersonalDPOConfig, PersonalDPOObjective, PersonalPair
from attune.training.objectives.refl import ReFLConfig, ReFLObjective
from attune.training.objectives.supervised import SupervisedConfig, SupervisedObjective
from attune.training.preference.set_encoder import SetEncoder, SetEncoderConfig
from attune.training.trainer import TrainerConfig, train
from attune.training.trainer_config import KL_WINDOW

CONTEXT, SHAPE = 8, (4, 4, 4)
LORA = LoraConfig(rank=2, alpha=2.0, targets=("cross-attention", "self-attention"), seed=1)
PREDICTIONS = ("eps", "v", "flow")


class Colour:
    """Differentiable: how red the picture is, and how little blue."""

    name, reward_id, differentiable, higher_is_better = "Colour", "colour", True, True

    def __call__(self, images, prompts, context=None):
        return images[..., 0].mean((1, 2)) - images[..., 2].square().mean((1, 2))


class Decoder:
    """The first three channels as colours."""

    def decode(self, latents):
        return torch.sigmoid(latents[:, :3]).movedim(1, -1)

    def encode(self, images):
        return torch.cat([images, images[..., :1]], -1).movedim(-1, 1)


def latents(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def prompts(count: int) -> list[Prompt]:
    generator = torch.Generator().manual_seed(9)
    return [Prompt(f"prompt {index}", torch.randn(3, CONTEXT, generator=generator)) for index in range(count)]


def pairs(count: int, seed: int) -> list[Pair]:
    return [Pair(*both, prompt) for both, prompt in zip(latents(2 * count, seed).split(2), prompts(count), strict=True)]


def personal_pairs(people: int, each: int, seed: int) -> list[PersonalPair]:
    generator = torch.Generator().manual_seed(seed)
    found = [pair for person in range(people) for pair in pairs(each, seed + person)]
    return [
        PersonalPair(pair.chosen, pair.rejected, pair.prompt, person=f"{seed} {place // each}",
                     features=torch.randn(3, 6, generator=generator))
        for place, pair in enumerate(found)
    ]  # fmt: skip


def personal_dpo(chunk: int) -> PersonalDPOObjective:
    """With the set encoder trained along."""
    with torch.random.fork_rng([]):
        torch.manual_seed(2)
        encoder = SetEncoder(SetEncoderConfig(features=6, tokens=2, width=4, hidden=8, layers=1, heads=2), "features")
    config = PersonalDPOConfig(batch=4, beta=50.0, chunk=chunk, support=2, encoder_learning_rate=1e-3)
    held_out = personal_pairs(2, 3, 90)
    return PersonalDPOObjective(personal_pairs(2, 3, 0), config, encoder=encoder.eval(), held_out=held_out)


def adapted(denoiser: DiffusersDenoiser, name: str, lora: LoraConfig = LORA) -> Policy | UserPolicy:
    """What the method trains."""
    if name == "personal-dpo":
        return UserPolicy(denoiser, UserAdapterConfig(tokens=2, width=4, start="off"))
    roles = DiffInstructObjective.roles if name.startswith("diff-instruct") else ("policy",)
    return Policy(denoiser, lora, roles=roles)


def practising(kind: Callable[..., Any], config: Any) -> Any:
    return kind(prompts(3), Colour(), Decoder(), config, latent_shape=SHAPE, held_out=Colour())


PRACTICE = {"prompts_per_update": 2, "images_per_prompt": 2, "steps": 4, "guidance": 2.0}
DAG = PRACTICE | {"transitions": 3, "updates_per_rollout": 2, "anneal_updates": 0, "flow_channels": (16, 16)}
# Name → makes the objective, given how much it looks at in one call.
OBJECTIVES: dict[str, Callable[[int], Any]] = {
    "supervised": lambda chunk: SupervisedObjective(list(latents(5, 0)), prompts(5), SupervisedConfig(batch=4)),
    "ddpo": lambda chunk: practising(DDPOObjective, DDPOConfig(**PRACTICE, updates_per_rollout=2, chunk=chunk)),
    "dag-db": lambda chunk: practising(DAGObjective, DAGConfig(**DAG, variant="DB", beta=3.0, chunk=chunk)),
    "dag-kl": lambda chunk: practising(
        DAGObjective, DAGConfig(**DAG, variant="KL", reference_prior=True, chunk=chunk)
    ),
    "diffusion-dpo": lambda chunk: DiffusionDPOObjective(
        pairs(5, 0), DiffusionDPOConfig(batch=4, beta=50.0, chunk=chunk), held_out=pairs(3, 1)
    ),
    "personal-dpo": personal_dpo,
    "refl": lambda chunk: practising(ReFLObjective, ReFLConfig(**PRACTICE, stop_from=2, stop_to=3, chunk=chunk)),
    "draft": lambda chunk: practising(
        ReFLObjective, ReFLConfig(**PRACTICE, mode="draft", last_steps=2, chunk=chunk)
    ),
    "diff-instruct": lambda chunk: practising(
        DiffInstructObjective, DiffInstructConfig(**PRACTICE, init_timestep=900, reward_weight=1.0, chunk=chunk)
    ),
    "diff-instruct-kl": lambda chunk: practising(
        DiffInstructObjective,
        DiffInstructConfig(**PRACTICE, distance="kl", guidance_as="out", assistant_updates=2, chunk=chunk),
    ),
}  # fmt: skip
MATRIX = pytest.mark.parametrize("name", OBJECTIVES)
# A one-step generator is meant to leave what the model was as a sampler of many steps.
WITHOUT_DRIFT = ("diff-instruct", "diff-instruct-kl")


@pytest.fixture(scope="module")
def unet() -> torch.nn.Module:
    return small_unet()


def small_unet() -> torch.nn.Module:
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = UNet2DConditionModel(
            sample_size=4, in_channels=4, out_channels=4, block_out_channels=(8, 8), layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=CONTEXT, attention_head_dim=4, norm_num_groups=4,
        )  # fmt: skip
    return network.eval().requires_grad_(False)


@pytest.fixture(params=PREDICTIONS)
def denoiser(unet, request) -> DiffusersDenoiser:
    return DiffusersDenoiser(unet, process_of(request.param), torch.zeros(3, CONTEXT))


@pytest.fixture
def flow_denoiser(unet) -> DiffusersDenoiser:
    return DiffusersDenoiser(unet, process_of("flow"), torch.zeros(3, CONTEXT))


def moved(policy: Policy) -> None:
    """A LoRA that does something, so that nothing is right only where it does not."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in (value for role in policy.roles for value in policy.named_parameters(role).values()):
            value.copy_(0.3 * torch.randn(value.shape, generator=generator))


def one_update(
    denoiser: DiffusersDenoiser,
    name: str,
    *,
    chunk: int = 8,
    seed: int = 0,
    half: bool = False,
    checkpoints: bool = False,
    lora: LoraConfig = LORA,
) -> Any:
    """(losses, gradients, metrics, evaluation) of a first update."""
    with adapted(denoiser, name, lora) as policy, ExitStack() as stack:
        moved(policy)
        if checkpoints:
            stack.enter_context(checkpointing(policy.module, state=policy.as_now))
        objective = OBJECTIVES[name](chunk)
        objective.prepare(policy)
        for _ in range(getattr(objective, "policy_every", 1) - 1):
            list(objective.losses(torch.Generator().manual_seed(seed)))  # of updates in which the policy rests
        losses, generator = [], torch.Generator().manual_seed(seed)
        rows = iter(objective.losses(generator))
        while True:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = next(rows, None)
            if loss is None:
                break
            loss.backward()
            losses.append(loss.detach())
        gradients = torch.cat([value.grad.flatten() for value in policy.named_parameters(policy.roles[0]).values()])
        state = torch.random.get_rng_state()
        found = objective.evaluate() if hasattr(objective, "evaluate") else None
        assert torch.equal(torch.random.get_rng_state(), state), "an evaluation draws from its own generator"
        return losses, gradients, dict(objective.metrics()), found


@MATRIX
def test_losses_and_gradients_are_finite_float32_and_move_the_lora(denoiser, name):
    losses, gradients, metrics, _ = one_update(denoiser, name)
    assert losses and all(loss.shape == () and loss.dtype == torch.float32 for loss in losses)
    assert gradients.dtype == torch.float32 and torch.isfinite(gradients).all() and gradients.abs().max() > 0
    assert all(math.isfinite(value) for value in metrics.values())
    assert name in WITHOUT_DRIFT or metrics["kl_to_reference"] > 0


@MATRIX
def test_equal_seeds_give_equal_updates_and_others_do_not(flow_denoiser, name):
    first, again, other = (one_update(flow_denoiser, name, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first[1], again[1]) and first[2:] == again[2:]
    assert not torch.equal(first[1], other[1])
    assert first[3] == other[3], "an evaluation is a function of the weights"


@MATRIX
def test_chunks_change_nothing_but_rounding(denoiser, name):
    whole, parts = one_update(denoiser, name), one_update(denoiser, name, chunk=1)
    assert sum(parts[0]).item() == pytest.approx(sum(whole[0]).item(), rel=1e-4, abs=1e-6)
    torch.testing.assert_close(parts[1], whole[1], rtol=1e-3, atol=1e-4 * whole[1].abs().max().item())
    assert parts[3] == (whole[3] and pytest.approx(whole[3], rel=1e-3, abs=1e-5))


@MATRIX
def test_gradient_checkpointing_changes_nothing(flow_denoiser, name):
    """Also where an objective computes whole steps anew in the backward pass itself."""
    plain, checkpointed = (one_update(flow_denoiser, name, checkpoints=flag) for flag in (False, True))
    assert torch.equal(plain[1], checkpointed[1])
    assert plain[0] == checkpointed[0] and plain[2:] == checkpointed[2:]


@MATRIX
def test_half_precision_gives_about_the_same_direction(flow_denoiser, name):
    whole, half = (one_update(flow_denoiser, name, half=flag)[1] for flag in (False, True))
    assert half.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(whole, half, 0) > 0.9


@MATRIX
def test_every_figure_is_in_the_table_that_people_read(flow_denoiser, name):
    _, _, metrics, found = one_update(flow_denoiser, name)
    evaluated = {figure.removeprefix("evaluation_").removeprefix("teacher_") for figure in found or {}}
    assert {*metrics, *evaluated} <= set(FIGURES)


@MATRIX
def test_best_metric_is_among_what_is_evaluated(flow_denoiser, name):
    objective = OBJECTIVES[name](8)
    if hasattr(objective, "evaluate"):
        assert objective.best_metric in one_update(flow_denoiser, name)[3]


@MATRIX
def test_accumulated_updates_learn(flow_denoiser, name):
    """Two passes per update: twice the losses, and a state that is that of an update."""
    with adapted(flow_denoiser, name) as policy:
        before = policy.tensors(policy.roles[0])
        result = train(policy, OBJECTIVES[name](8), TrainerConfig(steps=2, accumulation=2, sample_every=0))
    assert result.steps_done == 2
    assert any(not torch.equal(value, before[key]) for key, value in result.tensors.items())


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in WITHOUT_DRIFT])
def test_a_budget_for_the_drift_ends_the_run_of_every_method(flow_denoiser, name):
    """It has none before the first update moved the LoRA, and is measured in every one of these."""

    def run(budget: float) -> Any:
        config = TrainerConfig(steps=8, learning_rate=0.01, warmup_steps=0, sample_every=0, kl_budget=budget)
        with adapted(flow_denoiser, name) as policy:
            return train(policy, OBJECTIVES[name](8), config)

    ended = run(1e-5)
    assert ended.status == "ended" and KL_WINDOW <= ended.steps_done < 8
    assert "nats per picture" in ended.reason
    drifts = [row["kl_to_reference"] for row in ended.history]
    assert drifts[0] < 1e-9 < drifts[-1] and all(drift >= 0 for drift in drifts)
    assert run(1e9).status == "finished"


class StopAfter(RunCallbacks):
    def __init__(self, polls: float) -> None:
        self.left = polls

    def should_stop(self) -> bool:
        self.left -= 1
        return self.left < 0


@MATRIX
def test_stopped_anywhere_and_resumed_it_ends_bit_equal(flow_denoiser, name, tmp_path: Path):
    """Four updates with dropout, evaluations and the average; stopped after some polls, and gone on with."""
    config = TrainerConfig(steps=4, learning_rate=0.01, sample_every=0, ema=0.5, evaluate_every=2)
    lora = dataclasses.replace(LORA, dropout=0.2)

    def run(folder: Path | None, polls: float = math.inf) -> Any:
        with adapted(flow_denoiser, name, lora) as policy:
            return train(policy, OBJECTIVES[name](2), config, callbacks=StopAfter(polls), run_folder=folder)

    expected = run(None)
    for polls in (1, 4, 7):
        folder = tmp_path / str(polls)
        run(folder, polls)
        result = run(folder)
        assert result.history == expected.history
        assert all(torch.equal(value, expected.tensors[key]) for key, value in result.tensors.items())


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "personal-dpo"])
def test_whole_weights_are_trained_like_a_lora(flow_denoiser, name, tmp_path: Path):
    """By every method that trains the network: equal gradients under checkpointing, and a run that goes on."""
    whole = dataclasses.replace(LORA, kind="full")
    plain, checkpointed = (one_update(flow_denoiser, name, lora=whole, checkpoints=flag) for flag in (False, True))
    assert torch.isfinite(plain[1]).all() and plain[1].abs().max() > 0
    assert torch.equal(plain[1], checkpointed[1])
    config = TrainerConfig(steps=3, learning_rate=1e-3, sample_every=0, ema=0.5, evaluate_every=2)

    def run(folder: Path | None, polls: float = math.inf) -> Any:
        with adapted(flow_denoiser, name, dataclasses.replace(whole, dropout=0.2)) as policy:
            return train(policy, OBJECTIVES[name](2), config, callbacks=StopAfter(polls), run_folder=folder)

    expected = run(None)
    stopped, result = run(tmp_path, 4), run(tmp_path)
    assert stopped.steps_done < result.steps_done == 3
    assert result.history == expected.history
    assert all(torch.equal(value, expected.tensors[key]) for key, value in result.tensors.items())
    assert any(value.any() for key, value in result.tensors.items() if key.endswith(".diff"))
