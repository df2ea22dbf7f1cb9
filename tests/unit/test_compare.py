"""Compare A/B without a host: when there is nothing to compare, and what a safety gate leaves of it."""

from __future__ import annotations

import json
import math

import pytest
import torch

from attune.nodes import drawing
from attune.nodes.rewards.safety import GatedReward, SafetyGate, blurred
from attune.nodes.training import grid
from attune.nodes.training.compare import check_different, comparison_figures, judged
from attune.training.interfaces import AttuneError


def test_models_that_draw_the_same_pictures_are_no_comparison():
    pictures = torch.rand(4, 8, 8, 3)
    with pytest.raises(AttuneError, match=r"(?s)same pictures.*another architecture.*strength is 0.*Choose a LoRA"):
        check_different(pictures, pictures.clone())


def test_the_smallest_difference_in_one_picture_is_a_comparison():
    pictures = torch.rand(4, 8, 8, 3)
    changed = pictures.clone()
    changed[3, 0, 0, 0] += 1e-6
    check_different(pictures, changed)


# ---- behind a safety gate --------------------------------------------------------------------------------------------


class Channel:
    """The mean of one colour channel; remembers how many pictures it was shown."""

    differentiable = False
    higher_is_better = True

    def __init__(self, index: int) -> None:
        self.index, self.seen = index, 0
        self.name = self.reward_id = ("red", "green", "blue")[index]

    def __call__(self, images, prompts, context=None):
        self.seen += len(images)
        assert self.index == 0 or not (images[..., 0] == 1).any(), "an unsafe picture reached a reward"
        return images[..., self.index].flatten(1).mean(1)


def guarded(reward: Channel) -> GatedReward:
    """What is red all over is unsafe."""
    return GatedReward(reward, SafetyGate(0.9, Channel(0)), floor=-1000.0)


def side(greens: list[float], unsafe: list[int]) -> torch.Tensor:
    """Noise of a mean green each, with a blue that falls as green rises; the unsafe ones are red all over."""
    noise = torch.rand(len(greens), 16, 16, 3, generator=torch.Generator().manual_seed(len(unsafe))) * 1e-3
    images = noise + torch.tensor([[0.0, green, 0.5 - green / 2] for green in greens])[:, None, None]
    images[unsafe, ..., 0] = 1.0
    return images


PROMPTS = ["one", "two"]
TEXTS = ["one", "one", "two", "two"]
GREENS = ([0.1, 0.2, 0.3, 0.4], [0.2, 0.2, 0.6, 0.7])


@pytest.mark.parametrize("where", ["reward", "held_out"])
def test_pictures_behind_a_gate_are_blurred_and_count_in_no_figure(where):
    """Picture 1 of A and 2 of B are unsafe: pairs 0 and 3 are left, with gains of 0.1 and 0.3."""
    rewards = {"reward": Channel(1), "held_out": Channel(2)}
    inner = list(rewards.values())
    rewards[where] = guarded(rewards[where])
    pictures = side(GREENS[0], [1]), side(GREENS[1], [2])
    before, after = (judged(images, TEXTS, **rewards) for images in pictures)
    assert [reward.seen for reward in inner] == [6, 6]
    for found, images, unsafe in ((before, pictures[0], 1), (after, pictures[1], 2)):
        assert torch.equal(found.images[unsafe], blurred(images[unsafe][None])[0])
        assert all(torch.equal(found.images[index], images[index]) for index in range(4) if index != unsafe)
        assert [math.isnan(score) for score in found.scores] == [index == unsafe for index in range(4)]
        assert [math.isnan(score) for score in found.held_out] == [index == unsafe for index in range(4)]
    figures = comparison_figures(before, after, group=2, **rewards)
    assert (figures["images"], figures["pairs"], figures["blurred_before"], figures["blurred_after"]) == (4, 2, 1, 1)
    assert figures["reward_before"] == pytest.approx(0.25, abs=2e-3)
    assert figures["reward_change"] == pytest.approx(0.2, abs=2e-3)
    assert figures["held_out_change"] == pytest.approx(-0.1, abs=2e-3)
    assert figures["win_rate"] == 1
    assert figures["diversity_before"] is None  # each prompt has one picture left
    assert "NaN" not in json.dumps(figures)
    drawn = grid.comparison_grid(before, after, prompts=PROMPTS, seeds=[0, 1], title="t", summary=[])
    assert drawn.size[1] > 4 * 128
    assert [grid._label(after, index) == "blurred" for index in range(4)] == [False, False, True, False]
    assert [grid._colour(before, after, index, True) == drawing.GOOD for index in range(4)] == [
        True,
        False,
        False,
        True,
    ]


def test_without_a_gate_nothing_is_blurred_and_every_pair_counts():
    reward = Channel(1)
    before, after = (judged(side(greens, []), TEXTS, reward, None) for greens in GREENS)
    assert (before.blurred, after.blurred) == (None, None)
    figures = comparison_figures(before, after, group=2, reward=reward, held_out=None)
    assert (figures["pairs"], figures["blurred_before"], figures["blurred_after"]) == (4, None, None)
    assert figures["diversity_before"] > 0


def test_a_gate_that_finds_nothing_says_so_and_changes_no_figure():
    found = []
    for reward in (Channel(1), guarded(Channel(1))):
        before, after = (judged(side(greens, []), TEXTS, reward, None) for greens in GREENS)
        found.append(comparison_figures(before, after, group=2, reward=reward, held_out=None))
    plain, behind = found
    assert (behind["blurred_before"], behind["blurred_after"]) == (0, 0)
    changed = {"reward_name", "blurred_before", "blurred_after"}
    assert {name: plain[name] for name in plain if name not in changed} == {
        name: behind[name] for name in behind if name not in changed
    }


def test_no_safe_pair_is_a_clear_error():
    reward = guarded(Channel(1))
    before, after = (
        judged(side(GREENS[0], [0, 1]), TEXTS, reward, None),
        judged(side(GREENS[1], [2, 3]), TEXTS, reward, None),
    )
    with pytest.raises(AttuneError, match=r"2 of 4 of model A, 2 of 4 of model B.*raise the gate's threshold"):
        comparison_figures(before, after, group=2, reward=reward, held_out=None)
