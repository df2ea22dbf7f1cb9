"""What simulated people look at: attributes of pictures that no network is needed for.

| attribute    | formula, on RGB in [0, 1]                                                | range       |
| ------------ | ------------------------------------------------------------------------ | ----------- |
| warmth       | mean(R − B)                                                              | −1 … 1      |
| colourfulness| √(σ_rg² + σ_yb²) + 0.3 √(μ_rg² + μ_yb²), rg = R − G, yb = (R + G)/2 − B    | 0 … about 1 |
| brightness   | mean(Y), Y = 0.2126 R + 0.7152 G + 0.0722 B                               | 0 … 1       |
| contrast     | deviation(Y)                                                             | 0 … 0.5     |

The same as the rewards of those names (a test compares them); the learning code does not import those.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Attribute = Callable[[torch.Tensor], torch.Tensor]


def _luma(images: torch.Tensor) -> torch.Tensor:
    return images @ torch.tensor([0.2126, 0.7152, 0.0722], dtype=images.dtype, device=images.device)


def warmth(images: torch.Tensor) -> torch.Tensor:
    """Images [B, h, w, 3] → [B]."""
    return (images[..., 0] - images[..., 2]).flatten(1).mean(1)


def colourfulness(images: torch.Tensor) -> torch.Tensor:
    """Hasler & Süsstrunk 2003, eq. 5. Images [B, h, w, 3] → [B]."""
    red, green, blue = images.flatten(1, 2).unbind(-1)
    axes = torch.stack([red - green, (red + green) / 2 - blue], 1)  # (B, 2, pixels)
    return axes.var(2, correction=0).sum(1).sqrt() + 0.3 * axes.mean(2).square().sum(1).sqrt()


def brightness(images: torch.Tensor) -> torch.Tensor:
    """Images [B, h, w, 3] → [B]."""
    return _luma(images).flatten(1).mean(1)


def contrast(images: torch.Tensor) -> torch.Tensor:
    """Images [B, h, w, 3] → [B]."""
    return _luma(images).flatten(1).std(1, correction=0)


ATTRIBUTES: dict[str, Attribute] = {
    "warmth": warmth,
    "colourfulness": colourfulness,
    "brightness": brightness,
    "contrast": contrast,
}
