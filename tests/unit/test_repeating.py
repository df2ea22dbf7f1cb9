"""Which nodes of a graph are a round: exactly those between Refinement Session and the end."""

from __future__ import annotations

from typing import Any

import pytest

from attune.nodes.refinement.checks import RefinementError
from attune.nodes.refinement.records import Feedback, Picture, Round, Schedule, SessionState
from attune.nodes.refinement.repeating import check_wanted, link_of, loop_of


def graph(**changed: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """A round with all that may hang on it. `changed`: other inputs of a node; None takes the node out."""
    made: dict[str, tuple[str, dict[str, Any]]] = {
        "model": ("CheckpointLoaderSimple", {"ckpt_name": "a"}),
        "reward": ("AttuneLoadReward", {"reward_name": "b"}),
        # A text and a link in inputs of the same name.
        "start": ("AttuneRefinementSession", {"session": "my session", "prompt": "a cat"}),
        "words": ("AttuneRefinePrompt", {"session": ["start", 0], "back_end": "rules"}),
        "schedule": ("AttuneRoundSchedule", {"session": ["words", 0], "pair": ["a", 0.5]}),
        "sampler": ("AttuneRoundSampler", {"session": ["schedule", 0], "model": ["model", 0]}),
        "decoded": ("VAEDecode", {"samples": ["sampler", 1], "vae": ["model", 2]}),
        "weights": ("AttuneDynamicWeights", {"session": ["sampler", 0], "relevance": ["reward", 0]}),
        "upscaled": ("ImageScale", {"image": ["decoded", 0]}),
        "commit": ("AttuneCommitRound", {"session": ["weights", 0], "images": ["upscaled", 0]}),
        "end": ("AttuneRepeatRounds", {"session": ["commit", 0], "rounds": 3}),
        # Hangs on the round, and is none of it.
        "shown": ("PreviewImage", {"images": ["decoded", 0]}),
        "report": ("AttuneSessionReport", {"session": ["end", 0]}),
    }
    for name, inputs in changed.items():
        made[name] = (made[name][0], inputs)
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in made.items()}


def state(*, accepted: bool) -> SessionState:
    picture = Picture("a" * 64, 1)
    said = Feedback(liked=(0,), accepted=accepted)
    made = Round(
        "b" * 32, None, 1, 0, "", "", {}, Schedule("linear", 1, 1.0, (1,)), None, (picture,), said, 1.0, "", "", 1
    )
    return SessionState("c" * 32, "cats", 3, 7, "a cat", "", path=(made,))


def test_an_accepted_session_is_not_repeated():
    nodes = graph()
    check_wanted(nodes.__getitem__, nodes, "start", state(accepted=False))
    check_wanted(nodes.__getitem__, nodes, "another", state(accepted=True))
    with pytest.raises(RefinementError, match="cats is accepted: round 1 has what was meant"):
        check_wanted(nodes.__getitem__, nodes, "start", state(accepted=True))
    for inputs in ({"session": ["commit", 0], "rounds": 1}, {"rounds": 3}, {"session": ["gone", 0], "rounds": 3}):
        nodes = graph(end=inputs)
        check_wanted(nodes.__getitem__, nodes, "start", state(accepted=True))


def test_a_round_is_what_lies_between_and_nothing_else():
    loop = loop_of(graph().__getitem__, "end")
    assert loop.start == "start"
    assert sorted(loop.body) == ["commit", "decoded", "sampler", "schedule", "upscaled", "weights", "words"]


def test_two_rounds_in_a_row_are_repeated_together():
    made = graph(end={"session": ["second", 0], "rounds": 3})
    made["second"] = {"class_type": "AttuneCommitRound", "inputs": {"session": ["commit", 0], "images": ["decoded", 0]}}
    loop = loop_of(made.__getitem__, "end")
    assert {"commit", "second", "words"} <= set(loop.body) and loop.start == "start"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"end": {"rounds": 3}}, "Connect the session of Commit Round"),
        ({"end": {"session": ["weights", 0]}}, "Connect the session of Commit Round"),
        ({"words": {"session": "a text"}}, "session of AttuneRefinePrompt does not come from Refinement Session"),
        ({"weights": {"session": ["sampler", 0], "text": ["start", 1]}}, "wired into AttuneDynamicWeights"),
    ],
)
def test_wires_that_make_no_round_are_named(changed: dict[str, dict[str, Any]], words: str):
    with pytest.raises(RefinementError, match=words):
        loop_of(graph(**changed).__getitem__, "end")


def test_an_output_of_the_session_may_go_where_rounds_do_not():
    made = graph(report={"session": ["end", 0], "text": ["start", 1]})
    assert "report" not in loop_of(made.__getitem__, "end").body


@pytest.mark.parametrize("value", [["a", 0.5], ["a", "b"], ["a", 0, 1], [0, 1], "a", None, {"a": 0}])
def test_only_an_id_and_an_output_are_a_link(value: Any):
    assert link_of(value) is None
    assert link_of(["a", 1]) == ("a", 1)
