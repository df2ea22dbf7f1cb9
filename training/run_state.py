"""The saved states of a run: capture between updates, files in its folder, and the check that a resume continues it."""

from __future__ import annotations

import contextlib
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .checkpoint import CheckpointError, flatten, read_state, unflatten, write_state
from .interfaces import TrainingError
from .share import Share
from .widget_names import named_in_run

log = logging.getLogger(__name__)

FORMAT = 3
KEPT = 2
# What differs where an identity is a hash, which tells its reader nothing.
_HASH = re.compile(r"[0-9a-f]{16,}")
_OTHER = {
    "base model": "base model weights other than now: the checkpoint or the LoRAs on it differ",
    "text encoder": "text encoder weights other than now",
    "VAE": "VAE weights other than now",
    "data": "data other than now: the pictures, captions, prompts, reward or size differ",
    "start LoRA": "another LoRA to go on from than now, or none (start_lora)",
}
# What a run has that does not say so.
_UNSAID = {
    "base precision": "as loaded",
    "processes": 1,
    "method setting flow_warmup": 0,
    "method setting noise_from": 0.0,
    "method setting credit": "step",
    "LoRA kind": "low rank",
    "LoRA part": "whole network",
}
# Named before others, which may differ because of it.
_FIRST = ("LoRA kind",)
# What may be set anew for the rest of a run: how far its updates go, and nothing of what they follow. Whoever is told
# to lower the learning rate must be able to.
RATES = (
    "training learning_rate",
    "training warmup_steps",
    "method setting flow_learning_rate",
    "method setting encoder_learning_rate",
    "method setting assistant_learning_rate",
)
# What may be set anew besides where a run has collapsed and goes on from its last sound weights: what led it there.
AFTER_COLLAPSE = ("method setting reward_weight", "method setting assistant_updates", "method setting guidance")
_NAME = re.compile(r"(state|fresh)-(\d+)\.safetensors")


class Captured:
    """A nested state as it stood at one moment, without copying its tensors.

    JSON values are copied. Tensors are held by reference together with torch's count of in-place writes, so that a
    later change is noticed instead of saved.
    """

    def __init__(self, tree: Any) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self.document = flatten(tree, "", self.tensors)
        for name, tensor in self.tensors.items():
            if tensor.is_inference():  # keeps no count
                self.tensors[name] = tensor.clone()
        self._versions = {name: tensor._version for name, tensor in self.tensors.items() if not tensor.is_inference()}

    @property
    def intact(self) -> bool:
        """Whether every tensor still holds what it held."""
        return all(self.tensors[name]._version == version for name, version in self._versions.items())

    def tree(self) -> Any:
        """The state itself."""
        return unflatten(self.document, self.tensors)


class StateFolder:
    """`state-<step>.safetensors` files of one run; the newest `KEPT` stay.

    A run that starts over an earlier one writes its first states as `fresh-<step>.safetensors`. Once one with an update
    in it is there, whole, the earlier states are removed and it is renamed. Wherever a start breaks off, the folder
    holds one of the two runs, whole.

    Args:
        path: the run's folder; made when first written.

    Attributes:
        starting_over: whether the states here are those of an earlier run, which this one will replace.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.starting_over = False

    def files(self, kind: str = "state") -> list[Path]:
        """State files, newest first.

        Raises:
            TrainingError: the folder cannot be listed.
        """
        if not self.path.is_dir():
            return []
        try:
            matches = [(_NAME.fullmatch(file.name), file) for file in self.path.iterdir()]
        except OSError as error:
            raise TrainingError(
                f"The run's folder cannot be read: {error}. Give yourself access to {self.path}, or choose another run "
                f"name."
            ) from error
        found = [(int(match[2]), file) for match, file in matches if match and match[1] == kind]
        return [file for _, file in sorted(found, reverse=True)]

    def write(self, step: int, tree: Mapping[str, Any]) -> None:
        """Write one state and drop all but the newest. One that cannot be dropped costs room, not the run.

        Raises:
            TrainingError: the folder cannot be written or the disk is full; what was there before is untouched. Or an
                earlier run's state cannot be removed, see `settle`.
        """
        kind = "fresh" if self.starting_over else "state"
        target, tensors = self.path / f"{kind}-{step}.safetensors", {}
        document = flatten({"format": FORMAT, "step": step, **tree}, "", tensors)
        try:
            write_state(target, tensors, document)
        except CheckpointError as error:
            raise TrainingError(f"The state of this run could not be saved. {error}") from error
        if self.starting_over:
            self.settle()
            self.starting_over = step == 0
        else:
            self._drop_later(step)
        for file in self.files()[KEPT:]:
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                log.warning("Attune: an older state could not be removed, and stays: %s", error)

    def _drop_later(self, step: int) -> None:
        """Remove states of more updates than the one just written: the run has gone on from an earlier one.

        Only now, since such a state may have been out of reach for a moment only.
        """
        for file in self.files():
            if _step_of(file) <= step:
                continue
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise TrainingError(
                    f"The state after update {step} is saved, but a later one of an earlier attempt cannot be removed: "
                    f"{error}. A resume would take it for this run's. Delete {file} by hand, then press Run again."
                ) from error

    def start_over(self) -> None:
        """Let the states written from now on replace those that are here, once one of them holds an update.

        Raises:
            TrainingError: one cannot be removed; a later resume would take it for this run's.
        """
        for file in self.files():
            if not file.is_file():
                raise _stays(file, "it is no file")
        self.starting_over = bool(self.files())

    def settle(self) -> None:
        """Finish a start over an earlier run, also one that was killed: its first update takes the earlier's place.

        Raises:
            TrainingError: an earlier state cannot be removed, and a later resume would take it for this run's; or the
                new one cannot be renamed.
        """
        for fresh in self.files("fresh"):
            if fresh.stem == "fresh-0":  # no update in it: it only showed that the folder can be written
                with contextlib.suppress(OSError):
                    fresh.unlink(missing_ok=True)
                continue
            for file in self.files():
                try:
                    file.unlink(missing_ok=True)
                except OSError as error:
                    raise _stays(file, str(error)) from error
            try:
                fresh.replace(self.path / fresh.name.replace("fresh", "state"))
            except OSError as error:
                raise TrainingError(
                    f"{fresh} cannot be renamed: {error}. Give yourself access to {self.path}, then press Run again."
                ) from error

    def at(self, step: int) -> dict[str, Any] | None:
        """The state after `step` updates, None if it is not readable.

        Raises:
            TrainingError: another version of the pack saved it.
        """
        try:
            return _read(self.path / f"state-{step}.safetensors")
        except _UNREADABLE as error:
            log.warning("Attune: the state after update %s is unreadable: %s", step, error)
            return None

    def newest(self) -> dict[str, Any] | None:
        """The newest readable state, None where no state holds an update: there is nothing to go on with then.

        Raises:
            TrainingError: there are state files but none is readable, or another version of the pack saved it.
        """
        failures, files = [], self.files()
        if not any(map(_step_of, files)):
            return None
        for file in files:
            try:
                return _read(file)
            except _UNREADABLE as error:
                log.warning("Attune: %s is unreadable, trying the one before it: %s", file, error)
                failures.append(f"{file.name}: {error}")
        if failures:
            raise TrainingError(
                f"No saved state in {self.path} is readable ({failures[0]}). Start over under another run name."
            )
        return None


_UNREADABLE = (CheckpointError, KeyError, TypeError, ValueError, StopIteration)


def _read(file: Path) -> dict[str, Any]:
    tensors, document = read_state(file)
    state = unflatten(document, tensors)
    if state.get("format") != FORMAT:
        raise TrainingError(
            f"{file} was saved by another version of the pack: it has format {state.get('format')!r}, this version "
            f"reads {FORMAT}. Go on with that version, or start over under another run name."
        )
    return state


def _step_of(file: Path) -> int:
    return int(_NAME.fullmatch(file.name)[2])


def common_state(folder: StateFolder, share: Share) -> dict[str, Any] | None:
    """The newest state that every process has, readable; None where no process has one with an update in it.

    A process that was ended while others waited may lack their newest one, or hold one that no other has.

    Args:
        folder: this process's.

    Raises:
        TrainingError: there are states, and no two processes agree on one; or as `StateFolder.newest`.
    """
    if share.count == 1:
        return folder.newest()
    own = [_step_of(file) for file in folder.files()]
    most = -share.lowest(-len(own))
    if not most:
        return None
    table = share.gather(torch.tensor([own + [-1] * (most - len(own))])).tolist()
    if max(map(max, table)) <= 0:
        return None
    shared = set.intersection(*map(set, table)) - {-1}
    for step in sorted(shared, reverse=True):
        state = folder.at(step)
        if not share.any(state is None):
            return state
    held = "; ".join(f"process {index}: {_listing(row)}" for index, row in enumerate(table))
    raise TrainingError(
        f"The processes of this run have no state in common that is readable ({held}). Start over under another run "
        "name, or set if_run_exists to start fresh."
    )


def _listing(steps: Sequence[int]) -> str:
    found = [str(step) for step in steps if step >= 0]
    return f"update {', '.join(found)}" if found else "none"


def _stays(file: Path, why: str) -> TrainingError:
    return TrainingError(
        f"The run cannot start fresh, because the state of an earlier run cannot be removed: {why}. Delete {file} by "
        f"hand, or choose another run name."
    )


def check_same_run(
    saved: Mapping[str, Any], current: Mapping[str, Any], *, folder: Path, collapsed: bool = False
) -> list[dict[str, Any]]:
    """Refuse to resume something else.

    Args:
        saved: identity of the run in `folder`: nested dicts of JSON values; current: of the run that wants to go on.
        collapsed: whether that run has; see `AFTER_COLLAPSE`.

    Returns:
        what of `RATES`, and of `AFTER_COLLAPSE`, is set anew: {"setting": …, "before": …, "now": …} each.

    Raises:
        TrainingError: names the first field that differs, with both values, or in words where they are hashes.
    """
    anew = []
    for name, old, new in sorted(_differences(saved, current, ""), key=lambda found: found[0] not in _FIRST):
        # Whether something learns at all is no rate.
        rate = name in RATES and (name.endswith("warmup_steps") or bool(old) == bool(new))
        if rate or (collapsed and name in AFTER_COLLAPSE):
            anew.append({"setting": name, "before": old, "now": new})
            continue
        called = named_in_run(name, saved.get("method"))
        what = f"{called} {_plain(name, old)}, now it is {_plain(name, new).removeprefix('= ')}"
        known = [value for value in (old, new) if not _unset(value)]
        if all(isinstance(value, str) and _HASH.fullmatch(value) for value in known):
            what = _OTHER.get(name, f"{name} other than now")
        raise TrainingError(
            f"The run in {folder} cannot be resumed: it was started with {what}. Set it back, choose another run name, "
            f"or set if_run_exists to start fresh, which gives up what this run has learned."
        )
    return anew


def _differences(saved: Any, current: Any, name: str) -> Iterable[tuple[str, Any, Any]]:
    if isinstance(saved, Mapping) and isinstance(current, Mapping):
        for key in dict.fromkeys([*saved, *current]):
            yield from _differences(saved.get(key), current.get(key), f"{name} {key}".strip())
    elif _said(name, saved) != _said(name, current):
        yield name, saved, current


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _unset(value: Any) -> bool:
    return value is None or value == ""


def _said(name: str, value: Any) -> Any:
    """The value, or what is meant where there is none."""
    return _UNSAID.get(name) if _unset(value) else _listed(value)


def _plain(name: str, value: Any) -> str:
    """The value behind an equals sign, or in words that there is none."""
    value = _said(name, value)
    return "not set" if value is None else f"= {_listed(value)!r}"


def pack_history(history: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Reports of a run as one float64 table [updates, names]; NaN where a report lacks a name."""
    names = list(dict.fromkeys(name for report in history for name in report))
    rows = [[float(report.get(name, math.nan)) for name in names] for report in history]
    return {"names": names, "table": torch.tensor(rows, dtype=torch.float64).reshape(len(history), len(names))}


def unpack_history(packed: Mapping[str, Any]) -> list[dict[str, float]]:
    """The inverse of `pack_history`; "step" is an integer again."""
    reports = []
    for row in packed["table"].tolist():
        report = {name: value for name, value in zip(packed["names"], row, strict=True) if not math.isnan(value)}
        reports.append(report | {"step": int(report["step"])})
    return reports
