"""Preference Embedding (VLM): a taste in numbers and in words, by a vision-language model on this computer."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ...training.digests import telling
from ...training.interfaces import RewardError
from ...training.vlm_base import Precision, folder_digest
from ...training.vlm_profile import (
    LEAST_PAIRS,
    MOST_PAIRS,
    USUAL_PAIRS,
    USUAL_TOKENS,
    Description,
    SeenPair,
    embedding_shape,
    encoder_id,
    load_profiler,
)
from ..host.progress import Progress, stop_reading
from ..host.schema import AttuneNode
from ..host.vision_language import (
    AUTO,
    chosen_precision,
    compute_device,
    device_inputs,
    find_model,
    make_room,
    model_folders,
    model_inputs,
)
from .nodes_common import CATEGORY, PreferenceWire, ProfileWire, least_stars
from .nodes_routes import preferences
from .pairs import TooFew
from .records import Profile

IF_FEWER = ("stop with an error", "leave out the rest", "nobody's taste")
MOST_TOKENS = 4096


class AttuneDescribePreference(AttuneNode):
    """A taste, in the words and states of a model that has looked at the choices."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneDescribePreference",
            display_name="Preference Embedding (VLM)",
            category=CATEGORY,
            description="Shows a few choices of a profile to a vision-language model on this computer. It writes what "
            "that person likes, and what it thought becomes the taste for Apply Preference.",
            search_aliases=["user embedding", "user profile", "describe my taste", "vision language model", "llava",
                            "qwen", "smolvlm", "personalize", "ppd", "taste"],
            is_output_node=True,
            inputs=[
                cls.input(ProfileWire, "profile", tooltip="Whose taste: from Preference Profile."),
                *model_inputs(cls),
                cls.input(
                    io.Int,
                    "pairs",
                    default=USUAL_PAIRS,
                    min=LEAST_PAIRS,
                    max=MOST_PAIRS,
                    tooltip="How many pairs of a better and a worse picture the model is shown: the newest choices, of "
                    "different prompts first. Raising it tells more, and takes more time and memory. A user adapter "
                    f"works best with the number it was trained with, {USUAL_PAIRS} as a rule.",
                ),
                cls.input(
                    io.Int,
                    "max_new_tokens",
                    default=USUAL_TOKENS,
                    min=1,
                    max=MOST_TOKENS,
                    tooltip="Where the model's text is cut off, in tokens (about four letters each). Raising it lets "
                    "the model finish, and takes longer if it does not end by itself. The embedding's size stays.",
                ),
                *device_inputs(cls),
                least_stars(cls, advanced=True),
                cls.input(
                    io.Combo,
                    "if_fewer",
                    options=list(IF_FEWER),
                    default=IF_FEWER[0],
                    tooltip="With fewer pairs: stop the run with an error, leave out what hangs on the taste and run "
                    "the rest of the workflow, or hand on nobody's taste, which changes no picture.",
                ),
            ],
            outputs=[
                cls.output(PreferenceWire, id="preference", display_name="preference", tooltip="For Apply Preference, "
                           "with a user adapter that was trained with the same model. It is kept with the profile."),
                cls.output(io.String, id="profile_text", display_name="profile_text", tooltip="What the model wrote "
                           "about this person's taste. It stays on this computer."),
                cls.output(io.String, id="report", display_name="report", tooltip="From how many pairs, and whether "
                           "the text came to its end."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, model_folder: str | None = None) -> bool | str:
        try:
            if model_folder is not None:
                find_model(model_folder)
        except RewardError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, model_folder: str | None = None, **others: Any) -> str:
        folder = model_folders().get(model_folder or "")
        with telling(stop_reading):
            return folder_digest(folder) if folder else ""

    @classmethod
    def execute(
        cls,
        profile: Profile,
        model_folder: str,
        pairs: int = USUAL_PAIRS,
        max_new_tokens: int = USUAL_TOKENS,
        precision: str = AUTO,
        device: str = "default",
        least_stars: int = 1,
        if_fewer: str = IF_FEWER[0],
    ) -> io.NodeOutput:
        from .describing import Asked, describe_profile, nobodys, report

        folder, place = find_model(model_folder), compute_device(device)
        kept_in = chosen_precision(precision, place)
        with telling(Progress()):
            identity = encoder_id(folder_digest(folder), kept_in)
        asked = Asked(pairs, least_stars, max_new_tokens, identity, embedding_shape(folder))

        def write(seen: Sequence[SeenPair]) -> Description:
            make_room(place)
            return write_about(seen, folder, kept_in, place, max_new_tokens)

        try:
            found = describe_profile(preferences(), profile, asked, write)
        except TooFew as error:
            if if_fewer == IF_FEWER[0]:
                raise
            told = str(error)
            # What hangs on a blocked output does not run, without an error.
            blocked = if_fewer == IF_FEWER[1]
            outputs = [ExecutionBlocker(None)] * 2 if blocked else [nobodys(profile, asked), ""]
            return io.NodeOutput(*outputs, told, ui={"text": [told]})
        told = report(found, folder.name)
        return io.NodeOutput(found.preference, found.text, told, ui={"text": [f"{told}\n\n{found.text}"]})


def write_about(
    seen: Sequence[SeenPair], folder: Path, precision: Precision, device: torch.device, most: int
) -> Description:
    """Load the model, have it write, and let go of it: its memory is the image model's again."""
    try:
        return load_profiler(folder, precision=precision, device=device).describe(
            seen, max_new_tokens=most, on_token=Progress()
        )  # fmt: skip
    finally:
        gc.collect()
        comfy.model_management.soft_empty_cache()


NODES: list[type[io.ComfyNode]] = [AttuneDescribePreference]
