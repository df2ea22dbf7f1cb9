"""Pictures as PNG files under the name of their pixels: FOLDER/ab/abcd….png.

A file holds the 8-bit pixels and nothing else: no prompt, no seed, no workflow. It is whole or not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..training.checkpoint import sweep, whole_file
from ..training.interfaces import AttuneError

HASH = re.compile(r"[0-9a-f]{64}")
# Threads of one process would use the same name for an unfinished file.
_WRITING = threading.Lock()
_ATTEMPTS = 3
# The last chunk of every PNG file.
_END = bytes.fromhex("0000000049454e44ae426082")


class PictureError(AttuneError):
    """That is no picture, or it cannot be kept or removed."""


class MissingPictureError(PictureError):
    """There is no such picture (any more)."""


def to_pixels(image: torch.Tensor) -> np.ndarray:
    """A picture in 8 bits.

    Args:
        image: [h, w, c] in [0, 1], with c = 1 (grey), 3, or 4 (of which the first three are taken).

    Returns:
        uint8 [h, w, 3].

    Raises:
        PictureError: another shape, no pixels, or values that are not finite.
    """
    if image.ndim != 3 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
        raise PictureError(
            f"A picture has the shape {tuple(image.shape)}; expected (height, width, 3). Connect an IMAGE output."
        )
    image = image.detach().to("cpu", torch.float32)[..., :3]
    if not image.isfinite().all():
        raise PictureError(
            "A picture holds values that are not finite numbers (NaN or infinite): its maker diverged. Check the node "
            "that made it."
        )
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels.expand(*pixels.shape[:2], 3).contiguous().numpy()


def to_image(pixels: np.ndarray) -> torch.Tensor:
    """uint8 [h, w, 3] as the host's float32 [h, w, 3] in [0, 1]."""
    return torch.from_numpy(pixels.astype(np.float32) / 255)


def picture_hash(pixels: np.ndarray) -> str:
    """sha256 of size and 8-bit RGB pixels: equal for equal pictures, whichever node or file they come from."""
    height, width, _ = pixels.shape
    return hashlib.sha256(f"{width}x{height}\n".encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


class PictureFolder:
    """The files. Any thread and process may use the folder.

    Args:
        folder: made when first needed.

    A family's own folder may raise errors of its own (`failed`, `missing`), and say its own `remedy` for a file that
    was damaged or changed.
    """

    failed: type[AttuneError] = PictureError
    missing: type[AttuneError] = MissingPictureError
    remedy = "Put a backup of that file in its place."

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def path(self, name: str) -> Path:
        """Where the picture of that hash is, or would be.

        Raises:
            MissingPictureError: that is no hash.
        """
        if not HASH.fullmatch(name):
            raise self.missing("There is no such picture.")
        return self.folder / name[:2] / f"{name}.png"

    def holds(self, name: str) -> bool:
        return self.path(name).is_file()

    def put(self, pixels: np.ndarray) -> str:
        """Keep a picture, if it is not there; its hash. After a power cut the file is whole or not there.

        Raises:
            PictureError: the folder cannot be written.
        """
        name = picture_hash(pixels)
        path = self.path(name)
        try:
            with _WRITING:
                if not _is_whole(path):
                    _write(path, pixels)
        except OSError as error:
            raise self.failed(
                f"A picture cannot be kept in {self.folder} ({error.strerror or error}). Free some space, or make the "
                "folder writable for the user that runs ComfyUI."
            ) from error
        return name

    def read(self, name: str) -> bytes:
        """The file as it is.

        Raises:
            MissingPictureError: there is no such picture.
        """
        try:
            return self.path(name).read_bytes()
        except OSError as error:
            raise self.missing(_gone(name)) from error

    def get(self, name: str) -> np.ndarray:
        """The pixels, uint8 [h, w, 3].

        Raises:
            MissingPictureError: there is no such picture, or its file is damaged.
        """
        path = self.path(name)
        try:
            with Image.open(path) as opened:
                pixels = np.asarray(opened.convert("RGB"))
        except FileNotFoundError as error:
            raise self.missing(_gone(name)) from error
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise self.missing(f"The picture {path} cannot be read ({error}). {self.remedy}") from error
        if picture_hash(pixels) != name:
            raise self.missing(f"The picture {path} is not what was kept: its pixels have changed. {self.remedy}")
        return pixels

    def small(self, name: str, largest: int) -> bytes:
        """The picture as a JPEG, no larger than that many pixels a side.

        Raises:
            MissingPictureError: see `get`.
        """
        picture = Image.fromarray(self.get(name))
        picture.thumbnail((largest, largest), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=90)
        return buffer.getvalue()

    def remove(self, names: Iterable[str]) -> None:
        """Delete files; what is not there is no error.

        Raises:
            PictureError: a file cannot be deleted.
        """
        for name in names:
            path = self.path(name)
            # A folder must not go between being made for a picture and holding it.
            with _WRITING:
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    raise self.failed(
                        f"{path} cannot be deleted ({error.strerror or error}). Close what uses the file; it goes when "
                        "ComfyUI is started again."
                    ) from error
                with contextlib.suppress(OSError):
                    path.parent.rmdir()

    def names(self) -> Iterator[str]:
        """The hashes of all files there are."""
        for path in self.folder.glob("??/*.png"):
            if HASH.fullmatch(path.stem):
                yield path.stem

    def tidy(self) -> bool:
        """Delete what killed processes left of their writing; see `training.checkpoint.sweep`.

        Returns:
            Whether nothing half-written is left. False: it may be at work still, or has not been idle for long.
        """
        for folder in self._parts():
            sweep(folder)
        return not any(self.folder.glob("??/.*.partial"))

    def _parts(self) -> Sequence[Path]:
        try:
            return [part for part in self.folder.iterdir() if part.is_dir()]
        except OSError:
            return []


def _is_whole(path: Path) -> bool:
    """Whether there is a picture that was written to its end."""
    try:
        with open(path, "rb") as file:
            file.seek(-len(_END), os.SEEK_END)
            return file.read() == _END
    except OSError:
        return False


def _write(path: Path, pixels: np.ndarray) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            with whole_file(path) as partial:
                Image.fromarray(pixels).save(partial, format="PNG", compress_level=1)
                with open(partial, "rb+") as file:
                    os.fsync(file.fileno())
            return
        except FileNotFoundError:
            # Another process has just emptied and removed the folder.
            if attempt == _ATTEMPTS - 1:
                raise


def _gone(name: str) -> str:
    return f"The picture {name[:12]}… is not there any more."
