"""Example files for the templates, in the host's input folder where its own loaders find them."""

from __future__ import annotations

import logging
from pathlib import Path

import folder_paths

from ..example_files import add_missing
from .folders import DEMO_FOLDER

log = logging.getLogger("attune")

STYLE, WORDS, PEOPLE, TASTES = "attune_style", "attune_words", "attune_people", "attune_tastes"
PROMPTS, WILDCARDS = "attune_prompts", "wildcards/attune"


def offer_pictures(name: str) -> None:
    """Copy the files of a set of examples to `input/NAME`, unless there are files of their names already.

    Args:
        name: `STYLE`, `WORDS`, `PEOPLE`, `TASTES`, `PROMPTS` or `WILDCARDS`.
    """
    source, target = DEMO_FOLDER / name, Path(folder_paths.get_input_directory()) / name
    for error in add_missing(source, target) if source.is_dir() else ():
        log.warning("Attune: an example could not be copied to %s: %s", target, error)
