"""Which rows of a network's call are the positive prompt's: every kind of guider numbers its prompts its own way."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import torch

NEGATIVE = 1  # how the host numbers the rows of the negative prompt where no guider says which are the positive one's


class PositiveRows:
    """Remembers, while a guider predicts, which prompts are its positive one."""

    def __init__(self) -> None:
        self._names: frozenset[Any] | None = None

    def guided(self, executor: Any, *arguments: Any, **keywords: Any) -> torch.Tensor:
        """Wraps the guider's prediction (the host's PREDICT_NOISE)."""
        previous, self._names = self._names, _positive_prompts(executor.class_obj)
        try:
            return executor(*arguments, **keywords)
        finally:
            self._names = previous

    def of(self, options: Mapping[str, Any], rows: int) -> torch.Tensor:
        """bool [rows]; `options` are the host's, see `positive_rows`."""
        return positive_rows(options, rows, self._names)


def _positive_prompts(guider: Any) -> frozenset[Any] | None:
    """How the host calls the entries of a guider's positive prompt; None where it does not say.

    Where a prompt has an area, the host gives the others an entry of that area too, under the same name: these get
    names of their own.
    """
    prompts = getattr(guider, "conds", None) or {}
    names = [entry.get("uuid") for entry in prompts.get("positive") or ()]
    if not names or None in names:
        return None
    for prompt, entries in prompts.items():
        for entry in entries or ():
            if prompt != "positive" and entry.get("uuid") in names:
                entry["uuid"] = uuid.uuid4()
    return frozenset(names)


def positive_rows(options: Mapping[str, Any], rows: int, positive: frozenset[Any] | None) -> torch.Tensor:
    """bool [rows]: those of the positive prompt.

    Args:
        options: the host's, which name the conditioning of each equal part of the rows, and number it.
        positive: names of the positive ones; None: all but the second number are, as in the host's usual guidance.
    """
    kinds, names = list(options.get("cond_or_uncond", ())) or [0], list(options.get("uuids", ()))
    if positive is not None and len(names) == len(kinds):
        parts = [name in positive for name in names]
    else:
        parts = [kind != NEGATIVE for kind in kinds]
    return torch.tensor(parts).repeat_interleave(rows // len(parts))
