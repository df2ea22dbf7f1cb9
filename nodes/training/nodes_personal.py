"""Personal DPO: one user adapter out of many people's choices."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...training.objectives.personal_dpo import PersonalDPOConfig
from ...training.preference.set_encoder import load_set_encoder
from ..host.adapter_files import ENCODER, adapter_path, digest_of, listed
from ..host.progress import Progress
from ..host.schema import AttuneNode
from ..personal_pairs import PeoplesPairs
from . import personal_schemas
from .plan_personal import encoder_shape, personal_plan
from .plans import PreviewSettings

CATEGORY = "Attune/training"
Objective = io.Custom("ATTUNE_OBJECTIVE")


class AttunePersonalDPOObjective(AttuneNode):
    """Learn many people's tastes with one adapter."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttunePersonalDPOObjective",
            display_name="Personal DPO Objective",
            category=CATEGORY,
            description="Teaches one user adapter the tastes of many people, from their pairs of pictures. It then "
            "serves anybody who has made a few choices, in Apply Preference.",
            search_aliases=["ppd", "user adapter", "personalized preference", "many users", "dpo", "personalize"],
            is_output_node=True,
            inputs=[
                cls.input(getattr(io, kind, None) or io.Custom(kind), id, **words)
                for kind, id, words in personal_schemas.personal_dpo_objective(listed(ENCODER))
            ],
            outputs=[
                cls.output(Objective, id="objective", display_name="objective", tooltip="For Train LoRA, which trains "
                           "a user adapter with it instead of a LoRA."),
                cls.output(io.String, id="report", display_name="report", tooltip="How many people and pairs are "
                           "learned from, held out, and left out."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, encoder: str | None = None) -> bool:
        # Encoders come while a page is open; `execute` says what is there instead.
        return True

    @classmethod
    def fingerprint_inputs(cls, encoder: str | None = None, **_: Any) -> str:
        return "" if encoder in (None, personal_schemas.NEW) else digest_of(encoder, ENCODER)

    @classmethod
    def execute(
        cls, pairs: PeoplesPairs, clip: Any, vae: Any, features: Any, encoder: str, **widget: Any
    ) -> io.NodeOutput:
        new = encoder == personal_schemas.NEW
        config = PersonalDPOConfig(
            batch=widget["pairs_per_update"],
            beta=widget["beta"],
            caption_dropout=widget["caption_dropout"],
            held_out_levels=widget["held_out_levels"],
            chunk=widget["chunk"],
            support=widget["support_pairs"],
            user_dropout=widget["user_dropout"],
            noise_from=widget["noise_from"],
            encoder_learning_rate=widget["encoder_learning_rate"] if new else 0.0,
        )
        if new:
            personal_schemas.check_rate(widget["encoder_learning_rate"])
            reader = encoder_shape(features, tokens=widget["new_tokens"], width=widget["new_width"])
        else:
            reader = load_set_encoder(adapter_path(encoder, ENCODER))
        plan = personal_plan(
            pairs,
            clip,
            vae,
            features,
            reader,
            held_out=widget["held_out_people"],
            resolution=widget["resolution"],
            preview_prompts=widget["preview_prompts"],
            preview=PreviewSettings(widget["preview_steps"], widget["preview_cfg"]),
            config=config,
            progress=Progress(),
        )
        return io.NodeOutput(plan, plan.people.words, ui={"text": [plan.people.words]})


NODES: list[type[io.ComfyNode]] = [AttunePersonalDPOObjective]
