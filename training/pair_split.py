"""The held-out part of a preference set: no prompt and no picture stands on both sides."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path

from .interfaces import TrainingError
from .preference_pairs import Pair, plain, split_by_prompt


def split_pairs(
    prompts: Sequence[str], pictures: Sequence[tuple[str, str]], held_out: float, *, seed: int
) -> tuple[list[int], list[int]]:
    """Indices of the pairs to learn from, and of those to measure on.

    Pairs that share a prompt or a picture stay together, by way of other pairs too; whole groups are moved as
    `split_by_prompt` moves whole prompts, in an order that depends on the seed and on the groups alone. Where all pairs
    hang together by their prompts (one prompt for all, say), only shared pictures keep pairs together.

    Args:
        prompts: one per pair. pictures: the names of its two pictures, equal only for equal pictures.
        held_out: share of the pairs, 0 (none) … 0.9.

    Raises:
        TrainingError: all pairs hang together by their pictures, so that none can be held out.
    """
    if not len(prompts) == len(pictures):
        raise ValueError(f"{len(prompts)} prompts but {len(pictures)} pairs of pictures")
    everything = list(range(len(prompts)))
    if held_out == 0:
        return everything, []
    by_picture = [[("picture", name) for name in pair] for pair in pictures]
    by_both = [[("prompt", plain(prompt)), *names] for prompt, names in zip(prompts, by_picture, strict=True)]
    for marks in (by_both, by_picture):
        groups = _groups(marks)
        if len(set(groups)) > 1:
            # A group goes by the name of a prompt of its own; nobody opens these pictures.
            named = [Pair(group, Path(str(index)), Path(str(index))) for index, group in enumerate(groups)]
            learned, measured = split_by_prompt(named, held_out, seed=seed)
            return [int(str(pair.chosen)) for pair in learned], [int(str(pair.chosen)) for pair in measured]
    raise TrainingError(
        "All pairs share prompts and pictures with each other, so none can be held out to measure on. Add pairs of "
        "other pictures, or set held_out to 0."
    )


def _groups(marks: Sequence[Sequence[Hashable]]) -> list[str]:
    """For every pair the name of its group: pairs with a mark in common are in one, and so are their neighbours."""
    parent: dict[Hashable, Hashable] = {}

    def root(mark: Hashable) -> Hashable:
        while parent.setdefault(mark, mark) != mark:
            parent[mark] = mark = parent[parent[mark]]
        return mark

    for first, *others in marks:
        for other in others:
            # The smallest mark names the group, whatever the order of the pairs.
            low, high = sorted((root(first), root(other)))
            parent[high] = low
    return [str(root(first)) for first, *_ in marks]
