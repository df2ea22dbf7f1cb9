"""The user adapter: exact no-ops, the formula itself, and networks of diffusers and of the host's shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from attune.training.adapters import LoraConfig, Policy
from attune.training.adapters.attention_sites import attention_sites
from attune.training.adapters.user_attention import (
    UserAdapter,
    UserAdapterConfig,
    UserAdapterMetadata,
    load_user_adapter,
    renamed,
    save_user_adapter,
)
from attune.training.adapters.user_policy import Personal, UserPolicy
from attune.training.checkpointing import checkpointing
from attune.training.demo.networks import build_unet, unet_key_to_host
from attune.training.denoisers import DiffusersDenoiser, process_of
from attune.training.interfaces import TrainingError

CONTEXT, ROWS = 12, 3
CONFIG = UserAdapterConfig(tokens=2, width=6, start="text")


class HostAttention(nn.Module):
    """The layers, the names and the arithmetic of a Stable Diffusion attention; `to_out` is called as one."""

    def __init__(self, query: int, context: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(query, inner, bias=False)
        self.to_k = nn.Linear(context, inner, bias=False)
        self.to_v = nn.Linear(context, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, query), nn.Dropout(0.0))

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2)
                   for part in (self.to_q(x), self.to_k(context), self.to_v(context)))  # fmt: skip
        weights = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(-1)
        return self.to_out((weights @ v).transpose(1, 2).flatten(2))


class HostBlock(nn.Module):
    """Attention to itself, then to the text; of equal widths on purpose."""

    def __init__(self) -> None:
        super().__init__()
        self.attn1 = HostAttention(CONTEXT, CONTEXT, 2, 8)
        self.attn2 = HostAttention(CONTEXT, CONTEXT, 2, 8)

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        x = x + self.attn1(x, x)
        return x + self.attn2(x, context)


class Stream(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.Module()
        self.attn.num_heads = heads
        self.attn.qkv, self.attn.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.attn.ln_q, self.attn.ln_k = nn.LayerNorm(dim // heads), nn.LayerNorm(dim // heads)

    def project(self, x: torch.Tensor) -> list[torch.Tensor]:
        parts = [part.unflatten(2, (self.attn.num_heads, -1)) for part in self.attn.qkv(x).chunk(3, 2)]
        return [self.attn.ln_q(parts[0]), self.attn.ln_k(parts[1]), parts[2]]


class HostJointBlock(nn.Module):
    """Two streams that attend to both, as in the host's Stable Diffusion 3."""

    def __init__(self, dim: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.x_block, self.context_block = Stream(dim, heads), Stream(dim, heads)

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        both = zip(self.context_block.project(context), self.x_block.project(x), strict=True)
        q, k, v = (torch.cat(parts, 1).transpose(1, 2) for parts in both)
        found = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.x_block.attn.proj(found[:, context.shape[1] :])


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small_unet() -> nn.Module:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=4, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=CONTEXT, attention_head_dim=2, norm_num_groups=4,
    )  # fmt: skip


def small_sd3() -> nn.Module:
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=4, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=4, num_attention_heads=2,
        joint_attention_dim=CONTEXT, caption_projection_dim=8, pooled_projection_dim=6, out_channels=4,
        pos_embed_max_size=4, qk_norm="rms_norm",
    )  # fmt: skip


NETWORKS = {
    "diffusers U-Net": (
        small_unet,
        lambda net: net(drawn(ROWS, 4, 4, 4), torch.full((ROWS,), 500), drawn(ROWS, 5, CONTEXT, seed=1)).sample,
    ),
    "host's U-Net block": (HostBlock, lambda net: net(drawn(ROWS, 7, CONTEXT), drawn(ROWS, 5, CONTEXT, seed=1))),
    "host's joint block": (HostJointBlock, lambda net: net(drawn(ROWS, 7, 8), drawn(ROWS, 5, 8, seed=1))),
    "diffusers SD3": (
        small_sd3,
        lambda net: (
            net(
                drawn(ROWS, 4, 4, 4), drawn(ROWS, 5, CONTEXT, seed=1), drawn(ROWS, 6, seed=2), torch.full((ROWS,), 500)
            ).sample
        ),
    ),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    make, run = NETWORKS[request.param]
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        module = make().eval().requires_grad_(False)
    return module, lambda: run(module)


@pytest.fixture
def same(request) -> Callable[[torch.Tensor, torch.Tensor], bool]:
    """Bit-identical. Where streams are cut out of one tensor (SD3), another layout in memory rounds differently as soon
    as anything is added, zeros too."""
    if "diffusers SD3" in request.node.name:
        return lambda found, expected: torch.allclose(found, expected, rtol=1e-5, atol=1e-6)
    return torch.equal


def test_strength_zero_nobody_and_outside_of_the_block_are_bit_identical(network, same):
    module, run = network
    expected, adapter = run(), UserAdapter.fresh(module, CONFIG)
    tokens = drawn(ROWS, 2, 6)
    with adapter.attached(module):
        assert torch.equal(run(), expected)
        with adapter.acting(tokens, strength=0.0):
            assert torch.equal(run(), expected)
        with adapter.acting(tokens, torch.zeros(ROWS, dtype=torch.bool)):
            assert torch.equal(run(), expected)
        with adapter.acting(torch.zeros_like(tokens)):
            assert same(run(), expected)
        with adapter.acting(tokens):
            assert not torch.equal(run(), expected), "the adapter does something at all"
    assert torch.equal(run(), expected)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_rows_without_a_user_are_bit_identical_and_the_others_are_theirs(network, same):
    module, run = network
    expected, adapter = run(), UserAdapter.fresh(module, CONFIG)
    tokens, present = drawn(ROWS, 2, 6), torch.tensor([True, False, True])
    with adapter.attached(module):
        with adapter.acting(tokens):
            everybody = run()
        with adapter.acting(tokens, present):
            some = run()
        with adapter.acting(torch.full_like(tokens, float("nan")), ~present):
            poisoned = run()
        with adapter.acting(tokens, strength=0.5):
            half = run()
    assert same(some[1], expected[1])
    assert same(some[::2], everybody[::2])
    assert same(poisoned[::2], expected[::2]), "whatever the tokens of rows without a user are"
    assert not torch.equal(half, everybody)


def test_off_is_a_start_that_changes_nothing(network, same):
    module, run = network
    expected = run()
    adapter = UserAdapter.fresh(module, UserAdapterConfig(tokens=2, width=6, start="off"))
    with adapter.attached(module), adapter.acting(drawn(ROWS, 2, 6)):
        found = run()
        assert same(found, expected)
        found.sum().backward()
    values = [both[1] for both in adapter.weights.values()]
    assert all(value.grad.abs().max() > 0 for value in values), "but it can be left"


def test_the_formula():
    """One site computed by hand: out = to_out(attn(Q, K, V) + s·attn(Q, K', V'))."""
    module = HostBlock().eval()
    adapter = UserAdapter.fresh(module, CONFIG)
    site, x, context, tokens = module.attn2, drawn(ROWS, 7, CONTEXT), drawn(ROWS, 5, CONTEXT, seed=1), drawn(ROWS, 2, 6)
    key, value = adapter.weights["attn2"]
    branch = []
    for head in (slice(0, 4), slice(4, 8)):
        q = site.to_q(x)[..., head]
        k, v = (tokens @ key.T)[..., head], (tokens @ value.T)[..., head]
        branch.append((q @ k.transpose(1, 2) / 2).softmax(-1) @ v)
    expected = site(x, context) + 0.7 * torch.cat(branch, -1) @ site.to_out[0].weight.T
    with adapter.attached(module), adapter.acting(tokens, strength=0.7):
        torch.testing.assert_close(site(x, context), expected)


def test_only_attention_to_the_text_is_found():
    assert [site.path for site in attention_sites(HostBlock())] == ["attn2"]
    sites = attention_sites(build_unet())
    assert len(sites) == 10 and all(site.path.endswith("attn2") and site.context == 128 for site in sites)
    with pytest.raises(TrainingError, match="would do nothing"):
        attention_sites(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(TrainingError, match="would do nothing"):
        UserAdapter.fresh(nn.Sequential(nn.Linear(3, 3)), CONFIG)


def test_starts_from_the_text(network):
    module, _ = network
    for site in attention_sites(module):
        key, value = site.text_weights()
        same = UserAdapter.fresh(module, UserAdapterConfig(tokens=2, width=site.context, start="text"))
        assert torch.equal(same.weights[site.path][0], key) and torch.equal(same.weights[site.path][1], value)
        wide = UserAdapter.fresh(module, UserAdapterConfig(tokens=2, width=40, start="text")).weights[site.path][0]
        torch.testing.assert_close(wide @ wide.T, key @ key.T, msg="orthonormal: lengths and angles stay")


def test_gradients_pass_into_tokens_and_matrices_in_float64():
    module = HostBlock().double().eval().requires_grad_(False)
    adapter = UserAdapter.fresh(module, CONFIG).to("cpu", torch.float64)
    x, context = drawn(1, 3, CONTEXT).double(), drawn(1, 2, CONTEXT, seed=1).double()
    parameters = [part.detach().clone().requires_grad_() for part in adapter.weights["attn2"]]
    tokens = drawn(1, 2, 6, seed=2).double().requires_grad_()

    def run(tokens, *matrices):
        for own, given in zip(adapter.weights["attn2"], matrices, strict=True):
            own.data = given.data
        adapter.weights["attn2"] = matrices
        with adapter.attached(module), adapter.acting(tokens):
            return module(x, context)

    assert torch.autograd.gradcheck(run, (tokens, *parameters))


def denoiser(module: nn.Module) -> DiffusersDenoiser:
    return DiffusersDenoiser(module.eval(), process_of("v"), torch.zeros(5, CONTEXT))


def test_policy_shows_each_row_its_user_and_guidance_nobody():
    torch.manual_seed(0)
    base = denoiser(small_unet())
    x, sigma = drawn(ROWS, 4, 4, 4), torch.tensor([0.5, 1.0, 3.0])
    texts, tokens = drawn(ROWS, 5, CONTEXT, seed=1), drawn(ROWS, 2, 6)
    cond = [Personal(texts[0], tokens[0]), texts[1], Personal(texts[2], tokens[2])]
    flags = [parameter.requires_grad for parameter in base.module.parameters()]
    plain, empty = base(x, sigma, list(texts)), base(x, sigma, [base.unconditional] * ROWS)
    with UserPolicy(base, CONFIG) as policy:
        assert torch.equal(policy(x, sigma, list(texts)), plain)
        shown = policy(x, sigma, cond)
        torch.testing.assert_close(policy(x, sigma, cond, guidance=3.0), empty + 3 * (shown - empty))
        assert torch.equal(shown[1], plain[1]) and not torch.allclose(shown[0], plain[0])
        one = policy(x[:1], sigma[:1], cond[:1])
        torch.testing.assert_close(one, shown[:1])
        with policy.role(None):
            assert torch.equal(policy(x, sigma, cond), plain)
        assert not any(parameter.requires_grad for parameter in base.module.parameters())
        fingerprint = policy.base_fingerprint()
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.add_(1)
        assert policy.base_fingerprint() == fingerprint
    assert flags == [parameter.requires_grad for parameter in base.module.parameters()]
    with pytest.raises(TrainingError, match="inside its `with` block"):
        policy(x, sigma, cond)


def test_policy_of_nobody_is_the_denoiser_bit_by_bit_with_guidance_too():
    torch.manual_seed(0)
    base = denoiser(small_unet())
    x, sigma, texts = drawn(ROWS, 4, 4, 4), torch.ones(ROWS), drawn(ROWS, 5, CONTEXT, seed=1)
    expected = base(x, sigma, list(texts), guidance=3.0)
    someone = [Personal(text, drawn(2, 6)) for text in texts]
    with UserPolicy(base, CONFIG) as policy:
        for tokens in (None, torch.zeros(2, 6)):
            assert torch.equal(policy(x, sigma, [Personal(text, tokens) for text in texts], guidance=3.0), expected)
        with policy.role(None):
            assert torch.equal(policy(x, sigma, someone, guidance=3.0), expected)
        assert not torch.equal(policy(x, sigma, someone, guidance=3.0), expected)
        policy.strength = 0.0
        assert torch.equal(policy(x, sigma, someone, guidance=3.0), expected)


def test_stacks_with_a_lora_whose_queries_and_outputs_it_uses():
    torch.manual_seed(0)
    base = denoiser(small_unet())
    x, sigma = drawn(ROWS, 4, 4, 4), torch.ones(ROWS)
    texts, tokens = drawn(ROWS, 5, CONTEXT, seed=1), drawn(ROWS, 2, 6)
    with Policy(base, LoraConfig(rank=2, targets=("cross-attention",))) as lora:
        with torch.no_grad():
            for value in lora.parameters():
                value.copy_(0.5 * torch.randn(value.shape))
        expected = lora(x, sigma, list(texts))
        with UserPolicy(lora, CONFIG) as policy:
            cond = [Personal(*row) for row in zip(texts, tokens, strict=True)]
            with policy.role(None):
                assert torch.equal(policy(x, sigma, cond), expected)
            shown = policy(x, sigma, cond)
            with lora.role(None):
                alone = policy(x, sigma, cond)
            assert not torch.allclose(shown, expected) and not torch.allclose(shown, alone)


def test_gradient_checkpointing_changes_nothing():
    torch.manual_seed(0)
    base = denoiser(small_unet())
    x, sigma = drawn(ROWS, 4, 4, 4), torch.ones(ROWS)
    cond = [Personal(*row) for row in zip(drawn(ROWS, 5, CONTEXT, seed=1), drawn(ROWS, 2, 6), strict=True)]
    found = []
    with UserPolicy(base, CONFIG) as policy:
        for on in (False, True):
            for value in policy.parameters():
                value.grad = None
            if on:
                with checkpointing(policy.module, state=policy.as_now):
                    policy(x, sigma, cond).square().sum().backward()
            else:
                policy(x, sigma, cond).square().sum().backward()
            found.append(torch.cat([value.grad.flatten() for value in policy.parameters()]))
    assert torch.equal(*found)


# ---- files ----

METADATA = UserAdapterMetadata("set-encoder:1", base_hash="abc", title="Demo", method="personal-dpo", details={"a": 1})


def test_one_file_serves_networks_of_diffusers_and_of_the_host(tmp_path: Path):
    torch.manual_seed(0)
    module = build_unet().eval()
    adapter = UserAdapter.fresh(module, UserAdapterConfig(tokens=2, width=6, start="text"))
    file = tmp_path / "user.safetensors"
    save_user_adapter(file, adapter.tensors(), adapter.config, METADATA, rename=unet_key_to_host, dtype=None)
    read, metadata = load_user_adapter(file)
    assert metadata == METADATA and read.config == adapter.config
    assert "input_blocks.1.1.transformer_blocks.0.attn2" in read.weights
    ours = renamed(read, module, unet_key_to_host)
    assert ours.tensors().keys() == adapter.tensors().keys()
    assert all(torch.equal(value, adapter.tensors()[name]) for name, value in ours.tensors().items())
    with ours.attached(module):
        pass
    with pytest.raises(TrainingError, match="another architecture"), read.attached(module):
        pass


def test_what_is_no_adapter_is_refused(tmp_path: Path):
    from safetensors.torch import save_file

    module = HostBlock()
    adapter = UserAdapter.fresh(module, CONFIG)
    with pytest.raises(TrainingError, match=r"\.safetensors"):
        save_user_adapter(tmp_path / "user.bin", adapter.tensors(), CONFIG, METADATA)
    with pytest.raises(TrainingError, match="nothing to save"):
        save_user_adapter(tmp_path / "user.safetensors", {}, CONFIG, METADATA)
    broken = {name: value * float("nan") for name, value in adapter.tensors().items()}
    with pytest.raises(TrainingError, match="not finite"):
        save_user_adapter(tmp_path / "user.safetensors", broken, CONFIG, METADATA)
    assert not list(tmp_path.iterdir())
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(TrainingError, match="no user adapter"):
        load_user_adapter(tmp_path / "other.safetensors")
    tensors = adapter.tensors()
    tensors.popitem()
    save_user_adapter(tmp_path / "half.safetensors", tensors, CONFIG, METADATA)
    with pytest.raises(TrainingError, match="damaged"):
        load_user_adapter(tmp_path / "half.safetensors")


@pytest.mark.parametrize("shape", [(ROWS, 3, 6), (ROWS, 2, 5), (2, 6)])
def test_embeddings_of_another_shape_are_refused(shape):
    adapter = UserAdapter.fresh(HostBlock(), CONFIG)
    with pytest.raises(TrainingError, match=r"reads \[2, 6\]"), adapter.acting(torch.zeros(shape)):
        pass


def test_embeddings_for_another_number_of_rows_are_refused():
    module = HostBlock()
    adapter = UserAdapter.fresh(module, CONFIG)
    with adapter.attached(module), adapter.acting(torch.zeros(2, 2, 6)), pytest.raises(TrainingError, match="2 users"):
        module(drawn(ROWS, 7, CONTEXT), drawn(ROWS, 5, CONTEXT))


@pytest.mark.parametrize("field", [{"tokens": 0}, {"width": 1.5}, {"start": "random"}])
def test_bad_configurations_are_refused(field):
    with pytest.raises(TrainingError, match=next(iter(field)) if "start" not in field else "starts as"):
        UserAdapterConfig(**field)
