"""The log of a run: one JSON object per update in `log.jsonl`, and TensorBoard's event files where it is installed."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .checkpoint import whole_file

log = logging.getLogger(__name__)

FILE_NAME = "log.jsonl"


class RunLog:
    """Appends the reports of updates to files in a run's folder. What goes wrong costs the log, never the run.

    A run that goes on from an earlier update rewrites what the log holds of later ones; TensorBoard does the same by
    `purge_step`.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.file = Path(folder) / FILE_NAME
        self.folder = Path(folder)
        self._begun = False
        self._board: Any = None

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """Add one update, `step` counted from 1; what is not finite is left out."""
        finite = {name: float(value) for name, value in figures.items() if math.isfinite(value)} | {"step": step}
        try:
            if not self._begun:
                self._begin(step)
            with self.file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(finite) + "\n")
        except OSError as error:
            log.warning("Attune: the log of the run could not be written: %s", error)
        with self._guarded():
            for name, value in finite.items():
                if self._board is not None and name != "step":
                    self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what TensorBoard still holds back."""
        with self._guarded():
            if self._board is not None:
                self._board.close()
        self._board = None

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """What TensorBoard raises, whatever it is: its thread hands on errors later. It gets nothing from then on."""
        try:
            yield
        except Exception as error:
            log.warning("Attune: TensorBoard's log of the run ends here: %s", error)
            self._board = None

    def _begin(self, step: int) -> None:
        self._begun = True
        earlier = [line for line in self._lines() if _step_of(line) < step]
        with whole_file(self.file) as partial:
            partial.write_text("".join(earlier), encoding="utf-8")
        if importlib.util.find_spec("tensorboard"):
            # Of several versions side by side some do not import; the other log is there anyway.
            with contextlib.suppress(Exception):
                from torch.utils.tensorboard import SummaryWriter

                self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step)

    def _lines(self) -> list[str]:
        if not self.file.is_file():
            return []
        # What a failing disk or another program left in it must not end the run.
        return self.file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)


def _step_of(line: str) -> float:
    """The update of a line; infinite for one that was cut off in the middle, so that it goes."""
    try:
        return float(json.loads(line)["step"]) if line.endswith("\n") else math.inf
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
