"""Gradient checkpointing: the same gradients to the last bit, from less memory, and nothing stays behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import nn

from attune.training.adapters import LoraConfig, Policy, quantised
from attune.training.checkpointing import checkpointing, repeated_blocks
from attune.training.denoisers import DiffusersDenoiser, process_of
from attune.training.interfaces import TrainingError
from attune.training.memory import activation_bytes

CONTEXT = 32
CONFIG = LoraConfig(rank=2, targets=("everything",))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


def unet_denoiser() -> DiffusersDenoiser:
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 64),
            layers_per_block=2,
            cross_attention_dim=CONTEXT,
            attention_head_dim=4,
            norm_num_groups=8,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        )
    return DiffusersDenoiser(unet.eval().requires_grad_(False), process_of("v"), torch.zeros(5, CONTEXT))


def inputs(count: int = 2) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(count, 4, 8, 8, generator=generator)
    return x, torch.linspace(0.5, 4, count), list(torch.randn(count, 5, CONTEXT, generator=generator))


def disturb(policy: Policy) -> None:
    """Give every role's tensors values that matter."""
    for index, role in enumerate(policy.roles):
        generator = torch.Generator().manual_seed(index)
        for parameter in policy.parameters(role):
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)


def gradients(policy: Policy, *, on: bool, guidance: float = 2.0) -> dict[str, torch.Tensor]:
    """Those of the parameters and of the picture after one backward pass."""
    x, sigma, cond = inputs()
    x.requires_grad_(True)
    for role in policy.roles:
        for parameter in policy.parameters(role):
            parameter.grad = None
    torch.manual_seed(7)  # for dropout
    context = checkpointing(policy.module, state=policy.as_now) if on else nullcontext()
    with context:
        loss = policy(x, sigma, cond, guidance=guidance).square().mean()
        after = torch.rand(1)
        loss.backward()
        # Neither pass may draw more, or less, than without.
        drawn = {"random after the forward pass": after, "random after the backward pass": torch.rand(1)}
    named = {f"{r} {n}": p.grad for r in policy.roles for n, p in policy.named_parameters(r).items()}
    return drawn | {"loss": loss.detach(), "x": x.grad} | {n: g for n, g in named.items() if g is not None}


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    differing = [name for name in expected if not torch.equal(found[name], expected[name])]
    assert not differing


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("precision", ["", "nf4"])
def test_gradients_are_equal_to_the_last_bit(dropout: float, precision: str) -> None:
    denoiser = unet_denoiser()
    stored = quantised(denoiser.module, precision) if precision else nullcontext()
    config = LoraConfig(rank=2, targets=("everything",), dropout=dropout)
    with stored, Policy(denoiser, config) as policy:
        disturb(policy)
        policy.training_mode(True)
        expected = gradients(policy, on=False)
        assert len(expected) == 4 + len(policy.parameters())
        assert_equal(gradients(policy, on=True), expected)


def test_mixed_precision_is_the_same_when_blocks_compute_again() -> None:
    with Policy(unet_denoiser(), CONFIG) as policy:
        disturb(policy)
        found = []
        for on in (False, True):
            x, sigma, cond = inputs()
            policy.parameters()[0].grad = None
            with checkpointing(policy.module) if on else nullcontext():
                with torch.autocast("cpu", torch.bfloat16):
                    loss = policy(x, sigma, cond).square().mean()
                loss.backward()  # outside of autocast, as the trainer does it
            found.append(policy.parameters()[0].grad.clone())
        assert torch.equal(*found)


def test_a_step_keeps_much_less() -> None:
    x, _, cond = inputs()
    with Policy(unet_denoiser(), CONFIG) as policy:
        plain = activation_bytes(policy, tuple(x.shape[1:]), cond[0], batch=2)
        kept: list[int] = []
        with checkpointing(policy.module):
            small = activation_bytes(policy, tuple(x.shape[1:]), cond[0], batch=2)
            with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel() * 4) or t, lambda t: t):
                policy(x, inputs()[1], cond)
        assert small < 0.6 * plain
        assert 0 < sum(kept) / 2 < small  # the inputs of all blocks, and beyond them the largest block


def test_an_adapter_that_was_active_is_active_when_its_block_computes_again() -> None:
    with Policy(unet_denoiser(), CONFIG, roles=("student", "helper")) as policy:
        disturb(policy)
        x, sigma, cond = inputs()
        found = []
        for on in (False, True):
            for parameter in (*policy.parameters("student"), *policy.parameters("helper")):
                parameter.grad = None
            with checkpointing(policy.module, state=policy.as_now) if on else nullcontext():
                first = policy(x, sigma, cond)
                with policy.role("helper"):
                    second = policy(first, sigma, cond)
                with policy.role(None):
                    third = policy(second, sigma, cond)
                policy.training_mode(False)
                third.square().mean().backward()
            assert policy.active == "student"
            found.append({f"{r} {n}": p.grad for r in policy.roles for n, p in policy.named_parameters(r).items()})
        assert_equal(found[1], found[0])


def test_without_gradients_nothing_is_computed_twice() -> None:
    denoiser = unet_denoiser()
    calls: list[int] = []
    with checkpointing(denoiser.module) as paths:
        block = denoiser.module.get_submodule(paths[0])
        with torch.no_grad():
            handle = block.register_forward_hook(lambda *_: calls.append(1))
            denoiser(*inputs())
            handle.remove()
    assert calls == [1]


class Talkative(nn.Module):
    """Blocks as the host's: they read and write a dictionary that is handed on, and overwrite what they are given."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor, *, pair: tuple[torch.Tensor, ...], options: dict[str, Any]) -> torch.Tensor:
            options["seen"] = options.get("seen", 0) + 1
            return torch.tanh(self.inner(x * options["block"]) + pair[0] * options["seen"]) * pair[1]

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.double_blocks = nn.ModuleList(self.Block() for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        options: dict[str, Any] = {}
        pair = (torch.ones(8), torch.full((8,), 2.0))
        for index, block in enumerate(self.double_blocks):
            options["block"] = index + 1
            x = block(x, pair=pair, options=options)
        assert options["seen"] == 3  # what blocks write reaches their caller
        options["block"] = 99
        return x


def test_dictionaries_are_as_they_were_when_a_block_computes_again() -> None:
    network = Talkative()
    found = []
    for on in (False, True):
        network.zero_grad()
        with checkpointing(network) if on else nullcontext():
            network(torch.linspace(-1, 1, 8)).sum().backward()
        found.append({name: parameter.grad.clone() for name, parameter in network.named_parameters()})
    assert_equal(found[1], found[0])


def test_what_surrounds_a_second_computation_is_entered_then_only() -> None:
    network = Talkative()
    entered: list[int] = []

    @contextmanager
    def again() -> Iterator[None]:
        entered.append(1)
        yield

    with checkpointing(network, again=again):
        loss = network(torch.ones(8)).sum()
        assert entered == []
        loss.backward()
    assert len(entered) == 3


@pytest.mark.parametrize("failing", [False, True])
def test_nothing_stays_behind(failing: bool) -> None:
    module = unet_denoiser().module
    before = [(name, id(part), sorted(vars(part))) for name, part in module.named_modules()]
    own = module.mid_block.resnets[0]
    given = own.forward
    own.forward = given  # somebody else's override
    try:
        with checkpointing(module) as paths:
            assert own.forward is not given
            assert "mid_block.resnets.0" in paths
            if failing:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert failing
    assert own.forward is given
    del own.forward
    assert [(name, id(part), sorted(vars(part))) for name, part in module.named_modules()] == before


def test_blocks_are_the_innermost_of_the_known_places() -> None:
    paths = set(repeated_blocks(unet_denoiser().module))
    assert "down_blocks.0.attentions.1.transformer_blocks.0" in paths
    assert "mid_block.resnets.1" in paths
    assert not any(path.endswith(("attentions.0", "ff.net.0")) for path in paths)


def test_a_network_without_known_blocks_is_refused() -> None:
    with pytest.raises(TrainingError, match="no repeated blocks"), checkpointing(nn.Sequential(nn.Linear(2, 2))):
        pass
