"""The pictures of blind tests, kept on disk under a name for everything that they depend on.

A person votes, runs the graph again, adds seeds, comes back the next day: the same pictures must be there, to the last
bit, or the votes on them would be lost. Sampling again does not promise that on a graphics card.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, PngImagePlugin

from ...training.checkpoint import whole_file
from ...training.interfaces import AttuneError
from ..drawing import to_picture

log = logging.getLogger("attune")

LARGEST_THUMBNAIL = 384
# At a megapixel each about 3 GB. Beyond, those that were used longest ago go; votes on them stay.
MOST_PICTURES = 2000
NAME = re.compile(r"[0-9a-f]{32}")
_BLURRED = "attune_blurred"


@dataclass(frozen=True)
class StoredPicture:
    """A picture of a test.

    Attributes:
        name: of its files.
        pixels: uint8 [h, w, 3].
        content: a name for the pixels.
        blurred: a safety gate holds the picture back, and this is its blurred copy.
    """

    name: str
    pixels: np.ndarray
    content: str
    blurred: bool

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def image(self) -> torch.Tensor:
        """float32 [h, w, 3] in [0, 1]."""
        return torch.from_numpy(self.pixels.astype(np.float32) / 255)


def digest_of(parts: Any) -> str:
    """32 hexadecimal digits that stand for a JSON value."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class PictureStore:
    """Pictures as NAME.png, and NAME.small.jpg where they are large.

    Args:
        folder: made when first needed.
        limit: how many pictures are kept.
    """

    def __init__(self, folder: Path, limit: int = MOST_PICTURES) -> None:
        self.folder, self.limit = folder, limit

    def path(self, name: str, *, small: bool = False) -> Path | None:
        """The file of a picture; `small` = its thumbnail where there is one. None if there is no such picture."""
        if not NAME.fullmatch(name):
            return None
        whole, thumbnail = self.folder / f"{name}.png", self.folder / f"{name}.small.jpg"
        if small and thumbnail.is_file():
            return thumbnail
        return whole if whole.is_file() else None

    def find(self, name: str) -> StoredPicture | None:
        """A picture, which then counts as used now; None if there is none, or its file is damaged."""
        path = self.path(name)
        if path is None:
            return None
        try:
            with Image.open(path) as opened:
                opened.load()
                blurred = opened.info.get(_BLURRED) == "1"
                pixels = np.asarray(opened.convert("RGB"))
            os.utime(path)
        except (OSError, ValueError, SyntaxError) as error:  # Pillow has a type of error for every way to be damaged
            log.warning("Attune: the stored picture %s cannot be read and is made again: %s", path.name, error)
            return None
        return _stored(name, pixels, blurred)

    def put(self, name: str, image: torch.Tensor, *, blurred: bool) -> StoredPicture:
        """Keep a picture [h, w, 3] in [0, 1], with 8 bits.

        Raises:
            AttuneError: the folder cannot be written.
        """
        picture, info = to_picture(image), PngImagePlugin.PngInfo()
        info.add_text(_BLURRED, "1" if blurred else "0")
        try:
            if max(picture.size) > LARGEST_THUMBNAIL:
                small = picture.copy()
                small.thumbnail((LARGEST_THUMBNAIL, LARGEST_THUMBNAIL), Image.Resampling.LANCZOS)
                with whole_file(self.folder / f"{name}.small.jpg") as file:
                    small.save(file, format="JPEG", quality=88)
            with whole_file(self.folder / f"{name}.png") as file:
                picture.save(file, format="PNG", compress_level=1, pnginfo=info)
        except OSError as error:
            raise AttuneError(
                f"The pictures of the test cannot be kept in {self.folder} ({error.strerror or error}). Free some "
                f"space, or make the folder writable for the user that runs ComfyUI."
            ) from error
        return _stored(name, np.asarray(picture), blurred)

    def tidy(self) -> None:
        """Remove what was used longest ago, beyond the limit."""
        with contextlib.suppress(OSError):
            files = sorted(self.folder.glob("*.png"), key=lambda file: file.stat().st_mtime)
            for file in files[: max(0, len(files) - self.limit)]:
                file.with_name(f"{file.stem}.small.jpg").unlink(missing_ok=True)
                file.unlink(missing_ok=True)


def _stored(name: str, pixels: np.ndarray, blurred: bool) -> StoredPicture:
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return StoredPicture(name, pixels, digest.hexdigest(), blurred)


def picture_name(model: str, prompt: str, seed: int, common: Mapping[str, Any]) -> str:
    """The name of the picture that a model makes of a prompt and a seed.

    Args:
        model: its identity.
        common: whatever else the pixels depend on, JSON-able: text encoder, VAE, size, negative prompt, sampler, gate.
    """
    return digest_of({"model": model, "prompt": prompt, "seed": seed, **common})
