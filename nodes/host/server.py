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
