"""The demo data: pictures are what their attributes say, captions hold no more than they may, measures measure."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from attune.training.demo import data, networks, quality
from attune.training.demo.stages import Pictures
from attune.training.demo.train_model import PATCH, PatchLatents


@pytest.fixture(scope="module")
def library() -> data.Library:
    """Four concepts in every style, as blobs of their own colours: no download, the real class."""
    rng = np.random.default_rng(0)
    count = 4 * len(data.STYLES)
    coarse = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    rgba = np.full((count, data.RENDER_SIZE, data.RENDER_SIZE, 4), 255, np.uint8)
    rgba[..., :3] = coarse.repeat(data.RENDER_SIZE // 8, 1).repeat(data.RENDER_SIZE // 8, 2)
    return data.Library(rgba, np.arange(count) // len(data.STYLES), np.arange(count) % len(data.STYLES))


def wishes(library: data.Library, background: str = "blue") -> list[data.Attributes]:
    return [data.Attributes(*pair, background) for pair in library.pairs()]


def compose(library: data.Library, wish: data.Attributes, seed: int = 0, **variation: float) -> np.ndarray:
    return data.compose(library, wish, np.random.default_rng(seed), **({"colour_jitter": 0.0} | variation))


def test_a_large_picture_is_the_drawing_on_its_background(library):
    picture = compose(library, wishes(library)[0])
    margin = (data.IMAGE_SIZE - data.SIDES["large"]) // 2
    edge = np.concatenate([picture[:margin].reshape(-1, 3), picture[:, -margin:].reshape(-1, 3)])
    assert (edge == data.BACKGROUNDS["blue"]).all()
    assert (picture[margin:-margin, margin:-margin] != data.BACKGROUNDS["blue"]).any(2).mean() > 0.95


def test_moving_a_small_drawing_moves_its_latents_and_nothing_else(library):
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((3 * PATCH * PATCH, networks.LATENT_CHANNELS)))[0]
    latents = PatchLatents(torch.rand(3 * PATCH * PATCH), torch.tensor(basis, dtype=torch.float32), 1.0)

    def encoded(position: str) -> torch.Tensor:
        wish = data.Attributes(*library.pairs()[3], "red", "small", position)
        picture = torch.from_numpy(compose(library, wish).copy()).movedim(-1, 0)[None].float() / 255
        return latents.encode(picture)[0]  # (C, 8, 8)

    middle = encoded("center")
    for position, (x, y) in data.POSITIONS.items():
        moved = middle.roll((int(2 * y), int(2 * x)), (1, 2))
        torch.testing.assert_close(encoded(position), moved, msg=position)


def test_exact_placement_repeats_and_jitter_does_not(library):
    wish = wishes(library)[5]
    assert (compose(library, wish, 1) == compose(library, wish, 2)).all()
    for variation in ({"placement_jitter": 1.0}, {"colour_jitter": 10.0}):
        assert (compose(library, wish, 1, **variation) != compose(library, wish, 2, **variation)).any()
    turned = [compose(library, wish, seed, mirror=True) for seed in range(12)]
    plain = compose(library, wish)
    assert all((t == plain).all() or (t == plain[:, ::-1]).all() for t in turned)
    assert len({t.tobytes() for t in turned}) == 2


def test_an_unknown_pair_is_refused(library):
    alone = dataclasses.replace(library, rgba=library.rgba[:1], concept=library.concept[:1], style=library.style[:1])
    with pytest.raises(data.DemoDataError, match="no drawing of"):
        compose(alone, data.Attributes(data.CONCEPT_NAMES[0], data.STYLES[1], "red"))


def test_pictures_hold_only_what_is_kept(library):
    kept = library.pairs()[2]
    images, attributes = Pictures(library, lambda *pair: pair == kept).draw(40, np.random.default_rng(0))
    assert images.shape == (40, 3, 64, 64) and images.min() >= 0 and images.max() <= 1
    assert {(a.concept, a.style) for a in attributes} == {kept}
    assert len({a.background for a in attributes}) > 5
    assert 0.5 < np.mean([a.size == "large" for a in attributes]) < 0.95


def test_captions_name_attributes_and_training_never_sees_the_held_out_phrasing():
    wish = data.Attributes("owl", "3d", "orange", "small", "left")
    rng = np.random.default_rng(0)
    whole = {data.caption(wish, rng, drop=0.0) for _ in range(60)}
    assert len(whole) == 4
    for text in whole:
        assert all(word in text for word in ("small owl", "3d style", "orange background", "on the left"))
    bare = {data.caption(data.Attributes("owl", "3d", "orange"), rng, drop=1.0) for _ in range(20)}
    assert bare == {"an owl"}
    assert data.caption(wish, rng, drop=0.0, held_out=True).startswith("picture of")
    assert not any(text.startswith("picture of") for text in whole)


def test_the_vocabulary_covers_every_caption():
    rng = np.random.default_rng(0)
    known = set(networks.used_tokens(data.vocabulary()).tolist())
    for _ in range(300):
        pair = rng.choice(data.CONCEPT_NAMES), rng.choice(data.STYLES)
        text = data.caption(data.draw_attributes(rng, *map(str, pair)), rng)
        assert set(networks.used_tokens([text]).tolist()) <= known, text


def test_the_nearest_drawing_is_the_drawing_itself_and_not_another(library):
    shown = wishes(library, "green")
    pictures = quality.softened(library, shown, 0)
    assert quality.matches(library, pictures, shown) == {"concept": 1.0, "style": 1.0}
    assert quality.background_of(pictures) == ["green"] * len(shown)
    # The same pictures, but other styles were wished for.
    other = [dataclasses.replace(w, style=data.STYLES[data.STYLES.index(w.style) - 1]) for w in shown]
    assert quality.matches(library, pictures, other) == {"concept": 1.0, "style": 0.0}


def test_held_out_pairs_are_few_and_stay_the_same():
    share = np.mean([data.is_held_out(c, s) for c in data.CONCEPT_NAMES for s in data.STYLES])
    assert 0.03 < share < 0.09
    assert data.in_split("generalisation", "owl", "3d", 1.0) and not data.in_split("generalisation", "owl", "3d", 0.0)
