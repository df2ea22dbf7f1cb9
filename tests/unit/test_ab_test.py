"""Blind tests on real files and a real store: pictures kept, sides hidden, votes found again."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attune.nodes.rewards.statistics import StatisticReward
from attune.nodes.store import Store
from attune.nodes.training.ab_book import Ballots, BlindTest, UnknownTest, pair_key
from attune.nodes.training.ab_grid import result_grid
from attune.nodes.training.ab_pictures import PictureStore, StoredPicture, picture_name
from attune.nodes.training.ab_test import (
    Judging,
    Setup,
    _missing,
    agreement,
    make_test,
    preferences,
    preferred,
    reward_choices,
    summary,
)
from attune.nodes.training.compare import SamplingSettings
from attune.training.interfaces import AttuneError
from attune.training.presentable import BATCH_PROMPTS

PROMPTS, SEEDS = ["a cat", "a dog", "<b>a fox</b>"], [3, 4, 5, 6]
BRIGHTNESS = StatisticReward("brightness", "as high as possible", 0.5)
PERSON, REWARD = Judging("person", 0.0, 0), Judging("reward", 0.0, 0)


def setup_of(**changes) -> Setup:
    plain = Setup(
        models=(None, None), names=("base", "tuned"), clip=None, vae=None, latent={}, prompts=PROMPTS, negative="",
        seeds=SEEDS, settings=SamplingSettings(2, 1.0, "euler", "normal"), reward=BRIGHTNESS,
    )  # fmt: skip
    return replace(plain, **changes)


@pytest.fixture
def store(tmp_path: Path) -> PictureStore:
    return PictureStore(tmp_path / "pictures")


@pytest.fixture
def ballots(tmp_path: Path) -> Ballots:
    return Ballots(tmp_path / "tests", Store(tmp_path / "attune.sqlite3"))


@pytest.fixture
def sides(store: PictureStore) -> list[list[StoredPicture]]:
    """Every picture is one colour; B is the brighter one but for the first pair (equal) and the last (darker)."""
    found: list[list[StoredPicture]] = [[], []]
    count = len(PROMPTS) * len(SEEDS)
    for index in range(count):
        a = 0.2 + 0.04 * index
        b = a if index == 0 else a - 0.1 if index == count - 1 else a + 0.1
        for side, light in enumerate((a, b)):
            name = picture_name("ab"[side], PROMPTS[index // len(SEEDS)], SEEDS[index % len(SEEDS)], {"n": 1})
            found[side].append(store.put(name, torch.full((16, 24, 3), light), blurred=False))
    return found


def person_test(sides, **changes) -> BlindTest:
    return make_test(setup_of(**changes), PERSON, ["1", "2"], sides)


# ---- pictures ----


def test_a_picture_comes_back_bit_for_bit(store: PictureStore):
    image = torch.rand(40, 30, 3, generator=torch.Generator().manual_seed(0))
    put = store.put("0" * 32, image, blurred=True)
    found = store.find("0" * 32)
    assert found.blurred and found.content == put.content and found.size == (30, 40)
    assert np.array_equal(found.pixels, put.pixels)
    assert (found.image - image).abs().max() <= 0.5 / 255 + 1e-6
    assert store.find("1" * 32) is None
    other = store.put("1" * 32, image.flip(0), blurred=False)
    assert other.content != put.content and not store.find("1" * 32).blurred


def test_names_that_are_none_find_nothing(store: PictureStore, tmp_path: Path):
    (tmp_path / "secret.png").write_bytes(b"x")
    for name in ("../secret", "", "a" * 31, "A" * 32, "g" * 32, "../" + "0" * 29):
        assert store.path(name) is None


def test_a_damaged_picture_is_made_again(store: PictureStore):
    store.put("0" * 32, torch.zeros(8, 8, 3), blurred=False)
    (store.folder / f"{'0' * 32}.png").write_bytes(b"not a picture")
    assert store.find("0" * 32) is None


def test_large_pictures_have_a_thumbnail_and_old_ones_go(tmp_path: Path):
    store = PictureStore(tmp_path, limit=2)
    for index in range(3):
        store.put(f"{index:032x}", torch.zeros(400, 500, 3), blurred=False)
        path = store.path(f"{index:032x}")
        os.utime(path, (1000 + index, 1000 + index))
    assert store.path("0" * 32, small=True).suffix == ".jpg"
    with Image.open(store.path("0" * 32, small=True)) as small:
        assert max(small.size) == 384
    store.find("0" * 32)  # counts as used now
    store.tidy()
    assert [store.path(f"{index:032x}") is not None for index in range(3)] == [True, False, True]
    assert len(list(tmp_path.iterdir())) == 4


def test_a_full_folder_says_so(tmp_path: Path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(AttuneError, match="cannot be kept"):
        PictureStore(tmp_path / "file").put("0" * 32, torch.zeros(8, 8, 3), blurred=False)


def test_every_ingredient_names_another_picture():
    common = {"text": "t", "size": [4, 8, 8]}
    names = {
        picture_name("m", "p", 1, common),
        picture_name("n", "p", 1, common),
        picture_name("m", "q", 1, common),
        picture_name("m", "p", 2, common),
        picture_name("m", "p", 1, {**common, "size": [4, 8, 9]}),
    }
    assert len(names) == 5 and picture_name("m", "p", 1, dict(reversed(common.items()))) in names


def test_only_missing_pictures_are_drawn_and_each_once(sides):
    names = [{(p, s): f"{side}{p}{s}" for p in PROMPTS for s in range(10)} for side in "ab"]
    found = {name: None for side in names for name in side.values()}
    found["aa cat0"] = sides[0][0]
    jobs = list(_missing(setup_of(seeds=list(range(10))), names, found))
    assert jobs[0] == (0, "a cat", [1, 2, 3, 4, 5, 6, 7, 8])
    assert jobs[1] == (0, "a cat", [9])
    assert jobs[2] == (1, "a cat", [0, 1, 2, 3, 4, 5, 6, 7])
    assert sum(len(seeds) for _, _, seeds in jobs) == 59
    assert len(list(_missing(setup_of(seeds=[0]), [names[0], names[0]], found))) == 2


@pytest.mark.parametrize(("sampler", "most"), [("euler", 4), ("euler_ancestral", 1), ("dpmpp_2m_sde", 1), ("x", 1)])
def test_noise_of_a_sampler_does_not_depend_on_what_is_missing(sides, sampler: str, most: int):
    """Where only one side lacks pictures, batches would differ between the sides, and so would their noise."""
    setup = setup_of(settings=SamplingSettings(2, 1.0, sampler, "normal"))
    names = [{(p, s): f"{side}{p}{s}" for p in PROMPTS for s in SEEDS} for side in "ab"]
    found = {name: sides[0][0] if name.startswith("aa cat") else None for side in names for name in side.values()}
    found["aa cat6"] = None
    jobs = list(_missing(setup, names, found))
    assert max(len(seeds) for _, _, seeds in jobs) == most
    assert sum(len(seeds) for _, _, seeds in jobs) == 24 - 3


# ---- tests ----


def test_sides_are_drawn_by_the_seed_and_nothing_else(sides):
    left = {pair.key: pair.a_is_left for pair in person_test(sides).pairs}
    assert 2 <= sum(left.values()) <= 10
    assert {pair.key: pair.a_is_left for pair in person_test(sides).pairs} == left
    other = make_test(setup_of(), replace(PERSON, side_seed=1), ["1", "2"], sides)
    assert {pair.key: pair.a_is_left for pair in other.pairs} != left
    assert [pair.key for pair in other.pairs] != [pair.key for pair in person_test(sides).pairs]
    fewer = make_test(setup_of(prompts=PROMPTS[:2]), PERSON, ["1", "2"], [side[:8] for side in sides])
    assert all(left[pair.key] == pair.a_is_left for pair in fewer.pairs)


def test_the_order_by_prompt_is_the_order_of_the_pictures(sides):
    test = person_test(sides)
    ordered = [test.pairs[index] for index in test.by_prompt]
    assert [(pair.prompt, pair.seed) for pair in ordered] == [(prompt, seed) for prompt in PROMPTS for seed in SEEDS]
    assert [pair.a for pair in ordered] == [picture.name for picture in sides[0]]
    assert [pair.prompt for pair in test.pairs] != [pair.prompt for pair in ordered]


def test_a_test_survives_its_file(ballots: Ballots, sides):
    test = person_test(sides)
    assert ballots.test(ballots.add(test)) == test
    for name in ("0" * 32, "../attune", ""):
        with pytest.raises(UnknownTest, match="Press Run"):
            ballots.test(name)
    (ballots.folder / f"{'1' * 32}.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UnknownTest, match="damaged"):
        ballots.test("1" * 32)


def test_the_page_is_told_nothing_of_the_sides(ballots: Ballots, sides):
    """Both ways of wiring the models give the same message, down to the order."""
    one = ballots.shown(ballots.add(person_test(sides)))
    swapped = make_test(setup_of(names=("tuned", "base")), PERSON, ["2", "1"], sides[::-1])
    other = ballots.shown(ballots.add(swapped))
    assert one.pop("test") != other.pop("test")
    assert one == other
    assert set(one["pairs"][0]) == {"key", "prompt", "left", "right", "width", "height", "choice", "made"}


def test_votes_are_kept_undone_and_found_by_other_tests(ballots: Ballots, sides):
    test = person_test(sides)
    name = ballots.add(test)
    first, second, third = test.open_pairs[:3]
    before = ballots.revision()
    ballots.vote(name, first.key, "left")
    ballots.vote(name, second.key, "tie")
    ballots.vote(name, third.key, "right")
    assert ballots.revision() != before
    expected = {
        first.key: "a" if first.a_is_left else "b",
        second.key: "tie",
        third.key: "b" if third.a_is_left else "a",
    }
    assert {key: choice for key, (choice, _) in ballots.votes(test.pairs).items()} == expected
    shown = {pair["key"]: pair for pair in ballots.shown(name)["pairs"]}
    assert [shown[pair.key]["choice"] for pair in (first, second, third)] == ["left", "tie", "right"]
    assert shown[first.key]["made"] < shown[second.key]["made"] < shown[third.key]["made"]

    other_sides = make_test(setup_of(), replace(PERSON, side_seed=5), ["1", "2"], sides)
    assert ballots.choices(other_sides) == ballots.choices(test)
    swapped = make_test(setup_of(), PERSON, ["2", "1"], sides[::-1])
    turned = {"a": "b", "b": "a", "tie": "tie"}
    assert ballots.choices(swapped) == {key: turned[choice] for key, choice in ballots.choices(test).items()}

    ballots.vote(name, third.key, "left")
    assert ballots.choices(test)[third.key] == ("a" if third.a_is_left else "b")
    ballots.vote(name, third.key, None)
    assert third.key not in ballots.choices(test)
    ballots.forget(name)
    assert ballots.votes(test.pairs) == {}


def test_votes_belong_to_models_prompt_seed_and_pixels():
    key = pair_key(("m", "n"), ("x", "y"), "p", 1)
    assert pair_key(("n", "m"), ("y", "x"), "p", 1) == key
    others = [
        pair_key(("m", "o"), ("x", "y"), "p", 1), pair_key(("m", "n"), ("x", "z"), "p", 1),
        pair_key(("m", "n"), ("y", "x"), "p", 1), pair_key(("m", "n"), ("x", "y"), "q", 1),
        pair_key(("m", "n"), ("x", "y"), "p", 2),
    ]  # fmt: skip
    assert len({key, *others}) == 6


def test_votes_that_are_refused(ballots: Ballots, sides):
    test = person_test(sides)
    name = ballots.add(test)
    with pytest.raises(AttuneError, match="'up' is no side"):
        ballots.vote(name, test.open_pairs[0].key, "up")
    with pytest.raises(UnknownTest, match="no such pair"):
        ballots.vote(name, "0" * 32, "left")
    alike = next(pair for pair in test.pairs if pair.alike)
    with pytest.raises(UnknownTest, match="no such pair"):
        ballots.vote(name, alike.key, "left")
    by_reward = make_test(setup_of(), REWARD, ["1", "2"], sides)
    with pytest.raises(AttuneError, match="a reward votes"):
        ballots.vote(ballots.add(by_reward), by_reward.open_pairs[0].key, "left")


def test_what_stands_without_a_person(ballots: Ballots, sides):
    """One pair of twelve is alike, which is a tie that nobody has to give."""
    test = person_test(sides)
    standing = ballots.standing(test)
    assert (standing["votes"], standing["ties"], standing["missing"], standing["pairs"]) == (1, 1, 11, 12)
    assert standing["interval_kind"] == "always valid"
    result = ballots.result(ballots.add(test))
    assert [pair["choice"] for pair in result["pairs"]] == ["tie"]
    assert "11 of 12 votes are missing" in summary(standing)
    assert standing["still_needed"] is None and "too early to say" in summary(standing)


def test_a_test_without_any_vote_has_no_rate(ballots: Ballots, sides):
    test = make_test(setup_of(prompts=PROMPTS[1:]), PERSON, ["1", "2"], [side[4:] for side in sides])
    standing = ballots.standing(test)
    assert standing["win_rate"] is None and standing["missing"] == 8
    assert summary(standing) == "8 of 8 votes are missing."
    json.dumps(standing, allow_nan=False)


# ---- rewards ----


def test_a_reward_votes(ballots: Ballots, sides):
    test = make_test(setup_of(), REWARD, ["1", "2"], sides)
    standing = ballots.standing(test)
    assert (standing["a"], standing["b"], standing["ties"], standing["missing"]) == (1, 10, 1, 0)
    # 10 : 1 would be clear if this number of votes had been decided on beforehand, which nobody can promise.
    assert standing["decision"] == "open" and standing["still_needed"] > 0 and standing["fixed_interval"][0] > 0.5
    assert standing["win_rate"] == pytest.approx(10.5 / 12)
    assert "tuned is preferred in 88 % of 12 votes" in summary(standing)
    choices = [entry["choice"] for entry in ballots.result(ballots.add(test))["pairs"]]
    assert choices == ["tie", *["b"] * 10, "a"]


def test_the_margin_makes_ties_and_costs_are_turned(sides):
    assert preferred(0.0, 0.1, 0.1) == "tie" == preferred(1.0, 1.0, 0.0)
    assert preferred(0.0, 0.11, 0.1) == "b" and preferred(0.11, 0.0, 0.1) == "a"
    assert set(reward_choices(setup_of(), sides, 0.2)) == {"tie"}

    class Cost(StatisticReward):
        higher_is_better = False

    cost = Cost("brightness", "as high as possible", 0.5)
    assert reward_choices(setup_of(reward=cost), sides, 0.0) == ["tie", *["a"] * 10, "b"]
    for margin in (-0.1, float("nan")):
        with pytest.raises(AttuneError, match="least_margin"):
            reward_choices(setup_of(), sides, margin)


def test_pairs_that_a_gate_holds_back_are_not_voted_on(ballots: Ballots, sides):
    held = [list(side) for side in sides]
    held[1][3] = replace(held[1][3], blurred=True)
    for judging in (REWARD, PERSON):
        test = make_test(setup_of(), judging, ["1", "2"], held)
        standing = ballots.standing(test)
        assert standing["blurred"] == 1 and standing["votes"] + standing["missing"] == 11
        assert ballots.shown(ballots.add(test))["blurred"] == 1
        assert len(ballots.shown(test.id)["pairs"]) == 10
    assert reward_choices(setup_of(), held, 0.0)[3] is None


class Watched(StatisticReward):
    """Brightness that keeps what it was shown."""

    def __init__(self, **attributes) -> None:
        super().__init__("brightness", "as high as possible", 0.5)
        self.seen: list[tuple[int, tuple[str, ...], tuple[str, ...]]] = []
        vars(self).update(attributes)

    def __call__(self, images, prompts, context=None):
        self.seen.append((len(images), tuple(prompts), context.extra[BATCH_PROMPTS] if context else ()))
        return super().__call__(images, prompts, context)


ALL = ["tie", *["b"] * 10, "a"]


def test_a_reward_is_shown_few_pictures_at_a_time(sides):
    """Hundreds of large pictures at once would not fit into memory."""
    reward, told = Watched(), []
    found = reward_choices(setup_of(reward=reward), sides, 0.0, progress=lambda count: lambda: told.append(count))
    assert found == ALL and [count for count, _, _ in reward.seen] == [8, 8, 8]
    assert told == [24] * 24
    assert sum((prompts for _, prompts, _ in reward.seen), ()) == tuple(p for p in PROMPTS for _ in SEEDS) * 2


def test_a_reward_that_compares_is_shown_what_it_compares(sides):
    pictures = Watched(compares_batch=True)
    assert reward_choices(setup_of(reward=pictures), sides, 0.0) == ALL
    assert [count for count, _, _ in pictures.seen] == [24]
    assert reward_choices(setup_of(reward=pictures), sides, 0.0, {2}) == ALL, "one pair needs the others beside it"
    prompts = Watched(compares_batch=True, compares_pictures=False)
    assert reward_choices(setup_of(reward=prompts), sides, 0.0) == ALL
    assert [(count, len(beside)) for count, _, beside in prompts.seen] == [(8, 24)] * 3


def test_only_pairs_that_a_person_decided_are_scored(ballots: Ballots, sides):
    test = person_test(sides)
    name = ballots.add(test)
    for reward in (Watched(), Watched(compares_batch=True)):
        setup = setup_of(reward=reward)
        assert reward_choices(setup, sides, 0.0, preferences(test, ballots.choices(test))) == [None] * 12
        assert reward.seen == []
    ordered = [test.pairs[index] for index in test.by_prompt]
    for place, side in ((1, "tie"), (5, "left"), (11, "right")):
        ballots.vote(name, ordered[place].key, side)
    assert preferences(test, ballots.choices(test)) == {5, 11}
    reward = Watched()
    found = reward_choices(setup_of(reward=reward), sides, 0.0, {5, 11})
    assert found == [choice if place in (5, 11) else None for place, choice in enumerate(ALL)]
    assert reward.seen == [(4, ("a dog", "<b>a fox</b>") * 2, ())]


def test_agreement_of_person_and_reward(ballots: Ballots, sides):
    test = person_test(sides)
    by_reward = reward_choices(setup_of(), sides, 0.0)
    assert agreement(test, ballots.choices(test), by_reward) is None
    name = ballots.add(test)
    ordered = [test.pairs[index] for index in test.by_prompt]
    for pair, wanted in zip(ordered[1:5], ["b", "b", "a", "tie"], strict=True):
        side = "tie" if wanted == "tie" else "left" if (wanted == "a") == pair.a_is_left else "right"
        ballots.vote(name, pair.key, side)
    assert agreement(test, ballots.choices(test), by_reward) == pytest.approx(2 / 3)


def test_the_grid_hides_what_nobody_voted_on(ballots: Ballots, sides):
    test = person_test(sides)
    report = ballots.standing(test)
    hidden = [None] * 12
    plain = result_grid(report, PROMPTS, SEEDS, hidden, sides)
    turned = result_grid(report, PROMPTS, SEEDS, hidden, sides[::-1])
    assert np.array_equal(np.asarray(plain), np.asarray(turned)), "the picture tells the sides apart"
    decided = result_grid(report, PROMPTS, SEEDS, ["tie", "b", "a", *[None] * 9], sides)
    assert not np.array_equal(np.asarray(plain), np.asarray(decided))
    assert plain.size == decided.size


def test_large_grids_stay_pictures(ballots: Ballots, sides):
    prompts, seeds = [f"prompt {index}" for index in range(60)], list(range(30))
    many = [[side[index % 12] for index in range(1800)] for side in sides]
    grid = result_grid(ballots.standing(person_test(sides)), prompts, seeds, [None] * 1800, many)
    assert grid.width < 4000 and grid.height < 9000
