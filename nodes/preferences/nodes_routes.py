"""What the page asks the server for about preferences.

GET  /attune/preferences/profiles
        {profiles: [PROFILE]}, by name.
GET  /attune/preferences/waiting?profile=KEY[&limit=50][&before=ID]
        {profile: PROFILE, questions: [QUESTION]}: what waits for an answer, the one asked last first. `before`: id of a
        question, for the next part of a long list.
POST /attune/preferences/questions {profile: KEY, questions: [QUESTION.key]}
        {profile: PROFILE, questions: [QUESTION], missing: [key]}: those questions in that order, answered or not.
POST /attune/preferences/decide {profile: KEY, question: QUESTION.key, choice: HASH | "tie" | "skip"}
POST /attune/preferences/decide {profile: KEY, question: QUESTION.key, stars: {HASH: 1…5, …}}
        {profile: PROFILE, question: QUESTION}: as it stands now. The same answer again changes nothing, another one
        takes its place. Stars may be sent picture by picture: they are added to those that stand.
POST /attune/preferences/undo {profile: KEY, decision?: DECISION.id}
        {profile: PROFILE, question: QUESTION | null}: takes back that decision, or the profile's newest; the question
        as it stands now, with what the person had said before, if anything. null = there was nothing to take back:
        sent twice with the decision's id, it takes back once.
POST /attune/preferences/create {name}            {profile: PROFILE}: a new one, or the one of that name.
POST /attune/preferences/rename {profile, name}   {profile: PROFILE}
POST /attune/preferences/delete {profile}
        {deleted: true, clean: bool, note: str, profiles: [PROFILE]}: for good, with all bytes. clean = false: as the
        note says, traces stay until the next start.
GET  /attune/preferences/picture/HASH             the picture as PNG; with ?small=1 as JPEG of at most 512 pixels.

    PROFILE  = {key, name, revision, created, choices, chosen, ties, rated, skipped, waiting, embeddings,
                imported}
               key: 32 hex digits; revision: rises with every decision made, changed or taken back; counts of questions;
               embeddings: how many are kept; imported: those among them that came from a file
    QUESTION = {id, key, kind: "pair" | "best" | "stars", prompt, pictures: [{hash, width, height, seed}], open: bool,
                decision: null | DECISION}
               key: 64 hex digits, of kind and pictures alone; id: higher = asked later; pictures: in the order in which
               they are to be shown; seed: a text of digits, "" = not known; open: waits for an answer (of stars: for
               some of them)
    DECISION = {id, choice: HASH | "tie" | "skip" | null, stars: {HASH: 1…5} | null, made: seconds since 1970}

Every change is told to all tabs by the event "attune.preferences" {profile: KEY, revision, question: QUESTION.key | "",
action: "decide" | "undo" | "create" | "rename" | "delete"}. While Choose Images runs it also says {profile, revision,
question: "", action: "ask", node, questions: [QUESTION.key], waits: bool}: node = its id, inside a subgraph like 1:2:3;
waits = the run goes on when all are answered. When it has run, the host's event "executed" holds the same questions in
output.attune_choose[0] = {profile: KEY, revision, questions: [QUESTION.key], answered, waiting}.

What the sender could have done better is a 400, what is not there (any more) a 404, each with {error: words to show}.
After a 404, or a `missing` question, the next run of Choose Images asks again; see `rounds`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..host import server
from ..host.folders import user_folder
from ..store import FILE_NAME, shared_store
from . import listing
from .pictures import LARGEST_THUMBNAIL, PictureFolder
from .records import UnknownError
from .rounds import ROUNDS
from .store import PreferenceStore

EVENT = "attune.preferences"
PICTURES = "pictures"
_stores: dict[Path, PreferenceStore] = {}


def preferences() -> PreferenceStore:
    """The preferences in the host's user folder, one for all threads; nothing is opened before it is needed."""
    folder = user_folder()
    made = PreferenceStore(shared_store(folder / FILE_NAME), PictureFolder(folder / PICTURES))
    return _stores.setdefault(folder, made)


def tell(action: str, profile: str, revision: int, question: str = "", **more: Any) -> None:
    """Tell all tabs of a change; see the module."""
    server.tell(EVENT, {"action": action, "profile": profile, "revision": revision, "question": question, **more})


def _acted(action: str, body: Any) -> dict[str, Any]:
    found = listing.act(preferences(), action, body)
    if found.get("missing"):
        ROUNDS.begin()
    if action in listing.CHANGES:
        question = found.get("question") or {}
        tell(action, body.get("profile") or found["profile"]["key"], found.get("profile", {}).get("revision", 0),
             question.get("key", ""))  # fmt: skip
    return found


def _asked(work: Callable[..., Any], *values: Any) -> Any:
    """What a page asks for; where it is not there any more, the next run asks again."""
    try:
        return work(*values)
    except UnknownError:
        ROUNDS.begin()
        raise


def add_routes() -> None:
    """Without a server there is nothing to add."""
    routes = server.routes()
    if routes is None:
        return
    from aiohttp import web

    async def answered(work: Callable[..., Any], *values: Any) -> web.Response:
        return await server.answered(_asked, work, *values, statuses={UnknownError: 404})

    @routes.get("/attune/preferences/profiles")
    async def profiles(request: web.Request) -> web.Response:
        return await answered(lambda: listing.profiles(preferences()))

    @routes.get("/attune/preferences/waiting")
    async def waiting(request: web.Request) -> web.Response:
        return await answered(lambda: listing.waiting(preferences(), dict(request.query)))

    @routes.get("/attune/preferences/picture/{name}")
    async def picture(request: web.Request) -> web.Response:
        name, small = request.match_info["name"], request.query.get("small") == "1"

        def read() -> web.Response:
            folder = preferences().pictures
            if small:
                return server.private(folder.small(name, LARGEST_THUMBNAIL), "image/jpeg")
            return server.private(folder.read(name), "image/png")

        return await answered(read)

    @routes.post("/attune/preferences/{action}")
    async def changed(request: web.Request) -> web.Response:
        return await answered(_acted, request.match_info["action"], await server.sent(request))
