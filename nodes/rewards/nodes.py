"""The reward nodes, by topic in `nodes_*.py`: sockets and widgets for what this folder does."""

from __future__ import annotations

from comfy_api.latest import io

from . import nodes_loading, nodes_scoring, nodes_vlm

NODES: list[type[io.ComfyNode]] = [*nodes_loading.NODES, *nodes_scoring.NODES, *nodes_vlm.NODES]
