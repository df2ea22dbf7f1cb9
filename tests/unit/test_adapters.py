"""Adapters: what they compute, where they attach, and that nothing of them stays behind."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from attune.tests.small_unets import (
    Attention,
    CastLinear,
    LayerDenoiser,
    Linear,
    disturb,
    inputs,
    picture,
    tiny_denoiser,
)
from attune.training.adapters import PARTS, TARGETS, WHOLE, LoraConfig, Policy, lora_file_tensors, matching_layers
from attune.training.denoisers import DiffusersDenoiser
from attune.training.interfaces import Denoiser, TrainingError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def denoiser() -> DiffusersDenoiser:
    return tiny_denoiser()


# ---- what an adapter computes ----


def test_a_fresh_adapter_changes_nothing(denoiser: DiffusersDenoiser) -> None:
    with torch.no_grad():
        before = denoiser(*inputs())
        with Policy(denoiser, LoraConfig(targets=("everything",))) as policy:
            assert torch.equal(policy(*inputs()), before)


@pytest.mark.parametrize(("rank", "alpha"), [(2, 1.0), (4, 8.0), (8, 8.0)])
def test_linear_and_convolution_add_alpha_over_rank_times_up_down(
    denoiser: DiffusersDenoiser, rank: int, alpha: float
) -> None:
    """y = W·x + alpha/rank · up·down·x, for a linear layer and for a strided, padded convolution."""
    linear = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    convolution = "down_blocks.0.downsamplers.0.conv"
    with Policy(denoiser, LoraConfig(rank=rank, alpha=alpha, targets=("everything",))) as policy, torch.no_grad():
        disturb(policy)
        tensors = policy.tensors()
        for path in (linear, convolution):
            layer = denoiser.module.get_submodule(path)
            weight, bias = layer.base_layer.weight, layer.base_layer.bias
            up, down = tensors[f"{path}.lora_up.weight"], tensors[f"{path}.lora_down.weight"]
            assert down.shape[0] == up.shape[1] == rank
            assert tensors[f"{path}.alpha"].item() == alpha
            merged = weight + alpha / rank * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
            if path == linear:
                x = torch.randn(3, 5, weight.shape[1], generator=torch.Generator().manual_seed(2))
                expected = functional.linear(x, merged, bias)
            else:
                x = torch.randn(2, weight.shape[1], 8, 8, generator=torch.Generator().manual_seed(2))
                expected = functional.conv2d(x, merged, bias, stride=2, padding=1)
                assert layer.base_layer.stride == (2, 2)
            assert not torch.allclose(layer(x), layer.base_layer(x), atol=1e-3)
            torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_merged_into_the_base_the_whole_network_gives_the_same(denoiser: DiffusersDenoiser) -> None:
    merged = tiny_denoiser()
    with Policy(denoiser, LoraConfig(rank=4, alpha=2.0, targets=("everything",))) as policy, torch.no_grad():
        disturb(policy)
        tensors = policy.tensors()
        for path in policy.paths:
            weight = merged.module.get_submodule(path).weight
            up, down = tensors[f"{path}.lora_up.weight"], tensors[f"{path}.lora_down.weight"]
            weight += 2.0 / 4 * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
        torch.testing.assert_close(policy(*inputs()), merged(*inputs()), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_the_base_may_be_stored_in_few_bits(dtype: torch.dtype) -> None:
    base = nn.ModuleDict({"attn1": Attention(CastLinear(6, 4).requires_grad_(False).to(dtype))})
    policy = Policy(LayerDenoiser(base), LoraConfig(rank=2))
    with policy:
        assert {p.dtype for p in policy.parameters()} == {torch.float32}
        assert base["attn1"].to_q.base_layer.weight.dtype == dtype
        disturb(policy)
        base["attn1"](torch.ones(2, 6)).sum().backward()
        assert all(p.grad.abs().sum() > 0 for p in policy.parameters())


def test_a_linear_layer_that_only_looks_like_one_is_adapted() -> None:
    base = nn.ModuleDict({"attn1": Attention(Linear(6, 4))})
    with Policy(LayerDenoiser(base), LoraConfig(rank=2, alpha=2.0)) as policy, torch.no_grad():
        disturb(policy)
        down, up = policy.parameters()
        expected = torch.ones(1, 6) @ (0.1 * torch.ones(4, 6) + up @ down).T
        torch.testing.assert_close(base["attn1"](torch.ones(1, 6)), expected)


def test_a_projection_that_is_never_called_is_not_adapted() -> None:
    """nn.MultiheadAttention reads out_proj.weight itself: an adapter there would be a silent no-op."""
    block = nn.ModuleDict({"self_attn": nn.MultiheadAttention(8, 2), "ff": nn.Sequential(nn.Linear(8, 8))})
    assert list(matching_layers(block, ("everything",))) == ["ff.0"]


def test_dropout_acts_in_training_mode_only_and_the_base_stays_in_its_mode(denoiser: DiffusersDenoiser) -> None:
    with Policy(denoiser, LoraConfig(dropout=0.5)) as policy, torch.no_grad():
        disturb(policy)
        assert torch.equal(policy(*inputs()), policy(*inputs()))
        policy.training_mode(True)
        assert not torch.equal(policy(*inputs()), policy(*inputs()))
        assert not any(layer.training for layer in denoiser.module.modules() if isinstance(layer, nn.GroupNorm))
        policy.training_mode(False)
        assert torch.equal(policy(*inputs()), policy(*inputs()))


# ---- start ----


def test_the_start_is_a_function_of_the_seed_and_leaves_torch_alone(denoiser: DiffusersDenoiser) -> None:
    def start(**keywords: Any) -> dict[str, torch.Tensor]:
        with Policy(denoiser, LoraConfig(**keywords)) as policy:
            return policy.tensors()

    state = torch.get_rng_state()
    first = start(seed=5)
    torch.manual_seed(99)
    again, other = start(seed=5), start(seed=6)
    torch.set_rng_state(state)
    wider = start(seed=5, targets=("everything",))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(torch.equal(first[name], wider[name]) for name in first)
    downs = [name for name in first if "lora_down" in name]
    assert not any(torch.equal(first[name], other[name]) for name in downs)
    assert all(not value.any() for name, value in first.items() if "lora_up" in name)
    for name in downs:
        bound = first[name].shape[1] ** -0.5
        assert 0.8 * bound < first[name].abs().max() <= bound


def test_adapters_made_in_inference_mode_can_be_trained(denoiser: DiffusersDenoiser) -> None:
    policy = Policy(denoiser, LoraConfig())
    with torch.inference_mode():
        policy.__enter__()
    policy(*inputs()).sum().backward()
    assert any(p.grad.abs().sum() > 0 for p in policy.parameters())
    policy.__exit__(None, None, None)


# ---- roles ----


def test_roles_are_independent_and_the_reference_is_the_base(denoiser: DiffusersDenoiser) -> None:
    with torch.no_grad():
        base = denoiser(*inputs())
        with Policy(denoiser, LoraConfig(), roles=("policy", "assistant")) as policy:
            disturb(policy, "policy", seed=1)
            disturb(policy, "assistant", seed=2)
            one = policy(*inputs())
            with policy.role("assistant"):
                two = policy(*inputs())
                with policy.role(None):
                    assert torch.equal(policy(*inputs()), base)
                    assert policy.active is None
                assert torch.equal(policy(*inputs()), two)
            assert torch.equal(policy(*inputs()), one)
            assert not torch.allclose(one, two, atol=1e-3)
            assert not torch.allclose(one, base, atol=1e-3)
            assert not torch.allclose(two, base, atol=1e-3)
            with pytest.raises(TrainingError, match=r"'critic'.*policy, assistant"), policy.role("critic"):
                pass


def test_a_graph_keeps_its_gradients_while_other_roles_act(denoiser: DiffusersDenoiser) -> None:
    with Policy(denoiser, LoraConfig(), roles=("policy", "assistant")) as policy:
        disturb(policy, "policy")
        disturb(policy, "assistant")
        ours = policy(*inputs()).square().mean()
        with policy.role("assistant"):
            theirs = policy(*inputs()).square().mean()
            with policy.role(None):
                ours.backward()
        assert all(p.grad is not None for p in policy.parameters("policy"))
        assert all(p.grad is None for p in policy.parameters("assistant"))
        theirs.backward()
        assert all(p.grad is not None for p in policy.parameters("assistant"))


def test_only_adapters_are_trainable_while_attached(denoiser: DiffusersDenoiser) -> None:
    with Policy(denoiser, LoraConfig(), roles=("policy", "assistant")) as policy:
        trained = {id(p) for role in policy.roles for p in policy.parameters(role)}
        assert {id(p) for p in denoiser.module.parameters() if p.requires_grad} == trained


@pytest.mark.parametrize("roles", [(), ("policy", "policy"), ("a.b",), ("lora_a",)])
def test_unusable_roles_are_refused(denoiser: DiffusersDenoiser, roles: tuple[str, ...]) -> None:
    with pytest.raises(TrainingError, match="role"):
        Policy(denoiser, LoraConfig(), roles=roles)


# ---- leaving ----


def check_untouched(denoiser: Denoiser, before: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
    assert picture(denoiser.module) == before
    assert all(torch.equal(value, weights[name]) for name, value in denoiser.module.state_dict().items())


@pytest.mark.parametrize("failing", [False, True])
def test_nothing_stays_behind(denoiser: DiffusersDenoiser, failing: bool) -> None:
    for index, parameter in enumerate(denoiser.module.parameters()):
        parameter.requires_grad_(index % 3 == 0)
    before = picture(denoiser.module)
    weights = {name: value.clone() for name, value in denoiser.module.state_dict().items()}
    policy = Policy(denoiser, LoraConfig(targets=("everything",)), roles=("policy", "assistant"))
    try:
        with policy:
            disturb(policy)
            policy(*inputs()).sum().backward()
            if failing:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert failing
    check_untouched(denoiser, before, weights)
    with pytest.raises(TrainingError, match="not attached"):
        policy.tensors()


def test_a_failed_attachment_changes_nothing(denoiser: DiffusersDenoiser) -> None:
    class Lost(DiffusersDenoiser):
        @property
        def device(self) -> torch.device:
            raise RuntimeError("the device is gone")

    lost = Lost(denoiser.module, denoiser.process, denoiser.unconditional)
    before = picture(denoiser.module)
    weights = {name: value.clone() for name, value in denoiser.module.state_dict().items()}
    with pytest.raises(RuntimeError, match="the device is gone"), Policy(lost, LoraConfig()):
        pass
    check_untouched(denoiser, before, weights)


def test_two_policies_on_one_network_are_refused(denoiser: DiffusersDenoiser) -> None:
    with Policy(denoiser, LoraConfig()) as policy:
        disturb(policy)
        tensors = policy.tensors()
        with pytest.raises(TrainingError, match="already carries adapters"), Policy(denoiser, LoraConfig()):
            pass
        assert all(torch.equal(value, tensors[name]) for name, value in policy.tensors().items())


def test_the_fingerprint_knows_the_base_and_ignores_adapters(denoiser: DiffusersDenoiser) -> None:
    policy = Policy(denoiser, LoraConfig(targets=("everything",)))
    plain = policy.base_fingerprint()
    with policy:
        disturb(policy)
        assert policy.base_fingerprint() == plain
    with torch.no_grad():
        denoiser.module.conv_in.weight.mul_(1.01)
    assert policy.base_fingerprint() != plain


# ---- targets ----

PATHS = {
    "cross-attention": [
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k",
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0",
        "blocks.3.cross_attn.q",
    ],
    "self-attention": [
        "input_blocks.1.1.transformer_blocks.0.attn1.to_q",
        "output_blocks.5.1.transformer_blocks.0.attn1.to_out.0",
        "double_blocks.0.img_attn.qkv",
        "double_blocks.0.txt_attn.proj",
        "single_blocks.7.linear1",
        "joint_blocks.0.context_block.attn.qkv",
        "joint_blocks.0.x_block.attn2.qkv",
        "blocks.3.self_attn.q",
        "layers.2.attention.qkv",
        "transformer_blocks.4.attn.add_q_proj",
        "attentions.0.to_q",
    ],
    "feed-forward": [
        "input_blocks.1.1.transformer_blocks.0.ff.net.0.proj",
        "middle_block.1.transformer_blocks.0.ff.net.2",
        "double_blocks.0.img_mlp.0",
        "joint_blocks.0.x_block.mlp.fc1",
        "blocks.3.ffn.2",
    ],
    "projection": [
        "input_blocks.1.1.proj_in",
        "middle_block.1.proj_out",
        "down_blocks.0.attentions.0.proj_in",
    ],
    "convolution": [
        "input_blocks.1.0.in_layers.2",
        "output_blocks.2.0.out_layers.3",
        "input_blocks.4.0.skip_connection",
        "input_blocks.3.0.op",
        "output_blocks.2.2.conv",
        "down_blocks.0.resnets.0.conv1",
        "up_blocks.0.upsamplers.0.conv",
    ],
    "timestep": [
        "input_blocks.1.0.emb_layers.1",
        "time_embed.2",
        "label_emb.0.0",
        "down_blocks.0.resnets.0.time_emb_proj",
        "time_embedding.linear_1",
        "double_blocks.0.img_mod.lin",
        "joint_blocks.0.x_block.adaLN_modulation.1",
    ],
    "everything": ["input_blocks.0.0", "out.2", "conv_in"],
}


@pytest.mark.parametrize("target", list(TARGETS))
def test_plain_names_find_their_layers_and_only_theirs(target: str) -> None:
    assert set(PATHS) == set(TARGETS)
    for name, paths in PATHS.items():
        for path in paths:
            expected = target in (name, "everything")
            assert bool(re.fullmatch(TARGETS[target], path)) is expected, (target, path)


# Part → the beginnings of the paths of its layers: in the host, and in diffusers.
PLACES = {
    "up path": ("output_blocks.", "up_blocks."),
    "middle and up path": ("output_blocks.", "middle_block.", "up_blocks.", "mid_block."),
    "down path": ("input_blocks.", "down_blocks."),
}


def host_blocks() -> nn.Module:
    """As the host names the blocks of a U-Net, beside layers that belong to none."""

    def block() -> nn.Module:
        layers = {name: Attention(nn.Linear(4, 4)) for name in ("attn1", "attn2")}
        return nn.ModuleDict({"1": nn.ModuleDict(layers)})

    blocks = {name: block() for name in ("input_blocks", "middle_block", "output_blocks")}
    return nn.ModuleDict({**blocks, "attn1": Attention(nn.Linear(4, 4))})


@pytest.mark.parametrize("part", list(PLACES))
def test_a_part_takes_the_layers_of_its_blocks_and_no_others(part: str) -> None:
    assert set(PLACES) == set(PARTS) - {WHOLE}
    for module in (host_blocks(), tiny_denoiser().module):
        for targets in (("cross-attention", "self-attention"), ("everything",)):
            everywhere = matching_layers(module, targets)
            found = matching_layers(module, targets, part)
            assert list(found) == [path for path in everywhere if path.startswith(PLACES[part])]
            assert 0 < len(found) < len(everywhere)


def test_a_policy_of_a_part_is_an_ordinary_one_with_fewer_layers(denoiser: DiffusersDenoiser) -> None:
    whole = Policy(denoiser, LoraConfig(rank=2))
    with whole:
        every = whole.tensors()
    with Policy(denoiser, LoraConfig(rank=2, part="up path")) as policy, torch.no_grad():
        own = policy.tensors()
        assert own and all(
            name.startswith("up_blocks.") and torch.equal(value, every[name]) for name, value in own.items()
        )
        before = policy(*inputs())
        disturb(policy)
        assert not torch.equal(policy(*inputs()), before)
        assert all(key.startswith("lora_unet_up_blocks_") for key in lora_file_tensors(policy.tensors()))
        with pytest.raises(TrainingError, match=r"not in this network.*self-attention, up path"):
            policy.load_tensors(every)


def test_a_network_without_paths_is_told_to_be_taken_whole() -> None:
    transformer = nn.ModuleDict({"joint_blocks": nn.ModuleDict({"attn": Attention(nn.Linear(4, 4))})})
    assert matching_layers(transformer, ("self-attention",))
    with pytest.raises(TrainingError, match=r"has no up path: it is no U-Net\. Set part to whole network"):
        matching_layers(transformer, ("self-attention",), "up path")
    with pytest.raises(
        TrainingError, match=r"No layer of this network's up path is called convolution.*cross-attention"
    ):
        matching_layers(host_blocks(), ("convolution",), "up path")


def test_targets_that_match_nothing_list_what_exists() -> None:
    base = nn.ModuleDict({"ff": nn.Sequential(nn.Linear(4, 4)), "time_embed": nn.Sequential(nn.Linear(4, 4))})
    with (
        pytest.raises(TrainingError, match=r"cross-attention.*Choose among: feed-forward, timestep, everything"),
        Policy(LayerDenoiser(base), LoraConfig(targets=("cross-attention",))),
    ):
        pass
    with pytest.raises(TrainingError, match="no linear or convolution layer"):
        matching_layers(nn.ModuleDict({"norm": nn.LayerNorm(4)}), ("everything",))


@pytest.mark.parametrize(
    ("keywords", "quoted"),
    [
        ({"rank": 0}, "0"),
        ({"rank": 2.5}, r"2\.5"),
        ({"alpha": -1.0}, r"-1\.0"),
        ({"alpha": float("nan")}, "nan"),
        ({"dropout": 1.0}, r"1\.0"),
        ({"targets": ()}, r"\(\)"),
        ({"targets": ("elbows",)}, "'elbows'.*cross-attention"),
        ({"targets": "everything"}, "'everything'"),
        ({"seed": -3}, "-3"),
        ({"part": "left"}, "'left'"),
    ],
)
def test_impossible_settings_are_quoted(keywords: dict[str, Any], quoted: str) -> None:
    with pytest.raises(TrainingError, match=quoted):
        LoraConfig(**keywords)


def test_unknown_settings_are_quoted() -> None:
    with pytest.raises(TypeError, match="rnak"):
        LoraConfig(rnak=4)
