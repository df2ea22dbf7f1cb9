"""Learning from pairs: the objective, and a node that makes pairs from scores."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ...training.objectives.diffusion_dpo import DiffusionDPOConfig
from ..drawing import to_tensor
from ..host.sampling import progress_bar
from ..host.schema import AttuneNode
from ..picture_lists import prompts_of, score_pictures, single_pictures
from . import align_schemas
from .pair_sheet import pair_sheet, summary
from .pairs import pair_up
from .plan_dpo import image_pairs, preference_plan
from .plans import PreviewSettings
from .widgets import single

CATEGORY = "Attune/training"
Objective = io.Custom("ATTUNE_OBJECTIVE")


class AttuneDiffusionDPOObjective(AttuneNode):
    """Learn a taste from pairs of pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneDiffusionDPOObjective",
            display_name="Diffusion-DPO Objective",
            category=CATEGORY,
            description="Teaches the model a taste from pairs of pictures, a better and a worse one of each prompt. "
            "Makes no pictures while it trains and needs no reward.",
            search_aliases=["dpo", "preference", "chosen rejected", "pairs", "human feedback", "align"],
            is_input_list=True,
            inputs=[
                cls.input(getattr(io, kind, None) or io.Custom(kind), id, **words)
                for kind, id, words in align_schemas.DPO_OBJECTIVE
            ],
            outputs=[cls.output(Objective, id="objective", display_name="objective", tooltip="For Train LoRA.")],
        )

    @classmethod
    def execute(
        cls, chosen: list[torch.Tensor], rejected: list[torch.Tensor], clip: list, vae: list, captions: list[str],
        **lists: list,
    ) -> io.NodeOutput:  # fmt: skip
        widget = {name: single(values, name) for name, values in lists.items()}
        config = DiffusionDPOConfig(
            batch=widget["pairs_per_update"],
            beta=widget["beta"],
            caption_dropout=widget["caption_dropout"],
            held_out_levels=widget["held_out_levels"],
            chunk=widget["chunk"],
        )
        plan = preference_plan(
            image_pairs(chosen, rejected, captions, resolution=widget["resolution"]),
            single(clip, "clip"),
            single(vae, "vae"),
            held_out=widget["held_out"],
            preview_prompts=widget["preview_prompts"],
            preview=PreviewSettings(widget["preview_steps"], widget["preview_cfg"]),
            config=config,
        )
        return io.NodeOutput(plan)


class AttunePairsFromScores(AttuneNode):
    """A preference set from any judge."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttunePairsFromScores",
            display_name="Pairs from Scores",
            category=CATEGORY,
            description="Scores several pictures of each prompt and makes pairs of a better and a worse one.",
            search_aliases=["preference pairs", "chosen rejected", "dpo dataset", "rank", "best and worst"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                cls.input(getattr(io, kind, None) or io.Custom(kind), id, **words)
                for kind, id, words in align_schemas.PAIRS_FROM_SCORES
            ],
            outputs=[
                cls.output(io.Image, id="chosen", display_name="chosen", is_output_list=True,
                           tooltip="The better picture of each pair, one by one."),
                cls.output(io.Image, id="rejected", display_name="rejected", is_output_list=True,
                           tooltip="The worse picture of each pair, in the same order."),
                cls.output(io.String, id="captions", display_name="captions", is_output_list=True,
                           tooltip="The prompt of each pair, in the same order."),
                cls.output(io.Image, id="sheet", display_name="sheet",
                           tooltip="The pairs as a picture, the chosen ones framed: look whether you agree."),
                cls.output(io.String, id="report", display_name="report", tooltip="How many pairs there are, and what "
                           "was left out."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, images: list[torch.Tensor], reward: list[Any], prompts: list[str], pairing: list[str],
        least_margin: list[float],
    ) -> io.NodeOutput:  # fmt: skip
        judge = single(reward, "reward")
        texts, pictures = prompts_of(images, prompts), single_pictures(images)
        scores = score_pictures(pictures, texts, judge, progress_bar(len(pictures)))
        found = pair_up(
            texts, scores, pairing=single(pairing, "pairing"), least_margin=single(least_margin, "least_margin"),
            higher_is_better=judge.higher_is_better,
        )  # fmt: skip
        told = summary(found, texts, judge.name)
        return io.NodeOutput(
            [pictures[pair.chosen][None] for pair in found.pairs],
            [pictures[pair.rejected][None] for pair in found.pairs],
            [pair.prompt for pair in found.pairs],
            to_tensor(pair_sheet(found, pictures, texts, judge.name)),
            told,
            ui={"text": [told]},
        )


NODES: list[type[io.ComfyNode]] = [AttuneDiffusionDPOObjective, AttunePairsFromScores]
