"""Krippendorff's alpha, against what was published and against closed forms."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from attune.nodes.refinement.agreement import Agreement, agreement, alpha
from attune.nodes.refinement.checks import RefinementError


def units(*raters: str) -> list[dict[str, float]]:
    """One line per rater, a sign per unit; "." = missing."""
    return [
        {str(rater): ord(sign) for rater, sign in enumerate(column) if sign != "."}
        for column in zip(*raters, strict=True)
    ]


# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability": A binary, B nominal, C and D with missing values.
MEG_OWEN = units("0100000010", "1110010000")
BEN_GERRY = units("aabbdcccedda", "babbbcccedddd"[:12])
FOUR = units("123321412...", "1233224125.3", ".33323422" + "51.", "123324412" + "51.")
# The worked example of the encyclopedia's article: three coders, 15 units.
THREE = units(".....3" + "41211" + "33.3", "1.213343.......", "..21344.2113" + "3.4")


@pytest.mark.parametrize(
    ("ratings", "level", "published"),
    [
        (MEG_OWEN, "nominal", 0.095),
        (BEN_GERRY, "nominal", 0.692),
        (FOUR, "nominal", 0.743),
        (FOUR, "ordinal", 0.815),
        (FOUR, "interval", 0.849),
        (THREE, "nominal", 0.691),
        (THREE, "interval", 0.811),
    ],
)
def test_published_examples(ratings: list[dict[str, float]], level: str, published: float):
    assert agreement(ratings, level).alpha == pytest.approx(published, abs=0.0005)


def test_the_published_example_has_40_values_in_11_units():
    found = agreement(FOUR, "nominal")
    assert (found.units, found.values, found.raters) == (11, 40, 4)


def test_two_units_by_hand():
    """Values 1 2 | 1 1: n = 4, n_1 = 3, n_2 = 1. D_o = (1/4)·2·1/(2 − 1) = 1/2; D_e = 2·3·1/(4·3) = 1/2: alpha 0."""
    assert alpha([(1, 2), (1, 1)], "nominal") == pytest.approx(0)


def test_ordinal_counts_ranks_not_numbers():
    """1 1 | 9 9 | 9 1: with two values ordinal, nominal and interval are the same, however far apart they are."""
    values = [(1, 1), (9, 9), (9, 1)]
    assert alpha(values, "ordinal") == pytest.approx(alpha(values, "nominal"))
    assert alpha(values, "interval") == pytest.approx(alpha(values, "nominal"))
    stretched = [tuple({1: 1, 2: 2, 3: 30}[value] for value in unit) for unit in [(1, 1), (2, 3), (3, 3), (1, 2)]]
    plain = [(1, 1), (2, 3), (3, 3), (1, 2)]
    assert alpha(stretched, "ordinal") == pytest.approx(alpha(plain, "ordinal"))
    assert alpha(stretched, "interval") != pytest.approx(alpha(plain, "interval"))


def test_limits():
    same = [{"a": value, "b": value} for value in (1, 2, 3, 4, 5, 1)]
    assert agreement(same).alpha == 1
    assert agreement(same).words == "The raters agree."
    opposite = [{"a": value, "b": 3 - value} for value in (1, 2, 1, 2, 1, 2)]
    assert agreement(opposite, "nominal").alpha < -0.8
    thrown = random.Random(1)
    dice = [(thrown.randint(1, 5), thrown.randint(1, 5)) for _ in range(4000)]
    for level in ("nominal", "ordinal", "interval"):
        assert abs(alpha(dice, level)) < 0.05


def test_what_nobody_else_rated_counts_for_nothing():
    assert agreement([*FOUR, {"x": 1}, {"y": 7}, {}], "interval") == agreement(FOUR, "interval")


@pytest.mark.parametrize(
    ("ratings", "words"), [([], "Nobody"), ([{"a": 1}], "Nobody"), ([{"a": 3, "b": 3}] * 6, "Undefined")]
)
def test_where_alpha_is_undefined_it_says_so(ratings: Sequence[dict[str, float]], words: str):
    found = agreement(ratings)
    assert found.alpha is None and found.interval is None and found.words.startswith(words)


def test_the_interval_holds_alpha_and_narrows_with_more_units():
    few, many = agreement(FOUR, "interval"), agreement(FOUR * 20, "interval")
    assert few.interval[0] < few.alpha < few.interval[1]
    assert many.interval[1] - many.interval[0] < (few.interval[1] - few.interval[0]) / 2
    assert agreement(FOUR, "interval") == few, "the draws follow from the seed"
    assert agreement(FOUR[:4], "interval").interval is None


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.8, "agree."), (0.7, "tentative"), (0.5, "too little"), (0.0, "no better than chance"), (-0.5, "no better")],
)
def test_words(value: float, words: str):
    assert words in Agreement(value, "ordinal", 9, 18, 2, None).words


def test_an_unknown_level_is_refused():
    with pytest.raises(RefinementError, match="'ratio'"):
        agreement([], "ratio")
