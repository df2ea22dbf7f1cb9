"""A taste in numbers: from a profile, and several blended."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...training.preference.set_encoder import load_set_encoder
from ..host.adapter_files import ENCODER, adapter_path, digest_of, listed
from ..host.progress import Progress
from ..host.schema import AttuneNode
from .embedding import blended
from .nodes_common import CATEGORY, PreferenceWire, ProfileWire, Reward, least_stars
from .nodes_routes import preferences
from .records import PreferenceError, Profile
from .user_encoder import embed_profile, report

NO_FILE = "none found"
IN_BETWEEN, SIDE_BY_SIDE = "one taste in between", "each acts by itself"
MOST_TASTES = 4


class AttunePreferenceEmbedding(AttuneNode):
    """A taste from a few choices."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        encoders = listed(ENCODER) or [NO_FILE]
        return cls.schema(
            node_id="AttunePreferenceEmbedding",
            display_name="Preference Embedding",
            category=CATEGORY,
            description="Reads the choices of a profile and says in numbers what that person likes, for Apply "
            "Preference. Four choices are enough to begin; nothing is trained.",
            search_aliases=["user embedding", "taste", "personalize", "ppd", "set encoder", "my taste"],
            is_output_node=True,
            inputs=[
                cls.input(ProfileWire, "profile", tooltip="Whose taste: from Preference Profile."),
                cls.input(Reward, "features", tooltip="The eyes that the encoder was trained with, from Load Reward: "
                          "attune_demo_reward for the demo's encoder. Its own score does not count."),
                cls.input(
                    io.Combo,
                    "encoder",
                    options=encoders,
                    default=encoders[-1],
                    tooltip="What turns choices into a taste. It belongs to the user adapter: an adapter reads only "
                    "what its own encoder wrote. Files lie in models/user_adapters.",
                ),
                cls.input(
                    io.Int,
                    "most_choices",
                    default=32,
                    min=1,
                    max=1000,
                    tooltip="How many choices to read at most, the newest first. Raising it gives a steadier taste, "
                    "which follows a change of mind more slowly. Ties and skipped ones do not count; a question of "
                    "several pictures, with stars or with a best one, is one choice.",
                ),
                least_stars(cls, "to count"),
            ],
            outputs=[
                cls.output(PreferenceWire, id="preference", display_name="preference", tooltip="For Apply Preference, "
                           "Blend Preferences, Inspect Preference and Export Profile. Of a profile without choices it "
                           "is nobody's, which changes nothing."),
                cls.output(io.String, id="report", display_name="report", tooltip="How many choices are in it."),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, encoder: str | None = None, **others: Any) -> str:
        return digest_of(encoder, ENCODER)

    @classmethod
    def execute(
        cls, profile: Profile, features: Any, encoder: str, most_choices: int, least_stars: int
    ) -> io.NodeOutput:
        found = embed_profile(
            preferences(), profile, load_set_encoder(adapter_path(encoder, ENCODER)), features,
            most=most_choices, least_stars=least_stars, progress=Progress(),
        )  # fmt: skip
        told = report(found)
        return io.NodeOutput(found.preference, told, ui={"text": [told]})


class AttuneBlendPreferences(AttuneNode):
    """Somebody between two tastes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneBlendPreferences",
            display_name="Blend Preferences",
            category=CATEGORY,
            description="Mixes up to four tastes, each as strongly as you like: two people's, or your own of last "
            "year and of today.",
            search_aliases=["mix tastes", "interpolate", "combine users", "average", "merge preferences"],
            inputs=[
                *[part for number in range(1, MOST_TASTES + 1) for part in _taste_inputs(cls, number)],
                cls.input(
                    io.Combo,
                    "blend",
                    options=[IN_BETWEEN, SIDE_BY_SIDE],
                    default=IN_BETWEEN,
                    tooltip="one taste in between: the numbers are mixed; sampling stays as fast as with one taste. "
                    "each acts by itself: every taste changes the picture on its own and the changes are added up; "
                    "one more pass of the model per taste and step.",
                ),
            ],
            outputs=[
                cls.output(PreferenceWire, id="preference", display_name="preference", tooltip="For Apply Preference."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, blend: str, **inputs: Any) -> io.NodeOutput:
        tastes = [
            (inputs[f"preference_{number}"], float(inputs[f"weight_{number}"]))
            for number in range(1, MOST_TASTES + 1)
            if inputs.get(f"preference_{number}") is not None
        ]
        if not tastes:
            raise PreferenceError("There is no taste to blend. Connect a Preference Embedding to preference_1.")
        return io.NodeOutput(blended(tastes, in_between=blend == IN_BETWEEN))


def _taste_inputs(node: type[AttuneNode], number: int) -> list[Any]:
    first = number <= 2
    return [
        node.input(
            PreferenceWire, f"preference_{number}", optional=not first,
            tooltip="A taste, from Preference Embedding or another Blend Preferences."
            + ("" if first else " Leave it open if you have fewer."),
        ),
        node.input(
            io.Float, f"weight_{number}", default=0.5 if first else 0.0, min=-2.0, max=2.0, step=0.05,
            optional=not first,
            tooltip="How much of this taste. The weights' sum is the strength of the whole: 0.5 and 0.5 is halfway "
            "between two. Below 0 leans away from it. 0 = nothing of it.",
        ),
    ]  # fmt: skip


NODES: list[type[io.ComfyNode]] = [AttunePreferenceEmbedding, AttuneBlendPreferences]
