"""Making a one-step model: the Diff-Instruct* objective."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...training.objectives.diff_instruct_config import DiffInstructConfig
from ..host.schema import AttuneNode
from . import one_step_schemas

CATEGORY = "Attune/training"
Objective = io.Custom("ATTUNE_OBJECTIVE")


class AttuneDiffInstructObjective(AttuneNode):
    """Turn a model into one that needs a single step."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneDiffInstructObjective",
            display_name="Diff-Instruct* Objective",
            category=CATEGORY,
            description="Turns a model into a one-step generator, without any pictures to learn from, and lets a "
            "reward make it a preferred one. Sample the LoRA with One-Step Sampler.",
            search_aliases=["one step", "distil", "distill", "few step", "turbo", "lightning", "dmd2", "di*", "fast"],
            inputs=[
                cls.input(getattr(io, kind, None) or io.Custom(kind), id, **words)
                for kind, id, words in one_step_schemas.DIFF_INSTRUCT_OBJECTIVE
            ],
            outputs=[cls.output(Objective, id="objective", display_name="objective", tooltip="For Train LoRA.")],
        )

    @classmethod
    def execute(
        cls, clip: Any, vae: Any, latent: dict, reward: Any, prompts: str, negative: str, held_out_reward: Any = None,
        **knobs: Any,
    ) -> io.NodeOutput:  # fmt: skip
        from .plan_diff_instruct import diff_instruct_plan

        config = DiffInstructConfig(steps=knobs.pop("sampler_steps"), guidance=knobs.pop("cfg"), **knobs)
        plan = diff_instruct_plan(
            clip, vae, latent, reward, held_out_reward, prompts=prompts, negative=negative, config=config
        )
        return io.NodeOutput(plan)


NODES: list[type[io.ComfyNode]] = [AttuneDiffInstructObjective]
