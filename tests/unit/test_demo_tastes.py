"""The taste that comes with the pack: made as its script says, and a taste for warm pictures."""

from __future__ import annotations

import torch

from attune.nodes.preferences.profile_file import read_file
from attune.tests.demo_tastes import DEMO, ENCODER, FILE, TITLE, taste_of, warm_light
from attune.training.preference.set_encoder import load_set_encoder


def test_the_shipped_taste_is_the_scripts_and_of_the_shipped_encoder():
    shared, made = read_file(DEMO / FILE), warm_light()
    ((shipped,), (again,)) = shared.embeddings, made.embeddings
    assert (shared.title, shared.prompts, shipped.choices) == (TITLE, (), 8)
    assert shipped.encoder_id == load_set_encoder(DEMO / ENCODER).encoder_id
    assert torch.allclose(shipped.tokens, again.tokens, atol=1e-4) and shipped.tokens.std() > 0


def test_it_is_nearer_to_who_likes_other_warm_pictures_than_to_who_likes_cold_ones():
    (shipped,) = read_file(DEMO / FILE).embeddings
    encoder = load_set_encoder(DEMO / ENCODER)
    warm, cold = (taste_of(encoder, *places) for places in ((-2, 1), (1, -2)))
    near, far = ((shipped.tokens - other).norm() for other in (warm, cold))
    assert near < 0.7 * far, f"{near:.3f} and {far:.3f}"
