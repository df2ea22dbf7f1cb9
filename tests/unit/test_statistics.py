"""Image statistics at the edges: DDPO's two names for the JPEG size, grey, transparent and one-pixel pictures."""

from __future__ import annotations

import io
from typing import get_args

import pytest
import torch
from PIL import Image

from attune.nodes.rewards import StatisticReward
from attune.nodes.rewards.statistics import LONGEST_JPEG, MEASURES, Statistic
from attune.training.interfaces import RewardError

# What saved workflows may hold, in the order in which the widget has always listed it; new ones are appended.
SHIPPED = ("colourfulness", "contrast", "sharpness", "brightness", "saturation", "warmth", "symmetry", "JPEG size")
# Of a grey picture of 0.3 everywhere: Y = 0.3, no colour, no change. A root of nothing is √1e-12.
GREY = {"colourfulness": 1.3e-6, "contrast": 1e-6, "sharpness": 1e-6, "brightness": 0.3, "saturation": 0.0,
        "warmth": 0.0, "symmetry": 1.0}  # fmt: skip


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def test_options_are_only_ever_appended():
    assert tuple(MEASURES)[: len(SHIPPED)] == SHIPPED
    assert tuple(MEASURES) == get_args(Statistic)


def test_compressibility_is_minus_the_file_size_and_incompressibility_plus():
    """DDPO, section 5: the size in kB of a JPEG of quality 95; the calm picture is the compressible one."""
    flat, busy = torch.full((1, 64, 64, 3), 0.5), noise(1, 64, 64, 3)
    images = torch.cat([flat, busy])
    pixels = [(image * 255).round().to(torch.uint8).numpy() for image in images]
    sizes = []
    for picture in pixels:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=95)
        sizes.append(len(file.getvalue()) / 1000)
    assert sizes[0] < sizes[1]
    assert StatisticReward("incompressibility")(images, ["", ""]).tolist() == pytest.approx(sizes)
    assert StatisticReward("compressibility")(images, ["", ""]).tolist() == pytest.approx([-size for size in sizes])
    assert not StatisticReward("compressibility").differentiable
    assert not StatisticReward("incompressibility").differentiable


def test_the_two_names_are_the_two_goals_of_the_jpeg_size():
    images = noise(2, 32, 32, 3)
    pairs = {"compressibility": "as low as possible", "incompressibility": "as high as possible"}
    for name, goal in pairs.items():
        assert torch.equal(StatisticReward(name)(images, []), StatisticReward("JPEG size", goal)(images, []))
    assert len({StatisticReward(name).reward_id for name in ("JPEG size", *pairs)}) == 3


@pytest.mark.parametrize("name", MEASURES)
def test_grey_counts_as_colour_and_transparency_as_white(name):
    grey = noise(1, 8, 8, 1)
    colour = grey.expand(-1, -1, -1, 3)
    reward = StatisticReward(name)
    torch.testing.assert_close(reward(grey, [""]), reward(colour, [""]))
    glass = torch.cat([noise(1, 8, 8, 3), torch.zeros(1, 8, 8, 1)], -1)
    torch.testing.assert_close(reward(glass, [""]), reward(torch.ones(1, 8, 8, 3), [""]))


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_one_pixel_has_a_value_or_an_error_that_names_its_size(name, channels):
    pixel = torch.full((1, 1, 1, channels), 0.3)
    if channels == 4:
        pixel[..., 3] = 1
    if name == "sharpness":
        with pytest.raises(RewardError, match="3×3 pixels, not 1×1"):
            StatisticReward(name)(pixel, [""])
        return
    value = StatisticReward(name)(pixel, [""])
    assert value.shape == (1,) and torch.isfinite(value).all()
    if name in GREY:
        assert value.item() == pytest.approx(GREY[name], abs=1e-7)


@pytest.mark.parametrize("name", GREY)
def test_a_picture_of_one_grey(name):
    value = StatisticReward(name)(torch.full((1, 5, 7, 3), 0.3), [""]).item()
    assert value == pytest.approx(GREY[name], abs=5e-7)


@pytest.mark.parametrize("name", ["JPEG size", "compressibility", "incompressibility"])
def test_a_picture_that_no_jpeg_can_hold_is_an_error_with_its_size(name):
    with pytest.raises(RewardError, match=f"{LONGEST_JPEG} pixels a side, not {LONGEST_JPEG + 1}×1"):
        StatisticReward(name)(torch.zeros(1, 1, LONGEST_JPEG + 1, 3), [""])
    assert StatisticReward(name)(torch.zeros(1, 1, LONGEST_JPEG, 3), [""]).isfinite().all()
