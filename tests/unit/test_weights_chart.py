"""Charts of weights and fronts: what is drawn is what was given."""

from __future__ import annotations

import math

import pytest
import torch

from attune.nodes.drawing import GOOD, MUTED
from attune.nodes.refinement.checks import RefinementError
from attune.nodes.refinement.weights_chart import BANDS, WIDTH, _labels, _legend_rows, front_chart, weights_chart


def colour(code: str) -> torch.Tensor:
    return torch.tensor([int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def count(image: torch.Tensor, code: str) -> int:
    """Pixels of this colour; shrinking overshoots a little at edges."""
    return int(((image - colour(code)).abs() < 0.06).all(-1).sum())


def heights(image: torch.Tensor, x: int, bands: int) -> list[int]:
    return [count(image[0, :, x : x + 1], BANDS[band]) for band in range(bands)]


def test_shape_and_range():
    image = weights_chart([{"a": 0.5, "b": 0.5}] * 3)
    assert image.dtype == torch.float32 and image.shape[0] == 1 and image.shape[2:] == (WIDTH, 3)
    assert float(image.min()) >= 0 and float(image.max()) <= 1


def test_bands_are_as_high_as_the_weights():
    """Rounds (¾, ¼), (¼, ¾): a quarter of the way from round 1 to 2 the shares are 5/8 and 3/8; in the middle halves.
    The plot is 266 pixels high."""
    image = weights_chart([{"a": 0.75, "b": 0.25}, {"a": 0.25, "b": 0.75}])
    left, right = 78, 926
    for share, expected in ((0.25, (0.625, 0.375)), (0.5, (0.5, 0.5)), (0.75, (0.375, 0.625))):
        found = heights(image, round(left + share * (right - left)), 2)
        assert found == pytest.approx([266 * part for part in expected], abs=4)


def test_weights_are_drawn_as_shares():
    """Sums that drift from round to round still fill the panel."""
    small, large = ({"a": 0.1, "b": 0.3}, {"a": 1.0, "b": 3.0})
    image = weights_chart([small, large])
    assert heights(image, 500, 2) == pytest.approx([266 / 4, 266 * 3 / 4], abs=4)


def test_a_reward_that_joins_later_has_nothing_before():
    image = weights_chart([{"a": 1.0}, {"a": 1.0}, {"a": 0.5, "b": 0.5}])
    assert heights(image, 200, 2)[1] == 0
    assert heights(image, 700, 2)[1] > 30


def test_one_round_none_and_many():
    assert heights(weights_chart([{"a": 0.5, "b": 0.5}]), 200, 2) == pytest.approx([133, 133], abs=4)
    empty = weights_chart([])
    assert sum(count(empty[0], code) for code in BANDS[:5]) == 0
    assert count(weights_chart([{"a": 1.0}] * 100)[0], BANDS[0]) > 100_000
    assert weights_chart([{"a": 0.0}, {"a": 0.0}]).isfinite().all()


def test_legend_breaks_its_rows():
    rows = _legend_rows([f"A reward with a long name, number {n}" for n in range(8)], 900)
    assert [band for row in rows for band, _, _ in row] == list(range(8))
    assert len(rows) > 2 and all(sum(wide for _, _, wide in row) <= 900 for row in rows)


def test_every_picture_has_its_dot():
    """Four pictures: 0 and 1 on the front, 2 behind, 3 not scored; 1 and 2 liked. A dot of radius 10 has 314 pixels, of
    which its number takes some."""
    z = [{"a": 0.0, "b": 2.0}, {"a": 2.0, "b": 0.0}, {"a": -1.0, "b": -1.0}, {"a": math.nan, "b": 0.0}]
    image = front_chart(z, ("a", "b"), chosen=(1, 2))[0]
    plot = image[74:494]
    dots = count(plot, BANDS[0])
    assert 2 * 200 < dots < 2 * 330
    assert count(plot, "#59626f") > 150
    rings = count(plot, GOOD)
    assert rings == pytest.approx(2 * count(front_chart(z, ("a", "b"), chosen=(1,))[0, 74:494], GOOD), abs=20)
    assert count(front_chart(z, ("a", "b"))[0, 74:494], GOOD) == 0
    assert count(image, MUTED) > 300


def test_three_rewards_have_three_panels():
    """One picture is on the front in all of them."""
    z = [{"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 0.0, "b": 0.0, "c": 0.0}]
    image = front_chart(z, ("a", "b", "c"))[0, 74:414]
    for left in (16, 330, 644):
        assert 200 < count(image[:, left : left + 300], BANDS[0]) < 330


def test_a_front_of_nothing():
    assert front_chart([], ("a", "b")).isfinite().all()
    assert count(front_chart([{"a": math.nan}] * 3, ("a", "b"))[0, 74:494], BANDS[0]) == 0
    assert front_chart([{"a": 1.0, "b": 1.0}] * 3, ("a", "b")).isfinite().all()


def test_long_names_lose_their_brackets_together():
    names = ["Diversity (attune_demo_reward)", "Relevance (attune_demo_reward)"]
    assert _labels(names, 400) == names
    assert _labels(names, 100) == ["Diversity", "Relevance"]
    assert _labels(["Fit (one of them)", "Fit (the other)"], 60) == ["Fit (one of them)", "Fit (the other)"]


def test_bad_charts_are_refused():
    for words, run in (
        ("8 rewards, not for 9", lambda: weights_chart([{str(n): 1.0 for n in range(9)}])),
        ("below 0", lambda: weights_chart([{"a": -1.0}])),
        ("two or three rewards, not of 4", lambda: front_chart([], "abcd")),
    ):
        with pytest.raises(RefinementError, match=words):
            run()
