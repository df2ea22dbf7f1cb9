"""Reports of a session: the document, the page, the picture; and that nobody's words become part of the page."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from attune.nodes.drawing import GOOD, PANEL
from attune.nodes.picture_folder import picture_hash
from attune.nodes.refinement.checks import UnknownError
from attune.nodes.refinement.records import Feedback, Picture, Schedule, SessionState, Weights
from attune.nodes.refinement.report import comparison_report, session_report
from attune.nodes.refinement.report_html import report_html
from attune.nodes.refinement.report_picture import MOST_ROUNDS, WIDTH, report_picture
from attune.nodes.refinement.store import SessionStore
from attune.tests.refinement_sessions import made, opened, pixels_of, play, propose

ATTACKS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onload='alert(1)",
    "</style></title></textarea><svg onload=alert(1)>",
    "<!-- --><![CDATA[ ]]>",
    "&lt;b&gt; &#60;script&#62;",
    "\u202ertl \u2066 \x00 \x1b[31m \x85",
    "{{7*7}} ${7*7} javascript:alert(1)",
]
# All that the page is made of.
TAGS = {
    "html", "head", "meta", "title", "style", "body", "main", "header", "h1", "h2", "h3", "p", "div", "span", "b",
    "bdi", "ol", "ul", "li", "figure", "figcaption", "img", "svg", "line", "text", "polyline", "circle", "ins", "del",
    "details", "summary", "blockquote", "i", "u", "table", "tr", "th", "td", "code",
}  # fmt: skip
VOID = {"meta", "img", "line", "polyline", "circle"}


class Page(HTMLParser):
    """Reads a page strictly: known tags that are closed in order, known attributes; collects text and pictures."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.words, self.images, self.tags = "", [], []
        self.feed(page)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        for name, value in attrs:
            assert re.fullmatch(r"[a-z][a-z0-9-]*", name) and not name.startswith("on"), name
            assert name not in ("href", "srcset", "action"), name
            if name == "src":
                assert value.startswith("data:image/jpeg;base64,")
                self.images.append(base64.b64decode(value.split(",")[1]))
            if name == "style":
                assert re.fullmatch(r"(left|width):[\d.]+%", value), value
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a declaration: {data}")


@pytest.fixture
def sessions(tmp_path: Path) -> SessionStore:
    return opened(tmp_path)


@pytest.fixture
def played(sessions: SessionStore) -> SessionState:
    """Three rounds on the way, other pictures once, a branch beside, raters, and an open round."""
    state = sessions.create("cats", "a small cat", "blur", seed=2**64 - 1)
    state = play(sessions, state, (1, 2), Feedback("bigger", liked=(1,), rating=2), prompt="a small cat")
    sessions.rate(state.key, state.last.key, "Ann", {0: 1, 1: 5})
    sessions.rate(state.key, state.last.key, "Bob", {0: 2, 1: 5})
    state = sessions.again(state.key, state.revision, propose(sessions, state, (3, 4)).key)
    first = state.last.key
    state = play(sessions, state, (5, 6), Feedback("no", disliked=(0,)), prompt="a big cat")
    state = sessions.branch(state.key, state.revision, first)
    state = play(sessions, state, (7, 8), Feedback("lovely", liked=(0,), rating=4), prompt="a large cat")
    state = play(sessions, state, (9,), Feedback("", liked=(0,), rating=5), prompt="a large black cat")
    propose(sessions, state, (10, 11), prompt="a large black cat, dusk")
    return sessions.state(state.key)


def documented(sessions: SessionStore, key: str, **knobs: Any) -> dict[str, Any]:
    """The report as it comes back from a file."""
    report = session_report(sessions.record(key), **knobs)
    return json.loads(json.dumps(report, allow_nan=False))


def page_of(sessions: SessionStore, key: str) -> tuple[str, Page]:
    page = report_html(documented(sessions, key), sessions.files(key).pictures.get)
    return page, Page(page)


# ---- the document ----


def test_the_document_tells_every_round(sessions: SessionStore, played: SessionState):
    report = documented(sessions, played.key)
    assert session_report(sessions.record(played.key)) == report, "JSON changes nothing"
    rounds = {round_["key"]: round_ for round_ in report["rounds"]}
    path = [rounds[key] for key in report["path"]]
    assert [round_["prompt"] for round_ in path] == ["a small cat", "a large cat", "a large black cat"]
    assert [round_["on_path"] for round_ in report["rounds"]] == [True, False, True, True]
    assert path[1]["diff"] == [["same", "a "], ["removed", "small"], ["added", "large"], ["same", " cat"]]
    assert [round_["level"] for round_ in path] == [2.0, 7.0, 9.0]
    assert [round_["gain"] for round_ in path] == [None, 5.0, 2.0]
    assert [round_["regenerations"] for round_ in path] == [0, 0, 0], (
        "the other pictures were asked for on the branch beside"
    )
    assert rounds[report["branches"][0]["rounds"][-1]]["regenerations"] == 1
    assert path[0]["pictures"][1]["chosen"] and path[0]["pictures"][1]["stars"] == {"Ann": 5, "Bob": 5}
    assert rounds[report["branches"][0]["rounds"][-1]]["pictures"][0]["disliked"]
    assert report["open"]["prompt"] == "a large black cat, dusk" and report["open"]["feedback"] is None
    assert report["session"]["seed"] == str(2**64 - 1)
    audit = dict(report["audit"])
    entries = audit.pop("entries")
    assert audit == {
        "sound": True, "rows": len(entries), "last": sessions.verify(played.key).last, "problems": [],
    }  # fmt: skip
    assert [row["kind"] for row in entries] == [row.kind for row in sessions.audit_rows(played.key)]
    assert report["kpis"]["rounds"] == 3 and report["kpis"]["ratings"] == {"1": 2, "2": 4, "3": 5}
    assert report["agreement"]["units"] == 2
    assert report["several"] is None


def test_the_audit_chain_of_a_report_can_be_checked_without_the_store(sessions: SessionStore, played: SessionState):
    report = json.loads(json.dumps(session_report(sessions.record(played.key))))
    previous = ""
    for row in report["audit"]["entries"]:
        assert row["previous"] == previous
        body = json.dumps(row["body"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        told = [played.key, row["number"], row["made"], row["round"], row["kind"], body, previous]
        text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        previous = hashlib.sha256(text.encode()).hexdigest()
        assert row["own"] == previous, row
    assert previous == report["audit"]["last"]


def test_branches_and_their_comparison(sessions: SessionStore, played: SessionState):
    record = sessions.record(played.key)
    report = session_report(record)
    (aside, now) = report["branches"]
    assert (aside["current"], now["current"]) == (False, True)
    assert aside["rounds"][0] == now["rounds"][0] and len(now["rounds"]) == 3
    compared = comparison_report(record, aside["rounds"][-1], now["rounds"][-1])
    assert [len(compared[name]) for name in ("common", "first", "second")] == [1, 1, 2]
    assert "".join(text for kind, text in compared["diff"] if kind != "added") == "a big cat"
    assert (compared["first_level"], compared["second_level"], compared["judge"]) == (5.5, 9.0, "judge")
    with pytest.raises(UnknownError):
        comparison_report(record, "0" * 32, now["rounds"][-1])


def test_several_sessions_and_a_test_of_two_arms(sessions: SessionStore):
    for number in range(4):
        schedule = Schedule("linear", 4, 1.0, (number,), arm="AB"[number % 2], test="type karras")
        state = sessions.create(f"session {number}", "a cat")
        play(sessions, state, (number,), Feedback(liked=(0,), accepted=number < 3), schedule=schedule)
    keys = [found.key for found in sessions.summaries()]
    report = documented(sessions, keys[0], several=[sessions.record(key) for key in keys])
    assert (report["several"]["accepted"], report["several"]["sessions"]) == (3, 4)
    (test,) = report["several"]["tests"]
    assert (test["test"], test["a"]) == ("type karras", {"accepted": 2, "sessions": 2})
    assert "type karras: " in test["words"] and "A 2 of 2 against B 1 of 2" in test["words"]
    page = Page(report_html(report, sessions.files(keys[0]).pictures.get))
    assert "1 of them are given up or still open" in page.words
    assert "3 of 4 sessions" in page.words and "A 2 of 2 against B 1 of 2" in page.words


def test_an_empty_session_has_a_report(sessions: SessionStore):
    key = sessions.create("cats", "").key
    report = documented(sessions, key)
    assert (report["rounds"], report["path"], report["open"], report["branches"]) == ([], [], None, [])
    assert "No round has been answered yet" in page_of(sessions, key)[1].words
    assert report_picture(report, sessions.files(key).pictures.get).shape[-2:] == (WIDTH, 3)


# ---- the page ----


def test_the_page_tells_what_the_document_tells(sessions: SessionStore, played: SessionState):
    page, read = page_of(sessions, played.key)
    told = [
        "cats", "a small cat", "bigger", "lovely", "Waiting for an answer", "Branches side by side", "judge",
        "without: blur", "5.0 ★ by 2", "Branches", "as they were written", str(2**64 - 1),
    ]  # fmt: skip
    for words in told:
        assert words in read.words, words
    assert read.tags.count("ins") == read.tags.count("del") + 2, "one word replaced, twice words added; the comparison"
    branches, compared = 2 + 3 - 1, 2
    assert len(read.images) == 2 + 2 + 1 + 2 + branches + compared, "the way, the open round, chosen ones, both ends"
    assert "prefers-color-scheme: dark" in page and "@media print" in page


def test_the_page_loads_and_runs_nothing(sessions: SessionStore, played: SessionState):
    page, _ = page_of(sessions, played.key)
    assert "default-src 'none'" in page
    without_pictures = re.sub(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", "", page)
    assert not re.search(r"https?:|//\w|@import|url\(|<script|<link|<iframe", without_pictures)


@pytest.mark.parametrize("attack", ATTACKS)
def test_words_stay_words_wherever_they_stand(sessions: SessionStore, attack: str):
    """Every text that people, models or other packs can give."""
    state = sessions.create(f"n {attack}", f"p {attack}", f"g {attack}")
    weights = Weights(f"u {attack}", {f"w {attack}": 1.0}, {f"w {attack}": 2.0})
    schedule = Schedule("linear", 4, 1.0, (1, 2), sampler=f"s {attack}", arm=f"a {attack}")
    inputs = made(weights=weights, schedule=schedule, lora=f"l {attack}", prompt=f"q {attack}")
    pictures = [dataclasses.replace(picture, scores={f"r {attack}": 1.0}) for picture in inputs["pictures"]]
    for turn in range(2):
        said = Feedback(f"c {attack} {turn}", liked=(0,), rater=f"t {attack}", rating=3)
        state = play(sessions, state, (1, 2), said, **{**inputs, "pictures": pictures})
        sessions.rate(state.key, state.last.key, f"v {attack}", {0: 3})
    state = sessions.branch(state.key, state.revision, None)
    report = documented(sessions, state.key, several=[sessions.record(state.key)])
    report["audit"]["problems"] = [f"x {attack}"]
    report["path"] = [round_["key"] for round_ in report["rounds"]]
    read = Page(report_html(report, sessions.files(state.key).pictures.get))
    shown = "".join(
        chr(0x2400 + ord(letter)) if ord(letter) < 32 else "\ufffd" if letter == "\x85" else letter for letter in attack
    )
    name = sessions.find(state.key).name
    for words in (name, *(f"{mark} {shown}" for mark in "pgqcrwusatx")):
        assert words in read.words, words
    assert read.tags.count("img") == len(read.images) > 4
    assert report_picture(report, sessions.files(state.key).pictures.get).isfinite().all()


def test_the_direction_of_a_text_stays_its_own(sessions: SessionStore):
    text = "\u202eabc اجعل القطة أكبر"
    page, _ = page_of(sessions, play(sessions, sessions.create("cats", text), prompt=text).key)
    for found in re.finditer("\u202eabc", page):
        before = page[: found.start()]
        assert before.rfind("<bdi") > max(before.rfind("</bdi"), before.rfind("<p"))


def test_a_very_long_comment_is_folded_away(sessions: SessionStore):
    state = play(sessions, sessions.create("cats", "a cat"), feedback=Feedback("meow " * 20_000, liked=(0,)))
    page, read = page_of(sessions, state.key)
    assert read.tags.count("details") == 1 and "all 100000 letters" in read.words
    assert page.count("meow") == 20_000 + 300


def test_pictures_are_small_and_their_own(sessions: SessionStore):
    state = sessions.create("cats", "a cat")
    large = np.zeros((900, 600, 3), np.uint8)
    large[:, :300] = (255, 0, 0)
    round_ = propose_pixels(sessions, state, large)
    sessions.commit(state.key, state.revision, round_, Feedback(liked=(0,)))
    (content,) = page_of(sessions, state.key)[1].images
    image = Image.open(BytesIO(content))
    assert image.size == (224, 336) and len(content) < 20_000
    assert image.getpixel((20, 100))[0] > 240 and image.getpixel((200, 100))[0] < 15


def propose_pixels(sessions: SessionStore, state: SessionState, pixels: np.ndarray) -> str:
    name = picture_hash(pixels)
    schedule = Schedule("linear", 4, 1.0, (1,))
    inputs = {"prompt": "a cat", "schedule": schedule, "pictures": [Picture(name, 1)], "pixels": {name: pixels}}
    return sessions.propose(state.key, state.revision, **inputs).key


def test_a_picture_that_is_gone_leaves_a_note(sessions: SessionStore, played: SessionState):
    files = sessions.files(played.key).pictures
    files.remove(list(files.names()))
    _, read = page_of(sessions, played.key)
    assert not read.images and read.words.count("not there any more") == 13
    picture = report_picture(documented(sessions, played.key), files.get)
    assert picture.shape[-2:] == (WIDTH, 3)


def test_an_edited_session_is_told_on_page_and_picture(sessions: SessionStore, played: SessionState):
    before = report_picture(documented(sessions, played.key), sessions.files(played.key).pictures.get)
    with sessions.store.writing() as connection:
        connection.execute("UPDATE session_rounds SET prompt = 'a dog' WHERE prompt = 'a large cat'")
    _, read = page_of(sessions, played.key)
    assert "Audit: something was changed" in read.words and "was edited" in read.words
    after = report_picture(documented(sessions, played.key), sessions.files(played.key).pictures.get)
    assert not torch.equal(before[:, -60:], after[:, -60:])


# ---- the picture ----


def colour(name: str) -> torch.Tensor:
    return torch.tensor([int(name[place : place + 2], 16) / 255 for place in (1, 3, 5)])


def pixels_like(picture: torch.Tensor, name: str) -> int:
    return int(((picture - colour(name)).abs().amax(-1) < 0.06).sum())


def drawn(sessions: SessionStore, key: str) -> torch.Tensor:
    return report_picture(documented(sessions, key), sessions.files(key).pictures.get)


def test_the_picture_is_an_image_of_the_host(sessions: SessionStore, played: SessionState):
    picture = drawn(sessions, played.key)
    assert picture.dtype == torch.float32 and picture.ndim == 4 and picture.shape[0] == 1
    assert picture.shape[2:] == (WIDTH, 3) and picture.min() >= 0 and picture.max() <= 1


def test_the_chosen_picture_is_framed(sessions: SessionStore):
    state = sessions.create("cats", "a cat")
    round_ = propose(sessions, state, (1, 2))
    before = pixels_like(drawn(sessions, state.key), GOOD)
    sessions.commit(state.key, 0, round_.key, Feedback(liked=(1,)))
    after = drawn(sessions, state.key)
    frame = ((after[0] - colour(GOOD)).abs().amax(-1) < 0.06).nonzero()
    assert len(frame) > before + 1500, "pictures of noise have some of the colour too"
    assert frame[:, 1].float().median() > 400, "the second of two"


def test_the_pictures_themselves_are_drawn(sessions: SessionStore):
    state = sessions.create("cats", "a cat")
    plain = np.full((64, 64, 3), (10, 200, 90), np.uint8)
    round_ = propose_pixels(sessions, state, plain)
    sessions.commit(state.key, 0, round_, Feedback(liked=(0,)))
    assert pixels_like(drawn(sessions, state.key), "#0ac85a") > 30_000


def test_a_long_session_is_bounded(sessions: SessionStore):
    state = sessions.create("cats", "a cat")
    heights = []
    for turn in range(MOST_ROUNDS + 4):
        state = play(sessions, state, (2 * turn, 2 * turn + 1))
        if turn in (0, MOST_ROUNDS - 1, MOST_ROUNDS + 3):
            heights.append(drawn(sessions, state.key).shape[1])
    assert heights[1] > 5 * heights[0]
    assert heights[2] - heights[1] == 30, "a line that says how many are left out"


@pytest.mark.parametrize("count", [1, 3, 5, 6, 16, 64])
def test_any_number_of_pictures_stays_in_its_row(sessions: SessionStore, count: int):
    state = play(sessions, sessions.create("cats", "a cat"), range(count), Feedback("x", liked=(count - 1,)))
    picture = drawn(sessions, state.key)
    assert pixels_like(picture, GOOD) > 300, "the chosen one is among those that are shown"
    between = picture[0, 140:200, 20 + 56 + 640 + 8 : 20 + 56 + 640 + 22]
    assert pixels_like(between, PANEL) == between.shape[0] * between.shape[1]


@pytest.mark.parametrize(
    "text",
    ["word " * 4000, "x" * 5000, "语" * 300, "اجعل القطة " * 60, "👩‍👩‍👧‍👦🐈‍⬛", "", "\x00\x01\u202e", "हिन्दी में"],
)
def test_no_text_leaves_its_place(sessions: SessionStore, text: str):
    state = sessions.create("cats", text)
    said = Feedback(text, liked=(0,))
    scores = [Picture(made()["pictures"][0].hash, 1, {text[:100] or "judge": 1.0})]
    weights = Weights("rule", {}, {text[:100] or "judge": 1.0})
    pixels = {scores[0].hash: pixels_of(1)}
    for _ in range(2):
        inputs = {"prompt": text, "pictures": scores, "pixels": pixels, "weights": weights}
        state = play(sessions, state, (1, 2), said, **inputs)
    picture = drawn(sessions, state.key)
    assert picture.shape[1] < 1200
    edge = picture[0, :, -20:]
    assert int((edge.amax(-1) > 0.2).sum()) == 0, "nothing is written beyond the panel"
