"""What chosen pictures have that words do not say, as a direction of the prompt's embedding.

A person recognises more than it can name. Of every round there are pictures that it liked and others of the same
prompt that it passed over; the direction δ is where, from that prompt's embedding, the network denoises the liked ones
better and the others worse:

    δ = argmin Σ_s E_{σ, ε} [ ℓ(x⁺_s; E(p_s) + δ) − μ·ℓ(x⁻_s; E(p_s) + δ) ],   ℓ = w(σ)·‖x̂0(x + σε) − x‖²

| symbol   | code name       | meaning                                                                    |
| -------- | --------------- | -------------------------------------------------------------------------- |
| s        |                 | rounds with a choice, taken in turn, the newest first                        |
| x⁺, x⁻   | liked, others   | latents of a liked picture and of another one, with the same noise and level |
| E(p_s)   | cond            | what the round's own prompt was encoded as                                   |
| μ        | others_weight   | how much leaving the others counts; 0 = only the liked ones, 1 = both alike  |
| δ        |                 | [T, D], one vector per token, added to whatever prompt comes next            |

Each picture is seen with the prompt that it was made with. What the prompt says explains itself then, and δ holds what
it does not; with the *next* prompt it would speak against the words that are new. What liked and other pictures share
counts less the larger μ is.

**Which noise levels.** The highest quarter. There the network decides what a picture is to be as a whole: its
background, its layout, which drawing of a thing; that is what δ is to tell it. Lower levels teach it details of these
very pictures, which then stand against what the next words ask for, as in part it still does. A few steps of Adam from
0 keep δ short, for the same reason. What is kept, and what it costs, is measured by `refine-keeps`; before it, on other
seeds, levels, steps (12 … 40), their length, μ (0.1 … 1) and pairs (2, 3, 6) were looked at on 8 to 24 wishes each.

Source: ours. Related: textual inversion (Gal et al. 2022), which fits one token's embedding to pictures in thousands of
steps; Diffusion-DPO (Wallace et al. 2023), whose pairs with shared noise these are, for an embedding in place of
weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from ..config_checks import check_numbers
from ..diffusion import expand
from ..interfaces import Denoiser, TrainingError
from .diffusion_dpo import level_quantiles
from .supervised import loss_weight

_LEVELS = 1000
# Adam does not mind, and gradients through 16-bit weights do not vanish.
_LOSS_SCALE = 4096.0


@dataclass(frozen=True)
class DirectionConfig:
    """Knobs of the search.

    Attributes:
        steps: of Adam, ≥ 1.
        learning_rate: of a step, in root mean squares of the embedding's values, > 0.
        others_weight: μ, 0 … 1.
        pairs: of a liked and another picture per step, each at a level of its own, ≥ 1.
        chunk: pairs per call of the network, ≥ 1; changes memory and time, nothing else.
        lowest, highest: part of the noise levels that is looked at, 0 … 1 of their distribution in training; see the
            module.
        seed: of noise and levels.
    """

    steps: int = 20
    learning_rate: float = 0.02
    others_weight: float = 0.5
    pairs: int = 2
    chunk: int = 2
    lowest: float = 0.75
    highest: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_numbers(self)
        for name, least in (("steps", 1), ("pairs", 1), ("chunk", 1), ("others_weight", 0)):
            if getattr(self, name) < least:
                raise TrainingError(f"{name} must be at least {least}, not {getattr(self, name)!r}.")
        if self.others_weight > 1:
            raise TrainingError(f"others_weight must be at most 1, not {self.others_weight!r}.")
        if not self.learning_rate > 0:
            raise TrainingError(f"learning_rate must be above 0, not {self.learning_rate!r}.")
        if not 0 <= self.lowest < self.highest <= 1:
            raise TrainingError(f"The noise levels must be a part of 0 … 1, not {self.lowest!r} … {self.highest!r}.")


@dataclass(frozen=True)
class Choice:
    """What was chosen of a round.

    Attributes:
        cond: of the round's prompt, for `move`.
        liked: latents [N, C, H, W] of the network, N ≥ 1.
        others: latents [M, C, H, W] that were passed over; M may be 0.
    """

    cond: Any
    liked: torch.Tensor
    others: torch.Tensor

    def __post_init__(self) -> None:
        if not len(self.liked) or self.liked.shape[1:] != self.others.shape[1:]:
            raise TrainingError(
                f"A choice has at least one liked picture and others of its size, not latents of "
                f"{tuple(self.liked.shape)} and {tuple(self.others.shape)}."
            )


def picture_direction(
    denoiser: Denoiser,
    choices: Sequence[Choice],
    embedding: torch.Tensor,
    move: Callable[[Any, torch.Tensor], Any],
    config: DirectionConfig | None = None,
    *,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> torch.Tensor:
    """δ [T, D], float32 on the CPU.

    Args:
        denoiser: its weights stay as they are.
        choices: at least one, oldest first.
        embedding: [T, D], for shape and size of δ: the prompt's that it will be added to.
        move: (cond, δ) → the conditioning at a distance of δ, differentiable in δ.
        on_step: hears how many steps are done; what it raises ends the search.

    Raises:
        TrainingError: there is no choice, or the search left the finite numbers.
    """
    config = config or DirectionConfig()
    if not choices:
        raise TrainingError("A direction needs at least one round in which a picture was chosen.")
    generator = torch.Generator().manual_seed(config.seed)
    size = embedding.detach().float().square().mean().sqrt().item()
    direction = torch.zeros(embedding.shape, device=denoiser.device, requires_grad=True)
    optimizer = torch.optim.Adam([direction], lr=config.learning_rate * size)
    for step in range(config.steps):
        choice = choices[-1 - step % len(choices)]
        optimizer.zero_grad()
        for loss in _losses(denoiser, choice, direction, move, config, generator):
            (_LOSS_SCALE * loss).backward()
        optimizer.step()
        on_step(step + 1, config.steps)
    found = direction.detach().float().cpu()
    if not torch.isfinite(found).all():
        raise TrainingError("The direction of the pictures is not finite. Set pictures to 0 to go on without.")
    return found


def _losses(
    denoiser: Denoiser, choice: Choice, direction: torch.Tensor, move: Any, config: DirectionConfig,
    generator: torch.Generator,
) -> Iterator[torch.Tensor]:  # fmt: skip
    """The parts of one step's loss, to be followed backwards one after the other."""
    process, pairs = denoiser.process, config.pairs
    share = config.lowest + (config.highest - config.lowest) * (
        (torch.arange(pairs) + torch.rand(pairs, generator=generator)) / pairs
    )
    sigmas = level_quantiles(process, _LEVELS)[(share * (_LEVELS - 1)).long()]
    noise = torch.randn(pairs, *choice.liked.shape[1:], generator=generator)
    first = [torch.randint(max(1, len(part)), (1,), generator=generator) for part in (choice.liked, choice.others)]
    sides = [(choice.liked, 1.0, first[0])]
    if config.others_weight and len(choice.others):
        sides.append((choice.others, -config.others_weight, first[1]))
    for part in torch.arange(pairs).split(config.chunk):
        clean = torch.cat([latents[(part + begin) % len(latents)] for latents, _, begin in sides])
        clean = clean.to(denoiser.device, torch.float32)
        sigma, own = (torch.cat([values[part]] * len(sides)).to(clean) for values in (sigmas, noise))
        sign = torch.cat([torch.full((len(part),), weight) for _, weight, _ in sides]).to(clean)
        found = denoiser(process.add_noise(clean, own, sigma), sigma, [move(choice.cond, direction)] * len(clean))
        error = (expand(loss_weight(process, sigma, gamma=0.0), clean) * (found - clean).square()).flatten(1).mean(1)
        yield (sign * error).sum() / pairs


def fitted(direction: torch.Tensor, tokens: int) -> torch.Tensor:
    """δ [T, D] for a prompt of another length: places that it does not know stay, those beyond the prompt are lost."""
    return F.pad(direction[:tokens], (0, 0, 0, max(0, tokens - len(direction))))
