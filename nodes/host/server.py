"""The host's web server, where there is one: headless runs and tests of single modules have none."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ...training.interfaces import AttuneError

NO_JSON = "What was sent is not JSON. Send a JSON object."


def _server() -> Any | None:
    # The server's module is only looked for, not imported: headless runs have none.
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def routes() -> Any | None:
    """The host's table of routes (aiohttp's `RouteTableDef`), to add to as the pack loads; None without a server."""
    server = _server()
    return None if server is None else server.routes


async def answered(
    work: Callable[..., Any], *values: Any, statuses: Mapping[type[AttuneError], int] | None = None
) -> Any:
    """The response to a page: what `work` gives of the values as JSON, or a response that it makes itself.

    Args:
        work: runs in another thread, since reading files and the store would hold up every other page. What it says is
            wrong goes to the page as {"error": words}.
        statuses: kind of error → HTTP status, the first that fits; all others are 400.
    """
    from aiohttp import web

    try:
        found = await asyncio.to_thread(work, *values)
    except AttuneError as error:
        status = next((number for kind, number in (statuses or {}).items() if isinstance(error, kind)), 400)
        return web.json_response({"error": str(error)}, status=status)
    return found if isinstance(found, web.Response) else web.json_response(found)


def private(content: bytes, kind: str) -> Any:
    """The response that holds a file of a person, of a content type such as "image/png"."""
    from aiohttp import web

    # What a person deletes must not live on in the browser's cache.
    return web.Response(body=content, content_type=kind, headers={"Cache-Control": "no-store"})


async def sent(request: Any) -> Any:
    """What a page has sent as JSON.

    Raises:
        HTTPBadRequest: it is none; answers the page with {"error": words}.
    """
    from aiohttp import web

    try:
        return await request.json()
    except (ValueError, LookupError, RecursionError):  # no JSON, an unknown encoding, nested too deeply
        raise web.HTTPBadRequest(text=json.dumps({"error": NO_JSON}), content_type="application/json") from None


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
