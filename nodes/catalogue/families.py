"""The tree of versions: runs, the versions in each, and the runs that grew out of others.

A run stands below another one if its first version came from a LoRA of it: trained on top of it, or merged from it. One
that was merged from several runs stands below the last of them, and so after all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .records import Entry

# The figures by which versions are told apart, the most telling first; of the last one less is better.
TELLING = ("held_out_reward", "held_out_accuracy", "reward", "accuracy", "loss")
# What people read, as in the report and the live view.
TITLES = {
    "held_out_reward": "Held-out reward",
    "held_out_accuracy": "Held-out accuracy",
    "reward": "Reward",
    "accuracy": "Accuracy",
    "loss": "Loss",
}


@dataclass(frozen=True)
class Family:
    """One run.

    Attributes:
        run: its name.
        depth: 0 for a run that came from no other, 1 for those that came from such a run, …
        figure: name of the figure that most of its versions have, the most telling one; "" if they have none.
        versions: newest first.
    """

    run: str
    depth: int
    figure: str
    versions: tuple[Entry, ...]

    @property
    def promoted(self) -> Entry | None:
        return next((entry for entry in self.versions if entry.status == "promoted"), None)


def families(entries: Sequence[Entry]) -> list[Family]:
    """The runs in the order of the tree: each below the one it came from; among equals, the newest first."""
    groups: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: (entry.created, entry.version, entry.id), reverse=True):
        groups.setdefault(entry.run, []).append(entry)
    runs = {entry.id: entry.run for entry in entries}
    above = {run: _parent_runs(versions, runs) for run, versions in groups.items()}
    result: list[Family] = []
    placed: set[str] = set()

    def place(run: str, depth: int) -> None:
        if run in placed:
            return
        placed.add(run)
        result.append(Family(run, depth, telling_figure(groups[run]), tuple(groups[run])))
        for other in groups:
            if run in above[other] and above[other] <= placed:
                place(other, depth + 1)

    for run in groups:
        if not above[run]:
            place(run, 0)
    for run in groups:  # runs that came from one another in a circle
        place(run, 0)
    return result


def telling_figure(versions: Sequence[Entry]) -> str:
    """The figure of `TELLING` that most versions have; "" if none has any."""
    counts = {name: sum(name in entry.metrics for entry in versions) for name in TELLING}
    best = max(counts, key=lambda name: (counts[name], -TELLING.index(name)))
    return best if counts[best] else ""


def _parent_runs(versions: Sequence[Entry], runs: dict[int, str]) -> set[str]:
    """The runs that the oldest version with parents came from, without this very one."""
    for entry in reversed(versions):
        found = {runs[parent.id] for parent in entry.parents if parent.id in runs} - {entry.run}
        if found:
            return found
    return set()
