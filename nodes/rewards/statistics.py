"""Rewards that need no model: what the pixels themselves say.

| statistic    | formula, on RGB in [0, 1]                                          | range        |
| ------------ | ------------------------------------------------------------------ | ------------ |
| brightness   | mean(Y), Y = 0.2126 R + 0.7152 G + 0.0722 B                         | 0 … 1        |
| contrast     | deviation(Y)                                                        | 0 … 0.5      |
| colourfulness| √(σ_rg² + σ_yb²) + 0.3 √(μ_rg² + μ_yb²), rg = R − G, yb = (R+G)/2 − B | 0 … about 1 |
| saturation   | mean((max − min) / max), the S of HSV                               | 0 … 1        |
| warmth       | mean(R − B)                                                         | −1 … 1       |
| sharpness    | root mean square of the 4-neighbour Laplacian of Y                  | 0 … about 2  |
| symmetry     | 1 − mean|picture − its left-right mirror|                            | 0 … 1        |
| JPEG size    | kB of the picture as a JPEG of quality 95                           | > 0          |
| compressibility   | − JPEG size                                                    | < 0          |
| incompressibility | JPEG size                                                      | > 0          |

References:
    colourfulness: Hasler & Süsstrunk 2003, "Measuring colourfulness in natural images", eq. 5 (there on 0 … 255: divide
    their figures by 255). JPEG size: Black et al. 2023, DDPO, section 5, where
    its negative is called compressibility and it itself incompressibility.
    Luma weights: ITU-R BT.709. The others are ours, in their plainest form.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

import torch

from ...training.interfaces import RewardContext, RewardError
from .pictures import to_rgb

Statistic = Literal[
    "colourfulness", "contrast", "sharpness", "brightness", "saturation", "warmth", "symmetry", "JPEG size",
    "compressibility", "incompressibility",
]  # fmt: skip
Goal = Literal["as high as possible", "as low as possible", "close to target"]

# Keeps the slope of a root finite where its argument is 0 (a picture of one colour).
TINY = 1e-12
LONGEST_JPEG = 65500
# Stands in the id, by which scores and calibrations are kept. Raise it whenever a change here gives other scores.
VERSION = 1


def luma(images: torch.Tensor) -> torch.Tensor:
    """RGB [B, h, w, 3] → [B, h, w]."""
    red, green, blue = images.unbind(-1)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _root(values: torch.Tensor) -> torch.Tensor:
    return (values + TINY).sqrt()


def brightness(images: torch.Tensor) -> torch.Tensor:
    return luma(images).flatten(1).mean(1)


def contrast(images: torch.Tensor) -> torch.Tensor:
    return _root(luma(images).flatten(1).var(1, correction=0))


def colourfulness(images: torch.Tensor) -> torch.Tensor:
    red, green, blue = images.flatten(1, 2).unbind(-1)
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    spread = _root(red_green.var(1, correction=0) + yellow_blue.var(1, correction=0))
    return spread + 0.3 * _root(red_green.mean(1).square() + yellow_blue.mean(1).square())


def saturation(images: torch.Tensor) -> torch.Tensor:
    high, low = images.amax(-1), images.amin(-1)
    # Black has no saturation; the floor only avoids 0 / 0.
    return ((high - low) / high.clamp_min(1e-6)).flatten(1).mean(1)


def warmth(images: torch.Tensor) -> torch.Tensor:
    return (images[..., 0] - images[..., 2]).flatten(1).mean(1)


def sharpness(images: torch.Tensor) -> torch.Tensor:
    if min(images.shape[1:3]) < 3:
        height, width = images.shape[1:3]
        raise RewardError(f"Sharpness needs pictures of at least 3×3 pixels, not {width}×{height}. Enlarge them.")
    y = luma(images)
    laplacian = y[:, :-2, 1:-1] + y[:, 2:, 1:-1] + y[:, 1:-1, :-2] + y[:, 1:-1, 2:] - 4 * y[:, 1:-1, 1:-1]
    return _root(laplacian.square().flatten(1).mean(1))


def symmetry(images: torch.Tensor) -> torch.Tensor:
    return 1 - (images - images.flip(2)).abs().flatten(1).mean(1)


def jpeg_size(images: torch.Tensor) -> torch.Tensor:
    from PIL import Image

    if max(images.shape[1:3]) > LONGEST_JPEG:
        height, width = images.shape[1:3]
        raise RewardError(f"A JPEG file holds at most {LONGEST_JPEG} pixels a side, not {width}×{height}. Scale down.")
    sizes = []
    for pixels in (images.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8):
        file = io.BytesIO()
        Image.fromarray(pixels.numpy()).save(file, "JPEG", quality=95)
        sizes.append(file.tell() / 1000)
    return torch.tensor(sizes, dtype=torch.float32, device=images.device)


def compressibility(images: torch.Tensor) -> torch.Tensor:
    return -jpeg_size(images)


MEASURES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "colourfulness": colourfulness,
    "contrast": contrast,
    "sharpness": sharpness,
    "brightness": brightness,
    "saturation": saturation,
    "warmth": warmth,
    "symmetry": symmetry,
    "JPEG size": jpeg_size,
    "compressibility": compressibility,
    "incompressibility": jpeg_size,
}


@dataclass(frozen=True)
class StatisticReward:
    """One statistic as a reward. The goal is already in the sign: a higher score is always better.

    score = value | −value | −|value − target| for the goals as high as possible | as low as possible | close to target

    Attributes:
        statistic: one of `MEASURES`.
        goal: which way is better.
        target: the wished value, in the statistic's own unit; only the goal "close to target" looks at it.
    """

    statistic: Statistic = "colourfulness"
    goal: Goal = "as high as possible"
    target: float = 0.5

    def __post_init__(self) -> None:
        if self.statistic not in MEASURES:
            raise RewardError(f"There is no statistic {self.statistic!r}; choose one of: {', '.join(MEASURES)}.")
        if self.goal not in get_args(Goal):
            raise RewardError(f"There is no goal {self.goal!r}; choose one of: {', '.join(get_args(Goal))}.")

    @property
    def name(self) -> str:
        wish = {"as high as possible": "high", "as low as possible": "low"}.get(self.goal, f"near {self.target:g}")
        return f"{self.statistic[0].upper()}{self.statistic[1:]} ({wish})"

    @property
    def reward_id(self) -> str:
        target = f":{self.target!r}" if self.goal == "close to target" else ""
        return f"statistic:v{VERSION}:{self.statistic}:{self.goal}{target}"

    @property
    def differentiable(self) -> bool:
        """False for what counts the bytes of a file: that has no slope."""
        return MEASURES[self.statistic] not in (jpeg_size, compressibility)

    @property
    def uses_prompt(self) -> bool:
        return False

    @property
    def higher_is_better(self) -> bool:
        return True

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], context: RewardContext | None = None
    ) -> torch.Tensor:
        """Images [B, h, w, c] in [0, 1] → scores float32 [B]. Prompts and context are not looked at."""
        value = MEASURES[self.statistic](to_rgb(images))
        if self.goal == "as high as possible":
            return value
        return -value if self.goal == "as low as possible" else -(value - self.target).abs()


DEFAULTS: dict[str, object] = {field.name: field.default for field in fields(StatisticReward)}
