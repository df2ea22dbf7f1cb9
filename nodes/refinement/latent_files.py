"""The latents of rounds as safetensors files under the name of their content: FOLDER/abcd….safetensors.

The next round begins from them, and a replay is compared with them bit by bit. A file is whole or not there. Directions
of embeddings are kept in the same way.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import torch

from ...training.checkpoint import CheckpointError, read_tensors, write_atomically
from .checks import DIGEST, RefinementError, UnknownError

NAME = "latents"
# Threads of one process would use the same name for an unfinished file.
_WRITING = threading.Lock()


def latents_digest(latents: torch.Tensor) -> str:
    """sha256 of type, shape and bytes: equal only for latents that are equal bit by bit."""
    plain = latents.detach().to("cpu").contiguous()
    head = f"{plain.dtype} {tuple(plain.shape)}\n".encode()
    # As bytes first: NumPy has no 16-bit brain floats. Of no elements there are no bytes to see.
    content = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return hashlib.sha256(head + content).hexdigest()


class LatentFolder:
    """The files. Any thread and process may use the folder.

    Args:
        folder: made when first needed.

    Attributes:
        what: is kept, for people. remedy: where a file is gone.
    """

    what = "latents"
    remedy = "Begin the next round from pure noise (strength 1), or put a backup of the session's folder in its place."

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def path(self, digest: str) -> Path:
        """Where the latents of that digest are, or would be.

        Raises:
            UnknownError: that is no digest.
        """
        if not DIGEST.fullmatch(digest):
            raise UnknownError(f"There are no such {self.what}.")
        return self.folder / f"{digest}.safetensors"

    def holds(self, digest: str) -> bool:
        return self.path(digest).is_file()

    def put(self, latents: torch.Tensor) -> str:
        """Keep latents, if they are not there as they should be; their digest.

        Raises:
            CheckpointError: the folder cannot be written.
        """
        digest = latents_digest(latents)
        with _WRITING:
            try:
                self.get(digest)
            except UnknownError:
                write_atomically(self.path(digest), {NAME: latents}, {})
        return digest

    def get(self, digest: str) -> torch.Tensor:
        """The latents, on the CPU.

        Raises:
            UnknownError: there are none, or their file is damaged or changed.
        """
        path = self.path(digest)
        if not path.is_file():
            raise UnknownError(f"The {self.what} {digest[:12]}… are not there any more. {self.remedy}")
        try:
            latents = read_tensors(path)[0][NAME]
        except (CheckpointError, KeyError) as error:
            raise UnknownError(f"{path} cannot be read ({error}). Put a backup of that file in its place.") from error
        if latents_digest(latents) != digest:
            raise UnknownError(f"{path} is not what the round made. Put a backup of that file in its place.")
        return latents

    def names(self) -> Iterator[str]:
        """The digests of all files there are."""
        for path in self.folder.glob("*.safetensors"):
            if DIGEST.fullmatch(path.stem):
                yield path.stem

    def remove(self, digest: str) -> None:
        """Delete a file; that it is not there is no error.

        Raises:
            RefinementError: it cannot be deleted.
        """
        path = self.path(digest)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise RefinementError(
                f"{path} cannot be deleted ({error.strerror or error}). Close what uses the file, then try again."
            ) from error


class DirectionFolder(LatentFolder):
    """Directions of embeddings [T, D]."""

    what = "chosen pictures' directions"
    remedy = (
        "Set follow of Refine Conditioning to 1 to make the next round without them; a replay needs them: put a backup "
        "of the session's folder in its place."
    )
