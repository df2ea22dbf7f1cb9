"""A pool of pictures that simulated people have opinions on: features and attributes, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..interfaces import TrainingError
from .population import Population


@dataclass(frozen=True)
class Pool:
    """Pictures in groups of one prompt.

    Attributes:
        prompts: one text per picture; those of one text form a group, which must hold at least two.
        pictures, texts: their features [N, F].
        attributes: [N, A], as `Population.attributes` measures.
    """

    prompts: Sequence[str]
    pictures: torch.Tensor
    texts: torch.Tensor
    attributes: torch.Tensor

    def groups(self) -> list[torch.Tensor]:
        """Places of the pictures of each prompt.

        Raises:
            TrainingError: a prompt has a single picture, which cannot be compared.
        """
        places: dict[str, list[int]] = {}
        for place, text in enumerate(self.prompts):
            places.setdefault(text, []).append(place)
        single = [text for text, found in places.items() if len(found) < 2]
        if single:
            raise TrainingError(f"The pool has a single picture of {single[0]!r}; comparing needs two of each prompt.")
        return [torch.tensor(found) for found in places.values()]

    def draw_pairs(self, people: int, pairs: int, generator: torch.Generator) -> torch.Tensor:
        """Places of two different pictures of one prompt for every person and pair, int [people, pairs, 2].

        The pairs of a person are of different prompts while there are enough.
        """
        groups = self.groups()
        most = max(map(len, groups))
        # A table of places, where short groups repeat theirs: the second picture is drawn among the others of a group.
        sizes = torch.tensor([len(group) for group in groups])
        table = torch.stack([group.repeat(-(-most // len(group)))[:most] for group in groups])
        scores = torch.rand(people, max(len(groups), pairs), generator=generator)
        chosen = scores.topk(pairs, 1).indices % len(groups)  # (people, pairs)
        size = sizes[chosen]
        first = (torch.rand(chosen.shape, generator=generator) * size).long()
        second = (first + 1 + (torch.rand(chosen.shape, generator=generator) * (size - 1)).long()) % size
        return torch.stack([table[chosen, first], table[chosen, second]], -1)

    def judged(
        self, population: Population, people: torch.Tensor, pairs: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """The pairs [P, n, 2] in the order (chosen, rejected) of people [P]."""
        who = people[:, None].expand(pairs.shape[:2])
        first, second = (self.attributes[pairs[..., side]] for side in (0, 1))
        wins = population.chooses_first(who, first, second, generator)
        return torch.where(wins[..., None], pairs, pairs.flip(-1))

    def choices(self, judged: torch.Tensor) -> torch.Tensor:
        """What the set encoder reads of pairs (chosen, rejected), [P, n, 2]: features [P, n, 3, F]."""
        chosen, rejected = judged.unbind(-1)
        return torch.stack([self.texts[chosen], self.pictures[chosen], self.pictures[rejected]], 2)
