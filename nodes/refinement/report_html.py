"""The report of a session as one HTML file: no script, nothing that is loaded, pictures inside. Ours.

Whatever people or models have written is escaped, may turn the direction of writing in its own place only, and shows
its control characters. A content policy forbids the page to run or load anything, should a hole be left.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from .checks import UnknownError
from .report_charts import Line, line_chart, signed
from .report_style import STYLE

# Hash of a picture → uint8 [h, w, 3]; raises UnknownError where it is gone.
Pictures = Callable[[str], np.ndarray]

LARGE, SMALL = 336, 168
QUALITY = 82
# Longer texts are folded away.
_LONG = 1500
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_ADVICE = {"go on": "", "stop": "warn", "hand over": "warn"}


def report_html(report: Mapping[str, Any], pictures: Pictures) -> str:
    """The page.

    Args:
        report: what `report.session_report` made, before or after JSON.
        pictures: where the pictures are read from; those that are gone leave a note.
    """
    session, rounds = report["session"], {round_["key"]: round_ for round_ in report["rounds"]}
    path = [rounds[key] for key in report["path"]]
    largest = max((abs(weight) for round_ in path for weight in _after(round_).values()), default=1.0)
    shown = _Shown(pictures, largest, report["kpis"]["judge"])
    waiting = report["open"]
    parts = [
        _head(report),
        _tiles(report["kpis"]),
        _advice(report["kpis"]),
        _charts(path, report["kpis"]),
        "<h2>Rounds</h2>",
        f'<ol class="rounds">{"".join(shown.round(round_) for round_ in path)}</ol>' if path else _nothing(),
        f'<h2>Waiting for an answer</h2><ol class="rounds">{shown.round(waiting)}</ol>' if waiting else "",
        _branches(report, rounds, shown),
        _comparisons(report["comparisons"], shown),
        _agreement(report["agreement"]),
        _fairness(report["fairness"]),
        _several(report["several"]),
        _audit(report["audit"]),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(session['name'])}: refinement report</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def text(value: str) -> str:
    """Safe inside an element or a quoted attribute; control characters become visible signs."""
    return escape("".join(_seen(letter) for letter in value))


def _seen(letter: str) -> str:
    code = ord(letter)
    if letter in "\n\t" or 32 <= code < 127 or code >= 160:
        return letter
    return chr(0x2400 + code) if code < 32 else "\u2421" if code == 127 else "\ufffd"


def words(value: str) -> str:
    """A text as it was written, isolated; a very long one is folded away behind its beginning."""
    if len(value) <= _LONG:
        return f'<bdi class="words">{text(value)}</bdi>'
    return (
        f'<bdi class="words">{text(value[:_LONG])}…</bdi>'
        f'<details><summary>all {len(value)} letters</summary><bdi class="words">{text(value)}</bdi></details>'
    )


# ---- above the rounds ----


def _head(report: Mapping[str, Any]) -> str:
    session, kpis, audit = report["session"], report["kpis"], report["audit"]
    made = time.strftime("%Y-%m-%d %H:%M", time.gmtime(session["changed"]))
    chips = [("Accepted", "good") if kpis["accepted"] else ("Not accepted yet", "")]
    chips.append(("Audit: as it was written", "good") if audit["sound"] else ("Audit: something was changed", "bad"))
    if report["fairness"]["warns"]:
        chips.append(("Fairness: look at what choices or weights lean to", "warn"))
    negative = f'<p class="soft small">without: {words(session["negative"])}</p>' if session["negative"] else ""
    return (
        f"<header><h1><bdi>{text(session['name'])}</bdi></h1>"
        f'<p class="soft small">Refinement in rounds · {made} UTC · seed {text(session["seed"])}</p>'
        f'<p class="wish">{words(session["prompt"])}</p>{negative}'
        f'<div class="chips">{"".join(_chip(label, kind) for label, kind in chips)}</div></header>'
    )


def _chip(label: str, kind: str) -> str:
    return f'<span class="chip {kind}">{text(label)}</span>'


def _tiles(kpis: Mapping[str, Any]) -> str:
    tiles = [
        (str(kpis["rounds"]), "rounds on the way"),
        (str(kpis["rounds_to_accept"] or "–"), "rounds until accepted"),
        (str(kpis["regenerations"]), "times other pictures"),
        (_stars(kpis["satisfaction"]), "mean rating of 5"),
        (_number(kpis["seconds_per_round"], " s"), "to make a round"),
        (str(kpis["pictures"]), "pictures made"),
    ]
    cells = "".join(f'<div class="tile"><b>{text(value)}</b><span>{name}</span></div>' for value, name in tiles)
    return f'<div class="tiles">{cells}</div>'


def _stars(rating: float | None) -> str:
    return "–" if rating is None else f"{rating:.1f} ★"


def _number(value: float | None, unit: str = "") -> str:
    return "–" if value is None else signed(value) + unit


def _advice(kpis: Mapping[str, Any]) -> str:
    if kpis["accepted"]:
        return ""
    chip = _chip({"go on": "Go on"}.get(kpis["advice"], kpis["advice"].capitalize()), _ADVICE[kpis["advice"]])
    return f'<p class="advice">{chip} <span class="soft">{text(kpis["reason"])}</span></p>'


def _charts(path: Sequence[Mapping[str, Any]], kpis: Mapping[str, Any]) -> str:
    names = list(dict.fromkeys(name for round_ in path for name in _after(round_)))
    weights = [Line(name, [_after(round_).get(name) for round_ in path]) for name in names]
    rated = Line("rating", [round_["feedback"]["rating"] for round_ in path])
    charts = [
        line_chart([Line(kpis["judge"], kpis["levels"])], title="Score of the choice, by round"),
        line_chart(weights, title="Weights of the rewards, by round", includes=(0.0,)),
        line_chart([rated], title="Rating, by round", includes=(1.0, 5.0), ticks=5),
    ]
    found = [chart for chart in charts if chart] if len(path) > 1 else []
    return f'<h2>Over the rounds</h2><div class="charts">{"".join(found)}</div>' if found else ""


def _after(round_: Mapping[str, Any]) -> Mapping[str, float]:
    return round_["weights"]["after"] if round_["weights"] else {}


def _nothing() -> str:
    return '<p class="soft">No round has been answered yet.</p>'


# ---- rounds ----


class _Shown:
    """Rounds with their pictures. `largest`: weight that fills a bar."""

    def __init__(self, pictures: Pictures, largest: float, judge: str) -> None:
        self.pictures, self.largest, self.judge = pictures, largest or 1.0, judge

    def round(self, round_: Mapping[str, Any]) -> str:
        said, schedule = round_["feedback"], round_["schedule"]
        noise = "fresh noise" if schedule["fresh"] else "the last round's noise"
        facts = [
            f"{schedule['type']} · {schedule['steps']} steps · strength {signed(schedule['strength'])}",
            f"guidance {signed(schedule['guidance'])} · {schedule['sampler']} · {noise}",
            _number(round_["seconds"], " s"),
        ]
        if schedule["arm"]:
            facts.append(f"arm {schedule['arm']}" + (f" of “{schedule['test']}”" if schedule["test"] else ""))
        if round_["version"]:
            facts.append(f"made with the session's own LoRA, version {round_['version'][:12]}")
        if round_["regenerations"]:
            facts.append(f"other pictures asked for {round_['regenerations']}×")
        return (
            f'<li class="card"><div class="head"><h3>Round {round_["number"]}</h3>'
            f'<span class="soft small">{text(" · ".join(facts))}</span>{_gain(round_["gain"], self.judge)}</div>'
            f'<p class="diff">{_diff(round_["diff"])}</p>'
            f'<div class="pictures">{"".join(self._picture(picture) for picture in round_["pictures"])}</div>'
            f"{_said(said)}{self._weights(round_['weights'])}</li>"
        )

    def image(self, name: str, side: int) -> str:
        """An <img>, or a note where the picture is gone."""
        try:
            pixels = self.pictures(name)
        except UnknownError:
            return '<span class="frame missing">This picture is not there any more.</span>'
        small = Image.fromarray(pixels)
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        buffer = BytesIO()
        small.save(buffer, "JPEG", quality=QUALITY)
        content = base64.b64encode(buffer.getvalue()).decode()
        return f'<img alt="" width="{small.width}" height="{small.height}" src="data:image/jpeg;base64,{content}">'

    def _picture(self, picture: Mapping[str, Any]) -> str:
        mark = next((name for name in ("chosen", "liked", "disliked") if picture[name]), "")
        scores = "".join(
            f'<span class="score"><bdi>{text(name)}</bdi><span>{signed(score)}</span></span>'
            for name, score in picture["scores"].items()
        )
        stars = list(picture["stars"].values())
        rated = f"{sum(stars) / len(stars):.1f} ★ by {len(stars)}" if stars else ""
        if rated:
            scores += f'<span class="score"><span>rated</span><span>{rated}</span></span>'
        return (
            f'<figure class="{mark}"><span class="frame">{self.image(picture["hash"], LARGE)}</span>'
            f'<figcaption><span class="mark">{mark or "&nbsp;"}</span>{scores}'
            f'<span class="seed">seed {text(picture["seed"])}</span></figcaption></figure>'
        )

    def side(self, end: Mapping[str, Any], level: float | None, own: int, label: str) -> str:
        """The picture at the end of a branch, for a comparison."""
        pictures = end["pictures"]
        lead = next((picture for picture in pictures if picture["chosen"]), pictures[0])
        scores = "".join(
            f'<span class="score"><bdi>{text(name)}</bdi><span>{signed(score)}</span></span>'
            for name, score in lead["scores"].items()
        )
        judged = "" if level is None else f" · {signed(level)} {text(self.judge)}"
        return (
            f'<figure><span class="frame">{self.image(lead["hash"], LARGE)}</span><figcaption>'
            f'<span class="mark">{label}</span>{scores}'
            f'<span class="seed">round {end["number"]}, {own} of its own{judged}</span></figcaption></figure>'
        )

    def _weights(self, weights: Mapping[str, Any] | None) -> str:
        if not weights:
            return ""
        bars = []
        for name, after in weights["after"].items():
            before = weights["before"].get(name)
            told = (
                signed(round(after, 2)) if before is None else f"{signed(round(before, 2))} → {signed(round(after, 2))}"
            )
            was = "" if before is None else f'<u style="left:{self._share(before):.1f}%"></u>'
            bars.append(
                f'<div class="weight"><bdi>{text(name)}</bdi><span class="number">{told}</span><div class="track">'
                f'<i class="{"minus" if after < 0 else "plus"}" style="width:{self._share(after):.1f}%"></i>{was}'
                "</div></div>"
            )
        head = f'<p class="soft small below">weights by {text(weights["rule"])} (the tick: before)</p>'
        return f'{head}<div class="weights">{"".join(bars)}</div>'

    def _share(self, weight: float) -> float:
        return min(100.0, 100 * abs(weight) / self.largest)


def _gain(gain: float | None, judge: str) -> str:
    if gain is None:
        return ""
    sign, kind = ("+", "up") if gain > 0 else ("−", "down") if gain < 0 else ("±", "soft")
    return f'<span class="gain {kind}">{sign}{signed(abs(gain))} <bdi class="small">{text(judge)}</bdi></span>'


def _diff(parts: Sequence[Sequence[str]]) -> str:
    tags = {"same": ("<span>", "</span>"), "added": ("<ins>", "</ins>"), "removed": ("<del>", "</del>")}
    shown = sum(len(content) for _, content in parts)
    if shown > 3 * _LONG:
        return words("".join(content for kind, content in parts if kind != "removed"))
    return "".join(f'{tags[kind][0]}<bdi class="words">{text(content)}</bdi>{tags[kind][1]}' for kind, content in parts)


def _said(said: Mapping[str, Any] | None) -> str:
    if not said:
        return ""
    who = f"<b><bdi>{text(said['rater'])}</bdi>:</b> " if said["rater"] else ""
    rating = f'<span class="soft">{"★" * said["rating"]}{"☆" * (5 - said["rating"])}</span> ' if said["rating"] else ""
    accepted = _chip("This is it", "good") + " " if said["accepted"] else ""
    comment = words(said["comment"]) if said["comment"] else ""
    content = f"{accepted}{rating}{who}{comment}"
    return f"<blockquote>{content}</blockquote>" if content else ""


# ---- below the rounds ----


def _branches(report: Mapping[str, Any], rounds: Mapping[str, Mapping[str, Any]], shown: _Shown) -> str:
    if len(report["branches"]) < 2:
        return ""
    cards = []
    for branch in report["branches"]:
        steps = []
        for key in branch["rounds"]:
            chosen = next((picture for picture in rounds[key]["pictures"] if picture["chosen"]), None)
            steps.append(shown.image(chosen["hash"], SMALL) if chosen else '<span class="soft">nothing chosen</span>')
        marks = [("now", "", branch["current"]), ("accepted", "good", branch["accepted"])]
        chips = "".join(_chip(name, kind) for name, kind, holds in marks if holds)
        level = f'<span class="soft small">score {_number(branch["level"])}</span>'
        cards.append(
            f'<li class="card"><div class="head"><h3>{len(branch["rounds"])} rounds</h3>{chips}{level}</div>'
            f'<p class="diff">{words(branch["prompt"])}</p><div class="strip">{"<span>→</span>".join(steps)}</div></li>'
        )
    return f'<h2>Branches</h2><ol class="rounds">{"".join(cards)}</ol>'


def _comparisons(found: Sequence[Mapping[str, Any]], shown: _Shown) -> str:
    cards = []
    for compared in found:
        sides = [
            shown.side(compared[f"{side}_end"], compared[f"{side}_level"], len(compared[side]), label)
            for side, label in (("first", "The other branch"), ("second", "Now"))
        ]
        shared = len(compared["common"])
        told = f"{shared} rounds in common" if shared != 1 else "1 round in common"
        cards.append(
            f'<div class="card"><p class="soft small">{told}; from the other branch\'s prompt to the one now:</p>'
            f'<p class="diff">{_diff(compared["diff"])}</p><div class="pictures">{"".join(sides)}</div></div>'
        )
    return f"<h2>Branches side by side</h2>{''.join(cards)}" if cards else ""


def _agreement(found: Mapping[str, Any]) -> str:
    if not found["units"]:
        return ""
    alpha = "undefined" if found["alpha"] is None else f"{found['alpha']:.2f}"
    interval = found["interval"]
    between = f", between {interval[0]:.2f} and {interval[1]:.2f}" if interval else ""
    return (
        f'<h2>Agreement of the raters</h2><div class="card"><p>Krippendorff\'s alpha ({found["level"]}): <b>{alpha}</b>'
        f"{between}, of {found['units']} pictures and {found['raters']} raters.</p>"
        f'<p class="soft">{text(found["words"])}</p></div>'
    )


def _fairness(found: Mapping[str, Any]) -> str:
    rows = []
    for part in found["measured"]:
        low, high = part["interval"]
        told = f"distance {part['distance']:.2f}, between {low:.2f} and {high:.2f}"
        moved = ", ".join(
            f"{value} {100 * expected:.0f} → {100 * seen:.0f} %" for value, (expected, seen) in part["shares"].items()
        )
        chip = _chip("leans", "warn") if part["warns"] else ""
        rows.append(
            f"<tr><th>{text(part['of'])}, {text(part['attribute'])}</th><td>{text(moved)}</td>"
            f'<td class="soft">{told}</td><td>{chip}</td></tr>'
        )
    table = f"<table>{''.join(rows)}</table>" if rows else ""
    how = (
        "Left of the arrow: the share of that look if as many had been drawn at random in the same rounds (choices) "
        "or ranked first by equal weights (weights). It warns where the whole 95 % interval of the distance lies above "
        f"{found['bound']:g} and chance alone hardly reaches it."
    )
    note = f'<p class="soft small below">{text(how)}</p>' if rows else ""
    return f'<h2>Fairness</h2><div class="card"><p>{text(found["words"])}</p>{table}{note}</div>'


def _several(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    low, high = (f"{100 * bound:.0f}" for bound in found["acceptance"])
    rows = [
        ("who counts", found["words"]),
        ("accepted", f"{found['accepted']} of {found['sessions']} sessions ({low} to {high} %)"),
        ("rounds until accepted", _number(found["rounds_to_accept"])),
        ("times other pictures, per session", _number(found["regenerations"])),
        ("questions answered, per session", _number(found["choices"])),
        ("mean rating", _stars(found["satisfaction"])),
        ("seconds to make a round", _number(found["seconds_per_round"])),
    ]
    rows += [(f"accepted by round {by}", f"{100 * share:.0f} %") for by, share in found["accepted_by"].items()]
    rows += [("A/B test", test["words"]) for test in found["tests"]]
    table = "".join(f"<tr><th>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in rows)
    return f'<h2>Several sessions</h2><div class="card"><table>{table}</table></div>'


def _audit(found: Mapping[str, Any]) -> str:
    if found["sound"]:
        verdict = f"{found['rows']} changes; rows, order and rounds are as they were written."
    else:
        verdict = "Something was changed behind the session's back:"
    problems = "".join(f"<li>{text(problem)}</li>" for problem in found["problems"])
    return (
        f'<h2>Audit</h2><div class="card"><p>{verdict}</p>{f"<ul>{problems}</ul>" if problems else ""}'
        f'<p class="soft small">Hash of the last change: <code>{text(found["last"])}</code></p></div>'
    )
