"""The sampling nodes, by topic in `nodes_*.py`: sockets and widgets for what this folder does."""

from __future__ import annotations

from comfy_api.latest import io

from . import nodes_one_step

NODES: list[type[io.ComfyNode]] = [*nodes_one_step.NODES]
