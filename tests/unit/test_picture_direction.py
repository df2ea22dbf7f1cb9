"""The direction of chosen pictures: closed forms on a linear network, and a real U-Net that denoises them better."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from attune.training.denoisers import DiffusersDenoiser, process_of
from attune.training.interfaces import TrainingError
from attune.training.objectives.diffusion_dpo import level_quantiles
from attune.training.objectives.picture_direction import Choice, DirectionConfig, fitted, picture_direction
from attune.training.objectives.supervised import loss_weight

TOKENS, WIDTH = 3, 5
SHAPE = (4, 4, 4)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Linear:
    """Predicts the clean latent from the tokens alone, x0 = W e, whatever the noise."""

    def __init__(self) -> None:
        self.process, self.module = process_of("v"), nn.Identity()
        self.device, self.unconditional = torch.device("cpu"), torch.zeros(TOKENS, WIDTH)
        self.matrix = drawn(64, TOKENS * WIDTH, seed=9)
        self.sizes: list[int] = []

    def __call__(self, x, sigma, cond, *, guidance=1.0):
        self.sizes.append(len(x))
        return (torch.stack([item.flatten() for item in cond]) @ self.matrix.T).reshape(-1, *SHAPE)


def move(cond: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    return cond + shift


def choice(seed: int, *, cond: torch.Tensor | None = None) -> Choice:
    return Choice(drawn(TOKENS, WIDTH) if cond is None else cond, drawn(1, *SHAPE, seed=seed),
                  drawn(2, *SHAPE, seed=seed + 1))  # fmt: skip


EMBEDDING = drawn(TOKENS, WIDTH, seed=4)


def test_the_first_step_is_adams_towards_the_liked_and_off_the_others():
    """At one noise level the gradient is −2w·Wᵀ(x⁺ − x⁻)/64, and Adam's first step its sign times the rate."""
    network, one = Linear(), choice(1)
    one = Choice(one.cond, one.liked, one.others[:1])
    config = DirectionConfig(steps=1, pairs=1, learning_rate=0.02, others_weight=1.0)
    found = picture_direction(network, [one], EMBEDDING, move, config)
    towards = network.matrix.T @ (one.liked - one.others).flatten()
    size = EMBEDDING.square().mean().sqrt()
    torch.testing.assert_close(found, 0.02 * size * towards.reshape(TOKENS, WIDTH).sign(), rtol=1e-3, atol=1e-5)


def test_what_liked_and_other_pictures_share_cancels():
    shared, own = 10 * drawn(1, *SHAPE, seed=7), drawn(1, *SHAPE, seed=8)
    config = DirectionConfig(steps=1, others_weight=1.0)
    alone, together = (
        picture_direction(Linear(), [Choice(EMBEDDING, base + own, base - own)], EMBEDDING, move, config)
        for base in (torch.zeros_like(own), shared)
    )
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-5)


def test_without_others_it_goes_towards_the_liked():
    network = Linear()
    liked = (network.matrix @ EMBEDDING.flatten()).reshape(1, *SHAPE)
    start = EMBEDDING + 0.05
    config = DirectionConfig(steps=60, learning_rate=0.01)
    found = picture_direction(network, [Choice(start, liked, liked[:0])], start, move, config)
    assert (start + found - EMBEDDING).norm() < 0.5 * (start - EMBEDDING).norm()
    assert set(network.sizes) == {config.pairs}


def test_chunks_change_memory_and_nothing_else():
    parts = {chunk: Linear() for chunk in (1, 2, 4)}
    found = [
        picture_direction(network, [choice(1), choice(5)], EMBEDDING, move, DirectionConfig(pairs=4, chunk=chunk))
        for chunk, network in parts.items()
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[0], found[2], rtol=1e-4, atol=1e-6)
    assert [max(network.sizes) for network in parts.values()] == [2, 4, 8]


def test_rounds_are_taken_in_turn_and_the_newest_is_first():
    old, new = choice(1), choice(5)
    first = picture_direction(Linear(), [old, new], EMBEDDING, move, DirectionConfig(steps=1))
    assert torch.equal(first, picture_direction(Linear(), [new], EMBEDDING, move, DirectionConfig(steps=1)))
    both = picture_direction(Linear(), [old, new], EMBEDDING, move, DirectionConfig(steps=2))
    assert not torch.equal(both, picture_direction(Linear(), [new], EMBEDDING, move, DirectionConfig(steps=2)))


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    once, twice, other = (
        picture_direction(Linear(), [choice(1)], EMBEDDING, move, DirectionConfig(seed=seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(once, twice) and not torch.equal(once, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("prediction", ["v", "eps", "flow"])
def test_a_real_network_tells_the_liked_picture_from_the_others(prediction):
    """With noise that the search has not seen, at the levels it looks at, the liked picture gains more than others."""
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = UNet2DConditionModel(
            sample_size=4, in_channels=4, out_channels=4, block_out_channels=(8, 8), layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=WIDTH, attention_head_dim=4, norm_num_groups=4,
        ).eval().requires_grad_(False)  # fmt: skip
    denoiser = DiffusersDenoiser(network, process_of(prediction), torch.zeros(TOKENS, WIDTH))
    one = choice(1)
    found = picture_direction(denoiser, [one], EMBEDDING, move, DirectionConfig(steps=40, learning_rate=0.05))

    def error(picture: torch.Tensor, shift: torch.Tensor) -> float:
        sigma, total = level_quantiles(denoiser.process, 40)[30:], 0.0
        for seed in range(8):
            noise = drawn(10, *SHAPE, seed=100 + seed)
            clean = picture.expand(10, -1, -1, -1)
            guess = denoiser(denoiser.process.add_noise(clean, noise, sigma), sigma, [one.cond + shift] * 10)
            weight = loss_weight(denoiser.process, sigma, gamma=0.0)
            total += float((weight * (guess - clean).square().flatten(1).mean(1)).mean())
        return total

    nothing = torch.zeros_like(found)
    gains = [error(part, nothing) - error(part, found) for part in (one.liked, one.others[:1], one.others[1:])]
    assert gains[0] > max(gains[1:]), gains
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in network.parameters())


def test_progress_is_told_and_may_end_the_search():
    told: list[tuple[int, int]] = []
    picture_direction(
        Linear(), [choice(1)], EMBEDDING, move, DirectionConfig(steps=3), on_step=lambda *step: told.append(step)
    )
    assert told == [(1, 3), (2, 3), (3, 3)]

    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        picture_direction(Linear(), [choice(1)], EMBEDDING, move, on_step=cancel)


def test_what_cannot_be_is_refused():
    with pytest.raises(TrainingError, match="at least one round"):
        picture_direction(Linear(), [], EMBEDDING, move)
    with pytest.raises(TrainingError, match="at least one liked"):
        Choice(EMBEDDING, drawn(0, *SHAPE), drawn(1, *SHAPE))
    with pytest.raises(TrainingError, match="of its size"):
        Choice(EMBEDDING, drawn(1, *SHAPE), drawn(1, 4, 8, 4))
    with pytest.raises(TrainingError, match="not finite"):
        picture_direction(Linear(), [Choice(EMBEDDING, drawn(1, *SHAPE) / 0, drawn(1, *SHAPE))], EMBEDDING, move)


WRONG = [
    {"steps": 0}, {"pairs": 0}, {"chunk": 0}, {"learning_rate": 0.0}, {"others_weight": -1.0}, {"others_weight": 5.0},
    {"lowest": 0.9, "highest": 0.5}, {"highest": 1.5}, {"steps": 2.5},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_settings_out_of_range_are_quoted(wrong):
    with pytest.raises(TrainingError):
        DirectionConfig(**wrong)


def test_a_direction_fits_prompts_of_other_lengths():
    direction = drawn(4, 2)
    assert torch.equal(fitted(direction, 2), direction[:2])
    longer = fitted(direction, 6)
    assert torch.equal(longer[:4], direction) and not longer[4:].any()
