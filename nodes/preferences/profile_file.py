"""A taste as a file to give away: its numbers, and nothing of whose they are.

One safetensors file. Its header holds one text, `attune.profile`, which is JSON:

    {"format": 1, "title": TEXT, "embeddings": [{"encoder_id", "choices", "text"}, …], "prompts": [TEXT, …],
     "digest": HEX}

Embedding number i is the float32 table `embedding_i` [tokens, width]; no two are of one encoder. `title` is what the
giver typed for everybody to see, "" otherwise. `prompts`, and `text` (the taste in words), are empty unless they were
asked for. The profile's name and key are never in it. `digest` is the SHA-256 of all that: damage is noticed.

Files come from strangers. A file is read only if everything in it is as above; nothing is made larger than the file.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from ...training.checkpoint import write_atomically
from ..places import PlaceError, inside, listed_files
from .embedding import PreferenceEmbedding, check_header
from .records import LONGEST_NAME, LONGEST_PROMPT, PreferenceError, clean_name, whole_text

FORMAT, HEADER = 1, "attune.profile"
MOST_EMBEDDINGS, MOST_PROMPTS = 8, 1000
# Of all prompts together, in bytes.
PROMPT_ROOM = 2**20
LARGEST_FILE, LONGEST_HEADER = 64 * 2**20, 2**22
# Encoders write numbers of about one. What an adapter makes of far larger ones does not fit into half precision, and
# the pictures turn black.
LARGEST_NUMBER = 1e4
ENDING = ".safetensors"
_KEYS = ("format", "title", "embeddings", "prompts", "digest")


@dataclass(frozen=True)
class SharedProfile:
    """What a file holds.

    Attributes:
        embeddings: one to `MOST_EMBEDDINGS`, each of another encoder; their titles are empty.
        title: what the giver called it; "" = nothing.
        prompts: of the choices, in no order that says anything; usually none.
    """

    embeddings: tuple[PreferenceEmbedding, ...]
    title: str = ""
    prompts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        encoders = [embedding.encoder_id for embedding in self.embeddings]
        if not 0 < len(encoders) <= MOST_EMBEDDINGS:
            raise PreferenceError(f"A file holds 1 to {MOST_EMBEDDINGS} embeddings, not {len(encoders)}.")
        if len(set(encoders)) != len(encoders):
            raise PreferenceError(
                f"Two of the embeddings are of one encoder ({encoders[0][:80]}). A file holds a taste once per "
                "encoder: connect one of them only."
            )
        if 4 * sum(embedding.tokens.numel() for embedding in self.embeddings) > LARGEST_FILE - 2 * LONGEST_HEADER:
            raise PreferenceError(f"These embeddings are too large for a file of up to {LARGEST_FILE // 2**20} MB.")
        largest = _largest(self.embeddings)
        if largest > LARGEST_NUMBER:
            raise PreferenceError(
                f"An embedding holds numbers up to {largest:.3g}, and a file with numbers above {LARGEST_NUMBER:,.0f} "
                "cannot be imported. Lower the weights in Blend Preferences."
            )
        if self.title:
            object.__setattr__(self, "title", clean_name(self.title))
        if len(self.prompts) > MOST_PROMPTS:
            raise PreferenceError(f"A file holds up to {MOST_PROMPTS} prompts, not {len(self.prompts)}.")
        for prompt in self.prompts:
            if not 0 < len(whole_text(prompt, "A prompt")) <= LONGEST_PROMPT:
                raise PreferenceError(f"A prompt has 1 to {LONGEST_PROMPT} letters, not {len(prompt)}.")

    @property
    def identity(self) -> str:
        """SHA-256 over everything in it."""
        digest = hashlib.sha256(json.dumps(self._document(), sort_keys=True).encode())
        for embedding in self.embeddings:
            digest.update(repr(tuple(embedding.tokens.shape)).encode())
            digest.update(_plain(embedding.tokens).tobytes())
        return digest.hexdigest()

    def _document(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "title": self.title,
            "embeddings": [
                {"encoder_id": embedding.encoder_id, "choices": embedding.choices, "text": embedding.text}
                for embedding in self.embeddings
            ],
            "prompts": list(self.prompts),
        }

    def contents(self) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """Tensors and header of its file, for whoever writes safetensors files."""
        document = self._document() | {"digest": self.identity}
        return {_tensor(i): each.tokens for i, each in enumerate(self.embeddings)}, {HEADER: json.dumps(document)}


def newest_prompts(prompts: Sequence[str]) -> tuple[str, ...]:
    """Those that a file has room for, each once, sorted so that their order says nothing of when they were used.

    Args:
        prompts: the newest first; empty ones are left out.
    """
    kept: dict[str, None] = {}
    room = PROMPT_ROOM
    for prompt in prompts:
        if not prompt or prompt in kept:
            continue
        room -= len(json.dumps(prompt))
        if room < 0 or len(kept) == MOST_PROMPTS:
            break
        kept[prompt] = None
    return tuple(sorted(kept))


def read_shared(content: bytes) -> SharedProfile:
    """The inverse of writing `SharedProfile.contents` as a safetensors file.

    Raises:
        PreferenceError: the bytes are no such file, or damaged; says why.
    """
    header, data = _split(content)
    entries = dict(header)
    metadata = entries.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not isinstance(metadata.get(HEADER), str):
        _refuse("it is a safetensors file, but holds no taste. Choose a file that Export Profile has written")
    document = _document(metadata[HEADER])
    if metadata.keys() != {HEADER}:
        _refuse("its header holds more than a taste")
    heads = document["embeddings"]
    if entries.keys() != {_tensor(i) for i in range(len(heads))}:
        _refuse("its tables are not those that its header names")
    tables = _tables([entries[_tensor(i)] for i in range(len(heads))], data)
    embeddings = tuple(PreferenceEmbedding(table, **head) for table, head in zip(tables, heads, strict=True))
    largest = _largest(embeddings)
    if largest > LARGEST_NUMBER:
        _refuse(
            f"a table in it holds numbers up to {largest:.3g}, and those of a taste are below {LARGEST_NUMBER:,.0f}. "
            "Ask for a file that was exported anew"
        )
    shared = SharedProfile(embeddings, document["title"], tuple(document["prompts"]))
    if shared.title != document["title"] or shared.identity != document["digest"]:
        _refuse("it is damaged: its content is not what was written. Get the file again")
    return shared


# ---- files ----


@dataclass(frozen=True)
class Place:
    """A folder from which files are imported.

    Attributes:
        root: names are relative to it. part: of it, where the files lie. mark: what their names end in.
    """

    root: Path
    part: str = ""
    mark: str = ""

    @property
    def folder(self) -> Path:
        return self.root / self.part


def listed(places: Iterable[Place]) -> list[str]:
    """Names of the safetensors files in the folders and what lies in them."""
    names = []
    for place in places:
        part = f"{place.part}/" if place.part else ""
        names += [part + name + place.mark for name in listed_files(place.folder, {ENDING})]
    return names


def find(places: Iterable[Place], name: str) -> Path:
    """The file of that name, as `listed` lists it; links are followed only within their folder.

    Raises:
        PreferenceError: it leads out of the folders, is no safetensors file, or is not there.
    """
    for place in sorted(places, key=lambda place: -len(place.mark)):
        plain = name.removesuffix(place.mark)
        if not name.endswith(place.mark) or not plain.lower().endswith(ENDING):
            continue
        with suppress(PlaceError, OSError):
            path = inside(place.root, plain, what="file")
            if place.folder.resolve() in path.parents and path.is_file():
                return path
    raise PreferenceError(
        f"There is no file {name[:200]!r} to import. Put it into ComfyUI's input folder, press R in the browser, and "
        "choose it from the list."
    )


def read_file(path: Path) -> SharedProfile:
    """
    Raises:
        PreferenceError: see `read_shared`, or the file cannot be opened.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise PreferenceError(f"{path.name} cannot be read ({error.strerror}). Choose another file.") from error
    return read_shared(content)


def write_file(path: Path, shared: SharedProfile) -> tuple[Path, bool]:
    """Write it, unless the newest file of that name holds the same already.

    Args:
        path: NAME_NUMBER.safetensors, of which there is no file yet.

    Returns:
        (the file, whether it was written now)

    Raises:
        AttuneError: it cannot be written.
    """
    name, _, number = path.stem.rpartition("_")
    newest = path.with_name(f"{name}_{int(number) - 1:03d}{ENDING}")
    with suppress(PreferenceError):
        if newest.is_file() and read_file(newest).identity == shared.identity:
            return newest, False
    write_atomically(path, *shared.contents())
    return path, True


# ---- inside ----


def _refuse(why: str) -> NoReturn:
    raise PreferenceError(f"This file cannot be imported: {why}.")


def _tensor(number: int) -> str:
    return f"embedding_{number}"


def _largest(embeddings: Iterable[PreferenceEmbedding]) -> float:
    return max(float(embedding.tokens.abs().max()) for embedding in embeddings)


def _plain(tokens: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(tokens.numpy(), dtype="<f4")


def _split(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """The parsed header of a safetensors file, and the bytes behind it."""
    if len(content) > LARGEST_FILE:
        _refuse(f"it has more than {LARGEST_FILE // 2**20} MB, and no taste is as large")
    if len(content) < 8:
        _refuse("it is no safetensors file")
    (size,) = struct.unpack_from("<Q", content)
    if not 0 < size <= min(LONGEST_HEADER, len(content) - 8):
        _refuse("it is no safetensors file, or cut off, or its header is too long")
    try:
        text = content[8 : 8 + size].decode("utf-8")
    except UnicodeDecodeError:
        _refuse("its header is no text")
    return _json(text, "its header"), memoryview(content)[8 + size :]


def _json(text: str, what: str) -> dict[str, Any]:
    """A JSON object, read strictly: no key twice, no NaN."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name stands there twice")
        return found

    def no_number(word: str) -> NoReturn:
        raise ValueError(f"{word} is no number")

    try:
        found = json.loads(text, object_pairs_hook=once, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        _refuse(f"{what} is not JSON as it should be ({str(error)[:100] or 'nested too deeply'})")
    if not isinstance(found, dict):
        _refuse(f"{what} is no JSON object")
    return found


def _document(text: str) -> dict[str, Any]:
    """The header's own text, every value of its kind."""
    document = _json(text, "what it says of the taste")
    version = document.get("format")
    if not _is_whole(version) or version < 1:
        _refuse("it does not say how it is written")
    if version > FORMAT:
        _refuse(
            f"it was written by a newer version of Attune (format {version}, this one reads {FORMAT}). Update Attune"
        )
    if document.keys() != set(_KEYS):
        _refuse("its header does not hold what it should")
    title, heads, prompts, digest = (document[name] for name in _KEYS[1:])
    if not isinstance(title, str) or len(title) > LONGEST_NAME:
        _refuse(f"its title is no text of up to {LONGEST_NAME} letters")
    if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
        _refuse("its prompts are no list of texts")
    if not isinstance(digest, str) or not isinstance(heads, list) or not 0 < len(heads) <= MOST_EMBEDDINGS:
        _refuse(f"it does not hold 1 to {MOST_EMBEDDINGS} embeddings")
    return document | {"embeddings": [_head(head) for head in heads]}


def _head(head: Any) -> dict[str, Any]:
    if not isinstance(head, dict) or head.keys() != {"encoder_id", "choices", "text"}:
        _refuse("what it says of an embedding is not what it should")
    try:
        return check_header(head)
    except (ValueError, KeyError, TypeError) as error:
        _refuse(f"what it says of an embedding is wrong ({str(error)[:100]})")


def _tables(entries: Sequence[Any], data: memoryview) -> list[torch.Tensor]:
    """The tables [tokens, width], which must fill the file, one behind the other in whatever order."""
    spans = []
    for entry in entries:
        if not isinstance(entry, Mapping) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            _refuse("a table in it is not described as safetensors files do")
        shape, offsets = entry["shape"], entry["data_offsets"]
        if entry["dtype"] != "F32":
            _refuse("a table in it is not of 32-bit numbers")
        if not _are_two(shape) or not _are_two(offsets) or 0 in shape:
            _refuse("a table in it has no usable size")
        if offsets[1] - offsets[0] != 4 * shape[0] * shape[1]:
            _refuse("a table in it is not as long as it says")
        spans.append((offsets, shape))
    end = 0
    for begin, after in sorted(offsets for offsets, _ in spans):
        if begin != end:
            _refuse("its tables overlap, or leave gaps")
        end = after
    if end != len(data):
        _refuse("it is cut off, or holds more than its tables")
    # Copied: the numbers in the file may begin anywhere, and its bytes cannot be written to.
    return [
        torch.from_numpy(np.frombuffer(data[begin:after], dtype="<f4").reshape(shape).astype(np.float32))
        for (begin, after), shape in spans
    ]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_two(values: Any) -> bool:
    return isinstance(values, list) and len(values) == 2 and all(_is_whole(n) and 0 <= n < 2**48 for n in values)
