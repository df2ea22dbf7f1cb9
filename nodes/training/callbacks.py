"""The live view's messages: what `HostCallbacks` sends, kept for a reload, with a beginning and an end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ...training.run_log import RunLog
from ..host.progress import PREVIEW_SIZE, HostCallbacks, contact_sheet, data_url
from .live import LIVE

# Phases change many times a second; a page needs a few.
_SECONDS_BETWEEN_PHASES = 0.25


class LiveCallbacks(HostCallbacks):
    """Shows a run in the node, and lets Cancel act inside long phases too.

    Every message says whose it is: `node`, `workflow` and `run`, since a node id alone repeats in every open tab.

    Args:
        workflow: `workflow_id` of the prompt; "" if it has none.

    Attributes:
        updates: how many updates this call has done.
        at_first_update: called when the first of them is done; a fresh run has taken the place of an earlier one then.
        log: where reports are written down; None = nowhere.
        ended_by_button: whether "Stop and save" ended the run: its result goes on to the nodes behind, unlike Cancel's.
    """

    def __init__(self, total: int, *, run: str, node_id: str | None = None, workflow: str = "") -> None:
        super().__init__(total, node_id=node_id)
        self.identity = {"workflow": workflow, "run": run}
        self.updates = 0
        self.at_first_update: Callable[[], None] = lambda: None
        self.log: RunLog | None = None
        self.ended_by_button = False
        self._last_phase = 0.0
        self._in_update = False

    def start(
        self, *, method: str, first_curves: Sequence[str], step: int, history: Sequence[Mapping[str, float]], note: str
    ) -> None:
        """A run begins, or goes on after `step` updates; `first_curves` are the figures to show first."""
        self._step = step
        message = {"method": method, "step": step, "total": self.total, "history": list(history)}
        self._send({"kind": "start", **message, "first_curves": list(first_curves), "note": note})

    def end(self, status: str, *, file: str, message: str) -> None:
        """The run is over: "finished", "stopped", "failed", or "ended" if a rule of its settings ended it early."""
        if self.log is not None:
            self.log.close()
        self._send({"kind": "end", "status": status, "file": file, "message": message})

    def on_report(self, step: int, metrics: Mapping[str, float]) -> None:
        self.updates += 1
        self._in_update = False
        if self.updates == 1:
            self.at_first_update()
        if self.log is not None:
            self.log.add(step, metrics)
        super().on_report(step, metrics)

    def on_samples(self, step: int, images: torch.Tensor) -> None:
        # The node's own view shows every sheet; the host's preview of the last one would stand below it once more.
        self.samples = contact_sheet(images)
        shown = self.samples.copy()
        shown.thumbnail((PREVIEW_SIZE, PREVIEW_SIZE))
        self._send({"kind": "samples", "step": step, "total": self.total, "image": data_url(shown)})
        self.raise_if_cancelled()

    def on_phase(self, text: str, done: int, total: int) -> None:
        self.raise_if_cancelled()
        now = time.monotonic()
        if now - self._last_phase >= _SECONDS_BETWEEN_PHASES:
            self._last_phase = now
            super().on_phase(text, done, total)

    def should_stop(self) -> bool:
        """Cancel acts at once; "Stop and save" after the present update, and never before the run's first."""
        if super().should_stop():
            return True
        if not self._in_update and self._step and self.node_id is not None:
            self.ended_by_button = LIVE.asked_to_stop({"node": self.node_id, **self.identity})
        self._in_update = True
        return self.ended_by_button

    def _send(self, message: dict[str, Any]) -> None:
        message = {**self.identity, **message}
        if self.node_id is not None:
            LIVE.record({"node": self.node_id, **message})
        super()._send(message)
