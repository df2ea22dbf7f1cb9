"""The nodes of refinement, by topic in `nodes_*.py`: the loop from a wish to the picture that was meant."""

from __future__ import annotations

from comfy_api.latest import io

from . import (
    nodes_commit,
    nodes_conditioning,
    nodes_feedback,
    nodes_person,
    nodes_prompt,
    nodes_repeat,
    nodes_report,
    nodes_round,
    nodes_session,
    nodes_weights,
)
from .nodes_routes import add_routes

add_routes()

NODES: list[type[io.ComfyNode]] = [
    *nodes_session.NODES,
    *nodes_prompt.NODES,
    *nodes_conditioning.NODES,
    *nodes_round.NODES,
    *nodes_weights.NODES,
    *nodes_commit.NODES,
    *nodes_person.NODES,
    *nodes_repeat.NODES,
    *nodes_report.NODES,
    *nodes_feedback.NODES,
]
