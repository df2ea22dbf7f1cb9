"""Pictures as files that a web page can show: the whole one, and a small one where it is large."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ...training.checkpoint import whole_file
from ...training.interfaces import RewardError
from .pictures import to_image

FOLDER = "attune"
LARGEST_THUMBNAIL = 256
# The page shows a large picture no larger than the window: JPEG, an order of magnitude quicker than PNG, will do. It
# cannot hold longer sides than this.
QUALITY, LONGEST_JPEG = 92, 65_500


def picture_files(
    pictures: Sequence[torch.Tensor],
    hashes: Sequence[str],
    folder: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Write what is not there yet, and say where everything is.

    Files are named by content, so a second run of the same pictures writes nothing. Up to `LARGEST_THUMBNAIL` pixels a
    file holds every pixel exactly.

    Args:
        pictures: [h, w, c] in [0, 1].
        hashes: a name for the pixels of each.
        folder: the host's folder for temporary files.
        progress: called with (pictures done, N) before every picture; what it raises ends the writing.

    Returns:
        per picture {"width", "height", "file", "thumbnail"}, the latter two as the host's /view wants them.

    Raises:
        RewardError: a file cannot be written.
    """
    found = []
    for done, (picture, name) in enumerate(zip(pictures, hashes, strict=True)):
        if progress:
            progress(done, len(pictures))
        try:
            found.append(_files(picture, name, folder / FOLDER))
        except OSError as error:
            raise RewardError(
                f"The gallery's pictures cannot be written to {folder / FOLDER}: {error.strerror or error}. Free space "
                "on that disk, and press Run again."
            ) from error
    return found


def _files(picture: torch.Tensor, name: str, folder: Path) -> dict[str, Any]:
    height, width = picture.shape[:2]
    large = max(height, width) > LARGEST_THUMBNAIL
    whole = f"{name}.jpg" if large and max(height, width) <= LONGEST_JPEG else f"{name}.png"
    small = f"{name}.small.jpg"
    if not (folder / whole).is_file() or (large and not (folder / small).is_file()):
        _write(picture, folder / whole, folder / small if large else None)
    return {
        "width": width, "height": height, "file": _address(whole), "thumbnail": _address(small if large else whole),
    }  # fmt: skip


def _write(picture: torch.Tensor, whole: Path, small: Path | None) -> None:
    from PIL import Image

    image = to_image(picture)
    # A page may ask for a file at any moment.
    with whole_file(whole) as file:
        if whole.suffix == ".jpg":
            image.save(file, format="JPEG", quality=QUALITY, subsampling=0)
        else:
            image.save(file, format="PNG", compress_level=1)
    if small is not None:
        image.thumbnail((LARGEST_THUMBNAIL, LARGEST_THUMBNAIL), Image.Resampling.LANCZOS)
        with whole_file(small) as file:
            image.save(file, format="JPEG", quality=88)


def _address(name: str) -> dict[str, str]:
    return {"filename": name, "subfolder": FOLDER, "type": "temp"}
