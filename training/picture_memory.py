"""What decoder and reward need in a step, for methods that make pictures while they train; see `memory`.

Where a reward's gradient is followed (ReFL, DRaFT) it is measured, on one or two pictures: everything that the backward
pass keeps, beside what the network keeps. Pictures are decoded one at a time and computed anew in the backward pass, so
that decoding does not grow with the chunk. Mixed precision reaches neither decoder nor reward. Elsewhere nothing is
kept, and decoding takes turns with learning: what it needs is what the decoder says. Where a reward without a gradient
is asked in the middle of a step (Diff-Instruct*), this and the pictures lie beside what the network keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .interfaces import LatentDecoder, Reward, checked_scores
from .memory import HEADROOM, Kept, telling
from .presentable import compares_pictures, rest_of_batch


@dataclass(frozen=True)
class PictureMemory:
    """Bytes on the device for pictures.

    Attributes:
        decoder: of decoding as many pictures as are decoded at a time.
        reward: of scoring the first picture; more: of each further one. 0 where nothing is kept for a backward pass.
        gradients: whether gradients pass through both, which then lie in memory beside what the network keeps.
        waits: whether they lie beside it all the same: the network waits for its backward pass meanwhile.
    """

    decoder: int
    reward: int = 0
    more: int = 0
    gradients: bool = False
    waits: bool = False

    def beside(self, activations: int, batch: int) -> int:
        """What a step with `batch` pictures needs besides the network's activations.

        The reward's backward pass is done before that of the decoder begins, so that only the larger one counts.
        """
        scoring = self.reward + (batch - 1) * self.more
        if self.gradients:
            return max(self.decoder, scoring)
        if self.waits:
            return self.decoder + scoring
        return max(0, self.decoder - activations)


def decoding_memory(decoder: LatentDecoder, shape: Sequence[int]) -> PictureMemory:
    """Of decoding without gradients.

    Args:
        decoder: may have `decoding_bytes`, of as many latents of a shape [C, H, W] as it decodes at the least.
    """
    told = getattr(decoder, "decoding_bytes", None)
    return PictureMemory(int(told(tuple(shape))) if callable(told) else 0)


def waiting_memory(decoder: LatentDecoder, shape: Sequence[int], *, device: torch.device, times: int) -> PictureMemory:
    """Of decoding without gradients while the network waits for its backward pass, and of the pictures; measured.

    Each is there twice, as it is decoded and among those to score. What the reward takes for a moment is not known.

    Args:
        times: pictures at a time for each picture of the step.

    Raises:
        TrainingError: not even one can be decoded.
    """
    with torch.no_grad(), telling("Not even one picture can be decoded in the memory there is. Use smaller pictures."):
        picture = decoder.decode(torch.zeros(1, *shape, device=device))
    held = 2 * times * picture.numel() * picture.element_size()
    return PictureMemory(decoding_memory(decoder, shape).decoder, held, held, waits=True)


def gradient_memory(
    decoder: LatentDecoder,
    reward: Reward,
    shape: Sequence[int],
    prompt: str,
    *,
    device: torch.device,
    batch: int,
) -> PictureMemory:
    """Of decoding one picture, and scoring it, with gradients through both; measured.

    Args:
        shape: of a latent, [C, H, W].
        prompt: of the pictures that are scored.
        batch: pictures that are scored at a time.

    Raises:
        TrainingError: the memory runs out while measuring; says what to change.
    """
    latent = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    # A reward that compares pictures has nothing to compare one with.
    first = 2 if compares_pictures(reward) and batch > 1 else 1
    counts = [first] if batch <= first else [first, first + 1]
    with torch.inference_mode(False), torch.enable_grad():
        decoding = Kept()
        with telling(_too_large("Decoding")), decoding.counting():
            picture = decoder.decode(latent.requires_grad_())
        picture, scoring = picture.detach(), []
        for count in counts:
            images, prompts, kept = picture.repeat(count, 1, 1, 1).requires_grad_(), [prompt] * count, Kept()
            with telling(_too_large("Scoring")), kept.counting():
                checked_scores(reward, images, prompts, rest_of_batch(reward, prompts))
            scoring.append(kept.bytes)
    growth = scoring[-1] - scoring[0] if len(scoring) > 1 else 0
    one = max(0, scoring[0] - (first - 1) * growth)
    return PictureMemory(*(int(size * HEADROOM) for size in (decoding.bytes, one, growth)), gradients=True)


def _too_large(what: str) -> str:
    return (
        f"{what} a picture with gradients, as ReFL and DRaFT need it, does not fit into memory. Use smaller pictures, "
        "or the DDPO or the DAG objective, which do without."
    )
