"""What number widgets show is what is set: the rule, for tests of tables of inputs and of a running host's nodes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

# Fewer would show a small value as 0 where 0 switches something off.
LEAST_DECIMALS = 2


def fault(words: Mapping[str, Any]) -> str:
    """What is wrong with the keywords of a Float input, or "".

    The page shows as many decimals as `step` has, and rounds what is typed to `round`, or to those decimals.
    """
    decimals = max(0, -math.floor(math.log10(words["step"])))
    grid = words.get("round") or 10**-decimals
    if grid < 0.999 * 10**-decimals:
        return f"takes {grid:g} and shows {decimals} decimals"
    for name in ("default", "min"):
        shown = float(f"{words[name]:.{decimals}f}")
        if not math.isclose(shown, words[name], rel_tol=1e-6):
            return f"shows its {name} {words[name]:g} as {shown:g}"
    if words["min"] == 0 and decimals < LEAST_DECIMALS and re.search(r"\b0 = (off|no limit)", words["tooltip"]):
        return "shows a small value as 0, which is off"
    return ""
