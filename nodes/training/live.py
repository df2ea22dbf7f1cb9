"""What every training node shows, kept on the server so that a reload of the page loses nothing.

The messages and the snapshot are documented in `js/live_state.js`, which is their reader.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from .figures import finite_figures

MOST_ROWS = 1000
MOST_SAMPLES = 24
# Nodes of workflows that were closed long ago are forgotten, oldest first.
MOST_RUNS = 16
ACTIVE = ("running", "stopping")


def row_of(step: int, metrics: Mapping[str, float | None]) -> dict[str, float]:
    """An update's figures, without what is missing or not finite."""
    return {**finite_figures(metrics), "step": int(step)}


def rows_of(history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """`row_of` for a whole history, thinned out."""
    return thinned([row_of(int(report["step"]), report) for report in history])


def thinned(rows: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Drop every other row, but never the last, until at most `MOST_ROWS` are left.

    What a dropped row has and the next one lacks moves there: a figure that comes now and then would vanish otherwise.
    """
    rest = list(rows)
    while len(rest) > MOST_ROWS:
        even = [{}] * (len(rest) % 2) + rest
        rest = [{**dropped, **kept} for dropped, kept in zip(even[0::2], even[1::2], strict=True)]
    return rest


def thinned_samples(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most `MOST_SAMPLES`, spread evenly: those go whose neighbours are closest; the first and the latest stay."""
    rest = list(samples)
    while len(rest) > MOST_SAMPLES:
        gaps = [after["step"] - before["step"] for before, after in zip(rest, rest[2:], strict=False)]
        del rest[1 + gaps.index(min(gaps))]
    return rest


def key_of(message: Mapping[str, Any]) -> str:
    """One training node of one workflow; where the workflow has no id, one run of that node."""
    workflow = message["workflow"]
    return f"{workflow}/{message['node']}" if workflow else f"{message['node']}/{message['run']}"


class LiveRuns:
    """The last state per training node; written by the prompt's thread, read by the server's."""

    def __init__(self) -> None:
        self._runs: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def record(self, message: Mapping[str, Any]) -> None:
        """Apply one message; one for a node that has not started is ignored."""
        with self._lock:
            key, kind = key_of(message), message["kind"]
            if kind == "start":
                previous = self._runs.pop(key, {})
                resumed = message["step"] > 0 and previous.get("run") == message["run"]
                self._runs[key] = {
                    **{name: message[name] for name in ("node", "workflow", "run")},
                    "kind": "snapshot",
                    "status": "running",
                    "method": message["method"],
                    "step": message["step"],
                    "first": message["step"],
                    "total": message["total"],
                    "began": time.monotonic(),
                    "first_curves": list(message["first_curves"]),
                    "history": thinned(message["history"]),
                    "samples": previous["samples"] if resumed else [],
                    "note": message["note"],
                    "file": "",
                    "message": "",
                }
                for oldest in list(self._runs)[:-MOST_RUNS]:
                    del self._runs[oldest]
                return
            run = self._runs.get(key)
            if run is None:
                return
            if kind == "report":
                row = row_of(message["step"], message["metrics"])
                run["history"] = thinned([*(r for r in run["history"] if r["step"] < row["step"]), row])
                run["step"], run["total"] = message["step"], message["total"]
            elif kind == "samples":
                kept = [s for s in run["samples"] if s["step"] < message["step"]]
                kept.append({"step": message["step"], "image": message["image"]})
                run["samples"] = thinned_samples(kept)
            elif kind == "end":
                run |= {key: message[key] for key in ("status", "file", "message")}

    def ask_to_stop(self, identity: Mapping[str, str]) -> bool:
        """Stop and save; whether there is such a run, and it is at work."""
        with self._lock:
            run = self._runs.get(key_of(identity))
            if run is None or run["status"] not in ACTIVE or run["run"] != identity["run"]:
                return False
            run["status"] = "stopping"
            return True

    def asked_to_stop(self, identity: Mapping[str, str]) -> bool:
        """Whether `ask_to_stop` was called since this run began."""
        with self._lock:
            run = self._runs.get(key_of(identity))
            return run is not None and run["status"] == "stopping" and run["run"] == identity["run"]

    def last_sample(self, identity: Mapping[str, str]) -> list[dict[str, Any]]:
        """The latest picture of a run, alone in a list; empty if there is none."""
        with self._lock:
            run = self._runs.get(key_of(identity), {})
            return list(run["samples"][-1:]) if run.get("run") == identity["run"] else []

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """Everything a page needs after a reload, by `key_of`; JSON-able."""
        with self._lock:
            now = time.monotonic()
            return {
                key: {**{name: value for name, value in run.items() if name != "began"}, "elapsed": now - run["began"]}
                for key, run in self._runs.items()
            }


LIVE = LiveRuns()
