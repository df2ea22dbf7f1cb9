"""Numbers of a method's configuration, as a file may hold them."""

from __future__ import annotations

import dataclasses
import math

import pytest

from attune.training.interfaces import TrainingError
from attune.training.objectives.dag_config import DAGConfig
from attune.training.objectives.ddpo import DDPOConfig
from attune.training.objectives.diffusion_dpo import DiffusionDPOConfig
from attune.training.objectives.personal_dpo import PersonalDPOConfig
from attune.training.objectives.refl import ReFLConfig
from attune.training.objectives.supervised import SupervisedConfig

CONFIGS = (DAGConfig, DDPOConfig, DiffusionDPOConfig, PersonalDPOConfig, ReFLConfig, SupervisedConfig)
FIELDS = [
    (config, field.name, type(field.default))
    for config in CONFIGS
    for field in dataclasses.fields(config)
    if type(field.default) in (int, float)
]
MAY_BE_NONE = {(ReFLConfig, "margin")}


@pytest.mark.parametrize(("config", "field", "kind"), FIELDS, ids=lambda value: getattr(value, "__name__", value))
def test_no_setting_is_none_or_infinite_or_half_of_a_thing(config, field, kind):
    none = () if (config, field) in MAY_BE_NONE else (None,)
    for value in (math.nan, math.inf, -math.inf, "4", True, *none):
        with pytest.raises(TrainingError, match=rf"{config.__name__[:3]}.*{field}.*must be a finite number, not"):
            config(**{field: value})
    if kind is int:
        with pytest.raises(TrainingError, match=rf"{field}.*must be a whole number, not 2\.5"):
            config(**{field: 2.5})


def test_defaults_and_whole_numbers_stand():
    assert [config() for config in CONFIGS]
    assert DAGConfig(beta=3).beta == 3
    assert all(config(**{field: None}) for config, field in MAY_BE_NONE)
