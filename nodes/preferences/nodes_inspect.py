"""Inspect Preference: what a taste changed, and how well its owner could be recognised by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from comfy_api.latest import io

from ...training.interfaces import AttuneError
from ...training.preference.set_encoder import load_set_encoder
from ..drawing import to_tensor
from ..host.adapter_files import ENCODER, adapter_path, digest_of, listed
from ..host.progress import Progress
from ..host.schema import AttuneNode
from ..picture_lists import single_pictures
from .embedding import Preference
from .linkage import LEAST_QUESTIONS, linkage_words, recognised
from .nodes_common import CATEGORY, PreferenceWire, Reward, single
from .nodes_embedding import NO_FILE
from .nodes_routes import preferences
from .records import PreferenceError


class AttuneInspectPreference(AttuneNode):
    """What did my taste change?"""

    @classmethod
    def define_schema(cls) -> io.Schema:
        encoders = listed(ENCODER) or [NO_FILE]
        return cls.schema(
            node_id="AttuneInspectPreference",
            display_name="Inspect Preference",
            category=CATEGORY,
            description="Shows what a taste changed: pictures with and without it side by side, and how far colours, "
            "light and your own words moved. To see whether it does what you want, and nothing that you do not.",
            search_aliases=["compare", "bias", "stereotype", "what changed", "before after", "privacy", "linkage"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                cls.input(io.Image, "without", tooltip="Pictures of the model without the taste. With fewer than 4 "
                          "nothing is called a change; 16 or more tell small changes from chance."),
                cls.input(io.Image, "with_taste", tooltip="The same prompts and seeds with the taste, in the same "
                          "order: from a second sampler with the same settings, behind Apply Preference."),
                cls.input(PreferenceWire, "preference", optional=True, tooltip="Whose taste it was, for the title: the "
                          "profile's name is then on the chart. Leave it open for a chart to show to others."),
                cls.input(
                    io.String,
                    "words",
                    multiline=True,
                    default="",
                    placeholder="words to look for, one per line (needs features)",
                    tooltip="Did the pictures come closer to these? One word or phrase per line, for example 'a woman' "
                    "and 'a man', to see what a taste has brought along. Needs features. Empty = only colours and "
                    "light.",
                ),
                cls.input(Reward, "features", optional=True, tooltip="A reward of the CLIP kind, from Load Reward, to "
                          "measure words with; the encoder's own for recognition."),
                cls.input(
                    io.Boolean,
                    "recognition",
                    default=False,
                    tooltip="Also tell how well the owners of this computer's profiles could be recognised by an "
                    "embedding, before you share one. Needs features, and two profiles with "
                    f"{LEAST_QUESTIONS} answered questions each. Off = not.",
                ),
                cls.input(
                    io.Combo,
                    "encoder",
                    options=encoders,
                    default=encoders[-1],
                    tooltip="The encoder whose embeddings are tested for recognition.",
                ),
            ],
            outputs=[
                cls.output(io.Image, id="chart", display_name="chart", tooltip="Some pairs, and how far each measure "
                           "moved, with its 95 % interval."),
                cls.output(io.String, id="report", display_name="report", tooltip="The same in words."),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(
        cls, recognition: Sequence[bool | None] | None = None, encoder: Sequence[str | None] | None = None, **_: Any
    ) -> str:
        # The host gives lists of one value here; None is a wire, whose value is not known yet.
        if recognition is None or tuple(recognition) == (False,):
            return ""
        try:
            return f"{preferences().revision()} {digest_of(encoder[0] if encoder else None, ENCODER)}"
        except AttuneError as error:
            return str(error)

    @classmethod
    def execute(
        cls, without: list[torch.Tensor], with_taste: list[torch.Tensor], words: list[str], recognition: list[bool],
        encoder: list[str], preference: list[Preference] | None = None, features: list[Any] | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        from .inspect_chart import inspection_chart
        from .inspecting import attribute_shifts, paired, probed, report, words_in

        pairs = paired(single_pictures(without), single_pictures(with_taste))
        phrases, eyes, taste = words_in(single(words, "words")), single(features, "features"), None
        shifts = attribute_shifts(pairs)
        if phrases:
            shifts += probed(_with_texts(eyes), pairs, phrases, Progress())
        if preference is not None:
            taste = single(preference, "preference")
        title = f"What {taste.title} changed" if taste else "What the taste changed"
        told = report(shifts, len(pairs), title)
        if single(recognition, "recognition"):
            if eyes is None:
                raise PreferenceError("Recognition needs features: connect the reward that the encoder reads.")
            reader = load_set_encoder(adapter_path(single(encoder, "encoder"), ENCODER))
            found, left_out = recognised(preferences(), reader, eyes, Progress())
            told += "\n" + linkage_words(found, left_out=left_out)
        chart = to_tensor(inspection_chart(pairs, shifts, title=title))
        return io.NodeOutput(chart, told, ui={"text": [told]})


def _with_texts(features: Any) -> Any:
    """
    Raises:
        PreferenceError: nothing is connected, or it knows no words.
    """
    if not callable(getattr(features, "text_features", None)):
        raise PreferenceError(
            "Words are measured by a reward of the CLIP kind: connect attune_demo_reward, CLIPScore or PickScore from "
            "Load Reward to features, or leave words empty."
        )
    return features


NODES: list[type[io.ComfyNode]] = [AttuneInspectPreference]
