"""ComfyUI-Attune: teach any diffusion model your taste, inside the graph.

The pack's face to the host. Importing it costs nothing and needs no host; the nodes are imported when the host asks for
them through `comfy_entrypoint`.
"""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

WEB_DIRECTORY = "./js"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]

log = logging.getLogger("attune")


def _prepare_host() -> None:
    """Tell the host about our folders and the demo model; one that fails is logged and leaves the other working."""
    for module, function in (("folders", "register_folders"), ("demo_model", "register")):
        try:
            getattr(importlib.import_module(f".nodes.host.{module}", __package__), function)()
        except Exception as error:
            log.warning("Attune: %s is unavailable: %s: %s", module, type(error).__name__, error)
            log.debug("Attune: the traceback of %s", module, exc_info=True)


def _collect_nodes() -> list[type]:
    """The nodes of every family that imports and whose schemas the running host accepts."""
    found: list[type] = []
    for path in sorted((Path(__file__).parent / "nodes").glob("*/nodes.py")):
        family = path.parent.name
        try:
            nodes = list(importlib.import_module(f".nodes.{family}.nodes", __package__).NODES)
            for node in nodes:
                # The host drops the whole pack if one schema fails while it reads the list.
                node.GET_SCHEMA()
        except Exception as error:
            log.warning("Attune: the nodes of '%s' are left out: %s: %s", family, type(error).__name__, error)
            log.debug("Attune: the traceback of '%s'", family, exc_info=True)
        else:
            found.extend(nodes)
    return found


async def comfy_entrypoint() -> Any:
    """Called by the host: the extension with the nodes of all families that work here."""
    from comfy_api.latest import ComfyExtension

    _prepare_host()
    nodes = _collect_nodes()

    class AttuneExtension(ComfyExtension):
        async def get_node_list(self) -> list[type]:
            return nodes

    return AttuneExtension()
