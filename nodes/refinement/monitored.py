"""How a session's pictures stand to each other by two of its rewards: monitored, not promised.

A weighted sum need not lead to the front (`pareto`). So what it does is looked at, of all rounds so far:

    covered   hypervolume of the pictures above the point (−3, −3), in deviations²
    gained    how much of it the newest round added
    behind    mean distance to the front of what was chosen, in deviations; 0 = nothing beats it in both

All pictures are measured by the same z-scores, those of today: figures of one call can be compared with each other, not
with those of a call after another round. What a reward does not tell apart in a round has no place (consistency is 0 in
the first one) and no part.

References:
    ours, of the measures in `pareto`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .pareto import distance_to_front, hypervolume, points_of
from .records import Round
from .running_scores import Running, scores_of, silent_of, z_scores

REFERENCE = -3.0


@dataclass(frozen=True)
class PicturesSoFar:
    """The pictures of some rounds, in order.

    Attributes:
        z: z-scores by reward; NaN where a reward tells nothing.
        chosen: positions of the liked ones. first_of_newest: where the newest round begins.
    """

    z: list[dict[str, float]]
    chosen: list[int]
    first_of_newest: int


@dataclass(frozen=True)
class Monitored:
    """See the module. behind is NaN where nothing that was chosen has a place."""

    covered: float
    gained: float
    behind: float

    def text(self) -> str:
        """In a line."""
        found = f"The front covers {self.covered:.1f} (the last round added {self.gained:.1f})"
        if not math.isnan(self.behind):
            found += f"; what was chosen lies {self.behind:.2f} behind it"
        return f"{found}."


def pictures_so_far(
    rounds: Sequence[Round], running: Mapping[str, Running], *, costs: Collection[str] = ()
) -> PicturesSoFar:
    """Of a session's path. running: moments of the scores of all of it; costs: rewards of which less is better."""
    z: list[dict[str, float]] = []
    chosen: list[int] = []
    newest = 0
    for past in rounds:
        newest = len(z)
        if past.feedback is not None:
            chosen += [newest + place for place in past.feedback.liked]
        scores = scores_of(past)
        untold = dict.fromkeys(silent_of(scores), math.nan)
        z += [{**found, **untold} for found in z_scores(scores, running, costs=costs)]
    return PicturesSoFar(z, chosen, newest)


def monitored(pictures: PicturesSoFar, names: Sequence[str]) -> Monitored | None:
    """By these rewards; None where no picture has a place."""
    points = points_of(pictures.z, names)
    if not np.isfinite(points).all(1).any():
        return None
    corner = [REFERENCE] * len(names)
    covered = hypervolume(points, corner)
    earlier = hypervolume(points[: pictures.first_of_newest], corner)
    behind = distance_to_front(points)[pictures.chosen]
    behind = behind[np.isfinite(behind)]
    return Monitored(covered, covered - earlier, float(behind.mean()) if len(behind) else math.nan)
