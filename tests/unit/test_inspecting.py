"""Inspect Preference: shifts against closed forms, what is called certain, and words through real features."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from attune.nodes.feature_store import FEATURES
from attune.nodes.preferences.inspect_chart import WIDTH, inspection_chart
from attune.nodes.preferences.inspecting import (
    LEAST_PAIRS,
    Shift,
    attribute_shifts,
    features_of,
    number_words,
    paired,
    probed,
    report,
    shift,
    student_quantile,
    word_shifts,
    words_in,
)
from attune.nodes.preferences.records import PreferenceError
from attune.nodes.rewards.load import load_reward

DEMO = Path(__file__).resolve().parents[2] / "workflows" / "demo"


def pictures(count: int = 12, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    level = torch.rand(count, 1, 1, 3, generator=generator) * 0.5 + 0.2
    return list((level + 0.1 * torch.rand(count, 16, 24, 3, generator=generator)).clamp(0, 1))


def test_a_shift_is_in_deviations_of_the_pictures_without():
    before = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    found = shift("warmth", before, before + 3.0, span=1.0)
    assert found.value == pytest.approx(3.0 / before.std().item()) and found.low == pytest.approx(found.high)
    assert (found.before, found.after) == (2.0, 5.0) and found.certain and not found.own_units


def test_the_interval_is_students_of_the_paired_differences():
    before = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    changes = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    found = shift("x", before, before + changes, span=1.0)
    # By hand: both deviations are √2.5, t(0.975, 4) = 2.7764.
    reach = 2.7764 / math.sqrt(5)
    assert found.value == pytest.approx(3 / math.sqrt(2.5))
    assert found.high - found.value == pytest.approx(reach, rel=2e-3) and found.low == pytest.approx(
        found.value - reach, rel=2e-3
    )


@pytest.mark.parametrize(("freedom", "known"), [(3, 3.1824), (4, 2.7764), (7, 2.3646), (15, 2.1314), (120, 1.9799)])
def test_students_quantiles_are_those_of_the_tables(freedom: int, known: float):
    assert student_quantile(freedom) == pytest.approx(known, rel=2e-3)


@pytest.mark.parametrize("pairs", [1, 2, 3, 4, 8, 16])
def test_what_is_chance_is_not_called_a_change(pairs: int):
    generator = torch.Generator().manual_seed(pairs)
    rounds = 2000
    before = torch.randn(rounds, pairs, generator=generator)
    after = before + torch.randn(rounds, pairs, generator=generator)
    surprises = sum(shift("x", *two, span=1.0).certain for two in zip(before, after, strict=True))
    assert surprises / rounds <= 0.07, "a 95 % interval leaves out the truth about one time in twenty"
    if pairs < LEAST_PAIRS:
        assert surprises == 0
    else:
        assert surprises / rounds >= 0.03, "nor is the interval wider than it says"
    if pairs >= 8:
        assert shift("x", before[0], before[0] + 3 + torch.randn(pairs, generator=generator), span=1.0).certain


@pytest.mark.parametrize("pairs", [1, 2, 3])
def test_few_pairs_are_asked_for_more(pairs: int):
    before = pictures(pairs)
    found = attribute_shifts(paired(before, [one * 0.5 for one in before]))
    assert not any(one.certain or one.bounded for one in found) and all(one.value < 0 for one in found[2:])
    assert "At least 4 pairs are needed" in report(found, pairs, "What it changed")
    assert "needed" not in report(attribute_shifts(paired(pictures(4), pictures(4))), 4, "What it changed")


def test_pictures_that_hardly_differ_are_no_measure():
    generator = torch.Generator().manual_seed(5)
    grey = torch.full((8, 16, 24, 3), 0.4) + 1e-4 * torch.randn(8, 1, 1, 3, generator=generator)
    found = attribute_shifts(paired(list(grey), list(grey + 0.3)))
    assert all(one.own_units and abs(one.value) < 1 for one in found)
    brightness = next(one for one in found if one.name == "brightness")
    assert brightness.certain and brightness.value == pytest.approx(0.3, abs=1e-3)
    assert "brightness +0.300 (+0.300 … +0.300) in its own units" in report(found, 8, "A")
    varied = attribute_shifts(paired(pictures(), [one * 0.7 for one in pictures()]))
    assert not next(one for one in varied if one.name == "brightness").own_units
    towards = torch.nn.functional.normalize(torch.ones(1, 4), dim=1)
    alike = torch.nn.functional.normalize(torch.tensor([[1.0, 0, 0, 0]]).repeat(6, 1), dim=1)
    (word,) = word_shifts(alike, towards.repeat(6, 1), ["a cat"], towards)
    assert word.own_units and word.value == pytest.approx(0.5), "cosines of 0.5 and 1"


def test_what_is_in_other_units_comes_last_and_has_finer_numbers():
    large, small = (Shift(name, 0.5, 0.4, 0.6, 0, 0.5, own) for name, own in (("own", True), ("usual", False)))
    told = report([large, small], 16, "A")
    assert told.index("usual") < told.index("own") and number_words(large, -0.5) == "−0.500"


def test_attributes_move_where_the_pictures_do():
    before = pictures()
    warmer = [(one + torch.tensor([0.1, 0.0, -0.1])).clamp(0, 1) for one in before]
    found = {one.name: one for one in attribute_shifts(paired(before, warmer))}
    assert found["warmth"].certain and found["warmth"].value > 0.3
    assert found["warmth"].after - found["warmth"].before == pytest.approx(0.2, abs=0.02)
    dimmer = {one.name: one for one in attribute_shifts(paired(before, [one * 0.7 for one in before]))}
    assert dimmer["brightness"].value < 0 and dimmer["brightness"].certain
    told = report(list(found.values()), 12, "What a taste changed")
    assert told.index("warmth") and "12 pairs" in told
    same = attribute_shifts(paired(before, before))
    assert not any(one.certain for one in same) and "nothing changed" in report(same, 12, "A")


def test_words_move_with_the_features():
    towards = torch.nn.functional.normalize(torch.randn(8, generator=torch.Generator().manual_seed(2)), dim=0)
    before = torch.nn.functional.normalize(torch.randn(10, 8, generator=torch.Generator().manual_seed(3)), dim=1)
    after = torch.nn.functional.normalize(before + towards, dim=1)
    closer, away = word_shifts(before, after, ["this", "its opposite"], torch.stack([towards, -towards]))
    assert closer.certain and closer.value > 0.5 and away.value == pytest.approx(-closer.value)


def test_bad_pictures_and_too_many_words():
    before = pictures(3)
    with pytest.raises(PreferenceError, match="3 pictures without the taste and 2 with it"):
        paired(before, before[:2])
    with pytest.raises(PreferenceError, match=r"pair 2 differ in size: 24×16 .* and 24×8 .* one Empty Latent Image"):
        paired(before, [before[0], before[1][:8], before[2]])
    with pytest.raises(PreferenceError, match="25 lines"):
        words_in("\n".join(map(str, range(25))))
    assert words_in(" a man \n\na woman\na man") == ["a man", "a woman"]


@pytest.fixture(scope="module")
def eyes():
    return load_reward(DEMO / "attune_demo_reward.safetensors", "cpu")


def test_words_are_read_in_batches_of_one_size_and_only_once(eyes):
    before = [*pictures(9, seed=11), *(one.transpose(0, 1) for one in pictures(9, seed=12))]
    after = [(one * 0.5) for one in before]
    steps: list[tuple[int, int]] = []
    pairs = paired(before, after)
    found = probed(eyes, pairs, ["a red ball", "night"], lambda done, total: steps.append((done, total)))
    assert steps[0] == (0, 36) and steps[-1] == (36, 36) and len(steps) == 5, "18 of a size: 16 and 2"
    rows = torch.cat([eyes.image_features(one[None]) for one in (*before, *after)])
    expected = word_shifts(rows[:18], rows[18:], ["a red ball", "night"], eyes.text_features(["a red ball", "night"]))
    for one, other in zip(found, expected, strict=True):
        assert one.name == other.name and one.value == pytest.approx(other.value, abs=1e-3)
    known = len(FEATURES)
    probed(eyes, pairs, ["another word"], lambda done, total: None)
    assert len(FEATURES) == known >= 36, "the pictures were remembered"


def test_reading_pictures_can_be_stopped(eyes):
    def stop(done: int, total: int) -> None:
        if done >= 16:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        features_of(eyes, pictures(40, seed=13), stop)


@pytest.mark.parametrize("count", [1, 2, 40])
def test_the_chart_is_drawn_for_any_number_of_pairs(count: int):
    before = pictures(count)
    pairs = paired(before, [one * 0.8 for one in before])
    shifts = [*attribute_shifts(pairs), shift("a word of many letters", torch.ones(6), torch.ones(6) * 1.2, span=1.0)]
    chart = inspection_chart(pairs, shifts, title="What my taste changed")
    assert chart.width == WIDTH and chart.height > 300
    assert len(chart.getcolors(10**6)) > 50
