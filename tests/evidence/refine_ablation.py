"""refine-ablation: every part of the loop adds to it.

Bed: `_refine_bed`. Figures, each the lower end of the 95 % interval (people drawn together with both of their sessions)
of what the loop with the part has more than without it. What is compared is the share of a person's wishes that the
standing picture shows, as a mean over all rounds, so that being early counts:
    refine-ablation             the refiner: comments change the prompt
    refine-ablation.embedding   the update of the embedding, by the prompt that was left and by chosen pictures
    refine-ablation.schedule    the schedule's diversity: new noise, and another spacing of its levels every round
    refine-ablation.start       the start from the chosen picture
    refine-ablation.lora        a LoRA of the up path that learns the round's rewards, four updates of ReFL a round

Nothing is shown of any part but the refiner, and no lack of effect either: of the 30 people recorded, the sessions of
only 2 (embedding: none better, 2 worse), 6 (schedule: 3 and 3), 6 (start: 2 and 4) and 2 (LoRA: 2 and none) differ at
all. An interval drawn from so few is narrow because nearly all differences are 0, and says little. That words leave
little to the other parts, since a comment is mostly carried out in the next round, is a guess that nothing here tests.
What the embedding's update is for is measured in `refine-keeps`.

They were recorded before two changes and stand until they are recorded anew: the update looks at the highest noise
levels alone now, and rounds of full strength begin from pure noise here too, as in the node (the chosen picture had
shone through).

Tried for the others, with people of other seeds. Embedding: leaning away from the old prompt by 0.4 and 0.8 in place of
0.15; the chosen pictures' direction in every round, whatever was said (27 people: gain of -0.010), and where the look
is to stay only (14 people: 0.000). LoRA: 4 and 16 updates. Schedule: its spacing alone (19 people: 0.026, interval from
0). People who mean a small thing at a side as well (24): the demo model draws a third of such concepts and fewer of
their styles, whatever leads; every part but the refiner from -0.026 to 0.001. People without words for style or
background (14): schedule 0.071 (0.008 … 0.151), the other parts -0.016 to 0.012. All of these by the bed of before.
"""

from __future__ import annotations

from ._refine_bed import record_gains
from .record import Claim

WHAT = "wishes shown, mean over rounds: lower end of the interval of what is gained by"
# Claim → the way with the part, the way without it.
PARTS = {
    Claim("refine-ablation", 0.001, ">=", "", f"{WHAT} the refiner"): ("refine", "without words"),
    Claim("refine-ablation.embedding", 0.001, ">=", "", f"{WHAT} the embedding's update"): (
        "with pictures",
        "without embedding",
    ),
    Claim("refine-ablation.schedule", 0.001, ">=", "", f"{WHAT} the schedule's diversity"): (
        "refine",
        "without diversity",
    ),
    Claim("refine-ablation.start", 0.001, ">=", "", f"{WHAT} the start from the chosen picture"): (
        "refine",
        "without start",
    ),
    Claim("refine-ablation.lora", 0.001, ">=", "", f"{WHAT} a LoRA that learns along"): ("with LoRA", "refine"),
}


def main(quick: bool) -> None:
    record_gains(PARTS, lambda person: sum(person) / len(person), group="ablation", quick=quick)
