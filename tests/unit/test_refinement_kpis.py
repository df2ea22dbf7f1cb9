"""Figures of sessions, counted by hand from sessions that were really played."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from attune.nodes.refinement.kpis import gains, judge_of, session_kpis, several_kpis, stopped_paying
from attune.nodes.refinement.records import Feedback, Weights
from attune.nodes.refinement.store import SessionStore
from attune.tests.refinement_sessions import made, opened, play, propose


@pytest.fixture
def sessions(tmp_path: Path) -> SessionStore:
    return opened(tmp_path)


def test_an_accepted_session_by_hand(sessions: SessionStore):
    """Round 1 (pictures 1, 2; chosen 2), other pictures once, round 2 (5, 6; chosen 5), accepted in round 3 (9)."""
    state = sessions.create("cats", "a cat")
    state = play(sessions, state, (1, 2), Feedback(liked=(1,), rating=2), seconds=1.0)
    state = sessions.again(state.key, state.revision, propose(sessions, state, (3, 4)).key)
    state = play(sessions, state, (5, 6), Feedback(liked=(0,), rating=4), seconds=2.0)
    round_ = propose(sessions, state, (9,), seconds=6.0)
    sessions.accept(state.key, state.revision, round_.key, 0)
    kpis = session_kpis(sessions.record(state.key))
    assert (kpis.accepted, kpis.rounds, kpis.rounds_to_accept, kpis.regenerations, kpis.choices) == (True, 3, 3, 1, 4)
    assert (kpis.pictures, kpis.satisfaction, kpis.ratings, kpis.seconds_per_round) == (7, 3.0, {1: 2, 2: 4}, 3.0)
    assert (kpis.judge, kpis.levels, kpis.gains) == ("judge", (2.0, 5.0, 9.0), (3.0, 4.0))
    assert kpis.advice == "accepted" and kpis.stopped_paying is None


def test_a_session_without_a_round(sessions: SessionStore):
    kpis = session_kpis(sessions.record(sessions.create("cats", "a cat").key))
    assert (kpis.accepted, kpis.rounds, kpis.choices, kpis.pictures, kpis.elapsed) == (False, 0, 0, 0, 0)
    assert kpis.satisfaction is kpis.seconds_per_round is kpis.rounds_to_accept is kpis.least_gain is None
    assert (kpis.judge, kpis.levels, kpis.gains, kpis.advice) == ("", (), (), "go on")


def test_an_acceptance_that_was_undone_is_none(sessions: SessionStore):
    state = play(sessions, sessions.create("cats", "a cat"), (1, 2), Feedback(liked=(0,), accepted=True))
    assert session_kpis(sessions.record(state.key)).rounds_to_accept == 1
    state = sessions.undo(state.key, state.revision)
    kpis = session_kpis(sessions.record(state.key))
    assert (kpis.accepted, kpis.rounds_to_accept, kpis.pictures) == (False, None, 2)
    state = sessions.commit(state.key, state.revision, state.open.key, Feedback(liked=(1,)))
    state = play(sessions, state, (3, 4), Feedback(liked=(0,), accepted=True))
    kpis = session_kpis(sessions.record(state.key))
    assert (kpis.accepted, kpis.rounds, kpis.rounds_to_accept) == (True, 2, 3), "three answers, two on the way"
    assert kpis.pictures == 4, "the pictures that were answered twice were made once"


def test_where_nothing_is_chosen_the_mean_is_the_level(sessions: SessionStore):
    state = play(sessions, sessions.create("cats", "a cat"), (1, 4), Feedback("neither", disliked=(0, 1)))
    assert session_kpis(sessions.record(state.key)).levels == (2.5,)


def test_the_judge_is_the_heaviest_reward_that_scored_everything(sessions: SessionStore):
    pictures = made()["pictures"]

    def scored(**scores: float) -> list:
        return [dataclasses.replace(picture, scores=scores) for picture in pictures]

    state = sessions.create("cats", "a cat")
    state = play(sessions, state, pictures=scored(a=1, b=2, c=3))
    state = play(sessions, state, pictures=[*scored(a=1, b=2, c=3)[:1], *scored(a=1, b=2)[1:]])
    assert judge_of(state.path) == "a", "no weight tells them apart, c did not score everything"
    state = play(
        sessions, state, pictures=scored(a=1, b=2), weights=Weights("rule", {}, {"a": 0.2, "b": 0.5, "c": 1.0})
    )
    assert judge_of(state.path) == "b"
    assert session_kpis(sessions.record(state.key), judge="c").levels == (3.0, 3.0, None)
    roles = {"roles": {"a": "", "b": "diversity", "c": "relevance"}}
    state = play(sessions, state, pictures=scored(a=1, b=2), weights=Weights("rule", {}, {"b": 1.0}, roles))
    assert judge_of(state.path) == "a", "how different pictures are is no measure of one"


@pytest.mark.parametrize(
    ("levels", "least", "stopped"),
    [
        ((1.0, 2.0, 3.0), 0.5, None),
        ((1.0, 2.0, 2.2, 2.3), 0.5, 2),
        ((1.0, 2.0, 2.2), 0.5, None),
        ((3.0, 1.0, 2.0), 0.5, 1),
        ((1.0, None, 1.2, 1.3), 0.5, 1),
        ((1.0, 1.0, 1.0), 0.0, 1),
        ((None, None, None), 0.5, None),
        ((1.0, 2.0, 2.0, 9.0), 0.5, None),
    ],
)
def test_when_rounds_stop_paying(levels: tuple, least: float, stopped: int | None):
    """Told after two rounds without a gain of `least` over the best so far."""
    assert stopped_paying(levels, least) == stopped


def test_gains_where_a_level_is_missing():
    assert gains((1.0, 3.0, None, 4.0)) == (2.0, None, None)
    assert gains(()) == gains((1.0,)) == ()


def test_advice_follows_gain_and_cap(sessions: SessionStore):
    state = sessions.create("cats", "a cat")
    advice = []
    for numbers in ((1, 20), (20, 2), (20, 3), (20, 30), (31, 5), (50, 6)):
        chosen = max(range(2), key=lambda place, numbers=numbers: numbers[place])
        state = play(sessions, state, numbers, Feedback(liked=(chosen,)))
        advice.append(session_kpis(sessions.record(state.key)).advice)
    assert advice == ["go on", "go on", "stop", "go on", "go on", "hand over"]
    kpis = session_kpis(sessions.record(state.key), cap=7)
    assert kpis.advice == "go on" and "6" not in kpis.reason
    assert session_kpis(sessions.record(state.key), least_gain=100.0, cap=9).stopped_paying == 1
    assert "100" in session_kpis(sessions.record(state.key), least_gain=100.0, cap=9).reason


def test_several_sessions_together(sessions: SessionStore):
    keys = []
    for number, rounds in enumerate((1, 2, 2, 3)):
        state = sessions.create(f"session {number}", "a cat")
        schedule = dataclasses.replace(made()["schedule"], arm="AB"[number % 2])
        for turn in range(rounds):
            done = turn == rounds - 1 and number != 3
            said = Feedback(liked=(0,), accepted=done, rating=1 + turn)
            state = play(sessions, state, (10 * number + turn,), said, schedule=schedule, seconds=turn)
        sessions.rate(state.key, state.last.key, "Ann", {0: 1 + number})
        sessions.rate(state.key, state.last.key, "Bob", {0: 1 + number})
        keys.append(state.key)
    kpis = several_kpis([sessions.record(key) for key in keys])
    assert (kpis.sessions, kpis.accepted, kpis.accepted_by) == (4, 3, {1: 0.25, 2: 0.75})
    assert kpis.acceptance[0] < 0.75 < kpis.acceptance[1]
    assert (kpis.rounds_to_accept, kpis.regenerations, kpis.choices) == (pytest.approx(5 / 3), 0, 2)
    assert kpis.satisfaction_by_round == {1: 1, 2: 2, 3: 3}
    assert kpis.satisfaction == pytest.approx((4 * 1 + 3 * 2 + 3) / 8)
    assert kpis.seconds_per_round == pytest.approx((3 * 1 + 2) / 8)
    assert (kpis.agreement.alpha, kpis.agreement.units) == (1, 4)
    assert (kpis.arms.a.accepted, kpis.arms.a.sessions, kpis.arms.b.accepted, kpis.arms.b.sessions) == (2, 2, 1, 2)
    nothing = several_kpis([])
    assert (nothing.sessions, nothing.acceptance, nothing.arms, nothing.satisfaction) == (0, (0.0, 1.0), None, None)
