"""Merging and comparing LoRAs, against the full matrices that the code itself never builds."""

from __future__ import annotations

import math

import pytest
import torch

from attune.training.adapters.merge import (
    Layer,
    concatenated,
    distances,
    group_of,
    inner_product,
    layers_of,
    merge,
    reduced,
    squared_norm,
    tensors_of,
)
from attune.training.interfaces import TrainingError

QUERY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_q"
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"
FEED = "lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_ff_net_2"


def linear(seed: int, rank: int = 3, *, alpha: float | None = None, out: int = 7, width: int = 5) -> Layer:
    generator = torch.Generator().manual_seed(seed)
    up, down = (torch.randn(*shape, generator=generator) for shape in ((out, rank), (rank, width)))
    return Layer(up, down, (rank if alpha is None else alpha) / rank)


def convolution(seed: int, rank: int = 2, *, alpha: float = 4.0) -> Layer:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((6, rank, 1, 1), (rank, 4, 3, 3))
    up, down = (torch.randn(*shape, generator=generator) for shape in shapes)
    return Layer(up, down, alpha / rank)


def full(layer: Layer) -> torch.Tensor:
    """ΔW as the host builds it: scale · up · down, as a matrix (out, in · kernel)."""
    return layer.scale * layer.up.flatten(1).double() @ layer.down.flatten(1).double()


def test_one_lora_of_weight_one_comes_back_bit_for_bit():
    layers = {QUERY: linear(1, alpha=1.5), CONV: convolution(2)}
    merged = merge([layers], [1.0])
    assert merged.error == 0.0 and merged.exact_rank == 3
    before, after = tensors_of(layers), tensors_of(merged.layers)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert layers_of(after)[QUERY].scale == 0.5


@pytest.mark.parametrize("make", [linear, convolution])
def test_the_sum_of_changes_is_the_weighted_sum(make):
    """Ranks 2, 3 and 4 and three different alphas: the merged rank is 9, and W = 0.6 W₁ − 0.3 W₂ + 1.7 W₃."""
    loras = [{QUERY: make(seed, rank, alpha=alpha)} for seed, rank, alpha in ((1, 2, 8.0), (2, 3, 1.0), (3, 4, 4.0))]
    weights = [0.6, -0.3, 1.7]
    merged = merge(loras, weights)
    expected = sum(weight * full(lora[QUERY]) for weight, lora in zip(weights, loras, strict=True))
    assert merged.layers[QUERY].rank == merged.exact_rank == 9
    torch.testing.assert_close(full(merged.layers[QUERY]), expected, rtol=1e-5, atol=1e-5)
    assert merged.layers[QUERY].shape == loras[0][QUERY].shape
    stored = layers_of(tensors_of(merged.layers))
    torch.testing.assert_close(full(stored[QUERY]), expected, rtol=1e-5, atol=1e-5)


def test_a_layer_that_one_of_them_has_is_changed_by_that_one_alone():
    a, b = {QUERY: linear(1), CONV: convolution(3)}, {QUERY: linear(2), FEED: linear(4)}
    merged = merge([a, b], [0.5, 2.0]).layers
    assert merged.keys() == {QUERY, CONV, FEED}
    torch.testing.assert_close(full(merged[CONV]), 0.5 * full(a[CONV]))
    torch.testing.assert_close(full(merged[FEED]), 2.0 * full(b[FEED]))


@pytest.mark.parametrize("make", [linear, convolution])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_what_a_lower_rank_loses_are_the_last_singular_values(make, rank: int):
    """Eckart and Young: the least error of rank k is √(σ²ₖ₊₁ + …), here of the full matrix's own singular values."""
    total = concatenated([make(1), make(2), make(5)], [1.0, 0.5, 0.8])
    exact = torch.linalg.svdvals(full(total))
    less, values = reduced(total, rank)
    assert less.rank == rank and less.shape == total.shape
    torch.testing.assert_close(values[: len(exact)], exact[: len(values)], rtol=1e-9, atol=1e-9)
    lost = torch.linalg.matrix_norm(full(total) - full(less))
    torch.testing.assert_close(lost, exact[rank:].square().sum().sqrt(), rtol=1e-4, atol=1e-5)


def test_the_reported_error_is_that_of_all_layers_together():
    loras = [{QUERY: linear(1), CONV: convolution(2)}, {QUERY: linear(3), CONV: convolution(4)}]
    exact, less = merge(loras, [1.0, 1.0]).layers, merge(loras, [1.0, 1.0], rank=2)
    lost = sum(float((full(exact[key]) - full(less.layers[key])).square().sum()) for key in exact)
    whole = sum(float(full(exact[key]).square().sum()) for key in exact)
    assert less.error == pytest.approx(math.sqrt(lost / whole), rel=1e-4)
    assert 0.05 < less.error < 1.0
    assert (less.exact_rank, less.layers[QUERY].rank, less.layers[CONV].rank) == (6, 2, 2)
    assert merge(loras, [1.0, 1.0], rank=6).error == 0.0


def test_a_sum_of_half_and_half_of_the_same_is_the_same_and_loses_nothing_at_its_rank():
    lora = {QUERY: linear(1, alpha=2.0)}
    merged = merge([lora, lora], [0.5, 0.5], rank=3)
    assert merged.error < 1e-7
    torch.testing.assert_close(full(merged.layers[QUERY]), full(lora[QUERY]), rtol=1e-5, atol=1e-5)


def test_half_precision_stays_and_mixed_precision_takes_the_finer():
    half = {QUERY: Layer(linear(1).up.half(), linear(1).down.half(), 1.0)}
    assert merge([half, half], [0.5, 0.5]).layers[QUERY].up.dtype == torch.float16
    mixed = merge([half, {QUERY: linear(2)}], [0.5, 0.5]).layers[QUERY]
    assert (mixed.up.dtype, mixed.down.dtype) == (torch.float32, torch.float32)


def test_pefts_names_and_a_missing_alpha_are_understood():
    layer = linear(1)
    peft = {f"transformer.blocks.0.attn.to_q.lora_{half}.weight": value
            for half, value in (("B", layer.up), ("A", layer.down))}  # fmt: skip
    (found,) = layers_of(peft).values()
    assert found.scale == 1.0
    torch.testing.assert_close(full(found), full(layer))


@pytest.mark.parametrize(
    ("loras", "weights", "told"),
    [
        ([], [], "0 LoRAs and 0 weights"),
        ([{QUERY: linear(1)}], [0.0], "weight of LoRA 1 is 0"),
        ([{QUERY: linear(1)}], [float("nan")], "weight of LoRA 1 is nan"),
        ([{QUERY: linear(1)}, {QUERY: linear(2, out=8)}], [1.0, 1.0], r"\(7, 5\) in the one and \(8, 5\)"),
        ([{QUERY: linear(1)}, {QUERY: convolution(1)}], [1.0, 1.0], "different architectures"),
        (
            [{QUERY: linear(1)}, {"lora_unet_input_blocks_1_1_attn2_to_q": linear(2)}],
            [1.0, 1.0],
            "name the layers of the network differently",
        ),
        ([{QUERY: linear(1)}, {"transformer.blocks.0.attn": linear(2)}], [1.0, 1.0], "made by different tools"),
    ],
)
def test_what_cannot_be_merged_says_why(loras, weights, told: str):
    with pytest.raises(TrainingError, match=told):
        merge(loras, weights)


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("weights", [(1.0, -1.0), (0.3, 0.7, -1.0)])
def test_what_cancels_out_is_refused(weights, dtype, rank):
    layer = linear(1)
    same = {QUERY: Layer(layer.up.to(dtype), layer.down.to(dtype), layer.scale)}
    with pytest.raises(TrainingError, match=r"LoRA 1 and LoRA 2.* cancel each other out.*Change a weight"):
        merge([same] * len(weights), weights, rank=rank)
    merge([same] * len(weights), [*weights[:-1], -0.9], rank=rank)


def test_loras_that_do_nothing_yet_do_not_cancel():
    fresh = linear(1)
    merge([{QUERY: Layer(torch.zeros_like(fresh.up), fresh.down, fresh.scale)}] * 2, [0.5, 0.5])


def test_a_negative_rank_is_refused():
    with pytest.raises(TrainingError, match="rank is -1; use 0"):
        merge([{QUERY: linear(1)}], [1.0], rank=-1)


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({}, "holds no LoRA layers"),
        ({"model.weight": torch.zeros(2, 2)}, "holds no LoRA layers"),
        ({"a.lora_up.weight": torch.zeros(2, 2)}, "lacks one of its two matrices"),
        ({"a.lora_up.weight": torch.zeros(2, 3), "a.lora_down.weight": torch.zeros(2, 2)}, "damaged"),
        ({"a.hada_w1_a": torch.zeros(2, 2)}, "LoHa"),
        ({"a.dora_scale": torch.zeros(2, 2)}, "DoRA"),
    ],
)
def test_what_is_no_plain_lora_is_named(tensors, told: str):
    with pytest.raises(TrainingError, match=told):
        layers_of(tensors, "This file")


def test_what_would_be_lost_is_counted_and_named():
    more = {
        "a.diff_b": torch.ones(2), "b.diff_b": torch.ones(2), "c.diff_b": torch.ones(2), "n.w_norm": torch.ones(2),
        "a.lora_up.bias": torch.ones(2), "a.dora_scale": torch.zeros(2),
    }  # fmt: skip
    with pytest.raises(TrainingError) as caught:
        layers_of(tensors_of({QUERY: linear(1)}) | more, "This file")
    told = str(caught.value)
    assert told.startswith("This file holds more than a plain LoRA, and merging or comparing would lose it: ")
    assert "3 tensors of differences of biases (a.diff_b, b.diff_b, …)" in told
    assert "1 tensor of full differences of weights (n.w_norm)" in told
    assert "1 tensor of others (a.lora_up.bias)" in told
    assert "1 tensor of DoRA magnitudes (a.dora_scale)" in told


def test_what_adds_nothing_is_not_missed():
    layers = {QUERY: linear(1)}
    zeros = {"a.diff_b": torch.zeros(2), "b.diff": torch.zeros(2, 2), "a.lora_up.bias": torch.zeros(2)}
    assert layers_of(tensors_of(layers) | zeros).keys() == layers.keys()


def test_layers_of_different_targets_are_no_different_dialect():
    """One LoRA of attention only, the other of convolutions and the timestep only, from the same tool."""
    merged = merge([{QUERY: linear(1)}, {"lora_unet_time_embed_0": linear(2)}], [1.0, 1.0])
    assert len(merged.layers) == 2


# ---- distances ----


@pytest.mark.parametrize("make", [linear, convolution])
def test_inner_products_equal_those_of_the_full_matrices(make):
    a, b = make(1), make(2, 4, alpha=2.0)
    assert inner_product(a, b) == pytest.approx(float((full(a) * full(b)).sum()), rel=1e-10)
    assert squared_norm(a) == pytest.approx(float(full(a).square().sum()), rel=1e-10)


def test_distances_of_the_same_the_opposite_and_nothing():
    a = {QUERY: linear(1), CONV: convolution(2)}
    opposite = {key: Layer(-layer.up, layer.down, layer.scale) for key, layer in a.items()}
    doubled = {key: Layer(2 * layer.up, layer.down, layer.scale) for key, layer in a.items()}
    same = distances(a, a)[0]
    assert (same.group, same.layers, same.relative) == ("all", 2, 0.0)
    assert same.cosine == pytest.approx(1.0)
    assert distances(a, opposite)[0].relative == pytest.approx(2.0)
    assert distances(a, opposite)[0].cosine == pytest.approx(-1.0)
    assert distances(a, doubled)[0].relative == pytest.approx(0.5)
    apart = {entry.group: entry for entry in distances({QUERY: linear(1)}, {CONV: convolution(2)})}
    assert apart.keys() == {"all", "cross-attention", "convolution"}
    assert apart["convolution"].cosine is None and apart["convolution"].norm_a == 0.0
    assert apart["convolution"].relative == pytest.approx(1.0)


def test_distances_per_group_equal_those_of_the_full_matrices():
    a = {QUERY: linear(1), FEED: linear(2), CONV: convolution(3)}
    b = {QUERY: linear(4, 5, alpha=1.0), FEED: linear(5), CONV: convolution(6)}
    for entry in distances(a, b):
        keys = [key for key in a if entry.group in ("all", group_of(key))]
        left = torch.cat([full(a[key]).flatten() for key in keys])
        right = torch.cat([full(b[key]).flatten() for key in keys])
        assert entry.layers == len(keys)
        assert entry.cosine == pytest.approx(float(left @ right / left.norm() / right.norm()), rel=1e-9)
        larger = max(float(left.norm()), float(right.norm()))
        assert entry.relative == pytest.approx(float((left - right).norm()) / larger, rel=1e-9)
    assert distances(a, b)[0].group == "all"


@pytest.mark.parametrize(
    ("key", "group"),
    [
        (QUERY, "cross-attention"),
        (QUERY.replace("attn2", "attn1"), "self-attention"),
        (FEED, "feed-forward"),
        (CONV, "convolution"),
        ("lora_unet_down_blocks_0_attentions_0_proj_in", "projection"),
        ("lora_unet_down_blocks_0_resnets_0_time_emb_proj", "timestep"),
        ("lora_unet_down_blocks_0_downsamplers_0_conv", "convolution"),
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_ff_net_0_proj", "feed-forward"),
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", "text encoder"),
        ("lora_unet_double_blocks_0_img_attn_qkv", "self-attention"),
        ("lora_unet_double_blocks_0_img_mlp_0", "feed-forward"),
        ("lora_unet_final_layer_linear", "other"),
    ],
)
def test_groups_are_those_of_lora_settings(key: str, group: str):
    assert group_of(key) == group
