"""Prompt diffs: they join to both texts, and read as a person would tell the change."""

from __future__ import annotations

import itertools
import random
import time

import pytest

from attune.nodes.refinement.prompt_diff import diff_line, prompt_diff

WORDS = ["cat", "red", "blue", ",", " ", "  ", "(", ")", "(hat:1.2)", "it's", "猫", "🎩", "\n", "3d", "background", "."]


def joined(parts, *kinds: str) -> str:
    return "".join(part.text for part in parts if part.kind in kinds)


def test_the_parts_join_to_both_texts_whatever_these_are():
    rng = random.Random(0)
    for _ in range(500):
        before = "".join(rng.choices(WORDS, k=rng.randrange(12)))
        after = "".join(rng.choices(WORDS, k=rng.randrange(12)))
        parts = prompt_diff(before, after)
        assert joined(parts, "same", "removed") == before
        assert joined(parts, "same", "added") == after
        assert all(part.text for part in parts)
        assert all(first.kind != second.kind for first, second in itertools.pairwise(parts))


def test_only_the_word_that_changed_is_marked():
    parts = prompt_diff("a cat on a red background", "a cat on a blue background")
    assert parts == [
        ("same", "a cat on a "),
        ("removed", "red"),
        ("added", "blue"),
        ("same", " background"),
    ]


def test_words_changed_side_by_side_are_one_phrase():
    parts = prompt_diff("a cat, flat style, on a red background", "a cat, 3d look, on a red background")
    assert parts[1:3] == [("removed", "flat style"), ("added", "3d look")]


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ("a cat on a red background", "a cat on a blue background", "a cat on a [−red] [+blue] background"),
        ("a cat", "a cat, with a hat", "a cat [+, with a hat]"),
        ("a (cat:1.1)", "a (cat:1.2)", "a (cat: [−1.1] [+1.2] )"),
        ("a cat", "a cat", "no change"),
        ("", "", "no change"),
        ("", "a cat", "[+a cat]"),
    ],
)
def test_a_diff_reads_as_one_line(before: str, after: str, line: str):
    assert diff_line(prompt_diff(before, after)) == line


def test_a_long_unchanged_stretch_is_shortened():
    line = diff_line(prompt_diff("word " * 100 + "red", "word " * 100 + "blue"))
    assert "…" in line and len(line) < 100 and line.endswith("[−red] [+blue]")


def test_texts_beyond_any_prompt_do_not_hold_the_page():
    rng = random.Random(1)
    before, after = (" ".join(rng.choices("abcdefgh", k=50_000)) for _ in range(2))
    began = time.monotonic()
    parts = prompt_diff(before, after)
    assert time.monotonic() - began < 5
    assert joined(parts, "same", "removed") == before and joined(parts, "same", "added") == after
