"""Preferences: what is kept of choices, how a changed mind counts, and what a page may send."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from attune.nodes.picture_folder import PictureError
from attune.nodes.preferences import listing
from attune.nodes.preferences.decisions import comparisons_of
from attune.nodes.preferences.pictures import PictureFolder, picture_hash, picture_of, to_image, to_pixels
from attune.nodes.preferences.records import (
    Answer,
    Asked,
    Decision,
    Embedding,
    Picture,
    PreferenceError,
    Profile,
    Question,
    UnknownError,
)
from attune.nodes.preferences.store import PreferenceStore
from attune.nodes.store import Store
from attune.training.interfaces import AttuneError


def pixels_of(number: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)


def picture(number: int) -> Picture:
    return picture_of(pixels_of(number), seed=number)


def question(*numbers: int, kind: str = "best", prompt: str = "a cat") -> Question:
    return Question(kind, prompt, tuple(picture(number) for number in numbers))


def ask(store: PreferenceStore, key: str, *asked: Question) -> list[Asked]:
    numbers = range(60)
    pixels = {picture(number).hash: pixels_of(number) for number in numbers}
    return store.ask(key, asked, pixels)


def chosen(question: Question, place: int) -> Answer:
    return Answer("chosen", question.hashes[place])


@pytest.fixture
def store(tmp_path: Path) -> PreferenceStore:
    return PreferenceStore(Store(tmp_path / "attune.sqlite3"), PictureFolder(tmp_path / "pictures"))


@pytest.fixture
def profile(store: PreferenceStore) -> Profile:
    return store.create("my taste")


# ---- pictures ----


def test_a_picture_is_known_by_its_size_and_its_8_bit_pixels():
    pixels = pixels_of(1)
    assert picture_hash(pixels) == picture_hash(to_pixels(to_image(pixels))), "8 bits survive the host's floats"
    assert picture_hash(pixels) != picture_hash(pixels.reshape(4, 16, 3)), "the same bytes in another shape"
    changed = pixels.copy()
    changed[0, 0, 0] ^= 1
    assert picture_hash(pixels) != picture_hash(changed)
    assert picture_of(pixels.repeat(2, axis=1)).width == 16


def test_a_kept_picture_is_lossless_and_holds_nothing_else(tmp_path: Path):
    folder = PictureFolder(tmp_path / "pictures")
    name = folder.put(pixels_of(2))
    assert folder.put(pixels_of(2)) == name
    assert np.array_equal(folder.get(name), pixels_of(2))
    with Image.open(folder.path(name)) as opened:
        assert opened.format == "PNG" and opened.info == {}
    assert list(folder.names()) == [name]
    assert [file.name for file in (tmp_path / "pictures").rglob("*.partial")] == []
    folder.remove([name, name])
    assert not folder.holds(name) and list((tmp_path / "pictures").iterdir()) == []


@pytest.mark.parametrize("name", ["", "..", "../../secret", "a" * 63, "A" * 64, "a" * 64 + "\n", "g" * 64])
def test_only_hashes_name_pictures(tmp_path: Path, name: str):
    with pytest.raises(UnknownError, match="no such picture"):
        PictureFolder(tmp_path).read(name)


@pytest.mark.parametrize(
    ("damage", "said"),
    [(lambda file: file.write_bytes(b"no picture"), "cannot be read"),
     (lambda file: Image.fromarray(pixels_of(9)).save(file), "pixels have changed"),
     (lambda file: file.unlink(), "not there any more")],
)  # fmt: skip
def test_a_picture_that_is_not_what_was_judged_is_refused(tmp_path: Path, damage: Any, said: str):
    folder = PictureFolder(tmp_path)
    name = folder.put(pixels_of(3))
    damage(folder.path(name))
    with pytest.raises(UnknownError, match=said):
        folder.get(name)


@pytest.mark.parametrize("image", [torch.zeros(4, 4), torch.zeros(4, 0, 3), torch.zeros(4, 4, 2),
                                   torch.full((2, 2, 3), float("nan"))])  # fmt: skip
def test_what_is_no_picture_is_refused(image: torch.Tensor):
    with pytest.raises(PictureError, match=r"has the shape|not finite"):
        to_pixels(image)


def test_grey_and_transparent_pictures_become_rgb():
    grey = torch.rand(3, 5, 1)
    assert to_pixels(grey).shape == (3, 5, 3)
    assert np.array_equal(to_pixels(grey)[..., 0], to_pixels(grey)[..., 2])
    four = torch.rand(3, 5, 4)
    assert np.array_equal(to_pixels(four), to_pixels(four[..., :3]))


# ---- profiles ----


def test_a_name_is_one_profile_whatever_its_letters(store: PreferenceStore):
    first = store.create("  My\ttaste ")
    assert first.name == "My taste" and first.revision == 0
    assert store.create("MY TASTE") == first == store.find("my taste") == store.find(first.key)
    assert store.find("another") is None
    other = store.create("another")
    assert other.key != first.key and store.names() == ["another", "My taste"]


def test_the_stores_revision_changes_with_every_profile(store: PreferenceStore):
    seen = [store.revision()]
    first, second = store.create("first"), store.create("second")
    seen.append(store.revision())
    asked = question(1, 2)
    for profile in (first, second):
        ask(store, profile.key, asked)
    assert store.revision() == seen[-1], "asking is no change"
    store.decide(second.key, asked.key, Answer("tie"))
    seen.append(store.revision())
    store.delete(first.key)
    seen.append(store.revision())
    store.create("first")
    seen.append(store.revision())
    assert len(set(seen)) == len(seen)


def test_nothing_is_made_before_it_is_needed(store: PreferenceStore, tmp_path: Path):
    assert store.names() == [] and store.find("my taste") is None
    assert list(tmp_path.iterdir()) == []


def test_a_new_name_changes_neither_key_nor_revision(store: PreferenceStore, profile: Profile):
    store.create("taken")
    renamed = store.rename(profile.key, "Ännchen 💛")
    assert (renamed.key, renamed.name, renamed.revision) == (profile.key, "Ännchen 💛", 0)
    assert store.find("my taste") is None and store.find("ÄNNCHEN 💛") == renamed
    assert store.rename(profile.key, "ännchen 💛").name == "ännchen 💛", "its own name in other letters is free"
    with pytest.raises(PreferenceError, match="Another profile is called 'TAKEN'"):
        store.rename(profile.key, "TAKEN")
    assert store.profile(profile.key).name == "ännchen 💛"


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("my taste\u200b", "my taste"),
        ("my\u00ad ta\u2060ste\ufeff", "my taste"),
        ("\u202eetsat ym\u202c", "etsat ym"),
        ("\u2066my\u2069 \u200etaste", "my taste"),
        ("my\u200dtaste \u200c", "mytaste"),
        ("my \u200b taste", "my taste"),
        # Persian "I want", Hindi "ksha" in half forms, and a family: wrong or another picture without their joiners.
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("क्\u200dष", "क्\u200dष"),
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f468\u200d\U0001f469\u200d\U0001f467"),
        ("می\u200c\u200c\u202eخواهم\u200d", "میخواهم"),
        ("\u2764\ufe0f\u200d\U0001f525", "\u2764\ufe0f\u200d\U0001f525"),
    ],
)
def test_a_name_holds_nothing_that_nobody_sees(store: PreferenceStore, name: str, kept: str):
    """Two profiles that look alike would be taken for each other; a name turned around reads as another."""
    assert store.create(name).name == kept
    assert store.create(kept) == store.find(name) == store.create(name)


@pytest.mark.parametrize(
    "name",
    ["", " \n\t ", "x" * 61, "a" * 32, "half \ud800 letter", "\u200b", "\u202e \u200d", "\u3164 \u2800", "\u0301"],
)
def test_unusable_names(store: PreferenceStore, profile: Profile, name: str):
    for attempt in (lambda: store.create(name), lambda: store.rename(profile.key, name)):
        with pytest.raises(PreferenceError):
            attempt()
    assert store.names() == ["my taste"]


def test_an_unknown_profile_is_named_as_such(store: PreferenceStore):
    nobody = "0" * 32
    asked = question(1, 2)
    for attempt in (
        lambda: store.profile(nobody), lambda: store.summary(nobody), lambda: store.rename(nobody, "x"),
        lambda: store.delete(nobody), lambda: ask(store, nobody, asked), lambda: store.undo(nobody),
        lambda: store.decide(nobody, asked.key, Answer("tie")), lambda: store.embedding(nobody, "e"),
    ):  # fmt: skip
        with pytest.raises(UnknownError, match="Choose a profile"):
            attempt()


# ---- questions ----


def test_a_question_is_asked_once_whatever_the_order(store: PreferenceStore, profile: Profile):
    first, second = question(1, 2), question(2, 1)
    assert first.kind == "pair" and first.key == second.key
    assert question(1, 2, kind="stars").key != first.key, "stars are another question"
    (one,) = ask(store, profile.key, first)
    (other,) = ask(store, profile.key, second)
    assert one == other and one.question == first, "the order of the first time stays"
    assert one.open and one.decision is None
    assert store.summary(profile.key).waiting == 1
    assert store.profile(profile.key).revision == 0, "asking is no change of the taste"


def test_what_is_asked_comes_back_as_it_was(store: PreferenceStore, profile: Profile):
    asked = [
        question(1, 2, 3, prompt="eine Rose\nim Wind 🌹"),
        question(4, kind="stars"),
        Question("pair", "", (Picture(picture(5).hash, 8, 8), Picture(picture(6).hash, 8, 8, "18446744073709551615"))),
    ]
    assert [found.question for found in ask(store, profile.key, *asked)] == asked
    assert [found.question for found in store.waiting(profile.key, most=9)] == asked[::-1]
    names = [found.key for found in asked]
    assert [found.question for found in store.questions(profile.key, [names[2], "f" * 64, "no key", names[0]])] == [
        asked[2],
        asked[0],
    ]
    page = store.waiting(profile.key, most=2)
    assert [found.question for found in store.waiting(profile.key, most=2, before=page[-1].id)] == asked[:1]


def test_a_prompt_that_was_not_known_is_put_down_later(store: PreferenceStore, profile: Profile):
    ask(store, profile.key, question(1, 2, prompt=""))
    assert ask(store, profile.key, question(1, 2, prompt="a dog"))[0].question.prompt == "a dog"
    assert ask(store, profile.key, question(1, 2, prompt="a cow"))[0].question.prompt == "a dog"


def test_what_has_waited_longest_is_forgotten_with_its_pictures(tmp_path: Path):
    store = PreferenceStore(Store(tmp_path / "db"), PictureFolder(tmp_path / "pictures"), most_waiting=3)
    key = store.create("my taste").key
    answered = question(0, 1)
    ask(store, key, answered)
    store.decide(key, answered.key, Answer("tie"))
    first = question(0, 2, prompt="only here")
    ask(store, key, first)
    ask(store, key, question(2, 3), question(4, 5), first, question(6, 7))
    kept = {found.question.key for found in store.waiting(key, most=9)}
    assert kept == {first.key, *(question(*two).key for two in [(2, 3), (4, 5), (6, 7)])}, "what is asked now stays"
    ask(store, key, question(8, 9))
    assert [found.question.hashes for found in store.waiting(key, most=9)] == [
        question(*two).hashes for two in [(8, 9), (6, 7), (4, 5)]
    ], "and later goes like any other"
    assert len(store.answered(key, most=9)) == 1
    assert set(store.pictures.names()) == {picture(number).hash for number in (0, 1, 4, 5, 6, 7, 8, 9)}
    with store.store.reading() as connection:
        assert connection.execute("SELECT text FROM prompts").fetchall() == [("a cat",)]


def test_what_cannot_be_forgotten_now_is_forgotten_later(tmp_path: Path):
    """A file whose row had gone would stay for good: nobody would know of it."""
    store = PreferenceStore(Store(tmp_path / "db"), PictureFolder(tmp_path / "pictures"), most_waiting=1)
    key = store.create("my taste").key
    ask(store, key, question(0, 1))
    stuck = store.pictures.path(picture(0).hash)
    content = stuck.read_bytes()
    stuck.unlink()
    stuck.mkdir()  # which is no file to delete
    assert [found.open for found in ask(store, key, question(2, 3))] == [True], "the new one is kept all the same"
    assert len(store.waiting(key, most=9)) == 2
    stuck.rmdir()
    stuck.write_bytes(content)
    ask(store, key, question(4, 5))
    assert [found.question.key for found in store.waiting(key, most=9)] == [question(4, 5).key]
    assert set(store.pictures.names()) == {picture(4).hash, picture(5).hash}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: question(1, 1), "same picture twice"),
        (lambda: question(1), "takes 2 to 64"),
        (lambda: Question("stars", "", ()), "takes 1 to 64"),
        (lambda: question(1, 2, 3, kind="pair"), "A pair takes 2"),
        (lambda: question(1, 2, kind="worst"), "one of pair, best, stars"),
        (lambda: question(1, 2, prompt="x" * 20_001), "too long"),
        (lambda: question(1, 2, prompt="\udc00"), "half of a character"),
        (lambda: Picture("../x", 1, 1), "not a picture's hash"),
        (lambda: Picture("a" * 64, 0, 1), "0×1 pixels"),
        (lambda: Picture("a" * 64, 1, 1, "-3"), "A seed is"),
    ],
)
def test_questions_that_cannot_be(make: Any, said: str):
    with pytest.raises(PreferenceError, match=said):
        make()


# ---- decisions ----


def test_the_same_decision_counts_once_and_a_changed_mind_replaces(store: PreferenceStore, profile: Profile):
    asked = question(1, 2)
    ask(store, profile.key, asked)
    first = store.decide(profile.key, asked.key, chosen(asked, 0))
    assert not first.open and first.decision.answer == chosen(asked, 0)
    assert store.decide(profile.key, asked.key, chosen(asked, 0)) == first
    assert store.profile(profile.key).revision == 1
    second = store.decide(profile.key, asked.key, chosen(asked, 1))
    assert second.decision.id > first.decision.id
    summary = store.summary(profile.key)
    assert (summary.chosen, summary.ties, summary.skipped, summary.waiting, summary.profile.revision) == (1, 0, 0, 0, 2)
    (found,) = comparisons_of(store.answered(profile.key, most=9)).comparisons
    assert found.preferred.hash == asked.hashes[1]


def test_undo_brings_back_what_was_said_before(store: PreferenceStore, profile: Profile):
    one, two = question(1, 2), question(3, 4)
    ask(store, profile.key, one, two)
    store.decide(profile.key, one.key, chosen(one, 0))
    store.decide(profile.key, one.key, Answer("tie"))
    store.decide(profile.key, two.key, Answer("skip"))
    undone = [store.undo(profile.key) for _ in range(4)]
    assert [found and found.question for found in undone] == [two, one, one, None]
    assert [found and found.decision and found.decision.answer for found in undone] == [
        None, chosen(one, 0), None, None,
    ]  # fmt: skip
    assert undone[2].open
    summary = store.summary(profile.key)
    assert (summary.waiting, summary.chosen, summary.profile.revision) == (2, 0, 6), "nothing undone is no change"


def test_undo_by_name_takes_back_once_and_leaves_others(store: PreferenceStore, profile: Profile):
    one, two = question(1, 2), question(3, 4)
    ask(store, profile.key, one, two)
    first = store.decide(profile.key, one.key, chosen(one, 0))
    store.decide(profile.key, two.key, chosen(two, 0))
    assert store.undo(profile.key, first.decision.id).question == one
    assert store.undo(profile.key, first.decision.id) is None
    assert [found.question for found in store.answered(profile.key, most=9)] == [two]
    other = store.create("other")
    standing = store.answered(profile.key, most=9)[0].decision.id
    assert store.undo(other.key, standing) is None, "another profile's decision"


def test_stars_come_one_by_one(store: PreferenceStore, profile: Profile):
    asked = question(1, 2, 3, kind="stars")
    ask(store, profile.key, asked)
    a, b, c = asked.hashes
    assert store.decide(profile.key, asked.key, Answer("stars", stars={a: 4})).open
    found = store.decide(profile.key, asked.key, Answer("stars", stars={b: 2, c: 4}))
    assert not found.open and found.decision.answer.stars == {a: 4, b: 2, c: 4}
    assert store.decide(profile.key, asked.key, Answer("stars", stars={b: 2})) == found
    assert store.summary(profile.key).rated == 1
    assert store.decide(profile.key, asked.key, Answer("stars", stars={b: 5})).decision.answer.stars[b] == 5
    assert store.undo(profile.key) == found
    assert store.undo(profile.key).decision.answer.stars == {a: 4}
    assert store.summary(profile.key).waiting == 1


def test_all_or_none_of_many_answers(store: PreferenceStore, profile: Profile):
    one, two = question(1, 2), question(3, 4)
    ask(store, profile.key, one, two)
    with pytest.raises(UnknownError):
        store.decide_all(profile.key, [(one.key, Answer("tie")), ("f" * 64, Answer("tie"))])
    assert store.answered(profile.key, most=9) == [] and store.profile(profile.key).revision == 0
    store.decide_all(profile.key, [(one.key, Answer("tie")), (two.key, Answer("tie"))])
    assert store.profile(profile.key).revision == 1


@pytest.mark.parametrize(
    ("numbers", "kind", "answer", "said"),
    [
        ((1, 2), "pair", Answer("chosen", "a" * 64), "none of the question's own"),
        ((1, 2), "pair", Answer("chosen"), "none of the question's own"),
        ((1, 2), "pair", Answer("tie", picture(1).hash), "yet the verdict is 'tie'"),
        ((1, 2), "pair", Answer("stars", stars={picture(1).hash: 3}), "asks for a choice"),
        ((1, 2), "pair", Answer("maybe"), "no verdict"),
        ((1, 2), "stars", Answer("tie"), "asks for stars"),
        ((1, 2), "stars", Answer("stars", stars={}), "one or more"),
        ((1, 2), "stars", Answer("stars", stars={"a" * 64: 3}), "one or more"),
        ((1, 2), "stars", Answer("stars", stars={picture(1).hash: 6}), "1 to 5 stars, not 6"),
        ((1, 2), "stars", Answer("stars", stars={picture(1).hash: True}), "1 to 5 stars, not True"),
        ((1, 2), "stars", Answer("stars", stars={picture(1).hash: 2.0}), "1 to 5 stars, not 2.0"),
    ],
)
def test_answers_to_another_question_are_refused(store, profile, numbers, kind, answer, said):
    asked = question(*numbers, kind=kind)
    ask(store, profile.key, asked)
    with pytest.raises(PreferenceError, match=said):
        store.decide(profile.key, asked.key, answer)
    assert store.profile(profile.key).revision == 0


def test_profiles_do_not_see_each_others_answers(store: PreferenceStore, profile: Profile):
    other = store.create("other")
    asked = question(1, 2)
    ask(store, profile.key, asked)
    with pytest.raises(UnknownError, match="Press Run"):
        store.decide(other.key, asked.key, Answer("tie"))
    ask(store, other.key, asked)
    store.decide(profile.key, asked.key, chosen(asked, 0))
    store.decide(other.key, asked.key, chosen(asked, 1))
    stand = [store.answered(found.key, most=9)[0].decision.answer for found in (profile, other)]
    assert stand == [chosen(asked, 0), chosen(asked, 1)]


# ---- comparisons ----


def answered(asked: Question, decision: int, answer: Answer) -> Asked:
    return Asked(decision, asked, Decision(decision, answer.checked(asked), 0), False)


def said(found: Sequence[Any]) -> list[tuple[str, str, bool]]:
    return [(comparison.preferred.seed, comparison.other.seed, comparison.tie) for comparison in found]


def test_the_best_of_several_beats_each_of_the_others():
    asked = question(1, 2, 3, 4)
    found = comparisons_of([answered(asked, 1, chosen(asked, 2))])
    assert said(found.comparisons) == [("3", "1", False), ("3", "2", False), ("3", "4", False)]
    assert {comparison.group for comparison in found.comparisons} == {asked.key}
    assert said(comparisons_of([answered(asked, 1, Answer("tie"))]).comparisons)[:2] == [
        ("1", "2", True),
        ("1", "3", True),
    ]


def test_stars_compare_every_two_rated_pictures():
    """Stars 5, 3, 3 and none: 5 beats both, the 3s tie, the unrated one says nothing; at least 3 apart all are ties."""
    asked = question(1, 2, 3, 4, kind="stars")
    rated = answered(asked, 1, Answer("stars", stars=dict(zip(asked.hashes, (3, 5, 3), strict=False))))
    assert said(comparisons_of([rated]).comparisons) == [("2", "1", False), ("1", "3", True), ("2", "3", False)]
    assert comparisons_of([rated], least_stars=3).ties == 3
    assert len(comparisons_of([rated], least_stars=2).preferences) == 2
    with pytest.raises(ValueError, match="least_stars must be 1 to 4, not 0"):
        comparisons_of([rated], least_stars=0)


def test_the_newest_word_on_two_pictures_holds():
    pair, three = question(1, 2), question(1, 2, 3)
    old, new = answered(three, 4, chosen(three, 0)), answered(pair, 9, chosen(pair, 1))
    found = comparisons_of([old, new])
    assert said(found.comparisons) == [("2", "1", False), ("1", "3", False)] and found.replaced == 1
    tie = answered(pair, 3, Answer("tie"))
    assert said(comparisons_of([tie, old]).comparisons) == [("1", "2", False), ("1", "3", False)]


def test_what_was_skipped_or_never_answered_says_nothing():
    asked = question(1, 2)
    found = comparisons_of([answered(asked, 2, Answer("skip")), Asked(3, question(3, 4), None, True)])
    assert found.comparisons == () and found.skipped == 1


# ---- embeddings ----


def test_an_embedding_belongs_to_its_encoder_and_changes_nothing_else(store: PreferenceStore, profile: Profile):
    assert store.embedding(profile.key, "set-encoder/1") is None
    for content in (b"old", b"\0new\xff"):
        store.put_embedding(profile.key, Embedding("set-encoder/1", 3, content))
    store.put_embedding(profile.key, Embedding("other", 1, b"x"))
    assert store.embedding(profile.key, "set-encoder/1") == Embedding("set-encoder/1", 3, b"\0new\xff")
    assert store.profile(profile.key).revision == 0
    for wrong in (Embedding("", 1, b"x"), Embedding("e" * 201, 1, b"x"), Embedding("e", 1, b"")):
        with pytest.raises(PreferenceError, match="An embedding needs"):
            store.put_embedding(profile.key, wrong)


# ---- what a page may send ----


def test_the_page_reads_and_changes(store: PreferenceStore, profile: Profile):
    asked = question(1, 2, 3)
    ask(store, profile.key, asked)
    shown = listing.waiting(store, {"profile": profile.key})
    (entry,) = shown["questions"]
    assert entry["key"] == asked.key and entry["kind"] == "best" and entry["open"] and entry["decision"] is None
    assert entry["pictures"][1] == {"hash": asked.hashes[1], "width": 8, "height": 8, "seed": "2"}
    body = {"profile": profile.key, "question": asked.key}
    done = listing.act(store, "decide", body | {"choice": asked.hashes[1]})
    assert done["question"]["decision"]["choice"] == asked.hashes[1] and not done["question"]["open"]
    assert (done["profile"]["choices"], done["profile"]["waiting"], done["profile"]["revision"]) == (1, 0, 1)
    assert listing.act(store, "decide", body | {"choice": "tie"})["question"]["decision"]["choice"] == "tie"
    taken = listing.act(store, "undo", {"profile": profile.key, "decision": done["question"]["decision"]["id"]})
    assert taken["question"]["decision"]["choice"] == "tie", "an older one is taken back, the newest stands"
    assert listing.act(store, "undo", {"profile": profile.key})["question"]["open"]
    assert listing.act(store, "undo", {"profile": profile.key})["question"] is None
    found = listing.act(store, "questions", {"profile": profile.key, "questions": ["f" * 64, asked.key]})
    assert [entry["key"] for entry in found["questions"]] == [asked.key] and found["missing"] == ["f" * 64]
    json.dumps(found)

    stars = question(4, 5, kind="stars")
    ask(store, profile.key, stars)
    rated = listing.act(
        store, "decide", {"profile": profile.key, "question": stars.key, "stars": {stars.hashes[0]: 5}}
    )["question"]  # fmt: skip
    assert rated["open"] and rated["decision"]["stars"] == {stars.hashes[0]: 5} and rated["decision"]["choice"] is None

    other = listing.act(store, "create", {"name": "other"})["profile"]
    assert listing.act(store, "rename", {"profile": other["key"], "name": "new"})["profile"]["name"] == "new"
    assert [entry["name"] for entry in listing.profiles(store)["profiles"]] == ["my taste", "new"]
    gone = listing.act(store, "delete", {"profile": other["key"]})
    assert gone["clean"] and gone["note"] == "" and [entry["name"] for entry in gone["profiles"]] == ["my taste"]


KEY, NAME = "0" * 32, "f" * 64


@pytest.mark.parametrize(
    ("action", "body", "words"),
    [
        ("erase", {}, "cannot 'erase'"),
        ("decide", [], "a JSON object"),
        ("decide", None, "a JSON object"),
        ("decide", {}, "'profile' must be"),
        ("decide", {"profile": 7}, "'profile' must be"),
        ("decide", {"profile": "../x"}, "'profile' must be"),
        ("decide", {"profile": KEY, "question": "x", "choice": "tie"}, "'question' must be"),
        ("decide", {"profile": KEY, "question": NAME}, "either 'choice' or 'stars'"),
        ("decide", {"profile": KEY, "question": NAME, "choice": "tie", "stars": {}}, "either 'choice' or 'stars'"),
        ("decide", {"profile": KEY, "question": NAME, "choice": "left"}, "hash of a picture, tie, or skip"),
        ("decide", {"profile": KEY, "question": NAME, "choice": ["tie"]}, "hash of a picture, tie, or skip"),
        ("decide", {"profile": KEY, "question": NAME, "stars": [5]}, "'stars' must be an object"),
        ("decide", {"profile": KEY, "question": NAME, "stars": {"x": 5}}, "'stars' must be an object"),
        ("decide", {"profile": KEY, "question": NAME, "choice": "tie", "who": "me"}, "'who' is not understood"),
        ("decide", {"profile": KEY, "question": NAME, "choice": "tie"}, "not there any more"),
        ("undo", {"profile": KEY, "decision": "1"}, "'decision' must be"),
        ("undo", {"profile": KEY, "decision": True}, "'decision' must be"),
        ("undo", {"profile": KEY, "decision": 2**63}, "'decision' must be"),
        ("questions", {"profile": KEY, "questions": NAME}, "'questions' must be a list"),
        ("questions", {"profile": KEY, "questions": [NAME] * 501}, "'questions' must be a list"),
        ("questions", {"profile": KEY, "questions": [3]}, "'questions' must be a list"),
        ("create", {"name": 3}, "'name' must be a text"),
        ("create", {"name": "\ud800"}, "half of a character"),
        ("rename", {"profile": KEY, "name": "x"}, "not there any more"),
        ("delete", {"profile": KEY}, "not there any more"),
    ],
)
def test_what_a_page_may_not_send_changes_nothing(store: PreferenceStore, profile: Profile, action, body, words):
    before = listing.profiles(store)
    with pytest.raises(AttuneError, match=words):
        listing.act(store, action, body)
    assert listing.profiles(store) == before


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "501"}, {"limit": "x"}, {"limit": "١"}, {"before": "-1"},
                                   {"before": "9" * 30}, {"offset": "1"}])  # fmt: skip
def test_a_list_that_cannot_be_asked_for(store: PreferenceStore, profile: Profile, query):
    with pytest.raises(PreferenceError):
        listing.waiting(store, {"profile": profile.key, **query})
