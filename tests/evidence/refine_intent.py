"""refine-intent: after the same rounds and evaluations, the loop shows more of what is meant than other ways.

Bed: `_refine_bed`. Figures, each the lower end of the 95 % interval (people drawn together with both of their sessions)
of the gain in the share of a person's wishes that the picture shows which stands in the end:
    refine-intent          against the best of as many pictures of the first wish
    refine-intent.fabric   against liked and disliked pictures in the self-attention (FABRIC), of the first wish
"""

from __future__ import annotations

from ._refine_bed import record_gains
from .record import Claim

WHAT = "wishes shown after six rounds, lower end of the interval of the loop's gain over"
CLAIMS = {
    Claim("refine-intent", 0.001, ">=", "", f"{WHAT} the best of as many pictures"): ("refine", "re-roll"),
    Claim("refine-intent.fabric", 0.001, ">=", "", f"{WHAT} FABRIC"): ("refine", "fabric"),
}


def main(quick: bool) -> None:
    record_gains(CLAIMS, lambda person: person[-1], group="intent", quick=quick)
