"""Repeat Rounds: the nodes between Refinement Session and here again and again, in one run and without a person."""

from __future__ import annotations

from typing import Any

import comfy.utils
from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder

from ..host.schema import AttuneNode
from .draft import Draft
from .kpis import CAP
from .nodes_common import CATEGORY, draft_of, session_output
from .repeating import WIRE, link_of, loop_of

MOST_ROUNDS = 100


class AttuneRepeatRounds(AttuneNode):
    """A whole session in one run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneRepeatRounds",
            display_name="Repeat Rounds",
            category=CATEGORY,
            description="Runs all nodes from Refinement Session to Commit Round again, round after round in one run, "
            "until a picture is accepted. For sessions that rewards or a simulated person decide.",
            search_aliases=["loop", "while", "for", "iterate", "headless", "simulation", "until accepted", "batch"],
            is_output_node=True,
            enable_expand=True,
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            inputs=[
                cls.input(
                    io.Custom("ATTUNE_SESSION"),
                    WIRE,
                    tooltip="The session of Commit Round, which must not wait for you: set its decides to the rewards "
                    "or to the connected answer.",
                ),
                cls.input(
                    io.Int,
                    "rounds",
                    default=CAP,
                    min=1,
                    max=MOST_ROUNDS,
                    tooltip="How many rounds a run makes at most. It ends sooner when a picture is accepted; a session "
                    "that is accepted already gets no further ones. Raising it takes as much longer. 1 = off: one "
                    "round, as without this node.",
                ),
            ],
            outputs=[
                session_output(cls),
                cls.output(io.Int, id="made", display_name="rounds",
                           tooltip="How many rounds the session has behind it."),
                cls.output(io.Boolean, id="accepted", display_name="accepted",
                           tooltip="Whether a round has what was meant."),
                cls.output(io.String, id="report", display_name="report", tooltip="How far it has come."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, session: Any, rounds: int) -> io.NodeOutput:
        draft = draft_of(session)
        state = draft.state
        # What is shown is shown at the node in the page, of which this one is a copy from the second round on.
        graph, own = cls.hidden.dynprompt, cls.hidden.unique_id
        page = graph.get_display_node_id(own)
        asked = graph.get_node(page)["inputs"].get("rounds")
        total = max(rounds, asked) if isinstance(asked, int) else rounds
        comfy.utils.ProgressBar(total, own).update_absolute(total - rounds + 1)  # hears Cancel
        told = progress_text(draft, rounds - 1)
        if rounds == 1 or state.accepted:
            return io.NodeOutput(draft, len(state.path), state.accepted, told, ui={"text": [told]})
        copy = _copy(graph, page, draft, rounds - 1)
        again = copy.lookup_node(page)
        return io.NodeOutput(*(again.out(place) for place in range(4)), ui={"text": [told]}, expand=copy.finalize())


def progress_text(draft: Draft, left: int) -> str:
    """How far a run has come that can make `left` more rounds."""
    state = draft.state
    accepted = state.accepted_in
    if accepted is not None:
        return f"{state.name}: round {accepted.number} is accepted."
    done = f"{state.name}: round {len(state.path)}"
    return f"{done} is decided, {left} more to come." if left else f"{done} is decided, nothing is accepted yet."


def _copy(graph: Any, end: str, draft: Draft, rounds: int) -> GraphBuilder:
    """The nodes of a round with the session as it stands now, and the end, which can make so many rounds.

    Args:
        graph: the host's prompt, as it has grown. end: the node in it that the page shows.

    Raises:
        RefinementError: the wires do not make a round.
    """
    loop = loop_of(graph.get_node, end)
    copy = GraphBuilder()
    for name in (*loop.body, end):
        copy.node(graph.get_node(name)["class_type"], name).set_override_display_id(name)
    for name in (*loop.body, end):
        node = copy.lookup_node(name)
        for key, value in graph.get_node(name)["inputs"].items():
            link = link_of(value)
            if link is None or link[0] not in (loop.start, *loop.body):
                node.set_input(key, value)
            else:
                # As a value: wires back through all rounds would let the host look through all of them for each node.
                node.set_input(key, draft if link[0] == loop.start else copy.lookup_node(link[0]).out(link[1]))
    copy.lookup_node(end).set_input("rounds", rounds)
    return copy


NODES: list[type[io.ComfyNode]] = [AttuneRepeatRounds]
