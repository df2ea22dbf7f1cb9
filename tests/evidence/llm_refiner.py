"""llm-refiner: written feedbacks carried out by the rules, and by a real small language model.

The feedbacks and what each must bring about are in _feedbacks.json, written before there was a grammar. The grammar was
looked at with one half ("seen"); the claim is its share of the other half ("held out"). Both halves have one author,
who is the grammar's: they show what it does with words it was not tuned on, not what strangers write.

The language model is SmolLM2-135M-Instruct in 4 bits, by the same instructions that any model gets. Its share counts an
answer that cannot be used as not carried out; "with the rules behind it" is what a person gets, since then the rules
take over. The design sets no goal for it: it is recorded beside, as measured.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...nodes.refinement.language_models import load_language_model
from ...nodes.refinement.refiner import LocalBackEnd, Refined, refine
from ...scripts.environment import fetch_language_model
from . import _feedbacks
from .ocr_reward import wilson
from .record import Claim, Stopwatch, record

CLAIM = Claim("llm-refiner", 0.9, ">=", "of feedbacks", "edits carried out by the rules, of 50 held-out feedbacks")
HALVES = ("seen", "held out")
QUICK = 5
Refiner = Callable[[dict[str, Any]], Refined]


def by_rules(entry: dict[str, Any]) -> Refined:
    return refine(entry["prompt"], entry["negative"], entry["feedback"])


def measure(entries: list[dict[str, Any]], refiner: Refiner) -> list[dict[str, Any]]:
    """One row per feedback: what came out, and whether it is what was asked for."""
    rows = []
    for entry in entries:
        watch = Stopwatch()
        found = refiner(entry)
        said = bool(found.unread or found.refused or found.question)
        rows.append(
            {
                "id": entry["id"],
                "half": entry["half"],
                "prompt": found.prompt,
                "negative": found.negative,
                "met": _feedbacks.met(entry, found.prompt, found.negative, said=said),
                "fell_back": found.fell_back,
                "reason": found.reason,
                "seconds": round(watch.seconds, 2),
            }
        )
        if len(rows) % 10 == 0:
            print(f"{len(rows)} of {len(entries)}: {share(rows):.2f}", flush=True)
    return rows


def share(rows: list[dict[str, Any]], *, alone: bool = False, half: str | None = None) -> float:
    """Of the rows of a half; `alone`: what the rules had to do does not count."""
    rows = [row for row in rows if half in (None, row["half"])]
    return statistics.fmean(row["met"] and not (alone and row["fell_back"]) for row in rows)


def main(quick: bool) -> None:
    watch = Stopwatch()
    entries = [entry for half in HALVES for entry in _feedbacks.entries(half)[: QUICK if quick else None]]
    rules = measure(entries, by_rules)
    model = load_language_model(fetch_language_model(Path(sys.executable)))
    back_end = LocalBackEnd(model)

    def by_model(entry: dict[str, Any]) -> Refined:
        return refine(entry["prompt"], entry["negative"], entry["feedback"], back_end=back_end)

    written = measure(entries, by_model)
    held_out = [row for row in rules if row["half"] == "held out"]
    shares = {
        "rules": {half: share(rules, half=half) for half in HALVES},
        "language model": {half: share(written, alone=True, half=half) for half in HALVES},
        "language model with the rules behind it": {half: share(written, half=half) for half in HALVES},
    }
    for name, values in shares.items():
        print(f"{name}: " + ", ".join(f"{half} {value:.2f}" for half, value in values.items()))
    details = {
        "shares": shares,
        "language model": model.name,
        "its digest": model.digest,
        "its answers that could not be used": sum(row["fell_back"] for row in written),
        "its seconds per answer": statistics.median(row["seconds"] for row in written),
        "the rules' seconds": statistics.median(row["seconds"] for row in rules),
        "not carried out by the rules": [row for row in rules if not row["met"]],
        "by the language model": written,
    }
    won = sum(row["met"] for row in held_out)
    record(
        CLAIM,
        share(held_out),
        ci=wilson(won, len(held_out)),
        seeds=1,
        seconds=watch.seconds,
        quick=quick,
        samples=[share(rules, half=half) for half in HALVES],
        details=details,
    )
