"""Sessions in the page: what the Commit Round and Session Report nodes ask for and change.

| route                                         | answer                                                        |
| --------------------------------------------- | ------------------------------------------------------------- |
| GET  /attune/refinement/sessions              | all sessions                                                  |
| GET  /attune/refinement/session/KEY           | one, with its rounds and what waits for a person              |
| GET  /attune/refinement/picture/KEY/HASH      | a picture, PNG; ?small=1 a small JPEG                         |
| POST /attune/refinement/ACTION                | does it (`views.ACTIONS`), and gives the session as it then is |

Every change is told to all pages by the event `attune.refinement`. Errors: {"error": what is wrong and what to do}.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from ...training.interfaces import AttuneError
from ..host import server
from ..host.folders import user_folder
from ..store import FILE_NAME, shared_store
from . import views
from .records import StaleError, UnknownError
from .store import SessionStore

EVENT = "attune.refinement"
FOLDER = "sessions"
SMALL = 256
_stores: dict[Path, SessionStore] = {}


def sessions() -> SessionStore:
    """The sessions in the host's user folder, one for all threads; nothing is opened before it is needed."""
    folder = user_folder()
    return _stores.setdefault(folder, SessionStore(shared_store(folder / FILE_NAME), folder / FOLDER))


def tell(action: str, key: str, revision: int, **more: Any) -> None:
    """Tell all pages of a change."""
    server.tell(EVENT, {"action": action, "session": key, "revision": revision, **more})


def _acted(action: str, body: Any) -> dict[str, Any]:
    found = views.act(sessions(), action, body)
    tell(action, found["key"], found.get("revision", 0))
    return found


def add_routes() -> None:
    """Without a server there is nothing to add."""
    routes = server.routes()
    if routes is None:
        return
    from aiohttp import web

    async def answered(work: Callable[..., Any], *values: Any) -> web.Response:
        try:
            # Reading files and the store would hold up every other page.
            found = await asyncio.to_thread(work, *values)
        except UnknownError as error:
            return web.json_response({"error": str(error)}, status=404)
        except StaleError as error:
            return web.json_response({"error": str(error)}, status=409)
        except AttuneError as error:
            return web.json_response({"error": str(error)}, status=400)
        return found if isinstance(found, web.Response) else web.json_response(found)

    @routes.get("/attune/refinement/sessions")
    async def listed(request: web.Request) -> web.Response:
        return await answered(lambda: views.sessions_view(sessions()))

    @routes.get("/attune/refinement/session/{key}")
    async def one(request: web.Request) -> web.Response:
        return await answered(lambda: views.session_view(sessions(), request.match_info["key"]))

    @routes.get("/attune/refinement/picture/{key}/{name}")
    async def picture(request: web.Request) -> web.Response:
        key, name = request.match_info["key"], request.match_info["name"]
        small = request.query.get("small") == "1"

        def read() -> web.Response:
            kind, content = _picture(key, name, small=small)
            # A deleted session must not live on in the browser's cache.
            return web.Response(body=content, content_type=kind, headers={"Cache-Control": "no-store"})

        return await answered(read)

    @routes.post("/attune/refinement/{action}")
    async def changed(request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except (ValueError, LookupError, RecursionError):  # no JSON, an unknown encoding, nested too deeply
            return web.json_response({"error": "What was sent is not JSON. Send a JSON object."}, status=400)
        return await answered(_acted, request.match_info["action"], body)


def _picture(key: str, name: str, *, small: bool) -> tuple[str, bytes]:
    """(content type, bytes).

    Raises:
        UnknownError: there is no such picture.
    """
    folder = sessions().files(key).pictures
    if not small:
        return "image/png", folder.read(name)
    picture = Image.fromarray(folder.get(name))
    picture.thumbnail((SMALL, SMALL))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return "image/jpeg", buffer.getvalue()
