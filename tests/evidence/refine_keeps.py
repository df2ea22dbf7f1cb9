"""refine-keeps: what a person likes and has not said stays where it says something else.

A person's wish is a concept alone. Of four pictures it likes one and asks for another background. The next round has
that background in its prompt and new noise; the share of its pictures that show the chosen one's style, of which no
word was said, with the embedding's update by chosen pictures and without. All else is the loop's; what pictures show
is seen as in `_refine_bed`, and how often that is right about real drawings stands in the details. 40 wishes and four
pictures each per seed. Figures, the lower end of the 95 % interval over
wishes and the share itself:
    refine-keeps          share with the update less the share without it
    refine-keeps.words    share of the pictures on the background that was asked for, with the update

Missed: the gain is 0.05, within chance. Settled on other seeds, with pure noise and Karras levels in the second round
(10 to 20 wishes each): 12, 18, 24 and 36 steps; the others' weight 0.2, 0.5 and 1; each picture with its own prompt or
with the next one's, which costs 15 % of the pictures their new background. There the gain was 0.2. In the loop the next
round may have the last one's noise, which keeps a style by itself, and other levels.
"""

from __future__ import annotations

from typing import Any

from ._refine_bed import FULL, SEEDS, driven, gain, paired
from .record import Claim, Stopwatch, record

KEEPS = Claim("refine-keeps", 0.05, ">=", "", "chosen style kept, lower end of the gain by the embedding's update")
WORDS = Claim("refine-keeps.words", 0.98, ">=", "", "pictures on the background that was asked for, with the update")


def main(quick: bool) -> None:
    watch, wishes = Stopwatch(), 4 if quick else 40
    driven_runs = [
        driven({"keeps": wishes, "seed": seed, "steps": FULL.steps, "pictures": FULL.pictures})
        for seed in (SEEDS[:2] if quick else SEEDS)
    ]
    found = [run["wishes"] for run in driven_runs]
    everybody = [row for run in found for row in run]
    kept = [(row["with"]["style"], row["without"]["style"]) for row in everybody]
    value, interval = paired(kept, gain)
    each = [gain([(row["with"]["style"], row["without"]["style"]) for row in run]) for run in found]
    details: dict[str, Any] = {
        way: {name: sum(row[way][name] for row in everybody) / len(everybody) for name in everybody[0][way]}
        for way in ("with", "without")
    }
    details["eyes, of shifted and blurred drawings"] = driven_runs[0]["eyes"]
    common = {"seeds": len(found), "seconds": watch.seconds, "quick": quick, "details": details}
    record(
        KEEPS, interval[0], ci=interval, samples=each,
        attempts=[{"what": f"seed {seed}, mean gain", "value": one} for seed, one in enumerate(each)],
        **(common | {"details": {"mean gain": value, **details, "wishes": wishes}}),
    )  # fmt: skip
    right = [[row["with"]["background"] for row in run] for run in found]
    shares = [sum(run) / len(run) for run in right]
    _, bounds = paired([(share, 0.0) for run in right for share in run], gain)
    record(WORDS, details["with"]["background"], ci=bounds, samples=shares, attempts=[], **common)
