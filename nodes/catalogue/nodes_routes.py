"""What the catalogue's tab in the page asks the server for.

GET  /attune/catalogue                     the list, the tree of runs, the trash
GET  /attune/catalogue/compare?a=1&b=2     two LoRAs side by side
POST /attune/catalogue/{action}            see `listing.ACTIONS`; answers with the new list

Whatever the sender could have done better is a 400 with {"error"} that says what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..host import server
from ..host.folders import lora_folder, user_folder
from ..store import FILE_NAME, shared_store
from .catalogue import Catalogue
from .listing import change, comparison, listing

_catalogues: dict[Any, Catalogue] = {}


def shared_catalogue() -> Catalogue:
    """The catalogue of the host's LoRA folder, one for all threads; nothing is opened before it is needed."""
    place = (user_folder() / FILE_NAME, lora_folder())
    return _catalogues.setdefault(place, Catalogue(shared_store(place[0]), place[1]))


def add_routes() -> None:
    """Without a server there is nothing to add."""
    routes = server.routes()
    if routes is None:
        return
    from aiohttp import web

    async def answered(work: Callable[..., Any], *values: Any) -> web.Response:
        return await server.answered(lambda: work(shared_catalogue(), *values))

    @routes.get("/attune/catalogue")
    async def everything(request: web.Request) -> web.Response:
        return await answered(listing)

    @routes.get("/attune/catalogue/compare")
    async def compared(request: web.Request) -> web.Response:
        return await answered(comparison, dict(request.query))

    @routes.post("/attune/catalogue/{action}")
    async def changed(request: web.Request) -> web.Response:
        return await answered(change, request.match_info["action"], await server.sent(request))
