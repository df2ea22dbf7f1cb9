"""Apply Preference: pictures that lean towards a person's taste, with one adapter for everybody."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...training.adapters.user_attention import load_user_adapter
from ..host.adapter_files import ADAPTER, adapter_path, digest_of, listed
from ..host.schema import AttuneNode
from ..host.user_adapter import with_user
from .embedding import Preference, check_reads
from .nodes_common import CATEGORY, PreferenceWire
from .nodes_embedding import NO_FILE


class AttuneApplyPreference(AttuneNode):
    """One model for every taste."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        adapters = listed(ADAPTER) or [NO_FILE]
        return cls.schema(
            node_id="AttuneApplyPreference",
            display_name="Apply Preference",
            category=CATEGORY,
            description="Makes a model lean towards a taste. Stacks with LoRAs and ControlNet, and nothing is trained: "
            "a new choice shows in the next picture.",
            search_aliases=["personalize", "user adapter", "taste", "ppd", "style", "apply taste", "my taste"],
            inputs=[
                cls.input(io.Model, "model", tooltip="The model that the adapter was trained for, or a relative of "
                          "it; with or without LoRAs."),
                cls.input(PreferenceWire, "preference", tooltip="Whose taste: from Preference Embedding or Blend "
                          "Preferences."),
                cls.input(
                    io.Combo,
                    "adapter",
                    options=adapters,
                    default=adapters[-1],
                    tooltip="What lets the model listen to a taste. It belongs to a model, and to the encoder that the "
                    "taste was made with. Files lie in models/user_adapters.",
                ),
                cls.input(
                    io.Float,
                    "strength",
                    default=1.0,
                    min=-3.0,
                    max=5.0,
                    step=0.05,
                    tooltip="How far the pictures lean. 1 = as it was trained. Raising it exaggerates the taste, and "
                    "breaks pictures at some point. Below 0 leans away from it. 0 = exactly the model without.",
                ),
                cls.input(
                    io.Float,
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="From which part of sampling the taste counts. Raising it keeps the composition and leaves "
                    "colours and details to the taste. 0 = from the beginning.",
                ),
                cls.input(
                    io.Float,
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Up to which part of sampling the taste counts. Lowering it leaves the details to the "
                    "model. 1 = to the end. Not above start_percent = the taste does not count at all.",
                ),
            ],
            outputs=[cls.output(io.Model, id="personal", display_name="model", tooltip="For any sampler.")],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, adapter: str | None = None, **others: Any) -> str:
        return digest_of(adapter, ADAPTER)

    @classmethod
    def execute(
        cls, model: Any, preference: Preference, adapter: str, strength: float, start_percent: float, end_percent: float
    ) -> io.NodeOutput:
        return io.NodeOutput(
            apply(model, preference, adapter, strength=strength, start_percent=start_percent, end_percent=end_percent)
        )


def apply(
    model: Any, preference: Preference, name: str, *, strength: float, start_percent: float, end_percent: float
) -> Any:
    """The model with the adapter of that file name for a preference; the model itself where nothing would change.

    Raises:
        AttuneError: the file is missing, or belongs to another model or encoder.
    """
    path = adapter_path(name, ADAPTER)
    loaded, metadata = load_user_adapter(path)
    check_reads(loaded.config, metadata, preference, name)
    users = [(embedding.tokens, weight) for embedding, weight in preference.parts]
    return with_user(model, loaded, users, strength=strength, start_percent=start_percent, end_percent=end_percent)


NODES: list[type[io.ComfyNode]] = [AttuneApplyPreference]
