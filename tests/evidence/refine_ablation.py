"""refine-ablation: every part of the loop adds to it.

Bed: `_refine_bed`, with people who have no words for the style that they mean, or for the background, by turns. They
choose by it first, since the rest can be asked for, and ask for other pictures where nothing else is missing. A round
has two pictures: of four the best so often has what is meant that it hides what a part does.

Figures, each the lower end of the 95 % interval (people drawn together with both of their sessions) of what the loop
with the part has more than without it, in the share of a person's wishes that the picture shows which stands after six
rounds, as in refine-intent:
    refine-ablation             the refiner: comments change the prompt
    refine-ablation.embedding   the update of the embedding, by the prompt that was left, towards chosen pictures and
                                away from those that were passed over
    refine-ablation.schedule    the schedule's diversity: new noise, and another spacing of its levels every round
    refine-ablation.start       the start from the chosen picture
Beside each stand in its record how many people differ at all, the same gain as a mean over all rounds, so that being
early counts, and in what all pictures of the rounds show.

Number of people (240), seeds and figures were fixed before these people were run. The bed was chosen by 55 people of
other seeds, with two pictures and the update that leads away: embedding 0.07, schedule 0.09 after six rounds.

Earlier, with four pictures a round and an update that did not lead away, as a mean over all rounds, 96 people (start
and LoRA: 45): the records "… of four". Of start and LoRA next to nothing differed: two of 45 people.

Looked at before, on people of other seeds, 7 to 16 each, as is chance: LoRA by R_total(t) with its window in the first
steps, by the fit of prompt and picture alone where the model was never shown such a drawing, and by Diffusion-DPO on
the rounds' own choices: -0.05 to 0.03.
"""

from __future__ import annotations

from ._refine_bed import record_gains
from .record import Claim

WHAT = "wishes shown after six rounds: lower end of the interval of what is gained by"
EARLIER = "four pictures a round, mean over rounds: lower end of the interval of what is gained by"
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
        Claim("refine-ablation.start", 0.001, ">=", "", f"{WHAT} the start from the chosen picture"): (
            "full",
            "full without start",
        ),
    },
}


def main(quick: bool) -> None:
    for group, claims in PARTS.items():
        record_gains(claims, lambda person: person[-1], group=group, quick=quick)
