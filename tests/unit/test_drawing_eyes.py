"""What a picture shows, by the nearest real drawing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from attune.training.demo import data, quality
from attune.training.demo.drawing_eyes import PLACES, DrawingEyes


@pytest.fixture(scope="module")
def library() -> data.Library:
    """Four concepts in every style, as patterns of their own: no download, the real class."""
    rng = np.random.default_rng(1)
    count = 4 * len(data.STYLES)
    coarse = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    rgba = np.full((count, data.RENDER_SIZE, data.RENDER_SIZE, 4), 255, np.uint8)
    rgba[..., :3] = coarse.repeat(data.RENDER_SIZE // 8, 1).repeat(data.RENDER_SIZE // 8, 2)
    return data.Library(rgba, np.arange(count) // len(data.STYLES), np.arange(count) % len(data.STYLES))


@pytest.fixture(scope="module")
def eyes(library) -> DrawingEyes:
    return DrawingEyes(library)


def wishes(library: data.Library) -> list[data.Attributes]:
    """Every drawing once, over three backgrounds and all places."""
    backgrounds = ("blue", "white", "pink")
    return [
        data.Attributes(*pair, backgrounds[place % 3], *PLACES[place % len(PLACES)])
        for place, pair in enumerate(library.pairs())
    ]


def test_what_was_drawn_is_seen(library, eyes):
    drawn = np.stack([data.compose(library, wish, np.random.default_rng(0)) for wish in wishes(library)])
    assert eyes.see(torch.from_numpy(drawn).float() / 255) == wishes(library)


def test_shifted_and_blurred_drawings_are_seen_as_what_they_are(library, eyes):
    seen = eyes.see(quality.softened(library, wishes(library), seed=2))
    right = [found == wish for found, wish in zip(seen, wishes(library), strict=True)]
    assert np.mean(right) > 0.9


def test_a_mirrored_drawing_is_the_same_drawing(library, eyes):
    # A small drawing at one side would be one at the other side.
    large = [wish for wish in wishes(library) if wish.position not in ("left", "right")]
    drawn = np.stack([data.compose(library, wish, np.random.default_rng(0)) for wish in large])
    assert eyes.see(torch.from_numpy(drawn).float().flip(2) / 255) == large


def test_an_empty_batch_shows_nothing(eyes):
    assert eyes.see(torch.zeros(0, data.IMAGE_SIZE, data.IMAGE_SIZE, 3)) == []


def test_the_real_drawings_are_told_apart_where_they_have_been_built(request):
    """The claim in the module, on the real data set; it is built by command, not by the tests."""
    cache = Path(request.config.rootpath) / ".cache" / "demo"
    if not (cache / "library.npz").exists():
        pytest.skip("the data set has not been built here: python run.py evidence refine-intent")
    library = data.build_library(cache)
    rng = np.random.default_rng(3)
    pairs = [library.pairs()[place] for place in rng.choice(len(library.pairs()), 64, replace=False)]
    meant = [data.Attributes(*pair, "green") for pair in pairs]
    seen = DrawingEyes(library).see(quality.softened(library, meant, seed=3))
    assert np.mean([found.concept == wish.concept for found, wish in zip(seen, meant, strict=True)]) > 0.97
    assert np.mean([found.style == wish.style for found, wish in zip(seen, meant, strict=True)]) > 0.93
