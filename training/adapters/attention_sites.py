"""Where a network listens to its prompt: the attention layers beside which a user adapter can listen to a user.

A site is found by what its layers are called, which diffusers and the host have in common:

| network                       | queries                    | output                  | text keys and values         |
| ----------------------------- | -------------------------- | ----------------------- | ---------------------------- |
| U-Net, both                   | attn2.to_q                 | attn2.to_out.0          | attn2.to_k, attn2.to_v       |
| joint attention, diffusers    | attn.to_q                  | attn.to_out.0           | attn.add_k_proj, .add_v_proj |
| joint attention, the host's   | x_block.attn.qkv, first ⅓  | x_block.attn.proj       | context_block.attn.qkv       |
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn

from ..interfaces import TrainingError

CROSS = re.compile(r"(?:.*\.)?(?:attn2|cross_attn|crossattn|cross_attention)")


@dataclass(frozen=True)
class Site:
    """One attention over the text, or over picture and text together.

    Attributes:
        path: of the attention within the network.
        query: the layer whose output begins with the picture's queries.
        output: the layer whose input is what the picture's queries have attended to.
        norm: of the queries of each head; None where there is none.
        heads: of the attention. inner: width of queries, keys and values.
        key_layer, value_layer: project the text.
        fused: they are one layer, for queries, keys and values.
    """

    path: str
    query: nn.Module
    output: nn.Module
    norm: nn.Module | None
    heads: int
    inner: int
    key_layer: nn.Module
    value_layer: nn.Module
    fused: bool = False

    @property
    def context(self) -> int:
        """Width of the text tokens."""
        return self.key_layer.in_features

    def text_weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of the text's key and value projections in float32, each [inner, context].

        Raises:
            TrainingError: the weights are stored in a form that cannot be read as a matrix.
        """
        found = []
        for part, layer in enumerate((self.key_layer, self.value_layer), 1):
            weight = layer.weight.detach()
            if weight.ndim != 2 or weight.shape[1] != self.context or weight.is_meta:
                raise TrainingError(
                    f"The weights of {self.path} are {tuple(weight.shape)} of {weight.dtype}, which is no matrix of "
                    f"width {self.context}. Load the model in 16 or 32 bit to begin a user adapter on it."
                )
            rows = slice(part * self.inner, (part + 1) * self.inner) if self.fused else slice(None)
            found.append(weight[rows].to("cpu", torch.float32, copy=True))
        return found[0], found[1]


def attention_sites(module: nn.Module) -> list[Site]:
    """Every site of a network, in its own order.

    Raises:
        TrainingError: there is none; a user adapter would do nothing.
    """
    joint = [site for path, part in module.named_modules() if (site := _joint(path, part))]
    sites = joint or _cross(module)
    if not sites:
        raise TrainingError(
            f"This network ({type(module).__name__}) has no attention over its text that is known here, so a user "
            "adapter would do nothing. Choose a model of the Stable Diffusion family (1.5, 2, XL, 3)."
        )
    return sites


def _cross(module: nn.Module) -> list[Site]:
    """The cross-attentions of a U-Net: those that are called so, or whose keys are of another width than the queries;
    and that share the width of the context."""
    layers = {path: part for path, part in module.named_modules() if _has(part, "to_q", "to_k", "to_v", "to_out")}
    found = {
        path: part
        for path, part in layers.items()
        if CROSS.fullmatch(path) or part.to_k.in_features != part.to_q.in_features
    }
    if not found:
        return []
    context = Counter(part.to_k.in_features for part in found.values()).most_common(1)[0][0]
    return [
        Site(path, part.to_q, part.to_out[0], getattr(part, "norm_q", None), part.heads, part.to_q.out_features,
             part.to_k, part.to_v)
        for path, part in found.items()
        if part.to_k.in_features == context
    ]  # fmt: skip


def _joint(path: str, part: nn.Module) -> Site | None:
    """The site of a joint attention, if the part is one: diffusers' attention, or the host's block of two streams."""
    if _has(part, "to_q", "to_out", "add_k_proj", "add_v_proj"):
        inner = part.to_q.out_features
        norm = getattr(part, "norm_q", None)
        return Site(path, part.to_q, part.to_out[0], norm, part.heads, inner, part.add_k_proj, part.add_v_proj)
    if not _has(part, "x_block", "context_block") or not _has(part.x_block.attn, "qkv", "proj"):
        return None
    picture, text = part.x_block.attn, part.context_block.attn.qkv
    inner = picture.qkv.out_features // 3
    norm = None if isinstance(picture.ln_q, nn.Identity) else picture.ln_q
    own = f"{path}.x_block.attn"
    return Site(own, picture.qkv, picture.proj, norm, picture.num_heads, inner, text, text, fused=True)


def _has(part: nn.Module, *names: str) -> bool:
    return all(getattr(part, name, None) is not None for name in names)
