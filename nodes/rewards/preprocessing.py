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
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .pictures import fit_square

Fit = Literal["centre", "centre low", "pad", "attune"]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
# Rows and columns.
Window = tuple[slice, slice]
# Pixels; 12 MB of bytes, 48 MB where they are numbers.
STRIP = 1 << 22


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
    spare = (shape[0] - size, shape[1] - size)
    # Python rounds a half to the even number, as torchvision does.
    top, left = (value // 2 if low else round(value / 2) for value in spare)
    return _scale(pixels, shape, (slice(top, top + size), slice(left, left + size)), eight_bit)


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


def _scale(pixels: torch.Tensor, shape: tuple[int, int], window: Window, eight_bit: bool) -> torch.Tensor:
    """Scaled to `shape`, of which only the window is kept."""
    if shape == tuple(pixels.shape[-2:]):
        return pixels[..., window[0], window[1]]
    if not eight_bit:
        return _scale_smoothly(pixels, shape, window)
    exact = scale_with_pillow(pixels.detach(), shape, window)
    if not (torch.is_grad_enabled() and pixels.requires_grad):
        return exact
    smooth = _scale_smoothly(pixels, shape, window)
    return smooth + (exact - smooth).detach()


def _strips(width: int, height: int) -> list[slice]:
    """Columns of a picture of that width, a few at a time, so that a strip has about `STRIP` pixels.

    No column changes another while a picture is scaled downwards, so a part of them gives the same pixels. No strip is
    one column wide: torch scales such a one wrongly.
    """
    bounds = [*range(0, max(1, width - 1), max(2, STRIP // height)), width]
    return [slice(*pair) for pair in pairwise(bounds)]


def _scale_smoothly(pixels: torch.Tensor, shape: tuple[int, int], window: Window) -> torch.Tensor:
    """Across, then down, each cut to [0, 1]."""
    rows, columns = window

    def scaled(part: torch.Tensor, height: int, width: int) -> torch.Tensor:
        if (height, width) == tuple(part.shape[-2:]):
            return part
        return F.interpolate(part, (height, width), mode="bicubic", antialias=True)

    pixels = scaled(pixels, pixels.shape[-2], shape[1])[..., columns].clamp(0, 1)
    strips = [pixels[..., strip] for strip in _strips(pixels.shape[-1], len(pixels) * shape[0])]
    # Copies, since a view would keep its whole strip in memory.
    kept = [scaled(strip, shape[0], strip.shape[-1])[..., rows, :].clone() for strip in strips]
    return torch.cat(kept, -1).clamp(0, 1)


def scale_with_pillow(pixels: torch.Tensor, shape: tuple[int, int], window: Window | None = None) -> torch.Tensor:
    """Bicubic scaling of pictures rounded to 8 bits, by Pillow itself, on the CPU; no gradients.

    Args:
        pixels: [B, 3, h, w] in [0, 1], any device.
        shape: the new height and width.
        window: which rows and columns of the result are wanted; None for all of them.

    Returns:
        float32 [B, 3, *shape] or the window of it, multiples of 1/255, on the same device.
    """
    levels = (pixels.clamp(0, 1) * 255).round().to("cpu", torch.uint8).movedim(1, -1).contiguous()
    rows, columns = window or (slice(0, shape[0]), slice(0, shape[1]))
    scaled = [_part_by_pillow(Image.fromarray(picture.numpy()), shape, rows, columns) for picture in levels]
    return torch.from_numpy(np.stack(scaled)).to(pixels.device).movedim(-1, 1).float() / 255


def _part_by_pillow(picture: Image.Image, shape: tuple[int, int], rows: slice, columns: slice) -> np.ndarray:
    """A window of a scaled picture, uint8 [h, w, 3]; the rest of it, which may be huge, is never there as a whole.

    Pillow scales across and then down, and rounds in between; here it does so in two calls.
    """
    across = picture.resize((shape[1], picture.height), Image.Resampling.BICUBIC)
    parts = []
    for strip in _strips(columns.stop - columns.start, shape[0]):
        left, right = columns.start + strip.start, columns.start + strip.stop
        narrow = across.crop((left, 0, right, picture.height))
        down = narrow.resize((right - left, shape[0]), Image.Resampling.BICUBIC)
        parts.append(np.asarray(down.crop((0, rows.start, right - left, rows.stop))))
    return np.concatenate(parts, axis=1)
