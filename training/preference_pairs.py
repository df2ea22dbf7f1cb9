"""Preference pairs: two pictures of one prompt, one of them preferred. Reading, checking, and the held-out part."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageOps

from .interfaces import TrainingError

MINIMUM_PAIRS = 8


@dataclass(frozen=True)
class Pair:
    """One judgement.

    Attributes:
        prompt: what both pictures were to show.
        chosen, rejected: a picture [h, w, c] in [0, 1] with c = 1, 3 or 4, or its file, which is opened when needed.
        person: who judged; "" = not said.
    """

    prompt: str
    chosen: torch.Tensor | Path
    rejected: torch.Tensor | Path
    person: str = ""

    def pictures(self) -> tuple[torch.Tensor | Image.Image, torch.Tensor | Image.Image]:
        """(chosen, rejected).

        Raises:
            TrainingError: a file is no readable picture.
        """
        return opened(self.chosen), opened(self.rejected)


def opened(picture: torch.Tensor | Path) -> torch.Tensor | Image.Image:
    """A picture itself; files are read, and turned as their camera says.

    Raises:
        TrainingError: the file is no readable picture.
    """
    if isinstance(picture, torch.Tensor):
        return picture
    try:
        with Image.open(picture) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise TrainingError(
            f"{picture} is not a readable picture ({error}). Replace it, or leave its pair out."
        ) from error


def make_pairs(prompts: Sequence[str], chosen: Sequence[torch.Tensor], rejected: Sequence[torch.Tensor]) -> list[Pair]:
    """Lists in the same order as pairs.

    Raises:
        TrainingError: the counts differ, or as `check_pairs`.
    """
    if not len(prompts) == len(chosen) == len(rejected):
        raise TrainingError(
            f"Pairs need chosen pictures, rejected pictures and prompts in equal number, in the same order; there are "
            f"{len(chosen)} chosen, {len(rejected)} rejected and {len(prompts)} prompts."
        )
    pairs = [Pair(*parts) for parts in zip(prompts, chosen, rejected, strict=True)]
    check_pairs(pairs)
    return pairs


def read_pairs(file: Path) -> list[Pair]:
    """Pairs from a JSON Lines file: `{"prompt": …, "chosen": path, "rejected": path}`; paths relative to the file.

    With the person who judged, a line has a `"person": …` too.

    Raises:
        TrainingError: unreadable, a line of another form, a picture that is missing or outside of the file's folder;
            or as `check_pairs`. The message names the line.
    """
    file = Path(file)
    try:
        # Not every character that ends a line for Python does so in JSON Lines.
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(
            f"The pairs {file} cannot be read ({error}). Check the path and that it is UTF-8."
        ) from error
    folder = file.resolve().parent
    pairs = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file.name}, line {number}"
        try:
            entry = json.loads(line)
            prompt, chosen, rejected = (entry[key] for key in ("prompt", "chosen", "rejected"))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TrainingError(
                f'{where} is not {{"prompt": …, "chosen": …, "rejected": …}} ({type(error).__name__}: {error}). '
                "Write one such object per line."
            ) from error
        person = entry.get("person", "")
        if not all(isinstance(value, str) for value in (prompt, chosen, rejected, person)):
            raise TrainingError(f"{where}: prompt, chosen, rejected and person must be texts.")
        if not all(map(_is_text, (prompt, chosen, rejected, person))):
            raise TrainingError(f"{where} holds half of a character (a lone surrogate, \\ud800 or so). Write it anew.")
        pairs.append(Pair(prompt, *(_inside(folder, name, where) for name in (chosen, rejected)), person))
    check_pairs(pairs)
    return pairs


def _inside(folder: Path, name: str, where: str) -> Path:
    told = repr(name if len(name) <= 100 else f"{name[:100]}…")
    try:
        path = (folder / name).resolve()
        found = path.is_file()
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{where}: {told} cannot be the name of a picture ({type(error).__name__}). Correct it, or remove the line."
        ) from error
    if not path.is_relative_to(folder):
        raise TrainingError(f"{where}: {told} leads out of {folder}. Put the pictures into that folder.")
    if not found:
        raise TrainingError(f"{where}: there is no picture {told} in {folder}. Put it there, or remove the line.")
    return path


def check_pairs(pairs: Sequence[Pair]) -> None:
    """
    Raises:
        TrainingError: too few pairs, a prompt that is empty or no text, or two identical pictures.
    """
    if len(pairs) < MINIMUM_PAIRS:
        raise TrainingError(
            f"There {'is' if len(pairs) == 1 else 'are'} {len(pairs)} preference pair{'' if len(pairs) == 1 else 's'}; "
            f"training needs at least {MINIMUM_PAIRS}, and learns something useful from a few hundred. Collect more."
        )
    for number, pair in enumerate(pairs, 1):
        if not pair.prompt.strip():
            raise TrainingError(f"The prompt of pair {number} is empty. Write what its pictures were to show.")
        if not _is_text(pair.prompt):
            raise TrainingError(f"The prompt of pair {number} holds half of a character. Write it anew.")
        if _same(pair.chosen, pair.rejected):
            raise TrainingError(f"Pair {number} has the same picture as chosen and as rejected. Leave it out.")


def _is_text(text: str) -> bool:
    """Whether it can be written down: JSON allows one half of a character that takes two."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _same(first: torch.Tensor | Path, second: torch.Tensor | Path) -> bool:
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return first.shape == second.shape and torch.equal(first, second)
    return isinstance(first, Path) and first == second


def plain(prompt: str) -> str:
    """What counts as the same prompt: letter case and blanks do not matter."""
    return " ".join(prompt.casefold().split())


def split_by_prompt(pairs: Sequence[Pair], held_out: float, *, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Pairs to learn from, and pairs to measure on; no prompt is in both.

    Whole prompts are moved, in a random order that only depends on the seed and the prompts, until the held-out part
    has its share of the pairs; each part keeps at least one prompt.

    Args:
        held_out: share of the pairs, 0 (none) … 0.9.

    Raises:
        TrainingError: all pairs have the same prompt, so that none can be held out.
    """
    if held_out == 0:
        return list(pairs), []
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(plain(pair.prompt), []).append(pair)
    if len(groups) < 2:
        raise TrainingError(
            "All pairs have the same prompt, so no prompt can be held out to measure on. Add pairs of other prompts, "
            "or set held_out to 0."
        )
    order = sorted(groups, key=lambda prompt: hashlib.sha256(f"{seed}/{prompt}".encode()).digest())
    wanted, taken = held_out * len(pairs), 0
    measured: set[str] = set()
    for prompt in order[:-1]:
        if measured and taken >= wanted:
            break
        measured.add(prompt)
        taken += len(groups[prompt])
    learned = [pair for pair in pairs if plain(pair.prompt) not in measured]
    return learned, [pair for pair in pairs if plain(pair.prompt) in measured]


def data_digest(pairs: Sequence[Pair]) -> str:
    """sha256 of prompts and pictures in their order, 64 hex digits."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(f"{pair.prompt}\n".encode())
        for picture in (pair.chosen, pair.rejected):
            if isinstance(picture, Path):
                digest.update(hashlib.sha256(picture.read_bytes()).digest())
            else:
                digest.update(str(tuple(picture.shape)).encode())
                digest.update(picture.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return digest.hexdigest()
