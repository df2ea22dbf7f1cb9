"""From a picture of any size to what a public reward model was trained to see: the same pixels its own library makes.

| fit        | used by                                 | what happens                                               |
| ---------- | --------------------------------------- | ---------------------------------------------------------- |
| centre     | CLIPScore, ImageReward, LAION aesthetic | short side to `size`, crop the centre; where the spare is  |
|            |                                         | odd, its half is rounded to even (torchvision)             |
| centre low | PickScore                               | the same, but the half is rounded down (transformers)      |
| pad        | HPS                                     | long side to `size`, black around it                       |
| attune     | files that describe themselves          | `pictures.fit_square`                                      |

Both libraries scale 8-bit pictures with Pillow, which rounds and cuts off what overshoots, once across and once down.
Scaling in one go without that differs at hard edges by tens of the 255 levels, and cutting without rounding by one
level, enough to move a score in the fourth digit; so Pillow does it here too, and the pixels are the libraries' own.
HPS' own program turns the picture into numbers first; it rounds and cuts nothing, so neither does `pad`.

Rounding has no slope. Its gradient is taken as 1 (a straight-through estimate, ours): scores are the library's, and
gradients are those of the scaling without rounding.

References:
    torchvision.transforms.Resize and CenterCrop; transformers.CLIPImageProcessor; HPSv2, `ResizeMaxSize`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .pictures import fit_square

Fit = Literal["centre", "centre low", "pad", "attune"]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preprocessing:
    """How a picture is brought to the size and the range of numbers that a network expects.

    Attributes:
        size: edge of the square picture the network sees, in pixels.
        fit: what happens to pictures of another shape; see the table of the module.
        mean, std: normalisation of the three channels.
        eight_bit: where a picture is scaled, take it as one of 8 bits and round as Pillow does; False for the smooth
            scaling that gradients belong to. Only for the fits "centre" and "centre low".
    """

    size: int
    fit: Fit = "centre"
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    eight_bit: bool = True

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """RGB images [B, h, w, 3] in [0, 1] → [B, 3, size, size], normalised. Differentiable."""
        pixels = self._fit(images.movedim(-1, 1))  # (B, 3, size, size)
        mean, std = (pixels.new_tensor(values).reshape(3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std

    def _fit(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.fit == "attune":
            return fit_square(pixels, self.size)
        if self.fit == "pad":
            return pad_square(pixels, self.size)
        return crop_square(pixels, self.size, low=self.fit == "centre low", eight_bit=self.eight_bit)


def crop_square(pixels: torch.Tensor, size: int, *, low: bool = False, eight_bit: bool = True) -> torch.Tensor:
    """Short side to `size`, centre cropped.

    Args:
        pixels: [B, 3, h, w] in [0, 1].
        size: edge of the result in pixels.
        low: where an odd number of pixels is cut off, cut the smaller half on the left or top.
        eight_bit: see `Preprocessing`.

    Returns:
        [B, 3, size, size] in [0, 1]; unrounded where the picture needs no scaling.
    """
    height, width = pixels.shape[-2:]
    short = min(height, width)
    # Both libraries cut the fraction of the long side off.
    shape = (int(size * height / short), int(size * width / short))
    pixels = _scale(pixels, shape, eight_bit)
    spare = (shape[0] - size, shape[1] - size)
    # Python rounds a half to the even number, as torchvision does.
    top, left = (value // 2 if low else round(value / 2) for value in spare)
    return pixels[..., top : top + size, left : left + size]


def pad_square(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Long side to `size`, the rest filled with black, half on each side; an odd pixel goes to the right or bottom.

    Args:
        pixels: [B, 3, h, w] in [0, 1].
        size: edge of the result in pixels.

    Returns:
        [B, 3, size, size]; may leave [0, 1] a little at hard edges, as in the original.
    """
    height, width = pixels.shape[-2:]
    scale = size / max(height, width)
    # A very thin picture keeps one pixel, where the original fails.
    shape = (max(1, round(height * scale)), max(1, round(width * scale)))
    if shape != (height, width):
        pixels = F.interpolate(pixels, shape, mode="bicubic", antialias=True)
    down, across = size - shape[0], size - shape[1]
    return F.pad(pixels, (across // 2, across - across // 2, down // 2, down - down // 2))


def _scale(pixels: torch.Tensor, shape: tuple[int, int], eight_bit: bool) -> torch.Tensor:
    if shape == tuple(pixels.shape[-2:]):
        return pixels
    if not eight_bit:
        return _scale_smoothly(pixels, shape)
    exact = scale_with_pillow(pixels.detach(), shape)
    if not (torch.is_grad_enabled() and pixels.requires_grad):
        return exact
    smooth = _scale_smoothly(pixels, shape)
    return smooth + (exact - smooth).detach()


def _scale_smoothly(pixels: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Across, then down, each cut to [0, 1]."""
    for step in ((pixels.shape[-2], shape[1]), shape):
        if step != tuple(pixels.shape[-2:]):
            pixels = F.interpolate(pixels, step, mode="bicubic", antialias=True).clamp(0, 1)
    return pixels


def scale_with_pillow(pixels: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Bicubic scaling of pictures rounded to 8 bits, by Pillow itself, on the CPU; no gradients.

    Args:
        pixels: [B, 3, h, w] in [0, 1], any device.
        shape: the new height and width.

    Returns:
        float32 [B, 3, *shape], multiples of 1/255, on the same device.
    """
    levels = (pixels.clamp(0, 1) * 255).round().to("cpu", torch.uint8).movedim(1, -1).contiguous()
    size = shape[::-1]
    scaled = [Image.fromarray(picture.numpy()).resize(size, Image.Resampling.BICUBIC) for picture in levels]
    stacked = torch.from_numpy(np.stack([np.asarray(picture) for picture in scaled]))
    return stacked.to(pixels.device).movedim(-1, 1).float() / 255
