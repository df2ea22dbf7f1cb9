"""The reward nodes, by topic in `nodes_*.py`: sockets and widgets for what this folder does."""

from __future__ import annotations

from comfy_api.latest import io

from . import nodes_combining, nodes_keeping, nodes_loading, nodes_safety, nodes_scoring, nodes_vlm, nodes_words

NODES: list[type[io.ComfyNode]] = [
    *nodes_loading.NODES,
    *nodes_words.NODES,
    *nodes_safety.NODES,
    *nodes_scoring.NODES,
    *nodes_combining.NODES,
    *nodes_keeping.NODES,
    *nodes_vlm.NODES,
]
