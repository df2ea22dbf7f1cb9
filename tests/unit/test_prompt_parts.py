"""Prompts as words: what is not edited stays letter for letter, and phrases are found as a reader finds them."""

from __future__ import annotations

import random

import pytest

from attune.nodes.refinement.edit_english import ENGLISH
from attune.nodes.refinement.edits import edit_prompt
from attune.nodes.refinement.prompt_parts import Prompt

PIECES = [
    "a cat",
    ", ",
    " on ",
    "(red:1.3)",
    " (big hat)",
    "\n",
    "<lora:x:0.5>",
    " \\(x\\)",
    "{a|b}",
    "…",
    " :) ",
    "猫",
    "🎩",
    ".",
    " ",
]


def parse(text: str) -> Prompt:
    return Prompt.parse(text, ENGLISH)


def phrases(text: str) -> list[str]:
    prompt = parse(text)
    return [prompt.said(phrase.start, phrase.stop) for phrase in prompt.phrases()]


def test_any_text_is_written_as_it_was_read():
    rng = random.Random(0)
    for _ in range(500):
        text = "".join(rng.choices(PIECES, k=rng.randrange(10))).rstrip()
        assert parse(text).text == text


@pytest.mark.parametrize("text", ["(a", "a)", "()", "a (b", ":1.2)", "((", "", "  "])
def test_brackets_without_partner_are_signs(text: str):
    prompt = parse(text)
    assert prompt.text == text.rstrip() and all(word.emphasis is None for word in prompt.words)


def test_brackets_inside_of_brackets_multiply_and_become_one():
    prompt = parse("a (b (c:1.2) d:1.5) e")
    weights = [1 if word.emphasis is None else word.emphasis.weight for word in prompt.words]
    assert weights == [1, 1.5, 1.8, 1.5, 1]
    assert prompt.text == "a (b:1.5) (c:1.8) (d:1.5) e"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a cat on a red background", ["a cat", "on a red background"]),
        ("a dog wearing a hat in a park", ["a dog", "wearing a hat", "in a park"]),
        ("a monk meditating, mountains behind him", ["a monk", "meditating", "mountains", "behind him"]),
        ("a black and white photo of a man", ["a black and white photo", "of a man"]),
        ("a man reading a newspaper, oil painting", ["a man", "reading a newspaper", "oil painting"]),
        ("a car in front of a house", ["a car", "in front of a house"]),
    ],
)
def test_phrases_are_things_with_what_joins_them(text: str, found: list[str]):
    assert phrases(text) == found


def test_a_thing_is_found_before_an_adjective_of_the_same_word():
    prompt = parse("an orange cat eating an orange")
    assert prompt.find("the orange") == (5, 6)
    assert prompt.find("oranges") == (5, 6)


def test_a_word_of_the_family_is_found_where_the_word_itself_is_missing():
    assert parse("dusty books").find("dust") == (0, 1)
    assert parse("dusty books, dust").find("dust") == (3, 4)
    assert parse("a catalogue").find("cat") is None


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("portrait of an old queen, crown", "an old queen"),
        ("two cats on a sofa", "two cats"),
        ("bowl of fruit", "bowl"),
    ],
)
def test_the_subject_is_what_a_picture_is_of(text: str, subject: str):
    prompt = parse(text)
    phrase = prompt.subject()
    assert phrase is not None and prompt.said(phrase.core, phrase.stop) == subject


def test_what_is_taken_out_leaves_no_comma_behind():
    for text, start, stop, left in (
        ("a, b, c", 2, 3, "a, c"),
        ("a, b, c", 0, 1, "b, c"),
        ("a, b, c", 4, 5, "a, b"),
        ("a b, c", 0, 1, "b, c"),
        ("a. b", 2, 3, "a."),
    ):
        prompt = parse(text)
        prompt.remove(start, stop)
        assert prompt.text == left


def test_words_put_into_brackets_share_them_and_a_weight_of_one_is_no_bracket():
    prompt = parse("a (red hat:1.3) and shoes")
    prompt.insert(2, "big")
    assert prompt.text == "a (red big hat:1.3) and shoes"
    prompt.set_weight(1, 2, 0.8)
    assert prompt.text == "a (red:0.8) (big hat:1.3) and shoes"
    prompt.set_weight(1, 2, 1)
    assert prompt.text == "a red (big hat:1.3) and shoes"


GROUP = "(masterpiece, best quality:1.2), 1girl"


@pytest.mark.parametrize(
    ("prompt", "feedback", "after"),
    [
        (GROUP, "remove best quality", "(masterpiece:1.2), 1girl"),
        (GROUP, "remove masterpiece", "(best quality:1.2), 1girl"),
        (GROUP, "less best quality", "(masterpiece:1.2), best quality, 1girl"),
        (GROUP, "less masterpiece", "masterpiece, (best quality:1.2), 1girl"),
        (GROUP, "more masterpiece", "(masterpiece:1.4), (best quality:1.2), 1girl"),
        ("(fog, mist, rain:1.3), sea", "more mist", "(fog:1.3), (mist:1.5), (rain:1.3), sea"),
        ("(fog, mist, rain:1.3), sea", "remove mist", "(fog, rain:1.3), sea"),
        ("(fog,:1.3) mist, sea", "remove the sea", "(fog,:1.3) mist"),
        (r"embedding:foo, a \(weird\) cat", "make the cat blue", r"embedding:foo, a blue \(weird\) cat"),
        ("(embedding:foo:1.2), a cat", "make it blue", "(embedding:foo:1.2), a blue cat"),
        ("<lora:x:1>, a cat", "make it blue", "<lora:x:1>, a blue cat"),
        ("a 🐶 on a table", "replace the 🐶 with a cat", "a cat on a table"),
    ],
)
def test_edits_inside_of_brackets_leave_the_rest_of_them_whole(prompt: str, feedback: str, after: str):
    assert edit_prompt(prompt, "", feedback).prompt == after


def test_brackets_inside_of_brackets_do_not_multiply_without_bound():
    assert parse("(" * 3000 + "cat" + ")" * 3000).text == "(cat:10)"
    assert parse("((cat))").text == "(cat:1.21)"
