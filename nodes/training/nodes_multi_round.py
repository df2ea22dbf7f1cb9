"""Learning along with a refinement session: the Multi-Round objective."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...training.objectives.multi_round import RoundConfig
from ..host.schema import AttuneNode
from . import multi_round_schemas

CATEGORY = "Attune/training"
Objective = io.Custom("ATTUNE_OBJECTIVE")


class AttuneMultiRoundObjective(AttuneNode):
    """Learn from every round of a refinement."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneMultiRoundObjective",
            display_name="Multi-Round Objective",
            category=CATEGORY,
            description="Lets the model learn along with a refinement session: a few updates before every round, on "
            "its prompt and its weighed rewards, or on what you keep of your pictures. Undo takes them back.",
            search_aliases=["refinement", "session", "online learning", "ppo", "refl", "per-round lora", "dialogue",
                            "keep", "dpo"],
            inputs=[
                cls.input(getattr(io, kind, None) or io.Custom(kind), id, **words)
                for kind, id, words in multi_round_schemas.MULTI_ROUND_OBJECTIVE
            ],
            outputs=[
                cls.output(Objective, id="objective", display_name="objective", tooltip="For Train LoRA, whose model "
                           "goes into Round Sampler. Carries the last round's LoRA along: start_lora of Train LoRA "
                           "is only for what the first learning round begins with."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, session: Any, clip: Any, vae: Any, latent: dict, reward: Any = None, held_out_reward: Any = None,
        **knobs: Any,
    ) -> io.NodeOutput:  # fmt: skip
        from .plan_multi_round import multi_round_plan

        named = {multi_round_schemas.FIELDS.get(name, name): value for name, value in knobs.items()}
        config = RoundConfig(**named)
        return io.NodeOutput(multi_round_plan(session, clip, vae, latent, reward, held_out_reward, config=config))


NODES: list[type[io.ComfyNode]] = [AttuneMultiRoundObjective]
