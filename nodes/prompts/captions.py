"""Prompts from the captions of a folder of pictures: a .txt beside each, or one metadata.jsonl for all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..places import content_digest
from .files import json_lines, prompt_of
from .lines import Arrangement, PromptError, PromptList, arrange, counted, noted, one_line
from .places import read_text

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
METADATA = "metadata.jsonl"
CAPTION = ".txt"


def caption_files(folder: Path) -> list[Path]:
    """The files that the captions of a folder depend on."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    return [file for file in entries if file.name == METADATA or file.suffix.lower() in {CAPTION, *PICTURES}]


def captions_digest(folder: Path) -> str:
    """A name for the captions of a folder: the texts by their content, of the pictures only which there are."""
    files = caption_files(folder)
    texts = content_digest(file for file in files if file.suffix.lower() not in PICTURES)
    return f"{texts} {[file.name for file in files]}"


def read_captions(folder: Path, name: str, field: str) -> tuple[list[str], int]:
    """The captions in the order of the pictures' names, and how many pictures have none.

    Args:
        folder: with pictures; its own folders are not looked at.
        name: what to call it in errors.
        field: of the objects in metadata.jsonl; "" = text, caption or prompt.

    Raises:
        PromptError: no such folder, or a caption that cannot be read; the message names file and line.
    """
    if not folder.is_dir():
        raise PromptError(
            f"There is no folder {name!r} in ComfyUI's input folder. Copy yours there, and press R in the browser to "
            "list folders afresh."
        )
    files = caption_files(folder)
    pictures = [file for file in files if file.suffix.lower() in PICTURES]
    metadata = folder / METADATA
    if metadata.is_file():
        return _from_metadata(read_text(metadata, f"{name}/{METADATA}"), f"{name}/{METADATA}", field, pictures)
    # Older programs write .TXT, which some systems tell from .txt.
    shouted = {file.stem: file for file in files if file.suffix.lower() == CAPTION}
    captions = []
    for picture in pictures:
        beside = picture.with_suffix(CAPTION)
        beside = beside if beside.is_file() else shouted.get(picture.stem, beside)
        if beside.is_file():
            captions.append(one_line(read_text(beside, f"{name}/{beside.name}")))
    written = [caption for caption in captions if caption]
    return written, len(pictures) - len(written)


def _from_metadata(text: str, name: str, field: str, pictures: Sequence[Path]) -> tuple[list[str], int]:
    captions, described = [], set()
    for where, entry in json_lines(text, name):
        caption = one_line(prompt_of(entry, where, field))
        if caption:
            captions.append(caption)
            described.add(str(entry.get("file_name", "")) if isinstance(entry, dict) else "")
    return captions, sum(picture.name not in described for picture in pictures)


def from_captions(folder: Path, name: str, *, trigger: str, field: str, arrangement: Arrangement) -> PromptList:
    """The captions of a folder as prompts.

    Args:
        trigger: put before every caption, as Supervised Objective does; "" = nothing.

    Raises:
        PromptError: see `read_captions`, or there is no caption.
    """
    captions, without = read_captions(folder, name, field.strip())
    if not captions:
        raise PromptError(
            f"No picture in {name!r} has a caption. Put a text file of the same name beside each picture (cat.png and "
            f"cat.txt), or one {METADATA} with lines such as "
            '{"file_name": "cat.png", "text": "a cat"}.'
        )
    prompts = [", ".join(part for part in (one_line(trigger), caption) if part) for caption in captions]
    remarks = [f"{counted(without, 'picture')} without a caption"] if without else []
    return noted(arrange(prompts, arrangement, source=f"the folder {name!r}"), remarks)
