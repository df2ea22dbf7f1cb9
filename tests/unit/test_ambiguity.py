"""Asking back: when, and what; every choice is feedback that the grammar carries out."""

from __future__ import annotations

import pytest

from attune.nodes.refinement.ambiguity import FEWEST, Usual, ambiguity, open_attributes, question, usual_of
from attune.nodes.refinement.checks import RefinementError
from attune.nodes.refinement.edits import edit_prompt
from attune.nodes.refinement.refiner import refine

MAN = "a man with a red hat in a park, oil painting"


def asked(feedback: str, prompt: str = MAN, **options):
    outcome = edit_prompt(prompt, "", feedback)
    return outcome, question(outcome, **options)


def test_ambiguity_is_how_far_the_mean_score_lies_below_the_usual():
    """((1 − 0.24) − (1 − 0.30)) / 0.03 = 2, and the same for a model whose scores lie elsewhere."""
    assert ambiguity([0.22, 0.26], Usual(0.30, 0.03, "")) == pytest.approx(2)
    assert ambiguity([0.72, 0.76], Usual(0.80, 0.03, "")) == pytest.approx(2)
    assert ambiguity([0.9], Usual(0.8, 0.05, "")) == pytest.approx(-2)
    assert ambiguity([3.0, 5.0], Usual(2.0, 1.0, ""), higher_is_better=False) == pytest.approx(2)


@pytest.mark.parametrize("values", [[], [float("nan")], [float("inf"), 0.3]])
def test_what_is_no_score_is_refused(values: list[float]):
    with pytest.raises(RefinementError, match="finite score"):
        ambiguity(values, Usual(0.3, 0.03, ""))


def test_what_is_usual_needs_enough_pictures_that_differ():
    scores = [0.2, 0.3] * (FEWEST // 2)
    usual = usual_of(scores, "before")
    assert usual is not None and usual.mean == pytest.approx(0.25) and usual.of == "before"
    assert usual.deviation == pytest.approx(0.05 * (FEWEST / (FEWEST - 1)) ** 0.5)
    assert usual_of(scores[:-1], "") is None
    assert usual_of([0.3] * FEWEST, "") is None and usual_of([0.0] * FEWEST, "") is None


def test_clear_feedback_asks_nothing():
    for feedback in ("make the hat blue", "no hat", "bigger", "", "great!"):
        assert asked(feedback)[1] is None


@pytest.mark.parametrize(
    ("feedback", "cause", "part"),
    [
        ("remove it", "pronoun", "What is meant"),
        ("add a dog, no dog", "contradiction", "cannot both be"),
        ("a blue background. red background", "contradiction", "cannot both be"),
        ("bigger. no, smaller", "contradiction", "cannot both be"),
        ("more hat and less hat", "contradiction", "cannot both be"),
        ("make the hat blue and the hat green", "contradiction", "cannot both be"),
        ("as a photo, and in flat style", "contradiction", "cannot both be"),
        ("keep the hat. make the hat blue", "kept", '"red hat" is kept'),
        ("rainy weather", "unread", "was not understood"),
        ("I cannot say what it is but something is strange here", "unread", "was not understood"),
    ],
)
def test_unclear_feedback_asks_one_question(feedback: str, cause: str, part: str):
    _, found = asked(feedback)
    assert found is not None and (found.cause, part in found.text) == (cause, True)
    assert found.choices


def test_every_choice_is_feedback_that_is_understood():
    for feedback in (
        "remove it",
        "add a dog, no dog",
        "keep the hat. make the hat blue",
        "rainy weather",
        "bigger. smaller",
    ):
        outcome, found = asked(feedback)
        assert found is not None
        for choice in found.choices:
            again = edit_prompt(outcome.prompt, outcome.negative, choice.feedback, kept=outcome.kept)
            assert not again.unread and not again.refused, choice


def test_the_choice_to_change_what_is_kept_changes_it():
    outcome, found = asked("keep the hat. make the hat blue")
    assert found is not None
    again = edit_prompt(outcome.prompt, "", found.choices[0].feedback, kept=outcome.kept)
    assert again.prompt == "a man with a blue hat in a park, oil painting" and not again.kept


@pytest.mark.parametrize(
    ("prompt", "left"),
    [
        ("a cat", ("style", "background")),
        ("a cat, flat style", ("background",)),
        ("a cat on a red background", ("style",)),
        ("a 3d cat on a blue background", ()),
        (MAN, ()),
        ("", ("subject",)),
    ],
)
def test_what_a_prompt_leaves_open(prompt: str, left: tuple[str, ...]):
    assert open_attributes(prompt) == left


def test_what_is_open_is_asked_for_where_the_pictures_do_not_show_the_prompt():
    assert asked("bigger", "a cat", unlike=0.9)[1] is None
    found = asked("bigger", "a cat", unlike=1.1)[1]
    assert found is not None and (found.text, found.cause) == ("Which style?", "open")
    for choice in found.choices:
        assert edit_prompt("a cat", "", choice.feedback).edits[0].operation == "style"
    found = asked("bigger", "a cat, flat style", ask_open=True)[1]
    assert found is not None and found.text == "Which background?"
    found = asked("bigger", MAN, unlike=3.0)[1]
    assert (
        found is not None
        and found.cause == "unlike"
        and [choice.label for choice in found.choices] == ["man", "hat", "park", "oil painting"]
    )
    assert asked("", "", ask_open=True)[1].text == "What is to be seen?"


def test_only_what_the_last_pictures_were_to_show_can_be_missing_in_them():
    outcome = edit_prompt(MAN, "", "replace the hat with a cap")
    found = question(outcome, before=MAN, unlike=2.0)
    assert found is not None and [choice.label for choice in found.choices] == ["man", "park", "oil painting"]
    for choice in found.choices:
        assert not edit_prompt(outcome.prompt, "", choice.feedback).unread
    refined = refine(MAN, "", "replace the hat with a cap", unlike=2.0)
    assert refined.question == found and refine(MAN, "", "replace the hat with a cap").question is None
