"""Base weights in few bits: what is computed, what it saves, and that nothing of it stays behind."""

from __future__ import annotations

import sys
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional

from attune.tests.small_unets import LARGER_CONTEXT, inputs, larger_denoiser
from attune.training.adapters import PRECISIONS, LayerWeights, LoraConfig, Policy, precision_of, quantised
from attune.training.adapters.quantised import QuantisedConv2d, QuantisedLayer, QuantisedLinear
from attune.training.interfaces import TrainingError
from attune.training.memory import module_bytes

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LAYERS = {
    "linear": (nn.Linear(48, 40), (3, 5, 48)),
    "linear without bias": (nn.Linear(64, 32, bias=False), (7, 64)),
    "convolution": (nn.Conv2d(24, 40, 3, padding=1), (2, 24, 6, 5)),
    "strided": (nn.Conv2d(32, 24, 3, stride=2, padding=(1, 0)), (2, 32, 9, 8)),
    "dilated": (nn.Conv2d(24, 24, 3, dilation=2, bias=False), (2, 24, 8, 8)),
    "grouped": (nn.Conv2d(32, 64, 3, groups=4), (1, 32, 6, 6)),
    "an odd number of weights": (nn.Linear(33, 33), (2, 33)),
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_with_its_rounded_weight_forward_and_backward(name: str, precision: str) -> None:
    layer, shape = LAYERS[name]
    network = nn.Sequential(layer)
    x, plain = drawn(*shape).requires_grad_(True), drawn(*shape).requires_grad_(True)
    with quantised(network, precision) as paths:
        made = network[0]
        assert paths == ["0"]
        assert isinstance(made, QuantisedLayer)
        weight = made.weight
        if isinstance(layer, nn.Conv2d):
            places = (layer.stride, layer.padding, layer.dilation, layer.groups)
            expected = functional.conv2d(plain, weight, layer.bias, *places)
        else:
            expected = functional.linear(plain, weight, layer.bias)
        actual = network(x)
        assert torch.equal(actual, expected)
        towards = drawn(*actual.shape, seed=1)
        actual.backward(towards)
        expected.backward(towards)
        torch.testing.assert_close(x.grad, plain.grad)
        assert all(parameter.grad is None for parameter in network.parameters())
    assert network[0] is layer
    # A rounding of the right size, and not none: half of the widest gap of NF4, and of a step of 1/127.
    error = (weight - layer.weight).abs()
    largest = layer.weight.abs().max()
    assert 0 < error.max() < largest * {"nf4": 0.16, "int8": 0.005}[precision]


def test_a_network_may_add_to_what_a_layer_gives_in_place() -> None:
    network = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32, bias=False), nn.Conv2d(32, 32, 1))
    with quantised(network, "nf4"):
        for layer, shape in zip(network, ((2, 3, 32), (2, 3, 32), (2, 32, 3, 3)), strict=True):
            x, scale = drawn(*shape).requires_grad_(True), torch.ones(shape).requires_grad_(True)
            y = layer(x)
            y += scale
            (y * y).sum().backward()
            assert torch.allclose(scale.grad, 2 * (layer(x) + 1))
            assert x.grad.abs().max() > 0


def test_nf4_is_the_libraries_own() -> None:
    import bitsandbytes

    layer = nn.Linear(128, 64)
    layer.weight.data = drawn(64, 128)
    packed, state = bitsandbytes.functional.quantize_4bit(
        layer.weight.data, compress_statistics=True, quant_type="nf4", blocksize=64
    )
    with quantised(nn.Sequential(layer), "nf4"):
        pass
    network = nn.Sequential(layer)
    with quantised(network, "nf4"):
        assert torch.equal(network[0].weight, bitsandbytes.functional.dequantize_4bit(packed, state))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_autograd_keeps_no_whole_weight(precision: str) -> None:
    network = nn.Sequential(nn.Linear(64, 64), nn.Conv2d(64, 64, 1))
    kept: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with quantised(network, precision), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        hidden = network[0](drawn(4, 64).requires_grad_(True))
        network[1](hidden.reshape(1, 64, 2, 2)).sum().backward()
    assert max(kept, default=0) < 64 * 64


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_mixed_precision_computes_in_16_bits(kind: torch.dtype) -> None:
    network = nn.Sequential(nn.Linear(64, 64))
    x = drawn(3, 64).requires_grad_(True)
    with quantised(network, "nf4"), torch.autocast("cpu", kind):
        y = network(x)
    assert y.dtype == kind
    y.float().sum().backward()
    assert x.grad.dtype == torch.float32
    assert float(x.grad.abs().max()) > 0


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_base_of_16_bits_computes_in_its_own_type(kind: torch.dtype, precision: str) -> None:
    network = nn.Sequential(nn.Linear(64, 64)).to(kind)
    x = drawn(3, 64).to(kind).requires_grad_(True)
    with quantised(network, precision):
        assert network[0].weight.dtype == kind
        y = network(x)
        assert y.dtype == kind
        y.float().sum().backward()
        torch.testing.assert_close(x.grad, network[0].weight.sum(0).expand(3, 64), atol=0.05, rtol=0.05)
    assert x.grad.dtype == kind


@pytest.mark.parametrize("precision", PRECISIONS)
def test_small_weights_keep_their_precision_in_16_bits(precision: str) -> None:
    layer = nn.Linear(64, 64, bias=False)
    layer.weight.data = 1e-4 * drawn(64, 64)
    network = nn.Sequential(layer)
    with quantised(network, precision):
        exact, half = network[0].weight, network[0].stored.whole(torch.float16).float()
        assert float((half - exact).norm() / exact.norm()) < 1e-3


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_unet_shrinks_and_adapters_learn_on_it(precision: str) -> None:
    denoiser = larger_denoiser()
    weights = sum(p.numel() for p in denoiser.module.parameters())
    x, sigma, cond = inputs(context=LARGER_CONTEXT)
    with torch.no_grad():
        whole = denoiser(x, sigma, cond)
    with quantised(denoiser.module, precision) as paths:
        kinds = {type(denoiser.module.get_submodule(path)) for path in paths}
        assert kinds == {QuantisedLinear, QuantisedConv2d}
        held = module_bytes(denoiser.module) / (2 * weights)
        assert held < {"nf4": 0.40, "int8": 0.63}[precision]  # of 16 bits; with all that is left whole
        with torch.no_grad():
            rounded = denoiser(x, sigma, cond)
        error = float((rounded - whole).norm() / whole.norm())
        assert 1e-4 < error < {"nf4": 0.2, "int8": 0.02}[precision]
        with Policy(denoiser, LoraConfig(rank=4, targets=("everything",))) as policy:
            assert torch.equal(policy(x, sigma, cond), rounded)
            optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
            losses = []
            for _ in range(4):
                loss = policy(x, sigma, cond).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
            assert losses[-1] < losses[0]
            assert all(p.grad is not None for p in policy.parameters())
            assert policy.identity()["base precision"] == precision == precision_of(denoiser.module)


@pytest.mark.parametrize("failing", [False, True])
def test_nothing_stays_behind(failing: bool) -> None:
    denoiser = larger_denoiser()
    module = denoiser.module
    shared = module.down_blocks[0].resnets[0].conv1
    module.again = shared  # a layer with two homes
    tree = [(name, id(part), sorted(vars(part))) for name, part in module.named_modules(remove_duplicate=False)]
    weights = {name: (id(p), p.clone()) for name, p in module.named_parameters(remove_duplicate=False)}
    try:
        with quantised(module, "nf4"), Policy(denoiser, LoraConfig(rank=2)) as policy:
            assert module.again is module.down_blocks[0].resnets[0].conv1
            assert isinstance(module.again, QuantisedConv2d)
            policy(*inputs(context=LARGER_CONTEXT)).sum().backward()
            if failing:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert failing
    now = [(name, id(part), sorted(vars(part))) for name, part in module.named_modules(remove_duplicate=False)]
    assert now == tree
    for name, parameter in module.named_parameters(remove_duplicate=False):
        identity, value = weights[name]
        assert id(parameter) == identity
        assert torch.equal(parameter, value)
    assert precision_of(module) == ""


def test_a_failing_reader_leaves_the_network_as_it_was() -> None:
    module = larger_denoiser().module
    before = [id(part) for part in module.modules()]
    seen = []

    def read(layer: nn.Module, device: torch.device) -> LayerWeights:
        seen.append(layer)
        if len(seen) == 5:
            raise MemoryError
        return LayerWeights(layer.weight, layer.bias)

    with pytest.raises(MemoryError), quantised(module, "int8", read=read):
        pass
    assert [id(part) for part in module.modules()] == before


def test_never_more_than_one_layer_is_whole() -> None:
    """With the weights elsewhere (here: nowhere), what a reader brings is gone before it is asked again."""
    import weakref

    with torch.device("meta"):
        network = nn.Sequential(*(nn.Linear(64, 64) for _ in range(5)))
    alive: list[weakref.ref] = []

    def read(layer: nn.Module, device: torch.device) -> LayerWeights:
        assert all(reference() is None for reference in alive)
        weight = drawn(64, 64, seed=len(alive))
        alive.append(weakref.ref(weight))
        return LayerWeights(weight, torch.zeros(64))

    with quantised(network, "nf4", device=torch.device("cpu"), read=read) as paths:
        assert len(paths) == len(alive) == 5
        assert network(drawn(2, 64)).isfinite().all()


def test_layers_that_carry_latents_and_packed_formats_of_others_stay_whole() -> None:
    network = nn.Sequential(
        nn.Conv2d(4, 64, 3),  # latents in
        nn.Conv2d(64, 64, 3),
        nn.Conv2d(64, 64, 3, padding="same"),
        nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(64, 16, 3),  # latents out
        nn.Linear(64, 64),
    )

    def read(layer: nn.Module, device: torch.device) -> LayerWeights | None:
        if isinstance(layer, nn.Linear):
            return LayerWeights(torch.zeros(64, 9, dtype=torch.uint8), None)
        return LayerWeights(layer.weight, layer.bias)

    with quantised(network, "nf4", read=read) as paths:
        assert paths == ["1"]


def test_weights_of_8_bits_are_stored_in_4_but_not_in_8() -> None:
    small = nn.Linear(64, 64)
    small.weight.data = small.weight.data.to(torch.float8_e4m3fn)
    network = nn.Sequential(small, nn.Linear(64, 64))
    with quantised(network, "nf4") as paths:
        assert paths == ["0", "1"]
        assert network[0].weight.dtype == torch.float32
    with quantised(network, "int8") as paths:
        assert paths == ["1"]


def test_what_cannot_be_done_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match="no layer that could be stored as int8"), quantised(nn.ReLU(), "int8"):
        pass
    with (
        pytest.raises(TrainingError, match="'fp4' does not exist"),
        quantised(nn.Linear(64, 64), "fp4"),
    ):
        pass
    denoiser = larger_denoiser()
    with (
        Policy(denoiser, LoraConfig(rank=2)),
        pytest.raises(TrainingError, match="before they are attached"),
        quantised(denoiser.module, "int8"),
    ):
        pass
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(TrainingError, match="python -m pip install bitsandbytes"), quantised(denoiser.module, "nf4"):
        pass
    with quantised(denoiser.module, "int8"):  # needs no package
        pass


def test_the_fingerprint_and_the_identity_know_the_precision() -> None:
    denoiser = larger_denoiser()
    found = {}
    for precision in ("", *PRECISIONS):
        stored = quantised(denoiser.module, precision) if precision else nullcontext()
        with stored, Policy(denoiser, LoraConfig(rank=2)) as policy:
            found[precision] = policy.base_fingerprint()
            assert ("base precision" in policy.identity()) == bool(precision)
    assert len(set(found.values())) == 3
    denoiser.module.mid_block.attentions[0].proj_in.weight.data += 1
    with quantised(denoiser.module, "nf4"), Policy(denoiser, LoraConfig(rank=2)) as policy:
        assert policy.base_fingerprint() != found["nf4"]
