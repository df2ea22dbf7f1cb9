"""Several rewards as one.

| mode         | score                                                           | scale                 |
| ------------ | --------------------------------------------------------------- | --------------------- |
| weighted sum | Σ wᵢ·vᵢ / Σ |wᵢ|                                                  | as v                  |
| minimum      | minᵢ vᵢ                                                          | as v                  |
| product      | Π Φ(zᵢ)^(wᵢ / Σ w), a weighted geometric mean                    | 0 … 1                 |
| constrained  | v_a − penalty·Σ max(0, level − v_i), i = b, c, d                 | as v                  |

| symbol | meaning                                                                                             |
| ------ | --------------------------------------------------------------------------------------------------- |
| v      | z, or with the scale "raw scores" the score s itself                                                |
| z      | (s − mean) / deviation of the reward's own calibration                                              |
| Φ      | distribution function of the standard normal: the share of the reference that would score lower     |
| w      | weight; only the weighted sum takes negative ones, which push away from what that reward likes      |

A cost (`higher_is_better` False) enters with its sign turned, so that more is better everywhere. A reward of weight 0
is left out, and not asked. The penalty is exact: once it outweighs what v_a can gain per unit of shortfall, the best
pictures meet the level instead of coming close to it.

Source: ours. The weighted sum of z-scores is the usual way to put rewards on one scale; dividing by Σ |w| keeps the
score's spread, and with it learning rates, where it was when rewards are added.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from ...training.interfaces import Reward, RewardContext, RewardError, checked_scores
from ...training.presentable import compares_batch, compares_pictures
from .cache import hashed_once
from .calibration import LEVELS, Level, level_as_score, require_calibration
from .wrapping import formula_of, is_contextual, patchers_of, refuse_gate, uses_prompt

Mode = Literal["weighted sum", "minimum", "product", "constrained"]
Scale = Literal["z-scores", "raw scores"]
MODES: tuple[str, ...] = get_args(Mode)
SCALES: tuple[str, ...] = get_args(Scale)
# Stands in the id, by which scores and calibrations are kept. Raise it whenever a change here gives other scores.
VERSION = 1


@dataclass(frozen=True)
class CombineConfig:
    """How rewards are combined.

    Attributes:
        mode: see the module.
        weights: one per reward, at most four; the mode "constrained" only looks whether they are 0.
        scale: what is combined: "z-scores" (every reward needs a calibration) or "raw scores".
        level: what rewards b, c, d must reach in the mode "constrained"; of costs, a level of goodness.
        level_unit: of `level`.
        penalty: what one unit below the level costs, in units of reward a (a unit is a deviation, or the raw unit).
    """

    mode: Mode = "weighted sum"
    weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    scale: Scale = "z-scores"
    level: float = 0.0
    level_unit: Level = "standard deviations"
    penalty: float = 10.0

    def __post_init__(self) -> None:
        for name, choices in (("mode", MODES), ("scale", SCALES), ("level_unit", LEVELS)):
            if getattr(self, name) not in choices:
                raise RewardError(f"There is no {name} {getattr(self, name)!r}; choose one of: {', '.join(choices)}.")
        for name, number in (*(("weight", weight) for weight in self.weights), ("level", self.level),
                             ("penalty", self.penalty)):  # fmt: skip
            if not math.isfinite(number):
                raise RewardError(f"The {name} {number:g} is no finite number. Give it an ordinary value, such as 1.")
        if self.mode == "product" and self.scale == "raw scores":
            raise RewardError(
                "A product is made of z-scores, since raw scores have no common range. Set scale to 'z-scores', or "
                "choose another mode."
            )
        if self.mode != "weighted sum" and min(self.weights) < 0:
            raise RewardError(
                f"A weight of {min(self.weights):g} has no meaning in the mode '{self.mode}': only a weighted sum "
                "takes negative weights. Use 0 to leave a reward out."
            )
        if self.mode == "constrained" and self.penalty <= 0:
            raise RewardError(f"The penalty must be above 0, not {self.penalty:g}; 10 is a good start.")


@dataclass(frozen=True)
class Part:
    """One reward in a combination.

    Attributes:
        reward: as it was connected.
        weight: not 0; of a sum or product its share, so that the shares' sizes add up to 1.
        shift, divisor: v = sign·(s − shift) / divisor.
        level: what v must reach; None where nothing is asked.
    """

    reward: Reward
    weight: float
    shift: float = 0.0
    divisor: float = 1.0
    level: float | None = None

    @property
    def sign(self) -> float:
        return 1.0 if self.reward.higher_is_better else -1.0

    def value(self, scores: torch.Tensor) -> torch.Tensor:
        """Raw scores [B] → v [B], same type, with its graph."""
        return self.sign * (scores - self.shift) / self.divisor


def combine(mode: Mode, values: Sequence[torch.Tensor], weights: Sequence[float], penalty: float) -> torch.Tensor:
    """The formulas of the module.

    Args:
        mode: see the module; "constrained" expects `values[1:]` less their levels.
        values: v of each part, each [B].
        weights: their shares; not looked at in the modes "minimum" and "constrained".
        penalty: of the mode "constrained".

    Returns:
        [B], of the values' type, differentiable.
    """
    if mode == "weighted sum":
        return sum(weight * value for weight, value in zip(weights, values, strict=True))
    if mode == "minimum":
        return torch.stack(list(values)).amin(0)
    if mode == "product":
        # In logarithms, where a far tail still has a slope.
        logs = [weight * torch.special.log_ndtr(value) for weight, value in zip(weights, values, strict=True)]
        return sum(logs).exp()
    return values[0] - penalty * sum((-value).clamp_min(0) for value in values[1:])


class CombinedReward:
    """Several rewards as one; higher is better.

    Args:
        rewards: two to four. They keep their own caches: each picture costs each of them one forward pass.
        config: see `CombineConfig`.

    Attributes:
        formula: what is computed, with numbers and names.
        reward_id: from the parts' ids, calibrations, weights and the mode.
        differentiable: if all parts are.
        contextual, compares_batch, compares_pictures, needs_previous: if any part is.
        patchers: of all parts.
        image_features: of the first part that has an encoder.

    Raises:
        RewardError: a reward lacks its calibration, a safety gate is in front of one, all weights are 0, or the mode
            has nothing to combine.
    """

    higher_is_better = True

    def __init__(self, rewards: Sequence[Reward], config: CombineConfig) -> None:
        for reward in rewards:
            refuse_gate(reward)
        self.config = config
        self.parts = _parts(rewards, config)
        inner = [part.reward for part in self.parts]
        self.name = _name(self.parts, config)
        self.formula = _formula(self.parts, config)
        self.reward_id = f"combined:v{VERSION}:{_digest(self.parts, config)}"
        self.differentiable = all(reward.differentiable for reward in inner)
        self.uses_prompt = any(uses_prompt(reward) for reward in inner)
        self.contextual = any(is_contextual(reward) for reward in inner)
        self.compares_batch = any(compares_batch(reward) for reward in inner)
        self.compares_pictures = any(compares_pictures(reward) for reward in inner)
        self.needs_previous = any(getattr(reward, "needs_previous", False) for reward in inner)
        self.patchers = tuple(dict.fromkeys(patcher for reward in inner for patcher in patchers_of(reward)))
        features = next((f for f in (getattr(r, "image_features", None) for r in inner) if callable(f)), None)
        if features is not None:
            self.image_features: Callable[[torch.Tensor], torch.Tensor] = features

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], context: RewardContext | None = None
    ) -> torch.Tensor:
        """Images [B, h, w, c] in [0, 1] and B prompts → scores float32 [B].

        Raises:
            RewardError: a part returned something unusable; names it.
        """
        values = []
        with hashed_once(images):
            for part in self.parts:
                value = part.value(checked_scores(part.reward, images, prompts, context))
                values.append(value if part.level is None else value - part.level)
        return combine(self.config.mode, values, [part.weight for part in self.parts], self.config.penalty)


def _parts(rewards: Sequence[Reward], config: CombineConfig) -> list[Part]:
    weighted = [(r, w) for r, w in zip(rewards, config.weights, strict=False) if w != 0]
    if not weighted:
        raise RewardError("All weights are 0, so nothing is left to score with. Give at least one reward a weight.")
    total = sum(abs(weight) for _, weight in weighted)
    parts = []
    for index, (reward, weight) in enumerate(weighted):
        shift, divisor = 0.0, 1.0
        if config.scale == "z-scores":
            calibration = require_calibration(reward, "a combination of z-scores")
            shift, divisor = calibration.mean, calibration.deviation
        part = Part(reward, weight / total, shift, divisor)
        if config.mode == "constrained" and index > 0:
            raw = level_as_score(config.level, config.level_unit, reward)
            part = Part(reward, weight / total, shift, divisor, part.sign * (raw - shift) / divisor)
        parts.append(part)
    if config.mode == "constrained" and (len(parts) < 2 or parts[0].reward is not rewards[0]):
        raise RewardError(
            "The mode 'constrained' raises reward_a while the others keep their level: weight_a and at least one other "
            "weight must not be 0."
        )
    return parts


def _digest(parts: Sequence[Part], config: CombineConfig) -> str:
    """Identity of everything that the score depends on."""
    used: dict[str, Any] = {"mode": config.mode, "parts": []}
    if config.mode == "constrained":
        used["penalty"] = config.penalty
    shares = config.mode in ("weighted sum", "product")
    for part in parts:
        used["parts"].append(
            {
                "reward": part.reward.reward_id,
                "sign": part.sign,
                "weight": part.weight if shares else None,
                "shift": part.shift,
                "divisor": part.divisor,
                "level": part.level,
            }
        )
    return hashlib.blake2b(json.dumps(used, sort_keys=True).encode(), digest_size=16).hexdigest()


# ---- in words ----


def _number(value: float) -> str:
    """Three significant digits, with a true minus sign: 0.333, 2, −1.5."""
    return f"{value:.3g}".replace("-", "−")


def _value_text(part: Part, config: CombineConfig) -> str:
    inner = formula_of(part.reward)
    turned = inner if part.sign > 0 else f"−({inner})" if " " in inner else f"−{inner}"
    if config.scale == "z-scores":
        return f"z({turned})"
    return f"({turned})" if part.sign < 0 or any(mark in inner for mark in ("+", "−", "·")) else turned


def _formula(parts: Sequence[Part], config: CombineConfig) -> str:
    values = [_value_text(part, config) for part in parts]
    if config.mode == "minimum":
        return f"min({', '.join(values)})"
    if config.mode == "product":
        return " · ".join(f"Φ({value})^{_number(part.weight)}" for part, value in zip(parts, values, strict=True))
    if config.mode == "weighted sum":
        text = ""
        for part, value in zip(parts, values, strict=True):
            joint = (" − " if part.weight < 0 else " + ") if text else ("−" if part.weight < 0 else "")
            text += f"{joint}{_number(abs(part.weight))}·{value}"
        return text
    text = values[0]
    for part, value in zip(parts[1:], values[1:], strict=True):
        text += f" − {_number(config.penalty)}·max(0, {_number(part.level or 0.0)} − {value})"
    return text


def _name(parts: Sequence[Part], config: CombineConfig) -> str:
    names = [part.reward.name for part in parts]
    if config.mode == "minimum":
        return f"Lowest of {', '.join(names)}"
    if config.mode == "product":
        return " × ".join(names)
    if config.mode == "constrained":
        return f"{names[0]}, with enough {' and '.join(names[1:])}"
    text = ("−" if parts[0].weight < 0 else "") + names[0]
    for part, name in zip(parts[1:], names[1:], strict=True):
        text += f" {'−' if part.weight < 0 else '+'} {name}"
    return text
