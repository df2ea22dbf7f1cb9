"""Refine Prompt with a reward: asks back where the last round's pictures show their prompt less than is usual."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from attune.nodes.picture_folder import picture_hash, to_pixels
from attune.nodes.refinement import nodes_prompt
from attune.nodes.refinement.draft import Draft
from attune.nodes.refinement.nodes_routes import sessions
from attune.nodes.refinement.records import Feedback, Picture, Schedule, SessionState
from attune.nodes.rewards.calibration import CalibratedReward, Calibration
from attune.nodes.rewards.load import load_reward
from attune.nodes.rewards.statistics import StatisticReward
from attune.scripts.environment import ROOT
from attune.training.interfaces import AttuneError

DEMO = ROOT / "workflows" / "demo"
PROMPT = "a butterfly"


def pictures(what: str) -> list[Any]:
    files = sorted((DEMO / "attune_people").glob(f"{what}_*.jpg"))[:4]
    return [to_pixels(_read(file)) for file in files]


def _read(file: Any) -> torch.Tensor:
    with Image.open(file) as opened:
        return torch.from_numpy(np.asarray(opened.convert("RGB")).astype("float32") / 255)


def played(state: SessionState, what: str) -> SessionState:
    """A round of the prompt whose pictures show something."""
    pixels = pictures(what)
    assert len(pixels) == 4
    made = tuple(Picture(picture_hash(image), place) for place, image in enumerate(pixels))
    round_ = sessions().propose(
        state.key, state.revision, prompt=PROMPT, schedule=Schedule("linear", 4, 1.0, (0, 1, 2, 3)), pictures=made,
        pixels=dict(zip((picture.hash for picture in made), pixels, strict=True)), seconds=1.0,
    )  # fmt: skip
    return sessions().commit(state.key, state.revision, round_.key, Feedback("", liked=(0,)))


def refined(state: SessionState, reward: Any) -> tuple[str, dict[str, Any]]:
    """(what the node tells, what it asks)."""
    found = nodes_prompt.AttuneRefinePrompt.execute(Draft.of(state), nodes_prompt.RULES, "", reward=reward)
    return found.args[3], found.ui["attune_question"][0]


def check_pictures_that_do_not_show_the_prompt_are_asked_about() -> None:
    reward = load_reward(DEMO / "attune_demo_reward.safetensors", "cpu")
    state = sessions().create("butterflies", PROMPT)
    assert refined(state, reward)[1]["text"] == ""
    state = played(played(state, "butterfly"), "butterfly")
    told, asked = refined(state, reward)
    assert "4 so far" in told and asked["text"] == ""
    state = played(state, "butterfly")
    told, asked = refined(state, reward)
    assert "in the rounds before" in told and asked["text"] == "", "the same pictures are as usual"
    wrong = played(state, "cat")
    told, asked = refined(wrong, reward)
    assert "worse than in the rounds before" in told and "asked" in told, told
    assert asked["text"] == "Which style?" and all(choice["feedback"] for choice in asked["choices"])
    assert refined(wrong, None)[1]["text"] == ""

    usual = Calibration.of(reward.reward_id, "mine", [0.8, 0.85, 0.9, 0.82, 0.88, 0.83, 0.87, 0.86])
    told, asked = refined(played(sessions().create("cats", PROMPT), "cat"), CalibratedReward(reward, usual))
    assert "worse than in the calibration mine" in told and asked["text"], told


def check_a_reward_that_does_not_look_at_the_prompt_is_refused() -> None:
    with pytest.raises(AttuneError, match="does not look at the prompt"):
        refined(sessions().create("nothing", PROMPT), StatisticReward())
