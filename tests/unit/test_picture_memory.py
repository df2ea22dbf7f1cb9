"""The memory of decoder and reward in a training step: measured against closed forms, and what is then advised."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn

from attune.nodes.training.fitting import fitting
from attune.training import memory
from attune.training.adapters import LoraConfig, Policy
from attune.training.denoisers import DiffusersDenoiser, process_of
from attune.training.interfaces import Prompt, TrainingError
from attune.training.memory import HEADROOM, MemoryEstimate, MemorySettings, advice, module_bytes
from attune.training.objectives.dag import DAGObjective
from attune.training.objectives.dag_config import DAGConfig
from attune.training.objectives.ddpo import DDPOConfig, DDPOObjective
from attune.training.objectives.refl import ReFLConfig, ReFLObjective
from attune.training.picture_memory import PictureMemory, decoding_memory, gradient_memory

SHAPE = (4, 8, 8)
LATENT, PICTURE = 4 * 8 * 8 * 4, 16 * 16 * 3 * 4  # bytes in float32
CPU = torch.device("cpu")


class Decoder:
    """Squares a latent, twice as large; its weights are frozen. `exp` keeps its result, the square its input."""

    def __init__(self) -> None:
        self.mix = nn.Conv2d(4, 3, 15, padding=7, bias=False).requires_grad_(False)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        large = nn.functional.interpolate(latents.square(), scale_factor=2.0)
        return self.mix(large).exp().movedim(1, -1)

    def decoding_bytes(self, shape: tuple[int, ...]) -> int:
        return 1000 * shape[-1]


class Energy:
    """The mean of squares, of which the squares' input is kept; `shared` is what one call keeps for all pictures."""

    name, reward_id, differentiable, higher_is_better = "Energy", "energy", True, True
    compares_pictures = False
    least = 1

    def __init__(self, shared: int = 0) -> None:
        self.shared, self.batches = shared, []

    def __call__(self, images, prompts, context=None):
        assert len(images) >= self.least
        self.batches.append(len(images))
        found = images.square().flatten(1).mean(1)
        if self.shared:
            found = found + 0 * (found.sum() * torch.ones(self.shared // 4)).sum()
        return found


class Contrast(Energy):
    compares_pictures, least = True, 2


def measured(reward, batch):
    return gradient_memory(Decoder(), reward, SHAPE, "a cat", device=CPU, batch=batch)


def test_what_the_backward_pass_keeps_is_counted_once_and_weights_are_not():
    found = measured(Energy(), 4)
    # The square keeps the latent, the exponential its result, and the convolution at most its input, 4 channels wide.
    least = LATENT + PICTURE
    assert int(least * HEADROOM) <= found.decoder <= int((least + 4 * 16 * 16 * 4 + 64) * HEADROOM)
    assert found.reward == pytest.approx(PICTURE * HEADROOM, abs=64)
    assert found.more == pytest.approx(PICTURE * HEADROOM, abs=64)
    assert found.gradients


def test_what_does_not_grow_with_the_pictures_counts_once():
    found = measured(Energy(shared=100_000), 4)
    assert found.more == pytest.approx(PICTURE * HEADROOM, abs=64)
    assert found.reward == pytest.approx((PICTURE + 100_000) * HEADROOM, abs=64)


@pytest.mark.parametrize(
    ("reward", "batch", "counts"),
    [(Energy, 1, [1]), (Energy, 9, [1, 2]), (Contrast, 2, [2]), (Contrast, 9, [2, 3])],
)
def test_no_more_pictures_are_scored_than_need_be(reward, batch, counts):
    judge = reward()
    found = measured(judge, batch)
    assert judge.batches == counts
    assert found.beside(0, batch) >= int(batch * PICTURE * HEADROOM) - 64


def test_only_the_larger_one_counts_and_only_gradients_lie_beside_the_network():
    following = PictureMemory(decoder=100, reward=30, more=20, gradients=True)
    assert [following.beside(1000, batch) for batch in (1, 4, 5, 6)] == [100, 100, 110, 130]
    turns = PictureMemory(decoder=100)
    assert [turns.beside(activations, 4) for activations in (0, 60, 100, 1000)] == [100, 40, 0, 0]


def test_a_decoder_that_says_nothing_counts_nothing():
    assert decoding_memory(Decoder(), SHAPE) == PictureMemory(8000)
    assert decoding_memory(object(), SHAPE) == PictureMemory(0)


def test_memory_that_runs_out_while_measuring_is_told():
    class Greedy(Decoder):
        def decode(self, latents):
            return latents.expand(10**15, 4, 8, 8).contiguous()

    with pytest.raises(TrainingError, match=r"Decoding a picture with gradients.*smaller pictures, or the DDPO"):
        gradient_memory(Greedy(), Energy(), SHAPE, "a cat", device=CPU, batch=2)


def test_every_method_that_makes_pictures_tells():
    world = ([Prompt("a cat", None)], Energy(), Decoder())
    for objective in (
        DDPOObjective(*world, DDPOConfig(), latent_shape=SHAPE),
        DAGObjective(*world, DAGConfig(), latent_shape=SHAPE),
    ):
        assert objective.picture_memory(CPU) == PictureMemory(8000)
    refl = ReFLObjective(*world, ReFLConfig(chunk=1), latent_shape=SHAPE)
    assert refl.picture_memory(CPU) == measured(Energy(), 1)


@pytest.fixture(scope="module")
def denoiser() -> DiffusersDenoiser:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(32,), layers_per_block=1, cross_attention_dim=8, attention_head_dim=8,
        norm_num_groups=8, down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
    ).eval().requires_grad_(False)  # fmt: skip
    return DiffusersDenoiser(unet, process_of("v"), torch.zeros(3, 8))


def test_a_step_that_only_its_pictures_make_too_large_does_not_fit(denoiser):
    asked = []

    def fit(free: int, pictures: PictureMemory | None):
        def told() -> PictureMemory | None:
            asked.append(pictures)
            return pictures

        return fitting(
            policy, MemorySettings(gradient_checkpointing="off"), SHAPE, torch.zeros(3, 8), lambda: free, batch=4,
            guidance=1.0, autocast=None, average=False, knob="chunk (now 4)", pictures=told,
        )  # fmt: skip

    with Policy(denoiser, LoraConfig(rank=2)) as policy:
        plain = fit(1 << 40, None).needed
        free = plain.total - module_bytes(policy.module) + 1000
        assert not fit(free, None).problem
        grows = fit(free, PictureMemory(0, 1 << 20, 1 << 20, gradients=True))
        assert grows.needed.pictures == 4 << 20 and grows.needed.total == plain.total + (4 << 20)
        assert "decoding and scoring 4 MB" in grows.problem and "lower chunk (now 4), or use smaller" in grows.problem
        one = fit(free, PictureMemory(1 << 34, gradients=True))
        assert "Even one picture at a time needs 16.0 GB" in one.problem and "lower chunk" not in one.problem
        assert "the DDPO or DAG objective" in one.problem
        assert not fit(free, PictureMemory(plain.activations)).problem, "it takes turns with learning"
        alone = fit(free, PictureMemory(1 << 34))
        assert "Even one picture at a time" in alone.problem and "objective" not in alone.problem
    assert len(asked) == 6, "measured once each time"


@pytest.mark.parametrize("checkpointing", ["off", "on"])
def test_nothing_that_was_measured_stays_in_memory(denoiser, checkpointing):
    """What autograd keeps goes with the measurement: a graph that held itself would hold a whole step for ever."""
    seen, decoder = [], Decoder()

    def remember(module, inputs, output) -> None:
        seen.append(weakref.ref(output))

    with Policy(denoiser, LoraConfig(rank=2)) as policy:
        hooks = [decoder.mix.register_forward_hook(remember)]
        hooks += [part.register_forward_hook(remember) for part in policy.module.modules() if hasattr(part, "weight")]
        fitting(
            policy, MemorySettings(gradient_checkpointing=checkpointing), SHAPE, torch.zeros(3, 8), lambda: 1 << 40,
            batch=2, guidance=1.0, autocast=None, average=False, knob="chunk",
            pictures=lambda: gradient_memory(decoder, Energy(), SHAPE, "a cat", device=CPU, batch=2),
        )  # fmt: skip
        for hook in hooks:
            hook.remove()
    assert len(seen) > 20 and not [found for found in seen if found() is not None]


def test_advice_without_knowing_a_single_picture_is_as_before():
    needed = MemoryEstimate(parameters=0, optimizer=0, activations=6 << 30, pictures=2 << 30)
    assert (needed.step, needed.total) == (8 << 30, 8 << 30)
    told = advice(needed, 4 << 30, knob="chunk")
    assert "2.0 times smaller: lower chunk, or use smaller pictures." in told
    assert memory.shortfall(needed, 4 << 30) == 4 << 30
