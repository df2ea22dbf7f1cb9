"""The demo's personal preference: features as the reward node has them, splits, and a whole small recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attune.nodes.rewards.load import load_reward
from attune.training.adapters.user_attention import load_user_adapter, renamed
from attune.training.demo import data, networks, train_user
from attune.training.demo.features import DemoFeatures
from attune.training.demo.pipeline import DemoPipeline
from attune.training.interfaces import TrainingError
from attune.training.preference.blending import blend_predictions, blend_tokens
from attune.training.preference.set_encoder import features_id, load_set_encoder

REWARD = train_user.DEMO / "attune_demo_reward.safetensors"


def test_features_are_those_of_the_reward_node():
    images = torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    texts = ["a cat", "a red mushroom, 3d style", "a cat"]
    features, reward = DemoFeatures(REWARD), load_reward(REWARD, "cpu")
    torch.testing.assert_close(features.images(images), reward.reward.image_features(images), rtol=1e-4, atol=1e-5)
    cosines = (features.images(images) * features.texts(texts)).sum(1)
    torch.testing.assert_close(cosines, reward(images, texts), rtol=1e-4, atol=1e-5)
    assert features.features_id == features_id(REWARD) and features.images(images).shape[1] == features.width


def test_no_concept_is_learned_from_and_measured():
    learned, kept = train_user.taste_split()
    assert sorted([*learned, *kept]) == sorted(data.CONCEPT_NAMES) and not {*learned} & {*kept}
    assert 0.15 < len(kept) / len(data.CONCEPT_NAMES) < 0.35


def test_the_recipe_makes_files_that_belong_together_and_goes_on_where_it_was(tmp_path: Path, monkeypatch):
    recipe = train_user.UserRecipe(pictures=2, teachers=4, choices=3)
    small = replace(
        recipe,
        tastes=replace(recipe.tastes, people=8),
        encoder_training=replace(recipe.encoder_training, steps=2, people=4, support=2, query=2),
        dpo=replace(recipe.dpo, batch=2, support=2),
        trainer=replace(recipe.trainer, steps=2),
    )
    monkeypatch.setattr(train_user, "UserRecipe", lambda: small)
    monkeypatch.setattr(train_user, "taste_split", lambda: (["cat", "dog", "fox", "lion"], []))
    words = ["--work", str(tmp_path / "work"), "--output", str(tmp_path / "out"), "--threads", "1"]
    threads = torch.get_num_threads()
    try:
        train_user.main([*words, "--updates", "2"])
        first, _ = load_user_adapter(tmp_path / "out" / train_user.ADAPTER)
        train_user.main([*words, "--updates", "2"])
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)
    encoder = load_set_encoder(tmp_path / "out" / train_user.ENCODER)
    adapter, metadata = load_user_adapter(tmp_path / "out" / train_user.ADAPTER)
    again = adapter.tensors()
    assert all(torch.equal(value, again[name]) for name, value in first.tensors().items()), (
        "a finished run is only read"
    )
    assert metadata.encoder_id == encoder.encoder_id and metadata.details["updates"] == 2
    assert adapter.config.tokens == encoder.config.tokens and adapter.config.width == encoder.config.width
    pipeline = DemoPipeline.load(train_user.DEMO / "attune_demo.safetensors")
    ours = renamed(adapter, pipeline.denoiser.module, networks.unet_key_to_host)
    with ours.attached(pipeline.denoiser.module):
        assert any(both[1].abs().max() > 0 for both in ours.weights.values()), "it has learned something"


# ---- blending ----


def test_blending_by_hand():
    a, b, without = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -2.0]), torch.tensor([1.0, 1.0])
    assert blend_tokens([a, b], [0.25, 0.75]).tolist() == [2.5, -1.0]
    assert blend_predictions(without, [a, b], [0.25, 0.75]).tolist() == [2.5, -1.0]
    assert blend_predictions(without, [a, b], [1.0, 0.5]).tolist() == [2.0, 0.5], "the sum of weights is a strength"
    assert torch.equal(blend_predictions(without, [a], [0.0]), without)


@pytest.mark.parametrize(
    ("tokens", "weights"), [([], []), ([torch.ones(2)], [1.0, 2.0]), ([torch.ones(2), torch.ones(3)], [1, 1])]
)
def test_what_does_not_go_together_is_refused(tokens, weights):
    with pytest.raises(TrainingError, match="one encoder"):
        blend_tokens(tokens, weights)
