"""What public rewards see, against the transforms that their own libraries build."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

from attune.nodes.rewards import preprocessing
from attune.nodes.rewards.pictures import to_rgb
from attune.nodes.rewards.preprocessing import OPENAI_MEAN, OPENAI_STD, Preprocessing, scale_with_pillow

SIZE = 224
# One level of 255, in the units of the normalised picture.
LEVEL = 1 / 255 / min(OPENAI_STD)

# Heights and widths: odd differences on both sides, thin, one pixel, as large as the network, smaller, 4K.
SHAPES = [(300, 500), (499, 301), (97, 41), (225, 224), (17, 300), (1, 1), (2, 3), (224, 224), (64, 64), (2160, 3840)]


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Noise with hard edges over a slope: the hardest case for whoever rounds."""
    rng = np.random.default_rng(height * 10_000 + width)
    pixels = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    pixels[: height // 2] = np.linspace(0, 255, width, dtype=np.uint8)[:, None]
    return pixels


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return to_rgb(torch.from_numpy(pixels)[None].float() / 255)


def open_clip_transform(mode: str) -> Compose:
    import open_clip

    return open_clip.image_transform(SIZE, is_train=False, resize_mode=mode)


def hps_transform(image: Image.Image) -> torch.Tensor:
    """HPSv2: numbers first; long side to 224 by torchvision's resize of tensors; zeros around it; normalise."""
    pixels = TF.to_tensor(image.convert("RGB"))
    scale = SIZE / max(pixels.shape[1:])
    if scale != 1:
        shape = [round(edge * scale) for edge in pixels.shape[1:]]
        pixels = TF.resize(pixels, shape, InterpolationMode.BICUBIC, antialias=True)
    down, across = SIZE - pixels.shape[1], SIZE - pixels.shape[2]
    pixels = TF.pad(pixels, [across // 2, down // 2, across - across // 2, down - down // 2], fill=0)
    return TF.normalize(pixels, OPENAI_MEAN, OPENAI_STD)


def image_reward_transform() -> Compose:
    return Compose([
        Resize(SIZE, interpolation=InterpolationMode.BICUBIC), CenterCrop(SIZE), lambda image: image.convert("RGB"),
        ToTensor(), Normalize(OPENAI_MEAN, OPENAI_STD),
    ])  # fmt: skip


def transformers_transform(image: Image.Image, *, pillow: bool = True) -> torch.Tensor:
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor
    if pillow:
        # Before version 5, CLIPImageProcessor itself scales with Pillow.
        with contextlib.suppress(ImportError):
            from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as processor
    return torch.as_tensor(np.asarray(processor()(image, return_tensors="np")["pixel_values"][0]))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_centre_equals_open_clip_and_image_reward(shape):
    pixels = picture(*shape)
    found = Preprocessing(SIZE, "centre")(tensor(pixels))[0]
    for transform in (open_clip_transform("shortest"), image_reward_transform()):
        torch.testing.assert_close(found, transform(Image.fromarray(pixels)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_centre_low_equals_transformers(shape):
    pixels = picture(*shape)
    found = Preprocessing(SIZE, "centre low")(tensor(pixels))[0]
    torch.testing.assert_close(found, transformers_transform(Image.fromarray(pixels)), atol=1e-5, rtol=0)


def test_the_two_crops_differ_by_a_pixel_where_the_spare_is_odd():
    """227 wide: 3 spare; 1.5 is rounded to 2 by one library and to 1 by the other."""
    pixels = tensor(picture(224, 227))
    even, low = (Preprocessing(SIZE, fit)(pixels) for fit in ("centre", "centre low"))
    assert not torch.equal(even, low)
    assert torch.equal(even[..., :-1], low[..., 1:])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_transformers_newer_scaling_without_pillow_stays_within_two_levels(shape):
    """Version 5 scales on tensors of bytes by default; PickScore's published scores are older."""
    pixels = picture(*shape)
    found = Preprocessing(SIZE, "centre low")(tensor(pixels))[0]
    newer = transformers_transform(Image.fromarray(pixels), pillow=False)
    assert (found - newer).abs().max() <= 2.01 * LEVEL


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pad_equals_hps(shape):
    pixels = picture(*shape)
    found = Preprocessing(SIZE, "pad")(tensor(pixels))[0]
    torch.testing.assert_close(found, hps_transform(Image.fromarray(pixels)), atol=1e-5, rtol=0)


def test_pad_of_open_clip_itself_rounds_and_cuts_but_pads_alike():
    """open_clip's own "longest" scales with Pillow. Inside slow slopes that is half a level each way of rounding."""
    slope = np.linspace(20, 235, 500, dtype=np.float32).round().astype(np.uint8)
    pixels = np.repeat(np.broadcast_to(slope[None, :, None], (299, 500, 1)), 3, axis=2).copy()
    found = Preprocessing(SIZE, "pad")(tensor(pixels))[0]
    other = open_clip_transform("longest")(Image.fromarray(pixels))
    assert (found - other).abs().max() <= 1.01 * LEVEL
    black = (torch.zeros(3) - torch.tensor(OPENAI_MEAN)) / torch.tensor(OPENAI_STD)
    torch.testing.assert_close(found[:, :45, 0], black[:, None].expand(3, 45))
    torch.testing.assert_close(other[:, :45, 0], black[:, None].expand(3, 45))


def test_pad_keeps_what_the_original_would_lose_or_refuse():
    thin = Preprocessing(SIZE, "pad")(torch.ones(1, 1, 900, 3))
    white = ((1 - torch.tensor(OPENAI_MEAN)) / torch.tensor(OPENAI_STD))[None, :, None]
    torch.testing.assert_close(thin[:, :, 111], white.expand(1, 3, SIZE))
    assert Preprocessing(SIZE, "pad")(torch.ones(1, 112, SIZE, 3)).shape == (1, 3, SIZE, SIZE)


@pytest.mark.parametrize("fit", ["centre", "centre low", "pad"])
def test_grey_and_transparent_pictures_of_odd_shape(fit):
    references = {
        "centre": open_clip_transform("shortest"), "centre low": transformers_transform, "pad": hps_transform,
    }  # fmt: skip
    grey, clear = picture(97, 141, 1), picture(97, 141, 4)
    found = Preprocessing(SIZE, fit)(tensor(grey))[0]
    torch.testing.assert_close(found, references[fit](Image.fromarray(grey[..., 0], "L")), atol=1e-5, rtol=0)
    # The libraries drop the transparency; over white is ours, so the reference gets the picture laid over white.
    colour, alpha = clear[..., :3] / 255.0, clear[..., 3:] / 255.0
    over_white = (colour * alpha + 1 - alpha) * 255
    found = Preprocessing(SIZE, fit)(tensor(clear))[0]
    expected = references[fit](Image.fromarray(over_white.round().astype(np.uint8)))
    assert (found - expected).abs().max() <= (1.01 * LEVEL if fit == "pad" else 1e-5)


def test_pictures_of_the_right_size_are_only_normalised():
    images = torch.rand(2, SIZE, SIZE, 3)
    expected = (images - torch.tensor(OPENAI_MEAN)) / torch.tensor(OPENAI_STD)
    for fit in ("centre", "centre low", "pad"):
        torch.testing.assert_close(Preprocessing(SIZE, fit)(images), expected.movedim(-1, 1))


def test_scaled_pictures_have_the_levels_of_pillow():
    pixels = picture(50, 70)
    found = scale_with_pillow(torch.from_numpy(pixels).movedim(-1, 0)[None].float() / 255, (30, 42))
    expected = np.asarray(Image.fromarray(pixels).resize((42, 30), Image.Resampling.BICUBIC))
    assert np.array_equal((found[0] * 255).round().byte().movedim(0, -1).numpy(), expected)


@pytest.mark.parametrize("strip", [1, 300, 5000])
@pytest.mark.parametrize("shape", [(300, 500), (499, 301), (97, 41), (17, 300), (2, 3)], ids=str)
def test_a_picture_scaled_in_strips_is_the_one_scaled_whole(monkeypatch, shape, strip):
    whole = picture(*shape)
    pixels = torch.from_numpy(whole).movedim(-1, 0)[None].float() / 255
    scale = 64 / min(shape)
    target = tuple(int(edge * scale) for edge in shape)
    expected = np.asarray(Image.fromarray(whole).resize(target[::-1], Image.Resampling.BICUBIC))
    smooth = preprocessing._scale_smoothly(pixels, target, (slice(0, target[0]), slice(0, target[1])))
    rows, columns = (slice((edge - 64) // 2, (edge - 64) // 2 + 64) for edge in target)
    monkeypatch.setattr(preprocessing, "STRIP", strip)
    found = scale_with_pillow(pixels, target, (rows, columns))
    assert np.array_equal((found[0] * 255).round().byte().movedim(0, -1).numpy(), expected[rows, columns])
    part = preprocessing._scale_smoothly(pixels, target, (rows, columns))
    torch.testing.assert_close(part, smooth[..., rows, columns], atol=1e-5, rtol=0)


@pytest.mark.needs_system("linux", "other systems do not let a program limit its own memory")
@pytest.mark.parametrize("shape", [(1, 2048), (2048, 1)], ids=str)
@pytest.mark.parametrize("slope", [False, True], ids=["values", "gradient"])
def test_a_line_of_pixels_is_never_scaled_as_a_whole(slope, shape):
    """Scaled whole it would have 103 million pixels: 300 MB as bytes, 1.2 GB as numbers. Its middle is what is seen."""
    import resource

    images = torch.rand(1, *shape, 1, generator=torch.Generator().manual_seed(3)).expand(-1, -1, -1, 3)
    middle = images[:, :, 1014:1034] if shape[0] == 1 else images[:, 1014:1034]
    # First, so that threads and libraries already have their memory.
    prepare = Preprocessing(SIZE)
    expected = prepare(middle)
    prepare(middle.clone().requires_grad_(True)).sum().backward()
    before, limit = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (250 << 20), limit))
    try:
        images = images.clone().requires_grad_(slope)
        found = prepare(images)
        if slope:
            found.sum().backward()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, limit))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fit", ["centre", "centre low", "pad"])
@pytest.mark.parametrize("shape", [(9, 14), (14, 9), (5, 4)], ids=str)
def test_smooth_scaling_has_the_gradient_of_finite_differences(fit, shape):
    prepare = Preprocessing(8, fit, eight_bit=False)
    # Far from 0 and 1, where overshoot is cut off and the slope ends.
    images = torch.rand(1, *shape, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 0.2 + 0.4
    assert torch.autograd.gradcheck(prepare, images.requires_grad_(True))


@pytest.mark.parametrize("fit", ["centre", "centre low"])
def test_rounded_scaling_has_the_values_of_pillow_and_the_gradient_of_the_smooth_one(fit):
    images = tensor(picture(23, 31))
    direction = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    rounded = Preprocessing(8, fit)
    smooth = dataclasses.replace(rounded, eight_bit=False)
    gradients = []
    for prepare in (rounded, smooth):
        leaf = images.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad((prepare(leaf) * direction).sum(), leaf)
        gradients.append(gradient)
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0.1
    values = rounded(images.clone().requires_grad_(True))
    torch.testing.assert_close(values, rounded(images), atol=1e-5, rtol=0)
    assert not torch.allclose(values, smooth(images), atol=1e-3)
