"""Choices of several people, for a user adapter that serves all of them and those who come later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ...training.interfaces import AttuneError
from ..drawing import to_tensor
from ..host.examples import PEOPLE, offer_pictures
from ..host.progress import Progress
from ..host.schema import AttuneNode
from ..personal_pairs import WIRE, PeoplesPairs, PersonPair, from_file, written
from ..places import content_digest, inside, listed_files, missing
from .nodes_common import CATEGORY, ProfileWire, caption, least_stars
from .nodes_routes import preferences
from .pairs import TooFew, gather, load
from .records import PreferenceError, Profile, anonymous

PairsWire = io.Custom(WIRE)
PROFILES = 4
MOST_PAIRS = 100


class PeopleNode(AttuneNode):
    """What both sources have in common."""

    @classmethod
    def most_pairs(cls) -> Any:
        return cls.input(
            io.Int,
            "most_pairs",
            default=MOST_PAIRS,
            min=0,
            max=100_000,
            tooltip="How many pairs of each person at most. Raising it learns from more and needs memory: 25 MB for a "
            "pair of a megapixel each. 0 = all.",
        )

    @classmethod
    def more(cls) -> Any:
        return cls.input(
            PairsWire,
            "more",
            optional=True,
            tooltip="Choices of further people, from another node of this kind: they are added.",
        )

    @classmethod
    def pair_outputs(cls) -> list[Any]:
        return [
            cls.output(PairsWire, id="pairs", display_name="pairs", tooltip="For Personal DPO Objective, or for "
                       "'more' of another node of this kind."),
            cls.output(io.Image, id="sheet", display_name="sheet", tooltip="A dozen of the pairs as a picture, the "
                       "chosen ones framed; people are numbered."),
            cls.output(io.String, id="report", display_name="report", tooltip="How many people and pairs there are, "
                       "and what was left out."),
        ]  # fmt: skip

    @classmethod
    def result(cls, found: PeoplesPairs, more: PeoplesPairs | None) -> io.NodeOutput:
        together = found if more is None else found + more
        return io.NodeOutput(together, to_tensor(together.sheet()), together.words, ui={"text": [together.words]})


class AttunePersonalPairs(PeopleNode):
    """Choices out of profiles."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttunePersonalPairs",
            display_name="People's Choices",
            category=CATEGORY,
            description="Collects the choices of several profiles, to train one user adapter for all of them. Names "
            "of people go no further than this.",
            search_aliases=["personal pairs", "many users", "user adapter", "ppd", "several profiles", "population"],
            is_output_node=True,
            inputs=[
                cls.input(ProfileWire, "profile", tooltip="Whose choices: from Preference Profile. A user adapter "
                          "needs those of many people; chain several of these nodes for more than four."),
                *(
                    cls.input(ProfileWire, f"profile_{number}", optional=True,
                              tooltip="The same of another person. Not connected = nobody.")
                    for number in range(2, PROFILES + 1)
                ),
                cls.more(),
                cls.most_pairs(),
                least_stars(cls),
                caption(cls),
            ],
            outputs=cls.pair_outputs(),
        )  # fmt: skip

    @classmethod
    def execute(
        cls, profile: Profile, most_pairs: int, least_stars: int, caption: str, profile_2: Profile | None = None,
        profile_3: Profile | None = None, profile_4: Profile | None = None, more: PeoplesPairs | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        store, progress = preferences(), Progress()
        # By key: the same profile on two sockets is one person.
        asked = {one.key: one for one in (profile, profile_2, profile_3, profile_4) if one is not None}
        gathered, remarks = [], []
        for one in asked.values():
            try:
                gathered.append(gather(store, one, most=most_pairs, least_stars=least_stars))
            except TooFew as error:  # the others can teach all the same
                if len(asked) == 1 and more is None:
                    raise
                remarks.append(str(error))
        total, done = sum(len(found.preferences) for found in gathered), 0
        pairs: list[PersonPair] = []

        def one_more() -> None:
            nonlocal done
            done += 1
            progress(done, total)

        for found in gathered:
            loaded = load(found, store.pictures, least=0, caption=caption, on_pair=one_more)
            person = anonymous(found.profile.key)
            pairs += [PersonPair(person, pair.chosen, pair.rejected, pair.caption) for pair in loaded.pairs]
            if loaded.left_out:
                why = ", ".join(f"{count} {reason}" for reason, count in loaded.left_out.items())
                remarks.append(f"Left out of {found.profile.name}: {why}.")
        if not pairs and (more is None or not more.pairs):
            raise PreferenceError(" ".join(["There is nothing to learn from.", *remarks]))
        return cls.result(PeoplesPairs(tuple(pairs), tuple(remarks)), more)


def input_folder() -> Path:
    return Path(folder_paths.get_input_directory())


class AttunePersonalPairsFromFile(PeopleNode):
    """Choices out of a file: of other people, or of simulated ones."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttunePersonalPairsFromFile",
            display_name="People's Choices from File",
            category=CATEGORY,
            description="Reads choices of several people from a list in ComfyUI's input folder: collected elsewhere, "
            "or made by simulated people.",
            search_aliases=["personal pairs", "pairs.jsonl", "simulated people", "population", "preference dataset"],
            is_output_node=True,
            inputs=[
                cls.input(
                    io.Combo,
                    "file",
                    options=listed_files(input_folder(), {".jsonl"}),
                    tooltip="A .jsonl in a folder of ComfyUI's input folder, beside its pictures. On each line: "
                    '{"prompt": …, "chosen": picture, "rejected": picture, "person": any name}. Press R in the browser '
                    "to list new files.",
                ),
                cls.most_pairs(),
                cls.input(
                    io.Int,
                    "most_people",
                    default=0,
                    min=0,
                    max=100_000,
                    tooltip="How many people at most, the first of the file. Raising it lets more of them teach. 0 = "
                    "all.",
                ),
                cls.more(),
            ],
            outputs=cls.pair_outputs(),
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        return missing(input_folder(), file, what="file") or True

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None, **_: Any) -> str:
        # The pictures count too: one that was replaced is another choice.
        try:
            path = inside(input_folder(), file, what="file") if file else None
            return "" if path is None else content_digest([path]) + written(path)
        except (AttuneError, OSError):
            return ""

    @classmethod
    def execute(cls, file: str, most_pairs: int, most_people: int, more: PeoplesPairs | None = None) -> io.NodeOutput:
        path = inside(input_folder(), file, what="file")
        found = from_file(path, file, most=most_pairs, most_people=most_people, on_pair=Progress())
        return cls.result(found, more)


offer_pictures(PEOPLE)

NODES: list[type[io.ComfyNode]] = [AttunePersonalPairs, AttunePersonalPairsFromFile]
