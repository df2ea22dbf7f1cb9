"""Figures of sessions, counted by hand from sessions that were really played."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from attune.nodes.refinement.kpis import arms_of, gains, judge_of, session_kpis, several_kpis, stopped_paying
from attune.nodes.refinement.records import REWARDS, Feedback, Weights
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
    assert (kpis.accepted, kpis.rounds, kpis.rounds_to_accept) == (True, 2, 2), "the first was answered twice"
    assert kpis.choices == 3
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


def test_of_a_cost_less_is_a_gain(sessions: SessionStore):
    state = sessions.create("cats", "a cat")
    costly = Weights("rule", {"judge": 1.0}, {"judge": 1.0}, {"costs": ["judge"]})
    for numbers in ((9, 20), (5, 8), (3, 4)):
        state = play(sessions, state, numbers, Feedback(liked=(0,)), weights=costly)
    kpis = session_kpis(sessions.record(state.key))
    assert kpis.levels == (9.0, 5.0, 3.0) and kpis.gains == (4.0, 2.0) and kpis.stopped_paying is None


def test_rounds_to_accept_outlive_a_branch(sessions: SessionStore):
    state = play(sessions, sessions.create("cats", "a cat"), (1, 2), Feedback("darker", liked=(0,)))
    state = play(sessions, state, (3, 4), Feedback(liked=(0,), accepted=True))
    taken = state.last.key
    assert session_kpis(sessions.record(state.key)).rounds_to_accept == 2
    state = sessions.undo(state.key, state.revision)
    assert session_kpis(sessions.record(state.key)).rounds_to_accept is None
    state = sessions.branch(state.key, state.revision, taken)
    kpis = session_kpis(sessions.record(state.key))
    assert kpis.accepted and kpis.rounds_to_accept == 2


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
    (found,) = kpis.tests.values()
    assert (found.a.accepted, found.a.sessions, found.b.accepted, found.b.sessions) == (2, 2, 1, 2)
    nothing = several_kpis([])
    assert (nothing.sessions, nothing.acceptance, nothing.tests, nothing.satisfaction) == (0, (0.0, 1.0), {}, None)


def test_sessions_that_were_given_up_count_and_tests_do_not_mix(sessions: SessionStore):
    """Ten of arm B were left after two rounds, five of each arm were accepted at once; another test beside it."""

    def begun(name: str, arm: str, test: str, *, rounds: int = 1, accepted: bool = True) -> None:
        state = sessions.create(name, "a cat")
        schedule = dataclasses.replace(made((1,))["schedule"], arm=arm, test=test)
        for turn in range(rounds):
            state = play(sessions, state, (turn,), Feedback(liked=(0,), accepted=accepted), schedule=schedule)

    for number in range(10):
        begun(f"left {number}", "B", "one", rounds=2, accepted=False)
    for number in range(5):
        begun(f"B {number}", "B", "one")
        begun(f"A {number}", "A", "one")
    begun("other", "A", "two", accepted=False)
    sessions.create("no round", "a cat")
    records = [sessions.record(found.key) for found in sessions.summaries()]
    kpis = several_kpis(records)
    assert (kpis.sessions, kpis.accepted, kpis.young) == (21, 10, 11)
    assert several_kpis(records, now=records[0].changed + 8 * 86_400).young == 0
    one, two = kpis.tests["one"], kpis.tests["two"]
    assert (one.a.accepted, one.a.sessions, one.b.accepted, one.b.sessions) == (5, 5, 5, 15)
    assert "A 5 of 5 against B 5 of 15" in one.words
    assert (two.a.sessions, two.b.sessions) == (1, 0)


def test_old_rounds_of_a_test_count_with_its_named_ones(sessions: SessionStore):
    state = sessions.create("cats", "a cat")
    for turn, test in enumerate(("", "type karras")):
        schedule = dataclasses.replace(made((1,))["schedule"], arm="A", test=test)
        state = play(sessions, state, (turn,), schedule=schedule)
    assert arms_of(sessions.record(state.key)) == {"type karras": "A"}


def test_going_on_after_an_acceptance_takes_nothing_back(sessions: SessionStore):
    state = play(sessions, sessions.create("cats", "a cat"), (1, 2), Feedback(liked=(0,), accepted=True))
    state = play(sessions, state, (3, 4))
    record = sessions.record(state.key)
    kpis, several = session_kpis(record), several_kpis([record])
    assert (kpis.accepted, kpis.rounds, kpis.rounds_to_accept) == (True, 2, 1)
    assert state.accepted and sessions.find("cats").accepted and several.accepted == 1


def test_answers_that_were_undone_are_no_further_rounds(sessions: SessionStore):
    """Three times undone and answered anew, then accepted in round 2; then that undone and done again."""
    state = play(sessions, sessions.create("cats", "a cat"), (1, 2))
    for _ in range(3):
        state = sessions.undo(state.key, state.revision)
        state = sessions.commit(state.key, state.revision, state.open.key, Feedback("y", liked=(1,)))
    state = play(sessions, state, (3, 4), Feedback(liked=(0,), accepted=True))
    kpis = session_kpis(sessions.record(state.key))
    assert (kpis.rounds, kpis.rounds_to_accept, kpis.pictures) == (2, 2, 4)
    state = sessions.redo(state.key, sessions.undo(state.key, state.revision).revision)
    assert session_kpis(sessions.record(state.key)).rounds_to_accept == 2


def test_the_time_to_an_acceptance_ends_at_the_one_that_stands(sessions: SessionStore):
    state = play(sessions, sessions.create("cats", "a cat"), (1, 2), Feedback(liked=(0,), accepted=True))
    state = sessions.undo(state.key, state.revision)
    state = sessions.commit(state.key, state.revision, state.open.key, Feedback(liked=(1,)))
    state = play(sessions, state, (3, 4), Feedback(liked=(0,), accepted=True))
    record = sessions.record(state.key)
    begun = record.rows[0].made
    rows = tuple(dataclasses.replace(row, made=begun + 100 * row.number) for row in record.rows)
    first, last = (row.number for row in rows if row.kind == "accepted")
    proposed = next(row.number for row in rows if row.kind == "proposed")
    elapsed = session_kpis(dataclasses.replace(record, rows=rows)).elapsed
    assert elapsed == 100 * (last - proposed) != 100 * (first - proposed)


def test_nobody_was_asked_where_the_rewards_decided(sessions: SessionStore):
    state = play(sessions, sessions.create("cats", "a cat"), (1, 2), Feedback(liked=(0,), rater=REWARDS))
    state = play(sessions, state, (3, 4), Feedback("darker", liked=(0,)))
    kpis = session_kpis(sessions.record(state.key))
    assert (kpis.rounds, kpis.choices) == (2, 1)
