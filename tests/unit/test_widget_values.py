"""Widgets of the training nodes: what they show is what is set."""

from __future__ import annotations

import pytest

from attune.nodes.training import align_schemas, dag_schemas, one_step_schemas, run_schemas, schemas
from attune.nodes.training.figures import FIGURES
from attune.tests.widget_values import fault

NODES = {
    "LoRA Settings": schemas.LORA_SETTINGS,
    "Supervised Objective": schemas.SUPERVISED_OBJECTIVE,
    "DDPO Objective": schemas.DDPO_OBJECTIVE,
    "Diffusion-DPO Objective": align_schemas.DPO_OBJECTIVE,
    "Pairs from Scores": align_schemas.PAIRS_FROM_SCORES,
    "ReFL Objective": align_schemas.REFL_OBJECTIVE,
    "Diff-Instruct* Objective": one_step_schemas.DIFF_INSTRUCT_OBJECTIVE,
    "DAG-DB Objective": dag_schemas.DAG_DB_OBJECTIVE,
    "DAG-KL Objective": dag_schemas.DAG_KL_OBJECTIVE,
    "Train LoRA": run_schemas.TRAIN_LORA,
    "Compare A/B": run_schemas.compare_ab(["euler"], ["normal"]),
}
FLOATS = [(node, slot.id, slot.keywords) for node, slots in NODES.items() for slot in slots if slot.kind == "Float"]


@pytest.mark.parametrize(("node", "name", "words"), FLOATS, ids=lambda value: value if isinstance(value, str) else "")
def test_no_value_is_shown_as_off_or_as_another(node, name, words):
    """Of the tables that need no host; tests/host/test_schemas.py asks the same of every node."""
    assert fault(words) == "", f"{node}: {name} {fault(words)}"


def test_methods_that_practise_begin_with_the_same_inputs():
    names = ("DDPO", "ReFL", "Diff-Instruct*", "DAG-DB", "DAG-KL")
    tables = {name: NODES[f"{name} Objective"] for name in names}
    first = ["clip", "vae", "latent", "reward", "prompts", "negative"]
    assert {name: [slot.id for slot in slots[:6]] for name, slots in tables.items()} == dict.fromkeys(names, first)
    for slots in tables.values():
        assert [slot for slot in slots[:6] if slot.id != "reward"] == [
            slot for slot in schemas.DDPO_OBJECTIVE[:6] if slot.id != "reward"
        ]
        assert schemas.HELD_OUT_REWARD in slots


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"step": 0.01, "round": 0.0001}, "takes 0.0001 and shows 2 decimals"),
        ({"step": 0.05, "round": 0.001}, "takes 0.001 and shows 2 decimals"),
        ({"default": 0.07}, "shows its default 0.07 as 0.1"),
        ({"min": 0.01}, "shows its min 0.01 as 0"),
        ({"tooltip": "How much. 0 = off."}, "shows a small value as 0, which is off"),
        ({"tooltip": "How much. 0 = off.", "step": 0.01}, ""),
        ({"round": 0.1}, ""),
        ({"step": 1.0, "default": 2.0}, ""),
    ],
)
def test_what_the_rule_finds(changes, said):
    plain = {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.1, "tooltip": "How much. 0 = only equal ones."}
    assert fault(plain) == "" and fault({**plain, **changes}) == said


def test_the_kl_budget_names_its_curve_and_a_value():
    words = next(slot.keywords["tooltip"] for slot in run_schemas.TRAIN_LORA if slot.id == "kl_budget")
    assert f"'{FIGURES['kl_to_reference'].title}'" in words and "100 to 200 is customary" in words
