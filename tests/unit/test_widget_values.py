"""Widgets of the training nodes: what they show is what is set."""

from __future__ import annotations

import math
import re

import pytest

from attune.nodes.training import align_schemas, dag_schemas, run_schemas, schemas
from attune.nodes.training.figures import FIGURES

NODES = {
    "LoRA Settings": schemas.LORA_SETTINGS,
    "Supervised Objective": schemas.SUPERVISED_OBJECTIVE,
    "DDPO Objective": schemas.DDPO_OBJECTIVE,
    "Diffusion-DPO Objective": align_schemas.DPO_OBJECTIVE,
    "Pairs from Scores": align_schemas.PAIRS_FROM_SCORES,
    "ReFL Objective": align_schemas.REFL_OBJECTIVE,
    "DAG-DB Objective": dag_schemas.DAG_DB_OBJECTIVE,
    "DAG-KL Objective": dag_schemas.DAG_KL_OBJECTIVE,
    "Train LoRA": run_schemas.TRAIN_LORA,
    "Compare A/B": run_schemas.compare_ab(["euler"], ["normal"]),
}
FLOATS = [(node, slot.id, slot.keywords) for node, slots in NODES.items() for slot in slots if slot.kind == "Float"]


@pytest.mark.parametrize(("node", "name", "words"), FLOATS, ids=lambda value: value if isinstance(value, str) else "")
def test_no_value_is_shown_as_off_or_as_another(node, name, words):
    """The page shows as many decimals as the step has, and rounds what is typed to `round`, or to those decimals."""
    decimals = max(0, -math.floor(math.log10(words["step"])))
    grid = words.get("round") or 10**-decimals
    assert grid >= 0.999 * 10**-decimals, f"{node}: {name} takes {grid:g} and shows {decimals} decimals"
    least = max(words["min"], grid)
    assert float(f"{least:.{decimals}f}") == pytest.approx(least)
    if words["min"] == 0 and re.search(r"\b0 = (off|no limit)", words["tooltip"]):
        assert decimals >= 2, f"{node}: a small {name} is shown as 0, which is off"
    assert float(f"{words['default']:.{decimals}f}") == pytest.approx(words["default"])


def test_the_kl_budget_names_its_curve_and_a_value():
    words = next(slot.keywords["tooltip"] for slot in run_schemas.TRAIN_LORA if slot.id == "kl_budget")
    assert f"'{FIGURES['kl_to_reference'].title}'" in words and "100 to 200 is customary" in words
