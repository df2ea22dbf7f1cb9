"""refine-ablation: every part of the loop adds to it.

Bed: `_refine_bed`. Figures, each the lower end of the 95 % interval (people drawn together with both of their sessions)
of what the loop with the part has more than without it. What is compared is the share of a person's wishes that the
standing picture shows, as a mean over all rounds, so that being early counts:
    refine-ablation             the refiner: comments change the prompt
    refine-ablation.embedding   the update of the embedding
    refine-ablation.schedule    another spacing of noise levels every round
    refine-ablation.start       the start from the chosen picture
    refine-ablation.lora        a LoRA of the up path that learns the round's rewards, four updates of ReFL a round

Only the refiner is shown to matter. Tried for the others, with people of another seed: leaning away from the old prompt
by 0.4 and 0.8 in place of 0.15 (24 people: gains of -0.005 and -0.012, with 0.15 0.005); 16 updates a round (5 people:
four ended with fewer wishes shown than without a LoRA); for the start from the chosen picture, full noise where a
comment asks for something else, by now the default (16 people, after six rounds 0.69, with 0.8 of the noise 0.65, with
the falling strength alone 0.63).
"""

from __future__ import annotations

from ._refine_bed import record_gains
from .record import Claim

WHAT = "wishes shown, mean over rounds: lower end of the interval of what is gained by"
# Claim → the way with the part, the way without it.
PARTS = {
    Claim("refine-ablation", 0.001, ">=", "", f"{WHAT} the refiner"): ("refine", "without words"),
    Claim("refine-ablation.embedding", 0.001, ">=", "", f"{WHAT} the embedding's update"): (
        "refine",
        "without embedding",
    ),
    Claim("refine-ablation.schedule", 0.001, ">=", "", f"{WHAT} schedules in turn"): ("refine", "without turn"),
    Claim("refine-ablation.start", 0.001, ">=", "", f"{WHAT} the start from the chosen picture"): (
        "refine",
        "without start",
    ),
    Claim("refine-ablation.lora", 0.001, ">=", "", f"{WHAT} a LoRA that learns along"): ("with LoRA", "refine"),
}


def main(quick: bool) -> None:
    record_gains(PARTS, lambda person: sum(person) / len(person), quick=quick)
