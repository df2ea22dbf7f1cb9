"""What every scorer needs to know of pictures and prompts, before any network sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ...training.interfaces import RewardError
from ..picture_hashes import hashes_of

if TYPE_CHECKING:
    from PIL import Image

# Pixels that are turned into 8 bits at once.
_STRIP = 1 << 17


def to_rgb(images: torch.Tensor) -> torch.Tensor:
    """Grey or transparent pictures as colour pictures.

    Grey is repeated over the three channels; transparency is laid over white, because the colour of a fully transparent
    pixel is arbitrary. Differentiable.

    Args:
        images: float [B, h, w, c] in [0, 1] with c = 1 (grey), 3 (RGB) or 4 (RGBA).

    Returns:
        float32 [B, h, w, 3].

    Raises:
        RewardError: not four dimensions, another number of channels, no pixels at all, or values that are not finite.
    """
    _check_shape(images)
    _check_values(images)
    images = images.float()
    if images.shape[-1] == 1:
        return images.expand(-1, -1, -1, 3)
    if images.shape[-1] == 4:
        alpha = images[..., 3:].clamp(0, 1)
        return images[..., :3] * alpha + (1 - alpha)
    return images


def to_image(picture: torch.Tensor) -> Image.Image:
    """A picture [h, w, c] in [0, 1] in 8 bits, for files and drawings.

    Raises:
        RewardError: as `to_rgb`.
    """
    from PIL import Image

    _check_shape(picture[None])
    height, width = picture.shape[:2]
    pixels = torch.empty(height, width, 3, dtype=torch.uint8)
    # In strips that stay in the processor's cache: a 4K picture is a hundred megabytes, and moving it costs most.
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        strip = to_rgb(picture[None, top : top + rows].detach().cpu())[0]
        pixels[top : top + rows] = strip.clamp(0, 1).mul_(255).round_()
    return Image.fromarray(pixels.numpy())


def _check_shape(images: torch.Tensor) -> None:
    shape = list(images.shape)
    if images.ndim != 4 or shape[-1] not in (1, 3, 4):
        raise RewardError(
            f"Pictures must have the shape [batch, height, width, channels] with 1, 3 or 4 channels, not {shape}. "
            "Connect an IMAGE output."
        )
    if 0 in shape[1:3]:
        raise RewardError(f"The pictures have no pixels (shape {shape}). Check the node that made them.")


def _check_values(images: torch.Tensor, first: int = 0) -> None:
    """8 bits can hold every number but these: a diverged picture would get a score like any other.

    Args:
        images: a batch [B, h, w, c].
        first: the number of its first picture, for the message.
    """
    if images.isfinite().all():
        return
    bad = (~images.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
    raise RewardError(
        f"Image {first + bad[0]} (the first is 0) holds values that are not finite numbers (NaN or infinite): its "
        "maker diverged. Lower the learning rate or check the node that made it."
    )


def fit_square(images: torch.Tensor, size: int) -> torch.Tensor:
    """Scale the short side to `size` (bicubic, antialiased) and crop the centre, as CLIP does. Differentiable.

    Args:
        images: float32 [B, 3, h, w] in [0, 1].
        size: edge length in pixels.

    Returns:
        float32 [B, 3, size, size] in [0, 1]; the same values where the picture already has that size.
    """
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    scale = size / min(height, width)
    shape = (max(size, round(height * scale)), max(size, round(width * scale)))
    # Bicubic overshoots at hard edges; a picture file could not hold such values either.
    images = F.interpolate(images, shape, mode="bicubic", antialias=True).clamp(0, 1)
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    return images[..., top : top + size, left : left + size]


def unbatch(batches: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Batches, possibly of different sizes, as single pictures [h, w, c] in the given order.

    Raises:
        RewardError: there is not one picture in them, or a batch is not a picture batch (see `to_rgb`).
    """
    pictures: list[torch.Tensor] = []
    for batch in batches:
        _check_shape(batch)
        # Also here, since what is scored later are parts, which have forgotten the pictures' numbers.
        _check_values(batch, len(pictures))
        pictures += batch.unbind(0)
    if not pictures:
        raise RewardError("There are no images to score: the batch is empty. Connect at least one image.")
    return pictures


def rebatch(pictures: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Single pictures [h, w, c] as one batch if all have one shape, else as batches of one; [] if there are none."""
    if len({picture.shape for picture in pictures}) > 1:
        return [picture[None] for picture in pictures]
    return [torch.stack(list(pictures))] if pictures else []


def counted(number: int, word: str) -> str:
    """1 image, 2 images."""
    return f"{number} {word}{'s' * (number != 1)}"


def split_prompts(texts: Sequence[str], count: int) -> list[str]:
    """One prompt per picture.

    Several texts (a list from another node) are one prompt each. A single text is one prompt per line; empty lines
    count for nothing, and a single prompt, or none, serves every picture.

    Args:
        texts: what the prompt input received.
        count: number of pictures.

    Raises:
        RewardError: neither one prompt nor one per picture; the message holds both counts.
    """
    if len(texts) > 1:
        prompts = [" ".join(text.split()) for text in texts]
    else:
        # Not `splitlines`, to which separators that no editor shows as a new line are one.
        prompts = [line.strip() for text in texts for line in text.split("\n") if line.strip()]
    if not prompts:
        prompts = [""]
    if len(prompts) == 1:
        return prompts * count
    if len(prompts) != count:
        raise RewardError(
            f"There are {len(prompts)} prompts for {counted(count, 'image')}. Give one prompt for all images, on a "
            f"single line, or exactly {counted(count, 'line')}, one per image."
        )
    return prompts


def content_hashes(pictures: torch.Tensor) -> list[str]:
    """`content_hash` of every picture of a batch [B, h, w, c]; of large pictures several at a time.

    Raises:
        RewardError: values that are not finite.
    """
    # Those that are scored under these names are fewer, since equal ones are left out, and lose their numbers.
    _check_values(pictures)
    return hashes_of(pictures)
