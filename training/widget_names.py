"""What the nodes call the settings of the training methods, where that is another name than here.

Errors name both: whoever works with nodes never sees the one, whoever works with the code never the other.
"""

from __future__ import annotations

WIDGETS = {
    "steps": "sampler_steps",
    "guidance": "cfg",
    "transitions": "trained_steps",
    "updates_per_rollout": "updates_per_round",
}


def named(field: str) -> str:
    """A field of a method's configuration as errors call it."""
    return f"{field} ({WIDGETS[field]} in the node)" if field in WIDGETS else field
