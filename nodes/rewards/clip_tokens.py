"""From words to CLIP's tokens, as the program of each reward makes them.

All share one table of byte pairs, which open_clip brings along; what they do to a text before differs:

| tokens       | who                             | repairs broken letters (ftfy) | &amp; becomes & | Unicode form |
| ------------ | ------------------------------- | ----------------------------- | --------------- | ------------ |
| open_clip    | OpenAI's and LAION's CLIP, HPS  | yes, also ’ to ' and ﬁ to fi  | yes             | NFC          |
| transformers | PickScore                       | no                            | no              | NFC          |

ImageReward reads with BERT's word list: see `image_reward`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import torch

from ...training.characters import whole_characters

Tokens = Literal["open_clip", "transformers"]

CONTEXT = 77
START, END = "<|startoftext|>", "<|endoftext|>"
START_TOKEN, END_TOKEN = 49406, 49407

log = logging.getLogger("attune")


def tokenize(texts: Sequence[str], *, tokens: Tokens = "open_clip", padding: int = 0) -> torch.Tensor:
    """CLIP tokens, int64 [B, 77]. Longer texts are cut; the end token stays.

    Args:
        tokens: whose way of reading; see the module.
        padding: what follows the end token: 0 for open_clip's networks, the end token for those of transformers.

    Half a character counts as the sign for an unknown one, as ftfy has it, in all ways of reading.
    """
    rows = []
    for text in map(whole_characters, texts):
        found = _open_clip().encode(text) if tokens == "open_clip" else _transformers().encode(text).ids
        if len(found) > CONTEXT - 2:
            log.info("Attune: a prompt of %d tokens is scored by its first %d.", len(found), CONTEXT - 2)
        row = [START_TOKEN, *found[: CONTEXT - 2], END_TOKEN]
        rows.append(row + [padding] * (CONTEXT - len(row)))
    return torch.tensor(rows)


@lru_cache(maxsize=1)
def _open_clip() -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(context_length=CONTEXT)


@lru_cache(maxsize=1)
def _transformers() -> Any:
    """What transformers' fast tokenizer of CLIP does, without its start and end, from open_clip's table."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

    table = _open_clip()
    words = sorted(table.encoder, key=table.encoder.get)[:START_TOKEN]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={word: index for index, word in enumerate([*words, START, END])},
            merges=sorted(table.bpe_ranks, key=table.bpe_ranks.get),
            unk_token=END,
            end_of_word_suffix="</w>",
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    # A mark in capitals is no mark: it becomes small letters, which are one piece.
    pieces = Regex(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pieces, "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.add_special_tokens([AddedToken(mark, normalized=False, special=True) for mark in (START, END)])
    return tokenizer
