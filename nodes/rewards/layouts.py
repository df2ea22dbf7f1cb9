"""What a file of a stranger holds, read from the keys and shapes of its tensors, never from its name.

| keys begin with          | it is                                           | library that builds the network     |
| ------------------------ | ----------------------------------------------- | ----------------------------------- |
| `vision_model.`          | a CLIP in the layout of transformers            | transformers.CLIPModel              |
| `visual.`                | a CLIP in the layout of open_clip               | open_clip.CLIP                      |
| `blip.`                  | ImageReward                                     | transformers' BLIP                  |
| `layers.0.weight` [·, D] | a linear aesthetic predictor on D features      | torch                               |

Attention heads cannot be seen in shapes. The rule (ours, true of every CLIP that OpenAI and LAION published): 64
numbers per head; but a picture network wider than 1024 has 16 heads, which is 80 numbers each at the 1280 of ViT-H.
A width for which that rule is not known to hold is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...training.interfaces import RewardError

Layout = Literal["transformers", "open_clip", "ImageReward", "aesthetic"]
Shapes = Mapping[str, tuple[int, ...]]

LAYOUTS: tuple[tuple[str, Layout], ...] = (
    ("blip.", "ImageReward"),
    ("vision_model.", "transformers"),
    ("visual.", "open_clip"),
    ("layers.0.weight", "aesthetic"),
)
TITLES: Mapping[Layout, str] = {
    "transformers": "a CLIP model in the layout of transformers (such as PickScore)",
    "open_clip": "a CLIP model in the layout of open_clip (such as HPS)",
    "ImageReward": "an ImageReward model",
    "aesthetic": "a LAION aesthetic predictor",
}
SIZES: Mapping[int, str] = {768: "ViT-B", 1024: "ViT-L", 1280: "ViT-H", 1408: "ViT-g", 1664: "ViT-bigG"}

CONTEXT, VOCABULARY = 77, 49408
HEAD_WIDTH = 64
WIDE_HEADS, WIDEST_REGULAR = 16, 1024


@dataclass(frozen=True)
class Tower:
    """One transformer: `width` numbers per token, `hidden` in its feed-forward part."""

    width: int
    layers: int
    hidden: int
    heads: int


@dataclass(frozen=True)
class PictureTower(Tower):
    """A vision transformer: patches of `patch`² pixels of a square of `image_size`² → `projection` features."""

    patch: int
    image_size: int
    projection: int

    @property
    def size(self) -> str | None:
        """What people call a network of this width; None for a width that no public CLIP has."""
        return SIZES.get(self.width)

    @property
    def title(self) -> str:
        return f"{self.size or f'ViT of width {self.width}'}/{self.patch}"


def detect(shapes: Shapes) -> Layout | None:
    """Whose layout the keys are in; None if nobody's that is known."""
    for mark, layout in LAYOUTS:
        if any(key.startswith(mark) for key in shapes):
            return layout
    return None


class _Reader:
    """Asks a table of shapes, and names the tensor that is missing."""

    def __init__(self, shapes: Shapes, source: str) -> None:
        self.shapes = shapes
        self.source = source

    def __call__(self, key: str, dimensions: int) -> tuple[int, ...]:
        shape = self.shapes.get(key)
        if shape is None or len(shape) != dimensions or 0 in shape:
            found = f"has the shape {list(shape)}" if shape is not None else "is missing"
            raise RewardError(
                f"{self.source}: the tensor {key}, of {dimensions} dimensions, {found}. The file is damaged, or of a "
                "network that is built differently; get it again, or choose another."
            )
        return shape

    def layers(self, pattern: str) -> int:
        """How many different numbers stand in the place of # in the keys."""
        search = re.compile(re.escape(pattern).replace(r"\#", r"(\d+)"))
        return len({match[1] for key in self.shapes if (match := search.match(key))})


def heads_of(width: int, source: str, *, picture: bool) -> int:
    """Number of attention heads of a tower; the rule of the module.

    Raises:
        RewardError: the width is none for which the rule is known.
    """
    if picture and width > WIDEST_REGULAR and width in SIZES:
        return WIDE_HEADS
    if width % HEAD_WIDTH == 0 and not (picture and width > WIDEST_REGULAR):
        return width // HEAD_WIDTH
    what = "picture" if picture else "text"
    raise RewardError(
        f"{source}: the number of attention heads of its {what} network, of width {width}, cannot be told from its "
        "tensors. Put the config.json that belongs to the model beside it, or choose another file."
    )


def picture_tower(shapes: Shapes, layout: Layout, source: str, heads: int | None = None) -> PictureTower:
    """The picture half of a CLIP, from its shapes.

    Args:
        shapes: of all tensors of the file.
        layout: "transformers" or "open_clip".
        source: file name for messages.
        heads: number of attention heads where it is known; else by the rule of the module.

    Raises:
        RewardError: the tensors are not those of a vision transformer of CLIP (of a ResNet or SigLIP, say).
    """
    read = _Reader(shapes, source)
    if layout == "open_clip" and any(key.startswith("visual.layer1.") for key in shapes):
        raise RewardError(
            f"{source} is a CLIP with a ResNet, which is no public reward model. Choose a file with a vision "
            "transformer (ViT)."
        )
    if layout == "transformers":
        patch = read("vision_model.embeddings.patch_embedding.weight", 4)
        places = read("vision_model.embeddings.position_embedding.weight", 2)[0]
        read("vision_model.embeddings.class_embedding", 1)
        hidden = read("vision_model.encoder.layers.0.mlp.fc1.weight", 2)[0]
        count = read.layers("vision_model.encoder.layers.#.")
        projection = read("visual_projection.weight", 2)[0]
    else:
        patch = read("visual.conv1.weight", 4)
        places = read("visual.positional_embedding", 2)[0]
        read("visual.class_embedding", 1)
        hidden = read("visual.transformer.resblocks.0.mlp.c_fc.weight", 2)[0]
        count = read.layers("visual.transformer.resblocks.#.")
        projection = read("visual.proj", 2)[1]
    grid, width = math.isqrt(places - 1), patch[0]
    if grid * grid != places - 1:
        raise RewardError(f"{source}: {places - 1} picture patches make no square. Choose another file.")
    heads = heads or heads_of(width, source, picture=True)
    return PictureTower(
        width, count, hidden, heads, patch=patch[-1], image_size=grid * patch[-1], projection=projection
    )


def text_tower(shapes: Shapes, layout: Layout, source: str, heads: int | None = None) -> Tower:
    """The text half of a CLIP, from its shapes; arguments as `picture_tower`.

    Raises:
        RewardError: there is none, or it reads other tokens than CLIP's.
    """
    read = _Reader(shapes, source)
    start = "text_model." if layout == "transformers" else "transformer."
    if not any(key.startswith(start) for key in shapes):
        raise RewardError(
            f"{source} holds the picture half of a CLIP only; a score needs the text half too. Get the whole model "
            f"(with tensors named {start}…), or use this file as the clip_name of an aesthetic predictor."
        )
    if layout == "transformers":
        vocabulary, width = read("text_model.embeddings.token_embedding.weight", 2)
        context = read("text_model.embeddings.position_embedding.weight", 2)[0]
        hidden = read("text_model.encoder.layers.0.mlp.fc1.weight", 2)[0]
        count = read.layers("text_model.encoder.layers.#.")
    else:
        vocabulary, width = read("token_embedding.weight", 2)
        context = read("positional_embedding", 2)[0]
        hidden = read("transformer.resblocks.0.mlp.c_fc.weight", 2)[0]
        count = read.layers("transformer.resblocks.#.")
    if (vocabulary, context) != (VOCABULARY, CONTEXT):
        raise RewardError(
            f"{source}: its text network knows {vocabulary} tokens and reads {context} at once; CLIP rewards know "
            f"{VOCABULARY} and read {CONTEXT}. Choose another file."
        )
    return Tower(width, count, hidden, heads or heads_of(width, source, picture=False))


def transformers_vision_config(picture: PictureTower, activation: str) -> dict[str, Any]:
    """Keyword arguments of transformers.CLIPVisionConfig."""
    return {
        "hidden_size": picture.width,
        "intermediate_size": picture.hidden,
        "num_hidden_layers": picture.layers,
        "num_attention_heads": picture.heads,
        "patch_size": picture.patch,
        "image_size": picture.image_size,
        "projection_dim": picture.projection,
        "hidden_act": activation,
    }


def transformers_config(picture: PictureTower, text: Tower, activation: str) -> dict[str, Any]:
    """A transformers.CLIPConfig as a dict; `activation` is "quick_gelu" or "gelu"."""
    return {
        "text_config": {
            "hidden_size": text.width,
            "intermediate_size": text.hidden,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": CONTEXT,
            "projection_dim": picture.projection,
            "hidden_act": activation,
            "bos_token_id": VOCABULARY - 2,
            "eos_token_id": VOCABULARY - 1,
            "pad_token_id": VOCABULARY - 1,
        },
        "vision_config": transformers_vision_config(picture, activation),
        "projection_dim": picture.projection,
    }


def open_clip_config(picture: PictureTower, text: Tower, activation: str) -> dict[str, Any]:
    """Keyword arguments of open_clip.CLIP."""
    return {
        "embed_dim": picture.projection,
        "quick_gelu": activation == "quick_gelu",
        "vision_cfg": {
            "image_size": picture.image_size,
            "layers": picture.layers,
            "width": picture.width,
            "head_width": picture.width // picture.heads,
            "mlp_ratio": ratio(picture),
            "patch_size": picture.patch,
        },
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": VOCABULARY,
            "width": text.width,
            "heads": text.heads,
            "layers": text.layers,
            "mlp_ratio": ratio(text),
        },
    }


def ratio(tower: Tower) -> float:
    """hidden / width, such that open_clip's int(width · ratio) is `hidden` again in spite of rounding."""
    return (tower.hidden + 0.5) / tower.width
