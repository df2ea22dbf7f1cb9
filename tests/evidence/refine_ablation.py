"""refine-ablation: every part of the loop adds to it.

Bed: `_refine_bed`, with people who have no words for the style that they mean, or for the background, by turns. They
choose by it first, since the rest can be asked for, and ask for other pictures where nothing else is missing. Figures,
each the lower end of the 95 % interval (people drawn together with both of their sessions) of what the loop with the
part has more than without it. What is compared is the share of a person's wishes that the standing picture shows, as a
mean over all rounds, so that being early counts:
    refine-ablation             the refiner: comments change the prompt
    refine-ablation.embedding   the update of the embedding, by the prompt that was left and by chosen pictures
    refine-ablation.schedule    the schedule's diversity: new noise, and another spacing of its levels every round
    refine-ablation.start       the start from the chosen picture
    refine-ablation.lora        a LoRA of the up path that learns the round's rewards, four updates of ReFL a round
The first three are taken out of the loop that has them all (96 people), start and LoRA of the loop whose embedding is
moved by words alone (45 people: the LoRA takes long). Beside each figure stand in its record how many people differ at
all, and the same gain in what all pictures of the rounds show.

Of start and LoRA next to nothing differs for such people: of 45 two have a session that is another at all.

Looked at before, on people of other seeds, 7 to 16 each, as is chance: LoRA by R_total(t) with its window in the first
steps, by the fit of prompt and picture alone where the model was never shown such a drawing, and by Diffusion-DPO on
the rounds' own choices: -0.05 to 0.03. The embedding led away from pictures that were passed over: 0.007.
"""

from __future__ import annotations

from ._refine_bed import record_gains
from .record import Claim

WHAT = "wishes shown, mean over rounds: lower end of the interval of what is gained by"
# Group → claim → the way with the part, the way without it.
PARTS = {
    "parts": {
        Claim("refine-ablation", 0.001, ">=", "", f"{WHAT} the refiner"): ("full", "full without words"),
        Claim("refine-ablation.embedding", 0.001, ">=", "", f"{WHAT} the embedding's update"): (
            "full",
            "full without embedding",
        ),
        Claim("refine-ablation.schedule", 0.001, ">=", "", f"{WHAT} the schedule's diversity"): (
            "full",
            "full without diversity",
        ),
    },
    "more": {
        Claim("refine-ablation.start", 0.001, ">=", "", f"{WHAT} the start from the chosen picture"): (
            "refine",
            "without start",
        ),
        Claim("refine-ablation.lora", 0.001, ">=", "", f"{WHAT} a LoRA that learns along"): ("with LoRA", "refine"),
    },
}


def main(quick: bool) -> None:
    for group, claims in PARTS.items():
        record_gains(claims, lambda person: sum(person) / len(person), group=group, quick=quick)
