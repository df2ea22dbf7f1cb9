"""The pictures of the one-step nodes' help: what they claim is true of those that are committed, and not of others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from attune.tests import one_step_pictures as made


def tiles(page: str, left: int, top: int, rows: int, columns: int, side: int) -> made.Drawn:
    """Pictures cut out of a help page's picture."""
    with Image.open(made.FOLDER / f"{page}.jpg") as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
    step = side + made.GAP
    places = [(top + row * step, left + column * step) for row in range(rows) for column in range(columns)]
    return made.Drawn(np.stack([pixels[y : y + side, x : x + side] for y, x in places]))


@pytest.fixture(scope="module")
def steps() -> tuple[made.Drawn, made.Drawn]:
    """In one step and in twenty."""
    second = 2 * made.EDGE + made.extent(made.COLUMNS)
    shape = (len(made.PROMPTS), made.COLUMNS, made.SIDE)
    return tuple(tiles("AttuneOneStepSampler", left, made.TITLE, *shape) for left in (made.EDGE, second))


@pytest.fixture(scope="module")
def settings() -> dict[str, made.Drawn]:
    columns = len(made.SHOWN)
    lefts, height = (made.EDGE, 2 * made.EDGE + made.extent(columns, made.LARGE)), made.TITLE + made.LARGE + made.EDGE
    return {
        f"{top} {left}": tiles("AttuneOneStepPreset", left, top + made.TITLE, 1, columns, made.LARGE)
        for top in (0, height)
        for left in lefts
    }


def test_one_step_is_as_good_as_twenty_and_far_quicker(steps):
    one, many = replace(steps[0], seconds=1.0), replace(steps[1], seconds=6.0)
    assert many.score(made.PROMPTS) > 0.5, "the right places were cut out"
    assert made.as_good_and_far_quicker(one, many)
    assert not made.as_good_and_far_quicker(replace(one, seconds=2.0), many), "too slow"
    assert not made.as_good_and_far_quicker(replace(one, pictures=one.pictures[::-1].copy()), many), "of other prompts"


def test_what_is_called_right_is_the_best(settings):
    assert made.the_first_is_best(settings)
    assert not made.the_first_is_best(dict(reversed(settings.items())))


def test_pictures_lie_where_they_are_looked_for():
    """One colour per picture."""
    generator = np.random.default_rng(0)

    def plain(count: int) -> made.Drawn:
        colours = generator.random((count, 1, 1, 3), dtype=np.float32)
        return made.Drawn(np.broadcast_to(colours, (count, 64, 64, 3)), seconds=12.3)

    one, many = plain(16), plain(16)
    drawn = np.asarray(made.beside(one, many), dtype=np.float32) / 255
    middle = made.SIDE // 2
    for left, source in ((made.EDGE, one), (2 * made.EDGE + made.extent(4), many)):
        for index, picture in enumerate(source.pictures):
            y, x = (part * (made.SIDE + made.GAP) + middle for part in divmod(index, 4))
            np.testing.assert_allclose(drawn[made.TITLE + y, left + x], picture[0, 0], atol=0.01)
    parts = {f"part {index}": plain(3) for index in range(4)}
    drawn = np.asarray(made.right_and_wrong(parts), dtype=np.float32) / 255
    last = drawn[-made.EDGE - made.LARGE // 2, -made.EDGE - made.LARGE // 2]
    np.testing.assert_allclose(last, parts["part 3"].pictures[2, 0, 0], atol=0.01)


def test_seconds_are_as_exact_as_they_are_worth():
    assert [made.seconds_text(value) for value in (0.42, 9.94, 12.3)] == ["0.4 s", "9.9 s", "12 s"]
