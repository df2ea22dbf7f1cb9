"""Refinement sessions: rounds, undo, branches, replay, and that everything written comes back as it was."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from attune.nodes.refinement.checks import LARGEST_SEED, LONGEST_TEXT, RefinementError, StaleError, UnknownError
from attune.nodes.refinement.latent_files import LatentFolder, latents_digest
from attune.nodes.refinement.records import Feedback, SessionState
from attune.nodes.refinement.store import SessionStore
from attune.tests.refinement_sessions import made, opened, pixels_of, play, propose

TEXTS = [
    "dunkler, bitte – mit „Anführung“",
    "もっと暗く。背景を青に",
    "اجعل القطة أكبر قليلا",
    "עברית מימין \u200f לשמאל",
    "👩‍👩‍👧‍👦 more 🐈‍⬛ less 🐕",
    "Z̴̡̛a̷̢l̵g̶o and e\u0301 apart from é",
    "line\none\r\n\ttwo \x00 nul \x1b[31m",
    '\'; DROP TABLE sessions; -- " \\ {"accepted":true}',
    "</script><script>alert(1)</script>",
    "   blanks stay   ",
]


@pytest.fixture
def sessions(tmp_path: Path) -> SessionStore:
    return opened(tmp_path)


@pytest.fixture
def state(sessions: SessionStore) -> SessionState:
    return sessions.create("cats", "a cat", "dogs", 7)


# ---- sessions ----


def test_a_session_is_found_by_name_and_key_and_comes_back_whole(sessions: SessionStore, tmp_path: Path):
    assert sessions.names() == [] and not sessions.store.path.exists(), "asking makes no file"
    state = sessions.create(" The  Cat ", "a cat", "dogs", LARGEST_SEED)
    assert (state.name, state.prompt, state.negative, state.seed) == ("The Cat", "a cat", "dogs", LARGEST_SEED)
    assert (state.number, state.path, state.open, state.attempt, state.revision) == (1, (), None, 0, 0)
    other = opened(tmp_path)
    assert other.state(state.key) == state
    assert other.find("the cat").key == other.find(state.key).key == state.key
    assert other.find("dog") is None


def test_names_are_taken_once(sessions: SessionStore, state: SessionState):
    with pytest.raises(RefinementError, match="'CATS'"):
        sessions.create("CATS", "x")
    assert sessions.find_or_create("CATS", "x") == state
    second = sessions.create("dogs", "a dog")
    with pytest.raises(RefinementError, match="Another session"):
        sessions.rename(second.key, "Cats")
    assert sessions.rename(second.key, "Wolves") == "Wolves"
    assert sessions.rename(second.key, "WOLVES") == "WOLVES", "its own name in other letters"
    assert {"cats", "WOLVES"} == set(sessions.names())
    assert sessions.state(second.key).revision == 0, "a name changes nothing that a run makes"


@pytest.mark.parametrize("name", ["", " \u200b ", "x" * 61, "ab" * 16, "half \ud800"])
def test_unusable_names_are_refused(sessions: SessionStore, name: str):
    with pytest.raises(RefinementError):
        sessions.create(name, "a cat")
    assert sessions.names() == []


def test_the_first_wish_changes_until_a_round_follows_from_it(sessions: SessionStore, state: SessionState):
    assert sessions.reword(state.key, 0, "a cat", "dogs", 7) == state, "the same wish changes nothing"
    state = sessions.reword(state.key, 0, "a dog", "", 8)
    assert (state.prompt, state.negative, state.seed, state.revision) == ("a dog", "", 8, 1)
    state = play(sessions, state)
    with pytest.raises(RefinementError, match="rounds follow"):
        sessions.reword(state.key, state.revision, "a bird")
    assert sessions.state(state.key) == state


def test_what_is_not_there_is_said(sessions: SessionStore, state: SessionState):
    for key in ("0" * 32, "../../etc/passwd", ""):
        with pytest.raises(UnknownError):
            sessions.state(key)
        with pytest.raises(UnknownError):
            sessions.delete(key)
    for call in (
        lambda: sessions.state(state.key, "0" * 32),
        lambda: sessions.branch(state.key, 0, "0" * 32),
        lambda: sessions.accept(state.key, 0, "0" * 32, 0),
        lambda: sessions.rate(state.key, "0" * 32, "Ann", {0: 3}),
    ):
        with pytest.raises(UnknownError, match="no such round"):
            call()


# ---- rounds ----


def test_a_round_comes_back_as_it_was_made(sessions: SessionStore, state: SessionState, tmp_path: Path):
    inputs = made((LARGEST_SEED, 3), negative="blur", embedding={"rate": 0.1, "liked": [1, 2]}, lora="ab12")
    round_ = sessions.propose(state.key, 0, **inputs)
    said = Feedback("darker", liked=(1,), disliked=(0,), rating=4, rater="Ann")
    state = sessions.commit(state.key, 0, round_.key, said)
    assert state.path == (dataclasses.replace(round_, feedback=said),)
    assert (round_.parent, round_.number, round_.attempt, round_.negative) == (None, 1, 0, "blur")
    assert (round_.embedding, round_.lora, round_.seconds) == ({"rate": 0.1, "liked": [1, 2]}, "ab12", 1.5)
    assert (round_.schedule, round_.weights) == (inputs["schedule"], inputs["weights"])
    assert round_.pictures == inputs["pictures"] and round_.pictures[0].seed == LARGEST_SEED
    assert opened(tmp_path).state(state.key) == state
    files = opened(tmp_path).files(state.key)
    assert np.array_equal(files.pictures.get(round_.pictures[1].hash), pixels_of(3))
    assert torch.equal(files.latents.get(round_.latents), inputs["latents"])
    assert (state.number, state.last.chosen.seed, state.feedback) == (2, 3, said)


def test_the_same_run_twice_is_one_round_and_another_takes_its_place(sessions: SessionStore, state: SessionState):
    first = propose(sessions, state)
    rows = len(sessions.audit_rows(state.key))
    assert propose(sessions, state, seconds=99.0) == first, "how long it took is no input"
    assert len(sessions.audit_rows(state.key)) == rows
    assert sessions.state(state.key).revision == 0, "so that a run does not begin another one"
    second = propose(sessions, state, (2, 3))
    assert second.key != first.key
    assert sessions.state(state.key).open == second
    assert set(sessions.files(state.key).pictures.names()) == {picture.hash for picture in second.pictures}
    assert set(sessions.files(state.key).latents.names()) == {second.latents}


def test_a_direction_is_kept_with_its_round_and_goes_with_it(sessions: SessionStore, state: SessionState):
    one, other = torch.randn(4, 2), torch.randn(4, 2)
    led = {"embedding": {"direction": latents_digest(one)}, "direction": one}
    first = propose(sessions, state, **led)
    files = sessions.files(state.key)
    assert torch.equal(files.directions.get(first.embedding["direction"]), one)
    # As in a replay, which names what is there already.
    assert propose(sessions, state, embedding=led["embedding"]) == first
    second = propose(sessions, state, embedding={"direction": latents_digest(other)}, direction=other)
    assert set(files.directions.names()) == {latents_digest(other)}
    state = sessions.commit(state.key, 0, second.key, Feedback(liked=(0,)))
    third = propose(sessions, state)
    assert "direction" not in third.embedding and set(files.directions.names()) == {latents_digest(other)}
    folder = files.directions.folder
    assert sessions.delete(state.key) == "" and not folder.exists()


def test_a_direction_that_is_gone_says_what_to_do(sessions: SessionStore, state: SessionState):
    with pytest.raises(UnknownError, match="follow of Refine Conditioning"):
        sessions.files(state.key).directions.get("a" * 64)


@pytest.mark.parametrize(
    "changed",
    [{"prompt": "b"}, {"negative": "b"}, {"embedding": {"rate": 0.5}}, {"weights": None}, {"lora": "ab"},
     {"latents": torch.tensor([[1.0], [2.5]])}],
)  # fmt: skip
def test_every_input_makes_another_round(sessions: SessionStore, state: SessionState, changed: dict):
    assert propose(sessions, state).key != propose(sessions, state, **changed).key


def test_pixels_must_be_those_of_the_pictures(sessions: SessionStore, state: SessionState):
    inputs = made()
    first, second = (picture.hash for picture in inputs["pictures"])
    with pytest.raises(RefinementError, match="not given"):
        sessions.propose(state.key, 0, **{**inputs, "pixels": {first: inputs["pixels"][first]}})
    with pytest.raises(RefinementError, match="are those of"):
        sessions.propose(state.key, 0, **{**inputs, "pixels": {first: inputs["pixels"][second]}})
    assert sessions.state(state.key).open is None


def test_whoever_comes_late_changes_nothing(sessions: SessionStore, state: SessionState):
    first = propose(sessions, state)
    second = propose(sessions, state, (3, 4))
    late = [
        lambda: sessions.commit(state.key, 0, first.key, Feedback()),
        lambda: sessions.again(state.key, 0, first.key),
        lambda: sessions.commit(state.key, 1, second.key, Feedback()),
        lambda: propose(sessions, dataclasses.replace(state, revision=1), (5, 6)),
        lambda: sessions.undo(state.key, 1),
        lambda: sessions.redo(state.key, -1),
        lambda: sessions.branch(state.key, 1, None),
        lambda: sessions.reword(state.key, 1, "x"),
        lambda: sessions.accept(state.key, 1, second.key, 0),
    ]
    rows = sessions.audit_rows(state.key)
    for call in late:
        with pytest.raises(StaleError, match="Nothing was changed"):
            call()
    assert sessions.audit_rows(state.key) == rows
    sessions.commit(state.key, 0, second.key, Feedback(liked=(0,)))
    with pytest.raises(StaleError):
        sessions.commit(state.key, 0, second.key, Feedback(liked=(0,)))
    assert len(sessions.state(state.key).path) == 1


def test_feedback_about_pictures_that_are_not_there_changes_nothing(sessions: SessionStore, state: SessionState):
    round_ = propose(sessions, state)
    with pytest.raises(RefinementError, match="no picture 3"):
        sessions.commit(state.key, 0, round_.key, Feedback(liked=(2,)))
    assert sessions.state(state.key).open == round_


def test_other_pictures_are_another_attempt_of_the_same_round(sessions: SessionStore, state: SessionState):
    first = propose(sessions, state)
    state = sessions.again(state.key, 0, first.key)
    assert (state.attempt, state.open, state.number, state.revision) == (1, None, 1, 1)
    with pytest.raises(StaleError):
        sessions.again(state.key, 1, first.key)
    second = propose(sessions, state, (3, 4))
    assert (second.number, second.attempt) == (1, 1)
    assert sessions.state(state.key).attempt == 1, "a run alone is no new attempt"
    state = sessions.commit(state.key, 1, second.key, Feedback(liked=(0,)))
    assert (state.attempt, state.number) == (0, 2)
    assert sessions.record(state.key).passed == (first,)
    assert sessions.files(state.key).hold(first), "what was passed over stays on the record"


# ---- undo, redo, branches ----


def test_undo_and_redo_walk_the_path(sessions: SessionStore, state: SessionState):
    with pytest.raises(RefinementError, match="beginning"):
        sessions.undo(state.key, 0)
    with pytest.raises(RefinementError, match="nothing to redo"):
        sessions.redo(state.key, 0)
    one = play(sessions, state)
    two = play(sessions, one, (3, 4))
    back = sessions.undo(state.key, two.revision)
    assert back.path == one.path
    start = sessions.undo(state.key, back.revision)
    assert start.path == ()
    assert sessions.redo(state.key, start.revision).path == one.path
    again = sessions.redo(state.key, start.revision + 1)
    assert again.path == two.path
    assert again.revision == two.revision + 4
    with pytest.raises(RefinementError, match="nothing to redo"):
        sessions.redo(state.key, again.revision)


def test_after_undo_the_pictures_wait_for_another_answer(sessions: SessionStore, state: SessionState):
    state = play(sessions, state)
    (first,) = state.path
    state = sessions.undo(state.key, state.revision)
    waiting = state.open
    assert dataclasses.replace(waiting, key=first.key, feedback=first.feedback) == first and waiting.feedback is None
    assert propose(sessions, state) == waiting, "and a run makes them again as they were"
    assert sessions.tree(state.key).earlier_answer(waiting) == first.feedback, "which a page can begin with"
    other = propose(sessions, state, (8, 9))
    assert sessions.tree(state.key).earlier_answer(other) is None
    waiting = propose(sessions, state)
    state = sessions.commit(state.key, state.revision, waiting.key, Feedback("brighter", liked=(1,)))
    assert sessions.tree(state.key).rounds == (first, state.last), "both answers stand in the tree"
    with pytest.raises(RefinementError, match="nothing to redo"):
        sessions.redo(state.key, state.revision)


def test_branches_are_compared(sessions: SessionStore, state: SessionState):
    one = play(sessions, state)
    two = play(sessions, one, (3, 4))
    three = play(sessions, two, (5, 6))
    at_one = sessions.branch(state.key, three.revision, one.last.key)
    assert at_one.path == one.path
    with pytest.raises(RefinementError, match="already"):
        sessions.branch(state.key, at_one.revision, one.last.key)
    other = play(sessions, at_one, (7, 8))
    assert other.path == (*one.path, other.last)
    assert sessions.branches(state.key) == (three.path, other.path)
    assert sessions.path(state.key, two.last.key) == two.path
    compared = sessions.compare(state.key, three.last.key, other.last.key)
    assert (compared.common, compared.first, compared.second) == (one.path, three.path[1:], other.path[1:])
    beginning = sessions.branch(state.key, other.revision, None)
    assert beginning.path == () and beginning.open.pictures == one.last.pictures


def test_an_undone_attempt_keeps_its_number(sessions: SessionStore, state: SessionState):
    state = sessions.again(state.key, 0, propose(sessions, state).key)
    state = play(sessions, state, (3, 4))
    state = sessions.undo(state.key, state.revision)
    assert (state.attempt, state.open.attempt) == (1, 1)
    state = sessions.again(state.key, state.revision, state.open.key)
    assert state.attempt == 2


def test_a_replay_is_the_state_of_the_rounds_parent(sessions: SessionStore, state: SessionState):
    one = play(sessions, state)
    two = play(sessions, sessions.again(state.key, one.revision, propose(sessions, one, (3, 4)).key), (5, 6))
    propose(sessions, two, (7, 8))
    again = sessions.state(state.key, two.last.key)
    assert (again.path, again.replay, again.attempt, again.open) == (one.path, two.last, 1, None)
    assert again.number == two.last.number == 2
    sessions.replayed(state.key, two.last.key, exact=True)
    row = sessions.audit_rows(state.key)[-1]
    assert (row.kind, row.round, row.body["detail"]) == ("replayed", two.last.key, {"exact": True})
    assert sessions.state(state.key).revision == two.revision


def test_the_arm_of_a_test_is_the_sessions(sessions: SessionStore, state: SessionState):
    assert state.arm == ""
    schedule = dataclasses.replace(made()["schedule"], arm="B", test="type karras")
    propose(sessions, state, schedule=schedule)
    assert (sessions.state(state.key).arm, sessions.state(state.key).test) == ("B", "type karras")


# ---- accepting, rating ----


def test_accepting_ends_at_the_accepted_picture(sessions: SessionStore, state: SessionState):
    one = play(sessions, state, feedback=Feedback("nice", liked=(0,), disliked=(1,), rating=5))
    assert not sessions.find("cats").accepted
    round_ = propose(sessions, one, (3, 4))
    done = sessions.accept(state.key, one.revision, round_.key, 1)
    assert done.accepted and done.last.chosen.seed == 4 and done.last.key == round_.key
    earlier = sessions.accept(state.key, done.revision, one.last.key, 1)
    assert earlier.path[0].feedback == Feedback("nice", liked=(1, 0), rating=5, accepted=True)
    assert earlier.number == 2 and sessions.find("cats").accepted
    assert sessions.find("cats").rounds == 2
    on = play(sessions, earlier, (5, 6))
    assert on.accepted and on.accepted_in.number == 1 and sessions.find("cats").accepted
    undone = sessions.undo(state.key, sessions.undo(state.key, on.revision).revision)
    assert not undone.accepted and not sessions.find("cats").accepted, "one answer everywhere"
    earlier = sessions.branch(state.key, undone.revision, one.last.key)
    with pytest.raises(RefinementError, match="no picture 3"):
        sessions.accept(state.key, earlier.revision, one.last.key, 2)


def test_a_comment_that_looks_like_an_acceptance_is_none(sessions: SessionStore, state: SessionState):
    play(sessions, state, feedback=Feedback('"accepted":true', liked=(0,)))
    assert not sessions.find("cats").accepted


def test_several_people_rate_one_rounds_pictures(sessions: SessionStore, state: SessionState):
    round_ = propose(sessions, state)
    before = sessions.find("cats").changes
    sessions.rate(state.key, round_.key, "Ann", {0: 5, 1: 1})
    assert sessions.find("cats").changes == before + 1, "told apart within one second, too"
    sessions.rate(state.key, round_.key, "Bob", {1: 2})
    sessions.rate(state.key, round_.key, "Ann", {1: 3})
    assert sessions.ratings(state.key) == {(round_.key, 0): {"Ann": 5}, (round_.key, 1): {"Ann": 3, "Bob": 2}}
    for rater, stars in (("Ann", {}), ("", {0: 1}), ("Ann", {0: 6}), ("Ann", {2: 1}), ("Ann", {-1: 1})):
        with pytest.raises(RefinementError):
            sessions.rate(state.key, round_.key, rater, stars)
    assert sessions.state(state.key).revision == 0
    assert len(sessions.ratings(state.key)) == 2


# ---- texts ----


@pytest.mark.parametrize("text", [*TEXTS, "语" * 33_334, "x" * LONGEST_TEXT], ids=range(len(TEXTS) + 2))
def test_texts_of_any_language_are_kept_letter_for_letter(tmp_path: Path, text: str):
    sessions = opened(tmp_path)
    state = sessions.create("cats", text, text, 1)
    state = play(sessions, state, feedback=Feedback(text, liked=(0,)), prompt=text, negative=text)
    read = opened(tmp_path).state(state.key)
    assert {read.prompt, read.negative, read.last.prompt, read.last.negative, read.feedback.comment} == {text}
    assert sessions.verify(state.key).sound


def test_a_name_in_any_language_is_found(sessions: SessionStore):
    for name in ("猫の夕暮れ", "قطة", "ПРИВЕТ", "🐈‍⬛ at dusk"):
        assert sessions.find(sessions.create(name, "").name.lower()).name == name


# ---- latents ----


@pytest.mark.parametrize(
    "latents",
    [torch.randn(2, 4, 3, 5), torch.randn(1, 4, 2, 3, 3).to(torch.bfloat16), torch.zeros(0, 4), torch.tensor(1.5),
     torch.randn(4, 4).t(), torch.tensor([float("nan"), -0.0])],
)  # fmt: skip
def test_latents_come_back_bit_by_bit(tmp_path: Path, latents: torch.Tensor):
    folder = LatentFolder(tmp_path)
    digest = folder.put(latents)
    read = LatentFolder(tmp_path).get(digest)
    assert read.dtype == latents.dtype and read.shape == latents.shape
    assert latents_digest(read) == digest == latents_digest(latents.clone())
    assert list(folder.names()) == [digest]


def test_a_digest_tells_type_shape_and_the_last_bit_apart():
    zero = torch.zeros(2, 3)
    last = zero.clone()
    last[1, 2] = torch.finfo(torch.float32).tiny / 2**23
    kinds = [zero, last, zero.reshape(3, 2), zero.to(torch.float16), -zero]
    assert len({latents_digest(latents) for latents in kinds}) == len(kinds)


def test_latents_that_are_damaged_are_refused_and_kept_anew(tmp_path: Path):
    folder, latents = LatentFolder(tmp_path), torch.randn(2, 4)
    digest = folder.put(latents)
    other = folder.put(torch.randn(2, 4))
    folder.path(digest).write_bytes(folder.path(other).read_bytes())
    with pytest.raises(UnknownError, match="not what the round made"):
        folder.get(digest)
    folder.path(digest).write_bytes(b"half")
    with pytest.raises(UnknownError, match="cannot be read"):
        folder.get(digest)
    assert folder.put(latents) == digest and torch.equal(folder.get(digest), latents)
    folder.remove(digest)
    with pytest.raises(UnknownError, match="not there any more"):
        folder.get(digest)
    for name in ("../x", "", digest.upper()):
        with pytest.raises(UnknownError):
            folder.path(name)
