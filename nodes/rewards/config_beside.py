"""What the config.json beside a CLIP in the layout of transformers says that its tensors cannot: heads and activation.

Sizes are read from the tensors alone. Where the configuration states others it belongs to another model, and none of it
is used.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...training.interfaces import RewardError
from .layouts import CONTEXT, VOCABULARY, Shapes, picture_tower, text_tower

Activation = Literal["quick_gelu", "gelu"]
CONFIG = "config.json"
PARTS = ("vision_config", "text_config")

log = logging.getLogger("attune")


@dataclass(frozen=True)
class Stated:
    """What a configuration adds to the tensors.

    Attributes:
        activation: of both halves.
        heads, epsilon: by part, where stated: number of attention heads, and the smallest variance in layer norms.
    """

    activation: Activation
    heads: Mapping[str, int]
    epsilon: Mapping[str, float]


def config_path(path: Path) -> Path:
    """Where a transformers configuration of this file would lie."""
    return path.parent / CONFIG


def stated_beside(path: Path, shapes: Shapes) -> Stated | None:
    """What the configuration beside a file says of it; None if there is none, or it belongs to something else.

    Args:
        path: the model file.
        shapes: of its tensors.

    Raises:
        RewardError: it fits, but its activation is none of a public reward; or as `layouts.picture_tower`.
    """
    config = _read(path)
    if config is None:
        return None
    if difference := _difference(config, path, shapes):
        log.warning(
            "Attune: the %s beside %s is not used, since %s. It belongs to another model: move it away, or give each "
            "model a folder of its own.", CONFIG, path.name, difference,
        )  # fmt: skip
        return None
    heads = {part: config[part]["num_attention_heads"] for part in PARTS if "num_attention_heads" in config[part]}
    epsilon = {part: float(config[part]["layer_norm_eps"]) for part in PARTS if "layer_norm_eps" in config[part]}
    return Stated(_activation(config, path), heads, epsilon)


def _read(path: Path) -> dict[str, Any] | None:
    """The configuration of a whole CLIP, with both parts, what is null left out; that of any other model is None."""
    file = config_path(path)
    if not file.is_file():
        return None
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        log.warning("Attune: %s cannot be read (%s); %s is read without it.", file, error, path.name)
        return None
    if not isinstance(config, dict) or config.get("model_type", "clip") != "clip":
        return None
    parts = {part: {} if config.get(part) is None else config[part] for part in PARTS}
    if not set(PARTS) <= config.keys() or not all(isinstance(part, dict) for part in parts.values()):
        return None
    return config | {name: {key: v for key, v in part.items() if v is not None} for name, part in parts.items()}


def _difference(config: Mapping[str, Any], path: Path, shapes: Shapes) -> str:
    """The first thing that is stated otherwise than the tensors have it; "" if there is none."""
    picture = picture_tower(shapes, "transformers", path.name, heads=1)
    text = text_tower(shapes, "transformers", path.name, heads=1)
    special: dict[str, dict[str, int]] = {
        "vision_config": {"patch_size": picture.patch, "image_size": picture.image_size},
        "text_config": {"vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT},
    }
    for part, tower in (("vision_config", picture), ("text_config", text)):
        sizes = {"hidden_size": tower.width, "intermediate_size": tower.hidden, "num_hidden_layers": tower.layers}
        for key, size in (sizes | special[part]).items():
            if config[part].get(key, size) != size:
                return f"it says {part}.{key} {config[part][key]!r}, and the tensors have {size}"
        heads, epsilon = config[part].get("num_attention_heads", 1), config[part].get("layer_norm_eps", 1e-5)
        if type(heads) is not int or heads < 1 or tower.width % heads:
            return f"it says {part}.num_attention_heads {heads!r}, which does not divide the width {tower.width}"
        if type(epsilon) not in (int, float) or not 0 < epsilon < math.inf:
            return f"it says {part}.layer_norm_eps {epsilon!r}, which is no small number"
    if config.get("projection_dim") not in (None, picture.projection):
        return f"it says projection_dim {config['projection_dim']!r}, and the tensors have {picture.projection}"
    return ""


def _activation(config: Mapping[str, Any], path: Path) -> Activation:
    """transformers takes quick_gelu where a configuration says nothing."""
    stated = {str(config[part].get("hidden_act", "quick_gelu")) for part in PARTS}
    if stated == {"quick_gelu"}:
        return "quick_gelu"
    if stated == {"gelu"}:
        return "gelu"
    raise RewardError(
        f"{path.name}: the {CONFIG} beside it says hidden_act {' and '.join(sorted(stated))}; public rewards have gelu "
        f"or quick_gelu in both halves. Choose another file, or remove that {CONFIG} if it belongs to another model."
    )
