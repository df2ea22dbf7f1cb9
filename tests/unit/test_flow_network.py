"""The flow network: any latent size, any number of tokens, its start and its shape."""

from __future__ import annotations

import pytest
import torch

from attune.training.interfaces import TrainingError
from attune.training.objectives.flow_network import TYPICAL_TEXT, FlowNetwork, FlowNetworkConfig, flow_bytes

SMALL = FlowNetworkConfig((32, 48))


def network(shape=(4, 8, 8), config=SMALL, **knobs):
    return FlowNetwork(shape, config, **({"text_width": 6, "prompts": 3} | knobs))


def inputs(shape=(4, 8, 8), batch=3):
    generator = torch.Generator().manual_seed(0)
    text = [torch.randn(length, 6, generator=generator) for length in (5, 2)]
    return torch.randn(batch, *shape, generator=generator), torch.rand(batch, generator=generator), text


def moved(net):
    """Away from its start, where every answer is 0."""
    with torch.no_grad():
        torch.nn.init.ones_(net.leave.weight)
    return net


@pytest.mark.parametrize("shape", [(2, 1, 1), (4, 2, 2), (4, 8, 8), (16, 3, 5), (4, 1, 7), (4, 32, 24)])
@pytest.mark.parametrize("channels", [(32,), (16, 48), (64, 128, 256, 256)])
def test_one_number_for_latents_of_any_size(shape, channels):
    net = network(shape, FlowNetworkConfig(channels))
    x, level, text = inputs(shape)
    owners = torch.tensor([0, 1, 1])
    assert net(x, level, text, owners).tolist() == [0.0, 0.0, 0.0]
    value = moved(net)(x, level, text, owners)
    assert value.shape == (3,) and value.dtype == torch.float32 and torch.isfinite(value).all()
    assert len(set(value.tolist())) == 3


def test_it_starts_at_zero_and_learns_from_there():
    net = network()
    x, level, text = inputs()
    value = net(x, level, text, torch.tensor([0, 1, 1]))
    value.sum().backward()
    assert value.abs().max() == 0 and net.leave.bias.grad.item() == 3.0
    assert net.leave.weight.grad.abs().max() > 0


@pytest.mark.parametrize("shape", [(2, 1, 1), (4, 8, 8)])
def test_every_parameter_and_every_input_counts(shape):
    """Latent, noise level, own text and each weight have a slope; the other prompt's text has none."""
    net = moved(network(shape))
    x, level, text = (part for part in inputs(shape, batch=1))
    for part in (x, level, *text):
        part.requires_grad_()
    net(x, level, text, torch.tensor([1])).sum().backward()
    assert all(part.grad.abs().max() > 0 for part in (x, level, text[1]))
    assert text[0].grad.abs().max() == 0
    dead = [name for name, value in net.named_parameters() if value.grad is None or not value.grad.abs().max() > 0]
    # A shift of every key alike does not move a softmax.
    assert [name for name in dead if "in_proj_bias" not in name] == []


def test_padding_changes_nothing():
    """A prompt of two tokens counts the same alone and beside one of five; samples do not see each other."""
    net = moved(network())
    x, level, text = inputs()
    together = net(x, level, text, torch.tensor([0, 1, 0]))
    alone = net(x[1:2], level[1:2], [text[1]], torch.tensor([0]))
    torch.testing.assert_close(together[1:2], alone)


def test_without_text_every_prompt_has_a_learned_token():
    net = moved(network(text_width=0))
    x, level, _ = inputs()
    x, level = x[:1].repeat(2, 1, 1, 1), level[:1].repeat(2)
    value = net(x, level, net.prompt_tokens([0, 2]), torch.tensor([0, 1]))
    assert value[0] != value[1]
    value.sum().backward()
    used = net.token_table.weight.grad.abs().sum(1) > 0
    assert used.tolist() == [True, False, True]


def test_the_scale_multiplies_the_output():
    x, level, text = inputs()
    owners = torch.tensor([0, 0, 1])
    plain, scaled = moved(network()), moved(network(scale=12.0))
    torch.testing.assert_close(12 * plain(x, level, text, owners), scaled(x, level, text, owners))


def test_its_start_depends_on_its_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = network()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second, other = network(), network(config=FlowNetworkConfig((32, 48), seed=1))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.enter.weight, other.enter.weight)


def test_it_computes_in_float32_under_autocast():
    net = moved(network())
    x, level, text = inputs()
    owners = torch.tensor([0, 1, 1])
    with torch.autocast("cpu", torch.bfloat16):
        half = net(x, level, text, owners)
    assert torch.equal(half, net(x, level, text, owners))


@pytest.mark.parametrize("channels", [(), (8,), (64, 100), 64, "64"])
def test_channels_that_do_not_fit_are_refused(channels):
    with pytest.raises(TrainingError, match="multiples of 16"):
        FlowNetworkConfig(channels)


@pytest.mark.parametrize("shape", [(4, 64, 64), (16, 32, 48)])
def test_the_estimate_of_its_memory_is_what_autograd_keeps(shape):
    config = FlowNetworkConfig((32, 64))
    network = FlowNetwork(shape, config, text_width=TYPICAL_TEXT, prompts=1)
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(torch.randn(2, *shape), torch.full((2,), 0.5), [torch.randn(20, TYPICAL_TEXT)], torch.zeros(2).long())
    weights = sum(parameter.numel() * 4 for parameter in network.parameters())
    found = 4 * weights + sum(size for name, size in kept.items() if name not in own)
    assert 0.8 * found < flow_bytes(config, shape, states=2) < 1.4 * found
