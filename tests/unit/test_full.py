"""Whole weights as adapters: what they compute and learn, where they attach, and their files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from attune.nodes.catalogue.lora_files import read_facts
from attune.tests import small_unets
from attune.tests.small_unets import Attention, CastLinear, LayerDenoiser, Linear, inputs, picture, tiny_denoiser
from attune.training.adapters import (
    LoraConfig,
    LoraMetadata,
    Policy,
    load_lora,
    lora_file_tensors,
    module_tensors,
    quantised,
    save_lora,
    weights_id,
)
from attune.training.adapters.full import FullLayer
from attune.training.adapters.merge import layers_of
from attune.training.checkpointing import checkpointing
from attune.training.denoisers import DiffusersDenoiser
from attune.training.interfaces import TrainingError

ALL = LoraConfig(kind="full", targets=("everything",))
LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
WITH_BIAS = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
STRIDED = "down_blocks.0.downsamplers.0.conv"
METADATA = LoraMetadata(title="Whole")
pytestmark = pytest.mark.usefixtures("one_thread")
# Whole weights move less than the matrices of a LoRA.
disturb = partial(small_unets.disturb, deviation=0.02)


@pytest.fixture
def denoiser() -> DiffusersDenoiser:
    return tiny_denoiser()


def merged(policy: Policy, role: str = "policy") -> DiffusersDenoiser:
    """The network as a plain one, with a role's differences in its own weights."""
    plain = tiny_denoiser()
    tensors = policy.tensors(role)
    with torch.no_grad():
        for path in policy.paths:
            layer = plain.module.get_submodule(path)
            layer.weight += tensors[f"{path}.diff"]
            if layer.bias is not None:
                layer.bias += tensors[f"{path}.diff_b"]
    return plain


# ---- what it computes ----


def test_it_begins_as_the_base_to_the_last_bit(denoiser: DiffusersDenoiser) -> None:
    with torch.no_grad():
        before = denoiser(*inputs())
        with Policy(denoiser, ALL) as policy:
            assert torch.equal(policy(*inputs()), before)
            assert not any(value.any() for value in policy.tensors().values())


def test_a_layer_computes_with_the_sum(denoiser: DiffusersDenoiser) -> None:
    """y = (W + ΔW)·x + (b + Δb): without bias, with one, and as a strided, padded convolution."""
    with Policy(denoiser, ALL) as policy, torch.no_grad():
        disturb(policy)
        tensors = policy.tensors()
        for path in (LINEAR, WITH_BIAS, STRIDED):
            layer = denoiser.module.get_submodule(path)
            base = layer.base_layer
            assert (f"{path}.diff_b" in tensors) is (base.bias is not None)
            weight = base.weight + tensors[f"{path}.diff"]
            bias = None if base.bias is None else base.bias + tensors[f"{path}.diff_b"]
            shape = (2, weight.shape[1], 8, 8) if path == STRIDED else (3, 5, weight.shape[1])
            x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
            if path == STRIDED:
                expected = functional.conv2d(x, weight, bias, stride=2, padding=1)
            else:
                expected = functional.linear(x, weight, bias)
            assert not torch.allclose(layer(x), base(x), atol=1e-3)
            torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


def test_its_gradients_are_those_of_the_networks_own_weights(denoiser: DiffusersDenoiser) -> None:
    """Of every layer, weight and bias, at a point other than zero."""
    with Policy(denoiser, ALL) as policy:
        disturb(policy)
        plain = merged(policy)
        policy(*inputs()).square().mean().backward()
        plain(*inputs()).square().mean().backward()
        named = policy.named_parameters()
        found = 0
        for path in policy.paths:
            layer = plain.module.get_submodule(path)
            for name, ending in (("weight", "diff"), ("bias", "diff_b")):
                value = getattr(layer, name)
                if value is not None and value.grad is not None:
                    expected = value.grad
                    scale = float(expected.abs().max())
                    torch.testing.assert_close(
                        named[f"{path}.{ending}"].grad, expected, rtol=1e-3, atol=1e-4 * scale + 1e-9
                    )
                    found += 1
    assert found > 60


def test_checkpointed_gradients_are_equal(denoiser: DiffusersDenoiser) -> None:
    def gradients(on: bool) -> list[torch.Tensor]:
        with Policy(denoiser, LoraConfig(kind="full", targets=("everything",), dropout=0.3)) as policy:
            disturb(policy)
            policy.training_mode(True)
            torch.manual_seed(7)
            if on:
                with checkpointing(policy.module, state=policy.as_now):
                    loss = policy(*inputs()).square().mean()
                    with policy.role(None):
                        loss.backward()
            else:
                policy(*inputs()).square().mean().backward()
            return [p.grad for p in policy.parameters()]

    plain, again = gradients(False), gradients(True)
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))


def test_a_layer_of_16_bits_learns_what_16_bits_would_round_away() -> None:
    base = nn.ModuleDict({"attn1": Attention(CastLinear(6, 4).half())})
    with Policy(LayerDenoiser(base), LoraConfig(kind="full")) as policy:
        assert {p.dtype for p in policy.parameters()} == {torch.float32}
        weight, bias = policy.parameters()
        layer = base["attn1"].to_q
        with torch.no_grad():
            weight.fill_(2.0**-14)
            layer.base_layer.weight.fill_(0.3)
        assert torch.equal(layer.base_layer.weight + weight.half(), layer.base_layer.weight)
        out = base["attn1"](torch.ones(2, 6))
        torch.testing.assert_close(out - layer.base_layer(torch.ones(2, 6)), torch.full((2, 4), 6 * 2.0**-14))
        assert base["attn1"](torch.ones(2, 6).half()).dtype == torch.float16
        out.sum().backward()
        assert torch.equal(weight.grad, torch.full((4, 6), 2.0))
        assert torch.equal(bias.grad, torch.full((4,), 2.0))


def test_half_precision_gives_the_layers_own_type(denoiser: DiffusersDenoiser) -> None:
    with Policy(denoiser, ALL) as policy:
        layer = denoiser.module.get_submodule(LINEAR)
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(torch.ones(1, layer.in_features))
        assert out.dtype == torch.bfloat16
        out.sum().backward()
        assert policy.named_parameters()[f"{LINEAR}.diff"].grad.dtype == torch.float32


def test_what_looks_like_a_linear_layer_is_one_and_shows_what_networks_look_up() -> None:
    base = nn.ModuleDict({"attn1": Attention(Linear(6, 4))})
    own = base["attn1"].to_q
    with Policy(LayerDenoiser(base), LoraConfig(kind="full")) as policy:
        disturb(policy)
        (difference,) = policy.parameters()
        expected = torch.ones(1, 6) @ (0.1 * torch.ones(4, 6) + difference).T
        torch.testing.assert_close(base["attn1"](torch.ones(1, 6)), expected)
        layer = base["attn1"].to_q
        assert isinstance(layer, FullLayer)
        assert layer.weight is own.weight
        assert (layer.in_features, layer.out_features) == (6, 4)
        with pytest.raises(AttributeError, match="comfy_cast_weights"):
            _ = layer.comfy_cast_weights


def test_dropout_acts_in_training_mode_only(denoiser: DiffusersDenoiser) -> None:
    with Policy(denoiser, LoraConfig(kind="full", dropout=0.5)) as policy, torch.no_grad():
        disturb(policy)
        assert torch.equal(policy(*inputs()), policy(*inputs()))
        policy.training_mode(True)
        assert not torch.equal(policy(*inputs()), policy(*inputs()))
        policy.training_mode(False)
        assert torch.equal(policy(*inputs()), policy(*inputs()))
        assert not any(layer.training for layer in denoiser.module.modules() if isinstance(layer, FullLayer))


# ---- roles, attaching ----


def test_roles_have_weights_of_their_own_and_the_reference_is_the_base(denoiser: DiffusersDenoiser) -> None:
    with torch.no_grad():
        base = denoiser(*inputs())
        with Policy(denoiser, ALL, roles=("generator", "assistant")) as policy:
            for seed, role in enumerate(policy.roles):
                disturb(policy, role, seed=seed)
            for role in policy.roles:
                with policy.role(role):
                    torch.testing.assert_close(policy(*inputs()), merged(policy, role)(*inputs()), rtol=1e-3, atol=1e-4)
            with policy.role("assistant"):
                assert not torch.allclose(policy(*inputs()), merged(policy, "generator")(*inputs()), atol=1e-3)
            with policy.role(None):
                assert torch.equal(policy(*inputs()), base)


def test_a_graph_keeps_its_gradients_while_other_roles_act(denoiser: DiffusersDenoiser) -> None:
    with Policy(denoiser, LoraConfig(kind="full"), roles=("generator", "assistant")) as policy:
        for role in policy.roles:
            disturb(policy, role)
        ours = policy(*inputs()).square().mean()
        with policy.role("assistant"):
            theirs = policy(*inputs()).square().mean()
            with policy.role(None):
                ours.backward()
        assert all(p.grad is not None for p in policy.parameters("generator"))
        assert all(p.grad is None for p in policy.parameters("assistant"))
        theirs.backward()
        assert all(p.grad is not None for p in policy.parameters("assistant"))


def test_only_the_differences_are_trainable_and_normalisation_has_none(denoiser: DiffusersDenoiser) -> None:
    with Policy(denoiser, ALL, roles=("generator", "assistant")) as policy:
        trained = {id(p) for role in policy.roles for p in policy.parameters(role)}
        assert {id(p) for p in denoiser.module.parameters() if p.requires_grad} == trained
        norms = [
            path for path, layer in denoiser.module.named_modules() if isinstance(layer, (nn.GroupNorm, nn.LayerNorm))
        ]
        assert norms
        assert not set(norms) & set(policy.paths)


@pytest.mark.parametrize("failing", [False, True])
def test_nothing_stays_behind(denoiser: DiffusersDenoiser, failing: bool) -> None:
    for index, parameter in enumerate(denoiser.module.parameters()):
        parameter.requires_grad_(index % 3 == 0)
    before = picture(denoiser.module)
    weights = {name: value.clone() for name, value in denoiser.module.state_dict().items()}
    policy = Policy(denoiser, ALL, roles=("generator", "assistant"))
    try:
        with policy:
            disturb(policy, "generator")
            policy(*inputs()).sum().backward()
            if failing:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert failing
    assert picture(denoiser.module) == before
    assert all(torch.equal(value, weights[name]) for name, value in denoiser.module.state_dict().items())
    with pytest.raises(TrainingError, match="not attached"):
        policy.tensors("generator")


def test_memory_that_runs_out_while_attaching_says_what_to_do_and_changes_nothing(
    denoiser: DiffusersDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, count, zeros = picture(denoiser.module), [], torch.zeros

    def scarce(*arguments: Any, **keywords: Any) -> torch.Tensor:
        count.append(1)
        if len(count) > 9:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return zeros(*arguments, **keywords)

    monkeypatch.setattr(torch, "zeros", scarce)
    with pytest.raises(TrainingError, match=r"2 roles do not fit into memory\. Train low rank"):
        Policy(denoiser, ALL, roles=("generator", "assistant")).__enter__()
    assert picture(denoiser.module) == before


def test_adapters_of_both_kinds_know_each_other(denoiser: DiffusersDenoiser) -> None:
    with Policy(denoiser, ALL):
        for other in (Policy(denoiser, ALL), Policy(denoiser, LoraConfig()), quantised(denoiser.module, "int8")):
            with pytest.raises(TrainingError, match="already carries adapters"), other:
                pass
    with Policy(denoiser, LoraConfig()), pytest.raises(TrainingError, match="already carries"), Policy(denoiser, ALL):
        pass


def test_weights_of_few_bits_are_refused(denoiser: DiffusersDenoiser) -> None:
    with quantised(denoiser.module, "int8"):
        before = picture(denoiser.module)
        words = r"stored as int8\..*Set base_precision to as loaded"
        with pytest.raises(TrainingError, match=words), Policy(denoiser, ALL):
            pass
        assert picture(denoiser.module) == before


def test_they_can_be_trained_though_made_in_inference_mode(denoiser: DiffusersDenoiser) -> None:
    policy = Policy(denoiser, ALL)
    with torch.inference_mode():
        policy.__enter__()
    policy(*inputs()).sum().backward()
    assert any(p.grad.abs().sum() > 0 for p in policy.parameters())
    policy.__exit__(None, None, None)


def test_the_fingerprint_ignores_them(denoiser: DiffusersDenoiser) -> None:
    policy = Policy(denoiser, ALL)
    plain = policy.base_fingerprint()
    with policy:
        disturb(policy)
        assert policy.base_fingerprint() == plain


def test_settings_without_meaning_are_no_part_of_a_run() -> None:
    assert LoraConfig(64, 3.0, seed=5, kind="full") == LoraConfig(kind="full")
    with pytest.raises(TrainingError, match="low rank, full; not 'dora'"):
        LoraConfig(kind="dora")


# ---- files ----


def test_saved_and_loaded_they_predict_the_same_to_the_last_bit(denoiser: DiffusersDenoiser, tmp_path: Path) -> None:
    with Policy(denoiser, ALL) as policy, torch.no_grad():
        disturb(policy)
        tensors, expected = policy.tensors(), policy(*inputs())
    save_lora(tmp_path / "a.safetensors", tensors, metadata=METADATA)
    stored, header = load_lora(tmp_path / "a.safetensors")
    key = "lora_unet_" + WITH_BIAS.replace(".", "_")
    assert {f"{key}.diff", f"{key}.diff_b"} <= stored.keys()
    assert not [name for name in stored if not name.endswith((".diff", ".diff_b"))]
    assert not [name for name in header if name.startswith("ss_network")]
    assert header["attune.weights_id"] == weights_id(stored) == read_facts(tmp_path / "a.safetensors").weights_id
    assert read_facts(tmp_path / "a.safetensors").rank == 0
    with Policy(tiny_denoiser(), ALL) as policy, torch.no_grad():
        policy.load_tensors(module_tensors(stored, policy.paths))
        assert torch.equal(policy(*inputs()), expected)


def test_other_kinds_and_networks_are_refused_and_change_nothing(denoiser: DiffusersDenoiser) -> None:
    low = LoraConfig(targets=("everything",))
    with Policy(tiny_denoiser(), low) as policy:
        thin = policy.tensors()
    with Policy(denoiser, ALL) as policy:
        disturb(policy)
        whole = policy.tensors()
        wider = {name: torch.cat([value, value]) for name, value in whole.items()}
        for foreign in (thin, wider):
            with pytest.raises(TrainingError, match=r"Choose whole weights \(full\) of this model"):
                policy.load_tensors(foreign)
        assert all(torch.equal(value, whole[name]) for name, value in policy.tensors().items())
    with Policy(denoiser, low) as policy, pytest.raises(TrainingError, match=r"not in this network.*Choose a LoRA"):
        policy.load_tensors(whole)


def test_the_identity_of_weights_is_not_that_of_layers_which_nothing_has_moved() -> None:
    still, one, other = torch.zeros(3, 4), torch.ones(3, 4), 2 * torch.ones(3, 4)
    first, second = ({"a.diff": still, "b.diff": value, "b.diff_b": still[0]} for value in (one, other))
    assert weights_id(first) != weights_id(second)
    assert weights_id(first) == weights_id({"x.diff": one})
    assert weights_id({"a.diff": still}) == 16 * "f"
    # Beside pairs they count for nothing: identities that were written down before there were differences still hold.
    pair = {"c.lora_up.weight": one, "c.lora_down.weight": other.T}
    assert weights_id(pair | first) == weights_id(pair)


def test_whole_weights_are_neither_merged_nor_compared(tmp_path: Path, denoiser: DiffusersDenoiser) -> None:
    with Policy(denoiser, ALL) as policy:
        disturb(policy)
        tensors = lora_file_tensors(policy.tensors())
    with pytest.raises(TrainingError, match=r"Mine holds whole weights instead of .*\. They cannot be merged"):
        layers_of(tensors, "Mine")


def test_ruined_weights_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"a\.diff holds values that are not finite"):
        save_lora(tmp_path / "a.safetensors", {"a.diff": torch.full((2, 2), float("nan"))}, metadata=METADATA)
    with pytest.raises(TrainingError, match="no layers"):
        save_lora(tmp_path / "a.safetensors", {"a.diff_b": torch.ones(2)}, metadata=METADATA)
    assert not list(tmp_path.iterdir())
