"""Keeping the best: order, thresholds, the non-dominated set against brute force, and what belongs to a picture."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch

from attune.nodes.latent_lists import split_latents
from attune.nodes.rewards.calibration import CalibratedReward, Calibration
from attune.nodes.rewards.carrying import (
    aligned,
    earlier_rounds,
    fits_one_batch,
    join_latents,
    latents_fit,
    split_masks,
)
from attune.nodes.rewards.keep_best import KeepConfig, best_first, choose, non_dominated, report
from attune.training.interfaces import AttuneError, RewardError

GOOD = SimpleNamespace(name="Good", reward_id="good", higher_is_better=True)
FINE = SimpleNamespace(name="Fine", reward_id="fine", higher_is_better=True)
COST = SimpleNamespace(name="Cost", reward_id="cost", higher_is_better=False)


def calibrated(reward):
    return CalibratedReward(reward, Calibration.of(reward.reward_id, "default", [float(n) for n in range(101)]))


def test_best_first_is_stable():
    assert best_first([1.0, 3.0, 2.0, 3.0, 1.0]) == [1, 3, 2, 0, 4]
    assert best_first([0.5] * 6) == list(range(6))


def test_best_k():
    scores = [[0.1, 0.9, 0.5, 0.9]]
    assert choose(scores, [GOOD], KeepConfig(k=2)) == [1, 3]
    assert choose(scores, [COST], KeepConfig(k=2)) == [0, 2]
    assert choose(scores, [GOOD], KeepConfig(k=99)) == [1, 3, 2, 0]


def test_other_rewards_do_not_decide_about_the_best_k():
    assert choose([[1.0, 2.0], [9.0, 0.0]], [GOOD, FINE], KeepConfig(k=1)) == [1]


@pytest.mark.parametrize(
    ("reward", "threshold", "unit", "kept"),
    [
        (GOOD, 60.0, "raw score", [3, 1, 2]),
        (COST, 60.0, "raw score", [0, 2]),
        (calibrated(GOOD), 0.5, "standard deviations", [3, 1]),
        (calibrated(COST), 0.5, "standard deviations", [0]),
        (calibrated(GOOD), 61.0, "percentile", [3, 1]),
        (calibrated(COST), 40.0, "percentile", [0, 2]),
    ],
)
def test_thresholds_in_every_unit(reward, threshold, unit, kept):
    """0 … 100 has the mean 50 and the deviation 29.3; percentiles are the scores themselves. At the threshold stays."""
    scores = [[10.0, 80.0, 60.0, 99.0]]
    assert choose(scores, [reward], KeepConfig("threshold", threshold=threshold, threshold_unit=unit)) == kept


def test_a_score_at_the_threshold_stays_though_scores_have_32_bits():
    at = [torch.tensor([0.7, 0.3], dtype=torch.float32).tolist()]
    assert choose(at, [GOOD], KeepConfig("threshold", threshold=0.7)) == [0]
    assert choose(at, [COST], KeepConfig("threshold", threshold=0.3)) == [1]
    with pytest.raises(RewardError, match=r"^The image does not reach the threshold by Good"):
        choose([at[0][:1]], [GOOD], KeepConfig("threshold", threshold=0.7001))


def test_a_threshold_that_nothing_reaches_names_the_best_score():
    config = KeepConfig("threshold", threshold=0.9)
    with pytest.raises(RewardError, match=r"None of the 3 images .* by Good: at least 0\.9\. The best one has 0\.8123"):
        choose([[0.1, 0.81234, 0.3]], [GOOD], config)
    with pytest.raises(RewardError, match=r"by Cost: at most 0\.9\. The best one has 1\.100"):
        choose([[1.1, 2.0]], [COST], config)
    with pytest.raises(RewardError, match=r"99 % of the reference \(a score of 99\.0\).*90\.00 \(1\.37 deviations"):
        choose([[20.0, 90.0]], [calibrated(GOOD)], KeepConfig("threshold", threshold=99, threshold_unit="percentile"))


def test_units_of_the_reference_need_a_calibration():
    config = KeepConfig("threshold", threshold=80, threshold_unit="percentile")
    with pytest.raises(RewardError, match=r"Good has no calibration.*Put Calibrate Reward between"):
        choose([[1.0]], [GOOD], config)


@pytest.mark.parametrize(
    ("config", "says"),
    [({"mode": "best"}, "no mode 'best'"), ({"threshold_unit": "%"}, "no threshold_unit '%'"), ({"k": 0}, "not 0")],
)
def test_bad_settings_are_refused(config, says):
    with pytest.raises(RewardError, match=says):
        KeepConfig(**config)


# ---- the non-dominated set ----


def beats(one, two) -> bool:
    return all(a >= b for a, b in zip(one, two, strict=True)) and any(a > b for a, b in zip(one, two, strict=True))


def test_the_non_dominated_set_equals_brute_force():
    """On random points, half of them on a coarse grid so that ties and equal points occur."""
    source = random.Random(7)
    for trial in range(200):
        coordinates, count = source.choice([2, 3]), source.randint(1, 25)
        draw = (lambda: float(source.randint(0, 3))) if trial % 2 else source.random
        points = [[draw() for _ in range(coordinates)] for _ in range(count)]
        kept = non_dominated(points)
        assert kept == [i for i in range(count) if not any(beats(other, points[i]) for other in points)]
        for index in set(range(count)) - set(kept):
            assert any(beats(points[better], points[index]) for better in kept), "whatever goes is beaten by what stays"


def test_the_non_dominated_set_does_not_depend_on_order_or_scale():
    source = random.Random(3)
    points = [[source.random(), source.random()] for _ in range(40)]
    kept = {tuple(points[index]) for index in non_dominated(points)}
    shuffled = source.sample(points, 40)
    assert {tuple(shuffled[index]) for index in non_dominated(shuffled)} == kept
    scaled = [[a**3, 5 * b - 2] for a, b in points]
    assert [tuple(points[index]) for index in non_dominated(scaled)] == [p for p in map(tuple, points) if p in kept]


def test_non_dominated_keeps_ties_and_turns_costs():
    scores = [[3.0, 3.0, 2.0, 1.0, 0.5], [1.0, 1.0, 2.0, 0.0, 3.0]]
    assert choose(scores, [GOOD, FINE], KeepConfig("non-dominated")) == [0, 1, 2, 4]
    assert choose(scores, [GOOD, COST], KeepConfig("non-dominated")) == [0, 1, 3]
    with pytest.raises(RewardError, match=r"only one reward is connected. Connect reward_2"):
        choose(scores[:1], [GOOD], KeepConfig("non-dominated"))


def test_report_says_what_and_why():
    scores = [[0.1, 0.9, 0.5], [3.0, 2.0, 1.0]]
    text = report([1, 2], scores, [GOOD, FINE], ["a", "b | c", "d"], KeepConfig(k=2)).splitlines()
    assert text[0] == "**Kept 2 of 3**: the best 2 by Good"
    assert text[2] == "| rank | image | Good | Fine | prompt |"
    assert text[4] == "| 1 | 1 | 0.900 | 2.00 | b \\| c |"
    assert "only 3 images" in report([1, 2, 0], scores, [GOOD, FINE], [""] * 3, KeepConfig(k=7))
    assert "There is only 1 image, fewer than the 2" in report([0], [[0.1]], [GOOD], [""], KeepConfig(k=2))
    config = KeepConfig("threshold", threshold=50, threshold_unit="percentile")
    assert "Good: 50 % of the reference (a score of 50.0)" in report(
        [1], [[1, 60]], [calibrated(GOOD)], ["", ""], config
    )
    assert "without being worse" in report([1], scores, [GOOD, FINE], [""] * 3, KeepConfig("non-dominated"))


# ---- what belongs to a picture ----


def test_counts_must_match():
    assert aligned([1, 2, 3], 3, "seeds") == [1, 2, 3]
    assert aligned([7], 3, "seeds") == [7, 7, 7]
    with pytest.raises(
        RewardError, match=r"There are 2 seeds for 3 images. Connect one for all images or one per image"
    ):
        aligned([1, 2], 3, "seeds")
    with pytest.raises(RewardError, match=r"There are 1 latents for 3 images. Connect one per image"):
        aligned([1], 3, "latents", shared=False)


def test_every_earlier_picture_is_a_round_of_its_own():
    context = earlier_rounds([torch.zeros(2, 4, 4, 3), torch.ones(1, 6, 2, 3)])
    assert [tuple(chosen.shape) for chosen in context.previous] == [(1, 4, 4, 3), (1, 4, 4, 3), (1, 6, 2, 3)]
    assert context.previous[2].min() == 1
    assert earlier_rounds(None) is None and earlier_rounds([]) is None


def test_latents_come_apart_and_together_with_masks_and_numbers():
    samples = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 4, 2, 3)
    masks = torch.arange(2.0).reshape(2, 1, 1).expand(2, 16, 24)
    singles = split_latents([{"samples": samples, "noise_mask": masks, "type": "audio"}])
    assert [single["batch_index"] for single in singles] == [[0], [1], [2], [3]]
    assert [single["noise_mask"].mean().item() for single in singles] == [0, 1, 0, 1], "the host repeats short masks"
    joined = join_latents([singles[2], singles[1]])
    assert joined["samples"][:, 0, 0, 0].tolist() == [2, 1]
    assert joined["noise_mask"].mean((1, 2)).tolist() == [0, 1]
    assert joined["batch_index"] == [2, 1] and joined["type"] == "audio"


def test_a_single_mask_is_for_all_samples_and_an_empty_one_is_refused():
    mask = torch.rand(16, 24)
    singles = split_latents([{"samples": torch.zeros(2, 4, 2, 3), "noise_mask": mask}])
    assert all(torch.equal(single["noise_mask"], mask[None]) for single in singles)
    with pytest.raises(AttuneError, match=r"'noise_mask' of the shape \[0, 16, 24\] is empty"):
        split_latents([{"samples": torch.zeros(2, 4, 2, 3), "noise_mask": torch.zeros(0, 16, 24)}])


def test_numbers_that_a_latent_has_are_kept():
    latents = [{"samples": torch.zeros(2, 4, 2, 2), "batch_index": [5, 3]}, {"samples": torch.zeros(1, 4, 2, 2)}]
    singles = split_latents(latents)
    assert join_latents(singles)["batch_index"] == [5, 3, 0]
    assert "noise_mask" not in join_latents(singles)
    with pytest.raises(AttuneError, match="2 samples but numbers 3"):
        split_latents([{"samples": torch.zeros(2, 4, 2, 2), "batch_index": [1, 2, 3]}])
    with pytest.raises(AttuneError, match="Connect a LATENT output"):
        split_latents([{"pixels": 1}])


@pytest.mark.parametrize(
    ("numbers", "kept"),
    [
        (torch.tensor([5, 3]), [5, 3]),
        (torch.tensor([[5], [3]]), [5, 3]),
        ((5, 3), [5, 3]),
        (None, [0, 1]),
        ([], [0, 1]),
    ],
)
def test_numbers_may_be_a_tensor_or_missing(numbers, kept):
    singles = split_latents([{"samples": torch.zeros(2, 4, 2, 2), "batch_index": numbers}])
    assert [single["batch_index"] for single in singles] == [[number] for number in kept]
    assert all(type(single["batch_index"][0]) is int for single in singles)
    with pytest.raises(AttuneError, match="2 samples but numbers 3"):
        split_latents([{"samples": torch.zeros(2, 4, 2, 2), "batch_index": torch.arange(3)}])


def test_latents_of_videos_keep_their_frames():
    singles = split_latents([{"samples": torch.rand(2, 16, 5, 4, 4)}])
    assert join_latents(singles)["samples"].shape == (2, 16, 5, 4, 4)


def test_what_does_not_fit_one_batch_stays_single():
    small, large = torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 3, 2)
    assert fits_one_batch([small, small]) and not fits_one_batch([small, large])
    assert latents_fit([{"samples": small}, {"samples": small}])
    assert not latents_fit([{"samples": small}, {"samples": large}])
    assert not latents_fit([{"samples": small, "noise_mask": torch.ones(1, 8, 8)}, {"samples": small}])
    assert latents_fit([])


def test_masks_come_apart():
    masks = split_masks([torch.zeros(2, 4, 4), torch.ones(3, 5)])
    assert [tuple(mask.shape) for mask in masks] == [(1, 4, 4), (1, 4, 4), (1, 3, 5)]
    with pytest.raises(RewardError, match=r"shape \[1, 1, 4, 4\]"):
        split_masks([torch.zeros(1, 1, 4, 4)])
