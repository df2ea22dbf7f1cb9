"""Pictures as files that a web page can show: the whole one, and a small one where it is large."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...training.checkpoint import whole_file
from .pictures import to_rgb

FOLDER = "attune"
LARGEST_THUMBNAIL = 256


def picture_files(pictures: Sequence[torch.Tensor], hashes: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    """Write what is not there yet, and say where everything is.

    Files are named by content, so a second run of the same pictures writes nothing.

    Args:
        pictures: [h, w, c] in [0, 1].
        hashes: a name for the pixels of each.
        folder: the host's folder for temporary files.

    Returns:
        per picture {"width", "height", "file", "thumbnail"}, the latter two as the host's /view wants them.
    """
    return [_files(picture, name, folder / FOLDER) for picture, name in zip(pictures, hashes, strict=True)]


def _files(picture: torch.Tensor, name: str, folder: Path) -> dict[str, Any]:
    height, width = picture.shape[:2]
    whole, small = f"{name}.png", f"{name}.small.jpg"
    large = max(height, width) > LARGEST_THUMBNAIL
    if not (folder / whole).is_file() or (large and not (folder / small).is_file()):
        _write(picture, folder / whole, folder / small if large else None)
    return {
        "width": width, "height": height, "file": _address(whole), "thumbnail": _address(small if large else whole),
    }  # fmt: skip


def _write(picture: torch.Tensor, whole: Path, small: Path | None) -> None:
    from PIL import Image

    pixels = (to_rgb(picture[None])[0].detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    image = Image.fromarray(pixels.numpy())
    # A page may ask for a file at any moment.
    with whole_file(whole) as file:
        image.save(file, format="PNG", compress_level=1)
    if small is not None:
        image.thumbnail((LARGEST_THUMBNAIL, LARGEST_THUMBNAIL), Image.Resampling.LANCZOS)
        with whole_file(small) as file:
            image.save(file, format="JPEG", quality=88)


def _address(name: str) -> dict[str, str]:
    return {"filename": name, "subfolder": FOLDER, "type": "temp"}
