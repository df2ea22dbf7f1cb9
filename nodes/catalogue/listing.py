"""The catalogue as the page reads it; documented for its reader in `js/catalogue_state.js`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from .catalogue import Catalogue
from .comparing import compare_entries
from .families import families
from .picture import method_name
from .records import CatalogueError, Entry

MOST_AT_ONCE = 500
# What the store holds as a whole number.
_LARGEST = 2**63 - 1
_LEFT_OUT = ("content", "modified", "status_before", "trashed_as")


def as_json(entry: Entry) -> dict[str, Any]:
    """A LoRA as plain data."""
    plain = {name: value for name, value in asdict(entry).items() if name not in _LEFT_OUT}
    return plain | {"title": entry.title, "method_name": method_name(entry.method), "tags": list(entry.tags)}


def listing(catalogue: Catalogue) -> dict[str, Any]:
    """Everything the page shows, after a look into the folder."""
    catalogue.scan()
    entries = catalogue.entries()
    shown = [entry for entry in entries if not entry.in_trash]
    targets = catalogue.roll_back_targets()
    return {
        "revision": catalogue.revision(),
        "folder": catalogue.folder.name,
        "problems": catalogue.problems,
        "loras": [as_json(entry) for entry in shown],
        "families": [
            {
                "run": family.run,
                "depth": family.depth,
                "figure": family.figure,
                "versions": [entry.id for entry in family.versions],
                "roll_back": targets.get(family.run),
            }
            for family in families(shown)
        ],
        "trash": [as_json(entry) for entry in reversed(entries) if entry.in_trash and not entry.missing],
    }


def comparison(catalogue: Catalogue, query: Mapping[str, str]) -> dict[str, Any]:
    """
    Raises:
        CatalogueError: the two numbers are missing, or there are no such LoRAs.
    """
    try:
        first, second = int(query.get("a", "")), int(query.get("b", ""))
    except ValueError as error:
        raise CatalogueError("Name the two LoRAs to compare by their numbers, as in ?a=1&b=2.") from error
    return compare_entries(catalogue, *(_number({"id": id}) for id in (first, second)))


def change(catalogue: Catalogue, action: str, body: Any) -> dict[str, Any]:
    """Do what the page asks, and give the new listing.

    Args:
        action: one of `ACTIONS`.
        body: the JSON that was sent.

    Raises:
        CatalogueError: unknown action, bad values, or it cannot be done; nothing was changed.
    """
    if action not in ACTIONS:
        raise CatalogueError(f"The catalogue cannot {action!r}. It can: {', '.join(ACTIONS)}.")
    if not isinstance(body, Mapping):
        raise CatalogueError("Send a JSON object.")
    ACTIONS[action](catalogue, body)
    return listing(catalogue)


def _number(body: Mapping[str, Any]) -> int:
    id = body.get("id")
    if isinstance(id, bool) or not isinstance(id, int):
        raise CatalogueError(f"'id' must be the number of a LoRA, not {id!r}.")
    if not 0 < id <= _LARGEST:
        raise CatalogueError(
            "'id' must be the number of a LoRA; the catalogue has none of that number. Refresh the list."
        )
    return id


def _numbers(body: Mapping[str, Any]) -> list[int]:
    ids = body.get("ids")
    if not isinstance(ids, list) or not 0 < len(ids) <= MOST_AT_ONCE:
        raise CatalogueError(f"'ids' must be a list of 1 to {MOST_AT_ONCE} numbers of LoRAs.")
    return [_number({"id": id}) for id in ids]


def _text(body: Mapping[str, Any], name: str) -> str:
    text = body.get(name)
    if not isinstance(text, str):
        raise CatalogueError(f"'{name}' must be a text, not {text!r}.")
    return _whole(text, name)


def _whole(text: str, name: str) -> str:
    """JSON can hold half a character, which the store cannot."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise CatalogueError(f"'{name}' holds half of a character. Type it anew.")
    return text


def _tags(body: Mapping[str, Any]) -> list[str]:
    tags = body.get("tags")
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise CatalogueError("'tags' must be a list of texts.")
    return [_whole(tag, "tags") for tag in tags]


ACTIONS: dict[str, Callable[[Catalogue, Mapping[str, Any]], Any]] = {
    "tag": lambda catalogue, body: catalogue.set_tags(_number(body), _tags(body)),
    "note": lambda catalogue, body: catalogue.set_note(_number(body), _text(body, "note")),
    "promote": lambda catalogue, body: catalogue.promote(_number(body)),
    "rollback": lambda catalogue, body: catalogue.roll_back(_text(body, "run")),
    "trash": lambda catalogue, body: catalogue.trash(_numbers(body)),
    "restore": lambda catalogue, body: catalogue.restore(_numbers(body)),
    "empty": lambda catalogue, body: catalogue.erase(_numbers(body)),
    "forget": lambda catalogue, body: catalogue.forget(_numbers(body)),
}
