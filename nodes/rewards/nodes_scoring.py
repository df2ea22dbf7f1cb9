"""Nodes that score and choose images."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ...training.interfaces import RewardError
from ..host.schema import AttuneNode
from .chart import bar_chart
from .nodes_common import CATEGORY, Progress, Reward
from .pictures import split_prompts, unbatch
from .scoring import score_table


class ScoreImages(AttuneNode):
    """Scores, ranking and chart of a set of images."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneScoreImages",
            display_name="Score Images",
            category=CATEGORY,
            description="Scores every image with a reward, ranks them and draws the result.",
            search_aliases=["rank images", "clip score", "best of", "pick best"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                cls.input(io.Image, "images", tooltip="A batch, or a list of images of different sizes."),
                cls.input(Reward, "reward", tooltip="From Load Reward Model or Image Statistics Reward."),
                cls.input(
                    io.String,
                    "prompt",
                    multiline=True,
                    default="",
                    placeholder="what the images should show",
                    tooltip="One line for all images, or one line per image in the same order. Image statistics do "
                    "not look at it.",
                ),
            ],
            outputs=[
                cls.output(io.Float, id="scores", display_name="scores", is_output_list=True,
                           tooltip="One number per image, in the images' order."),
                cls.output(io.Int, id="ranking", display_name="ranking", is_output_list=True,
                           tooltip="Image numbers, counted from 0, best first."),
                cls.output(io.Image, id="best", display_name="best", tooltip="The image with the best score."),
                cls.output(io.Image, id="chart", display_name="chart", tooltip="The ranking as a picture."),
                cls.output(io.String, id="table", display_name="table", tooltip="The ranking as a Markdown table."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, images: list[torch.Tensor], reward: list[Any], prompt: list[str]) -> io.NodeOutput:
        if len(reward) != 1:
            raise RewardError(
                f"Score Images got {len(reward)} rewards but scores with one at a time. Use one such node per reward."
            )
        pictures = unbatch(images)
        prompts = split_prompts(prompt, len(pictures))
        table = score_table(pictures, prompts, reward[0], progress=Progress())
        chart = bar_chart(
            pictures, table.scores, prompts=prompts, title=table.reward, higher_is_better=reward[0].higher_is_better
        )
        best = pictures[table.best][None]
        shown = {"text": [table.text()], "attune_scores": table.rows()}
        return io.NodeOutput(list(table.scores), list(table.ranking), best, chart, table.text(), ui=shown)


NODES: list[type[io.ComfyNode]] = [ScoreImages]
