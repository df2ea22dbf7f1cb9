"""Edits of the demo model's prompts are prompts of its language: every attribute, in every phrasing."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from attune.nodes.refinement.edits import edit_prompt
from attune.training.demo import data
from attune.training.demo.pipeline import prompt_text

_CONCEPT = "|".join(sorted(map(re.escape, data.CONCEPT_NAMES), key=len, reverse=True))
_STYLE, _COLOUR = "|".join(data.STYLES), "|".join(data.BACKGROUNDS)
_PLACE = "|".join([*data.POSITION_WORDS.values(), "in the center"])
_BACKGROUND = rf"(?:an? )?(?P<background>{_COLOUR}) background"
CAPTION = re.compile(
    rf"(?:picture of )?(?P<article>an? )?(?:(?P<size>small|large) )?(?:(?P<looks>{_STYLE}) )?(?P<concept>{_CONCEPT})"
    rf"(?: (?P<position>{_PLACE}))?"
    rf"(?:(?:, | in | drawn in )(?P<style>{_STYLE}) style)?"
    rf"(?:,? (?:on |against )?{_BACKGROUND})?(?:, (?P<last>{_STYLE}) style)?"
)
KEYS = {words: key for key, words in data.POSITION_WORDS.items()} | {"in the center": "center"}


def attributes(prompt: str) -> data.Attributes:
    """What a well-formed prompt says, with its articles checked."""
    found = CAPTION.fullmatch(prompt)
    assert found, prompt
    for article, word in re.findall(r"\b(an?) (\w+)", prompt):
        assert data.with_article(word) == f"{article} {word}", prompt
    assert bool(found["article"]) != (found["concept"] in data.PLURALS), prompt
    styles = [style for style in (found["looks"], found["style"], found["last"]) if style]
    assert len(styles) <= 1, prompt
    position = KEYS.get(found["position"] or "", "center")
    return data.Attributes(found["concept"], "".join(styles), found["background"] or "", found["size"] or "", position)


def captions() -> list[tuple[str, data.Attributes]]:
    """Captions of many pictures in all phrasings, and those that the evidence uses."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(len(data.CONCEPT_NAMES)):
        concept, style = data.CONCEPT_NAMES[number % len(data.CONCEPT_NAMES)], data.STYLES[number % len(data.STYLES)]
        drawn = data.draw_attributes(rng, concept, style)
        drawn = replace(drawn, size="small" if drawn.size == "small" else "")
        forms = [data.caption(drawn, rng, drop=0, held_out=number % 4 == 3)]
        if not drawn.size:
            forms += [prompt_text(concept, style, drawn.background)]
            if concept not in data.PLURALS:
                forms += [f"{data.with_article(style)} {concept} on {data.with_article(drawn.background)} background"]
        found += [(form, drawn) for form in forms]
    return found


def other(values: list[str] | tuple[str, ...], not_this: str, number: int) -> str:
    rest = [value for value in values if value != not_this]
    return rest[number % len(rest)]


def test_the_reader_of_this_test_reads_captions():
    for prompt, drawn in captions():
        assert attributes(prompt) == drawn


def edited(prompt: str, feedback: str) -> data.Attributes:
    outcome = edit_prompt(prompt, "", feedback)
    assert outcome.edits and not outcome.unread and not outcome.refused, (prompt, feedback, outcome)
    assert not outcome.negative, (prompt, feedback, outcome)
    return attributes(outcome.prompt)


@pytest.mark.parametrize(
    "feedback", ["make the background {}", "{} background please", "the background should be {}", "on a {} background"]
)
def test_another_background(feedback: str):
    for number, (prompt, drawn) in enumerate(captions()):
        colour = other(list(data.BACKGROUNDS), drawn.background, number)
        assert edited(prompt, feedback.format(colour)) == replace(drawn, background=colour)


@pytest.mark.parametrize(
    "feedback", ["{} style please", "make it in {} style", "in a {} style", "the style should be {}"]
)
def test_another_style(feedback: str):
    for number, (prompt, drawn) in enumerate(captions()):
        style = other(data.STYLES, drawn.style, number)
        assert edited(prompt, feedback.format(style)) == replace(drawn, style=style)


@pytest.mark.parametrize("feedback", ["make it {}", "it should be {}", "replace the {old} with {}", "not {old_a}, {}"])
def test_another_thing(feedback: str):
    for number, (prompt, drawn) in enumerate(captions()):
        concept = other(data.CONCEPT_NAMES, drawn.concept, 7 * number)
        if {concept, drawn.concept} & data.PLURALS and "make it" in feedback:
            continue
        named = [word if word in data.PLURALS else data.with_article(word) for word in (concept, drawn.concept)]
        if concept in data.PLURALS and feedback.startswith("it should"):
            continue
        said = feedback.format(named[0], old=drawn.concept, old_a=named[1])
        assert edited(prompt, said) == replace(drawn, concept=concept), (prompt, said)


@pytest.mark.parametrize(
    ("feedback", "position"),
    [("move it to the {}", ""), ("put it on the {}", ""), ("it should be at the {}", ""), ("in the middle", "center")],
)
def test_another_place(feedback: str, position: str):
    for number, (prompt, drawn) in enumerate(captions()):
        place = position or other(tuple(data.POSITION_WORDS), drawn.position, number)
        if place != drawn.position:
            assert edited(prompt, feedback.format(place)) == replace(drawn, position=place)


def test_another_size():
    for prompt, drawn in captions():
        if drawn.size == "small":
            assert edited(prompt, "bigger") == replace(drawn, size="")
            assert edited(prompt, "much bigger") == replace(drawn, size="large")
        else:
            assert edited(prompt, "make it smaller") == replace(drawn, size="small")


def test_several_at_once():
    for prompt, drawn in captions():
        wanted = replace(drawn, background="red", style="flat", size="small", position="top")
        if drawn.background != "red" and drawn.style != "flat" and not drawn.size and drawn.position != "top":
            assert edited(prompt, "flat style, small, at the top, and a red background") == wanted
