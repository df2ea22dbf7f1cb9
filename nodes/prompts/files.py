"""Prompts from a file: text (a prompt per line), CSV (a column), JSON lines and JSON (a field)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .lines import PromptError, one_line, prompt_lines
from .places import read_text

# Names under which prompts are found where no column is named, in this order.
USUAL_FIELDS = ("prompt", "text", "caption")
# Of a field that a program may hold deeper, e.g. {"prompts": [...]}.
USUAL_LISTS = ("prompts", "data", "items", "captions")


def read_prompts(path: Path, name: str, field: str = "") -> list[str]:
    """The prompts of a file, in its order; empty entries are left out.

    Args:
        path: the file; its ending decides how it is read.
        name: what to call it in errors.
        field: column of a CSV (its heading, or its number counted from 1) or field of JSON objects; "" = one of
            `USUAL_FIELDS`. A text file has none.

    Raises:
        PromptError: the file cannot be read; the message names file and line.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise PromptError(f"{name} is none of the files that hold prompts: {', '.join(READERS)}. Choose another one.")
    prompts = [one_line(prompt) for prompt in reader(read_text(path, name), name, field.strip())]
    return [prompt for prompt in prompts if prompt]


def _from_text(text: str, name: str, field: str) -> list[str]:
    if field:
        raise PromptError(f"{name} is a text file and has no field {field!r}. Empty the box 'field'.")
    return prompt_lines(text)


def _from_csv(text: str, name: str, field: str) -> list[str]:
    """The first row is a heading if it holds the field's name, or if no field is given, one of the usual names."""
    heading = text.partition("\n")[0]
    # Spreadsheets write semicolons where a comma is the decimal sign.
    delimiter = max("\t;,", key=heading.count) if any(mark in heading for mark in "\t;,") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append((reader.line_num, row))
    except csv.Error as error:
        raise PromptError(f"{name}, line {reader.line_num}: not CSV ({error}). Check the quotation marks.") from None
    if not rows:
        return []
    column, first = _csv_column(rows[0][1], name, field)
    prompts = []
    for line, row in rows[first:]:
        if column >= len(row):
            raise PromptError(
                f"{name}, line {line}: there is no column {column + 1}, only {len(row)}. A comma inside a prompt needs "
                'quotation marks around the prompt: "a cat, flat style".'
            )
        prompts.append(row[column])
    return prompts


def _csv_column(heading: Sequence[str], name: str, field: str) -> tuple[int, int]:
    """The column's index, and the index of the first row with a prompt."""
    titles = [cell.strip().lower() for cell in heading]
    if field:
        if field.lower() in titles:
            return titles.index(field.lower()), 1
        if field.isdecimal() and 1 <= int(field) <= len(titles):
            return int(field) - 1, 1 if set(titles) & set(USUAL_FIELDS) else 0
        raise PromptError(
            f"{name}, line 1: there is no column {field!r}. Its columns are: {', '.join(heading)}. Write one of these "
            "names into 'field', or a column's number, counted from 1."
        )
    for usual in USUAL_FIELDS:
        if usual in titles:
            return titles.index(usual), 1
    if len(titles) == 1:
        return 0, 0
    raise PromptError(
        f"{name}, line 1: no column is called {', '.join(USUAL_FIELDS[:-1])} or {USUAL_FIELDS[-1]}. Its columns are: "
        f"{', '.join(heading)}. Write one of these names into 'field', or a column's number, counted from 1."
    )


def _from_json_lines(text: str, name: str, field: str) -> list[str]:
    prompts = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            where = f"{name}, line {number}"
            prompts.append(prompt_of(_parsed(line, where), where, field))
    return prompts


def _from_json(text: str, name: str, field: str) -> list[str]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise PromptError(f"{name}, line {error.lineno}: not JSON ({error.msg}). Check the file's end, too.") from None
    if isinstance(found, Mapping):
        found = next((found[key] for key in USUAL_LISTS if isinstance(found.get(key), list)), found)
    if not isinstance(found, list):
        raise PromptError(f'{name} holds no list of prompts. Write ["a cat", "a dog"], or a list of objects.')
    return [prompt_of(entry, f"{name}, entry {number}", field) for number, entry in enumerate(found, 1)]


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise PromptError(f"{where}: not JSON ({error.msg}, letter {error.colno}). Every line is one object.") from None


def prompt_of(entry: Any, where: str, field: str) -> str:
    """The prompt of one JSON value: a text, or an object's field.

    Raises:
        PromptError: it has no such field, or the field is no text.
    """
    if isinstance(entry, str):
        return entry
    if not isinstance(entry, Mapping):
        raise PromptError(f"{where}: {str(entry)[:60]!r} is neither a text nor an object.")
    key = field or next((usual for usual in USUAL_FIELDS if usual in entry), "")
    if key not in entry:
        wanted = f"no field {field!r}" if field else f"none of the fields {', '.join(USUAL_FIELDS)}"
        raise PromptError(
            f"{where}: there is {wanted}. Its fields are: {', '.join(map(str, entry)) or 'none'}. Write one of these "
            "names into 'field'."
        )
    if not isinstance(entry[key], str):
        raise PromptError(
            f"{where}: the field {key!r} is {str(entry[key])[:60]!r}, which is no text. Choose another one."
        )
    return entry[key]


READERS: dict[str, Callable[[str, str, str], list[str]]] = {
    ".txt": _from_text,
    ".csv": _from_csv,
    ".jsonl": _from_json_lines,
    ".json": _from_json,
}
