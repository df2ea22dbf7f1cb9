"""The node that reads words in pictures."""

from __future__ import annotations

from typing import get_args

import comfy.model_management
from comfy_api.latest import io

from ...training.interfaces import RewardError
from ..host.examples import WORDS, offer_pictures
from ..host.schema import AttuneNode
from .cache import CachedReward
from .nodes_common import CATEGORY, Reward
from .ocr import TextInImageReward, Unquoted, missing_reader


class TextInImage(AttuneNode):
    """How much of the quoted words can be read."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneTextInImageReward",
            display_name="Text-in-Image Reward (OCR)",
            category=CATEGORY,
            description="Scores whether the words that the prompt puts in quotation marks can be read in the image.",
            search_aliases=["ocr", "read text", "spelling", "typography", "rapidocr", "words in image"],
            inputs=[
                cls.input(
                    io.Boolean,
                    "case_sensitive",
                    default=TextInImageReward.case_sensitive,
                    tooltip="On: capitals must be where the prompt has them, OPEN and Open differ. Off: only the "
                    "letters count.",
                ),
                cls.input(
                    io.Float,
                    "penalty_for_other_text",
                    default=TextInImageReward.penalty_for_other_text,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="What other text costs: the score falls by this times the share of other characters among "
                    "all that were read. 0 allows any other text, 1 is strict.",
                ),
                cls.input(
                    io.Combo,
                    "without_quotes",
                    options=list(get_args(Unquoted)),
                    default=TextInImageReward.without_quotes,
                    tooltip="What to do with an image whose prompt has nothing in quotation marks. 'stop with an "
                    "error' shows a forgotten quote. In a mixed batch or training choose 'score 1' (nothing was asked, "
                    "nothing is missing; other text is still penalised) or 'score 0'.",
                ),
            ],
            outputs=[
                cls.output(Reward, id="reward", display_name="reward",
                           tooltip="For Score Images, Combine Rewards and training by rewards: 0 nothing of it can be "
                           "read, 1 all of it. It has no gradient."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, case_sensitive: bool | None = None) -> bool | str:
        # The host asks only where a widget is named; this one has no range that it would check instead.
        return missing_reader() or True

    @classmethod
    def execute(cls, case_sensitive: bool, penalty_for_other_text: float, without_quotes: str) -> io.NodeOutput:
        if problem := missing_reader():
            raise RewardError(problem)
        reward = TextInImageReward(
            case_sensitive,
            penalty_for_other_text,
            without_quotes,
            between=comfy.model_management.throw_exception_if_processing_interrupted,
        )
        return io.NodeOutput(CachedReward(reward))


offer_pictures(WORDS)

NODES: list[type[io.ComfyNode]] = [TextInImage]
