"""The files of one session: FOLDER/<key of the session>/pictures/…, …/latents/… and …/directions/…, its own alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from .. import picture_folder
from .checks import KEY, RefinementError, UnknownError
from .latent_files import DirectionFolder, LatentFolder
from .records import Picture, Round, direction_of
from .session_rows import used_files


class PictureFolder(picture_folder.PictureFolder):
    """Pictures of rounds, with this family's errors."""

    failed, missing = RefinementError, UnknownError
    remedy = "Put a backup of that file in its place, or replay its round."


class SessionFiles:
    """Pictures, latents and directions of one session.

    Args:
        folder: of all sessions. key: of the session.

    Raises:
        UnknownError: that is no key.
    """

    def __init__(self, folder: Path, key: str) -> None:
        if not KEY.fullmatch(key):
            raise UnknownError("There is no such session. Choose one in the Refinement Session node.")
        self.folder = Path(folder) / key
        self.pictures = PictureFolder(self.folder / "pictures")
        self.latents = LatentFolder(self.folder / "latents")
        self.directions = DirectionFolder(self.folder / "directions")

    def put(
        self, pictures: Sequence[Picture], pixels: Mapping[str, np.ndarray], latents: torch.Tensor | None,
        direction: torch.Tensor | None = None,
    ) -> None:  # fmt: skip
        """Keep what a round has made.

        Args:
            pixels: picture's hash → uint8 [h, w, 3]; may lack what is kept already.

        Raises:
            RefinementError: a picture's pixels are missing or others. AttuneError: the folder cannot be written.
        """
        for picture in pictures:
            if picture.hash in pixels:
                name = self.pictures.put(pixels[picture.hash])
                if name != picture.hash:
                    raise RefinementError(f"The pixels given for picture {picture.hash[:12]} are those of {name[:12]}.")
            elif not self.pictures.holds(picture.hash):
                raise RefinementError(f"The pixels of picture {picture.hash[:12]} were not given.")
        if latents is not None:
            self.latents.put(latents)
        if direction is not None:
            self.directions.put(direction)

    def hold(self, round_: Round) -> bool:
        """Whether all files of a round are there."""
        return all(self.pictures.holds(picture.hash) for picture in round_.pictures) and all(
            (not digest or folder.holds(digest))
            for folder, digest in ((self.latents, round_.latents), (self.directions, direction_of(round_.embedding)))
        )

    def drop_unused(self, connection: sqlite3.Connection, session: int) -> None:
        """Delete the files that no round names. The transaction keeps others from taking one up meanwhile.

        Raises:
            RefinementError: a file cannot be deleted.
        """
        pictures, latents, directions = used_files(connection, session)
        self.pictures.remove([name for name in self.pictures.names() if name not in pictures])
        for folder, used in ((self.latents, latents), (self.directions, directions)):
            for digest in [digest for digest in folder.names() if digest not in used]:
                folder.remove(digest)

    def problems(self, rounds: Sequence[Round]) -> list[str]:
        """What is wrong with the pictures of these rounds, in words."""
        found = []
        for name in dict.fromkeys(picture.hash for round_ in rounds for picture in round_.pictures):
            try:
                self.pictures.get(name)
            except UnknownError as error:
                found.append(str(error))
        return found
