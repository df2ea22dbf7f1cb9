"""What the nodes of this family share."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from ..host import server
from .checks import RefinementError
from .draft import Draft

CATEGORY = "Attune/refinement"
SessionWire = io.Custom("ATTUNE_SESSION")
Reward = io.Custom("ATTUNE_REWARD")
AnswerWire = io.Custom("ATTUNE_ANSWER")
OUT_TOOLTIP = "The same session with what this node has decided of its round: for the next node of the loop."


def session_input(node: Any, **more: Any) -> Any:
    """The input that carries the session along."""
    return node.input(
        SessionWire,
        "session",
        tooltip="The session and its round in the making: from Refinement Session, through the nodes of the loop.",
        **more,
    )


def session_output(node: Any) -> Any:
    return node.output(SessionWire, id="session_out", display_name="session", tooltip=OUT_TOOLTIP)


def draft_of(session: Any) -> Draft:
    """What the wire carries. A round's time begins anew where an earlier run's work is taken up, by the host's cache.

    Raises:
        RefinementError: something else is connected.
    """
    if not isinstance(session, Draft):
        raise RefinementError("This is no session. Connect Refinement Session, or a node of its loop.")
    run, _ = server.running()
    return session if session.run == run else replace(session, run=run, began=time.monotonic())
