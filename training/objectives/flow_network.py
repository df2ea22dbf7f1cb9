"""f_φ of DAG: one number for a noisy latent, its noise level and its prompt.

The downward half of a small U-Net: per level one residual block and text cross-attention (the last level without),
then half the size; the mean over the places; one linear layer, which starts at zero, so that the flow starts as the
reward alone.

References:
    Zhang et al. 2024, "Improving GFlowNets for Text-to-Image Diffusion Alignment": channels 64, 128, 256, 256, one
    layer per block, text cross-attention, mean, linear.

Differences from the paper (all ours):
    - the last layer starts at zero;
    - cross-attention alone, without the self-attention and feed-forward layers of a transformer block;
    - any latent size: levels stop halving at one place, and latents of a single place (tests in two dimensions) get
      1×1 convolutions without normalisation, which is a residual multi-layer perceptron;
    - float32 always, also where the policy runs in 16 bit: a residual is a small difference of large numbers;
    - where a denoiser shows no text, every prompt has a learned token instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from ..interfaces import TrainingError

GROUPS = 16
HEAD_WIDTH = 32
# For estimates: width of text tokens, and how many tensors of a level's size autograd keeps of it (counted).
TYPICAL_TEXT, KEPT_PER_PLACE = 2048, 13


@dataclass(frozen=True)
class FlowNetworkConfig:
    """The flow network's size.

    Attributes:
        channels: width of every level, each a multiple of 16; at least one level.
        seed: of its random start.
    """

    channels: tuple[int, ...] = (64, 128, 256, 256)
    seed: int = 0

    def __post_init__(self) -> None:
        widths = self.channels
        if isinstance(widths, (int, str)) or not widths or any(c < GROUPS or c % GROUPS for c in widths):
            raise TrainingError(
                f"The flow network's channels must be a list of multiples of {GROUPS}, such as 64, 128, 256, 256; not "
                f"{widths!r}."
            )
        object.__setattr__(self, "channels", tuple(widths))


class FlowNetwork(nn.Module):
    """f_φ(x, level, text) → [B].

    Args:
        latent_shape: [C, H, W].
        text_width: width D of the prompts' tokens; 0 = there are none, and `prompt_tokens` stand in for them.
        prompts: how many prompts there are; of use only where text_width is 0.
        scale: factor of the output.
    """

    def __init__(
        self,
        latent_shape: Sequence[int],
        config: FlowNetworkConfig,
        *,
        text_width: int,
        prompts: int,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        channels, height, width = latent_shape
        self.scale, self.flat = scale, height * width == 1
        # The same start whatever was drawn before; torch's own generator is left as it was.
        with torch.random.fork_rng([]):
            torch.manual_seed(config.seed)
            widths = config.channels
            tokens = text_width or widths[0]
            self.token_table = None if text_width else nn.Embedding(prompts, tokens)
            self.time = nn.Sequential(
                nn.Linear(widths[0], 4 * widths[0]), nn.SiLU(), nn.Linear(4 * widths[0], 4 * widths[0])
            )
            self.enter = self._convolution(channels, widths[0])
            levels, size = [], (height, width)
            for number, (inner, outer) in enumerate(zip((widths[0], *widths[:-1]), widths, strict=True)):
                attends = number < len(widths) - 1 or len(widths) == 1
                halves = max(size) > 1
                levels.append(
                    _Level(inner, outer, 4 * widths[0], tokens if attends else 0, flat=self.flat, halves=halves)
                )
                size = tuple((side + 1) // 2 for side in size)
            self.levels = nn.ModuleList(levels)
            self.leave = nn.Linear(widths[-1], 1)
            nn.init.zeros_(self.leave.weight)
            nn.init.zeros_(self.leave.bias)

    def _convolution(self, inner: int, outer: int) -> nn.Module:
        return nn.Conv2d(inner, outer, 1) if self.flat else nn.Conv2d(inner, outer, 3, padding=1)

    def prompt_tokens(self, indices: Sequence[int]) -> list[torch.Tensor]:
        """A learned token [1, D] for each prompt's number, where there is no text."""
        assert self.token_table is not None
        rows = torch.tensor(list(indices), device=self.token_table.weight.device)
        return list(self.token_table(rows)[:, None])

    def forward(
        self, x: torch.Tensor, level: torch.Tensor, text: Sequence[torch.Tensor], owners: torch.Tensor
    ) -> torch.Tensor:
        """
        Args:
            x: latents of about unit size [B, C, H, W].
            level: noise levels in the model's own time, 0 (least) … 1, [B].
            text: tokens of the prompts that occur, [L, D] each; their numbers L may differ.
            owners: which of these each sample has, integers [B].

        Returns:
            float32 [B].
        """
        with torch.autocast(x.device.type, enabled=False):
            tokens = pad_sequence([part.float().to(x.device) for part in text], batch_first=True)
            lengths = torch.tensor([len(part) for part in text], device=x.device)
            padding = torch.arange(tokens.shape[1], device=x.device) >= lengths[:, None]
            tokens, padding = tokens[owners], padding[owners]  # (B, L, D), (B, L)
            moment = self.time(_waves(level.float(), self.time[0].in_features))
            hidden = self.enter(x.float())
            for block in self.levels:
                hidden = block(hidden, moment, tokens, padding)
            return self.scale * self.leave(hidden.flatten(2).mean(2)).squeeze(1)


class _Level(nn.Module):
    """Residual block, cross-attention if there are tokens to look at, half the size."""

    def __init__(self, inner: int, outer: int, moment: int, tokens: int, *, flat: bool, halves: bool) -> None:
        super().__init__()
        kernel = {"kernel_size": 1} if flat else {"kernel_size": 3, "padding": 1}
        self.first = nn.Conv2d(inner, outer, **kernel)
        self.second = nn.Conv2d(outer, outer, **kernel)
        self.moment = nn.Linear(moment, outer)
        self.norms = nn.ModuleList(nn.Identity() if flat else nn.GroupNorm(GROUPS, width) for width in (inner, outer))
        self.skip = nn.Conv2d(inner, outer, 1) if inner != outer else nn.Identity()
        self.attention = _CrossAttention(outer, tokens) if tokens else None
        self.halve = nn.Conv2d(outer, outer, 3, stride=2, padding=1) if halves else nn.Identity()

    def forward(
        self, x: torch.Tensor, moment: torch.Tensor, tokens: torch.Tensor, padding: torch.Tensor
    ) -> torch.Tensor:
        act = nn.functional.silu
        hidden = self.first(act(self.norms[0](x))) + self.moment(act(moment))[..., None, None]
        hidden = self.skip(x) + self.second(act(self.norms[1](hidden)))
        if self.attention is not None:
            hidden = hidden + self.attention(hidden, tokens, padding)
        return self.halve(hidden)


class _CrossAttention(nn.Module):
    """What the places of a latent read from the prompt's tokens."""

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        heads = max(1, width // HEAD_WIDTH) if width % HEAD_WIDTH == 0 else 1
        self.attend = nn.MultiheadAttention(width, heads, kdim=tokens, vdim=tokens, batch_first=True)

    def forward(self, x: torch.Tensor, tokens: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        places = self.norm(x.flatten(2).transpose(1, 2))  # (B, H·W, C)
        read, _ = self.attend(places, tokens, tokens, key_padding_mask=padding, need_weights=False)
        return read.transpose(1, 2).reshape(x.shape)


def _waves(level: torch.Tensor, width: int) -> torch.Tensor:
    """Sines and cosines of 1000·level with wavelengths from 2π to 2π·10⁴, [B, width] (Vaswani et al. 2017)."""
    speed = torch.exp(torch.arange(width // 2, device=level.device) * (-math.log(10_000) / (width // 2)))
    angle = 1000 * level[:, None] * speed
    return torch.cat([angle.sin(), angle.cos()], 1)


def flow_bytes(config: FlowNetworkConfig, latent_shape: Sequence[int], *, states: int) -> int:
    """Bytes that learning with a flow network takes, about: its weights four times (gradients and AdamW's moments), and
    what autograd keeps of `states` latents at a time."""
    with torch.device("meta"):
        network = FlowNetwork(latent_shape, config, text_width=TYPICAL_TEXT, prompts=1)
    weights = sum(parameter.numel() for parameter in network.parameters())
    _, height, width = latent_shape
    kept = sum(c * -(-height // 2**level) * -(-width // 2**level) for level, c in enumerate(config.channels))
    return 4 * (4 * weights + states * KEPT_PER_PLACE * kept)
