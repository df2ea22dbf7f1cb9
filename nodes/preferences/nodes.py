"""The nodes of preferences: a profile, what fills it, and what is made from it."""

from __future__ import annotations

from comfy_api.latest import io

from . import (
    nodes_apply,
    nodes_choose,
    nodes_describe,
    nodes_embedding,
    nodes_inspect,
    nodes_people,
    nodes_profile,
    nodes_reward,
    nodes_sharing,
)
from .nodes_routes import add_routes

add_routes()

NODES: list[type[io.ComfyNode]] = [
    *nodes_profile.NODES,
    *nodes_choose.NODES,
    *nodes_reward.NODES,
    *nodes_embedding.NODES,
    *nodes_describe.NODES,
    *nodes_apply.NODES,
    *nodes_sharing.NODES,
    *nodes_inspect.NODES,
    *nodes_people.NODES,
]
