"""What an ATTUNE_PREFERENCE wire carries: a person's taste in an encoder's numbers, or several of them, each weighed.

An embedding of zeros is nobody's: whatever reads it does nothing. In files and in the store an embedding is a
safetensors file with one tensor "tokens" and a JSON header; names of people are not in it.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ...training.adapters.user_attention import UserAdapterConfig, UserAdapterMetadata
from ...training.interfaces import TrainingError
from ...training.preference.blending import blend_tokens
from .records import LONGEST_PROMPT, PreferenceError, whole_text

HEADER, TENSOR = "attune.preference", "tokens"
MOST_TOKENS, WIDEST = 4096, 65_536
# What a number in JSON holds exactly.
MOST_CHOICES = 2**53 - 1
_LONGEST_HEADER = 2**20


@dataclass(frozen=True)
class PreferenceEmbedding:
    """One person's taste.

    Attributes:
        tokens: float32 [k, d], finite, on the CPU; zeros = nobody's.
        encoder_id: identity of what made it; only adapters trained with the same can read it.
        choices: how many choices it was made of.
        text: the taste in words, up to `LONGEST_PROMPT` letters, where its encoder writes them; "" otherwise.
        title: what people call it; stays on this computer.
    """

    tokens: torch.Tensor = field(repr=False)
    encoder_id: str
    choices: int = 0
    text: str = ""
    title: str = ""

    def __post_init__(self) -> None:
        tokens = self.tokens
        if tokens.ndim != 2 or not 0 < tokens.shape[0] <= MOST_TOKENS or not 0 < tokens.shape[1] <= WIDEST:
            raise PreferenceError(
                f"An embedding is a table of 1 to {MOST_TOKENS} tokens of 1 to {WIDEST} numbers, not "
                f"{list(tokens.shape)}."
            )
        if len(self.text) > LONGEST_PROMPT:
            raise PreferenceError(
                f"A taste in words has up to {LONGEST_PROMPT} letters, not {len(self.text)}: no file of it could be "
                "read again. Lower max_new_tokens where it is written."
            )
        with torch.inference_mode(False):
            object.__setattr__(self, "tokens", tokens.detach().to("cpu", torch.float32, copy=True))
        if not self.tokens.isfinite().all():
            raise PreferenceError("The embedding holds values that are not finite numbers (NaN or infinite).")

    @property
    def empty(self) -> bool:
        """Whether it is nobody's."""
        return not bool(self.tokens.any())

    @property
    def identity(self) -> str:
        """Changes with any number of it, and with its encoder."""
        digest = hashlib.sha256(f"{self.encoder_id}\n{list(self.tokens.shape)}\n".encode())
        digest.update(self.tokens.numpy().tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Preference:
    """One taste, or several that act side by side.

    Attributes:
        parts: embeddings of one encoder and one shape, each with its weight; at least one. Several are blended by
            prediction (see `training.preference.blending`): each acts by itself, and what they change is added up.
    """

    parts: tuple[tuple[PreferenceEmbedding, float], ...]

    def __post_init__(self) -> None:
        kinds = {(embedding.encoder_id, tuple(embedding.tokens.shape)) for embedding, _ in self.parts}
        if len(kinds) != 1:
            raise PreferenceError(
                "Tastes can be blended only if one encoder made them all; these come from "
                f"{', '.join(sorted(f'{name} {list(shape)}' for name, shape in kinds)) or 'nobody'}. Make them with "
                "the same Preference Embedding settings."
            )

    @classmethod
    def of(cls, embedding: PreferenceEmbedding) -> Preference:
        return cls(((embedding, 1.0),))

    @property
    def encoder_id(self) -> str:
        return self.parts[0][0].encoder_id

    @property
    def acting(self) -> tuple[tuple[PreferenceEmbedding, float], ...]:
        """The parts that change anything."""
        return tuple((embedding, weight) for embedding, weight in self.parts if weight != 0 and not embedding.empty)

    @property
    def title(self) -> str:
        names = [embedding.title or "a taste" for embedding, _ in self.parts]
        if len(names) == 1:
            return names[0]
        return " + ".join(f"{weight:g} × {name}" for name, (_, weight) in zip(names, self.parts, strict=True))


def blended(tastes: Sequence[tuple[Preference, float]], *, in_between: bool) -> Preference:
    """Weighed tastes as one wire; the parts of a blend are weighed by both its weights.

    Words and choices of one taste in between are those of the tastes that it leans to: none of a weight of 0 or less.

    Raises:
        PreferenceError: they come from different encoders.
    """
    parts = tuple((embedding, weight * inner) for preference, weight in tastes for embedding, inner in preference.parts)
    apart = Preference(parts)
    if not in_between:
        return apart
    tokens = blend_tokens([embedding.tokens for embedding, _ in parts], [weight for _, weight in parts])
    towards = [embedding for embedding, weight in parts if weight > 0]
    text = "\n\n".join(embedding.text for embedding in towards if embedding.text)
    if len(text) > LONGEST_PROMPT:
        text = text[: LONGEST_PROMPT - 1] + "…"
    choices = min(sum(embedding.choices for embedding in towards), MOST_CHOICES)
    return Preference.of(PreferenceEmbedding(tokens, apart.encoder_id, choices, text, apart.title))


def check_reads(
    config: UserAdapterConfig, metadata: UserAdapterMetadata, preference: Preference, name: str
) -> None:  # fmt: skip
    """Refuse a taste that an adapter cannot read.

    Args:
        config, metadata: of the adapter. name: of its file.

    Raises:
        TrainingError: the taste was made by another encoder than the adapter was trained with, or is no table of its.
    """
    if metadata.encoder_id != preference.encoder_id:
        raise TrainingError(
            f"The adapter {name} was trained with another encoder ({metadata.encoder_id}) than this taste was made "
            f"with ({preference.encoder_id}), so it would read it wrongly. In Preference Embedding choose the encoder "
            "that came with the adapter, or another adapter here."
        )
    tokens, width = preference.parts[0][0].tokens.shape
    if (tokens, width) != (config.tokens, config.width):
        raise TrainingError(
            f"The adapter {name} reads tastes of {config.tokens} tokens of {config.width} numbers; this one has "
            f"{tokens} of {width}, although it names the adapter's encoder ({metadata.encoder_id}): one of the two "
            "files is not what it says. Make the taste anew by Preference Embedding, or get the adapter again."
        )


# ---- as bytes ----


def pack(embedding: PreferenceEmbedding) -> bytes:
    """The embedding as a safetensors file; its title is not in it."""
    header = {"encoder_id": embedding.encoder_id, "choices": embedding.choices, "text": embedding.text}
    return save({TENSOR: embedding.tokens.contiguous()}, {HEADER: json.dumps(header)})


def unpack(content: bytes, *, title: str = "") -> PreferenceEmbedding:
    """The inverse of `pack`.

    Raises:
        PreferenceError: the bytes are not an embedding; says why.
    """
    header = read_header(content)
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        raise PreferenceError(f"These bytes hold no embedding ({error}).") from error
    if tensors.keys() != {TENSOR} or not tensors[TENSOR].is_floating_point():
        raise PreferenceError(f"An embedding holds one table of numbers, {TENSOR!r}; this has {sorted(tensors)[:5]}.")
    return PreferenceEmbedding(tensors[TENSOR], title=title, **header)


def read_header(content: bytes) -> dict[str, Any]:
    """encoder_id, choices and text of packed bytes, checked.

    Raises:
        PreferenceError: they are malformed.
    """
    try:
        (size,) = struct.unpack_from("<Q", content)
        if size > min(_LONGEST_HEADER, len(content) - 8):
            raise ValueError(f"a header of {size} bytes")
        document = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][HEADER])
        return check_header(document)
    except (struct.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise PreferenceError(f"These bytes hold no embedding ({error!r}).") from error


def check_header(document: Mapping[str, Any]) -> dict[str, Any]:
    """encoder_id, choices and text of a parsed header.

    Raises:
        ValueError, KeyError, TypeError: one is missing or of another kind.
    """
    encoder, choices, text = document["encoder_id"], document["choices"], document["text"]
    if not isinstance(encoder, str) or not 0 < len(encoder) <= 200 or not encoder.isprintable():
        raise ValueError("encoder_id is no name")
    if not isinstance(choices, int) or isinstance(choices, bool) or not 0 <= choices <= MOST_CHOICES:
        raise ValueError("choices is no number")
    if not isinstance(text, str) or len(text) > LONGEST_PROMPT:
        raise ValueError("text is no text, or too long")
    return {"encoder_id": whole_text(encoder, "The encoder"), "choices": choices, "text": whole_text(text, "The text")}
