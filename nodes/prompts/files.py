"""Prompts from a file: text (a prompt per line), CSV (a column), JSON lines and JSON (a field)."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .lines import Arrangement, PromptError, PromptList, arrange, noted, one_line, prompt_lines, text_lines
from .places import read_text

Found = tuple[list[str], list[str]]
"""Prompts, and remarks on how they were read."""

# Names under which prompts are found where no column is named, in this order.
USUAL_FIELDS = ("prompt", "text", "caption")
# A table's heading may as well name all that is below it.
USUAL_HEADINGS = (*USUAL_FIELDS, "prompts", "captions")
# Of a field that a program may hold deeper, e.g. {"prompts": [...]}.
USUAL_LISTS = ("prompts", "data", "items", "captions")


# Excel's own first line, which says what parts the columns; no data.
_EXCEL_MARK = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)


def read_prompts(path: Path, name: str, field: str = "") -> tuple[list[str], list[str]]:
    """The prompts of a file, in its order, and what is to be said of how they were read; empty entries are left out.

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
    found, remarks = reader(read_text(path, name), name, field.strip())
    return [prompt for prompt in map(one_line, found) if prompt], remarks


def from_file(path: Path, name: str, *, field: str, arrangement: Arrangement) -> PromptList:
    """The prompts of a file, arranged.

    Raises:
        PromptError: see `read_prompts`, or there is no prompt.
    """
    prompts, remarks = read_prompts(path, name, field)
    return noted(arrange(prompts, arrangement, source=name), remarks)


def _from_text(text: str, name: str, field: str) -> Found:
    if field:
        raise PromptError(f"{name} is a text file and has no field {field!r}. Empty the box 'field'.")
    return prompt_lines(text), []


def _from_csv(text: str, name: str, field: str) -> Found:
    """The first row is a heading if it holds the field's name, or if no field is given, one of the usual names."""
    rows = _csv_rows(text, name)
    if not rows:
        return [], []
    heading = rows[0][1]
    column, first = _csv_column(heading, name, field)
    prompts = []
    for line, row in rows[first:]:
        if column >= len(row):
            raise PromptError(
                f"{name}, line {line}: there is no column {column + 1}, only {len(row)}. A comma inside a prompt needs "
                'quotation marks around the prompt: "a cat, flat style".'
            )
        if any(cell.strip() for cell in row[len(heading) :]):
            raise PromptError(
                f"{name}, line {line}: there are {len(row)} columns, but {len(heading)} in the first row. A comma "
                'inside a prompt needs quotation marks around the prompt: "a cat, flat style".'
            )
        prompts.append(row[column])
    return prompts, [] if first or not field else ["the first row counts as a prompt"]


def _csv_rows(text: str, name: str) -> list[tuple[int, list[str]]]:
    """(line in the file where the row ends, cells) of every row that is not blank."""
    mark = _EXCEL_MARK.match(text)
    if mark:
        text, delimiter = text[mark.end() :], mark[1]
    else:
        heading = text.partition("\n")[0]
        # Spreadsheets write semicolons where a comma is the decimal sign.
        delimiter = max("\t;,", key=heading.count) if any(sign in heading for sign in "\t;,") else ","
    above = 1 if mark else 0
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    except (TypeError, ValueError):
        raise PromptError(f"{name}, line 1: {delimiter!r} cannot part columns. Remove this line.") from None
    rows: list[tuple[int, list[str]]] = []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append((reader.line_num + above, row))
    except csv.Error as error:
        raise PromptError(
            f"{name}, line {reader.line_num + above}: not CSV ({error}). Check the quotation marks."
        ) from None
    return rows


def _csv_column(heading: Sequence[str], name: str, field: str) -> tuple[int, int]:
    """The column's index, and the index of the first row with a prompt."""
    titles = [cell.strip().lower() for cell in heading]
    if field:
        if field.lower() in titles:
            return titles.index(field.lower()), 1
        if re.fullmatch(r"\d{1,9}", field) and 1 <= int(field) <= len(titles):
            return int(field) - 1, 1 if set(titles) & set(USUAL_HEADINGS) else 0
        raise PromptError(
            f"{name}, line 1: there is no column {field!r}. Its columns are: {', '.join(heading)}. Write one of these "
            "names into 'field', or a column's number, counted from 1."
        )
    for usual in USUAL_HEADINGS:
        if usual in titles:
            return titles.index(usual), 1
    if len(titles) == 1:
        return 0, 0
    raise PromptError(
        f"{name}, line 1: no column is called {', '.join(USUAL_FIELDS[:-1])} or {USUAL_FIELDS[-1]}. Its columns are: "
        f"{', '.join(heading)}. Write one of these names into 'field', or a column's number, counted from 1."
    )


def _from_json_lines(text: str, name: str, field: str) -> Found:
    return [prompt_of(entry, where, field) for where, entry in json_lines(text, name)], []


def _from_json(text: str, name: str, field: str) -> Found:
    found = _parsed(text, name)
    if isinstance(found, Mapping):
        found = next((found[key] for key in USUAL_LISTS if isinstance(found.get(key), list)), found)
    if not isinstance(found, list):
        raise PromptError(f'{name} holds no list of prompts. Write ["a cat", "a dog"], or a list of objects.')
    return [prompt_of(entry, f"{name}, entry {number}", field) for number, entry in enumerate(found, 1)], []


def json_lines(text: str, name: str) -> Iterator[tuple[str, Any]]:
    """(file and line for errors, value) of every line that is not blank.

    Raises:
        PromptError: a line is not JSON.
    """
    for number, line in enumerate(text_lines(text), 1):
        if line.strip():
            yield f"{name}, line {number}", _parsed(line, name, number)


def _parsed(text: str, name: str, line: int | None = None) -> Any:
    """A JSON value.

    Args:
        line: of JSON lines; None if the text is a whole file.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if line is None:
            words = f"{name}, line {error.lineno}: not JSON ({error.msg}). Check the file's end, too."
        else:
            words = f"{name}, line {line}: not JSON ({error.msg}, letter {error.colno}). Every line is one object."
        raise PromptError(words) from None
    except (RecursionError, ValueError) as error:
        what = (
            "lists inside each other, too deep"
            if isinstance(error, RecursionError)
            else "a number with too many digits"
        )
        where = name if line is None else f"{name}, line {line}"
        raise PromptError(f"{where}: {what} to be read. Prompts are texts; remove what is none.") from None


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


READERS: dict[str, Callable[[str, str, str], Found]] = {
    ".txt": _from_text,
    ".csv": _from_csv,
    ".jsonl": _from_json_lines,
    ".json": _from_json,
}
