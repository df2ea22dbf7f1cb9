"""What a run leaves beside its states: its report, and small helpers about files, names and sizes."""

from __future__ import annotations

import json
import logging
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...training.checkpoint import whole_file
from ...training.interfaces import TrainingError
from ...training.run_state import StateFolder, unpack_history
from ..version import pack_version as pack_version
from .live import rows_of

log = logging.getLogger("attune")

# Names of model families as Stability's model spec writes them, by the host's class of the model.
ARCHITECTURES = {
    "SD15": "stable-diffusion-v1",
    "SD20": "stable-diffusion-v2-768-v",
    "SDXL": "stable-diffusion-xl-v1-base",
    "SD3": "stable-diffusion-3-medium",
    "Flux": "flux-1-dev",
    "FluxSchnell": "flux-1-schnell",
}
RECORD = "run.json"


def saved_step(folder: Path) -> int:
    """Updates done by the run in this folder, 0 if there is none."""
    files = StateFolder(folder).files()
    return int(re.sub(r"\D", "", files[0].stem)) if files else 0


def newest_history(folder: Path) -> tuple[int, list[dict[str, float]]] | None:
    """Updates done and the drawn figures of the run in this folder, None if there is none."""
    state = StateFolder(folder).newest()
    return (state["step"], rows_of(unpack_history(state["history"]))) if state else None


def read_record(folder: Path) -> dict[str, Any]:
    """The report that the run in this folder wrote last; empty if there is none or it is unreadable."""
    try:
        return json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def write_record(folder: Path, report: Mapping[str, Any]) -> None:
    """The report beside the run's states; a run is complete without it, so a full disk is no error here."""
    try:
        with whole_file(folder / RECORD) as partial:
            partial.write_text(json.dumps(report, indent=1), encoding="utf-8")
    except OSError as error:
        log.warning("Attune: the report could not be written to %s: %s", folder, error)


def pause_of(folder: Path) -> str:
    """Changes whenever "Stop and save" paused the run in this folder; "" before the first time.

    Such a run has given a result to the graph, which the host would hand out again instead of going on with it.
    """
    return str(read_record(folder).get("pause", ""))


def reward_record(plan: Any) -> dict[str, str]:
    """What a run was trained to raise, for its report and its LoRA: the reward's formula, or name, and its id.

    Empty for methods without a reward.
    """
    reward = getattr(plan, "reward", None)
    if reward is None:
        return {}
    return {"reward": str(getattr(reward, "formula", reward.name)), "reward_id": str(reward.reward_id)}


def check_writable(folder: Path) -> None:
    """Find out before an hour of training that its result could not be saved.

    Raises:
        TrainingError: no file can be made in the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise TrainingError(
            f"The LoRA could not be saved in {folder}: {error}. Make the folder writable or free some space, then "
            f"press Run again."
        ) from error


def duration_text(seconds: float) -> str:
    """42 s · 3 min 05 s · 2 h 04 min"""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size_text(count: int) -> str:
    """Bytes as people read them."""
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"
