"""The picture of a claim: every measurement as a dot, the value with its interval, and the goal."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from attune.nodes.drawing import BAD, GOOD, GRID, MUTED, Canvas, nice_ticks, short_number, wrapped

from .record import Claim

WIDTH, HEIGHT, EDGE = 720, 236, 40


def strip_plot(
    claim: Claim, value: float, *, ci: tuple[float, float] | None, samples: Sequence[float] = ()
) -> Image.Image:
    """Draw the claim on one axis.

    Args:
        claim: its goal is the upright line; the side on which the claim holds is tinted.
        value: the large dot, green where the claim holds, red where it does not.
        ci: the bar through it.
        samples: repetitions, each a small dot.
    """
    known = [value, claim.goal, *samples, *(ci or ())]
    margin = 0.08 * (max(known) - min(known)) or 0.1 * abs(value) or 1.0
    low, high = min(known) - margin, max(known) + margin
    colour = GOOD if claim.holds(value) else BAD
    title = wrapped(claim.what, WIDTH - 2 * EDGE, size=18, lines=2)
    lower = 24 * (len(title) - 1)
    canvas = Canvas(WIDTH, HEIGHT + lower)
    for line, words in enumerate(title):
        canvas.text(EDGE, 16 + 24 * line, words, size=18, bold=True)
    sign = "at least" if claim.direction == ">=" else "at most"
    verdict = "holds" if claim.holds(value) else "FAILED"
    # Pillow's own font has no ×.
    unit = claim.unit.replace("×", "times")
    figure = f"{short_number(value)} {unit}".strip()
    says = f"{claim.name}: {figure}, goal {sign} {claim.goal:g}: {verdict}"
    canvas.text(EDGE, 44 + lower, says, size=14, colour=MUTED)

    def x_of(number: float) -> float:
        return EDGE + (number - low) / (high - low) * (WIDTH - 2 * EDGE)

    top, axis = 76 + lower, 196 + lower
    sides = (x_of(claim.goal), WIDTH - EDGE) if claim.direction == ">=" else (EDGE, x_of(claim.goal))
    canvas.panel(EDGE, top, WIDTH - EDGE, axis)
    canvas.panel(sides[0], top, max(sides[1], sides[0] + 1), axis, fill="#1d2a24")
    for tick in nice_ticks(low, high, 7):
        canvas.line([(x_of(tick), axis), (x_of(tick), axis + 5)], GRID)
        canvas.text(x_of(tick), axis + 18, short_number(tick), size=13, colour=MUTED, anchor="mm")
    canvas.line([(x_of(claim.goal), top), (x_of(claim.goal), axis)], MUTED, width=1.5)
    canvas.text(x_of(claim.goal) + 6, top + 12, "goal", size=13, colour=MUTED, anchor="lm")
    rows = 5
    for index, sample in enumerate(samples):
        canvas.dot(x_of(sample), top + 30 + 10 * (index % rows), MUTED, radius=4)
    middle = axis - 26
    if ci is not None:
        canvas.line([(x_of(ci[0]), middle), (x_of(ci[1]), middle)], colour, width=3)
    canvas.dot(x_of(value), middle, colour, radius=8)
    return canvas.finish()
