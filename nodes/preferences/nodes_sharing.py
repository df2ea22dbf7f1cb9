"""A taste to give away, and one that was given."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ...training.interfaces import AttuneError
from ..host.examples import TASTES, offer_pictures
from ..host.folders import free_path
from ..host.schema import AttuneNode
from ..pair_drawing import counted
from ..places import content_digest
from .embedding import Preference, PreferenceEmbedding
from .nodes_common import CATEGORY, PreferenceWire, ProfileWire
from .nodes_routes import preferences, tell
from .profile_file import Place, SharedProfile, find, listed, newest_prompts, read_file, write_file
from .records import PreferenceError, Profile

SHARED = "attune/profiles"
# So many of a profile's newest choices are looked through for prompts.
_MOST_ASKED = 5000


offer_pictures(TASTES)


def output_folder() -> Path:
    return Path(folder_paths.get_output_directory())


def places() -> list[Place]:
    """Where files to import lie: what somebody else gave, and what was exported here."""
    return [Place(Path(folder_paths.get_input_directory())), Place(output_folder(), SHARED, " [output]")]


class AttuneExportProfile(AttuneNode):
    """A taste, as a file for others."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneExportProfile",
            display_name="Export Profile",
            category=CATEGORY,
            description="Saves a taste as a small file to give away. It holds numbers only: no name, no pictures, and "
            "no prompts unless you ask for them.",
            search_aliases=["share taste", "save profile", "save preference", "export embedding", "give away", "ppd"],
            is_output_node=True,
            inputs=[
                cls.input(PreferenceWire, "preference", tooltip="The taste: from Preference Embedding, or from Blend "
                          "Preferences set to 'one taste in between'."),
                cls.input(
                    io.String,
                    "file_name",
                    default="taste",
                    tooltip="Name of the file, which gets a number behind it. It lands in ComfyUI's folder "
                    "output/attune/profiles. People you give the file to see this name.",
                ),
                cls.input(
                    io.String,
                    "title",
                    default="",
                    placeholder="what others are told it is (empty = nothing)",
                    tooltip="A title inside the file, for everybody to read, and the name it is imported under if "
                    "nobody types another. Empty = none: your profile's own name is never in the file.",
                ),
                cls.input(
                    io.Boolean,
                    "include_prompts",
                    default=False,
                    tooltip="On: also puts the prompts of your choices into the file, and the taste in words where its "
                    "encoder writes them, for everybody to read; the prompts need the profile to be connected. Off = "
                    "neither.",
                ),
                cls.input(ProfileWire, "profile", optional=True, tooltip="Whose prompts to put in, from Preference "
                          "Profile; not used while include_prompts is off. Its name is not put in."),
                cls.input(PreferenceWire, "second_preference", optional=True, tooltip="The same taste by another "
                          "encoder, in the same file, so that adapters of both encoders can use it. Not connected = "
                          "only the first."),
            ],
            outputs=[
                cls.output(io.String, id="file", display_name="file", tooltip="Name of the file, as the list of Import "
                           "Profile has it, inside ComfyUI's output folder. Empty = nothing was written."),
                cls.output(io.String, id="summary", display_name="summary", tooltip="What was written, and where."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        preference: Preference,
        file_name: str,
        title: str = "",
        include_prompts: bool = False,
        profile: Profile | None = None,
        second_preference: Preference | None = None,
    ) -> io.NodeOutput:
        embeddings = [given(wire) for wire in (preference, second_preference) if wire is not None]
        if all(embedding.empty for embedding in embeddings):
            told = (
                "Nothing to export yet: the taste is empty. Make a few choices with Choose Images and press Run again."
            )
            return io.NodeOutput("", told, ui={"text": [told]})
        prompts = _prompts(profile) if include_prompts else ()
        kept = [embedding if include_prompts else _wordless(embedding) for embedding in embeddings]
        shared = SharedProfile(tuple(kept), title.strip(), prompts)
        path, new = write_file(free_path(output_folder() / SHARED, file_name), shared)
        told = f"{'Written' if new else 'The same as before'}: {path.name}, {words_of(shared)}."
        if include_prompts and profile is None:
            told += " Connect the profile to put its prompts in."
        return io.NodeOutput(f"{SHARED}/{path.name} [output]", told, ui={"text": [told]})


def given(preference: Preference) -> PreferenceEmbedding:
    """The one embedding of a taste that is to be given away.

    Raises:
        PreferenceError: there are several, or it acts with a weight of its own.
    """
    if len(preference.parts) != 1:
        raise PreferenceError(
            f"{preference.title} is {len(preference.parts)} tastes side by side, and a file holds one. Set blend in "
            "Blend Preferences to 'one taste in between', or export each of them."
        )
    ((embedding, weight),) = preference.parts
    if weight != 1:
        raise PreferenceError(
            f"The taste has the weight {weight:g}, which a file cannot hold. Set it to 1 in Blend Preferences, or set "
            "blend there to 'one taste in between'. Whoever imports the file sets its strength in Apply Preference."
        )
    return embedding


def words_of(shared: SharedProfile) -> str:
    """What is in a file, in a line."""
    choices = max(embedding.choices for embedding in shared.embeddings)
    encoders = len(shared.embeddings)
    taste = f"a taste of {counted(choices, 'choice')}" if choices else "a taste"
    words = [taste + (f" by {encoders} encoders" if encoders > 1 else "")]
    words += [f"with {counted(len(shared.prompts), 'prompt')}" if shared.prompts else "no prompts"]
    return ", ".join(words)


def _wordless(embedding: PreferenceEmbedding) -> PreferenceEmbedding:
    return PreferenceEmbedding(embedding.tokens, embedding.encoder_id, embedding.choices)


def _prompts(profile: Profile | None) -> tuple[str, ...]:
    if profile is None:
        return ()
    answered = preferences().answered(profile.key, most=_MOST_ASKED)
    return newest_prompts([asked.question.prompt for asked in answered])


class AttuneImportProfile(AttuneNode):
    """A taste that somebody gave."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneImportProfile",
            display_name="Import Profile",
            category=CATEGORY,
            description="Reads a taste from a file of Export Profile, and keeps it as a profile on this computer.",
            search_aliases=["load taste", "load profile", "load preference", "import embedding", "shared taste", "ppd"],
            is_output_node=True,
            inputs=[
                cls.input(
                    io.Combo,
                    "file",
                    options=listed(places()),
                    tooltip="A .safetensors that Export Profile has written, in ComfyUI's input folder or exported on "
                    "this computer (marked [output]). Press R in the browser to list new files. A file that is damaged "
                    "or is something else is refused, and nothing is changed.",
                ),
                cls.input(
                    io.String,
                    "new_name",
                    default="",
                    placeholder="name of the new profile (empty = as the file says)",
                    tooltip="What to call it here. The same file under the same name is imported once. A profile that "
                    "holds choices, or another taste, is never touched: then type another name. Empty = the file's "
                    "title, or else the file's name.",
                ),
            ],
            outputs=[
                cls.output(ProfileWire, id="profile", display_name="profile", tooltip="The new profile, without "
                           "choices of its own: for Preference Embedding, which hands on the taste as it was given."),
                cls.output(PreferenceWire, id="preference", display_name="preference", tooltip="The taste itself: for "
                           "Apply Preference, Blend Preferences and Inspect Preference. Of several encoders, the "
                           "first in the file."),
                cls.output(io.String, id="summary", display_name="summary", tooltip="What was in the file, and which "
                           "encoder made it."),
                cls.output(io.String, id="prompts", display_name="prompts", tooltip="The prompts in the file, one per "
                           "line, to try the taste on. Empty = there are none."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        # Files come and go while a page is open: whether it is there counts, not whether it was listed.
        try:
            if file is not None:
                find(places(), file)
        except PreferenceError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None, new_name: str | None = None) -> str:
        try:
            if file is None or new_name is None:  # a wire, whose value is not known yet
                return preferences().revision()
            # Imported now, as `execute` would: a profile that comes later would count as a change.
            profile, _ = _imported(file, new_name)
            return f"{profile.key} {profile.revision} {content_digest([find(places(), file)])}"
        except AttuneError as error:
            return str(error)

    @classmethod
    def execute(cls, file: str, new_name: str = "") -> io.NodeOutput:
        profile, shared = _imported(file, new_name)
        first = shared.embeddings[0]
        named = PreferenceEmbedding(first.tokens, first.encoder_id, first.choices, first.text, profile.name)
        told = f"{profile.name}: {words_of(shared)}"
        told += f", called {shared.title!r} by its giver" if shared.title not in ("", profile.name) else ""
        told += f". Encoder: {', '.join(embedding.encoder_id for embedding in shared.embeddings)}."
        lines = "\n".join(" ".join(prompt.split()) for prompt in shared.prompts)
        return io.NodeOutput(profile, Preference.of(named), told, lines, ui={"text": [told]})


def _imported(file: str, name: str) -> tuple[Profile, SharedProfile]:
    """The profile that holds what the file holds; made if it is not there yet, which all tabs are told of."""
    path = find(places(), file)
    shared, store = read_file(path), preferences()
    before = store.revision()
    profile = store.adopt(name.strip() or shared.title or path.stem[:60], shared.embeddings)
    if store.revision() != before:
        tell("create", profile.key, profile.revision)
    return profile, shared


NODES: list[type[io.ComfyNode]] = [AttuneExportProfile, AttuneImportProfile]
