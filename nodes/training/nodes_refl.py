"""Learning from a reward's gradient: the ReFL and DRaFT objective."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...training.objectives.refl import ReFLConfig
from ..host.schema import AttuneNode
from . import align_schemas

CATEGORY = "Attune/training"
Objective = io.Custom("ATTUNE_OBJECTIVE")


class AttuneReFLObjective(AttuneNode):
    """Raise a reward by following its gradient."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneReFLObjective",
            display_name="ReFL Objective",
            category=CATEGORY,
            description="Teaches the model to make pictures that a differentiable reward likes, by following the "
            "reward's gradient through the last sampler steps. The fastest method, where the reward allows it.",
            search_aliases=["draft", "reward gradient", "imagereward", "align", "differentiable reward"],
            inputs=[
                cls.input(getattr(io, kind, None) or io.Custom(kind), id, **words)
                for kind, id, words in align_schemas.REFL_OBJECTIVE
            ],
            outputs=[cls.output(Objective, id="objective", display_name="objective", tooltip="For Train LoRA.")],
        )

    @classmethod
    def execute(
        cls, clip: Any, vae: Any, latent: dict, reward: Any, prompts: str, negative: str, held_out_reward: Any = None,
        **knobs: Any,
    ) -> io.NodeOutput:  # fmt: skip
        from .plan_refl import refl_plan

        config = ReFLConfig(steps=knobs.pop("sampler_steps"), guidance=knobs.pop("cfg"), **knobs)
        plan = refl_plan(clip, vae, latent, reward, held_out_reward, prompts=prompts, negative=negative, config=config)
        return io.NodeOutput(plan)


NODES: list[type[io.ComfyNode]] = [AttuneReFLObjective]
