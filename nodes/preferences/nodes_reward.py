"""Preference Reward: a profile as a judge, for ranking and training."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..host.progress import Progress
from ..host.schema import AttuneNode
from .nodes_common import CATEGORY, ProfileWire, Reward, least_stars
from .nodes_routes import preferences
from .pairs import TooFew
from .personal_reward import LEAST_DECISIONS, learn, report, without_opinion
from .records import Profile

IF_FEWER = ("stop with an error", "leave out the rest", "score all alike")


class AttunePreferenceReward(AttuneNode):
    """Whose eyes, and what they have seen."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttunePreferenceReward",
            display_name="Preference Reward",
            category=CATEGORY,
            description="Turns the choices of a profile into a reward: it scores new pictures the way that person "
            "would choose, says how often it is right, and whether more choices would help.",
            search_aliases=["taste", "personal reward", "rank by my taste", "my taste", "personal score", "user reward",
                            "preference model", "bradley terry"],
            is_output_node=True,
            inputs=[
                cls.input(ProfileWire, "profile", tooltip="Whose taste: from Preference Profile."),
                cls.input(Reward, "encoder", tooltip="Whose eyes to see pictures with: a reward of the CLIP kind, such "
                          "as attune_demo_reward, CLIPScore or PickScore. Its own score does not count."),
                cls.input(
                    io.Int,
                    "most_choices",
                    default=500,
                    min=LEAST_DECISIONS,
                    max=2000,
                    tooltip="How many choices to learn from at most, the newest first. Raising it gives a steadier "
                    "taste, which follows a change of mind more slowly, and takes longer.",
                ),
                least_stars(cls, "to count as better and worse; less is a tie"),
                cls.input(
                    io.Combo,
                    "if_fewer",
                    options=list(IF_FEWER),
                    default=IF_FEWER[0],
                    tooltip=f"With fewer than {LEAST_DECISIONS} choices: stop the run with an error, leave out what "
                    "hangs on the reward and run the rest of the workflow, or give every picture the score 0.",
                ),
            ],
            outputs=[
                cls.output(Reward, id="reward", display_name="reward", tooltip="For Score Images, Rank and Keep Best, "
                           "Combine Rewards and the objectives. 0 = the average of the pictures you judged, 1 = "
                           "better by one standard deviation of them."),
                cls.output(io.String, id="report", display_name="report", tooltip="How many choices it was learned "
                           "from, how often it foretells choices it has not seen, and whether more would help."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, profile: Profile, encoder: Any, most_choices: int, least_stars: int, if_fewer: str
    ) -> io.NodeOutput:
        try:
            learned = learn(
                preferences(), profile, encoder, most=most_choices, least_stars=least_stars, progress=Progress()
            )  # fmt: skip
        except TooFew as error:
            if if_fewer == IF_FEWER[0]:
                raise
            told = str(error)
            # What hangs on a blocked output does not run, without an error.
            reward = ExecutionBlocker(None) if if_fewer == IF_FEWER[1] else without_opinion(profile, encoder)
        else:
            reward, told = learned.reward, report(learned)
        return io.NodeOutput(reward, told, ui={"text": [told]})


NODES: list[type[io.ComfyNode]] = [AttunePreferenceReward]
