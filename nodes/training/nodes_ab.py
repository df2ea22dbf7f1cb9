"""The A/B Test node and the routes through which its page shows pairs and takes votes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ...training.interfaces import AttuneError
from ..drawing import to_tensor
from ..host import server
from ..host.folders import user_folder
from ..host.sampling import sampler_names
from ..host.schema import AttuneNode
from ..store import FILE_NAME, shared_store
from .plans import prompt_lines
from .run_schemas import compare_ab
from .schemas import SEED_LIMIT, Slot, slot

if TYPE_CHECKING:
    from .ab_book import Ballots
    from .ab_pictures import PictureStore

CATEGORY = "Attune/training"
VOTERS = ("person", "reward")
_FOLDER = "ab"


def ballots() -> Ballots:
    """The tests and votes in the host's user folder; nothing is opened before it is needed."""
    from .ab_book import Ballots

    return Ballots(user_folder() / _FOLDER / "tests", shared_store(user_folder() / FILE_NAME))


def picture_store() -> PictureStore:
    from .ab_pictures import PictureStore

    return PictureStore(user_folder() / _FOLDER / "pictures")


def ab_slots() -> list[Slot]:
    """Inputs, as plain data: those of Compare A/B without its rewards, then who votes."""
    given = {found.id: found for found in compare_ab(*sampler_names())}
    given["model_a"] = slot("Model", "model_a", tooltip="One of the two: a model, or one with a LoRA applied.")
    given["model_b"] = slot(
        "Model", "model_b", tooltip="The other one, for example with another LoRA, or the same at another strength."
    )
    given["images_per_prompt"] = slot(
        "Int", "images_per_prompt", default=4, min=1, max=64,
        tooltip="Pairs per prompt, one per seed. Raising it makes the result more certain and needs more votes; pairs "
        "that were voted on stay.",
    )  # fmt: skip
    given["sampler_name"] = slot(
        "Combo", "sampler_name",
        **given["sampler_name"].keywords | {
            "tooltip": "The sampler, as in KSampler. Those that add noise on the way (ancestral, SDE …) draw one "
            "picture at a time, so that both models get the same noise: slower.",
        },
    )  # fmt: skip
    shared = [found for name, found in given.items() if name not in ("reward", "held_out_reward")]
    return [
        *shared,
        slot(
            "Combo", "voter", options=list(VOTERS), default=VOTERS[0],
            tooltip="person: you vote in this node, blind, whenever you like; Run never waits for you and hands on "
            "what stands. reward: the connected reward votes at once.",
        ),
        slot(
            "Float", "least_margin", default=0.0, min=0.0, max=1000.0, step=0.0001, round=0.0001,
            tooltip="For the reward's votes: scores that differ by no more than this are a tie, in the reward's own "
            "unit. Raising it makes more ties. 0 = only equal scores.",
        ),
        slot(
            "String", "name_a", default="A",
            tooltip="What model A is called in the result. Nobody sees it while voting. Empty = A.",
        ),
        slot(
            "String", "name_b", default="B",
            tooltip="What model B is called in the result. Nobody sees it while voting. Empty = B.",
        ),
        slot(
            "Int", "side_seed", default=0, min=0, max=SEED_LIMIT, advanced=True,
            tooltip="Decides which picture is shown left and which right, and the order of the pairs. Votes stay valid "
            "whatever it is.",
        ),
        slot(
            "ATTUNE_REWARD", "reward", optional=True,
            tooltip="The judge where a reward votes. Where a person votes, the report says how often it agrees. With a "
            "Safety Gate, what it holds back is blurred and not voted on.",
        ),
    ]  # fmt: skip


class AttuneABTest(AttuneNode):
    """Which of two models is preferred, blind."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [
            cls.input(getattr(io, kind, None) or io.Custom(kind), id, **words) for kind, id, words in ab_slots()
        ]  # fmt: skip
        return cls.schema(
            node_id="AttuneABTest",
            display_name="A/B Test",
            category=CATEGORY,
            description="Shows pictures of two models side by side without saying which is which, counts your votes or "
            "a reward's, and says how sure the winner is.",
            search_aliases=["blind test", "preference", "vote", "win rate", "compare loras", "side by side"],
            is_output_node=True,
            inputs=inputs,
            outputs=[
                cls.output(io.Image, id="grid", display_name="grid",
                           tooltip="The result with all pairs that are decided, A over B, the preferred one framed. "
                           "Other pairs stay hidden, so that voting stays blind."),
                cls.output(io.Float, id="win_rate", display_name="win_rate",
                           tooltip="Share of the votes for B, 0 to 1; a tie counts half. No number (NaN) as long as "
                           "nobody has voted."),
                cls.output(io.String, id="report", display_name="report",
                           tooltip="All figures as JSON: interval, p, votes still needed, votes missing."),
                cls.output(io.String, id="votes", display_name="votes",
                           tooltip="Every pair as JSON: prompt, seed, and a, b, tie, or null where nobody has voted."),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, voter: str | None = None, **widgets: Any) -> str:
        # A reward's votes follow from the inputs alone.
        try:
            return ballots().revision() if voter != "reward" else ""
        except AttuneError as error:
            return str(error)

    @classmethod
    def execute(
        cls, model_a: Any, model_b: Any, clip: Any, vae: Any, latent: dict, prompts: str, negative: str,
        first_seed: int, images_per_prompt: int, steps: int, cfg: float, sampler_name: str, scheduler: str, voter: str,
        least_margin: float, name_a: str, name_b: str, side_seed: int, reward: Any = None,
    ) -> io.NodeOutput:  # fmt: skip
        from .ab_test import Judging, Setup, as_text, run_test, summary
        from .compare import SamplingSettings

        setup = Setup(
            models=(model_a, model_b), names=(name_a.strip() or "A", name_b.strip() or "B"), clip=clip, vae=vae,
            latent=latent, prompts=prompt_lines(prompts), negative=negative,
            seeds=[first_seed + index for index in range(images_per_prompt)],
            settings=SamplingSettings(steps, cfg, sampler_name, scheduler), reward=reward,
        )  # fmt: skip
        found = run_test(setup, Judging(voter, least_margin, side_seed), picture_store(), ballots())
        rate = found.report["win_rate"]
        return io.NodeOutput(
            to_tensor(found.grid), float("nan") if rate is None else rate, as_text(found.report), as_text(found.votes),
            ui={"attune_ab": [{"test": found.test}], "text": [summary(found.report)]},
        )  # fmt: skip


def _add_routes() -> None:
    """What the page needs of a test. Without a server there is nothing to add.

    GET /attune/ab/test/ID: the pairs, see `Ballots.shown`. GET /attune/ab/result/ID: what stands, see `Ballots.result`.
    POST /attune/ab/vote {test, pair, side}: a vote; side "left", "right", "tie", or null to take it back.
    POST /attune/ab/forget {test}: take back all votes of a test.
    GET /attune/ab/picture/NAME: a picture as PNG; with ?small=1 its thumbnail.
    Whatever the sender could have done better is a 400, what is not there a 404, each with {error}.
    """
    routes = server.routes()
    if routes is None:
        return
    from aiohttp import web

    async def answered(work: Callable[..., Any], *values: Any) -> web.Response:
        from .ab_book import UnknownTest

        return await server.answered(work, *values, statuses={UnknownTest: 404})

    def refused(words: str) -> web.HTTPBadRequest:
        return web.HTTPBadRequest(text=json.dumps({"error": words}), content_type="application/json")

    async def asked(request: web.Request, *names: str) -> list[Any]:
        try:
            body = await request.json()
            values = [body[name] for name in names]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise refused(f"Send a JSON object with {', '.join(names)}.") from error
        if not all(value is None or isinstance(value, str) for value in values):
            raise refused(f"{', '.join(names)} must be texts.")
        return values

    @routes.get("/attune/ab/test/{name}")
    async def test(request: web.Request) -> web.Response:
        return await answered(ballots().shown, request.match_info["name"])

    @routes.get("/attune/ab/result/{name}")
    async def result(request: web.Request) -> web.Response:
        return await answered(ballots().result, request.match_info["name"])

    @routes.post("/attune/ab/vote")
    async def vote(request: web.Request) -> web.Response:
        name, pair, side = await asked(request, "test", "pair", "side")
        return await answered(lambda: ballots().vote(name or "", pair or "", side))

    @routes.post("/attune/ab/forget")
    async def forget(request: web.Request) -> web.Response:
        (name,) = await asked(request, "test")
        return await answered(lambda: ballots().forget(name or ""))

    @routes.get("/attune/ab/picture/{name}")
    async def picture(request: web.Request) -> web.StreamResponse:
        name, small = request.match_info["name"], request.query.get("small") == "1"
        path = await asyncio.to_thread(lambda: picture_store().path(name, small=small))
        if path is None:
            return web.json_response({"error": "This picture is not kept any more. Press Run."}, status=404)
        return web.FileResponse(path)


_add_routes()

NODES: list[type[io.ComfyNode]] = [AttuneABTest]
