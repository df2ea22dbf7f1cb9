"""The pictures of the help pages: a caption must be earned by its run."""

from __future__ import annotations

import pytest
import torch

from attune.tests import help_pictures as pictures
from attune.tests import mixture_bed as bed

SCENES = pytest.mark.parametrize("method", pictures.SCENES)
EQUAL = torch.full((bed.MODES,), 1 / bed.MODES)
ONE = torch.nn.functional.one_hot(bed.WEIGHTS.argmax(), bed.MODES).float()
TWO = ONE + torch.nn.functional.one_hot(bed.WEIGHTS.argsort()[-2], bed.MODES)


def points(weights, deviation=bed.DEVIATION, count=4000):
    """Exact draws [count, 2] of the ring with these weights."""
    generator = torch.Generator().manual_seed(0)
    modes = torch.multinomial(weights, count, replacement=True, generator=generator)
    return bed.MEANS[modes] + deviation * torch.randn(count, 2, generator=generator)


@SCENES
def test_no_caption_is_true_of_the_base_model(method):
    base = points(EQUAL)
    assert not pictures.SCENES[method].holds(base, base)


def test_captions_are_told_apart():
    """Each draw with known shares earns the captions that are true of it, and no other."""
    shown = torch.zeros(bed.MODES)
    for mode, count in pictures.SHOWN.items():
        shown[mode] = count
    base, narrow = points(EQUAL), 0.4 * bed.DEVIATION
    for drawn, earned in (
        (points(shown), {"Supervised"}),
        (points(ONE, narrow), {"DDPO"}),
        (points(TWO, narrow), {"ReFL"}),
        (points(bed.WEIGHTS), {"DAG-KL", "DAG-DB"}),
    ):
        found = {name for name, scene in pictures.SCENES.items() if scene.holds(base, drawn)} - {"Diffusion-DPO"}
        assert found == earned
    averages = 0.2 * torch.randn(4000, 2, generator=torch.Generator().manual_seed(1))
    assert pictures.SCENES["Diff-Instruct*"].holds(averages, base)
    for other in (averages, points(bed.WEIGHTS), points(EQUAL, narrow), points(EQUAL, 2 * bed.DEVIATION)):
        assert not pictures.SCENES["Diff-Instruct*"].holds(averages, other)
    assert pictures.SCENES["Diffusion-DPO"].holds(base, points((bed.WEIGHTS >= 0.1).float()))
    assert not pictures.SCENES["Diffusion-DPO"].holds(base, points(ONE))


@SCENES
def test_every_run_trains_and_is_drawn(method):
    scene = pictures.SCENES[method]
    before, after = pictures.run(scene, updates=2)
    assert before.shape == after.shape == (pictures.SAMPLES, 2)
    assert not torch.equal(before, after)
    drawn = pictures.draw(method, scene.caption, before, after, scene.liked, scene.marks())
    assert drawn.size == (pictures.WIDTH, pictures.HEIGHT)


def test_shading_is_bluest_where_the_most_is_liked():
    ground = pictures.shading(pictures.target_density)
    width, height = ground.size
    heaviest = bed.MEANS[bed.WEIGHTS.argmax()]
    scale = height / (2 * pictures._REACH)
    column, row = round(width / 2 + scale * float(heaviest[0])), round(height / 2 - scale * float(heaviest[1]))
    brightest = ground.getchannel("B").getextrema()[1]
    assert ground.getpixel((column, row))[2] >= brightest - 2
    assert ground.getpixel((0, 0))[2] < brightest / 3
