"""Compare A/B without a host: when there is nothing to compare."""

from __future__ import annotations

import pytest
import torch

from attune.nodes.training.compare import check_different
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
