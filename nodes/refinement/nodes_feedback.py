"""Image Feedback (FABRIC): liked and disliked pictures inside the model's self-attention, a baseline of refinement."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..host.image_feedback import with_feedback
from ..host.schema import AttuneNode
from .checks import RefinementError
from .chosen import marked_latents
from .nodes_common import CATEGORY, SessionWire, draft_of
from .nodes_routes import sessions


class AttuneImageFeedback(AttuneNode):
    """Pictures as feedback, without words."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneImageFeedback",
            display_name="Image Feedback (FABRIC)",
            category=CATEGORY,
            description="Lets the model look at pictures you liked and disliked while it draws, through its "
            "self-attention. Needs no words and no training; for U-Nets (SD 1.x, 2.x, SDXL).",
            search_aliases=["fabric", "reference", "liked", "disliked", "attention", "ip-adapter", "feedback"],
            inputs=[
                cls.input(io.Model, "model", tooltip="A U-Net model, with or without LoRAs."),
                cls.input(SessionWire, "session", optional=True, tooltip="Takes the liked and disliked pictures of the "
                          "session's rounds."),
                cls.input(io.Latent, "liked", optional=True, tooltip="Latents of pictures to lean towards, beside "
                          "those of the session."),
                cls.input(io.Latent, "disliked", optional=True, tooltip="Latents of pictures to lean away from."),
                cls.input(
                    io.Float, "liked_weight", default=0.8, min=0.0, max=10.0, step=0.05,
                    tooltip="How much a liked picture's parts count beside the picture's own, which have 1. Raising it "
                    "copies more. 0 = off.",
                ),
                cls.input(
                    io.Float, "disliked_weight", default=0.5, min=0.0, max=10.0, step=0.05,
                    tooltip="The same for disliked ones, on the side that guidance leans away from. 0 = off.",
                ),
                cls.input(
                    io.Float, "start_percent", default=0.0, min=0.0, max=1.0, step=0.01,
                    tooltip="From which part of sampling it acts. 0 = from the beginning.",
                ),
                cls.input(
                    io.Float, "end_percent", default=0.5, min=0.0, max=1.0, step=0.01,
                    tooltip="Up to which part it acts. Raising it copies details, too, and varies less. Not above "
                    "start_percent = off.",
                ),
            ],
            outputs=[cls.output(io.Model, id="patched", display_name="model", tooltip="For any sampler. Without liked "
                                "and disliked pictures it is the model as it came.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model: Any, liked_weight: float, disliked_weight: float, start_percent: float, end_percent: float,
        session: Any = None, liked: dict | None = None, disliked: dict | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        sides = [_together(session, wired, likes) for wired, likes in ((liked, True), (disliked, False))]
        return io.NodeOutput(
            with_feedback(
                model, *sides, liked_weight=liked_weight, disliked_weight=disliked_weight,
                start_percent=start_percent, end_percent=end_percent,
            )
        )  # fmt: skip


def _together(session: Any, wired: dict | None, likes: bool) -> torch.Tensor | None:
    kept = None if session is None else marked_latents(sessions(), draft_of(session).state, liked=likes)
    return one_batch(None if wired is None else wired["samples"], kept, "liked" if likes else "disliked")


def one_batch(wired: torch.Tensor | None, kept: torch.Tensor | None, kind: str) -> torch.Tensor | None:
    """Wired latents and those of the session as one batch [N, C, H, W]; None = there are none.

    Raises:
        RefinementError: they are not of one size.
    """
    found = [part for part in (wired, kept) if part is not None]
    if len({tuple(part.shape[1:]) for part in found}) > 1:
        raise RefinementError(
            f"The latents wired to {kind} have the size {list(wired.shape[1:])}, those of the session's {kind} "
            f"pictures {list(kept.shape[1:])}; the model looks at pictures of one size. Wire latents of the session's "
            "size, or disconnect one of both."
        )
    return torch.cat(found) if found else None


NODES: list[type[io.ComfyNode]] = [AttuneImageFeedback]
