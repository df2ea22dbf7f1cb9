"""Refinement sessions for tests: a real store, rounds of small coloured pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attune.nodes.picture_folder import picture_hash
from attune.nodes.refinement.records import Feedback, Picture, Round, Schedule, SessionState, Weights
from attune.nodes.refinement.store import SessionStore
from attune.nodes.store import Store


def opened(folder: Path, *, patience: float = 60) -> SessionStore:
    """The sessions below a folder, as another process would open them."""
    return SessionStore(Store(folder / "attune.sqlite3", patience=patience), folder / "sessions")


def pixels_of(number: int, size: int = 8) -> np.ndarray:
    """Noise that only this number has."""
    return np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)


def made(numbers: Sequence[int] = (1, 2), *, prompt: str = "a cat", **changed: Any) -> dict[str, Any]:
    """What a run gives to `propose`: a picture of each number."""
    pixels = [pixels_of(number) for number in numbers]
    pictures = tuple(
        Picture(picture_hash(image), number, {"judge": float(number)})
        for number, image in zip(numbers, pixels, strict=True)
    )
    return {
        "prompt": prompt,
        "schedule": Schedule("karras", 4, 1.0, tuple(numbers)),
        "weights": Weights("rule", {"judge": 1.0}, {"judge": 0.5}, {"round": len(numbers)}),
        "pictures": pictures,
        "pixels": {picture.hash: image for picture, image in zip(pictures, pixels, strict=True)},
        "latents": torch.tensor([[float(number)] for number in numbers]),
        "seconds": 1.5,
        **changed,
    }


def propose(sessions: SessionStore, state: SessionState, numbers: Sequence[int] = (1, 2), **changed: Any) -> Round:
    """One run of the graph."""
    return sessions.propose(state.key, state.revision, **made(numbers, **changed))


def play(
    sessions: SessionStore,
    state: SessionState,
    numbers: Sequence[int] = (1, 2),
    feedback: Feedback | None = None,
    **changed: Any,
) -> SessionState:
    """One run and one answer."""
    round_ = propose(sessions, state, numbers, **changed)
    return sessions.commit(state.key, state.revision, round_.key, feedback or Feedback("darker", liked=(0,)))
