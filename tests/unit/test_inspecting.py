"""Inspect Preference: shifts against closed forms, what is called certain, and the linkage attack."""

from __future__ import annotations

import pytest
import torch

from attune.nodes.preferences.inspect_chart import WIDTH, inspection_chart
from attune.nodes.preferences.inspecting import (
    Linkage,
    attribute_shifts,
    linkage,
    linkage_words,
    paired,
    report,
    shift,
    word_shifts,
    words_in,
)
from attune.nodes.preferences.records import PreferenceError


def pictures(count: int = 12, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    level = torch.rand(count, 1, 1, 3, generator=generator) * 0.5 + 0.2
    return list((level + 0.1 * torch.rand(count, 16, 24, 3, generator=generator)).clamp(0, 1))


def test_a_shift_is_in_deviations_of_the_pictures_without():
    before = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    found = shift("warmth", before, before + 3.0)
    assert found.value == pytest.approx(3.0 / before.std().item()) and found.low == pytest.approx(found.high)
    assert (found.before, found.after) == (2.0, 5.0) and found.certain
    assert shift("warmth", torch.ones(3), torch.full((3,), 1.5)).value == pytest.approx(0.5), "all alike: own units"


def test_what_is_chance_is_not_called_a_change():
    generator = torch.Generator().manual_seed(1)
    surprises = 0
    for _ in range(60):
        before = torch.randn(24, generator=generator)
        surprises += shift("x", before, before + torch.randn(24, generator=generator)).certain
    assert surprises <= 9, "a 95 % interval leaves out the truth about one time in twenty"
    before = torch.randn(24, generator=generator)
    assert shift("x", before, before + 1 + torch.randn(24, generator=generator)).certain


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
    with pytest.raises(PreferenceError, match="pair 2 differ in size"):
        paired(before, [before[0], before[1][:8], before[2]])
    with pytest.raises(PreferenceError, match="25 lines"):
        words_in("\n".join(map(str, range(25))))
    assert words_in(" a man \n\na woman\na man") == ["a man", "a woman"]


def test_linkage_by_hand():
    first = torch.tensor([[[0.0, 0.0]], [[5.0, 0.0]], [[0.0, 5.0]]])
    assert linkage(first, first + 0.1) == Linkage(3, 3, 0)
    swapped = first[[1, 0, 2]]
    assert linkage(first, swapped, left_out=2) == Linkage(3, 1, 2)
    assert "at least two profiles" in linkage_words(None, least=8, left_out=1)
    assert "says little" in linkage_words(Linkage(3, 3, 0), least=8, left_out=0)
    assert "give away" in linkage_words(Linkage(20, 15, 1), least=8, left_out=1)
    assert "hardly" in linkage_words(Linkage(20, 1, 0), least=8, left_out=0)


def test_strangers_are_not_recognised_and_the_same_people_are():
    generator = torch.Generator().manual_seed(4)
    people = torch.randn(40, 2, 8, generator=generator)
    noisy = [people + 0.1 * torch.randn(40, 2, 8, generator=generator) for _ in range(2)]
    assert linkage(*noisy).share > 0.9
    assert linkage(people, torch.randn(40, 2, 8, generator=generator)).share < 0.2


@pytest.mark.parametrize("count", [1, 2, 40])
def test_the_chart_is_drawn_for_any_number_of_pairs(count: int):
    before = pictures(count)
    pairs = paired(before, [one * 0.8 for one in before])
    chart = inspection_chart(pairs, attribute_shifts(pairs), title="What my taste changed")
    assert chart.width == WIDTH and chart.height > 300
    assert len(chart.getcolors(10**6)) > 50
