"""What the page may send and what it gets: odd bodies are refused in words, and buttons say what works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from attune.nodes.refinement import views
from attune.nodes.refinement.checks import RefinementError, UnknownError
from attune.nodes.refinement.store import SessionStore
from attune.tests.refinement_sessions import opened, play


@pytest.fixture
def sessions(tmp_path: Path) -> SessionStore:
    return opened(tmp_path)


def test_redo_is_offered_only_after_an_undo(sessions: SessionStore):
    state = play(sessions, play(sessions, sessions.create("cats", "a cat")), (3, 4))
    assert not views.session_view(sessions, state.key)["can_redo"]
    gone_back = sessions.branch(state.key, state.revision, state.path[0].key)
    assert not views.session_view(sessions, state.key)["can_redo"]
    with pytest.raises(RefinementError, match="nothing to redo"):
        sessions.redo(state.key, gone_back.revision)
    undone = sessions.undo(state.key, gone_back.revision)
    assert views.session_view(sessions, state.key)["can_redo"]
    sessions.redo(state.key, undone.revision)
    assert not views.session_view(sessions, state.key)["can_redo"]


@pytest.mark.parametrize("place", ["9" * 5000, "\u0660", "\u00b2", "-1", "", "1.0"])
def test_odd_positions_are_refused_in_words(sessions: SessionStore, place: str):
    state = play(sessions, sessions.create("cats", "a cat"))
    body = {"key": state.key, "round": state.last.key, "rater": "Ann", "stars": {place: 3}}
    with pytest.raises(RefinementError, match="stars must be an object"):
        views.act(sessions, "rate", body)
    assert not sessions.ratings(state.key)


@pytest.mark.parametrize(
    ("action", "more"),
    [
        ("branch", {"round": "\ud800"}),
        ("again", {"round": "\ud800"}),
        ("accept", {"round": "\ud800", "position": 0}),
        ("commit", {"round": "\ud800", "liked": [0]}),
        ("rate", {"round": "\ud800", "rater": "Ann", "stars": {"0": 1}}),
        ("rename", {"name": "\ud800"}),
    ],
)
def test_half_a_character_is_refused_in_words(sessions: SessionStore, action: str, more: dict[str, Any]):
    state = play(sessions, sessions.create("cats", "a cat"))
    moving = {} if action in ("rate", "rename") else {"revision": state.revision}
    with pytest.raises(RefinementError, match="half of a character"):
        views.act(sessions, action, {"key": state.key, **moving, **more})
    assert sessions.state(state.key) == state


def test_two_branches_side_by_side(sessions: SessionStore):
    state = play(sessions, sessions.create("cats", "a cat"), (1, 2))
    one = play(sessions, state, (3, 4), prompt="a red cat", lora="digest version1")
    back = sessions.branch(state.key, one.revision, state.last.key)
    other = play(sessions, back, (5, 6), prompt="a blue cat")
    other = play(sessions, other, (7, 8), prompt="a blue dog")
    found = views.comparison_view(sessions, state.key, one.last.key, other.last.key, {})
    assert found["rounds"] == {"common": 1, "first": 1, "second": 2}
    assert (found["first_level"], found["second_level"], found["judge"]) == (3.0, 7.0, "judge")
    assert "".join(text for kind, text in found["diff"] if kind != "removed") == "a blue dog"
    assert found["first_end"]["version"] == "version1" and "latents" not in found["first_end"]
    with pytest.raises(UnknownError):
        views.comparison_view(sessions, state.key, one.last.key, "0" * 32, {})
