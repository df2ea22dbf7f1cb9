"""The LoRA catalogue: what was trained, from what, how well, and which version counts.

`Catalogue` keeps the record of a folder of LoRA files in the store, `families` orders it as a tree of versions,
`compare_entries` sets two side by side, `version_picture` draws a run. `merge_loras` sums LoRAs into one file. Nothing
here knows the host; its nodes do.
"""

from __future__ import annotations

from .catalogue import Catalogue
from .comparing import compare_entries
from .families import families
from .merging import merge_loras
from .picture import version_picture
from .records import CatalogueError, Entry

__all__ = [
    "Catalogue",
    "CatalogueError",
    "Entry",
    "compare_entries",
    "families",
    "merge_loras",
    "version_picture",
]
