"""Simulated people: tastes that nobody is told, and noisy choices made by them.

A person's utility of a picture is linear in attributes of its pixels (`attributes`), measured in deviations of a pool
of pictures:

    U_p(x) = w_p · (a(x) − mean) / deviation,    w_p = common + spread·z_p,  z_p ~ N(0, I),

scaled so that everybody's utility has the deviation 1 over the pool. Of two pictures they choose by Bradley-Terry,

    P(x over y) = lapses/2 + (1 − lapses)·σ(sharpness·(U_p(x) − U_p(y))).

Antagonists come in pairs with w and −w: their choices cancel each other out, so that whoever learns one taste for all
of them learns nothing.

What a person likes is known here, so it can be measured exactly how well a method serves people it has never seen.
Real people are more complicated: what is shown on simulated ones is that a method can work, not that it will.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..interfaces import TrainingError
from .attributes import ATTRIBUTES, Attribute


@dataclass(frozen=True)
class PopulationConfig:
    """Who they are.

    Attributes:
        people: how many; even, with antagonists.
        attributes: what they look at, names of measures.
        common: the weight of each attribute that all share, by name; those not named have 0.
        spread: deviation of the personal part of the weights.
        sharpness: > 0; higher chooses the better picture more often.
        lapses: share of choices by the toss of a coin, 0…1.
        antagonists: everybody has a counterpart with the opposite weights; `common` must then be empty.
        seed: of the tastes.
    """

    people: int = 400
    attributes: tuple[str, ...] = tuple(ATTRIBUTES)
    common: tuple[tuple[str, float], ...] = ()
    spread: float = 1.0
    sharpness: float = 2.0
    lapses: float = 0.0
    antagonists: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.people < 1 or (self.antagonists and self.people % 2):
            raise TrainingError(f"A population needs people, with antagonists an even number; not {self.people}.")
        if not self.attributes:
            raise TrainingError("A population needs at least one attribute to look at.")
        unknown = [name for name, _ in self.common if name not in self.attributes]
        if unknown:
            raise TrainingError(f"Nobody looks at {unknown[0]!r}; the attributes are {', '.join(self.attributes)}.")
        if not self.sharpness > 0 or not 0 <= self.lapses <= 1 or self.spread < 0:
            raise TrainingError(
                f"Sharpness must be above 0, lapses between 0 and 1 and spread at least 0; not {self.sharpness}, "
                f"{self.lapses} and {self.spread}."
            )
        if self.antagonists and self.common:
            raise TrainingError("Antagonists have nothing in common: leave common empty.")


class Population:
    """Simulated people.

    Args:
        config: who they are.
        measures: name → attribute of pictures [B, h, w, 3] → [B]; by default `ATTRIBUTES`.

    Raises:
        TrainingError: an attribute has no measure.
    """

    def __init__(self, config: PopulationConfig, measures: Mapping[str, Attribute] = ATTRIBUTES) -> None:
        missing = [name for name in config.attributes if name not in measures]
        if missing:
            raise TrainingError(f"There is no attribute {missing[0]!r}; there are {', '.join(measures)}.")
        self.config = config
        self._measures = [measures[name] for name in config.attributes]
        generator = torch.Generator().manual_seed(config.seed)
        drawn = config.people // 2 if config.antagonists else config.people
        personal = config.spread * torch.randn(drawn, len(config.attributes), generator=generator)
        common = dict(config.common)
        tastes = personal + torch.tensor([common.get(name, 0.0) for name in config.attributes])
        # Counterparts are neighbours, so that any even number of the first people has no taste in common.
        self.tastes = torch.stack([tastes, -tastes], 1).flatten(0, 1) if config.antagonists else tastes
        self._centre = self._deviation = None

    def attributes(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, h, w, 3] in [0, 1] → their attributes as measured [B, A]."""
        return torch.stack([measure(images) for measure in self._measures], 1)

    def get_used_to(self, attributes: torch.Tensor) -> None:
        """Measure in deviations of these pictures' attributes [N, A] from now on.

        Raises:
            TrainingError: an attribute does not vary.
        """
        centre, deviation = attributes.mean(0), attributes.std(0)
        same = [name for name, spread in zip(self.config.attributes, deviation.tolist(), strict=True) if not spread > 0]
        if same:
            raise TrainingError(
                f"All {len(attributes)} pictures have the same {same[0]}, so that nobody can choose by it. Leave that "
                "attribute out, or take pictures that differ in it."
            )
        self._centre, self._deviation = centre, deviation
        # Differences between directions of one length only come from attributes that go together.
        self.tastes /= (self.tastes @ self.standardised(attributes).T).std(1, keepdim=True)

    def standardised(self, attributes: torch.Tensor) -> torch.Tensor:
        """Attributes [B, A] in deviations of the pool.

        Raises:
            TrainingError: there has been no pool.
        """
        if self._centre is None:
            raise TrainingError("This population has seen no pictures yet: call get_used_to first.")
        return (attributes - self._centre) / self._deviation

    def utilities(self, people: torch.Tensor | Sequence[int], attributes: torch.Tensor) -> torch.Tensor:
        """U of pictures with these attributes [..., A] for one person each, int [...]; [...]."""
        return (self.tastes[torch.as_tensor(people)] * self.standardised(attributes)).sum(-1)

    def probability(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """P(first is chosen over second) from two utilities."""
        lapses = self.config.lapses
        return lapses / 2 + (1 - lapses) * torch.sigmoid(self.config.sharpness * (first - second))

    def chooses_first(
        self, people: torch.Tensor, first: torch.Tensor, second: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Whether each person [...] chooses the first of two pictures with attributes [..., A]; bool [...]."""
        wins = self.probability(self.utilities(people, first), self.utilities(people, second))
        return torch.rand(wins.shape, generator=generator) < wins
