"""From widgets to configurations: every widget that sets a dataclass field takes its default from that dataclass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...training.adapters import WHOLE, Kind, LoraConfig
from ...training.interfaces import AttuneError
from ...training.objectives.supervised import SupervisedConfig
from .plans import EncodedText, PreviewSettings, SupervisedPlan, caption_lines, picture_key
from .plans import training_images as _training_images

RUN_EXISTS = ("resume", "start fresh")
# Widget id → name in `adapters.TARGETS`. Permanent: saved workflows hold the widgets by position.
TARGET_WIDGETS = {
    "cross_attention": "cross-attention",
    "self_attention": "self-attention",
    "feed_forward": "feed-forward",
    "projection": "projection",
    "convolution": "convolution",
    "timestep": "timestep",
    "everything": "everything",
}
_PREVIEWS = 4


def lora_config(rank: int, alpha: float, dropout: float, targets: Mapping[str, bool], part: str = WHOLE) -> LoraConfig:
    """LoRA settings of the node's widgets.

    Raises:
        AttuneError: no layer group is switched on, or a number is out of range.
    """
    chosen = tuple(name for widget, name in TARGET_WIDGETS.items() if targets.get(widget))
    if not chosen:
        raise AttuneError("No layers are chosen, so the LoRA would do nothing. Switch on at least one group of layers.")
    return LoraConfig(rank=rank, alpha=alpha or float(rank), dropout=dropout, targets=chosen, part=part)


def trained_shape(settings: LoraConfig | None, trains: Kind) -> LoraConfig:
    """What a run trains, by the widgets of LoRA Settings and Train LoRA.

    Args:
        settings: None where no LoRA Settings are connected. Then whole weights are those of every layer.
    """
    if settings is None:
        return LoraConfig() if trains == LoraConfig.kind else LoraConfig(targets=("everything",), kind=trains)
    return replace(settings, kind=trains)


def supervised_plan(
    images: Sequence[Any],
    captions: Sequence[str],
    clip: Any,
    vae: Any,
    *,
    trigger: str,
    resolution: int,
    preview_prompts: str,
    preview: PreviewSettings,
    config: SupervisedConfig,
) -> SupervisedPlan:
    """Pictures and captions as a plan. Their order does not matter: folders are listed differently everywhere.

    Raises:
        AttuneError: no pictures, or captions that do not fit them.
    """
    from ..host.hashing import text_encoder_hash
    from ..host.sampling import encode_prompts

    pictures = _training_images(images, resolution=resolution)
    texts = caption_lines(captions, len(pictures), trigger=trigger)
    pairs = sorted(zip(pictures, texts, strict=True), key=lambda pair: (picture_key(pair[0]), pair[1]))
    distinct = list(dict.fromkeys(text for _, text in pairs))
    shown = [line.strip() for line in preview_prompts.splitlines() if line.strip()] or distinct
    shown = shown[:_PREVIEWS]
    encoded = encode_prompts(clip, ["", *distinct, *shown])
    known = {text: EncodedText(text, item) for text, item in zip(["", *distinct, *shown], encoded, strict=True)}
    return SupervisedPlan(
        images=[picture for picture, _ in pairs],
        captions=[known[text] for _, text in pairs],
        previews=[known[text] for text in shown],
        negative=known[""],
        vae=vae,
        text_encoder=text_encoder_hash(clip),
        config=config,
        preview=preview,
    )


def single(values: Sequence[Any], name: str) -> Any:
    """The one value of an input of a node that takes lists.

    Raises:
        AttuneError: there are several.
    """
    if len(values) != 1:
        raise AttuneError(f"The input '{name}' got {len(values)} values but takes one. Connect a single value to it.")
    return values[0]


def evaluation_interval(objective: Any, steps: int, asked: int) -> int:
    """Updates between evaluations: as asked for, else as many as the method wants in a run, see `ObjectivePlan`."""
    wanted = getattr(objective, "evaluations", 0)
    return asked or (-(-steps // wanted) if wanted else 0)
