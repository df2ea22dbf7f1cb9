"""What a picture shows, by the nearest real drawing."""

from __future__ import annotations

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
