"""From a batch to questions, from answers to what is handed on, and a run that waits."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

import pytest
import torch

from attune.nodes.preferences.asking import (
    MODES,
    Shown,
    pick,
    questions_about,
    seeds_of,
    show,
    wait_for_answers,
    winners,
    words_of,
)
from attune.nodes.preferences.latents import single_latents
from attune.nodes.preferences.pictures import PictureFolder
from attune.nodes.preferences.records import Answer, Asked, Decision, PreferenceError, Question, UnknownError
from attune.nodes.preferences.store import MOST_WAITING, PreferenceStore
from attune.nodes.store import Store


def batch(*prompts: str, blocked: tuple[int, ...] = (), copies: dict[int, int] | None = None) -> list[Shown]:
    """A different grey picture for each prompt; `copies`: place → place of the picture it repeats."""
    greys = [(copies or {}).get(number, number) / 60 for number in range(len(prompts))]
    images = [torch.full((4, 4, 3), grey) for grey in greys]
    held = [number in blocked for number in range(len(prompts))]
    return show(images, prompts, list(range(len(prompts))), held)


def places(shown: list[Shown], questions: list[Question]) -> list[list[int]]:
    where = {found.picture.hash: number for number, found in reversed(list(enumerate(shown)))}
    return [[where[name] for name in question.hashes] for question in questions]


def answered(question: Question, answer: Answer | None = None, *, open: bool = False) -> Asked:
    decision = None if answer is None else Decision(1, answer.checked(question), 0)
    return Asked(1, question, decision, open or answer is None)


# ---- questions ----


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("pairs", [[0, 1], [2, 4], [3, 5]]),
        ("all pairs", [[0, 1], [0, 2], [0, 4], [1, 2], [1, 4], [2, 4], [3, 5]]),
        ("best of each prompt", [[0, 1, 2, 4], [3, 5]]),
        ("stars", [[0, 1, 2, 4], [3, 5]]),
    ],
)
def test_only_pictures_of_one_prompt_are_compared(mode: str, expected: list[list[int]]):
    shown = batch("cat", "cat", "cat", "dog", "cat", "dog")
    questions = questions_about(shown, mode)
    assert places(shown, questions) == expected
    assert {question.prompt for question in questions} == {"cat", "dog"}
    assert questions[0].pictures[0].seed == "0"


def test_a_picture_is_asked_about_once_and_a_lonely_one_not_at_all():
    shown = batch("cat", "cat", "cat", "dog", copies={2: 0})
    assert places(shown, questions_about(shown, "all pairs")) == [[0, 1]]
    assert places(shown, questions_about(shown, "stars")) == [[0, 1], [3]]
    assert places(batch("cat", "cat", "cat"), questions_about(batch("cat", "cat", "cat"), "pairs")) == [[0, 1]]


def test_what_a_gate_holds_back_is_not_asked_about():
    shown = batch("cat", "cat", "cat", blocked=(1,))
    assert places(shown, questions_about(shown, "best of each prompt")) == [[0, 2]]
    with pytest.raises(PreferenceError, match="held back all 2 pictures"):
        questions_about(batch("cat", "cat", blocked=(0, 1)), "stars")
    with pytest.raises(PreferenceError, match=r"no prompt has two different.*batch size"):
        questions_about(batch("cat", "dog"), "pairs")
    with pytest.raises(ValueError, match="mode must be one of pairs"):
        questions_about(shown, "worst")


def test_many_pictures_of_a_prompt_become_several_questions():
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(4, 4, 3, generator=generator) for _ in range(70)]
    shown = show(images, ["cat"] * 70, [None] * 70, [False] * 70)
    questions = questions_about(shown, "best of each prompt")
    assert [len(question.pictures) for question in questions] == [64, 6]
    assert questions[0].pictures[0].seed == ""


@pytest.mark.parametrize(
    ("count", "mode", "questions"),
    [(32, "all pairs", 496), (33, "all pairs", 528), (1001, "pairs", 500), (1002, "pairs", 501), (2000, "stars", 32)],
)
def test_more_questions_than_a_profile_keeps_are_not_asked(count: int, mode: str, questions: int):
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(4, 4, 3, generator=generator) for _ in range(count)]
    shown = show(images, ["cat"] * count, [None] * count, [False] * count)
    if questions <= MOST_WAITING:
        assert len(questions_about(shown, mode)) == questions
        return
    said = f"{count} pictures would be {questions} questions.*'best of each prompt'"
    with pytest.raises(PreferenceError, match=said):
        questions_about(shown, mode)


def test_questions_of_all_prompts_count_together():
    shown = batch(*(prompt for prompt in ("cat", "dog") for _ in range(24)))
    with pytest.raises(PreferenceError, match="48 pictures would be 552 questions"):
        questions_about(shown, "all pairs")
    assert len(questions_about(shown, "best of each prompt")) == 2


@pytest.mark.parametrize(
    ("sizes", "seeds", "expected"),
    [([2, 1], None, [None] * 3), ([2, 1], [7], [7] * 3), ([2, 1], [7, 8], [7, 7, 8]), ([2, 1], [7, 8, 9], [7, 8, 9])],
)
def test_seeds_for_all_per_batch_or_per_picture(sizes, seeds, expected):
    assert seeds_of(sizes, seeds) == expected


def test_seeds_and_latents_that_do_not_fit():
    with pytest.raises(PreferenceError, match="3 pictures in 2 batches, but 4 seeds"):
        seeds_of([2, 1], [1, 2, 3, 4])
    latents = [{"samples": torch.arange(8.0).reshape(2, 4, 1, 1)}, {"samples": torch.zeros(1, 4, 2, 2)}]
    found = single_latents(latents, 3)
    assert [tuple(latent["samples"].shape) for latent in found] == [(1, 4, 1, 1), (1, 4, 1, 1), (1, 4, 2, 2)]
    assert found[1]["samples"].flatten().tolist() == [4, 5, 6, 7]
    masked = {
        "samples": torch.zeros(2, 4, 1, 1),
        "noise_mask": torch.arange(2.0).reshape(2, 1, 1),
        "batch_index": [5, 6],
    }
    alone = single_latents([masked], 2)[1]
    assert alone["batch_index"] == [6] and alone["noise_mask"].flatten().tolist() == [1]
    with pytest.raises(PreferenceError, match="2 pictures but 3 latents"):
        single_latents(latents, 2)


# ---- what is handed on ----


def test_chosen_is_what_lost_no_comparison():
    """Of 0, 1, 2 all pairs: 0 beats 1, 1 beats 2, 0 and 2 tie. 0 is chosen; 1 won and lost; 2 lost."""
    shown = batch("cat", "cat", "cat")
    first, second, third = questions_about(shown, "all pairs")
    asked = [
        answered(first, Answer("chosen", first.hashes[0])),
        answered(second, Answer("tie")),
        answered(third, Answer("chosen", third.hashes[0])),
    ]
    picked = pick(shown, asked, "leave out")
    assert (picked.chosen, picked.rejected, picked.waiting) == ((0,), (1, 2), 0)


def test_the_rules_decide_only_what_nobody_has():
    shown = batch(*["cat"] * 8)
    questions = questions_about(shown, "pairs")
    asked = [
        answered(questions[0], Answer("chosen", questions[0].hashes[1])),
        answered(questions[1], Answer("skip")),
        answered(questions[2]),
        answered(questions[3]),
    ]
    nothing = pick(shown, asked, "leave out")
    assert (nothing.chosen, nothing.rejected, nothing.waiting, nothing.by_rule) == ((1,), (0,), 2, 0)
    assert pick(shown, asked, "wait") == nothing
    first = pick(shown, asked, "first")
    assert (first.chosen, first.rejected, first.waiting, first.by_rule) == ((1, 4, 6), (0, 5, 7), 2, 2)
    scores = [9, 0, 9, 0, 1, 2, math.nan, math.nan]
    best = pick(shown, asked, "best by reward", scores)
    assert (best.chosen, best.rejected, best.by_rule) == ((1, 5), (0, 4), 1)
    assert words_of(best, 4, 1) == (
        "2 of 4 questions answered. 2 waiting for you, 1 answered by rule for this run. 1 picture held back by the "
        "safety gate."
    )
    assert words_of(pick(shown[:2], asked[:1], "first"), 1, 0) == "1 of 1 question answered."


def test_of_stars_the_most_win_once_all_are_given():
    question = questions_about(batch("cat", "cat", "cat"), "stars")[0]
    a, b, c = question.hashes
    assert winners(answered(question, Answer("stars", stars={a: 4, b: 4, c: 1}))) == [a, b]
    assert winners(answered(question, Answer("stars", stars={a: 3, b: 3, c: 3}))) == []
    assert winners(answered(question, Answer("stars", stars={a: 4, b: 1}), open=True)) == []
    shown = batch("cat", "cat", "cat")
    half = pick(shown, [answered(question, Answer("stars", stars={a: 4, b: 1}), open=True)], "first")
    assert (half.chosen, half.rejected, half.waiting, half.by_rule) == ((0,), (1, 2), 1, 1), "a run gets something"


def test_stars_for_some_pictures_leave_the_rest_to_the_rule():
    shown = batch(*["cat"] * 4)
    question = questions_about(shown, "stars")[0]
    half = [answered(question, Answer("stars", stars={question.hashes[0]: 3}), open=True)]
    best = pick(shown, half, "best by reward", [1.0, 2.0, 4.0, 3.0])
    assert (best.chosen, best.rejected, best.waiting, best.by_rule) == ((2,), (0, 1, 3), 1, 1)
    for rule in ("leave out", "wait"):
        left = pick(shown, half, rule)
        assert (left.chosen, left.rejected, left.waiting, left.by_rule) == ((), (), 1, 0)
    skipped = pick(shown, [answered(question, Answer("skip"))], "first")
    assert (skipped.chosen, skipped.waiting, skipped.by_rule) == ((), 0, 0), "no answer is wanted"


@pytest.mark.parametrize(
    ("prompts", "mode", "said"),
    [
        (["cat"] * 3, "pairs", " 1 picture has no partner to be compared with."),
        (["cat"] * 3 + ["dog", "cow"], "pairs", " 3 pictures have no partner to be compared with."),
        (["cat"] * 3 + ["dog"], "all pairs", " 1 picture has no partner to be compared with."),
        (["cat"] * 65, "best of each prompt", " 1 picture has no partner to be compared with."),
        (["cat"] * 3 + ["dog"], "stars", ""),
        (["cat"] * 4, "pairs", ""),
    ],
)
def test_pictures_that_are_not_asked_about_are_told(prompts: list[str], mode: str, said: str):
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(4, 4, 3, generator=generator) for _ in prompts]
    shown = show(images, prompts, [None] * len(prompts), [False] * len(prompts))
    asked = [answered(question, Answer("skip")) for question in questions_about(shown, mode)]
    assert words_of(pick(shown, asked, "leave out"), len(asked), 0).partition(" answered.")[2] == said


def test_copies_and_pictures_held_back_are_not_called_lonely():
    shown = batch("cat", "cat", "cat", "cat", blocked=(3,), copies={2: 0})
    asked = [answered(question, Answer("skip")) for question in questions_about(shown, "pairs")]
    assert pick(shown, asked, "leave out").alone == 0


def test_every_mode_leads_to_questions():
    for mode in MODES:
        assert questions_about(batch("cat", "cat"), mode)


# ---- waiting ----


@pytest.fixture
def store(tmp_path: Path) -> PreferenceStore:
    return PreferenceStore(Store(tmp_path / "attune.sqlite3"), PictureFolder(tmp_path / "pictures"))


def asked_of(store: PreferenceStore, key: str) -> list[Question]:
    shown = batch(*["cat"] * 4)
    questions = questions_about(shown, "pairs")
    store.ask(key, questions, {found.picture.hash: found.pixels for found in shown})
    return questions


def test_a_run_that_waits_goes_on_when_all_is_chosen(store: PreferenceStore):
    key = store.create("my taste").key
    questions = asked_of(store, key)
    looks: list[tuple[int, int]] = []

    def choose() -> None:
        for question in questions:
            time.sleep(0.3)
            store.decide(key, question.key, Answer("tie"))

    thread = threading.Thread(target=choose)
    thread.start()
    found = wait_for_answers(
        store, key, [question.key for question in questions], seconds=60, on_look=lambda *look: looks.append(look)
    )
    thread.join()
    assert [asked.open for asked in found] == [False, False]
    assert looks[0] == (0, 2) and looks[-1] == (2, 2)


def test_a_run_that_waits_gives_up_is_cancelled_or_finds_its_profile_gone(store: PreferenceStore):
    key = store.create("my taste").key
    names = [question.key for question in asked_of(store, key)]
    began = time.monotonic()
    assert all(asked.open for asked in wait_for_answers(store, key, names, seconds=0.4, on_look=lambda *_: None))
    assert 0.4 <= time.monotonic() - began < 30

    def cancel(answered: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wait_for_answers(store, key, names, seconds=60, on_look=cancel)
    with pytest.raises(UnknownError):
        wait_for_answers(store, key, names, seconds=60, on_look=lambda *_: store.names() and store.delete(key))
