"""Simulated people see real pixels, choose what they mean, and say what is wrong in words that the rules can read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from attune.nodes.refinement.edits import edit_prompt
from attune.nodes.rewards.load import load_reward
from attune.training.demo import data
from attune.training.demo.pipeline import prompt_text
from attune.training.demo.simulated_person import (
    ALL_ATTRIBUTES,
    PHRASES,
    PLACE_WORDS,
    Eyes,
    Habits,
    SimulatedPerson,
    share,
)
from attune.training.interfaces import TrainingError

DEMO = Path(__file__).resolve().parents[2] / "workflows" / "demo"
CAREFUL = Habits(noise=0.01, blunder=0.0, silence=0.0)


class Told:
    """Eyes that see what the test says: one picture's pixels name a row."""

    def __init__(self, *seen: data.Attributes) -> None:
        self.seen = seen

    def see(self, images: torch.Tensor) -> list[data.Attributes]:
        return list(self.seen[: len(images)])


def pictures(count: int) -> torch.Tensor:
    return torch.zeros(count, 64, 64, 3)


MEANT = data.Attributes("cat", "flat", "blue")


def test_the_real_judge_sees_the_background_of_real_pixels():
    eyes = Eyes(load_reward(DEMO / "attune_demo_judge.safetensors", "cpu"))
    for name, colour in data.BACKGROUNDS.items():
        picture = torch.tensor(colour).float().div(255).expand(1, 64, 64, 3)
        assert eyes.see(picture)[0].background == name


def test_a_careful_person_takes_the_best_and_names_one_thing_that_is_wrong():
    others = (("dog", "3d", "red"), ("cat", "flat", "red"), ("cat", "3d", "red"))
    seen = [data.Attributes(*other) for other in others]
    answer = SimulatedPerson(MEANT, Told(*seen), CAREFUL).answer(pictures(3))
    assert answer.chosen == 1 and not answer.accepted and "blue" in answer.comment


def test_what_is_meant_is_accepted_without_a_word():
    answer = SimulatedPerson(MEANT, Told(MEANT), CAREFUL).answer(pictures(1))
    assert answer.accepted and answer.comment == "" and share(MEANT, MEANT) == 1


def test_noise_mixes_up_close_pictures_as_its_formula_says():
    seen = [MEANT, data.Attributes("cat", "flat", "red")]
    habits = Habits(noise=0.3, blunder=0.0, silence=0.0)
    chosen = [SimulatedPerson(MEANT, Told(*seen), habits, seed=seed).answer(pictures(2)).chosen for seed in range(1500)]
    expected = 1 / (1 + np.exp(-(1 / 3) / 0.3))
    assert abs(np.mean(np.array(chosen) == 0) - expected) < 0.04


def test_the_same_seed_says_the_same():
    seen = [data.Attributes("dog", "3d", "red")] * 3
    first, second = (
        [SimulatedPerson(MEANT, Told(*seen), seed=5).answer(pictures(3)) for _ in range(1)] for _ in range(2)
    )
    assert first == second


def test_phrases_are_carried_out_by_the_rules_or_said_not_to_be_understood():
    """People do not know the grammar; it must read most of what they say, and own up to the rest."""
    carried_out = []
    for name in ALL_ATTRIBUTES:
        was, what = {
            "concept": ("dog", "cat"), "style": ("3d", "flat"), "background": ("red", "blue"),
            "size": ("", "small"), "position": ("left", "top"),
        }[name]  # fmt: skip
        before = {"concept": "cat", "style": "flat", "background": "blue", "size": "", "position": ""} | {name: was}
        after = before | {name: what}
        words = (PLACE_WORDS[what], PLACE_WORDS[was]) if name == "position" else (what, was)
        for phrase in PHRASES[name]:
            comment = phrase.format(what=words[0], was=words[1], a_what=data.with_article(what))
            found = edit_prompt(said(**before), "", comment)
            carried_out.append(found.prompt == said(**after))
            assert carried_out[-1] or found.unread, (comment, found)
    assert sum(carried_out) >= len(carried_out) - 1, carried_out


def said(concept: str, style: str, background: str, size: str, position: str) -> str:
    """The prompt of a picture, as edits leave it."""
    thing = data.with_article(f"{size} {concept}".strip())
    place = f" {PLACE_WORDS[position]}" if position else ""
    return prompt_text(concept, style, background).replace(data.with_article(concept), thing + place)


def test_a_person_may_look_at_size_and_place_too():
    meant = data.Attributes("cat", "flat", "blue", "small", "left")
    another_style, in_the_middle = replace(meant, style="3d"), replace(meant, position="center")
    person = SimulatedPerson(meant, Told(MEANT, another_style), CAREFUL, wishes=ALL_ATTRIBUTES)
    assert person.answer(pictures(2)).chosen == 1
    answer = SimulatedPerson(meant, Told(in_the_middle), CAREFUL, wishes=ALL_ATTRIBUTES).answer(pictures(1))
    assert not answer.accepted and "on the left" in answer.comment
    assert SimulatedPerson(meant, Told(in_the_middle), CAREFUL).answer(pictures(1)).accepted, "it has three wishes"
    for wishes in ((), ("colour",)):
        with pytest.raises(TrainingError, match="wishes for some of"):
            SimulatedPerson(meant, Told(MEANT), wishes=wishes)


def test_what_a_person_has_no_words_for_is_chosen_by_and_never_spoken_of():
    habits = Habits(noise=0.01, blunder=0.0, silence=0.0, wordless=("style",))
    seen = [data.Attributes("cat", "3d", "blue"), MEANT, data.Attributes("cat", "flat", "red")]
    answer = SimulatedPerson(MEANT, Told(*seen), habits).answer(pictures(3))
    assert answer.chosen == 1 and answer.accepted
    for seed in range(5):
        wrong = data.Attributes("cat", "3d", "red")
        answer = SimulatedPerson(MEANT, Told(wrong), habits, seed=seed).answer(pictures(1))
        assert "blue" in answer.comment and "flat" not in answer.comment
    answer = SimulatedPerson(MEANT, Told(seen[0]), habits).answer(pictures(1))
    assert answer.comment == "" and not answer.accepted and answer.speechless


def test_what_it_cannot_ask_for_is_chosen_first():
    silent = Habits(noise=0.01, blunder=0.0, silence=0.0, wordless=("style",))
    seen = [data.Attributes("cat", "3d", "blue"), data.Attributes("dog", "flat", "red")]
    answer = SimulatedPerson(MEANT, Told(*seen), silent).answer(pictures(2))
    assert answer.chosen == 1 and answer.comment, "one wish against two, but the others can be asked for"
    able = replace(silent, wordless=())
    assert SimulatedPerson(MEANT, Told(*seen), able).answer(pictures(2)).chosen == 0


def test_what_it_cannot_name_and_sees_it_asks_to_keep():
    keeping = Habits(noise=0.01, blunder=0.0, silence=0.0, wordless=("style",), keeps=True)
    seen = data.Attributes("cat", "flat", "red")
    comment = SimulatedPerson(MEANT, Told(seen), keeping).answer(pictures(1)).comment
    assert "blue" in comment and comment.endswith(", keep the style")
    assert "keep" not in SimulatedPerson(MEANT, Told(seen), replace(keeping, keeps=False)).answer(pictures(1)).comment
    other = replace(seen, style="3d")
    assert "keep" not in SimulatedPerson(MEANT, Told(other), keeping).answer(pictures(1)).comment, "it is not there"


def test_habits_out_of_range_are_refused():
    with pytest.raises(TrainingError, match="above 0"):
        Habits(noise=0)
    with pytest.raises(TrainingError, match="probability"):
        Habits(blunder=2)
    with pytest.raises(TrainingError, match="to have words for"):
        Habits(wordless=("colour",))
