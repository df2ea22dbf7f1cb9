"""Records of a refinement: what is refused at the door, and what they say of themselves."""

from __future__ import annotations

import dataclasses
import math

import pytest

from attune.nodes.refinement.checks import LARGEST_SEED, LONGEST_TEXT, RefinementError
from attune.nodes.refinement.plain_records import plain_schedule, schedule_of
from attune.nodes.refinement.records import Feedback, Picture, Round, Schedule, SessionState, Weights

HASH = "ab" * 32


def schedule(**changed) -> Schedule:
    return Schedule(**{"type": "karras", "steps": 8, "strength": 1.0, "seeds": (1, 2), **changed})


def a_round(**changed) -> Round:
    values = {
        "key": "a" * 32,
        "parent": None,
        "number": 1,
        "attempt": 0,
        "prompt": "a cat",
        "negative": "",
        "embedding": {"rate": 1.0},
        "schedule": schedule(),
        "weights": None,
        "pictures": (Picture(HASH, 1), Picture(HASH, 2)),
        "feedback": None,
        "seconds": 1.5,
        "lora": "",
        "latents": "",
        "made": 1,
    }
    return Round(**{**values, **changed})


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"type": "quadratic"}, "quadratic"),
        ({"steps": 0}, "0"),
        ({"steps": True}, "True"),
        ({"strength": 0.0}, "0.0"),
        ({"strength": 1.01}, "1.01"),
        ({"strength": math.nan}, "nan"),
        ({"own_noise": 1}, "Own noise"),
        ({"guidance": -1.0}, "-1.0"),
        ({"guidance": 10**400}, "guidance"),
        ({"seeds": ()}, "pictures"),
        ({"seeds": (-1,)}, "-1"),
        ({"seeds": (LARGEST_SEED + 1,)}, str(LARGEST_SEED + 1)),
        ({"seeds": (1.0,)}, "1.0"),
        ({"sampler": ""}, "sampler"),
        ({"fresh": 1}, "Fresh"),
        ({"arm": "a" * 201}, "arm"),
    ],
)
def test_unusable_schedules_are_refused(changed, words) -> None:
    with pytest.raises(RefinementError, match=words.replace(".", r"\.")):
        schedule(**changed)


def test_the_largest_seed_and_lists_are_taken() -> None:
    assert schedule(seeds=[LARGEST_SEED]).seeds == (LARGEST_SEED,)


@pytest.mark.parametrize(
    "changed",
    [
        {"comment": "x" * (LONGEST_TEXT + 1)},
        {"comment": "half \ud83d"},
        {"liked": (1, 1)},
        {"liked": (-1,)},
        {"liked": (0,), "disliked": (0,)},
        {"rating": 0},
        {"rating": 6},
        {"rating": True},
        {"accepted": "no"},
        {"rater": "r\udc00"},
    ],
)
def test_unusable_feedback_is_refused(changed) -> None:
    with pytest.raises(RefinementError):
        Feedback(**changed)


def test_feedback_speaks_of_pictures_that_are_there() -> None:
    assert Feedback(liked=(1, 0)).checked(2).chosen == 1
    assert Feedback(disliked=(0,)).checked(2).chosen is None
    with pytest.raises(RefinementError, match="picture 3"):
        Feedback(liked=(2,)).checked(2)
    with pytest.raises(RefinementError, match="accepted"):
        Feedback(accepted=True).checked(2)
    with pytest.raises(RefinementError, match="picture 3"):
        a_round(feedback=Feedback(liked=(2,)))


@pytest.mark.parametrize("score", [math.nan, math.inf, "1", None, True])
def test_scores_are_finite_numbers(score) -> None:
    with pytest.raises(RefinementError, match="reward"):
        Picture(HASH, 1, {"reward": score})


def test_records_do_not_share_what_they_were_given() -> None:
    scores, details = {"clip": 1}, {"places": (1, 2)}
    picture, weights = Picture(HASH, 1, scores), Weights("rule", {}, {"clip": 1}, details)
    scores["clip"], details["places"] = 2, ()
    assert picture.scores == {"clip": 1.0}
    assert weights.details == {"places": [1, 2]}


@pytest.mark.parametrize("details", [{"x": math.nan}, {"x": object()}, {"x": "\ud800"}, {"x": "y" * 1_000_001}])
def test_details_must_fit_json(details) -> None:
    with pytest.raises(RefinementError, match="details"):
        Weights("rule", {}, {}, details)


@pytest.mark.parametrize(
    "changed",
    [
        {"key": "x"},
        {"number": 2},
        {"parent": "b" * 32},
        {"attempt": -1},
        {"pictures": ()},
        {"seconds": -1.0},
        {"prompt": "x" * (LONGEST_TEXT + 1)},
        {"embedding": {"rate": math.inf}},
    ],
)
def test_unusable_rounds_are_refused(changed) -> None:
    with pytest.raises(RefinementError):
        a_round(**changed)


def test_a_state_says_what_the_next_round_follows() -> None:
    state = SessionState("c" * 32, "cats", 0, 7, "a cat", "")
    assert (state.number, state.last, state.feedback, state.current_prompt) == (1, None, None, "a cat")
    said = Feedback("darker", liked=(1,), accepted=True)
    first = a_round(prompt="a black cat", feedback=said)
    state = dataclasses.replace(state, path=(first,))
    assert (state.number, state.last, state.feedback, state.current_prompt) == (2, first, said, "a black cat")
    assert state.accepted
    assert first.chosen == first.pictures[1]


def test_what_was_accepted_stays_accepted_in_the_rounds_after_it() -> None:
    first = a_round(feedback=Feedback(liked=(0,), accepted=True))
    second = a_round(key="e" * 32, parent=first.key, number=2, feedback=Feedback("more", liked=(0,)))
    state = SessionState("c" * 32, "cats", 0, 7, "a cat", "", path=(first, second))
    assert state.accepted and state.accepted_in == first
    assert not dataclasses.replace(state, path=(dataclasses.replace(first, feedback=Feedback()), second)).accepted


def test_a_schedule_that_was_kept_before_tests_had_names_has_none():
    values = plain_schedule(schedule(arm="A", test="type karras"))
    assert schedule_of(values).test == "type karras"
    del values["test"]
    assert schedule_of(values) == schedule(arm="A")


def test_a_schedule_that_was_kept_before_own_noise_is_of_the_first_seeds_noise():
    values = plain_schedule(schedule(own_noise=True))
    assert schedule_of(values).own_noise and schedule_of(values) == schedule(own_noise=True)
    del values["own_noise"]
    assert schedule_of(values) == schedule(own_noise=False)
