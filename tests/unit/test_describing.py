"""Which of a profile's choices a vision-language model is shown, and when it is asked again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attune.nodes.preferences.describing import Asked, describe_profile, nobodys, report
from attune.nodes.preferences.embedding import PreferenceEmbedding, pack
from attune.nodes.preferences.ordering import different_first
from attune.nodes.preferences.pairs import TooFew
from attune.nodes.preferences.pictures import PictureFolder, to_image
from attune.nodes.preferences.records import Answer, Embedding, Profile
from attune.nodes.preferences.store import PreferenceStore
from attune.nodes.store import Store
from attune.tests.tiny_chat_vlms import write_tiny_qwen
from attune.tests.unit.test_profile_pairs import decide, first, pixels_of, tie
from attune.training.vlm_profile import Description, SeenPair, VlmProfiler, load_profiler

TOKENS = 5


@pytest.fixture(scope="module")
def profiler(tmp_path_factory) -> VlmProfiler:
    return load_profiler(write_tiny_qwen(tmp_path_factory.mktemp("vlm") / "tiny"))


class Writer:
    """Has the model write, and notes what it was shown."""

    def __init__(self, profiler: VlmProfiler) -> None:
        self.profiler, self.seen = profiler, []

    def __call__(self, pairs: Sequence[SeenPair]) -> Description:
        self.seen.append(list(pairs))
        return self.profiler.describe(pairs, max_new_tokens=TOKENS)


@pytest.fixture
def write(profiler: VlmProfiler) -> Writer:
    return Writer(profiler)


@pytest.fixture
def store(tmp_path: Path) -> PreferenceStore:
    return PreferenceStore(Store(tmp_path / "attune.sqlite3"), PictureFolder(tmp_path / "pictures"))


@pytest.fixture
def profile(store: PreferenceStore) -> Profile:
    return store.create("my taste")


@pytest.fixture
def asked(profiler: VlmProfiler) -> Asked:
    return Asked(2, 1, TOKENS, profiler.encoder_id, profiler.shape)


# ---- which pairs -----------------------------------------------------------------------------------------------------


def test_the_newest_of_every_prompt_comes_first(store, profile, asked, write):
    for number, prompt in enumerate(("a cat", "a dog", "A  cat", "a cat", "a rose")):
        decide(store, profile, (10 * number, 10 * number + 1), first, prompt=prompt)
    found = describe_profile(store, profile, replace(asked, pairs=5), write)
    (seen,) = write.seen
    assert [pair.caption for pair in seen] == ["a rose", "a cat", "a dog", "A  cat", "a cat"]
    shown = [(pair.preferred, pair.other) for pair in seen]
    for (preferred, other), number in zip(shown, (40, 30, 10, 20, 0), strict=True):
        assert torch.equal(preferred, to_image(pixels_of(number)))
        assert torch.equal(other, to_image(pixels_of(number + 1)))
    assert (found.pairs, found.preference.parts[0][0].choices) == (5, 5)


def test_a_question_of_many_pictures_is_one_question(store, profile, asked, write):
    """The best of three holds two comparisons; the second comes after another question about the same prompt."""
    decide(store, profile, (1, 2), first)
    decide(store, profile, (3, 4, 5), first)
    describe_profile(store, profile, replace(asked, pairs=3), write)
    assert [round(pair.preferred.mean().item(), 6) for pair in write.seen[0]] == [
        round(to_image(pixels_of(number)).mean().item(), 6) for number in (3, 1, 3)
    ]
    assert different_first([]) == []


def test_older_choices_are_looked_through_for_other_prompts(store, profile, asked, write):
    decide(store, profile, (1, 2), first, prompt="a dog")
    for number in range(3):
        decide(store, profile, (10 + 2 * number, 11 + 2 * number), first)
    describe_profile(store, profile, asked, write)
    assert [pair.caption for pair in write.seen[0]] == ["a cat", "a dog"]


def test_pairs_whose_pictures_are_gone_are_passed_over(store, profile, asked, write):
    questions = [decide(store, profile, (2 * number, 2 * number + 1), first) for number in range(3)]
    store.pictures.remove([questions[2].hashes[1]])
    describe_profile(store, profile, asked, write)
    assert torch.equal(write.seen[0][0].preferred, to_image(pixels_of(2)))
    with pytest.raises(TooFew, match=r"holds 2 pairs .*; 3 are needed \(not counted: 1 whose pictures are gone\)"):
        describe_profile(store, profile, replace(asked, pairs=3), write)


def test_too_few_say_why_and_ask_nobody(store, profile, asked, write):
    with pytest.raises(TooFew, match="holds 0 pairs of a better and a worse picture; 2 are needed"):
        describe_profile(store, profile, asked, write)
    decide(store, profile, (1, 2), tie)
    decide(store, profile, (3, 4), lambda asked: Answer("skip"))
    decide(store, profile, (5, 6), first)
    with pytest.raises(TooFew, match=r"holds 1 pair .*\(not counted: 1 tie, 1 skipped\)"):
        describe_profile(store, profile, asked, write)
    assert write.seen == []
    empty = nobodys(profile, asked)
    assert empty.acting == () and empty.parts[0][0].tokens.shape == (3, 64)


# ---- what is kept ----------------------------------------------------------------------------------------------------


def test_the_model_is_asked_again_only_if_something_has_changed(store, profile, asked, write):
    for number in range(2):
        decide(store, profile, (2 * number, 2 * number + 1), first)
    fresh = describe_profile(store, profile, asked, write)
    again = describe_profile(store, profile, asked, write)
    assert len(write.seen) == 1 and fresh.text == again.text != ""
    assert torch.equal(fresh.preference.parts[0][0].tokens, again.preference.parts[0][0].tokens)
    assert (again.fresh, again.pairs, again.preference.title) == (None, 2, "my taste")
    for changed in (
        {"least_stars": 2}, {"most_tokens": 65}, {"encoder_id": "vlm:test:v1:bf16"}
    ):  # fmt: skip
        describe_profile(store, profile, replace(asked, **changed), write)
    assert len(write.seen) == 4
    decide(store, profile, (8, 9), first)
    newer = describe_profile(store, profile, asked, write)
    assert len(write.seen) == 5 and newer.profile.revision > fresh.profile.revision
    assert not torch.equal(newer.preference.parts[0][0].tokens, fresh.preference.parts[0][0].tokens)


def test_what_is_cancelled_is_not_kept(store, profile, asked, write):
    decide(store, profile, (1, 2), first)
    decide(store, profile, (3, 4), first)

    def cancelled(pairs: Sequence[SeenPair]) -> Description:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        describe_profile(store, profile, asked, cancelled)
    assert store.embedding(profile.key, asked.kept_as) is None


def test_an_imported_taste_is_used_while_no_choice_counts(store, asked, write):
    imported = PreferenceEmbedding(torch.ones(3, 64), asked.encoder_id, choices=4, text="Of a friend.")
    profile = store.adopt("my taste", [imported])

    def is_the_import() -> bool:
        found = describe_profile(store, profile, asked, write)
        return found.imported and found.text == "Of a friend."

    assert is_the_import()
    told = report(describe_profile(store, profile, asked, write), "tiny")
    assert told == "The taste of my taste, as it was imported (made of 4 pairs)."
    decide(store, profile, (5, 6), lambda asked: Answer("skip"))
    decide(store, profile, (7, 8), tie)
    assert is_the_import() and write.seen == []
    decide(store, profile, (1, 2), first)
    with pytest.raises(TooFew, match="holds 1 pair"):
        describe_profile(store, profile, asked, write)
    decide(store, profile, (3, 4), first)
    assert not describe_profile(store, profile, asked, write).imported
    store.undo(profile.key)
    store.undo(profile.key)
    assert is_the_import()


def test_what_was_written_of_choices_is_never_called_imported(store, profile, asked, write):
    """Whatever stands under the encoder's plain name did not come from a file."""
    stale = PreferenceEmbedding(torch.ones(3, 64), asked.encoder_id, choices=4)
    store.put_embedding(profile.key, Embedding(asked.encoder_id, profile.revision, pack(stale)))
    with pytest.raises(TooFew):
        describe_profile(store, profile, asked, write)


def test_the_report_says_whether_the_text_came_to_its_end(store, profile, asked, write):
    decide(store, profile, (1, 2), first)
    decide(store, profile, (3, 4), first)
    cut = describe_profile(store, profile, asked, write)
    assert report(cut, "tiny").startswith(
        f"The taste of my taste, from 2 pairs: tiny wrote {TOKENS} tokens. It was cut"
    )
    whole = replace(cut, fresh=replace(cut.fresh, complete=True))
    assert report(whole, "tiny") == f"The taste of my taste, from 2 pairs: tiny wrote {TOKENS} tokens."
    kept = describe_profile(store, profile, asked, write)
    assert "as tiny wrote it before: no choice and no setting has changed" in report(kept, "tiny")


def test_what_an_adapter_reads_is_what_the_model_thought(store, profile, asked, write):
    for number, prompt in enumerate(("a cat", "a dog")):
        decide(store, profile, (2 * number, 2 * number + 1), first, prompt=prompt)
    found = describe_profile(store, profile, asked, write)
    pairs = [
        SeenPair(prompt, to_image(pixels_of(number)), to_image(pixels_of(number + 1)))
        for prompt, number in (("a dog", 2), ("a cat", 0))
    ]
    expected = write.profiler.describe(pairs, max_new_tokens=TOKENS)
    assert torch.equal(found.preference.parts[0][0].tokens, expected.tokens) and found.text == expected.profile
