"""Names for pictures' pixels, by which families know again what they have seen."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import torch

_HASHING_THREADS = min(8, os.cpu_count() or 1)
# Values; below, a thread takes longer to begin than to hash (a picture of 256×256 takes half a millisecond).
_WORTH_A_THREAD = 1 << 18


def content_hash(picture: torch.Tensor) -> str:
    """A name for a picture's pixels: equal for equal pixels and shape, whatever node or file they came from.

    Args:
        picture: [h, w, c], any device.
    """
    pixels = picture.detach().to("cpu", torch.float32).contiguous()
    digest = hashlib.blake2b(str(tuple(pixels.shape)).encode(), digest_size=16)
    digest.update(pixels.numpy().data)
    return digest.hexdigest()


def hashes_of(pictures: torch.Tensor) -> list[str]:
    """`content_hash` of every picture of a batch [B, h, w, c]; of large pictures several at a time."""
    pictures = pictures.detach().to("cpu", torch.float32)
    workers = min(len(pictures), _HASHING_THREADS)
    if workers < 2 or pictures[0].numel() < _WORTH_A_THREAD:
        return [content_hash(picture) for picture in pictures]
    # Hashing leaves Python's lock to the other threads.
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(content_hash, pictures.unbind(0)))
