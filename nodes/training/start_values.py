"""Values to start with, for every objective: the table of its help page. Run this module after a change of defaults or
templates: `python scripts/module.py attune.nodes.training.start_values`.

Two columns: what the node comes with, which is meant for models of Stable Diffusion's size, and what the template of
the demo model sets. How many updates a large model needs is advice and was never tried here; so are the rates, but for
those of DDPO and DAG, which their released code has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import (
    align_schemas,
    dag_schemas,
    multi_round_schemas,
    one_step_schemas,
    personal_schemas,
    run_schemas,
    schemas,
)
from .schemas import Slot

ROOT = Path(__file__).parents[2]
DOCS, TEMPLATES = ROOT / "js" / "docs", ROOT / "workflows"
TITLE = "## Values to start with"
# The section goes before what is read once a run is under way.
_NEXT = re.compile(r"^## (?:What the curves mean|Reading the curves|What goes wrong)$", re.MULTILINE)
_WIDGETS = {"String", "Combo", "Int", "Float", "Boolean"}
# Words, and what says something of the machine or of previews alone.
_LEFT_OUT = {"prompts", "negative", "captions", "trigger", "preview_prompts", "preview_steps", "preview_cfg", "chunk",
             "encoder"}  # fmt: skip


class Start(NamedTuple):
    """Where the values of an objective come from.

    Attributes:
        slots: of the objective's node.
        template: that trains the demo model with it.
        rate, updates: Train LoRA's learning_rate and steps for a LoRA on a model of Stable Diffusion's size.
        source: of the rate.
    """

    slots: Sequence[Slot]
    template: str
    rate: float
    updates: int
    source: str


STARTS = {
    "AttuneSupervisedObjective": Start(schemas.SUPERVISED_OBJECTIVE, "train_style_lora", 1e-4, 1500, "our advice"),
    "AttuneDDPOObjective": Start(schemas.DDPO_OBJECTIVE, "align_with_reward", 3e-4, 200, "that of the released code"),
    "AttuneDAGDBObjective": Start(dag_schemas.DAG_DB_OBJECTIVE, "headless_job", 3e-4, 100, "that of the released code"),
    "AttuneDAGKLObjective": Start(
        dag_schemas.DAG_KL_OBJECTIVE, "align_with_dag", 3e-4, 100, "that of the released code"
    ),
    "AttuneReFLObjective": Start(
        align_schemas.REFL_OBJECTIVE,
        "align_with_refl",
        1e-4,
        100,
        "our advice, the paper's 1e-5 being for whole networks",
    ),
    "AttuneDiffusionDPOObjective": Start(
        align_schemas.DPO_OBJECTIVE, "train_from_pairs_dpo", 1e-4, 1000, "our advice, the paper training whole networks"
    ),
    "AttuneDiffInstructObjective": Start(
        one_step_schemas.DIFF_INSTRUCT_OBJECTIVE,
        "train_one_step",
        1e-4,
        10000,
        "our advice, for assistant_learning_rate as well, the papers training whole networks",
    ),
    "AttuneMultiRoundObjective": Start(
        multi_round_schemas.MULTI_ROUND_OBJECTIVE, "refine_and_learn", 1e-4, 12, "our advice"
    ),
    "AttunePersonalDPOObjective": Start(
        personal_schemas.personal_dpo_objective([]),
        "train_user_adapter",
        1e-4,
        2000,
        "our advice",
    ),
}


def section(node: str) -> str:
    """The section of a help page, as it must be."""
    start = STARTS[node]
    own, run = _in_template(start.template, node), _in_template(start.template, "AttuneTrainLora")
    rows = [
        (slot.id, slot.keywords.get("default"), set_) for slot, set_ in zip(_widgets(start.slots), own, strict=False)
    ]
    rows = [row for row in rows if row[0] not in _LEFT_OUT]
    trained = dict(zip((slot.id for slot in _widgets(run_schemas.TRAIN_LORA)), run, strict=False))
    rows += [
        ("learning_rate, in Train LoRA", start.rate, trained["learning_rate"]),
        ("steps, in Train LoRA", start.updates, trained["steps"]),
    ]
    table = "".join(f"| {name} | {_shown(default)} | {_shown(set_)} |\n" for name, default, set_ in rows)
    return (
        f"{TITLE}\n\n| setting | Stable Diffusion's size | demo model |\n| --- | --- | --- |\n{table}\n"
        "*Stable Diffusion's size*: what the node comes with. The learning rate is "
        f"{start.source}; the number of steps is our guess. None of it has been tried at that size here: begin with "
        f"fewer steps, and look at the pictures. *Demo model*: as the template `{start.template}` sets it.\n\n"
    )


def with_section(page: str, node: str) -> str:
    """A help page with its section, in place of an older one.

    Raises:
        ValueError: it has no section on what happens during a run.
    """
    if TITLE in page:
        before, _, rest = page.partition(TITLE)
        page = before + rest[rest.index("\n## ") + 1 :]
    found = _NEXT.search(page)
    if found is None:
        raise ValueError(f"the help page of {node} has no section like {_NEXT.pattern!r}")
    return page[: found.start()] + section(node) + page[found.start() :]


def _widgets(slots: Sequence[Slot]) -> list[Slot]:
    return [slot for slot in slots if slot.kind in _WIDGETS]


def _in_template(template: str, node: str) -> list[Any]:
    """Widget values of the first node of a kind in a template."""
    graph = json.loads((TEMPLATES / f"{template}.json").read_text(encoding="utf-8"))
    return next(found["widgets_values"] for found in _nodes(graph) if found["type"] == node)


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "widgets_values" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _nodes(item)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _write() -> None:
    for node in STARTS:
        file = DOCS / f"{node}.md"
        file.write_text(with_section(file.read_text(encoding="utf-8"), node), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    _write()
