"""Fairness in the report: what a picture looks like in words, too few rounds, leanings of choices and of weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from attune.nodes.picture_folder import picture_hash
from attune.nodes.refinement import views
from attune.nodes.refinement.checks import RefinementError, UnknownError
from attune.nodes.refinement.fairness import FEWEST_ROUNDS
from attune.nodes.refinement.fairness_report import Looked, fairness_report, looked_at
from attune.nodes.refinement.records import REWARDS, Feedback, Picture, Schedule, Weights
from attune.nodes.refinement.report import report_of
from attune.nodes.refinement.report_html import report_html
from attune.nodes.refinement.report_picture import report_picture
from attune.nodes.refinement.store import SessionStore
from attune.nodes.refinement.visible_attributes import ATTRIBUTES, attributes_of
from attune.tests.refinement_sessions import opened, play

RED, BLUE = (200, 30, 30), (30, 60, 200)
ROUNDS = 12


def plain(colour: tuple[int, int, int], mark: int = 0) -> np.ndarray:
    """One colour, told apart by a pixel in the middle."""
    pixels = np.full((32, 32, 3), colour, np.uint8)
    pixels[16, 16] = mark % 256
    return pixels


@pytest.mark.parametrize(
    ("colour", "found"),
    [
        ((255, 0, 0), ("dark", "red", "red")),  # luma 0.21
        ((255, 255, 0), ("bright", "yellow", "yellow")),  # 0.93
        ((0, 255, 0), ("bright", "green", "green")),  # 0.72
        ((0, 200, 255), ("medium", "cyan", "cyan")),  # 0.63; hue 3.2 sixths
        ((20, 20, 220), ("dark", "blue", "blue")),
        ((255, 0, 255), ("dark", "magenta", "magenta")),  # 0.28
        ((255, 0, 60), ("dark", "red", "red")),  # hue −0.24 sixths: round the circle
        ((10, 12, 14), ("dark", "grey", "black")),
        ((128, 128, 128), ("medium", "grey", "grey")),
        ((250, 250, 250), ("bright", "grey", "white")),
    ],
)
def test_plain_pictures_are_what_they_are_called(colour, found):
    assert tuple(attributes_of(np.full((40, 24, 3), colour, np.uint8)).values()) == found


def test_a_thing_on_a_background_has_both():
    """A red square on white: 36 of 64 by 64 eighths red is most of what is coloured; the border is white."""
    pixels = np.full((64, 64, 3), 255, np.uint8)
    pixels[16:48, 16:48] = (220, 20, 20)
    found = attributes_of(pixels)
    assert (found["colour"], found["background"]) == ("red", "white")
    pixels[16:48, 16:48] = 255
    pixels[30:34, 30:34] = (220, 20, 20)
    assert attributes_of(pixels)["colour"] == "grey", "under a tenth is coloured"
    assert attributes_of(np.zeros((1, 1, 3), np.uint8))["background"] == "black"


@pytest.fixture
def sessions(tmp_path: Path) -> SessionStore:
    return opened(tmp_path)


def played(
    sessions: SessionStore, name: str, chosen: tuple[int, int, int], rounds: int, *, likes_red: float = 0.0
) -> str:
    """A session of rounds with two red and two blue pictures, of which one of the chosen colour is liked.

    One reward scores red pictures by `likes_red`, the other blue ones by 0.5; the first has the larger weight.
    """
    state = sessions.create(name, "a cat")
    for turn in range(rounds):
        pixels = [plain(colour, 4 * turn + place) for place, colour in enumerate((RED, BLUE, RED, BLUE))]
        pictures = [
            Picture(picture_hash(image), place, {"warm": likes_red * (1 - place % 2), "cold": 0.5 * (place % 2)})
            for place, image in enumerate(pixels)
        ]
        round_ = sessions.propose(
            state.key, state.revision, prompt="a cat", schedule=Schedule("linear", 4, 1.0, tuple(range(4))),
            weights=Weights("rule", {}, {"warm": 0.8, "cold": 0.2}), pictures=pictures,
            pixels=dict(zip((picture.hash for picture in pictures), pixels, strict=True)),
        )  # fmt: skip
        place = (turn % 2) * 2 + (chosen == BLUE)
        state = sessions.commit(state.key, state.revision, round_.key, Feedback("", liked=(place,)))
    return state.key


def test_few_rounds_are_said_to_be_few(sessions: SessionStore):
    key = played(sessions, "few", RED, FEWEST_ROUNDS - 1)
    found = report_of(sessions, key)["fairness"]
    assert (found["enough"], found["warns"], found["measured"]) == (False, False, [])
    assert f"{FEWEST_ROUNDS - 1} of at least {FEWEST_ROUNDS}" in found["words"]
    assert found["words"] in report_html(report_of(sessions, key), sessions.files(key).pictures.get)


def test_choices_that_lean_are_told_everywhere(sessions: SessionStore):
    """Always a red one of two red and two blue: 50 → 100 %, TV = ½, chance 2^−12 on either side."""
    key = played(sessions, "red", RED, ROUNDS)
    report = report_of(sessions, key)
    found = {(part["of"], part["attribute"]): part for part in report["fairness"]["measured"]}
    red = found["choices", "background"]
    assert red["shares"] == {"red": [0.5, 1.0], "blue": [0.5, 0.0]} and red["distance"] == pytest.approx(0.5)
    assert red["warns"] and "background red, 100 % (50 % of what was shown)" in red["words"]
    assert report["fairness"]["warns"] and red["words"] in report["fairness"]["words"]
    page = report_html(report, sessions.files(key).pictures.get)
    assert "choices, background" in page and 'class="chip warn">leans' in page
    quiet = {**report, "fairness": {**report["fairness"], "warns": False}}
    pictures = [report_picture(each, sessions.files(key).pictures.get) for each in (report, quiet)]
    assert not np.array_equal(*[picture[0, -60:].numpy() for picture in pictures]), (
        "the picture's line has another colour"
    )


def test_weights_that_lean_are_told(sessions: SessionStore):
    """Equal weights sum to 0.5 (cold) against z of both; the larger weight of "warm" ranks a red one first always."""
    key = played(sessions, "weights", BLUE, ROUNDS, likes_red=0.4)
    found = {(part["of"], part["attribute"]): part for part in report_of(sessions, key)["fairness"]["measured"]}
    moved = found["weights", "background"]
    assert moved["shares"]["red"][1] == 1.0
    # Both rewards differ by the colour alone, so that equal weights are indifferent and take the first: red, too.
    assert not moved["warns"]
    rounds = looked_at([(sessions.record(key), sessions.files(key).pictures.get)])
    for looked in rounds:
        looked.z[:] = [{"warm": one["warm"], "cold": 3 * one["cold"]} for one in looked.z]
    moved = {(part["of"], part["attribute"]): part for part in fairness_report(rounds)["measured"]}[
        "weights", "background"
    ]
    assert moved["shares"]["red"] == [0.0, 1.0] and moved["warns"]
    told = fairness_report(rounds)["words"]
    assert "The weights lean" in told and "lower the weight" in told and moved["words"] in told


def test_choices_at_random_hardly_ever_warn():
    """Twenty reports of twelve rounds, each with six measures: of 150 none warned; two would be another measure."""
    rng, words = np.random.default_rng(12), ("red", "yellow", "green", "blue")
    warned = 0
    for _ in range(20):
        rounds = [
            Looked(
                {name: tuple(rng.choice(words, 4)) for name in ATTRIBUTES}, (int(rng.integers(4)),),
                {"a": 0.6, "b": 0.3, "c": 0.1},
                [dict(zip("abc", rng.normal(size=3).tolist(), strict=True)) for _ in range(4)],
            )
            for _ in range(12)
        ]  # fmt: skip
        warned += fairness_report(rounds)["warns"]
    assert warned <= 1


def test_what_the_rewards_decided_is_no_choice_of_a_person(sessions: SessionStore):
    state = sessions.create("cats", "a cat")
    for rater in ("", REWARDS):
        state = play(sessions, state, (1, 2), Feedback(liked=(0,), rater=rater))
    record = sessions.record(state.key)
    looked = looked_at([(record, sessions.files(state.key).pictures.get)])
    assert [one.liked for one in looked] == [(), (0,)], "the newest first"


def test_all_sessions_count_together(sessions: SessionStore):
    for number in range(3):
        key = played(sessions, f"session {number}", RED, 4)
    assert not report_of(sessions, key)["fairness"]["enough"]
    found = report_of(sessions, key, cap=4, everything=True)["fairness"]
    assert (found["rounds"], found["enough"], found["warns"]) == (12, True, True)
    assert report_of(sessions, key, everything=False)["fairness"]["rounds"] == 4


def test_the_newest_rounds_of_the_session_itself_count_first(sessions: SessionStore):
    one, other = (played(sessions, name, colour, 3) for name, colour in (("one", RED), ("other", BLUE)))
    told = []
    asked = [(sessions.record(key), sessions.files(key).pictures.get) for key in (one, other)]
    found = looked_at(asked, lambda done, total: told.append((done, total)), most=4)
    liked = [looked.values["background"][looked.liked[0]] for looked in found]
    assert liked == ["red", "red", "red", "blue"] and told == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_a_round_whose_picture_is_gone_has_no_part(sessions: SessionStore):
    key = played(sessions, "gone", RED, 2)
    record, files = sessions.record(key), sessions.files(key).pictures

    def get(name: str) -> np.ndarray:
        if name == record.rounds[0].pictures[1].hash:
            raise UnknownError("gone")
        return files.get(name)

    from attune.nodes.refinement import fairness_report as module

    module._KNOWN.clear()
    assert len(looked_at([(record, get)])) == 1


def test_the_page_gets_the_report_without_what_it_does_not_show(sessions: SessionStore):
    key = played(sessions, "page", RED, 3)
    found = views.report_view(sessions, key, {"most_rounds": "2", "judge": " cold ", "all": ""})
    assert found["kpis"]["judge"] == "cold" and found["kpis"]["advice"] == "hand over"
    assert set(found["rounds"][0]["weights"]) == {"rule", "before", "after"} and "latents" not in found["rounds"][0]
    assert found["several"] is None
    assert views.report_view(sessions, key, {"all": "1", "most_rounds": "3"})["several"]["sessions"] == 1
    for wrong in ("0", "x", "-1", "9999999", "٣"):
        with pytest.raises(RefinementError, match="most_rounds"):
            views.report_view(sessions, key, {"most_rounds": wrong})
    with pytest.raises(UnknownError):
        views.report_view(sessions, "0" * 32, {})
