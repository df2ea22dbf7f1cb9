"""Words in pictures: which are asked for, how a reading is compared, what the real reader makes of rendered words."""

from __future__ import annotations

import itertools
import threading
from difflib import SequenceMatcher
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from attune.nodes.rewards import ocr
from attune.nodes.rewards.cache import CachedReward, ScoreStore
from attune.nodes.rewards.ocr import READER, Line, TextInImageReward, TextReader, reading_order
from attune.nodes.rewards.quotes import compact, find_texts, quoted_texts
from attune.nodes.rewards.scoring import score_table
from attune.training.interfaces import Reward, RewardError


def written(*lines: str, size: tuple[int, int] = (400, 200), letters: int = 48) -> torch.Tensor:
    """Black words on white, one line under the other, float32 [1, h, w, 3]."""
    picture = Image.new("RGB", size, "white")
    font = ImageFont.load_default(letters)
    ImageDraw.Draw(picture).multiline_text((size[0] // 12, size[1] // 8), "\n".join(lines), "black", font=font)
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)[None]


# ---- what the prompt asks for ----


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ('a sign that says "Open"', ["Open"]),
        ("“Hi” and «Bonjour» and „Hallo“ and „Tschüss” and »Servus«", ["Hi", "Bonjour", "Hallo", "Tschüss", "Servus"]),
        ("a poster with 「你好」", ["你好"]),
        ('写着"你好"的牌子', ["你好"]),
        ('"one" then "two", then "one"', ["one", "two", "one"]),
        ("a 'big sale' sign", ["big sale"]),
        ("(‘yes’:1.2)", ["yes"]),
        ("the words 'don't stop' on a wall", ["don't stop"]),
        ("‘it’s ok’ in neon", ["it’s ok"]),
        ("\"it's\" on a mug", ["it's"]),
        ('American "Hello," and "Stop." but "wait..."', ["Hello", "Stop", "wait..."]),
        ('route "66" and "5 miles"', ["66", "5 miles"]),
        ('nothing "" here but "this"', ["this"]),
        ('gaps "  in   between "', ["in between"]),
    ],
)  # fmt: skip
def test_quoted_texts(prompt, texts):
    assert quoted_texts(prompt) == texts


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a cat",
        "don't stop the cats' toys and the dogs' bones",
        "rock 'n' roll in the '80s, 'twas the dogs' day",
        'a 5" by 7" print',
        'an open "quote',
        '" "',
        "it’s the cats’ home",
    ],
)
def test_apostrophes_and_inches_are_no_quotation(prompt):
    assert quoted_texts(prompt) == []


# ---- how a reading is compared ----


@pytest.mark.parametrize(
    ("asked", "lines", "shares"),
    [
        (["OPEN"], ["OPEN"], [1]),
        (["OPEN"], [], [0]),
        (["OPEN"], ["XYZ"], [0]),
        # 2 M / (|q| + |w|): one letter wrong of five 2·4/10, one missing 2·4/9, one doubled 2·5/11, swapped 2·4/10
        (["HELLO"], ["HALLO"], [0.8]),
        (["HELLO"], ["HELO"], [8 / 9]),
        (["HELLO"], ["HELLOO"], [10 / 11]),
        (["HELLO"], ["HELOL"], [0.8]),
        # other words around do not matter, and gaps are not compared
        (["big sale"], ["our", "BIG SALE today"], [1]),
        (["big sale"], ["BIGSALE"], [1]),
        (["big sale"], ["BIG", "SALE"], [1]),
        (["OPEN"], ["OP EN"], [1]),
        # a letter more in the same word is no perfect match, though the word is in it
        (["CAT"], ["CATS"], [6 / 7]),
        (["CAT"], ["concatenate"], [6 / 14]),
        # asked twice must be there twice; two texts do not share a word
        (["ha", "ha"], ["ha"], [1, 0]),
        (["ha", "ha"], ["ha", "ha"], [1, 1]),
        (["ha", "ha"], ["haha"], [1, 1]),
        (["OPEN", "DAILY"], ["OPENDAILY"], [1, 1]),
        # the better pair is taken first, whatever the order of the quotes
        (["HALLO", "HELLO"], ["HELLO"], [0, 1]),
        # typographic forms of one character
        (["it's"], ["IT’S"], [1]),
        (["ﬁsh – chips"], ["FISH - CHIPS"], [1]),
    ],
)
def test_similarity_of_the_best_place(asked, lines, shares):
    assert find_texts(asked, lines).shares == pytest.approx(shares)


def test_capitals_count_on_request():
    assert find_texts(["Open"], ["OPEN"], case_sensitive=True).shares == pytest.approx([2 / 8])
    assert compact("Straße") == compact("STRASSE")


def test_other_text_is_the_share_of_characters_that_nobody_asked_for():
    assert find_texts(["OPEN"], ["OPEN", "NOW!"]).other == pytest.approx(0.5)
    assert find_texts(["OPEN"], ["OPEN"]).other == 0
    assert find_texts(["OPEN"], []).other == 0
    assert find_texts([], ["anything"]).other == 1


def test_a_long_row_of_known_words_is_taken_apart_quickly():
    """Backtracking over (a|aa)+ would take 2^50 steps."""
    assert find_texts(["a", "aa"], ["a" * 70 + "b"]).shares == pytest.approx([0, 4 / 73])


def exhaustive(asked: list[str], lines: list[str]) -> tuple[list[float], float]:
    """Every text with every run, the best pairs first: the definition in `find_texts`, word for word."""
    wanted, words = [compact(text) for text in asked], [compact(word) for line in lines for word in line.split()]
    candidates = []
    for number, text in enumerate(wanted):
        for start, stop in itertools.combinations(range(len(words) + 1), 2):
            run = "".join(words[start:stop])
            if len(run) <= 2 * len(text) or stop == start + 1:
                share = SequenceMatcher(None, run, text, autojunk=False).ratio()
                candidates.append((share, len(text), -number, -start, stop))
    shares, used = [0.0] * len(wanted), set()
    for share, _, number, start, stop in sorted(candidates, reverse=True):
        places = set(range(-start, stop))
        if share > 0 and shares[-number] == 0 and not used & places:
            shares[-number] = share
            used |= places
    total = sum(map(len, words))
    other = sum(len(word) for index, word in enumerate(words) if index not in used)
    return shares, other / total if total else 0.0


@pytest.mark.parametrize("letters", ["ab", "abcdefgh"])
def test_the_search_finds_what_comparing_everything_finds(letters):
    """Few letters, so that many runs are equally good. Words of capitals that no row of asked texts makes up."""
    random = Random(letters)

    def words(most: int, last: str) -> str:
        return " ".join(
            "".join(random.choice(letters) for _ in range(random.randint(0, 4))) + last
            for _ in range(random.randint(1, most))
        )

    for _ in range(300):
        asked = [words(3, "x") for _ in range(random.randint(1, 4))]
        lines = [words(4, "y") for _ in range(random.randint(0, 3))]
        found = find_texts(asked, lines)
        assert (list(found.shares), found.other) == exhaustive(asked, lines), (asked, lines)


def test_a_long_text_that_is_nowhere_in_a_long_reading_is_not_compared_with_all_of_it():
    """24 000 runs, of which the most promising ones are compared; Cancel is asked for before each."""
    random = Random(0)
    asked, read = (
        " ".join("".join(random.choice("etaoinshrd") for _ in range(5)) for _ in range(count)) for count in (40, 300)
    )
    asks = []
    found = find_texts([asked], [read], between=lambda: asks.append(1))
    assert 0.3 < found.shares[0] < 0.6
    assert 300 < len(asks) < 500
    # What is there is found, whatever surrounds it.
    assert find_texts([asked], [read, asked, read]).shares == (1.0,)

    def cancel() -> None:
        if len(asks) > 600:
            raise KeyboardInterrupt
        asks.append(1)

    with pytest.raises(KeyboardInterrupt):
        find_texts([asked], [read, read], between=cancel)


def test_lines_are_read_from_top_to_bottom_and_left_to_right():
    pieces = [
        Line("right", (60, 12, 100, 30)), Line("below", (0, 50, 100, 70)), Line("left", (0, 10, 50, 28)),
        Line("foot", (0, 66, 100, 90)),
    ]  # fmt: skip
    assert reading_order(pieces) == ["left right", "below", "foot"]


# ---- the reward, with the real reader ----


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.cat([written("HELLO", "WORLD"), written("HELO", "WORLD"), written("GOODBYE"), written("")])


def test_the_reader_reads(pictures):
    assert [READER((picture.numpy() * 255).astype(np.uint8)) for picture in pictures] == [
        ["HELLO", "WORLD"], ["HELO", "WORLD"], ["GOODBYE"], [],
    ]  # fmt: skip


def test_scores_follow_what_can_be_read(pictures):
    reward = TextInImageReward()
    assert isinstance(reward, Reward)
    scores = reward(pictures, ['it says "Hello world"'] * 4)
    assert scores.dtype is torch.float32
    # HELOWORLD: 9 letters against 10, all in blocks: 18/19.
    assert scores[:2].tolist() == pytest.approx([1, 18 / 19])
    assert scores[2] < 0.6
    assert scores[3] == 0
    assert TextInImageReward(case_sensitive=True)(pictures[:1], ['"Hello world"']) < 0.5


def test_several_quotes_are_averaged_and_other_text_is_penalised(pictures):
    prompt = 'a "HELLO" above a "MOON"'
    best_of_moon = find_texts(["HELLO", "MOON"], ["HELLO", "WORLD"]).shares[1]
    assert TextInImageReward()(pictures[:1], [prompt]).item() == pytest.approx((1 + best_of_moon) / 2)
    strict = TextInImageReward(penalty_for_other_text=0.5)
    assert strict(pictures[:1], ['"hello"']).item() == pytest.approx(1 - 0.5 * 0.5)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (3, 500, 3), (500, 2, 4), (64, 64, 1)])
def test_any_picture_can_be_looked_at(shape):
    assert TextInImageReward()(torch.full((1, *shape), 0.5), ['"word"']).tolist() == [0]


@pytest.mark.parametrize("size", [(500, 2), (2, 500), (1, 1), (4000, 10), (300, 200), (1500, 1500)])
def test_the_reader_gets_no_thin_picture(size):
    """It would scale 2×500 pixels up to 736×184000."""
    height, width, _ = ocr._prepared(np.zeros((*size, 3), np.uint8)).shape
    assert max(height, width) <= 1.01 * ocr.LARGEST_RATIO * min(height, width)
    assert height * width <= max(3 * ocr.LONGEST_SIDE**2, 2 * size[0] * size[1])


def test_small_grey_and_transparent_pictures_are_read(pictures):
    small = written("OPEN", size=(96, 64), letters=22)
    assert TextInImageReward()(small, ['"open"']).item() == 1
    assert TextInImageReward()(small.mean(-1, keepdim=True), ['"open"']).item() == 1
    ink = 1 - small[..., :1]
    assert TextInImageReward()(torch.cat([torch.zeros_like(small), ink], -1), ['"open"']).item() == 1


def test_a_prompt_without_quotes_is_an_error_before_anything_is_read():
    read = []
    reward = TextInImageReward(between=lambda: read.append(1))
    with pytest.raises(RewardError, match=r"(?s)'a red cat' has none.*without_quotes"):
        reward(torch.zeros(2, 8, 8, 3), ['a "sign"', "a red cat"])
    assert read == []


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_table_names_the_picture_whose_prompt_has_no_quotes(wrapped):
    """Counted from 0 among all pictures, not among those of one size, or those that a cache does not know."""
    reward = TextInImageReward(reader=None)
    pictures = [torch.ones(8, 8 + index % 2, 3) for index in range(4)]
    prompts = ['"one"', '"two"', "a red cat", '"four"']
    with pytest.raises(RewardError, match="image 2 with the prompt 'a red cat' has none"):
        score_table(pictures, prompts, CachedReward(reward, ScoreStore()) if wrapped else reward)


def test_prompts_without_quotes_in_a_mixed_batch(pictures):
    prompts = ['"hello world"', "no words please", "no words please", "no words please"]
    assert TextInImageReward(without_quotes="score 1")(pictures, prompts).tolist() == [1, 1, 1, 1]
    assert TextInImageReward(without_quotes="score 0")(pictures, prompts).tolist() == [1, 0, 0, 0]
    strict = TextInImageReward(penalty_for_other_text=0.5, without_quotes="score 1")
    assert strict(pictures, prompts).tolist() == [1, 0.5, 0.5, 1]


def test_the_same_picture_is_read_once_and_settings_do_not_share_scores(pictures):
    read = []

    class Counted:
        identity = READER.identity

        def __call__(self, pixels: np.ndarray) -> list[str]:
            read.append(1)
            return READER(pixels)

    reward = CachedReward(TextInImageReward(reader=Counted()), ScoreStore())
    first = reward(pictures, ['"hello world"'] * 4)
    assert len(read) == 4
    assert torch.equal(first, reward(pictures.clone(), ['"hello world"'] * 4))
    assert len(read) == 4
    ids = {
        TextInImageReward(**settings).reward_id
        for settings in ({}, {"case_sensitive": True}, {"penalty_for_other_text": 0.1}, {"without_quotes": "score 0"})
    }
    assert len(ids) == 4


def test_cancel_comes_through_between_two_pictures(pictures):
    read = []

    def between() -> None:
        if len(read) == 2:
            raise KeyboardInterrupt
        read.append(1)

    with pytest.raises(KeyboardInterrupt):
        TextInImageReward(between=between)(pictures, ['"hello"'] * 4)
    assert len(read) == 2


def test_it_has_no_gradient_and_says_so(pictures):
    reward = TextInImageReward()
    assert not reward.differentiable and reward.higher_is_better and reward.uses_prompt
    assert "0 … 1" in reward.formula
    assert not reward(pictures[:1].clone().requires_grad_(True), ['"x"']).requires_grad


def test_one_engine_serves_many_threads(pictures, monkeypatch):
    started = []
    start = ocr._start_engine

    def counted():
        started.append(1)
        return start()

    monkeypatch.setattr(ocr, "_start_engine", counted)
    reader = TextReader()
    pixels = [(picture.numpy() * 255).astype(np.uint8) for picture in pictures[:3]]
    found: dict[int, list[str]] = {}
    threads = [threading.Thread(target=lambda k=k: found.__setitem__(k, reader(pixels[k % 3]))) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert started == [1]
    assert [found[k] for k in range(6)] == [["HELLO", "WORLD"], ["HELO", "WORLD"], ["GOODBYE"]] * 2


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"penalty_for_other_text": 1.5}, "0 to 1, not 1.5"), ({"without_quotes": "maybe"}, "stop with an error")],
)
def test_wrong_settings_are_refused(settings, says):
    with pytest.raises(RewardError, match=says):
        TextInImageReward(**settings)
