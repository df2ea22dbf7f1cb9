"""The host's web server, where there is one: headless runs and tests of single modules have none."""

from __future__ import annotations

import sys
from typing import Any


def _server() -> Any | None:
    # The server's module is only looked for, not imported: headless runs have none.
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def routes() -> Any | None:
    """The host's table of routes (aiohttp's `RouteTableDef`), to add to as the pack loads; None without a server."""
    server = _server()
    return None if server is None else server.routes


def tell(event: str, message: dict[str, Any]) -> None:
    """Send an event to every open page, whichever pressed Run; without a server there is nobody to tell."""
    server = _server()
    if server is not None:
        server.send_sync(event, message)


def running() -> tuple[str, str]:
    """Ids of the run and of the node that the host is at, in the thread that asks; "" where it is at none."""
    found = getattr(sys.modules.get("comfy_execution.utils"), "get_executing_context", lambda: None)()
    return ("", "") if found is None else (str(found.prompt_id), str(found.node_id))


def tell_result(node: str, output: dict[str, Any]) -> None:
    """What a node shows, once more and changed, while another one runs: told as the host tells every node's result.

    As there, only the page that pressed Run is told: numbers of nodes mean something else in other pages.
    """
    server = _server()
    page = getattr(server, "client_id", None)
    if page is not None:
        run = running()[0] or getattr(server, "last_prompt_id", None)
        message = {"node": node, "display_node": node, "output": output, "prompt_id": run}
        server.send_sync("executed", message, page)
