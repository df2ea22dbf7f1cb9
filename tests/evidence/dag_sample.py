"""dag-sample: DAG-KL earns more reward than DDPO from as many practice pictures.

The figure is the area under gain against rollouts, DAG-KL's over DDPO's, over paired seeds. The gain is measured on
prompts whose concepts are never practised. Learning rate, LoRA, sampler steps and rollouts per update are the same, and
the calls of the network nearly so; the rate is the one that ddpo-learns found best for DDPO. See `_dag_bed`, also for
what was tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._dag_bed import area, gains, pairs, runs
from .record import Claim, Stopwatch, bootstrap, plot_path, record

CLAIM = Claim("dag-sample", 1.3, ">=", "×", "DAG-KL's area under reward against rollouts over DDPO's, target exp(βr)")


def main(quick: bool) -> None:
    watch = Stopwatch()
    found = runs(quick)
    paired = pairs(found)
    rows = []
    for ddpo, dag in paired:
        until = min(ddpo["points"][-1]["rollouts"], dag["points"][-1]["rollouts"])
        rows.append((area(ddpo, "rollouts", until), area(dag, "rollouts", until)))
    ratios = [dag / ddpo for ddpo, dag in rows]
    plot(found, quick=quick)
    record(
        CLAIM,
        float(np.mean([dag for _, dag in rows]) / np.mean([ddpo for ddpo, _ in rows])),
        ci=bootstrap(ratios),
        seeds=len(paired),
        seconds=watch.seconds,
        quick=quick,
        samples=ratios,
        attempts=[
            {"what": f"seed {dag['seed']}", "value": ratio} for (_, dag), ratio in zip(paired, ratios, strict=True)
        ],
        details={"runs": found, "areas": [{"ddpo": ddpo, "dag": dag} for ddpo, dag in rows]},
    )


def plot(found: Sequence[Mapping[str, Any]], *, quick: bool) -> None:
    """Gain against rollouts: a line per run, a colour per method."""
    from attune.nodes.drawing import BAD, COLOURS, GOOD, GRID, MUTED, Canvas, nice_ticks, short_number

    width, height, (left, top, right, bottom) = 720, 420, (64, 84, 696, 368)
    colours = {"ddpo": BAD, "dag-kl": COLOURS["reward"], "dag-kl-prior": GOOD}
    most = max(run["points"][-1]["rollouts"] for run in found)
    low, high = min(0.0, *(min(gains(run)) for run in found)), max(0.1, *(max(gains(run)) for run in found)) * 1.05
    canvas = Canvas(width, height)
    canvas.text(20, 16, "Gain against practice pictures", size=18, bold=True)
    canvas.text(20, 44, "in deviations of the base model's scores; a line per seed", size=14, colour=MUTED)
    canvas.panel(left, top, right, bottom)

    def place(rollouts: float, gain: float) -> tuple[float, float]:
        return left + rollouts / most * (right - left), bottom - (gain - low) / (high - low) * (bottom - top)

    for tick in nice_ticks(low, high):
        canvas.line([place(0, tick), place(most, tick)], GRID)
        canvas.text(left - 10, place(0, tick)[1], short_number(tick), size=13, colour=MUTED, anchor="rm")
    for tick in nice_ticks(0, most):
        canvas.text(place(tick, 0)[0], bottom + 18, short_number(tick), size=13, colour=MUTED, anchor="mm")
    for run in found:
        line = [place(point["rollouts"], gain) for point, gain in zip(run["points"], gains(run), strict=True)]
        canvas.line(line, colours[run["method"]], width=2)
    for row, (method, colour) in enumerate(colours.items()):
        canvas.dot(left + 20, top + 22 + 22 * row, colour, radius=5)
        canvas.text(left + 34, top + 22 + 22 * row, method, size=14, colour=colour, anchor="lm")
    canvas.text((left + right) / 2, height - 16, "rollouts", size=13, colour=MUTED, anchor="mm")
    canvas.finish().save(plot_path(CLAIM, quick=quick, part="curves"))
