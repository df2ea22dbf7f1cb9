"""Calibration: statistics against closed forms, percentiles, storage, wrappers, the picture."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from attune.nodes.rewards.cache import CachedReward, ScoreStore
from attune.nodes.rewards.calibration import (
    CalibratedReward,
    Calibration,
    calibrations_digest,
    level_as_score,
    load_calibration,
    report,
    require_calibration,
    save_calibration,
)
from attune.nodes.rewards.chart import ACCENT
from attune.nodes.rewards.histogram import _from_quantiles, bins, histogram, ticks
from attune.nodes.rewards.statistics import StatisticReward
from attune.nodes.rewards.wrapping import WrappedReward, calibration_of
from attune.nodes.store import Store
from attune.training.interfaces import Reward, RewardError

SCORES = [float(number) for number in range(101)]


def calibration(scores=SCORES, reward_id: str = "r", name: str = "default") -> Calibration:
    return Calibration.of(reward_id, name, scores)


class Cost(StatisticReward):
    higher_is_better = False


def test_statistics_closed_form():
    """0 … 100: mean 50, sample deviation √(Σ(x − 50)²/100) = √858.5; the quantile at p % is p."""
    found = calibration()
    assert (found.count, found.mean) == (101, 50)
    assert found.deviation == pytest.approx(math.sqrt(858.5))
    assert found.quantiles == pytest.approx(SCORES)
    assert found.z(50 + 2 * found.deviation) == pytest.approx(2)
    assert [found.percentile(score) for score in (-1, 0, 25.5, 99.5, 100, 101)] == [0, 0, 25.5, 99.5, 100, 100]
    assert [found.score_at(part) for part in (-5, 0, 12.5, 100, 200)] == [0, 0, 12.5, 100, 100]


def test_order_of_the_scores_does_not_matter():
    shuffled = random.Random(1).sample(SCORES, len(SCORES))
    assert calibration(shuffled).quantiles == calibration().quantiles


def test_quantiles_equal_numpy_on_any_number_of_scores():
    for count in (8, 37, 250):
        scores = np.random.default_rng(count).normal(size=count)
        assert calibration(scores.tolist()).quantiles == pytest.approx(np.quantile(scores, np.linspace(0, 1, 101)))


def test_percentile_is_the_share_below_and_rises():
    scores = np.random.default_rng(0).gamma(2.0, size=5000)
    found = calibration(scores.tolist())
    for score in np.linspace(-1, 12, 50):
        assert found.percentile(float(score)) == pytest.approx(100 * (scores < score).mean(), abs=1)
    line = [found.percentile(float(score)) for score in np.linspace(-1, 20, 300)]
    assert line == sorted(line)


def test_equal_scores_count_half():
    """Half of the reference scores 0, half 1: 0 beats half of the lower half, and everything between beats it whole."""
    found = calibration([0.0] * 50 + [1.0] * 50)
    assert found.percentile(0.0) == pytest.approx(25, abs=1)
    assert found.percentile(0.5) == pytest.approx(50, abs=1)
    assert found.percentile(1.0) == pytest.approx(75, abs=1)


def test_tensors_keep_shape_type_and_graph():
    found = calibration()
    scores = torch.tensor([[10.0, 60.0]], dtype=torch.float64, requires_grad=True)
    z = found.z(scores)
    assert z.dtype is torch.float64 and z.shape == (1, 2)
    (slope,) = torch.autograd.grad(z.sum(), scores)
    torch.testing.assert_close(slope, torch.full_like(scores, 1 / found.deviation))
    percentiles = found.percentile(scores)
    assert percentiles.tolist() == [[10, 60]] and not percentiles.requires_grad


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        ([1.0, 2.0] * 3, "6 images are too few to calibrate with: at least 8"),
        ([0.25] * 9, "All 9 images have the score 0.250"),
        ([0.25 + 1e-9 * n for n in range(9)], "All 9 images"),
        ([], "0 images"),
        ([1.0], "^1 image is too few"),
        ([float(n) for n in range(9)] + [float("nan")], r"image 9 \(the first is 0\) is nan, which is not finite"),
        ([float("-inf")] * 2, "is -inf, which is not finite"),
    ],
)
def test_what_cannot_be_calibrated_with_is_refused(scores, says):
    with pytest.raises(RewardError, match=says):
        calibration(scores)


def test_a_calibration_that_was_tampered_with_is_refused():
    for changes in ({"deviation": 0.0}, {"quantiles": (1.0,)}, {"quantiles": tuple(reversed(SCORES))}):
        with pytest.raises(RewardError, match="'default' is damaged"):
            Calibration(**(calibration().__dict__ | changes))


def test_few_images_are_said_to_be_few():
    reward = StatisticReward()
    assert "Few images" in report(calibration(SCORES[:29]), reward, stored_now=True)
    text = report(calibration(SCORES[:30]), reward, stored_now=False)
    assert "Few images" not in text
    assert "(loaded)" in text
    assert "mean 14.5" in text


# ---- the reward ----


def test_a_calibrated_reward_scores_as_before_and_keeps_its_calibration_through_wrappers():
    plain = StatisticReward("contrast")
    images = torch.rand(3, 6, 6, 3)
    found = calibration(reward_id=plain.reward_id)
    reward = CalibratedReward(CachedReward(plain, ScoreStore()), found)
    assert isinstance(reward, Reward)
    assert torch.equal(reward(images, [""] * 3), plain(images, [""] * 3))
    assert reward.reward_id == plain.reward_id and reward.name == plain.name
    outer = WrappedReward(CachedReward(WrappedReward(reward), ScoreStore()))
    assert calibration_of(outer) is found
    assert require_calibration(outer, "it") is found
    again = CalibratedReward(reward, calibration(reward_id=plain.reward_id, name="other"))
    assert again.calibration.name == "other" and not isinstance(again.reward, CalibratedReward)


def test_a_calibration_of_another_reward_is_refused():
    with pytest.raises(RewardError, match="another reward"):
        CalibratedReward(StatisticReward(), calibration(reward_id="other"))

    class Shifted(WrappedReward):
        reward_id = "shifted"

    inner = CalibratedReward(StatisticReward(), calibration(reward_id=StatisticReward().reward_id))
    with pytest.raises(RewardError, match="Put Calibrate Reward behind it"):
        require_calibration(Shifted(inner), "it")
    with pytest.raises(RewardError, match=r"Contrast.*no calibration, which it needs. Put Calibrate Reward between"):
        require_calibration(StatisticReward("contrast"), "it")


def test_levels_as_scores():
    for kind, sign in ((StatisticReward, 1), (Cost, -1)):
        reward = CalibratedReward(kind(), calibration(reward_id=kind().reward_id))
        deviation = reward.calibration.deviation
        assert level_as_score(1.5, "standard deviations", reward) == pytest.approx(50 + sign * 1.5 * deviation)
        assert level_as_score(80, "percentile", reward) == pytest.approx(50 + sign * 30)
        assert level_as_score(0.3, "raw score", reward) == 0.3
        with pytest.raises(RewardError, match="between 0 and 100, not at 101"):
            level_as_score(101, "percentile", reward)
    with pytest.raises(RewardError, match=r"no unit 'stars'.*percentile"):
        level_as_score(1, "stars", reward)


# ---- in the store ----


def test_stored_exactly_and_by_name(tmp_path: Path):
    reward = StatisticReward("warmth")
    values = np.random.default_rng(3).normal(size=40).tolist()
    found = calibration(values, reward.reward_id, "portraits")
    save_calibration(Store(tmp_path / "a.sqlite3"), found, reward_name=reward.name)
    assert load_calibration(Store(tmp_path / "a.sqlite3"), reward, "portraits") == found


def test_a_name_that_is_not_stored_lists_those_that_are(tmp_path: Path):
    store, reward = Store(tmp_path / "a.sqlite3"), StatisticReward("warmth")
    with pytest.raises(RewardError, match=r"no stored calibration named 'x'. Connect at least 8 images"):
        load_calibration(store, reward, "x")
    for name in ("landscapes", "portraits"):
        save_calibration(store, calibration(reward_id=reward.reward_id, name=name), reward_name=reward.name)
    save_calibration(store, calibration(reward_id="other", name="x"), reward_name="Other")
    with pytest.raises(RewardError, match=r"Stored for this reward: 'landscapes', 'portraits'. Choose one"):
        load_calibration(store, reward, "x")


@pytest.mark.parametrize(
    ("column", "content"),
    [
        ("quantiles", "[1.0, 2."), ("quantiles", "7"), ("quantiles", json.dumps([None] * 101)), ("quantiles", "[1, 2]"),
        ("quantiles", b"\xff\xfe"), ("mean", "much"), ("deviation", float("inf")), ("count", "many"),
    ],
)  # fmt: skip
def test_a_damaged_row_asks_to_calibrate_again(tmp_path: Path, column: str, content: object):
    store, reward = Store(tmp_path / "a.sqlite3"), StatisticReward("warmth")
    save_calibration(store, calibration(reward_id=reward.reward_id), reward_name=reward.name)
    with store.writing() as connection:
        connection.execute(f"UPDATE calibrations SET {column} = ?", (content,))
    with pytest.raises(RewardError, match=r"calibration 'default'.* is damaged.*Calibrate the reward again"):
        load_calibration(store, reward, "default")


def test_the_digest_changes_with_the_figures_only(tmp_path: Path):
    store = Store(tmp_path / "a.sqlite3")
    seen = [calibrations_digest(store, "default")]
    save_calibration(store, calibration(), reward_name="R")
    seen.append(calibrations_digest(store, "default"))
    save_calibration(store, calibration(name="other"), reward_name="R")
    save_calibration(store, calibration(), reward_name="R")
    assert calibrations_digest(store, "default") == seen[1] != seen[0]
    save_calibration(store, calibration(SCORES[:50]), reward_name="R")
    assert calibrations_digest(store, "default") not in seen


# ---- the picture ----


def test_bars_hold_every_score():
    scores = np.random.default_rng(1).normal(size=300).tolist()
    found = calibration(scores)
    low, high, bars = bins(found, scores)
    assert (low, high) == (min(scores), max(scores))
    assert sum(height for *_, height in bars) == 300
    _, _, guessed = bins(found, None)
    assert sum(height for *_, height in guessed) == pytest.approx(300)
    for (*_, height), (*_, guess) in zip(bars, guessed, strict=True):
        assert guess == pytest.approx(height, abs=6)


def test_equal_quantiles_lie_in_their_bar():
    quantiles = np.array([0.0] * 51 + [1.0] * 50)
    shares = _from_quantiles(quantiles, np.linspace(0, 1, 5))
    assert shares == pytest.approx([0.5 + 0.0025, 0.0025, 0.0025, 0.49 + 0.0025])


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.18, 0.36, ["0.20", "0.25", "0.30", "0.35"]),
        (-52.0, -11, ["-50", "-40", "-30", "-20"]),
        (-0.3, 1.2, ["-0.25", "0.00", "0.25", "0.50", "0.75", "1.00"]),
        (0, 12000, ["0", "2000", "4000", "6000", "8000", "10000", "12000"]),
    ],
)
def test_ticks_are_round_numbers(low, high, texts):
    numbers, written = ticks(low, high)
    assert written == texts
    assert numbers == pytest.approx([float(text) for text in texts])


def test_the_mean_stands_where_it_belongs():
    """In a symmetric reference the line of the mean is in the middle of the plot, which the frame centres."""
    drawn = histogram(calibration(), "Reward", SCORES)
    assert drawn.shape[0] == 1 and drawn.dtype is torch.float32 and 0 <= drawn.min() < drawn.max() <= 1
    pixels = (drawn[0].numpy() * 255).round()
    columns = ((np.abs(pixels - np.array(ACCENT)).max(-1) < 8).sum(0)).argsort()[-2:]
    assert columns.mean() == pytest.approx(pixels.shape[1] / 2, abs=1.5)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_any_reference_can_be_drawn(scale):
    rng = np.random.default_rng(0)
    for scores in (rng.normal(size=8), rng.standard_cauchy(200), [0.0] * 100 + [1.0], rng.integers(0, 2, 50)):
        values = [float(score) * scale for score in scores]
        found = calibration(values, name="人像 with a very long name " * 4)
        for given in (values, None):
            assert histogram(found, "A reward with a long name " * 5, given, higher_is_better=False).std() > 0.02
