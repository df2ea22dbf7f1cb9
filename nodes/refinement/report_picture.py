"""The rounds of a session as one picture: what was shown and chosen, what changed in words and weights. Ours."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from ..drawing import BAD, COLOURS, GOOD, GRID, MUTED, TEXT, Canvas, short_number, text_width, to_tensor, wrapped
from .checks import UnknownError
from .report_html import Pictures

WIDTH = 1200
# Of a longer session the first round and the last ones are shown.
MOST_ROUNDS = 12
MOST_PICTURES = 16
_EDGE, _GAP, _PAD = 20, 8, 16
_NUMBER, _STRIP = 56, 640
_TALLEST, _CAPTION = 190, 20
_HEADER, _FOOT_LINE = 112, 22
_LINE, _SIZE = 20, 14
_MOST_LINES, _MOST_COMMENT, _MOST_WEIGHTS = 6, 3, 5
# Letters of one piece of text; no more would fit.
_LONGEST = 400
# To how many words unchanged and removed parts of a long prompt are shortened, one after the other.
_SHORTENED = (None, 24, 12, 6)
_WEIGHT_ROW, _BAR = 19, 150

# With variation selectors, which ask for a letter's coloured form.
_PICTOGRAPHS = re.compile("[\U0001f000-\U0001faff\u2b00-\u2bff\ufe00-\ufe0f]")
_JOINERS = "\u200c\u200d"

Round = Mapping[str, Any]


def report_picture(report: Mapping[str, Any], pictures: Pictures) -> torch.Tensor:
    """Draw the way to the head, and below it the round that waits for an answer.

    Args:
        report: what `report.session_report` made, before or after JSON.
        pictures: where the pictures are read from; those that are gone leave a note.

    Returns:
        float32 [1, h, w, 3] in [0, 1].
    """
    by_key = {round_["key"]: round_ for round_ in report["rounds"]}
    rounds = [by_key[key] for key in report["path"]] + ([report["open"]] if report["open"] else [])
    left_out = max(0, len(rounds) - MOST_ROUNDS)
    shown = rounds if not left_out else [rounds[0], *rounds[1 + left_out :]]
    largest = max((abs(weight) for round_ in shown for weight in _after(round_).values()), default=0) or 1.0
    rows = [_Row(round_, report["kpis"]["judge"], largest, pictures) for round_ in shown]
    gap = 30 if left_out else 0
    body = sum(row.height + _GAP for row in rows) or 80
    canvas = Canvas(WIDTH, round(_HEADER + body + gap + _foot_height(report)))
    _head(canvas, report)
    if not rows:
        canvas.text(WIDTH / 2, _HEADER + 36, "No round yet", size=18, colour=MUTED, anchor="mm")
    top = float(_HEADER)
    for place, row in enumerate(rows):
        row.draw(canvas, top)
        top += row.height + _GAP
        if left_out and place == 0:
            words = f"… {left_out} round{'' if left_out == 1 else 's'} between …"
            canvas.text(WIDTH / 2, top + gap / 2 - _GAP / 2, words, colour=MUTED, anchor="mm")
            top += gap
    _foot(canvas, report)
    return to_tensor(canvas.finish())


# ---- above and below ----


def _head(canvas: Canvas, report: Mapping[str, Any]) -> None:
    session, kpis = report["session"], report["kpis"]
    width = WIDTH - 2 * _EDGE - 330
    canvas.text(_EDGE, 16, _line(session["name"], width, 24), size=24, bold=True)
    canvas.text(_EDGE, 51, _line(session["prompt"], width, 15), size=15)
    facts = [f"{kpis['rounds']} round{'' if kpis['rounds'] == 1 else 's'}"]
    facts.append("accepted" if kpis["accepted"] else "not accepted yet")
    if kpis["regenerations"]:
        facts.append(
            "other pictures " + {1: "once", 2: "twice"}.get(kpis["regenerations"], f"{kpis['regenerations']} times")
        )
    if kpis["satisfaction"] is not None:
        facts.append(f"rated {kpis['satisfaction']:.1f} of 5")
    if kpis["seconds_per_round"] is not None:
        facts.append(f"{short_number(kpis['seconds_per_round'])} s a round")
    colour = GOOD if kpis["accepted"] else MUTED
    canvas.text(_EDGE, 79, "  ·  ".join(facts), size=14, colour=colour)
    _levels(canvas, kpis)


def _levels(canvas: Canvas, kpis: Mapping[str, Any]) -> None:
    """The judge's score of what was chosen, as a small line at the right."""
    known = [(place, level) for place, level in enumerate(kpis["levels"]) if level is not None]
    if len(known) < 2:
        return
    left, right, top, bottom = WIDTH - _EDGE - 300, WIDTH - _EDGE, 14, 98
    canvas.panel(left, top, right, bottom)
    canvas.text(left + 12, top + 8, f"{_line(kpis['judge'], 180, 12)}, of the chosen", size=12, colour=MUTED)
    low, high = min(level for _, level in known), max(level for _, level in known)
    plot = (left + 70, top + 36, right - 70, bottom - 14)
    points = [
        (
            plot[0] + (plot[2] - plot[0]) * place / max(1, len(kpis["levels"]) - 1),
            plot[3] - ((level - low) / (high - low) if high > low else 0.5) * (plot[3] - plot[1]),
        )
        for place, level in known
    ]
    canvas.line(points, COLOURS["reward"], width=2.2)
    for point in points:
        canvas.dot(*point, COLOURS["reward"])
    for anchor, x, (_, level), (_, y) in (("rm", -8, known[0], points[0]), ("lm", 8, known[-1], points[-1])):
        place = points[0][0] if anchor == "rm" else points[-1][0]
        canvas.text(place + x, y, _number(level), size=13, colour=TEXT, anchor=anchor)


def _foot_height(report: Mapping[str, Any]) -> int:
    return _FOOT_LINE * (2 if report["kpis"]["accepted"] else 3) + 14


def _foot(canvas: Canvas, report: Mapping[str, Any]) -> None:
    kpis, audit = report["kpis"], report["audit"]
    y = canvas.height - _foot_height(report) + 6
    if not kpis["accepted"]:
        canvas.text(_EDGE, y, _line(kpis["reason"], WIDTH - 2 * _EDGE, 13), size=13)
        y += _FOOT_LINE
    fair = report["fairness"]
    told = _line(fair["words"], WIDTH - 2 * _EDGE, 13)
    canvas.text(_EDGE, y, told, size=13, colour=COLOURS["loss"] if fair["warns"] else MUTED)
    y += _FOOT_LINE
    if audit["sound"]:
        verdict, colour = f"Audit: {audit['rows']} changes, as they were written", MUTED
    else:
        verdict, colour = "Audit: something was changed behind the session's back", BAD
    branches = len(report["branches"])
    more = f"  ·  {branches} branches" if branches > 1 else ""
    canvas.text(_EDGE, y, f"{verdict} ({audit['last'][:16]}…){more}", size=13, colour=colour)


# ---- one round ----


class _Row:
    """One round: measured first, then drawn.

    Args:
        judge: whose score stands below the pictures. largest: weight that fills a bar.
    """

    def __init__(self, round_: Round, judge: str, largest: float, pictures: Pictures) -> None:
        self.round, self.judge, self.largest = round_, judge, largest
        self.left = _EDGE + _NUMBER
        self.right = self.left + _STRIP + 24
        self.width = WIDTH - _EDGE - _PAD - self.right
        # The chosen one is among those that are shown.
        order = sorted(range(len(round_["pictures"])), key=lambda place: not round_["pictures"][place]["chosen"])
        self.shown = sorted(order[:MOST_PICTURES])
        self.images = [_read(pictures, round_["pictures"][place]["hash"]) for place in self.shown]
        self.columns = len(self.shown) if len(self.shown) <= 5 else -(-len(self.shown) // 2)
        self.cell = (_STRIP - (self.columns - 1) * _GAP) / self.columns
        self.tall = min(_TALLEST, max(self.cell * image.height / image.width for image in self.images))
        self.words = _flow(round_["diff"], self.width)
        said = round_["feedback"]
        comment = _plain(said["comment"]) if said else ""
        self.comment = wrapped(f"“{comment}”", self.width - 12, size=_SIZE, lines=_MOST_COMMENT) if comment else []
        after = _after(round_)
        self.weights = sorted(after, key=lambda name: -abs(after[name]))[:_MOST_WEIGHTS]

    @property
    def height(self) -> float:
        strip = -(-len(self.shown) // self.columns) * (self.tall + _CAPTION + 4)
        said = 10 + _LINE * len(self.comment) if self.comment else 0
        weights = 12 + _WEIGHT_ROW * len(self.weights) if self.weights else 0
        return 2 * _PAD + max(strip, _LINE * len(self.words) + 24 + said + weights)

    def draw(self, canvas: Canvas, top: float) -> None:
        canvas.panel(_EDGE, top, WIDTH - _EDGE, top + self.height)
        self._number(canvas, top)
        for place, (index, image) in enumerate(zip(self.shown, self.images, strict=True)):
            x = self.left + place % self.columns * (self.cell + _GAP)
            y = top + _PAD + place // self.columns * (self.tall + _CAPTION + 4)
            self._picture(canvas, self.round["pictures"][index], image, x, y)
        self._beside(canvas, top + _PAD)

    def _number(self, canvas: Canvas, top: float) -> None:
        x = _EDGE + _NUMBER / 2
        canvas.text(x, top + _PAD + 12, str(self.round["number"]), size=24, bold=True, anchor="mm")
        said = self.round["feedback"]
        if said is None:
            canvas.text(x, top + _PAD + 38, "open", size=12, colour=MUTED, anchor="mm")
        elif said["rating"] is not None:
            canvas.text(x, top + _PAD + 38, f"{said['rating']} of 5", size=12, colour=MUTED, anchor="mm")
        if said and said["accepted"]:
            canvas.text(x, top + _PAD + 58, "this is it", size=12, colour=GOOD, anchor="mm")
        if self.round["attempt"]:
            words = f"try {self.round['attempt'] + 1}"
            canvas.text(x, top + self.height - _PAD - 8, words, size=12, colour=MUTED, anchor="mm")

    def _picture(self, canvas: Canvas, picture: Mapping[str, Any], image: Image.Image, x: float, y: float) -> None:
        scale = min(self.cell / image.width, self.tall / image.height)
        width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        left, top = x + (self.cell - width) / 2, y + (self.tall - height) / 2
        canvas.picture(image, left, top, width, height)
        colour = GOOD if picture["chosen"] or picture["liked"] else BAD if picture["disliked"] else MUTED
        if picture["chosen"]:
            canvas.frame(left - 3, top - 3, left + width + 3, top + height + 3, GOOD, width=3)
        mark = next((name for name in ("chosen", "liked", "disliked") if picture[name]), "")
        score = _number(picture["scores"][self.judge]) if self.judge in picture["scores"] else ""
        captions = (f"{mark}  {score}", score or mark, "")
        caption = next(words for words in captions if text_width(words, 13) <= self.cell)
        canvas.text(x + self.cell / 2, y + self.tall + 12, caption.strip(), size=13, colour=colour, anchor="mm")

    def _beside(self, canvas: Canvas, y: float) -> None:
        for line in self.words:
            x = self.right
            for kind, word in line:
                colour = {"added": GOOD, "removed": BAD}.get(kind, TEXT)
                width = canvas.text(x, y, word, size=_SIZE, colour=colour)
                if kind == "removed" and word.strip():
                    canvas.line([(x, y + 9), (x + text_width(word.rstrip(), _SIZE), y + 9)], BAD, width=1.2)
                x += width
            y += _LINE
        schedule = self.round["schedule"]
        facts = f"{schedule['type']}, {schedule['steps']} steps, strength {short_number(schedule['strength'])}"
        canvas.text(self.right, y + 3, _line(facts, self.width - 60, 12), size=12, colour=MUTED)
        gain = self.round["gain"]
        if gain is not None:
            told, colour = (
                _number(gain) if gain < 0 else f"+{_number(gain)}",
                GOOD if gain > 0 else BAD if gain else MUTED,
            )
            canvas.text(self.right + self.width, y + 3, told, size=12, colour=colour, anchor="ra")
        y += 24
        if self.comment:
            canvas.line([(self.right + 1, y + 10), (self.right + 1, y + 8 + _LINE * len(self.comment))], MUTED, width=2)
            for number, line in enumerate(self.comment):
                canvas.text(self.right + 12, y + 8 + _LINE * number, line, size=_SIZE, colour=MUTED)
            y += 10 + _LINE * len(self.comment)
        for number, name in enumerate(self.weights):
            self._weight(canvas, name, y + 12 + _WEIGHT_ROW * (number + 0.5))

    def _weight(self, canvas: Canvas, name: str, y: float) -> None:
        """The bar is the weight after the round, the tick what it was before."""
        label = _line(name, self.width - _BAR - 60, 12)
        canvas.text(self.right, y, label, size=12, colour=MUTED, anchor="lm")
        left, after = self.right + self.width - _BAR - 48, _after(self.round)[name]
        canvas.line([(left, y), (left + _BAR, y)], GRID, width=6)
        reach = _BAR * min(1.0, abs(after) / self.largest)
        canvas.line([(left, y), (left + reach, y)], COLOURS["loss"] if after < 0 else COLOURS["reward"], width=6)
        before = self.round["weights"]["before"].get(name)
        if before is not None:
            x = left + _BAR * min(1.0, abs(before) / self.largest)
            canvas.line([(x, y - 6), (x, y + 6)], TEXT, width=1.6)
        told = f"{after:.2f}".replace("-", "−")
        canvas.text(self.right + self.width, y, told, size=12, colour=TEXT, anchor="rm")


# ---- words ----


def _after(round_: Round) -> Mapping[str, float]:
    return round_["weights"]["after"] if round_["weights"] else {}


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _plain(text: str) -> str:
    """One line, without letters that no font here draws (pictographs) or that turn the direction of what follows."""
    kept = ""
    for letter in text[:_LONGEST]:
        kind = unicodedata.category(letter)
        if kind in ("Cc", "Zl", "Zp"):
            kept += " "
        elif (kind != "Cf" or letter in _JOINERS) and not _PICTOGRAPHS.match(letter):
            kept += letter
    return " ".join(kept.split())


def _line(text: str, width: float, size: int) -> str:
    """A text as one line that fits."""
    return next(iter(wrapped(_plain(text), width, size=size, lines=1)), "")


def _flow(parts: Sequence[Sequence[str]], width: float) -> list[list[tuple[str, str]]]:
    """The words of a prompt's diff in lines of (kind, text). If it is too long, parts lose their middles, then its end.

    A text that runs from right to left is drawn without the marks of its changes: cut into words it would stand in the
    wrong order.
    """
    plain = " ".join(_plain(text) for kind, text in parts if kind != "removed")
    if any(unicodedata.bidirectional(letter) in ("R", "AL", "AN") for letter in plain):
        return [[("same", line)] for line in wrapped(plain, width, size=_SIZE, lines=_MOST_LINES)]
    for most in _SHORTENED:
        lines = _lines(_words([(kind, _shortened(text, kind, most)) for kind, text in parts]), width)
        if len(lines) <= _MOST_LINES:
            return lines
    return [*lines[: _MOST_LINES - 1], [*lines[_MOST_LINES - 1], ("same", "…")]]


def _shortened(text: str, kind: str, most: int | None) -> str:
    """A text of more than `most` words without its middle; what was added is kept."""
    words = text.split()
    if most is None or kind == "added" or len(words) <= most:
        return text
    lead, trail = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    return f"{lead}{' '.join(words[: most // 2])} … {' '.join(words[-(most // 2) :])}{trail}"


def _words(parts: Sequence[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """What must stay together, each with the space behind it: a word may be the same in one half, new in the other."""
    found: list[list[tuple[str, str]]] = [[]]
    for kind, text in parts:
        for token in re.findall(r"\s+|\S+", text):
            if token.isspace():
                if found[-1]:
                    found[-1].append((kind, " "))
                    found.append([])
            else:
                if kind == "added" and found[-1] and found[-1][-1][0] == "removed":
                    found[-1].append(("same", " "))
                    found.append([])
                found[-1].append((kind, _plain(token)))
    return [word for word in found if word]


def _lines(words: Sequence[list[tuple[str, str]]], width: float) -> list[list[tuple[str, str]]]:
    lines: list[list[tuple[str, str]]] = []
    used = 0.0
    for word in words:
        taken = sum(text_width(text, _SIZE) for _, text in word)
        if taken > width:
            word = [(word[0][0], _line("".join(text for _, text in word), width, _SIZE))]
        if not lines or used + taken > width:
            lines.append([])
            used = 0.0
        lines[-1] += word
        used += taken
    return lines


def _read(pictures: Pictures, name: str) -> Image.Image:
    try:
        return Image.fromarray(pictures(name))
    except UnknownError:
        return Image.new("RGB", (64, 64), GRID)
