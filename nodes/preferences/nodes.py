"""The nodes of preferences: a profile, and what is made from it."""

from __future__ import annotations

from comfy_api.latest import io

from . import nodes_profile
from .nodes_routes import add_routes

add_routes()

NODES: list[type[io.ComfyNode]] = [*nodes_profile.NODES]
