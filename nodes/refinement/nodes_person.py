"""Simulated Person: answers rounds of the demo model as somebody with a hidden wish would, for trying a loop."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from comfy_api.latest import io

from ...training.demo import data
from ..host.schema import AttuneNode
from .checks import RefinementError
from .nodes_common import CATEGORY, AnswerWire, Reward, draft_of, session_input
from .records import Feedback, SessionState

RATER = "a simulated person"


class AttuneSimulatedPerson(AttuneNode):
    """Somebody who knows what they mean, and cannot say it at once."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        # Only the numbers of its habits; whoever simulates loads the rest.
        from ...training.demo.simulated_person import Habits

        habits = Habits()
        return cls.schema(
            node_id="AttuneSimulatedPerson",
            display_name="Simulated Person",
            category=CATEGORY,
            description="Answers a round of the demo model as somebody who means a certain picture: chooses, says in "
            "words one thing that is wrong, and accepts. For trying and measuring a loop; it has no taste.",
            search_aliases=["simulated user", "evaluation", "benchmark", "oracle", "headless", "test person"],
            is_output_node=True,
            inputs=[
                session_input(cls),
                cls.input(io.Image, "images", tooltip="The round's pictures: from VAE Decode."),
                cls.input(Reward, "judge", tooltip="The eyes: Load Reward Model with attune_demo_judge, which nothing "
                          "is trained on."),
                cls.input(io.Combo, "concept", options=list(data.CONCEPT_NAMES), default="mushroom",
                          tooltip="What the person means: the thing."),
                cls.input(io.Combo, "style", options=list(data.STYLES), default="flat",
                          tooltip="What the person means: the style of drawing."),
                cls.input(io.Combo, "background", options=list(data.BACKGROUNDS), default="blue",
                          tooltip="What the person means: the colour behind it."),
                cls.input(
                    io.Float, "noise", default=habits.noise, min=0.01, max=10.0, step=0.01,
                    tooltip="How loosely it chooses. Raising it mixes up pictures that are nearly as good. 0.01 = "
                    "always the best.",
                ),
                cls.input(
                    io.Float, "blunder", default=habits.blunder, min=0.0, max=1.0, step=0.01,
                    tooltip="How often it mistakes what it sees. Raising it gives wrong comments. 0 = never.",
                ),
                cls.input(
                    io.Float, "silence", default=habits.silence, min=0.0, max=1.0, step=0.01,
                    tooltip="How often it chooses and says nothing. 0 = always says something.",
                ),
                cls.input(
                    io.Int, "person_seed", default=0, min=0, max=2**53 - 1,
                    tooltip="Who it is. The same person answers the same pictures of the same round in the same way; "
                    "another number is another person.",
                ),
            ],
            outputs=[
                cls.output(AnswerWire, id="answer", display_name="answer", tooltip="For Commit Round: what is chosen, "
                           "said, and whether it is accepted."),
                cls.output(io.String, id="comment", display_name="comment", tooltip="What is said, in words."),
                cls.output(io.String, id="report", display_name="report", tooltip="The answer in words."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, session: Any, images: torch.Tensor, judge: Any, concept: str, style: str, background: str, noise: float,
        blunder: float, silence: float, person_seed: int,
    ) -> io.NodeOutput:  # fmt: skip
        from ...training.demo.simulated_person import Eyes, Habits, SimulatedPerson

        if not all(callable(getattr(judge, name, None)) for name in ("image_features", "text_features")):
            raise RefinementError(
                "A simulated person sees with a reward of CLIP's kind. Connect Load Reward Model with "
                "attune_demo_judge.safetensors to judge."
            )
        state = draft_of(session).state
        person = SimulatedPerson(
            data.Attributes(concept, style, background), Eyes(judge), Habits(noise, blunder, silence),
            seed=round_seed(person_seed, state),
        )  # fmt: skip
        said = person.answer(images[..., :3].detach().float().cpu())
        answer = Feedback(said.comment, liked=(said.chosen,), accepted=said.accepted, rater=RATER)
        told = answer_text(answer)
        return io.NodeOutput(answer, answer.comment, told, ui={"text": [told]})


def round_seed(seed: int, state: SessionState) -> int:
    """Of what a person draws in a round: other numbers in every round, and the same again when it is made again."""
    text = f"{seed} {state.seed} {state.number} {state.attempt}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def answer_text(answer: Feedback) -> str:
    """What a person says, in a line."""
    chosen = f"Picture {answer.liked[0] + 1}"
    if answer.accepted:
        return f"{chosen}: this is it."
    return f"{chosen}. Says: {answer.comment}" if answer.comment else f"{chosen}, without a word."


NODES: list[type[io.ComfyNode]] = [AttuneSimulatedPerson]
