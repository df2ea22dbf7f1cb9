"""Liked and disliked pictures as feedback inside a model's self-attention, without any training.

In every step the liked pictures are noised to the present level and pass through the network once; the keys and values
of their self-attention then stand beside the picture's own wherever the positive prompt is followed. The disliked ones
do the same where the negative prompt is. A weight w on a foreign token is log w added to its attention logits.

References:
    von Rütte et al. 2023, "FABRIC: Personalizing Diffusion Models with Iterative Feedback".

Differences from the paper (ours):
    - liked pictures pass through the network with the positive prompt, disliked ones with the negative, in place of an
      empty prompt: so the outcome does not depend on how the host groups its calls;
    - the noise of a picture is drawn once and scaled to every level, so that steps agree with each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.patcher_extension
import torch

from ...training.interfaces import AttuneError
from .prompt_rows import PositiveRows
from .user_adapter import Window

KEY = "attune_image_feedback"
Kept = dict[tuple[Any, ...], tuple[torch.Tensor, torch.Tensor]]
"""Keys and values [pictures·tokens, width] of each place in the network."""


@dataclass
class Side:
    """The pictures of one kind.

    Attributes:
        latents: as the network sees them, [pictures, C, H, W]. noise: of the same shape.
        weight: of their tokens, > 0.
        kept: what the network made of them at `sigma`, in the present prediction.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    weight: float
    sigma: float = math.nan
    kept: Kept | None = None


class ImageFeedback:
    """The patch: wraps the host's `apply_model`, and stands in for every self-attention of a U-Net.

    What the network made of the pictures holds for one prediction of a guider: the next one may have another prompt or
    other weights at the same noise level. A call outside of any guider reads them for itself.

    Args:
        liked, disliked: None where there is none.
        window: noise levels at which they count.
    """

    def __init__(self, liked: Side | None, disliked: Side | None, window: Window) -> None:
        self.liked, self.disliked, self.window = liked, disliked, window
        self._keeping: Kept | None = None
        self._present: torch.Tensor | None = None
        self._guided = False
        self.rows = PositiveRows()

    def guided(self, executor: Any, *arguments: Any, **keywords: Any) -> torch.Tensor:
        """Wraps the guider's prediction (the host's PREDICT_NOISE), which may call the network several times."""
        self._forget()
        previous, self._guided = self._guided, True
        try:
            return self.rows.guided(executor, *arguments, **keywords)
        finally:
            self._guided = previous
            self._forget()

    def _forget(self) -> None:
        for side in (self.liked, self.disliked):
            if side is not None:
                side.sigma, side.kept = math.nan, None

    def __call__(
        self, executor: Any, x: torch.Tensor, sigma: torch.Tensor, *rest: Any, **keywords: Any
    ) -> torch.Tensor:
        """x [rows, C, H, W] and sigma [rows] → the clean picture predicted, [rows, C, H, W]."""
        level = float(sigma.flatten()[0])
        if level not in self.window:
            return executor(x, sigma, *rest, **keywords)
        if not self._guided:
            self._forget()
        options = keywords.get("transformer_options", rest[3] if len(rest) > 3 else {})
        positive = self.rows.of(options, len(x))
        for side, rows in ((self.liked, positive), (self.disliked, ~positive)):
            if side is not None and rows.any() and side.sigma != level:
                self._read(side, executor, int(rows.nonzero()[0]), x, sigma, rest, keywords)
                side.sigma = level
        self._present = positive
        try:
            return executor(x, sigma, *rest, **keywords)
        finally:
            self._present = None

    def _read(
        self, side: Side, executor: Any, row: int, x: torch.Tensor, sigma: torch.Tensor, rest: Sequence[Any],
        keywords: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """Let the network look at a side's pictures, under the prompt of one row."""
        rows, count = len(x), len(side.latents)

        def of_row(value: Any) -> Any:
            if isinstance(value, torch.Tensor) and value.ndim and len(value) == rows:
                return value[row : row + 1].expand(count, *value.shape[1:])
            return value

        levels = sigma[row : row + 1].expand(count)
        sampling = executor.class_obj.model_sampling
        noised = sampling.noise_scaling(
            levels.view(-1, *[1] * (x.ndim - 1)), side.noise.to(x), side.latents.to(x), False
        )
        given = [of_row(value) for value in rest]
        if len(given) > 2:
            given[2] = None  # a ControlNet's picture is not theirs
        named = {name: of_row(value) for name, value in keywords.items()} | ({"control": None} if len(rest) < 3 else {})
        self._keeping = {}
        try:
            executor(noised, levels, *given, **named)
            side.kept = self._keeping
        finally:
            self._keeping = None

    def attend(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: Mapping[str, Any]
    ) -> torch.Tensor:  # fmt: skip
        """In place of a self-attention: q, k, v [rows, tokens, width] → [rows, tokens, width]."""
        place = (*(extra.get("block") or ()), extra.get("block_index", 0))
        if self._keeping is not None:
            self._keeping[place] = (k.flatten(0, 1), v.flatten(0, 1))
        if self._present is None:
            return _attention(q, k, v, extra, None)
        present = self._present.repeat_interleave(len(q) // len(self._present)).to(q.device)
        out = torch.empty_like(q)
        for side, rows in ((self.liked, present), (self.disliked, ~present)):
            if rows.any():
                out[rows] = _beside(q[rows], k[rows], v[rows], extra, place, side)
        return out


def _beside(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: Mapping[str, Any], place: tuple[Any, ...],
    side: Side | None,
) -> torch.Tensor:  # fmt: skip
    if side is None or side.kept is None or place not in side.kept:
        return _attention(q, k, v, extra, None)
    keys, values = (part.to(k).expand(len(k), *part.shape) for part in side.kept[place])
    bias = q.new_zeros(1, 1, q.shape[1], k.shape[1] + keys.shape[1])
    bias[..., k.shape[1] :] = math.log(side.weight)
    return _attention(q, torch.cat([k, keys], 1), torch.cat([v, values], 1), extra, bias)


def _attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: Mapping[str, Any], bias: torch.Tensor | None
) -> torch.Tensor:
    from comfy.ldm.modules.attention import attention_pytorch, optimized_attention

    if bias is None:
        return optimized_attention(q, k, v, extra["n_heads"], attn_precision=extra.get("attn_precision"))
    # Not every attention of the host takes a bias; PyTorch's does.
    return attention_pytorch(q, k, v, extra["n_heads"], mask=bias, attn_precision=extra.get("attn_precision"))


def self_attentions(network: Any) -> list[tuple[str, int, int]]:
    """Where a U-Net's transformer blocks lie: (part, number of the part's block, number of the transformer block)."""
    found = []
    parts = {"input": "input_blocks", "middle": "middle_block", "output": "output_blocks"}
    for part, attribute in parts.items():
        blocks = getattr(network, attribute, None)
        if blocks is None:
            continue
        for number, block in enumerate([blocks] if part == "middle" else blocks):
            count = sum(len(layer.transformer_blocks) for layer in block if hasattr(layer, "transformer_blocks"))
            # The host numbers the middle block 0, and a block's transformers one after the other.
            found += [(part, number, index) for index in range(count)]
    return found


def with_feedback(
    model: Any,
    liked: torch.Tensor | None,
    disliked: torch.Tensor | None,
    *,
    liked_weight: float,
    disliked_weight: float,
    start_percent: float,
    end_percent: float,
    seed: int = 0,
) -> Any:
    """`model` with feedback; the model itself where none would count.

    Args:
        liked, disliked: host latents [pictures, C, H, W]; None = none of that kind.
        liked_weight, disliked_weight: ≥ 0 of a foreign token, the picture's own having 1; 0 = off.
        start_percent, end_percent: part of sampling, 0 … 1.
        seed: of the pictures' noise.

    Raises:
        AttuneError: there is no self-attention that could be told of it, or the latents are not the model's.
    """
    network = getattr(model.model.diffusion_model, "_orig_mod", model.model.diffusion_model)
    places = self_attentions(network)
    if not places:
        raise AttuneError(
            f"Image Feedback works in the self-attention of U-Nets (SD 1.x, 2.x, SDXL), and {type(network).__name__} "
            "is none: it would change nothing. Take Refine Conditioning or Preference Embedding for this model."
        )
    sides = [_side(model, part, weight, seed) for part, weight in ((liked, liked_weight), (disliked, disliked_weight))]
    if not any(sides) or start_percent >= end_percent:
        return model
    sampling = model.get_model_object("model_sampling")
    window = Window(float(sampling.percent_to_sigma(start_percent)), float(sampling.percent_to_sigma(end_percent)))
    feedback, patched = ImageFeedback(*sides, window), model.clone()
    attend: Callable[..., torch.Tensor] = feedback.attend
    for part, number, index in places:
        patched.set_model_attn1_replace(attend, part, number, index)
    patched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, KEY, feedback)
    patched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, KEY, feedback.guided)
    return patched


def _side(model: Any, latents: torch.Tensor | None, weight: float, seed: int) -> Side | None:
    if latents is None or not len(latents) or weight == 0:
        return None
    channels = model.model.latent_format.latent_channels
    if latents.ndim != 4 or latents.shape[1] != channels:
        raise AttuneError(
            f"These latents have the shape {list(latents.shape)}; this model's have {channels} channels, as [pictures, "
            f"{channels}, height, width]. Connect latents that were made by this model."
        )
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    return Side(model.model.process_latent_in(latents.float()), noise, weight)
