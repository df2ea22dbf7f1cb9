"""A set of scored pairs as a picture and as words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from ..drawing import short_number
from ..pair_drawing import DrawnPair, counted, draw_pairs
from .pairs import PairSet, ScoredPair


def summary(found: PairSet, prompts: Sequence[str], reward_name: str) -> str:
    """What came of it, in a line or two."""
    count = len({pair.prompt for pair in found.pairs})
    margins = sorted(pair.margin for pair in found.pairs)
    text = (
        f"{counted(len(found.pairs), 'pair')} of {counted(count, 'prompt')} from {counted(len(prompts), 'picture')}, "
        f"by {reward_name}; margins {short_number(margins[0])} to {short_number(margins[-1])}, median "
        f"{short_number(margins[len(margins) // 2])}."
    )
    left_out = [
        (found.ties, f"{counted(found.ties, 'tie')}"),
        (found.blocked, f"{counted(found.blocked, 'picture')} held back by the safety gate"),
        (found.lonely, f"{counted(found.lonely, 'prompt')} with a single picture"),
    ]
    told = ", ".join(words for number, words in left_out if number)
    return f"{text} Left out: {told}." if told else text


def pair_sheet(
    found: PairSet, pictures: Sequence[torch.Tensor], prompts: Sequence[str], reward_name: str
) -> Image.Image:
    """Draw the pairs with their scores, the chosen picture at the left in a frame; see `draw_pairs`."""

    def drawn(pair: ScoredPair) -> DrawnPair:
        chosen, rejected = (short_number(round(found.scores[index], 4)) for index in (pair.chosen, pair.rejected))
        return DrawnPair(pictures[pair.chosen], pictures[pair.rejected], (chosen, rejected), pair.prompt)

    return draw_pairs(found.pairs, summary(found, prompts, reward_name), drawn)
