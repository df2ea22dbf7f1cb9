"""The set encoder: sets have no order, files keep its identity, and it learns to foretell choices."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from attune.training.interfaces import TrainingError
from attune.training.preference.encoder_training import EncoderTrainingConfig, foretold, train_set_encoder
from attune.training.preference.pool import Pool
from attune.training.preference.population import Population, PopulationConfig
from attune.training.preference.set_encoder import (
    SetEncoder,
    SetEncoderConfig,
    Taste,
    load_set_encoder,
    preference_prediction_loss,
    save_set_encoder,
)

CONFIG = SetEncoderConfig(features=6, tokens=2, width=5, hidden=16, layers=1, heads=2)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def encoder() -> SetEncoder:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return SetEncoder(CONFIG, "features 1").eval().requires_grad_(False)


def test_the_order_of_choices_does_not_matter_but_their_sides_do(encoder):
    choices = drawn(3, 4, 3, 6)
    tokens = encoder(choices)
    assert tokens.shape == (3, 2, 5)
    torch.testing.assert_close(encoder(choices[:, [2, 0, 3, 1]]), tokens, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(encoder(choices[:, :, [0, 2, 1]]), tokens)


def test_unknown_choices_are_not_looked_at(encoder):
    choices, known = drawn(2, 4, 3, 6), torch.tensor([[True, True, False, False], [True] * 4])
    tokens = encoder(choices, known)
    torch.testing.assert_close(tokens[:1], encoder(choices[:1, :2]), rtol=1e-4, atol=1e-5)
    choices[0, 2:] = 100.0
    torch.testing.assert_close(encoder(choices, known), tokens)


@pytest.mark.parametrize("shape", [(2, 4, 3, 5), (2, 0, 3, 6), (4, 3, 6)])
def test_other_features_are_refused(encoder, shape):
    with pytest.raises(TrainingError, match=r"\[people, choices, 3, 6\]"):
        encoder(torch.zeros(shape))


def test_settled_tokens_have_the_middle_zero_and_the_length_one_and_mean_the_same(encoder):
    taste, choices, pictures = Taste(CONFIG).requires_grad_(False), drawn(40, 3, 3, 6), drawn(40, 7, 6, seed=1)
    before = encoder(choices)
    for _ in range(2):  # settling again changes nothing
        meant, old = taste(encoder(choices), pictures), encoder(choices)
        encoder.settle(old)
        taste.follow(old, encoder(choices))
        tokens = encoder(choices)
        torch.testing.assert_close(taste(tokens, pictures), meant, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(tokens[..., :-1].mean(0), torch.zeros(2, 4), rtol=0, atol=1e-4)
    assert tokens[..., :-1].square().sum(-1).mean().item() == pytest.approx(1, rel=1e-3)
    assert torch.equal(tokens[..., -1], torch.ones(40, 2)) and not torch.allclose(before, tokens)


def test_prediction_loss_closed_form():
    """Utilities 1 and ½: −log σ(½) = .474077."""
    assert preference_prediction_loss(torch.tensor([1.0, 0.5])).item() == pytest.approx(0.474077, abs=1e-6)


def test_files_keep_weights_and_identity(encoder, tmp_path: Path):
    encoder.settle(encoder(drawn(9, 3, 3, 6)))
    file = tmp_path / "encoder.safetensors"
    save_set_encoder(file, encoder)
    read = load_set_encoder(file)
    assert read.encoder_id == encoder.encoder_id and read.features_id == "features 1"
    assert torch.equal(read(drawn(1, 3, 3, 6)), encoder(drawn(1, 3, 3, 6)))
    with torch.no_grad():
        next(read.parameters()).add_(1e-3)
    assert read.encoder_id != encoder.encoder_id
    assert SetEncoder(CONFIG, "features 2").encoder_id != SetEncoder(CONFIG, "features 1").encoder_id


def test_what_is_no_encoder_is_refused(encoder, tmp_path: Path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    file = tmp_path / "encoder.safetensors"
    save_set_encoder(file, encoder)
    with safe_open(file, "pt") as opened:
        metadata, tensors = opened.metadata(), {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    save_file(tensors | {"average": torch.ones(2, 4)}, file, metadata)
    with pytest.raises(TrainingError, match="damaged"):
        load_set_encoder(file)
    save_file({"a": torch.zeros(1)}, file)
    with pytest.raises(TrainingError, match="holds no set encoder"):
        load_set_encoder(file)
    for field in ({"width": 1}, {"hidden": 10, "heads": 4}, {"layers": 0}):
        with pytest.raises(TrainingError):
            SetEncoderConfig(**field)


def simulated(people: int, seed: int) -> tuple[Population, Pool]:
    """Pictures whose features are their attributes, turned: what somebody likes can be told exactly."""
    attributes = drawn(60, 2, seed=4)
    turned = attributes @ torch.linalg.qr(drawn(6, 6, seed=5))[0][:2]
    prompts = [f"prompt {index % 6}" for index in range(60)]
    pool = Pool(prompts, turned, torch.zeros(60, 6), attributes)
    population = Population(PopulationConfig(people=people, attributes=("warmth", "contrast"), sharpness=8, seed=seed))
    population.get_used_to(attributes)
    return population, pool


def test_it_learns_to_foretell_the_choices_of_people_it_has_never_seen():
    people, pool = simulated(64, 0)
    strangers, _ = simulated(64, 1)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        encoder = SetEncoder(CONFIG, "attributes")
        losses = []
        config = EncoderTrainingConfig(steps=150, people=32, learning_rate=1e-2, support=6, query=4)
        taste = train_set_encoder(encoder, people, pool, config, on_step=lambda step, loss: losses.append(loss))
    assert len(losses) == 150 and losses[0] == pytest.approx(math.log(2), abs=0.3)
    assert not any(value.requires_grad for value in encoder.parameters())
    few, many = (foretold(encoder, taste, strangers, pool, support=count, query=20, seed=2) for count in (1, 6))
    assert many > 0.75 and many > few
