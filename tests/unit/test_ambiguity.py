"""Asking back: when, and what; every choice is feedback that the grammar carries out."""

from __future__ import annotations

import pytest

from attune.nodes.refinement.ambiguity import ambiguity, open_attributes, question
from attune.nodes.refinement.edits import edit_prompt
from attune.nodes.refinement.records import RefinementError

MAN = "a man with a red hat in a park, oil painting"


def asked(feedback: str, prompt: str = MAN, **options):
    outcome = edit_prompt(prompt, "", feedback)
    return outcome, question(outcome, **options)


def test_ambiguity_is_one_less_the_mean_similarity():
    """1 − (0.9 + 0.5 + 0.1) / 3 = 0.5."""
    assert ambiguity([0.9, 0.5, 0.1]) == pytest.approx(0.5)
    assert ambiguity([1.0]) == 0 and ambiguity([-1.0]) == 2


@pytest.mark.parametrize("values", [[], [float("nan")], [1.2], [float("inf"), 0.3]])
def test_what_is_no_similarity_is_refused(values: list[float]):
    with pytest.raises(RefinementError, match="imilarity"):
        ambiguity(values)


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
    assert asked("bigger", "a cat", similarities=[0.9, 0.8])[1] is None
    found = asked("bigger", "a cat", similarities=[0.2, 0.3])[1]
    assert found is not None and (found.text, found.cause) == ("Which style?", "open")
    for choice in found.choices:
        assert edit_prompt("a cat", "", choice.feedback).edits[0].operation == "style"
    found = asked("bigger", "a cat, flat style", ask_open=True)[1]
    assert found is not None and found.text == "Which background?"
    found = asked("bigger", MAN, similarities=[0.2])[1]
    assert (
        found is not None
        and found.cause == "unlike"
        and [choice.label for choice in found.choices] == ["man", "hat", "park", "oil painting"]
    )
    assert asked("", "", ask_open=True)[1].text == "What is to be seen?"
