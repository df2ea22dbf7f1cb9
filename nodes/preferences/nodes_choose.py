"""Choose Images: asks which pictures are liked better, and hands on what was chosen. Never holds the queue unasked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ...training.presentable import unsafe_pictures
from ..host.progress import Progress
from ..host.sampling import progress_bar
from ..host.schema import AttuneNode
from ..picture_lists import prompts_of, score_pictures, single_pictures
from .asking import (
    FALLBACKS,
    INFORMATIVE,
    MODES,
    ORDERS,
    Shown,
    ordered,
    pick,
    questions_about,
    seeds_of,
    show,
    wait_for_answers,
    words_of,
)
from .latents import single_latents
from .nodes_common import CATEGORY, ProfileWire, Reward, single
from .nodes_routes import preferences, tell
from .records import PreferenceError, Profile
from .rounds import ROUNDS

BY_REWARD, WAIT = FALLBACKS[2], FALLBACKS[3]


class AttuneChooseImages(AttuneNode):
    """Which do you like better?"""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneChooseImages",
            display_name="Choose Images",
            category=CATEGORY,
            description="Asks you which pictures you like better, remembers it in a profile, and hands on the chosen "
            "ones. The queue does not wait for you: choose whenever you like, then press Run again.",
            search_aliases=["pick", "select images", "like", "favourite", "compare", "rate", "stars", "human feedback",
                            "image chooser", "preference"],
            is_input_list=True,
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                cls.input(ProfileWire, "profile", tooltip="Who chooses: from Preference Profile."),
                cls.input(io.Image, "images", tooltip="Several pictures of each prompt: a batch, or a list with one "
                          "batch per prompt. Keep the sampler's seed fixed, or every run asks about new pictures."),
                cls.input(
                    io.String,
                    "prompts",
                    multiline=True,
                    default="",
                    placeholder="what the pictures were to show: one line for all, per batch or per picture",
                    tooltip="Remembered with your choices. Only pictures of one prompt are compared. One line for all "
                    "pictures, one per batch, or one per picture. Empty = not known.",
                ),
                cls.input(
                    io.Combo,
                    "mode",
                    options=list(MODES),
                    default=MODES[0],
                    tooltip="pairs: first with second, third with fourth … all pairs: every two; many questions. best "
                    "of each prompt: one look at all of them. stars: one to five for each picture.",
                ),
                cls.input(
                    io.Combo,
                    "if_not_chosen",
                    options=list(FALLBACKS),
                    default=FALLBACKS[0],
                    tooltip="For pictures you have not chosen between yet. leave out: hand on nothing of them. first: "
                    "the first of each question. best by reward: what the connected reward prefers. wait: hold this "
                    "run until you have chosen. Only your own choices are remembered.",
                ),
                cls.input(
                    io.Float,
                    "wait_seconds",
                    default=600.0,
                    min=0.0,
                    max=86_400.0,
                    step=1.0,
                    tooltip="For wait: how many seconds at most; then the run goes on without what is not chosen, "
                    "and the next run waits again. Raising it leaves you more time. 0 = do not wait.",
                ),
                cls.input(Reward, "reward", optional=True, tooltip="The judge for best by reward. With a Safety Gate, "
                          "what it holds back is neither shown nor handed on."),
                cls.input(io.Latent, "latents", optional=True, tooltip="The latents of the pictures, in the same "
                          "order, to get those of the chosen ones, for example for a second pass."),
                cls.input(io.Int, "seeds", optional=True, force_input=True, default=0, min=0, max=2**64 - 1,
                          tooltip="The seeds the pictures were made with: one for all, per batch, or per picture. "
                          "Remembered, and handed on."),
                cls.input(
                    io.Combo,
                    "order",
                    options=list(ORDERS),
                    default=ORDERS[0],
                    optional=True,
                    tooltip="In which order you are asked. most informative first: what Preference Reward, connected "
                    "to reward, is least sure of and learns most from, so that few choices go far; the report says "
                    "when they teach nothing new.",
                ),
            ],
            outputs=[
                cls.output(io.Image, id="chosen", display_name="chosen", is_output_list=True,
                           tooltip="The pictures that won every comparison they were in, one by one. What hangs on it "
                           "does not run as long as nothing is chosen."),
                cls.output(io.Image, id="rejected", display_name="rejected", is_output_list=True,
                           tooltip="The pictures that lost one."),
                cls.output(io.Latent, id="chosen_latents", display_name="chosen_latents", is_output_list=True,
                           tooltip="The latents of the chosen pictures, if latents is connected."),
                cls.output(io.Latent, id="rejected_latents", display_name="rejected_latents", is_output_list=True,
                           tooltip="The latents of the rejected pictures, if latents is connected."),
                cls.output(io.String, id="chosen_prompts", display_name="chosen_prompts", is_output_list=True,
                           tooltip="The prompts of the chosen pictures, in the same order."),
                cls.output(io.Int, id="chosen_seeds", display_name="chosen_seeds", is_output_list=True,
                           tooltip="The seeds of the chosen pictures, if seeds is connected."),
                cls.output(io.String, id="report", display_name="report", tooltip="How many questions are answered, "
                           "and how many wait for you."),
                cls.output(io.String, id="rejected_prompts", display_name="rejected_prompts", is_output_list=True,
                           tooltip="The prompts of the rejected pictures, in the same order."),
                cls.output(io.Int, id="rejected_seeds", display_name="rejected_seeds", is_output_list=True,
                           tooltip="The seeds of the rejected pictures, if seeds is connected."),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> int:
        """Another one after questions were lost or a wait was over, which the profile's revision does not tell."""
        return ROUNDS.number

    @classmethod
    def execute(
        cls, profile: list[Profile], images: list[torch.Tensor], prompts: list[str], mode: list[str],
        if_not_chosen: list[str], wait_seconds: list[float], reward: list | None = None, latents: list | None = None,
        seeds: list[int] | None = None, order: Sequence[str] = ORDERS[:1],
    ) -> io.NodeOutput:  # fmt: skip
        key, rule = single(profile, "profile").key, single(if_not_chosen, "if_not_chosen")
        judge = single(reward, "reward")
        shown, scores = shown_pictures(images, prompts, seeds, judge, score=rule == BY_REWARD)
        own_latents = None if latents is None else single_latents(latents, len(shown))
        store = preferences()
        questions = questions_about(shown, single(mode, "mode"))
        asked = store.ask(key, questions, {found.picture.hash: found.pixels for found in shown})
        names, advice = [question.key for question in questions], ""
        if single(order, "order") == INFORMATIVE:
            names, advice = ordered(shown, asked, judge)
        waits = rule == WAIT and any(question.open for question in asked)
        tell("ask", key, store.profile(key).revision, node=cls.hidden.unique_id, questions=names, waits=waits)
        if waits:
            seconds = single(wait_seconds, "wait_seconds")
            own_order = [question.key for question in questions]
            asked = wait_for_answers(store, key, own_order, seconds=seconds, on_look=Progress())
            if seconds and sum(not question.open for question in asked) < len(own_order):
                ROUNDS.begin()
        picked = pick(shown, asked, rule, scores)
        told = words_of(picked, len(asked), sum(found.blocked for found in shown)) + advice
        summary = store.summary(key)
        for_page = {
            "profile": key, "revision": summary.profile.revision, "questions": names,
            "answered": len(asked) - picked.waiting, "waiting": picked.waiting,
        }  # fmt: skip
        chosen, rejected = (
            handed_on(shown, side, own_latents, with_seeds=seeds is not None)
            for side in (picked.chosen, picked.rejected)
        )  # fmt: skip
        return io.NodeOutput(
            chosen.images, rejected.images, chosen.latents, rejected.latents, chosen.prompts, chosen.seeds, told,
            rejected.prompts, rejected.seeds,
            ui={"attune_choose": [for_page], "text": [told]},
        )  # fmt: skip


def shown_pictures(
    images: Sequence[torch.Tensor], prompts: Sequence[str], seeds: Sequence[int] | None, judge: Any, *, score: bool
) -> tuple[list[Shown], list[float] | None]:
    """The pictures of the batch, and their scores, higher = better, if they are needed.

    Raises:
        AttuneError: no pictures, prompts or seeds that do not fit them, or no reward where one is to decide.
    """
    pictures = single_pictures(images)
    texts = prompts_of(images, prompts) if any(prompt.strip() for prompt in prompts) else [""] * len(pictures)
    if score and judge is None:
        raise PreferenceError("The reward is to choose, but none is connected. Connect one to reward, or choose first.")
    if score:
        sign = 1 if judge.higher_is_better else -1
        found = score_pictures(pictures, texts, judge, progress_bar(len(pictures)))
        scores = [sign * value for value in found]
        blocked = [math.isnan(value) for value in scores]
    else:
        scores, blocked = None, [bool(unsafe_pictures(picture[None], [judge])) for picture in pictures]
    return show(pictures, texts, seeds_of([len(batch) for batch in images], seeds), blocked), scores


class HandedOn(NamedTuple):
    """What the outputs carry of the chosen pictures, or of the rejected ones; blocked where there is nothing."""

    images: Any
    latents: Any
    prompts: Any
    seeds: Any


def handed_on(
    shown: Sequence[Shown], side: Sequence[int], latents: list[dict] | None, *, with_seeds: bool
) -> HandedOn:  # fmt: skip
    """The outputs for the pictures in these places. What there is nothing of does not run, without an error."""

    def each(of: Callable[[int], Any]) -> Any:
        return [of(number) for number in side] or ExecutionBlocker(None)

    return HandedOn(
        each(lambda number: shown[number].image[None]),
        _not_connected("latents") if latents is None else each(latents.__getitem__),
        each(lambda number: shown[number].prompt),
        each(lambda number: shown[number].seed) if with_seeds else _not_connected("seeds"),
    )


def _not_connected(what: str) -> ExecutionBlocker:
    return ExecutionBlocker(f"Connect {what} to Choose Images to get those of the pictures.")


NODES: list[type[io.ComfyNode]] = [AttuneChooseImages]
