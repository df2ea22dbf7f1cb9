"""Training the set encoder by prediction: tokens from some choices must foretell other choices of the same person.

    L = E −log σ(v(u, f⁺) − v(u, f⁻)),   u = encoder(support choices),  (f⁺, f⁻) from query choices of the same person

with a utility v that is linear in features and in u (`Taste`). Support and query are disjoint, the number of support
choices varies. No diffusion model takes part, so it costs a minute or two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..interfaces import TrainingError
from ..trainer_config import TrainerConfig
from .pool import Pool
from .population import Population
from .set_encoder import SetEncoder, Taste, preference_prediction_loss


@dataclass(frozen=True)
class EncoderTrainingConfig:
    """Knobs.

    Attributes:
        steps: updates. people: per update. learning_rate: peak, falls to 0 as a cosine.
        support: the most choices that an embedding is made of; each person gives 1 … support.
        query: choices that are foretold per person.
        seed: of all draws.
    """

    steps: int = 3000
    people: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    support: int = 8
    query: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "people", "support", "query"):
            if getattr(self, name) < 1:
                raise TrainingError(f"Training the set encoder: {name} must be at least 1, not {getattr(self, name)}.")


def train_set_encoder(
    encoder: SetEncoder,
    population: Population,
    pool: Pool,
    config: EncoderTrainingConfig,
    *,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Taste:
    """Train the encoder in place; it ends frozen, in eval mode. Returns the utility that was trained with it.

    Args:
        on_step: called with (updates done, loss); may raise to cancel.
    """
    generator = torch.Generator().manual_seed(config.seed)
    taste = Taste(encoder.config)
    encoder.get_used_to(pool.pictures)
    parameters = [*encoder.parameters(), *taste.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    knobs = TrainerConfig(steps=config.steps, learning_rate=config.learning_rate, schedule="cosine", warmup_steps=0)
    encoder.train()
    for step in range(config.steps):
        loss = _batch_loss(encoder, taste, population, pool, config, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.param_groups[0]["lr"] = knobs.rate(step)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        on_step(step + 1, loss.item())
    encoder.eval().requires_grad_(False)
    taste.requires_grad_(False)
    people = torch.arange(population.config.people)
    choices = pool.choices(
        pool.judged(population, people, pool.draw_pairs(len(people), config.support, generator), generator)
    )
    known = torch.arange(config.support) < torch.randint(1, config.support + 1, (len(people), 1), generator=generator)
    before = encoder(choices, known)
    encoder.settle(before)
    taste.follow(before, encoder(choices, known))
    return taste.eval().requires_grad_(False)


def _batch_loss(
    encoder: SetEncoder,
    taste: Taste,
    population: Population,
    pool: Pool,
    config: EncoderTrainingConfig,
    generator: torch.Generator,
) -> torch.Tensor:
    people = torch.randint(population.config.people, (config.people,), generator=generator)
    pairs = pool.draw_pairs(config.people, config.support + config.query, generator)
    judged = pool.judged(population, people, pairs, generator)
    support, query = judged.split([config.support, config.query], 1)
    count = torch.randint(1, config.support + 1, (config.people, 1), generator=generator)
    tokens = encoder(pool.choices(support), torch.arange(config.support) < count)
    features = encoder.standardise(pool.pictures[query])  # (people, query, 2, F)
    return preference_prediction_loss(taste(tokens, features.flatten(1, 2)).unflatten(1, (-1, 2))).mean()


@torch.no_grad()
def foretold(
    encoder: SetEncoder, taste: Taste, population: Population, pool: Pool, *, support: int, query: int = 64, seed: int
) -> float:
    """How often the embedding of `support` choices foretells which of two pictures somebody prefers, without noise:
    share 0…1 over all people of the population, `query` pairs each."""
    generator = torch.Generator().manual_seed(seed)
    people = torch.arange(population.config.people)
    pairs = pool.draw_pairs(len(people), support + query, generator)
    judged = pool.judged(population, people, pairs[:, :support], generator)
    tokens = encoder(pool.choices(judged))
    asked = pairs[:, support:]
    seen = taste(tokens, encoder.standardise(pool.pictures[asked]).flatten(1, 2)).unflatten(1, (-1, 2))
    true = population.utilities(people[:, None, None].expand(asked.shape), pool.attributes[asked])
    agree = (seen[..., 0] > seen[..., 1]) == (true[..., 0] > true[..., 1])
    return agree.float().mean().item()
