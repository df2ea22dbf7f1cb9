"""Sessions in the page: what the Commit Round and Session Report nodes ask for and change.

| route                                         | answer                                                        |
| --------------------------------------------- | ------------------------------------------------------------- |
| GET  /attune/refinement/sessions              | all sessions                                                  |
| GET  /attune/refinement/session/KEY           | one, with its rounds and what waits for a person              |
| GET  /attune/refinement/picture/KEY/HASH      | a picture, PNG; ?small=1 a small JPEG                         |
| GET  /attune/refinement/report/KEY            | its report; ?judge=NAME, ?most_rounds=N, ?all=1 as the node   |
| GET  /attune/refinement/compare/KEY/ONE/OTHER | two of its rounds and the ways to them, side by side; ?judge=NAME   |
| POST /attune/refinement/ACTION                | does it (`views.ACTIONS`), and gives the session as it then is |

Every change is told to all pages by the event `attune.refinement`. Errors: {"error": what is wrong and what to do}.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..host import server
from ..host.folders import user_folder
from ..store import FILE_NAME, shared_store
from . import views
from .checks import StaleError, UnknownError
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
        return await server.answered(work, *values, statuses={UnknownError: 404, StaleError: 409})

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
            folder = sessions().files(key).pictures
            if small:
                return server.private(folder.small(name, SMALL), "image/jpeg")
            return server.private(folder.read(name), "image/png")

        return await answered(read)

    @routes.get("/attune/refinement/report/{key}")
    async def report(request: web.Request) -> web.Response:
        key, asked = request.match_info["key"], dict(request.query)
        return await answered(lambda: views.report_view(sessions(), key, asked))

    @routes.get("/attune/refinement/compare/{key}/{one}/{other}")
    async def compared(request: web.Request) -> web.Response:
        key, ends, asked = request.match_info["key"], ("one", "other"), dict(request.query)
        return await answered(
            lambda: views.comparison_view(sessions(), key, *(request.match_info[end] for end in ends), asked)
        )

    @routes.post("/attune/refinement/{action}")
    async def changed(request: web.Request) -> web.Response:
        return await answered(_acted, request.match_info["action"], await server.sent(request))
