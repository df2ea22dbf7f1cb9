"""The edit grammar on comments with "not", "no" and "without": never the opposite of what was said, and never silence
about what could not be read."""

from __future__ import annotations

import time

import pytest

from attune.nodes.refinement.edits import edit_prompt

CAT = "a cat on a table, oil painting"
DARK = "a cat on a table, dark, oil painting"
KEPT = "cat"

# (feedback, the prompt after it, the negative prompt after it); all of it was understood.
CARRIED_OUT = [
    # not enough
    ("the cat is not big enough", "a large cat on a table, oil painting", ""),
    ("the cat doesn't look big enough", "a large cat on a table, oil painting", ""),
    ("the sky is not blue enough", "a cat on a table, blue sky, oil painting", ""),
    ("the hat isn't big enough", "a cat on a table, big hat, oil painting", ""),
    ("it is not dark enough", DARK, ""),
    ("not dark enough", DARK, ""),
    ("I don't think it is dark enough", DARK, ""),
    ("the table isn't red enough and the cat is not small enough", "a small cat on a red table, oil painting", ""),
    ("the cat isn't visible", "a (cat:1.2) on a table, oil painting", ""),
    ("I can't see the cat", "a (cat:1.2) on a table, oil painting", ""),
    ("it doesn't have enough cats", "a (cat:1.2) on a table, oil painting", ""),
    ("the table is missing", "a cat on a (table:1.2), oil painting", ""),
    # not to be done
    ("do not add a hat", CAT, "hat"),
    ("don't add a hat", CAT, "hat"),
    ("I wouldn't add a hat", CAT, "hat"),
    ("let's not add a hat", CAT, "hat"),
    ("do not make it blue", CAT, "blue cat"),
    ("never make the cat blue", CAT, "blue cat"),
    ("the cat should not be red", CAT, "red cat"),
    ("I don't think the cat should be red", CAT, "red cat"),
    ("I do not want the cat to be red", CAT, "red cat"),
    ("make sure the cat is not red", CAT, "red cat"),
    ("it should never be dark", CAT, "dark"),
    ("make it not so dark", CAT, "dark"),
    ("the cat shouldn't look like a dog", CAT, "dog"),
    ("it shouldn't be an oil painting", "a cat on a table", ""),
    ("the background should not be red", CAT, "red background"),
    ("add a hat but don't make it red", "a cat with a hat on a table, oil painting", "red hat"),
    # not to be there
    ("there should be no hat", CAT, "hat"),
    ("please make sure there is no hat", CAT, "hat"),
    ("with no hat", CAT, "hat"),
    ("add no hat", CAT, "hat"),
    ("it doesn't need a hat", CAT, "hat"),
    ("the cat should have no tail", CAT, "tail"),
    ("I don't want the cat to wear a hat", CAT, "hat"),
    ("I don't need the table anymore", "a cat, oil painting", ""),
    ("I'd rather not have a table", "a cat, oil painting", ""),
    ("I want the table gone", "a cat, oil painting", ""),
    ("replace the cat with nothing", "a table, oil painting", ""),
    ("0 cats", "a table, oil painting", ""),
    ("not more than two cats", "two cats on a table, oil painting", ""),
    ("a dog, not a cat", "a dog on a table, oil painting", ""),
    ("remove the cat but not the table", "a table, oil painting", ""),
    ("no table needed", "a cat, oil painting", ""),
    ("the table isn't needed", "a cat, oil painting", ""),
    ("without the table the picture would be better", "a cat, oil painting", ""),
    ("no blue, but red", "a red cat on a table, oil painting", "blue"),
    ("don't use red, use blue", "a blue cat on a table, oil painting", "red"),
    (
        "not red, the background should be blue",
        "a cat on a table, oil painting, on a blue background",
        "red background",
    ),
    (
        "the background should be blue, not red",
        "a cat on a table, oil painting, on a blue background",
        "red background",
    ),
    ("not in the middle, on the left", "a cat on the left on a table, oil painting", "in the middle"),
    ("not on the right but at the top", "a cat at the top on a table, oil painting", "on the right"),
    ("not red, the cat should be blue", "a blue cat on a table, oil painting", "red cat"),
    ("not red", CAT, "red cat"),
    (
        "not red, not green, the background should be blue",
        "a cat on a table, oil painting, on a blue background",
        "red background, green background",
    ),
    (
        "the cat should be green, not red, and the background blue",
        "a green cat on a table, oil painting, on a blue background",
        "red cat",
    ),
    ("less of the table", "a cat on a (table:0.8), oil painting", ""),
    ("the cat can hardly be seen", "a (cat:1.2) on a table, oil painting", ""),
    # no change of something, and another change
    ("without changing the cat, add a dog", "a cat with a dog on a table, oil painting", ""),
    ("without losing the cat, add a dog", "a cat with a dog on a table, oil painting", ""),
    ("without changing the style, make it darker", DARK, ""),
    ("make it darker without changing the style", DARK, ""),
    ("make it darker but don't change anything else", DARK, ""),
    ("it isn't bad but it should be darker", DARK, ""),
    ("it should be bigger, not smaller", "a large cat on a table, oil painting", ""),
    # questions that ask for it
    ("why not make it blue?", "a blue cat on a table, oil painting", ""),
    ("couldn't it be darker?", DARK, ""),
    ("can't you make it darker?", DARK, ""),
    ("don't you think it is too dark?", CAT, "dark"),
    # a part of a thing
    ("the cat's eyes should be green", "a cat with green eyes on a table, oil painting", ""),
    ("add a sign saying do not enter", "a cat with a sign saying do not enter on a table, oil painting", ""),
    # signs
    ("add a 🐶", "a cat with a 🐶 on a table, oil painting", ""),
    ("replace the cat with a 🐶", "a 🐶 on a table, oil painting", ""),
    ("🐶 instead of the cat", "a 🐶 on a table, oil painting", ""),
    ("no 🐶", CAT, "🐶"),
    ("add a hat 🎩", "a cat with a hat on a table, oil painting", ""),
    ("👍 make it red 😀", "a red cat on a table, oil painting", ""),
    ("make it darker :)", DARK, ""),
    ("add {a|b}", "a cat on a table, {a|b}, oil painting", ""),
    ("add <lora:x:2>", "a cat on a table, <lora:x:2>, oil painting", ""),
]

# Understood, and nothing changes.
NOTHING = [
    "no changes please", "no problem", "no complaints", "not bad", "not so bad", "nothing to change", "nothing else",
    "don't change anything", "you don't have to change anything", "don't make it darker", "no darker please",
    "I don't want it darker", "not darker", "never mind", "it couldn't be better", "the cat is not the problem",
    "the picture doesn't need more cats", "remove nothing", "I don't mind the cat", "no thanks",
]  # fmt: skip

# Understood: the cat stays, in the rounds that follow too.
STAYS = [
    "I would not remove the cat", "no need to change the cat", "you don't need to change the cat",
    "the cat must not be removed", "the cat shouldn't disappear", "let's not change the cat", "don't lose the cat",
    "be careful not to remove the cat", "I don't want you to change the cat", "without changing the cat",
]  # fmt: skip

# What cannot be read is said, and nothing is done about it.
UNREAD = [
    "make it look like before", "make it look as before", "it should look like it was before", "make it look the same",
    "make it look that way", "make it feel like a dream", "make it look too bright", "let the moon appear in the sky",
    "the cat does not look happy", "mix 1 and 3", "I prefer the second one", "-3 cats", "more like the first",
    "the first one is better", "I like number 2", "that's not what I wanted", "not really", "not my style", "not good",
    "not good enough", "no idea", "neither a hat nor a scarf", "make the cat neither red nor blue", "anything but blue",
    "everything except the cat should be blue", "not necessarily a hat", "the cat shouldn't be on the table",
    "a hat that is not red", "add a man who is not happy", "not all cats should be blue", "I'm not sure about the cat",
    "I have nothing against a hat", "less of this", "like last time", "less is more", "fewer changes please",
    "there isn't any hat", "none of them", "not much contrast", "no matter what", "the cat needn't be red",
    "it doesn't have to be dark", "cat yes, table no", "the cat lost its tail", "no one else",
]  # fmt: skip


@pytest.mark.parametrize(("feedback", "prompt", "negative"), CARRIED_OUT)
def test_negated_comments_are_carried_out_as_they_were_meant(feedback: str, prompt: str, negative: str):
    outcome = edit_prompt(CAT, "", feedback)
    assert (outcome.prompt, outcome.negative) == (prompt, negative)
    assert not outcome.unread and not outcome.refused


@pytest.mark.parametrize("feedback", NOTHING)
def test_comments_that_ask_for_nothing_change_nothing(feedback: str):
    outcome = edit_prompt(CAT, "", feedback)
    assert (outcome.prompt, outcome.negative) == (CAT, "")
    assert not outcome.unread and not outcome.refused and not outcome.kept


@pytest.mark.parametrize("feedback", STAYS)
def test_what_is_not_to_be_changed_is_kept(feedback: str):
    outcome = edit_prompt(CAT, "", feedback)
    assert (outcome.prompt, outcome.negative, outcome.kept) == (CAT, "", (KEPT,))
    assert not outcome.unread and not outcome.refused


@pytest.mark.parametrize("feedback", UNREAD)
def test_what_cannot_be_read_is_unread_and_changes_nothing(feedback: str):
    outcome = edit_prompt(CAT, "", feedback)
    assert (outcome.prompt, outcome.negative) == (CAT, "")
    assert outcome.unread and not outcome.edits


@pytest.mark.parametrize(
    ("feedback", "prompt", "unread"),
    [
        ("picture 2 but darker", DARK, ("picture 2",)),
        ("the second picture, but with a hat", "a cat with a hat on a table, oil painting", ("the second picture",)),
        ("not only darker but also bigger", "a large cat on a table, oil painting", ("not only darker",)),
        ("make the cat bigger but not too big", "a large cat on a table, oil painting", ("not excessively big",)),
        ("add a hat, but not a red one", "a cat with a hat on a table, oil painting", ("not a red one",)),
        ("don't just make it darker, add a dog", "a cat with a dog on a table, oil painting",
         ("don't just make it darker",)),
    ],
)  # fmt: skip
def test_the_rest_of_a_comment_is_carried_out_beside_what_is_unread(feedback: str, prompt: str, unread: tuple[str]):
    outcome = edit_prompt(CAT, "", feedback)
    assert (outcome.prompt, outcome.negative, outcome.unread) == (prompt, "", unread)


def test_what_one_thing_should_not_be_another_may_stay():
    outcome = edit_prompt("a cat with a red hat", "", "the cat should not be red")
    assert (outcome.prompt, outcome.negative) == ("a cat with a red hat", "red cat")
    assert edit_prompt("a red cat with a red hat", "", "the cat should not be red").prompt == "a cat with a red hat"


@pytest.mark.parametrize(
    "words",
    ["not ", "i don't think ", "make sure the ", "picture 1 and ", "it is not ", "the last picture ", "cat's ",
     "but not ", "darker but not too ", "1 and ", "without changing ", "should not be ", "🐶 ", "a🐶", ": ( "],
)  # fmt: skip
def test_repeated_negations_take_no_time(words: str):
    began = time.monotonic()
    edit_prompt(CAT, "", (words * 4000)[:4000])
    assert time.monotonic() - began < 5
