"""The values behind the two buttons of Diff-Instruct* Objective: inputs that exist, and what they can take."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from attune.nodes.training.one_step_schemas import DIFF_INSTRUCT_OBJECTIVE
from attune.nodes.training.run_schemas import TRAIN_LORA
from attune.training.objectives.diff_instruct_config import DiffInstructConfig
from attune.training.trainer import TrainerConfig
from attune.training.trainer_config import Pace

SCRIPT = Path(__file__).resolve().parents[2] / "js" / "one_step_presets.js"
PRESETS = json.loads(
    re.search(r"^export const PRESETS = (\[.*?^\]);$", SCRIPT.read_text(encoding="utf-8"), re.M | re.S)[1]
)
SLOTS = {"objective": DIFF_INSTRUCT_OBJECTIVE, "train": TRAIN_LORA}
NAMES = [preset["name"] for preset in PRESETS]


def faults(node: str, values: dict[str, object]) -> list[str]:
    """What the node's inputs cannot take, or would show as something else."""
    slots, found = {slot.id: slot for slot in SLOTS[node]}, []
    for name, value in values.items():
        if name not in slots:
            found.append(f"there is no {name}")
            continue
        kind, words = slots[name].kind, slots[name].keywords
        if kind == "Combo":
            fits = value in words["options"]
        else:
            number = isinstance(value, int if kind == "Int" else (int, float)) and not isinstance(value, bool)
            fits = number and words["min"] <= value <= words["max"]
            grain = 1 if kind == "Int" else words.get("round") or words["step"]
            fits = fits and abs(value / grain - round(value / grain)) < 1e-6
        if not fits:
            found.append(f"{name} cannot be {value!r}")
    return found


def test_there_are_two():
    assert NAMES == ["Fast and rough", "Long and good"]


@pytest.mark.parametrize("preset", PRESETS, ids=NAMES)
def test_every_value_is_one_that_its_input_takes(preset):
    assert {node: faults(node, preset[node]) for node in SLOTS} == {"objective": [], "train": []}


def test_what_the_check_finds():
    assert faults("train", {"step": 3, "steps": 0, "schedule": "wavy", "ema": 0.12345}) == [
        "there is no step", "steps cannot be 0", "schedule cannot be 'wavy'", "ema cannot be 0.12345"
    ]  # fmt: skip
    assert faults("objective", {"assistant_updates": 1.5}) == ["assistant_updates cannot be 1.5"]


@pytest.mark.parametrize("preset", PRESETS, ids=NAMES)
def test_a_run_makes_sense_of_them(preset):
    """Taken by the configs; the reward has its whole weight before the end, the guard looks several times, and the
    assistant learns at least as fast as the generator."""
    config = DiffInstructConfig(**preset["objective"], reward_weight=1.0)
    trainer = TrainerConfig(**preset["train"])
    assert config.reward_from + config.reward_rise < trainer.steps / 2
    assert trainer.steps // trainer.evaluate_every >= 4
    assert config.assistant_learning_rate >= trainer.learning_rate
    moved = Pace(config.assistant_warmup, config.assistant_updates).moved(trainer.steps)
    # An average over about 1/(1 − ema) updates must forget how it began.
    assert (1 - trainer.ema) * moved >= 5


def test_both_set_the_same_inputs_and_neither_the_reward_nor_the_guidance():
    fast, long = PRESETS
    for node in SLOTS:
        assert fast[node].keys() == long[node].keys(), "what one of them sets the other one must set back"
    assert not {"reward_weight", "cfg", "init_timestep"} & fast["objective"].keys()
