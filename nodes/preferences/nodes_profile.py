"""A profile, and pairs to train on from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ...training.interfaces import AttuneError
from ...training.preference_pairs import MINIMUM_PAIRS
from ..drawing import to_tensor
from ..host.sampling import progress_bar
from ..host.schema import AttuneNode
from ..job_inputs import in_jobs
from .choosing import FIRST_NAME, choices, choose, words_of
from .nodes_common import CATEGORY, ProfileWire, caption, least_stars
from .nodes_routes import preferences
from .pairs import TooFew, gather, load, report, sheet
from .records import Profile

IF_FEWER = ("stop with an error", "leave out the rest")


class AttunePreferenceProfile(AttuneNode):
    """Whose taste."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttunePreferenceProfile",
            display_name="Preference Profile",
            category=CATEGORY,
            description="Chooses whose taste is meant: a profile that remembers which pictures were liked better. Kept "
            "on this computer only.",
            search_aliases=["taste", "user", "person", "personalize", "favourites", "likes", "ppd"],
            is_output_node=True,
            inputs=[
                cls.input(
                    io.Combo,
                    "profile",
                    options=_choices(),
                    default=FIRST_NAME,
                    tooltip="Which profile. 'my taste' is made when it is first used. Not used while new_name says "
                    "something. The button Profiles below lists how much is in each, and renames and deletes.",
                ),
                cls.input(
                    io.String,
                    "new_name",
                    default="",
                    placeholder="a name for another profile (empty = the choice above)",
                    tooltip="Makes a profile of this name, or takes the one that has it. Your workflow holds the name: "
                    "choose one that says nothing about you if you share it. Empty = the choice above.",
                ),
            ],
            outputs=[
                cls.output(ProfileWire, id="profile_out", display_name="profile", tooltip="For Pairs from Profile and "
                           "all nodes that ask for or use a taste. They run again when a choice was made, changed or "
                           "taken back, and not otherwise."),
                cls.output(io.String, id="summary", display_name="summary", tooltip="How many choices the profile "
                           "holds, and how many questions wait for an answer."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, profile: str | None = None) -> bool:
        # Profiles come and go while a page is open; `execute` says what is there instead.
        return True

    @classmethod
    def fingerprint_inputs(cls, profile: str | None = None, new_name: str | None = None) -> str:
        try:
            if profile is None or new_name is None:  # a wire, whose value is not known yet
                return preferences().revision()
            # Made now, as `execute` would: a key that comes later would count as a change.
            found = choose(preferences(), profile, new_name)
            return f"{found.key} {found.revision}"
        except AttuneError as error:
            return str(error)

    @classmethod
    def execute(cls, profile: str, new_name: str = "") -> io.NodeOutput:
        store = preferences()
        found = choose(store, profile, new_name)
        told = words_of(store.summary(found.key))
        return io.NodeOutput(found, told, ui={"text": [told]})


def _choices() -> list[str]:
    """Only the first name where the store cannot be read, which a run then explains."""
    try:
        return choices(preferences())
    except AttuneError:
        return [FIRST_NAME]


def by_key(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The inputs of a Preference Profile with the key in place of the name, which may change until a job is done."""
    name, new_name = inputs.get("profile"), inputs.get("new_name", "")
    if not isinstance(name, str) or not isinstance(new_name, str):
        return inputs
    found = preferences().find(new_name.strip() or name)
    return inputs if found is None else {**inputs, "profile": found.key, "new_name": ""}


in_jobs("AttunePreferenceProfile", by_key)


class AttunePairsFromProfile(AttuneNode):
    """A preference set from a person's choices."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttunePairsFromProfile",
            display_name="Pairs from Profile",
            category=CATEGORY,
            description="Makes pairs of a better and a worse picture from the choices of a profile, to train on them "
            "with Diffusion-DPO.",
            search_aliases=["preference pairs", "chosen rejected", "dpo dataset", "train on my choices", "my taste"],
            is_output_node=True,
            inputs=[
                cls.input(ProfileWire, "profile", tooltip="Whose choices: from Preference Profile."),
                cls.input(
                    io.Int,
                    "most_pairs",
                    default=300,
                    min=0,
                    max=100_000,
                    tooltip="How many pairs at most, the newest choices first. Raising it learns from more and needs "
                    "memory: 25 MB for a pair of a megapixel each. 0 = all.",
                ),
                least_stars(cls),
                caption(cls),
                cls.input(
                    io.Int,
                    "least_pairs",
                    default=MINIMUM_PAIRS,
                    min=1,
                    max=100_000,
                    tooltip=f"How many pairs there must be to go on; Diffusion-DPO needs {MINIMUM_PAIRS}. Raising it "
                    "waits for a clearer taste. 1 = any.",
                ),
                cls.input(
                    io.Combo,
                    "if_fewer",
                    options=list(IF_FEWER),
                    default=IF_FEWER[0],
                    tooltip="With fewer pairs: stop the run with an error, or leave out what hangs on the pairs and "
                    "run the rest of the workflow, until you have chosen more and press Run again.",
                ),
            ],
            outputs=[
                cls.output(io.Image, id="chosen", display_name="chosen", is_output_list=True,
                           tooltip="The better picture of each pair, one by one."),
                cls.output(io.Image, id="rejected", display_name="rejected", is_output_list=True,
                           tooltip="The other picture of each pair, in the same order."),
                cls.output(io.String, id="captions", display_name="captions", is_output_list=True,
                           tooltip="The prompt of each pair, in the same order."),
                cls.output(io.Image, id="sheet", display_name="sheet",
                           tooltip="A dozen of the pairs as a picture, the chosen ones framed."),
                cls.output(io.String, id="report", display_name="report", tooltip="How many pairs there are, and what "
                           "was left out: ties, skipped ones, and why."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, profile: Profile, most_pairs: int, least_stars: int, caption: str, least_pairs: int, if_fewer: str
    ) -> io.NodeOutput:
        store = preferences()
        try:
            found = gather(store, profile, most=most_pairs, least_stars=least_stars)
            bar = progress_bar(len(found.preferences))
            loaded = load(found, store.pictures, least=least_pairs, caption=caption, on_pair=bar)
        except TooFew as error:
            if if_fewer == IF_FEWER[0]:
                raise
            # What hangs on these outputs does not run, without an error.
            return io.NodeOutput(*[ExecutionBlocker(None)] * 4, str(error), ui={"text": [str(error)]})
        told = report(found, loaded)
        return io.NodeOutput(
            [pair.chosen[None] for pair in loaded.pairs],
            [pair.rejected[None] for pair in loaded.pairs],
            [pair.caption for pair in loaded.pairs],
            to_tensor(sheet(loaded, told)),
            told,
            ui={"text": [told]},
        )


NODES: list[type[io.ComfyNode]] = [AttunePreferenceProfile, AttunePairsFromProfile]
