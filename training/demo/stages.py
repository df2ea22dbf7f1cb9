"""What the demo recipes share: a wall-clock budget, resume, a log, and a source of captioned pictures.

Every stage of the demo model trains for a number of *seconds*, not steps: on a busy machine it learns less rather than
taking all night, and the learning-rate schedule still ends at zero. A stage that was stopped goes on where it was.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..checkpoint import flatten, read_state, unflatten, write_state
from . import data


@dataclass(frozen=True)
class StageConfig:
    """One stage's knobs. `seconds` is the budget of training time, summed over interruptions."""

    name: str
    seconds: float
    learning_rate: float
    batch: int = 64
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    warmup_seconds: float = 30.0
    ema: float = 0.999
    seed: int = 0
    checkpoint_seconds: float = 120.0


def run_stage(
    config: StageConfig,
    modules: dict[str, nn.Module],
    loss_of_step: Callable[[np.random.Generator, torch.Generator], tuple[torch.Tensor, dict[str, float]]],
    folder: Path,
    *,
    on_checkpoint: Callable[[dict[str, nn.Module], float], None] | None = None,
) -> dict[str, nn.Module]:
    """Train `modules` until the budget is used up; returns their exponential moving averages, in eval mode.

    Writes `<folder>/<name>.state.safetensors` (resume) and `<folder>/<name>.log.jsonl` (curve). A stage whose budget is
    used up already is only loaded.

    Args:
        loss_of_step: draws a batch from the two generators and returns (scalar loss, extra figures to log).
        on_checkpoint: called with the averaged modules and the used fraction of the budget at each checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state_path = folder / f"{config.name}.state.safetensors"
    log_path = folder / f"{config.name}.log.jsonl"
    holder = nn.ModuleDict(modules)
    average = copy.deepcopy(holder).eval().requires_grad_(False)
    parameters = [p for p in holder.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )
    used, step = 0.0, 0
    if not config.seconds and not state_path.exists():
        raise data.DemoDataError(f"{state_path} does not exist: train the stage {config.name!r} first.")
    if state_path.exists():
        tensors, state = read_state(state_path)
        holder.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        average.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("ema.")})
        optimizer.load_state_dict(unflatten(state["optimizer"], tensors))
        used, step = state["used_seconds"], state["step"]
    # A resumed stage draws fresh pictures instead of repeating the ones it has seen.
    rng = np.random.default_rng([config.seed, step])
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)

    def save() -> None:
        tensors: dict[str, torch.Tensor] = {}
        document = flatten(optimizer.state_dict(), "optimizer", tensors)
        tensors |= {f"model.{k}": v for k, v in holder.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in average.state_dict().items()}
        write_state(state_path, tensors, {"used_seconds": used, "step": step, "optimizer": document})

    holder.train()
    last_save, figures, losses = time.monotonic(), {}, []
    while used < config.seconds:
        started = time.monotonic()
        fraction = used / config.seconds
        rate = config.learning_rate * 0.5 * (1 + math.cos(math.pi * fraction))
        rate *= min(1.0, (used + 1e-3) / config.warmup_seconds)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, figures = loss_of_step(rng, generator)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{config.name}: the loss became {loss.item()} at step {step}; lower the rate.")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        decay = min(config.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(holder.parameters()), 1 - decay)
            for mine, theirs in zip(average.buffers(), holder.buffers(), strict=True):
                mine.copy_(theirs)
        losses.append(loss.item())
        used += time.monotonic() - started
        if step % 50 == 0:
            row = {"step": step, "seconds": round(used, 1), "loss": round(float(np.mean(losses)), 5), "rate": rate}
            losses = []
            with open(log_path, "a", encoding="utf-8") as log:
                log.write(json.dumps(row | figures) + "\n")
        if time.monotonic() - last_save > config.checkpoint_seconds:
            save()
            last_save = time.monotonic()
            if on_checkpoint:
                on_checkpoint(dict(average.items()), used / config.seconds)
    if step and losses:
        save()
    return dict(average.items())


class Pictures:
    """Captioned pictures, drawn without end.

    Args:
        keep: which concept × style pairs may appear.
        colour_jitter, placement_jitter, mirror: see `data.compose`.
    """

    def __init__(
        self,
        library: data.Library,
        keep: Callable[[str, str], bool],
        *,
        colour_jitter: float = 4.0,
        placement_jitter: float = 0.0,
        mirror: bool = False,
    ) -> None:
        self.library = library
        self.pairs = [pair for pair in library.pairs() if keep(*pair)]
        self.variation = {"colour_jitter": colour_jitter, "placement_jitter": placement_jitter, "mirror": mirror}

    def draw(self, count: int, rng: np.random.Generator) -> tuple[torch.Tensor, list[data.Attributes]]:
        """Pictures as float32 [count, 3, 64, 64] in [0, 1], and what they show."""
        attributes = [
            data.draw_attributes(rng, *self.pairs[index]) for index in rng.integers(len(self.pairs), size=count)
        ]
        pixels = np.stack([data.compose(self.library, a, rng, **self.variation) for a in attributes])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, attributes
