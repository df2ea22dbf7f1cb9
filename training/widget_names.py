"""What the nodes call the settings of a run, where that is another name than here.

Errors name both: whoever works with nodes never sees the one, whoever works with the code never the other.
"""

from __future__ import annotations

# Of a method, by the fields of its configuration.
WIDGETS = {
    "steps": "sampler_steps",
    "guidance": "cfg",
    "transitions": "trained_steps",
    "updates_per_rollout": "updates_per_round",
}
# Of those methods whose field has a name of its own in the node.
METHOD_WIDGETS = {
    "supervised": {"batch": "batch_size"},
    "diffusion-dpo": {"batch": "pairs_per_update"},
    "personal-dpo": {"batch": "pairs_per_update"},
}
# Of everything else that a resume compares, by the part it belongs to and its field.
OTHER_WIDGETS = {
    "LoRA seed": "training_seed",
    "LoRA kind": "trains",
    "LoRA part": "part",
    "training seed": "training_seed",
    "base precision": "base_precision",
}
_OF_METHOD = "method setting "


def named(field: str) -> str:
    """A field of a method's configuration as errors call it."""
    return _both(field, WIDGETS.get(field))


def named_in_run(name: str, method: str | None) -> str:
    """What a resume compares as its refusal calls it.

    Args:
        name: its place in the run's identity, such as "method setting steps" or "training seed".
        method: whose settings they are.
    """
    if not name.startswith(_OF_METHOD):
        return _both(name, OTHER_WIDGETS.get(name))
    field = name.removeprefix(_OF_METHOD)
    return _OF_METHOD + _both(field, (WIDGETS | METHOD_WIDGETS.get(method, {})).get(field))


def _both(field: str, widget: str | None) -> str:
    return f"{field} ({widget} in the node)" if widget else field
