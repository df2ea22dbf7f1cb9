"""What the report in Python and the page in JavaScript must agree on.

The cases are worked out by the Python side and written to `tests/js/live_golden.json` by
`python scripts/module.py attune.tests.live_golden`; both sides' tests read them there.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ..nodes.charts import smoothed
from ..nodes.drawing import nice_ticks
from ..nodes.training import figures, live

FILE = Path(__file__).parent / "js" / "live_golden.json"
UNKNOWN = (
    "my_own_figure",
    "evaluation_my_own_figure",
    "held_out_loss",
    "evaluation_held_out_reward",
    "KL",
    "evaluation_",
)
RUNS = {
    "ddpo": "step loss learning_rate gradient_norm reward held_out_reward diversity kl_to_reference clipped rollouts "
    "evaluation_reward evaluation_held_out_reward best_step",
    "dag-db": "step loss residual effective_sample_size beta reward held_out_reward diversity flow_loss zebra apple",
    "diffusion-dpo": "step loss accuracy margin kl_to_reference held_out_accuracy held_out_margin evaluation_zebra",
    "supervised": "step loss learning_rate gradient_norm kl_to_reference",
    "a method of the future": "step loss reward zebra",
}
TICKS = [(0, 1), (0.2, 0.35), (-3, 5000), (1e-6, 2e-6), (0.5, 0.5), (0, 0), (-0.04, 0.01)]


def cases() -> dict[str, Any]:
    """Everything that is compared; JSON-able."""
    wave = [round(math.sin(0.3 * place) + (place * 7919 % 13) / 13, 6) for place in range(57)]
    samples = [{"step": 7 * n, "image": str(n)} for n in range(3 * live.MOST_SAMPLES)]
    return {
        "figures": {name: _shown(name) for name in (*figures.FIGURES, *UNKNOWN)},
        "panels": [_panels(method, names.split()) for method, names in RUNS.items()],
        "smoothed": [{"values": values, "result": smoothed(values)} for values in (wave, wave[:3], wave[:1])],
        "ticks": [{"low": low, "high": high, "result": nice_ticks(low, high, 3)} for low, high in TICKS],
        "sparse": [
            [points, rows, figures.is_sparse(points, rows)] for points, rows in ((1, 1), (1, 2), (5, 9), (4, 9))
        ],
        "thinned": _thinned(2 * live.MOST_ROWS + 5),
        "samples": [sample["step"] for sample in live.thinned_samples(samples)],
    }


def _shown(name: str) -> dict[str, Any]:
    figure = figures.figure(name)
    return {"title": figure.title, "meaning": figure.meaning, "better": figure.better, "format": figure.format}


def _panels(method: str, names: list[str]) -> dict[str, Any]:
    first = figures.first_curves(method)
    shown, every = figures.panels(names, first)
    return {"names": names, "first": list(first), "shown": shown, "all": every}


def _thinned(count: int) -> dict[str, Any]:
    """Of rows with "loss", and every 100th with "rare" too: how many are left, their ends, and the rare ones."""
    rows = [{"step": n + 1, "loss": n} | ({"rare": n} if n % 100 == 7 else {}) for n in range(count)]
    left = live.thinned(rows)
    ends = [row["step"] for row in (*left[:3], *left[-3:])]
    return {"count": count, "left": len(left), "ends": ends, "rare": [row for row in left if "rare" in row]}


def text() -> str:
    """The file, as it must be."""
    return json.dumps(cases(), ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8", newline="\n")
