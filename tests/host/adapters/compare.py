"""Ways to compare that say by how much they fail."""

from __future__ import annotations

import math
from typing import Any


def close(actual: Any, expected: Any, tolerance: float = 1e-4) -> None:
    """Equal up to `tolerance` of the expected values' own deviation (their accumulated rounding)."""
    scale = max(1e-6, float(expected.float().std()))
    assert tuple(actual.shape) == tuple(expected.shape), (actual.shape, expected.shape)
    worst = float((actual.detach().float() - expected.float()).abs().max()) / scale
    assert worst < tolerance, f"differs by {worst:.2e} of the deviation {scale:.3g}"


def raised(expected: type, function: Any, /, *arguments: Any, **keywords: Any) -> Any:
    """The error of that kind which the call must end in."""
    try:
        function(*arguments, **keywords)
    except expected as error:
        return error
    raise AssertionError(f"no {expected.__name__}")


def raises(expected: type, words: str, function: Any, /, *arguments: Any, **keywords: Any) -> None:
    """The call ends in an error of that kind with these words in it."""
    message = str(raised(expected, function, *arguments, **keywords))
    assert words in message, f"{words!r} is not in {message!r}"


def slope_agrees(function: Any, at: Any, gradient: Any, *, tolerance: float = 0.02) -> None:
    """The directional derivative along the gradient equals its squared norm, by central differences."""
    norm = float(gradient.norm())
    assert norm > 1e-4, f"the gradient is {norm}"
    direction = gradient / norm
    step = 1e-2 * max(1.0, float(at.norm())) / at.numel() ** 0.25
    numeric = (function(at + step * direction) - function(at - step * direction)) / (2 * step)
    assert math.isclose(float(numeric), norm, rel_tol=tolerance), f"numeric {float(numeric):.5g}, autograd {norm:.5g}"
