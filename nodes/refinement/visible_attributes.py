"""What a picture looks like in three plain words, by which its choice can be told from others. No model; ours.

| attribute  | values                                                                                      |
| ---------- | ------------------------------------------------------------------------------------------- |
| brightness | dark, medium, bright: mean luma below 1/3, in between, from 2/3 on                            |
| colour     | the hue that most of its coloured pixels have; grey where fewer than `COLOURED` of them are coloured |
| background | the commonest among black, white, grey and the hues in its border, an eighth of its sides wide |

A pixel is coloured if its largest and its smallest channel differ by at least `CHROMA`. Hues are sixths of the colour
circle around red, yellow, green, cyan, blue and magenta. Luma: Rec. 709 weights on the picture's own values.
"""

from __future__ import annotations

import numpy as np

ATTRIBUTES = ("brightness", "colour", "background")
HUES = ("red", "yellow", "green", "cyan", "blue", "magenta")
GREYS = ("black", "grey", "white")
COLOURED = 0.1
CHROMA = 0.15
# Larger pictures are looked at in about so many rows and columns.
_SAMPLES = 128
_BORDER = 8


def attributes_of(pixels: np.ndarray) -> dict[str, str]:
    """Attribute → value of one picture.

    Args:
        pixels: uint8 [h, w, 3].
    """
    height, width, _ = pixels.shape
    seen = pixels[:: max(1, height // _SAMPLES), :: max(1, width // _SAMPLES)].astype(np.float64) / 255  # (h, w, 3)
    luma = seen @ np.array([0.2126, 0.7152, 0.0722])
    kinds = _kinds(seen, luma)
    coloured = kinds[kinds < len(HUES)]
    enough = len(coloured) >= COLOURED * kinds.size
    return {
        "brightness": ("dark", "medium", "bright")[min(2, int(3 * luma.mean()))],
        "colour": HUES[_commonest(coloured)] if enough else "grey",
        "background": (*HUES, *GREYS)[_commonest(_border(kinds))],
    }


def _kinds(seen: np.ndarray, luma: np.ndarray) -> np.ndarray:
    """Of every pixel its place in (*HUES, *GREYS)."""
    largest, chroma = seen.max(-1), seen.max(-1) - seen.min(-1)
    red, green, blue = np.moveaxis(seen, -1, 0)
    parts = np.where(chroma > 0, chroma, 1)
    sixths = np.select(
        [largest == red, largest == green],
        [(green - blue) / parts, 2 + (blue - red) / parts],
        4 + (red - green) / parts,
    )
    hues = np.round(sixths).astype(int) % len(HUES)
    greys = len(HUES) + np.minimum(2, (3 * luma).astype(int))
    return np.where(chroma >= CHROMA, hues, greys)


def _border(kinds: np.ndarray) -> np.ndarray:
    inside = np.zeros(kinds.shape, bool)
    edge = max(1, min(kinds.shape) // _BORDER)
    inside[edge:-edge, edge:-edge] = True
    return kinds[~inside]


def _commonest(kinds: np.ndarray) -> int:
    return int(np.bincount(kinds).argmax())
