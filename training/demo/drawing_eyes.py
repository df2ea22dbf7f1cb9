"""What a picture of the demo model shows: the real drawing that is nearest to it.

A network that names concepts and styles is wrong about real drawings more often than right (see the model card), so
whatever is measured with it drowns in its mistakes. The data set is known whole, however: every drawing, in every place
that the model was shown, on every background. The nearest of them in pixels tells nearly all real drawings, shifted and
blurred ones too (`refine-keeps` records how many). Nothing is trained on it. It needs the data set, which is built by
command (`data.build_library`).

Source: ours; the distance is that of `quality.nearest_drawing`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from . import data
from .quality import background_of, half_size

# As training shows drawings: large ones in the middle, small ones there and towards the four sides.
PLACES = (("large", "center"), *(("small", position) for position in data.POSITIONS))


class DrawingEyes:
    """Names concept, style, background, size and position of pictures; in place of `simulated_person.Eyes`.

    Args:
        library: every drawing.
    """

    def __init__(self, library: data.Library) -> None:
        self.library = library
        self._known: dict[str, tuple[list[data.Attributes], torch.Tensor, torch.Tensor]] = {}

    @torch.no_grad()
    def see(self, images: torch.Tensor) -> list[data.Attributes]:
        """Images [B, 64, 64, 3] in [0, 1] → what each shows."""
        found: list[data.Attributes | None] = [None] * len(images)
        backgrounds = background_of(images)
        shown = half_size(images)
        for background in dict.fromkeys(backgrounds):
            rows = [row for row, name in enumerate(backgrounds) if name == background]
            drawings, known, squares = self._drawings(background)
            # Mirroring the few pictures is the same as mirroring the many drawings. |a − b|² − |a|² = |b|² − 2 a·b.
            likeness = torch.maximum(*(known @ part.flatten(1).T for part in (shown[rows], shown[rows].flip(3))))
            distance = squares[:, None] - 2 * likeness
            for row, nearest in zip(rows, distance.argmin(0).tolist(), strict=True):
                found[row] = drawings[nearest]
        return [seen for seen in found if seen is not None]

    def _drawings(self, background: str) -> tuple[list[data.Attributes], torch.Tensor, torch.Tensor]:
        """Every drawing in every place on a background, its pixels at half size [N, 3 · 32 · 32], and their squares."""
        if background not in self._known:
            drawings = [
                data.Attributes(*pair, background, size, position)
                for pair in self.library.pairs()
                for size, position in PLACES
            ]
            known = self._pixels(drawings)
            self._known[background] = drawings, known, known.square().sum(1)
        return self._known[background]

    def _pixels(self, drawings: Sequence[data.Attributes]) -> torch.Tensor:
        unused = np.random.default_rng(0)
        drawn = np.stack([data.compose(self.library, drawing, unused, colour_jitter=0) for drawing in drawings])
        parts = [half_size(part.float() / 255).flatten(1) for part in torch.from_numpy(drawn).split(1024)]
        return torch.cat(parts)
