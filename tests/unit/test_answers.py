"""What language models say when they are asked for a prompt: the prompt is found in it, or the rules take over."""

from __future__ import annotations

import itertools
import time

import pytest

from attune.nodes.refinement.answers import Answer, read_answer
from attune.nodes.refinement.local_llm import CannotAnswer
from attune.nodes.refinement.refiner import RULES, ExternalText, refine

DOG = "a dog on a table"

# What stands around the prompt in answers of small instruct models, with %s in its place.
AROUND = [
    "%s",
    '"%s"',
    "“%s”",
    "`%s`",
    "'%s'",
    "**%s**",
    "```\n%s\n```",
    "```text\n%s\n```",
    "Here is the refined prompt:\n```\n%s\n```\nHope this helps!",
    "Sure! %s",
    "Sure! Here is the new prompt: %s",
    "Sure, here's the updated prompt:\n\n%s",
    "Certainly! Here’s the revised version of your prompt:\n\n“%s”",
    "Of course. Here is the edited prompt with the cat replaced by a dog: %s",
    "Okay, here is the new prompt:\n%s",
    "Great choice! Here is an updated prompt based on your feedback:\n\n%s\n\nLet me know if you need anything else.",
    "Sure, I can help with that!\n\n%s",
    'Here is the refined prompt: "%s"',
    'Here is the refined prompt: "%s". I hope this helps!',
    'Here is the refined prompt "%s"',
    "Here is the refined prompt\n\n%s",
    "The new prompt is: %s",
    'The updated prompt would be "%s"',
    "New prompt: %s",
    "**New prompt:** %s",
    "**Prompt**: %s",
    "Prompt: %s",
    "Answer: %s",
    "## Refined prompt: %s",
    '"%s"\n\nI replaced the cat with a dog, as you asked.',
    "%s\n\nI've changed the cat to a dog.",
    "%s\n\nNote: the rest of the prompt stays as it is.",
    "%s\n\n(I replaced the cat with a dog.)",
    "%s\n\n**Explanation:** the cat is gone.",
    "%s\nThis prompt has a dog instead of the cat.",
    "<think>\nThe user wants a dog.\n</think>\n\n%s",
    '{"prompt": "%s"}',
    '```json\n{"prompt": "%s"}\n```',
    '```json\n{"prompt": "%s"}\n```\nHope this helps',
    'Sure! Here is the new prompt:\n{"prompt": "%s"}',
    'Here is the JSON you asked for: {"prompt": "%s"}. I replaced the cat {as you said}.',
    '<think>I write {"prompt": "x"}</think>{"prompt": "%s"}',
    '{"answer": {"prompt": "%s"}}',
    '[{"prompt": "%s"}]',
    '{"prompt": "Here is the new prompt: %s"}',
    '{"prompt": "a cat", "negative": "", "feedback": "a dog"}\n{"prompt": "%s"}',
    "Here you go!\n%s",
    "Absolutely, here you go: %s",
    "As requested, here's the prompt: %s",
    "A new prompt could be: %s",
    "Updated: %s",
    "<prompt>%s</prompt>",
    'prompt = "%s"',
    "***%s***",
    "%s\n\n---\n\nLet me know!",
    "\ufeff%s",
]
PROMPTS = [
    DOG,
    "a (dog:1.3) on a table, __season__, {oil|ink} painting, <lora:foo:0.8>",
    "[dog:cat:0.5] on a table",
    "[cat|dog] on a table",
    "a dog's bed on a table, it's raining",
    "1girl, dog, table, best quality",
    "here is a quiet street, a dog on a table, oil painting",
    "here is a dog: portrait in oil",
    "Sorry-looking dog on a table",
    "a dog on a table. I love it. Dramatic light",
    "the dog is on a table, photograph",
    "dog\ntable\noil painting",
    "Great Dane on a table",
    "okay sign, hand, dog",
    "To the moon, dog in a rocket, table",
    "Great, wide landscape with a dog",
    "ein Hund auf einem Tisch, Ölgemälde",
    "a dog reading a prompt on a screen",
    "I am a dog, children's book cover",
]


@pytest.mark.parametrize("around", AROUND)
def test_the_prompt_is_found_in_what_stands_around_it(around: str):
    assert read_answer(around % DOG) == Answer(DOG, None)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_of_any_kind_comes_through_whatever_stands_around_it(prompt: str):
    harmed = []
    for around in AROUND:
        if '{"' in around and "\n" in prompt:
            continue
        # An apostrophe within apostrophes can be read in two ways.
        if around == "'%s'" and "'" in prompt:
            continue
        try:
            found = read_answer(around % prompt).prompt
        except CannotAnswer as error:
            found = str(error)
        if found != " ".join(prompt.split()):
            harmed.append((around, found))
    assert not harmed


@pytest.mark.parametrize(
    "text",
    [
        '{"new_prompt": "a dog on a table"}',
        '["a dog on a table"]',
        '[{"text": "a dog on a table"}]',
        '{"text":"a cat in the sun"}',
        'Sure: {"text": "a cat in the sun"}',
        "{'prompt': 'a dog on a table'}",
        '{prompt: "a dog on a table"}',
        '"prompt": "a dog on a table"',
        '{"prompt": "a dog on a tab',
        "{\"prompt\": \"{'prompt': 'a dog'}\"}",
        "null",
        "42",
        "I cannot help with a cat.",
        "I can't replace the cat with a dog.",
        "I'm sorry, but I can't help with that cat.",
        "I’m sorry, but the cat is protected.",
        "Sorry, I do not see a cat.",
        "Unfortunately, there is no cat in the picture.",
        "As an AI language model, I cannot edit the cat.",
        "I'm just an AI, a cat is beyond me.",
        "I apologize, but the dog cannot replace the cat.",
        "Es tut mir leid, eine cat kann ich nicht ersetzen.",
        "I don't have enough information about the cat.",
        'Here is the refined prompt: "a cat with a dog',
        '"a dog on a table',
        "Here is the refined prompt:",
        "Sure!",
        "Sure, I can help with that! What dog would you like?",
        "Sure! I can help with the dog.",
        "Could you please tell me more about the dog?",
        "What kind of dog do you want me to put on the table?",
        "Please provide the dog you want on the table.",
        "I have replaced the cat with a dog.",
        "I replaced the cat with a dog on the table.",
        "I will replace the cat with a dog.",
        "You can replace the cat with a dog.",
        "To replace the cat with a dog, you can write dog.",
        "Okay, so the user wants a dog on the table.",
        "The user wants to replace the cat with a dog.",
        "cat → dog",
        "Change: cat -> dog on a table",
        "a dog. The original prompt had a cat.",
        "The prompt is good, but the cat should become a dog.",
        "1. a dog on a table\n2. a big dog on a table\n3. a small dog on a table",
        "```\na dog\n```\nor\n```\na cat\n```",
        "```json\na dog on a table",
        "<think>The user wants a dog on a table",
        '{"prompt": "I\'m sorry, I cannot replace the cat with a dog."}',
        '{"prompt": "a dog", "explanation": "the cat is gone"}',
    ],
)
def test_what_is_no_prompt_is_refused_and_the_rules_say_so(text: str):
    refined = refine("a cat on a table", "", "replace the cat with a dog", back_end=ExternalText(text))
    assert refined.fell_back and (refined.prompt, refined.back_end) == (DOG, RULES), refined.prompt
    assert "The rules took over" in refined.summary()


def test_a_person_whose_own_prompt_sounds_like_talk_keeps_it():
    for prompt in ("I cannot sleep, film noir, a cat", "Sorry, we are closed: a sign with a cat", "Prompt: a cat"):
        answer = prompt.replace("cat", "dog")
        refined = refine(prompt, "", "replace the cat with a dog", back_end=ExternalText(answer))
        assert (refined.prompt, refined.fell_back) == (answer, False), refined.reason


@pytest.mark.parametrize(
    ("text", "negative"),
    [
        ("Prompt: a dog on a table\nNegative prompt: hat, blur", "hat, blur"),
        ("**Prompt:** a dog on a table\n\n**Negative prompt:** hat", "hat"),
        ('Prompt: "a dog on a table"\nNegative: "hat"\n\nI hope this helps!', "hat"),
        ("Prompt: a dog on a table\nNegative prompt: none", ""),
        ("Prompt: a dog on a table, Negative prompt: hat", "hat"),
        ("a dog on a table\n\nNegative prompt:\nhat", "hat"),
        ('{"prompt": "a dog on a table", "negative": "None"}', ""),
        ('{"prompt": "a dog on a table", "negative": "none of them smiling"}', "none of them smiling"),
    ],
)
def test_the_negative_prompt_of_an_answer(text: str, negative: str):
    assert read_answer(text) == Answer(DOG, negative)


@pytest.mark.parametrize(
    "text", ['a sign that says "open"', '"hello" and "bye" on a wall', 'a 7" record', "'hello' and 'bye' on a wall"]
)
def test_quotations_within_a_prompt_stay(text: str):
    assert read_answer(text).prompt == text


def test_no_answer_takes_long():
    """Whatever is repeated, of any length: an answer is read or refused at once."""
    pieces = ["{", '{"a":', "[", "\n", " ", '"', "```", "**", "what you ", "here is the ", "sure! ", "<think>",
              "1. a\n", "prompt: ", "negative: \n", "new ", "\n(", "I have "]  # fmt: skip
    before = time.perf_counter()
    for one, two in itertools.product(pieces, repeat=2):
        text = f"{one * 500}{two * (19_000 // len(two))}"[:20_000]
        try:
            read_answer(text)
        except CannotAnswer:
            continue
    assert time.perf_counter() - before < 60
