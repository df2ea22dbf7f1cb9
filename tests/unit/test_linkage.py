"""Recognition by an embedding: who takes part, that halves have nothing in common, how often strangers are found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from attune.nodes.preferences.decisions import comparisons_of
from attune.nodes.preferences.linkage import (
    LEAST_QUESTIONS,
    MOST_QUESTIONS,
    Linkage,
    halves_of,
    linkage,
    linkage_words,
    recognised,
)
from attune.nodes.preferences.ordering import questions_of
from attune.nodes.preferences.pictures import PictureFolder, picture_of
from attune.nodes.preferences.records import Answer, Profile, Question
from attune.nodes.preferences.store import PreferenceStore
from attune.nodes.rewards.load import load_reward
from attune.nodes.store import Store
from attune.training.preference.set_encoder import SetEncoder, SetEncoderConfig

DEMO = Path(__file__).resolve().parents[2] / "workflows" / "demo"


@pytest.fixture(scope="module")
def eyes():
    return load_reward(DEMO / "attune_demo_reward.safetensors", "cpu")


@pytest.fixture(scope="module")
def encoder(eyes) -> SetEncoder:
    torch.manual_seed(3)
    made = SetEncoder(SetEncoderConfig(tokens=2, width=8, hidden=32), eyes.features_id)
    return made.eval().requires_grad_(False)


@pytest.fixture
def store(tmp_path: Path) -> PreferenceStore:
    return PreferenceStore(Store(tmp_path / "attune.sqlite3"), PictureFolder(tmp_path / "pictures"))


def drawn(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Pictures of random colours, uint8 [16, 16, 3]."""
    colours = rng.integers(0, 196, (count, 1, 1, 3))
    return list((colours + rng.integers(0, 60, (count, 16, 16, 3))).astype(np.uint8))


def put_pairs(store: PreferenceStore, name: str, pairs: Sequence[Sequence[np.ndarray]]) -> Profile:
    """Choices of a person who prefers the first picture of each pair."""
    profile = store.create(name)
    questions = [Question("pair", "a ball", tuple(picture_of(part) for part in two)) for two in pairs]
    pixels = {picture_of(part).hash: part for two in pairs for part in two}
    store.ask(profile.key, questions, pixels)
    store.decide_all(
        profile.key, [(one.key, Answer("chosen", picture_of(two[0]).hash))
                      for one, two in zip(questions, pairs, strict=True)]
    )  # fmt: skip
    return store.profile(profile.key)


def put_stars(store: PreferenceStore, name: str, rng: np.random.Generator, *, questions: int, pictures: int) -> None:
    """Of a person who gives stars by a coin."""
    profile = store.create(name)
    for _ in range(questions):
        parts = drawn(rng, pictures)
        question = Question("stars", "a ball", tuple(picture_of(part) for part in parts))
        store.ask(profile.key, [question], {picture_of(part).hash: part for part in parts})
        stars = {key: 1 + int(place) % 5 for key, place in zip(question.hashes, rng.permutation(pictures), strict=True)}
        store.decide(profile.key, question.key, Answer("stars", stars=stars))


def put_strangers(store: PreferenceStore, people: int, *, questions: int = LEAST_QUESTIONS) -> None:
    """Who chose by a coin between pictures of their own."""
    for number in range(people):
        rng = np.random.default_rng(100 + number)
        put_pairs(store, f"stranger {number:02}", [drawn(rng, 2) for _ in range(questions)])


def attacked(store, encoder, eyes, progress=lambda done, total: None):
    return recognised(store, encoder, eyes, progress)


def choices(store: PreferenceStore, profile: Profile):
    return comparisons_of(store.answered(profile.key, most=500)).preferences


def names(part) -> set[str]:
    return {picture.hash for two in part for picture in (two.preferred, two.other)}


def test_linkage_by_hand():
    first = torch.tensor([[[0.0, 0.0]], [[5.0, 0.0]], [[0.0, 5.0]]])
    assert linkage(first, first + 0.1) == Linkage(3, 3, 0)
    swapped = first[[1, 0, 2]]
    assert linkage(first, swapped, left_out=2) == Linkage(3, 1, 2)
    assert "at least two profiles with 8 answered questions" in linkage_words(None, left_out=1)
    assert "says little" in linkage_words(Linkage(3, 3, 0), left_out=0)
    assert "give away" in linkage_words(Linkage(20, 15, 1), left_out=1)


@pytest.mark.parametrize("people", [5, 6, 7, 20, 49, 100])
def test_words_before_sharing_are_no_milder_than_what_was_found(people: int):
    """By chance one is recognised, however many take part: only then somebody would hardly know."""
    for found in range(people + 1):
        told = linkage_words(Linkage(people, found, 0), left_out=0)
        assert ("hardly" in told) == (found <= 1), found
        assert ("with care" in told) == (found in (2, 3)), found
        assert ("give away" in told) == (found > 3), found


def test_strangers_are_not_recognised_and_the_same_people_are():
    generator = torch.Generator().manual_seed(4)
    people = torch.randn(40, 2, 8, generator=generator)
    noisy = [people + 0.1 * torch.randn(40, 2, 8, generator=generator) for _ in range(2)]
    assert linkage(*noisy).share > 0.9
    assert linkage(people, torch.randn(40, 2, 8, generator=generator)).share < 0.2


def test_halves_have_no_question_and_no_picture_in_common(store):
    rng = np.random.default_rng(0)
    first = drawn(rng, 4)
    # Three questions about one picture and nine about others; twelve of twenty-four or fewer pictures each.
    pairs = [(first[0], other) for other in first[1:]] + [drawn(rng, 2) for _ in range(9)]
    found = choices(store, put_pairs(store, "a", pairs))
    one, other = halves_of(found)
    assert not names(one) & names(other) and not {two.group for two in one} & {two.group for two in other}
    assert len(questions_of(one)) == len(questions_of(other)) == 6
    assert names(one) | names(other) == names(found)


def test_who_has_too_few_questions_takes_no_part(store, encoder, eyes):
    for number in range(4):
        put_stars(store, f"person {number}", np.random.default_rng(number), questions=1, pictures=9)
    assert attacked(store, encoder, eyes) == (None, 4), "many comparisons, but of one question each"
    rng = np.random.default_rng(9)
    put_pairs(store, "seven", [drawn(rng, 2) for _ in range(LEAST_QUESTIONS - 1)])
    shared = drawn(rng, 6)
    put_pairs(store, "one pool", [(shared[a], shared[b]) for a in range(6) for b in range(a)])
    put_strangers(store, 2)
    found, left_out = attacked(store, encoder, eyes)
    assert (found.people, found.left_out, left_out) == (2, 6, 6)
    assert "6 profiles without 8 answered questions, not all about the same pictures, took no part" in linkage_words(
        found, left_out=left_out
    )


def test_strangers_are_recognised_about_by_chance(store, encoder, eyes):
    for number in range(16):
        put_stars(store, f"{number:02}", np.random.default_rng(number), questions=LEAST_QUESTIONS, pictures=6)
    found, left_out = attacked(store, encoder, eyes)
    assert (found.people, left_out) == (16, 0)
    assert found.found <= 4, "one of 16 is expected; five or more happen one time in 270"


def test_people_of_opposite_tastes_are_recognised(store, encoder, eyes):
    rng = np.random.default_rng(1)
    for name, better in (("red", 0), ("green", 1), ("blue", 2)):
        pairs = []
        for _ in range(LEAST_QUESTIONS):
            two = rng.integers(0, 60, (2, 16, 16, 3), dtype=np.uint8)
            two[0, ..., better] += 190
            two[1, ..., (better + 1) % 3] += 190
            pairs.append(two)
        put_pairs(store, name, pairs)
    assert attacked(store, encoder, eyes)[0] == Linkage(3, 3, 0)


def test_progress_rises_over_all_people_and_stops(store, encoder, eyes):
    put_strangers(store, 3)
    steps: list[tuple[int, int]] = []
    attacked(store, encoder, eyes, lambda done, total: steps.append((done, total)))
    done = [step for step, _ in steps]
    assert done == sorted(done) and len(set(done)) >= 6 and {total for _, total in steps} == {300}

    def stop(done: int, total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        attacked(store, encoder, eyes, stop)


def test_pictures_that_are_gone_take_their_questions_along(store, encoder, eyes):
    put_strangers(store, 2)
    profile = store.summaries()[0].profile
    store.pictures.remove([store.answered(profile.key, most=1)[0].question.hashes[0]])
    assert attacked(store, encoder, eyes) == (None, 1)


def test_only_the_newest_questions_count(store, encoder, eyes):
    rng = np.random.default_rng(2)
    old = drawn(rng, 2)
    profile = put_pairs(store, "a", [old])
    put_pairs(store, "a", [drawn(rng, 2) for _ in range(MOST_QUESTIONS)])
    put_strangers(store, 1)
    store.pictures.path(picture_of(old[0]).hash).write_bytes(b"damaged")
    assert len(choices(store, profile)) == MOST_QUESTIONS + 1
    assert attacked(store, encoder, eyes)[0].people == 2
