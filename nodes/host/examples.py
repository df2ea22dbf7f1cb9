"""Example files for the templates, in the host's input folder where its own loaders find them."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import folder_paths

from .folders import DEMO_FOLDER

log = logging.getLogger("attune")

STYLE, WORDS, PEOPLE, TASTES = "attune_style", "attune_words", "attune_people", "attune_tastes"
PROMPTS, WILDCARDS = "attune_prompts", "wildcards/attune"


def offer_pictures(name: str) -> None:
    """Copy a set of examples to `input/NAME`, unless there is a folder of that name already.

    Args:
        name: `STYLE`, `WORDS`, `PEOPLE`, `TASTES`, `PROMPTS` or `WILDCARDS`.
    """
    source, target = DEMO_FOLDER / name, Path(folder_paths.get_input_directory()) / name
    if target.exists() or not source.is_dir():
        return
    partial = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial)
        partial.rename(target)
    except OSError as error:
        log.warning("Attune: the examples could not be copied to %s: %s", target, error)
