"""Noise levels of a round: three ways to space them, and what a strength below 1 leaves of them.

| type   | eps and v models (σ is noise over signal)                             | flow models (σ in [0, 1])        |
| ------ | --------------------------------------------------------------------- | -------------------------------- |
| linear | evenly in the time u of a process whose β rises in a straight line:   | evenly in σ                      |
|        | log(1 + σ²) = Λ·(2εu + (1 − ε)u²)/(1 + ε), ε = β(0)/β(1) = 1/200      |                                  |
| cosine | evenly in the angle φ = arctan σ: signal cos φ, noise sin φ           | evenly in φ = arctan σ/(1 − σ)   |
| karras | evenly in σ^(1/7)                                                     | evenly in σ^(1/7)                |

Λ = log(1 + σ_max²). All begin at the model's largest level, end at its smallest, and then at 0. "linear" is not even in
σ itself there: that would spend nearly all steps on levels at which nothing of the picture can be seen.

A *strength* d below 1 is the host's denoise: ⌊steps/d⌋ levels are made, and the last `steps` are gone through. So the
number of steps stays and the start has less noise; how much less depends on the type: at 0.3, on a model that goes from
0.03 to 14.6, linear begins at a σ of 0.82, cosine at 0.50 and karras at 0.36.

Differences from the host's schedules: "karras" is the host's of that name; "cosine" for eps and v models is the one it
calls kl_optimal; "linear" is near its "normal", from the two ends of the table instead of the table. Samplers for which
its KSampler leaves out the last level but one (dpm_2, uni_pc) get all of them, as by its SamplerCustom.

References:
    linear: Ho et al. 2020, "Denoising diffusion probabilistic models", section 4 (β from 10^-4 to 0.02). cosine: Nichol
    & Dhariwal 2021, "Improved denoising diffusion probabilistic models", eq. 17, without its offset; for flow models
    the CosMap of Esser et al. 2024, "Scaling rectified flow transformers", section 3.1. karras: Karras et al. 2022,
    "Elucidating the design space of diffusion-based generative models", eq. 5.
"""

from __future__ import annotations

import math

import torch

from .checks import MOST_STEPS, RefinementError
from .records import SCHEDULE_TYPES, ScheduleType

RHO = 7.0
BETA_RATIO = 1 / 200
# From here on the host takes a denoise for 1.
WHOLE = 0.9999
# A weak round makes more levels than it goes through; more than this would only be a slip of the strength.
MOST_LEVELS = 100_000


def sigmas(
    kind: ScheduleType,
    steps: int,
    sigma_min: float,
    sigma_max: float,
    *,
    strength: float = 1.0,
    flow: bool = False,
    shift: float = 1.0,
) -> torch.Tensor:
    """The noise levels of a round.

    Args:
        kind: of `SCHEDULE_TYPES`.
        steps: network evaluations, ≥ 1.
        sigma_min, sigma_max: of the model, 0 < sigma_min < sigma_max; of flow models at most 1.
        strength: in (0, 1]; see the module.
        flow: whether the model is a flow model.
        shift: of a flow model's time, σ = s·t/(1 + (s − 1)t), ≥ some positive number; linear and cosine are even in t.

    Returns:
        float32 [steps + 1], descending, the last one 0.

    Raises:
        RefinementError: a value is out of its range.
    """
    _check(kind, steps, sigma_min, sigma_max, strength, flow, shift)
    total = steps if strength > WHOLE else int(steps / strength)
    if total > MOST_LEVELS:
        raise RefinementError(
            f"{steps} steps at a strength of {strength:g} are the last of {total} noise levels. Raise the strength."
        )
    share = torch.linspace(0, 1, total, dtype=torch.float64)
    if kind == "karras":
        high, low = sigma_max ** (1 / RHO), sigma_min ** (1 / RHO)
        levels = (high + share * (low - high)) ** RHO
    elif flow:
        levels = _flow_levels(kind, share, sigma_min, sigma_max, shift)
    else:
        levels = _levels(kind, share, sigma_min, sigma_max)
    levels[0] = sigma_max
    if total > 1:
        levels[-1] = sigma_min
    return torch.cat([levels, levels.new_zeros(1)])[-(steps + 1) :].float()


def _levels(kind: ScheduleType, share: torch.Tensor, sigma_min: float, sigma_max: float) -> torch.Tensor:
    """Levels of an eps or v model; `share` of the way from the largest to the smallest, [T]."""
    if kind == "cosine":
        high, low = math.atan(sigma_max), math.atan(sigma_min)
        return torch.tan(high + share * (low - high))
    ratio, whole = BETA_RATIO, math.log1p(sigma_max**2)
    # The time at which the smallest level is reached, by the quadratic formula.
    part = math.log1p(sigma_min**2) / whole * (1 + ratio)
    first = (math.sqrt(ratio**2 + (1 - ratio) * part) - ratio) / (1 - ratio)
    time = 1 + share * (first - 1)
    return torch.expm1(whole * (2 * ratio * time + (1 - ratio) * time.square()) / (1 + ratio)).sqrt()


def _flow_levels(
    kind: ScheduleType, share: torch.Tensor, sigma_min: float, sigma_max: float, shift: float
) -> torch.Tensor:
    """Levels of a flow model, as `_levels`."""
    low, high = (level / (shift - (shift - 1) * level) for level in (sigma_min, sigma_max))
    if kind == "cosine":
        start, end = (math.atan2(time, 1 - time) for time in (high, low))
        angle = start + share * (end - start)
        time = angle.sin() / (angle.sin() + angle.cos())
    else:
        time = high + share * (low - high)
    return shift * time / (1 + (shift - 1) * time)


def _check(
    kind: str, steps: int, sigma_min: float, sigma_max: float, strength: float, flow: bool, shift: float
) -> None:
    if kind not in SCHEDULE_TYPES:
        raise RefinementError(f"There is no schedule {kind!r}; choose one of: {', '.join(SCHEDULE_TYPES)}.")
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
        raise RefinementError(f"A round takes 1 to {MOST_STEPS} steps, not {steps!r}.")
    if not 0 < sigma_min < sigma_max < math.inf:
        raise RefinementError(
            f"The noise levels of a model rise from above 0; these go from {sigma_min} to {sigma_max}."
        )
    if flow and sigma_max > 1:
        raise RefinementError(f"The noise levels of a flow model end at 1; this one's at {sigma_max:g}.")
    if not 0 < strength <= 1:
        raise RefinementError(f"The strength must be above 0 and at most 1, not {strength!r}.")
    if not 0 < shift < math.inf:
        raise RefinementError(f"The shift of a flow model must be above 0, not {shift!r}.")
