"""Which nodes of a graph are one round of a refinement: what Repeat Rounds runs again. Ours.

A graph is given as the host's prompt: id → {"class_type", "inputs"}, where a link is [id of the other node, output].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .checks import RefinementError
from .records import SessionState

SESSION, COMMIT, REPEAT, WIRE = "AttuneRefinementSession", "AttuneCommitRound", "AttuneRepeatRounds", "session"
Nodes = Callable[[str], Mapping[str, Any]]


@dataclass(frozen=True)
class Loop:
    """A round in a graph.

    Attributes:
        start: the Refinement Session, whose session the first round takes.
        body: all nodes between it and the end, in the order in which they were found; neither is among them.
    """

    start: str
    body: tuple[str, ...]


def link_of(value: Any) -> tuple[str, int] | None:
    """(id, output) where an input is a link."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int):
        return value[0], value[1]
    return None


def links(node: Mapping[str, Any]) -> list[tuple[str, int]]:
    return [found for value in node.get("inputs", {}).values() if (found := link_of(value))]


def loop_of(nodes: Nodes, end: str) -> Loop:
    """The round that ends in the node `end`.

    Args:
        nodes: gives the node of an id.

    Raises:
        RefinementError: the wires do not make a round; says which one is wrong.
    """
    last = link_of(nodes(end)["inputs"].get(WIRE))
    if last is None or nodes(last[0])["class_type"] != COMMIT:
        raise RefinementError("Connect the session of Commit Round to Repeat Rounds: rounds end there.")
    start = _start(nodes, last[0])
    within = _within(nodes, start, end)
    for name in within:
        for other, output in links(nodes(name)):
            if other == start and output != 0:
                raise RefinementError(
                    f"An output of Refinement Session other than session is wired into {nodes(name)['class_type']}, "
                    "which would get the first round's in every round. Take the prompt from Refine Prompt."
                )
    return Loop(start, tuple(name for name in within if name != end))


def check_wanted(nodes: Nodes, names: Iterable[str], start: str, state: SessionState) -> None:
    """Refuse to repeat rounds of a session that is accepted: nobody is there to say that it should go on.

    Args:
        names: ids of all nodes of the graph. start: the Refinement Session that gives this state.

    Raises:
        RefinementError: Repeat Rounds would go on with it. One that is off (1 round) does not.
    """
    accepted = state.accepted_in
    if accepted is None or state.replay is not None:
        return
    for name in names:
        if (
            nodes(name)["class_type"] == REPEAT
            and nodes(name)["inputs"].get("rounds") != 1
            and _begins(nodes, name, start)
        ):
            raise RefinementError(
                f"{state.name} is accepted: round {accepted.number} has what was meant. Repeat Rounds made nothing "
                "more of it. Type a name into new_name to begin another session; or, to go on with this one, press "
                "Undo in Commit Round, or set rounds of Repeat Rounds to 1."
            )


def _begins(nodes: Nodes, end: str, start: str) -> bool:
    """Whether the rounds that end there begin at `start`; wires that make no round are told at Repeat Rounds."""
    try:
        return loop_of(nodes, end).start == start
    except (RefinementError, KeyError):
        return False


def _start(nodes: Nodes, name: str) -> str:
    """The Refinement Session from which the session comes that a node takes."""
    while nodes(name)["class_type"] != SESSION:
        before = link_of(nodes(name)["inputs"].get(WIRE))
        if before is None:
            raise RefinementError(
                f"The session of {nodes(name)['class_type']} does not come from Refinement Session. Connect the nodes "
                "of the round in a row, from Refinement Session to Commit Round."
            )
        name = before[0]
    return name


def _within(nodes: Nodes, start: str, end: str) -> list[str]:
    """All nodes that `end` waits for and that wait for `start`; `end` is among them."""
    following: dict[str, list[str]] = {}
    waiting = [end]
    while waiting:
        name = waiting.pop()
        for other, _ in links(nodes(name)):
            if other not in following:
                following[other] = []
                waiting.append(other)
            following[other].append(name)
    found: dict[str, None] = {}
    reached = [start]
    while reached:
        for name in following.get(reached.pop(), ()):
            if name not in found:
                found[name] = None
                reached.append(name)
    return list(found)
