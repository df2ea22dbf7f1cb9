"""4-bit weights on their way between devices: nothing is left behind, and they stay what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from attune.nodes.host.weights import thaw_module
from attune.tests.tiny_vlm import write_tiny_vlm
from attune.training.adapters.lora import LoraConfig
from attune.training.four_bit import can_be_moved, parts, quantised_parameters, states
from attune.training.vlm_base import load_base
from attune.training.vlm_reward import RewardAdapters, VlmScorer

PROMPTS = ["a cat", "a dog"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny_vlm(tmp_path_factory.mktemp("vlm") / "tiny")


@pytest.fixture
def scorer(folder) -> VlmScorer:
    return VlmScorer(load_base(folder, precision="nf4"))


def inputs_of(scorer: VlmScorer) -> dict[str, torch.Tensor]:
    pictures = torch.rand(2, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    return scorer.encode(list(pictures), PROMPTS)


def test_a_weight_is_numbers_scales_their_scales_and_code_books(scorer):
    weight = scorer.base.language_model.layers[0].self_attn.q_proj.weight
    assert len(states(weight)) == 2
    # 64·64 numbers of half a byte; 64 scales of a byte, their mean; one scale of scales; 16 and 256 codes.
    sizes = sorted(part.numel() * part.element_size() for part in parts(weight))
    assert sizes == sorted([2048, 64, 4, 4, 16 * 4, 256 * 4])
    assert parts(scorer.head.weight) == [scorer.head.weight] and states(scorer.head.weight) == []
    assert len(quantised_parameters(scorer)) > 14


def test_this_version_can_move_them_and_trying_it_changes_nothing(scorer):
    weight = quantised_parameters(scorer)[0]
    before = [part.clone() for part in parts(weight)]
    assert can_be_moved(scorer)
    assert all(part.device.type == "cpu" for part in parts(weight))
    assert all(torch.equal(one, two) for one, two in zip(before, parts(weight), strict=True))


@pytest.mark.parametrize(
    "flaw", ["leaves the code book", "forgets that it is quantised", "loses its scales", "refuses"]
)
def test_versions_that_cannot_move_them_are_told(scorer, monkeypatch, flaw):
    """As versions before ours did, one after the other."""
    from bitsandbytes.functional import QuantState
    from bitsandbytes.nn import Params4bit

    move, move_state = Params4bit.to, QuantState.to

    def to(self, *args, **kwargs):
        if flaw == "refuses":
            raise ValueError("not supported")
        moved = move(self, *args, **kwargs)
        if flaw == "forgets that it is quantised":
            moved.bnb_quantized = False
        if flaw == "loses its scales":
            moved.quant_state = None
        return moved

    def state_to(self, device):
        code = self.code
        move_state(self, device)
        self.code = code

    monkeypatch.setattr(Params4bit, "to", to)
    if flaw == "leaves the code book":
        monkeypatch.setattr(QuantState, "to", state_to)
    assert not can_be_moved(scorer)


def test_a_network_without_such_weights_can_always_be_moved(folder):
    assert can_be_moved(torch.nn.Linear(2, 2))
    assert can_be_moved(VlmScorer(load_base(folder)))


def as_after_a_move(scorer: VlmScorer) -> None:
    """What the host's move from device to device leaves: new tensors, born in inference mode, in the old parameters."""
    with torch.inference_mode():
        for parameter in scorer.parameters():
            parameter.data = parameter.data.clone()
            for state in states(parameter):
                for name, value in list(vars(state).items()):
                    if isinstance(value, torch.Tensor):
                        setattr(state, name, value.clone())


def test_after_a_move_they_are_thawed_as_what_they_are(scorer):
    RewardAdapters(scorer, LoraConfig(2, 2.0))
    inputs = inputs_of(scorer)
    with torch.no_grad():
        first = scorer(inputs)
    kinds = [(type(parameter), len(parts(parameter))) for parameter in scorer.parameters()]
    flags = [parameter.requires_grad for parameter in scorer.parameters()]
    size = sum(value.nbytes for value in scorer.state_dict().values())
    as_after_a_move(scorer)
    assert any(part.is_inference() for part in parts(quantised_parameters(scorer)[0]))
    numbers = [parameter.data_ptr() for parameter in scorer.parameters()]
    thaw_module(scorer)
    assert not any(part.is_inference() for parameter in scorer.parameters() for part in parts(parameter))
    assert [(type(parameter), len(parts(parameter))) for parameter in scorer.parameters()] == kinds
    assert [parameter.requires_grad for parameter in scorer.parameters()] == flags
    assert [parameter.data_ptr() for parameter in scorer.parameters()] == numbers  # no copy
    assert sum(value.nbytes for value in scorer.state_dict().values()) == size
    assert can_be_moved(scorer)
    again = scorer(inputs)
    assert torch.equal(again.detach(), first)
    again.sum().backward()
    assert all(parameter.grad is not None for parameter in scorer.parameters() if parameter.requires_grad)
