"""The pictures that were judged: as files, in records, small for a page; see `nodes/picture_folder.py`."""

from __future__ import annotations

import numpy as np

from .. import picture_folder
from ..picture_folder import picture_hash, to_image, to_pixels
from .records import Picture, PreferenceError, UnknownError

__all__ = ["LARGEST_THUMBNAIL", "PictureFolder", "picture_hash", "picture_of", "to_image", "to_pixels"]

LARGEST_THUMBNAIL = 512


class PictureFolder(picture_folder.PictureFolder):
    """The files, with this family's errors."""

    failed, missing = PreferenceError, UnknownError
    remedy = "Delete that file: the next run that asks about it keeps it anew."


def picture_of(pixels: np.ndarray, seed: int | None = None) -> Picture:
    """How records name a picture."""
    return Picture(
        picture_hash(pixels), pixels.shape[1], pixels.shape[0], "" if seed is None else str(seed)
    )  # fmt: skip
