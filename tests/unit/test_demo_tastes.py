"""The tastes that come with the pack: made as their script says, and what they are called."""

from __future__ import annotations

import pytest
import torch

from attune.nodes.preferences.profile_file import read_file
from attune.tests.demo_tastes import DARK, DEMO, ENCODER, LIKINGS, WARM, Liking, taste, taste_of
from attune.training.preference.set_encoder import load_set_encoder


@pytest.mark.parametrize("liking", LIKINGS, ids=lambda liking: liking.title)
def test_a_shipped_taste_is_the_scripts_and_of_the_shipped_encoder(liking: Liking):
    shared, made = read_file(DEMO / liking.file), taste(liking)
    ((shipped,), (again,)) = shared.embeddings, made.embeddings
    assert (shared.title, shared.prompts, shipped.choices) == (liking.title, (), 8)
    assert shipped.encoder_id == load_set_encoder(DEMO / ENCODER).encoder_id
    assert torch.allclose(shipped.tokens, again.tokens, atol=1e-4) and shipped.tokens.std() > 0


@pytest.mark.parametrize("liking", LIKINGS, ids=lambda liking: liking.title)
def test_it_is_nearer_to_who_likes_other_such_pictures_than_to_who_likes_the_opposite(liking: Liking):
    (shipped,) = read_file(DEMO / liking.file).embeddings
    encoder = load_set_encoder(DEMO / ENCODER)
    alike, opposite = (taste_of(encoder, liking, *places) for places in ((-2, 1), (1, -2)))
    near, far = ((shipped.tokens - other).norm() for other in (alike, opposite))
    assert near < 0.7 * far, f"{near:.3f} and {far:.3f}"


def test_the_two_differ():
    first, second = (read_file(DEMO / liking.file).embeddings[0].tokens for liking in (WARM, DARK))
    assert (first - second).norm() > 0.5 * first.norm()
