"""Sums of LoRAs, and the distance between two, without ever building a layer's full matrix.

One layer's change of the base weights is ΔW = scale · up · down with scale = alpha / rank, `up` (out, r) and `down`
(r, in · kernel). A weighted sum of changes is again such a product:

    Σ wᵢ ΔWᵢ = [w₁ s₁ up₁ | w₂ s₂ up₂ | …] · [down₁ ; down₂ ; …]

so it is exact, with a rank that is the sum of the ranks ("rewarded soup", Ramé et al. 2023, for LoRAs). A lower rank is
the best approximation of that rank (Eckart and Young 1936), from two thin QR factorisations and the singular values
of the small matrix between them. A convolution (out, in, kh, kw) is the matrix (out, in · kh · kw); its `up` is 1 × 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..interfaces import TrainingError
from .files import HALVES

# By the beginning of a name's last parts: what else than a LoRA's halves a file may hold.
_FOREIGN = {
    ".dora_scale": "DoRA magnitudes",
    ".lora_magnitude_vector": "DoRA magnitudes",
    ".lora_mid.": "middle parts of LoCon",
    ".hada_": "LoHa",
    ".lokr_": "LoKr",
    ".oft_": "OFT",
    ".a1.": "GLoRA",
    ".a2.": "GLoRA",
    ".b1.": "GLoRA",
    ".b2.": "GLoRA",
    ".diff_b": "differences of biases",
    ".b_norm": "differences of biases",
    ".diff": "full differences of weights",
    ".w_norm": "full differences of weights",
    ".reshape_weight": "enlarged layers",
    ".set_weight": "replaced weights",
    "bundle_emb.": "embeddings",
}
# Of these nothing is lost where they hold nothing but zeros: they are added, and multiply nothing.
_ADDED = {"differences of biases", "full differences of weights"}
_OTHER = "others"
_GROUPS = (
    ("text encoder", r"lora_te|text_model|text_encoder|clip_[lg]"),
    ("cross-attention", r"attn2|cross_attn|cross_attention"),
    ("self-attention", r"attn|attention_to_|qkv"),
    ("feed-forward", r"(?:^|[._])(?:ff|mlp|feed_forward)(?:[._]|$)"),
    ("projection", r"proj_(?:in|out)"),
    ("timestep", r"emb_layers|time_emb|time_embed|label_emb|modulation|[._]mod[._]"),
    ("convolution", r"resnets|in_layers|out_layers|skip_connection|conv|samplers|_op$"),
)


@dataclass(frozen=True)
class Layer:
    """One layer's change, ΔW = scale · up · down.

    Attributes:
        up: (out, r), or (out, r, 1, 1) of a convolution.
        down: (r, in), or (r, in, kh, kw) of a convolution.
        scale: alpha / r.
    """

    up: torch.Tensor
    down: torch.Tensor
    scale: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of ΔW: (out, in) or (out, in, kh, kw)."""
        return (self.up.shape[0], *self.down.shape[1:])

    def matrices(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`up` with the scale in it (out, r) and `down` (r, in · kernel), float64: sums of squares lose few digits."""
        return self.scale * self.up.flatten(1).double(), self.down.flatten(1).double()


def layers_of(tensors: Mapping[str, torch.Tensor], name: str = "The LoRA") -> dict[str, Layer]:
    """The layers of a LoRA by their names in the file.

    Args:
        tensors: as in a file, or the host's LORA_MODEL; kohya's or peft's names for the two halves.
        name: of the LoRA, for errors.

    Raises:
        TrainingError: it holds something else that acts, which would be lost; lists all of it. Or a half is missing, or
            shapes do not fit.
    """
    found: dict[str, dict[str, torch.Tensor]] = {}
    lost: dict[str, list[str]] = {}
    for key, value in tensors.items():
        layer, part = _part(key)
        if part:
            found.setdefault(layer, {})[part] = value
            continue
        kind = next((kind for word, kind in _FOREIGN.items() if word in key), _OTHER)
        if kind not in (*_ADDED, _OTHER) or value.count_nonzero():
            lost.setdefault(kind, []).append(key)
    if lost and not found and lost.keys() <= _ADDED:
        raise TrainingError(
            f"{name} holds whole weights instead of a LoRA's two thin matrices: {_list_of(lost)}. They cannot be "
            "merged or compared. Use Load LoRA for it as it is, or choose a LoRA that was trained as low rank."
        )
    if lost and (found or lost.keys() - {_OTHER}):
        raise TrainingError(
            f"{name} holds more than a plain LoRA, and merging or comparing would lose it: {_list_of(lost)}. Use Load "
            "LoRA for it as it is, or choose a plain LoRA."
        )
    if not found:
        raise TrainingError(f"{name} holds no LoRA layers. Choose a LoRA file.")
    return {key: _layer(parts, key, name) for key, parts in found.items()}


def _list_of(lost: Mapping[str, Sequence[str]]) -> str:
    """How many tensors of every kind, and the first of them by name."""
    told = []
    for kind, keys in lost.items():
        named = ", ".join(keys[:2]) + (", …" if len(keys) > 2 else "")
        told.append(f"{len(keys)} tensor{'' if len(keys) == 1 else 's'} of {kind} ({named})")
    return "; ".join(told)


def _part(key: str) -> tuple[str, str]:
    for up, down in HALVES:
        if key.endswith(up):
            return key.removesuffix(up), "up"
        if key.endswith(down):
            return key.removesuffix(down), "down"
    return (key.removesuffix(".alpha"), "alpha") if key.endswith(".alpha") else (key, "")


def _layer(parts: Mapping[str, torch.Tensor], key: str, name: str) -> Layer:
    if "up" not in parts or "down" not in parts:
        raise TrainingError(
            f"{name} is incomplete: {key} lacks one of its two matrices. Choose another copy of the file."
        )
    up, down = parts["up"], parts["down"]
    if up.ndim < 2 or down.ndim < 2 or up.flatten(1).shape[1] != down.shape[0]:
        raise TrainingError(f"{name} is damaged: {key} has up {tuple(up.shape)} and down {tuple(down.shape)}.")
    # Without an alpha the host applies the product as it is.
    alpha = float(parts["alpha"]) if "alpha" in parts else float(down.shape[0])
    return Layer(up, down, alpha / down.shape[0])


def tensors_of(layers: Mapping[str, Layer]) -> dict[str, torch.Tensor]:
    """The inverse of `layers_of`, with kohya's names."""
    tensors: dict[str, torch.Tensor] = {}
    for key, layer in layers.items():
        tensors[f"{key}.lora_up.weight"] = layer.up.contiguous()
        tensors[f"{key}.lora_down.weight"] = layer.down.contiguous()
        tensors[f"{key}.alpha"] = torch.tensor(layer.scale * layer.rank, dtype=torch.float32)
    return tensors


# ---- merging ----

# ‖sum‖ / √Σ‖part‖² below which nothing is left of the parts but what rounding to half precision leaves. Ours.
_CANCELLED = 1e-3


class Merged(NamedTuple):
    """A weighted sum of LoRAs.

    Attributes:
        layers: the sum, by the layers' names in the files.
        error: ‖sum − layers‖ / ‖sum‖ over all layers (Frobenius); 0 if the rank was not lowered.
        exact_rank: the largest rank that a layer has in the exact sum.
    """

    layers: dict[str, Layer]
    error: float
    exact_rank: int


def merge(
    loras: Sequence[Mapping[str, Layer]],
    weights: Sequence[float],
    *,
    rank: int = 0,
    names: Sequence[str] = (),
    on_layer: Callable[[int, int], None] = lambda done, total: None,
) -> Merged:
    """Σ weightᵢ · LoRAᵢ; a layer that only some of them have is changed by those alone.

    Args:
        loras: from `layers_of`.
        weights: one per LoRA; any sign, not zero.
        rank: the largest that a layer may have; 0 keeps the sum exact.
        names: of the LoRAs, for errors.
        on_layer: called with (done, total) before the first layer and after each; may raise to cancel.

    Raises:
        TrainingError: nothing to merge, a weight that is zero or not finite, LoRAs of different networks, or LoRAs that
            cancel each other out.
    """
    names = list(names) or [f"LoRA {number}" for number in range(1, len(loras) + 1)]
    if not loras or len(loras) != len(weights):
        raise TrainingError(f"There are {len(loras)} LoRAs and {len(weights)} weights; each needs one.")
    for name, weight in zip(names, weights, strict=True):
        if not math.isfinite(weight) or weight == 0:
            raise TrainingError(f"The weight of {name} is {weight}; use any other number, or leave that LoRA out.")
    if rank < 0:
        raise TrainingError(f"The rank is {rank}; use 0 for the exact sum, or the rank the merged LoRA should have.")
    _check_names(loras, names)
    keys = list(dict.fromkeys(key for lora in loras for key in lora))
    result, lost, whole, parts, exact_rank = {}, 0.0, 0.0, 0.0, 0
    on_layer(0, len(keys))
    for done, key in enumerate(keys, 1):
        holders = [index for index, lora in enumerate(loras) if key in lora]
        _check_shapes([loras[index][key] for index in holders], [names[index] for index in holders], key)
        total = concatenated([loras[index][key] for index in holders], [weights[index] for index in holders])
        exact_rank = max(exact_rank, total.rank)
        parts += sum(weights[index] ** 2 * squared_norm(loras[index][key]) for index in holders)
        if rank and total.rank > rank:
            total, values = reduced(total, rank)
            lost += float(values[rank:].square().sum())
            whole += float(values.square().sum())
        else:
            whole += squared_norm(total)
        result[key] = total
        on_layer(done, len(keys))
    if whole < _CANCELLED**2 * parts:
        raise TrainingError(
            f"{' and '.join(names)} cancel each other out with the weights {', '.join(f'{w:g}' for w in weights)}: the "
            "merged LoRA would change nothing. Change a weight."
        )
    return Merged(result, math.sqrt(lost / whole) if whole > 0 else 0.0, exact_rank)


def concatenated(layers: Sequence[Layer], weights: Sequence[float]) -> Layer:
    """The exact weighted sum, its rank the sum of the ranks; one layer of weight 1 comes back as it is."""
    scale = layers[0].scale or 1.0
    dtype = layers[0].up.dtype
    for layer in layers:
        dtype = torch.promote_types(dtype, torch.promote_types(layer.up.dtype, layer.down.dtype))
    ups = [
        (layer.up.double() * (weight * layer.scale / scale)).to(dtype)
        for layer, weight in zip(layers, weights, strict=True)
    ]
    return Layer(torch.cat(ups, 1), torch.cat([layer.down.to(dtype) for layer in layers]), scale)


def reduced(layer: Layer, rank: int) -> tuple[Layer, torch.Tensor]:
    """The best approximation of a lower rank.

    up = Q₁ R₁ and downᵀ = Q₂ R₂, so the singular values of up · down are those of the small R₁ R₂ᵀ (r, r). They are
    shared out evenly between the halves, as their square roots.

    Args:
        rank: 1 … the layer's own.

    Returns:
        The layer, and all singular values of the original, largest first. The error is the root of the squares of those
        that were left out.
    """
    up, down = layer.matrices()
    left, left_small = torch.linalg.qr(up)
    right, right_small = torch.linalg.qr(down.T)
    u, values, vh = torch.linalg.svd(left_small @ right_small.T, full_matrices=False)
    root = values[:rank].sqrt()
    dtype = layer.up.dtype
    new_up = (left @ (u[:, :rank] * root)).to(dtype)
    new_down = ((root[:, None] * vh[:rank]) @ right.T).to(dtype)
    kept = new_down.shape[0]
    return (
        Layer(
            new_up.reshape(layer.up.shape[0], kept, *layer.up.shape[2:]),
            new_down.reshape(kept, *layer.down.shape[1:]),
            1.0,
        ),
        values,
    )


def _check_names(loras: Sequence[Mapping[str, Layer]], names: Sequence[str]) -> None:
    """Two tools may call one layer by two names; the host would then apply only one of them."""
    first = _dialect(loras[0])
    for lora, name in zip(loras[1:], names[1:], strict=True):
        for ours, theirs in zip(first, _dialect(lora), strict=True):
            if ours and theirs and not ours & theirs:
                raise TrainingError(
                    f"{names[0]} and {name} name the layers of the network differently ({next(iter(loras[0]))} and "
                    f"{next(iter(lora))}): they are for different architectures, or were made by different tools. "
                    "Use only LoRAs of one kind."
                )


def _dialect(lora: Mapping[str, Layer]) -> tuple[set[str], set[str]]:
    """How a LoRA names the parts of the network: its prefixes, and diffusers' or original names of U-Net blocks."""
    network = [key for key in lora if not re.match(_GROUPS[0][1], key)]
    prefixes = {re.match(r"lora_unet_|lycoris_|lora_|\w+\.|", key)[0] for key in network}
    styles = {
        name
        for name, pattern in (
            ("original", r"(?:in|out)put_blocks|middle_block"),
            ("diffusers", r"(?:down|up|mid)_block"),
        )
        if any(re.search(pattern, key) for key in network)
    }
    return prefixes, styles


def _check_shapes(layers: Sequence[Layer], names: Sequence[str], key: str) -> None:
    for layer, name in zip(layers[1:], names[1:], strict=True):
        if layer.shape != layers[0].shape:
            raise TrainingError(
                f"{names[0]} and {name} belong to different architectures: {key} changes a layer of shape "
                f"{layers[0].shape} in the one and {layer.shape} in the other. Merge only LoRAs of the same base model."
            )


# ---- distances ----


def inner_product(a: Layer, b: Layer) -> float:
    """⟨ΔWa, ΔWb⟩ = tr((upaᵀ upb)(downb downaᵀ)), from matrices no larger than rank × rank."""
    up_a, down_a = a.matrices()
    up_b, down_b = b.matrices()
    return float(((up_a.T @ up_b) * (down_a @ down_b.T)).sum())


def squared_norm(layer: Layer) -> float:
    """‖ΔW‖² (Frobenius)."""
    return max(0.0, inner_product(layer, layer))


class Distance(NamedTuple):
    """How two LoRAs differ in a group of layers.

    Attributes:
        group: e.g. "cross-attention"; "all" for the whole.
        layers: how many that at least one of them has.
        norm_a, norm_b: ‖ΔW‖ of each.
        relative: ‖ΔWa − ΔWb‖ / max(‖ΔWa‖, ‖ΔWb‖): 0 = the same, 1 = as far as from nothing, 2 = opposite.
        cosine: 1 = the same direction, 0 = unrelated, −1 = opposite; None if one of them changes nothing here.
    """

    group: str
    layers: int
    norm_a: float
    norm_b: float
    relative: float
    cosine: float | None


def distances(a: Mapping[str, Layer], b: Mapping[str, Layer], *, names: tuple[str, str] = ("A", "B")) -> list[Distance]:
    """How far two LoRAs lie apart: over all layers first, then per group, the largest group first.

    Raises:
        TrainingError: they are of different architectures.
    """
    _check_names((a, b), names)
    sums: dict[str, list[float]] = {}
    for key in dict.fromkeys([*a, *b]):
        if key in a and key in b:
            _check_shapes([a[key], b[key]], names, key)
        figures = (
            1.0,
            squared_norm(a[key]) if key in a else 0.0,
            squared_norm(b[key]) if key in b else 0.0,
            inner_product(a[key], b[key]) if key in a and key in b else 0.0,
        )
        for group in ("all", group_of(key)):
            sums[group] = [x + y for x, y in zip(sums.get(group, [0.0] * 4), figures, strict=True)]
    found = [_distance(group, *figures) for group, figures in sums.items()]
    return sorted(found, key=lambda entry: (entry.group != "all", -entry.layers, entry.group))


def _distance(group: str, layers: float, aa: float, bb: float, ab: float) -> Distance:
    apart = math.sqrt(max(0.0, aa + bb - 2 * ab))
    largest = math.sqrt(max(aa, bb))
    cosine = max(-1.0, min(1.0, ab / math.sqrt(aa * bb))) if aa > 0 and bb > 0 else None
    return Distance(group, int(layers), math.sqrt(aa), math.sqrt(bb), apart / largest if largest else 0.0, cosine)


def group_of(key: str) -> str:
    """The kind of layer that a name in a LoRA file stands for, in the words of LoRA Settings; "other" if unknown."""
    return next((group for group, pattern in _GROUPS if re.search(pattern, key)), "other")
