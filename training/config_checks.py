"""What holds for the numbers of every method's configuration, which may come from a file that somebody wrote."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from .interfaces import TrainingError
from .widget_names import named


def check_numbers(config: Any) -> None:
    """Of the fields of a dataclass: where its default is a number, its value is a finite one, and whole where that is.

    A field whose annotation allows None may be None.

    Raises:
        TrainingError: a number is missing, infinite, or not whole where it counts something.
    """
    method = type(config).__name__.removesuffix("Config")
    for field in dataclasses.fields(config):
        value, kind = getattr(config, field.name), type(field.default)
        if kind not in (int, float) or (value is None and "None" in str(field.type)):
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise TrainingError(f"{method}: {named(field.name)} must be a finite number, not {value!r}.")
        if kind is int and value != int(value):
            raise TrainingError(f"{method}: {named(field.name)} must be a whole number, not {value!r}.")
