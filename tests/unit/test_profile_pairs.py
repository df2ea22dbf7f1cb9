"""From a profile to pairs for training, which profile is meant, and how a job file names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from attune.nodes.job_inputs import in_jobs, job_inputs
from attune.nodes.pair_drawing import MOST_DRAWN, DrawnPair, draw_pairs
from attune.nodes.preferences import pairs as profile_pairs
from attune.nodes.preferences.choosing import FIRST_NAME, choices, choose, words_of
from attune.nodes.preferences.pairs import ProfilePairs, TooFew, gather, load, report, sheet
from attune.nodes.preferences.pictures import PictureFolder, picture_of, to_image
from attune.nodes.preferences.records import Answer, PreferenceError, Profile, Question
from attune.nodes.preferences.store import PreferenceStore
from attune.nodes.store import Store
from attune.nodes.training.job_file import job_of
from attune.nodes.training.plan_dpo import image_pairs


@pytest.fixture
def store(tmp_path: Path) -> PreferenceStore:
    return PreferenceStore(Store(tmp_path / "attune.sqlite3"), PictureFolder(tmp_path / "pictures"))


@pytest.fixture
def profile(store: PreferenceStore) -> Profile:
    return store.create("my taste")


def pixels_of(number: int, width: int = 8) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (8, width, 3), dtype=np.uint8)


def decide(
    store: PreferenceStore, profile: Profile, numbers: tuple[int, ...], answer: Callable[[Question], Answer], *,
    prompt: str = "a cat", kind: str = "best", width: Callable[[int], int] = lambda number: 8,
) -> Question:  # fmt: skip
    """Ask about pictures of these numbers, and answer."""
    made = [pixels_of(number, width(number)) for number in numbers]
    pictures = [picture_of(pixels, seed=number) for number, pixels in zip(numbers, made, strict=True)]
    asked = Question(kind, prompt, tuple(pictures))
    store.ask(profile.key, [asked], {picture.hash: image for picture, image in zip(pictures, made, strict=True)})
    store.decide(profile.key, asked.key, answer(asked))
    return asked


def first(asked: Question) -> Answer:
    return Answer("chosen", asked.hashes[0])


def tie(asked: Question) -> Answer:
    return Answer("tie")


def found_in(store: PreferenceStore, profile: Profile, *, most: int = 0, least_stars: int = 1) -> ProfilePairs:
    return gather(store, profile, most=most, least_stars=least_stars)


def loaded_from(store: PreferenceStore, found: ProfilePairs, *, least: int = 1, caption: str = ""):
    return load(found, store.pictures, least=least, caption=caption, on_pair=lambda: None)


# ---- pairs ----


def test_choices_become_pairs_with_their_pictures_and_prompts(store, profile):
    """A pair, the best of three, a tie and a skipped one: three pairs, of which one picture is read once."""
    decide(store, profile, (1, 2), first)
    decide(store, profile, (3, 4, 5), lambda asked: Answer("chosen", asked.hashes[2]), prompt="a dog\nin  the rain")
    decide(store, profile, (6, 7), tie)
    decide(store, profile, (8, 9), lambda asked: Answer("skip"))
    found = found_in(store, profile)
    loaded = loaded_from(store, found)
    assert [pair.caption for pair in loaded.pairs] == ["a dog in the rain", "a dog in the rain", "a cat"]
    assert loaded.pairs[0].chosen is loaded.pairs[1].chosen
    for pair, (better, worse) in zip(loaded.pairs, [(5, 3), (5, 4), (1, 2)], strict=True):
        assert torch.equal(pair.chosen, to_image(pixels_of(better)))
        assert torch.equal(pair.rejected, to_image(pixels_of(worse)))
    told = report(found, loaded)
    assert told == "3 pairs of 2 prompts from 4 choices of my taste. Left out: 1 tie, 1 skipped."
    assert min(sheet(loaded, told).size) > 100


def test_the_newest_choices_come_first_and_older_ones_are_left_aside(store, profile, monkeypatch):
    monkeypatch.setattr(profile_pairs, "_PAGE", 3)
    for number in range(10):
        decide(store, profile, (2 * number, 2 * number + 1), first, prompt=f"prompt {number}")
    newest = found_in(store, profile, most=4)
    assert [comparison.prompt for comparison in newest.preferences] == [f"prompt {n}" for n in (9, 8, 7, 6)]
    assert newest.more and report(newest, loaded_from(store, newest)).endswith("Left out: older choices.")
    everything = found_in(store, profile)
    assert len(everything.preferences) == 10 and not everything.more
    assert not found_in(store, profile, most=10).more


def test_a_changed_mind_on_an_old_page_does_not_count(store, profile, monkeypatch):
    """The same two pictures first in a pair, long after in stars: the stars hold, whichever page the pair is on."""
    monkeypatch.setattr(profile_pairs, "_PAGE", 2)
    decide(store, profile, (1, 2), first)
    for number in range(5):
        decide(store, profile, (10 + 2 * number, 11 + 2 * number), first)
    decide(store, profile, (1, 2), lambda asked: Answer("stars", stars=dict(zip(asked.hashes, (2, 5), strict=True))),
           kind="stars")  # fmt: skip
    (about,) = [c for c in found_in(store, profile).preferences if {c.preferred.seed, c.other.seed} == {"1", "2"}]
    assert about.preferred.seed == "2"
    assert found_in(store, profile, least_stars=4).ties == 1


def test_what_cannot_be_learned_from_is_left_out_and_counted(store, profile):
    decide(store, profile, (1, 2), first)
    decide(store, profile, (3, 4), first, prompt="  ")
    decide(store, profile, (5, 6), first, width=lambda number: number + 3)
    gone = decide(store, profile, (7, 8), first)
    store.pictures.remove([gone.hashes[1]])
    found = found_in(store, profile)
    loaded = loaded_from(store, found)
    assert len(loaded.pairs) == 1
    assert loaded.left_out == {"without a prompt": 1, "of different sizes": 1, "whose pictures are gone": 1}
    assert "1 pair without a prompt, 1 pair of different sizes, 1 pair whose pictures are gone" in report(found, loaded)
    assert len(loaded_from(store, found, caption="a thing").pairs) == 2
    with pytest.raises(TooFew, match=r"gives 1 pair .* asks for 2.*Left out: 1 without a prompt"):
        loaded_from(store, found, least=2)


def test_too_few_choices_say_what_to_do(store, profile):
    with pytest.raises(TooFew, match=r"'my taste' holds no choices yet.*Choose Images"):
        found_in(store, profile)
    decide(store, profile, (1, 2), tie)
    decide(store, profile, (3, 4), lambda asked: Answer("skip"))
    with pytest.raises(TooFew, match=r"prefers no picture.*its 2 choices are 1 tie and 1 skipped"):
        found_in(store, profile)


def test_loading_can_be_cancelled(store, profile):
    decide(store, profile, (1, 2), first)
    with pytest.raises(KeyboardInterrupt):
        load(found_in(store, profile), store.pictures, least=1, caption="", on_pair=lambda: (_ for _ in ()).throw(
            KeyboardInterrupt))  # fmt: skip


def test_diffusion_dpo_takes_the_pairs_as_they_are(store, profile):
    for number in range(8):
        decide(store, profile, (2 * number, 2 * number + 1), first, prompt=f"prompt {number}")
    pairs = loaded_from(store, found_in(store, profile)).pairs
    taken = image_pairs(
        [pair.chosen[None] for pair in pairs], [pair.rejected[None] for pair in pairs],
        [pair.caption for pair in pairs], resolution=0,
    )  # fmt: skip
    assert [caption for _, _, caption in taken] == [f"prompt {number}" for number in range(7, -1, -1)]
    assert torch.equal(taken[0][0], to_image(pixels_of(14)))


def test_the_sheet_draws_a_dozen_of_many():
    drawn: list[int] = []

    def look(number: int) -> DrawnPair:
        drawn.append(number)
        return DrawnPair(torch.zeros(8, 8, 3), torch.ones(8, 4, 3), ("", "1"), f"prompt {number}")

    draw_pairs(range(100), "of many", look)
    assert len(drawn) == MOST_DRAWN and drawn[0] == 0 and drawn[-1] >= 90


# ---- which profile ----


def test_the_first_profile_is_made_where_it_is_used(store):
    assert choices(store) == [FIRST_NAME]
    found = choose(store, FIRST_NAME)
    assert found.name == FIRST_NAME and choose(store, FIRST_NAME.upper()) == found == choose(store, found.key)
    assert choose(store, FIRST_NAME, " another ").name == "another"
    assert choices(store) == ["another", FIRST_NAME]
    store.rename(found.key, "renamed")
    assert choices(store) == ["another", "renamed", FIRST_NAME]


def test_a_name_that_is_gone_is_not_made_silently(store, profile):
    with pytest.raises(PreferenceError, match=r"no profile 'Ann' any more.*There are: my taste\. .*new_name"):
        choose(store, "Ann")
    with pytest.raises(PreferenceError, match=r"key 0{32} is not on this computer"):
        choose(store, "0" * 32)
    assert store.names() == ["my taste"]


def test_a_profile_in_words(store, profile):
    assert words_of(store.summary(profile.key)) == "my taste: 0 choices."
    decide(store, profile, (1, 2), first)
    assert words_of(store.summary(profile.key)) == "my taste: 1 choice."
    decide(store, profile, (3, 4), tie)
    decide(store, profile, (5, 6), lambda asked: Answer("stars", stars={asked.hashes[0]: 3}), kind="stars")
    decide(store, profile, (7, 8), lambda asked: Answer("skip"))
    words = "my taste: 3 choices (1 tie, 1 by stars among them), 1 skipped, 1 waiting."
    assert words_of(store.summary(profile.key)) == words


# ---- job files ----


def test_a_job_puts_a_nodes_inputs_in_words_that_last():
    in_jobs("AttuneTestNode", lambda inputs: {**inputs, "profile": "key of " + inputs["profile"]})

    def fail(inputs):
        raise PreferenceError("the store is locked")

    in_jobs("AttuneTestNodeThatFails", fail)
    graph = {
        "a": {"class_type": "AttuneTestNode", "inputs": {"profile": "Ann", "wire": ["c", 0]}},
        "b": {"class_type": "AttuneTestNodeThatFails", "inputs": {"profile": "Bob"}},
        "c": {"class_type": "Other", "inputs": {"profile": "Cid"}},
        "t": {"class_type": "AttuneTrainLora", "inputs": {"x": ["a", 0], "y": ["b", 0]}},
    }
    kept = job_of(graph, "t", run="r", version="0")["graph"]
    assert kept["a"]["inputs"] == {"profile": "key of Ann", "wire": ["c", 0]}
    assert kept["b"]["inputs"] == {"profile": "Bob"} and kept["c"]["inputs"] == {"profile": "Cid"}
    assert graph["a"]["inputs"]["profile"] == "Ann", "the workflow itself stays"
    assert job_inputs("Other", {"x": 1}) == {"x": 1}
