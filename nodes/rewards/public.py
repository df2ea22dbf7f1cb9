"""The public reward models: what they are called, where they come from, and how a file is told to be one of them.

Every model is an image network, a preprocessing and a formula. Where keys and shapes leave a choice, "auto" decides by
this table, first match first; `model_type` decides otherwise.

| layout       | size  | besides                            | auto takes it for  | name shown                     |
| ------------ | ----- | ---------------------------------- | ------------------ | ------------------------------ |
| ImageReward  | any   |                                    | ImageReward        | ImageReward                    |
| aesthetic    | any   |                                    | LAION aesthetic v2 | aesthetic predictor            |
| transformers | any   | config.json: hidden_act quick_gelu | CLIPScore (OpenAI) | CLIPScore ViT-·/· (QuickGELU)  |
| transformers | ViT-H |                                    | PickScore v1       | ViT-H/14 scored as PickScore … |
| transformers | any   | config.json: hidden_act gelu       | CLIPScore (LAION)  | CLIPScore ViT-·/· (GELU)       |
| open_clip    | ViT-H | weights lie under `state_dict`     | HPS v2             | HPS v2 (version not known)     |
| open_clip    | ViT-H | weights lie at the top             | CLIPScore (LAION)  | CLIPScore ViT-H/14 (GELU)      |
| either       | ViT-L | 768 image features, patch 14       | CLIPScore (OpenAI) | CLIPScore ViT-L/14 (QuickGELU) |
| either       | other |                                    | refused: choose    |                                |

A name never claims more than is known: the model's own name is shown if it was chosen, or if the file still has the
name it was published under; where that is another model's name, the name shown asks. Names of files decide
nothing else. (A file called `HPS_v2_1.pt` is a v2.0 model.)

Sources:
    CLIPScore: Hessel et al. 2021 (without its factor 2.5); CLIP: Radford et al. 2021.
    PickScore: Kirstain et al. 2023, exp(logit_scale)·cos. HPS v2: Wu et al. 2023, cos.
    ImageReward: Xu et al. 2023. LAION aesthetic v2: Schuhmann 2022, "improved-aesthetic-predictor".
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...training.interfaces import RewardError
from .clip_tokens import Tokens
from .config_beside import CONFIG, Activation, stated_beside
from .layouts import (
    TITLES,
    Layout,
    PictureTower,
    detect,
    open_clip_config,
    picture_tower,
    text_tower,
    transformers_config,
)
from .preprocessing import Fit

Form = Literal["clip", "ImageReward", "aesthetic"]

# Stands in the id of every reward from a file, by which scores are kept on the disk. Raise it whenever a change in this
# program (preprocessing, tokens, formula, arithmetic) gives any of them another score for the same picture.
SCORING_VERSION = 3
AUTO = "auto"

log = logging.getLogger("attune")


@dataclass(frozen=True)
class PublicModel:
    """One public reward model.

    Attributes:
        name: as the widget `model_type` offers it.
        key: stands in the reward's id.
        form: which kind of network it is.
        source: file, project that publishes it, and size, for messages and the help page.
        typical: where most scores lie.
        fit: how pictures are brought to the network's size.
        sizes: of the picture network, among those that have a name; empty: any.
        activation: of the transformers.
        with_logit_scale: whether the cosine is multiplied by the learned scale.
        tokens: whose tokenizer the model's own program reads prompts with.
    """

    name: str
    key: str
    form: Form
    source: str
    typical: tuple[float, float]
    fit: Fit = "centre"
    sizes: tuple[str, ...] = ()
    activation: Activation = "gelu"
    with_logit_scale: bool = False
    tokens: Tokens = "open_clip"


_HUB = "on the Hugging Face Hub"
OPENAI_CLIP = PublicModel(
    "CLIPScore (OpenAI, QuickGELU)", "clipscore-quickgelu", "clip",
    f"model.safetensors from openai/clip-vit-large-patch14 {_HUB}, 1.7 GB", (0.15, 0.4),
    sizes=("ViT-B", "ViT-L"), activation="quick_gelu",
)  # fmt: skip
LAION_CLIP = PublicModel(
    "CLIPScore (LAION, GELU)", "clipscore-gelu", "clip",
    f"model.safetensors from laion/CLIP-ViT-H-14-laion2B-s32B-b79K {_HUB}, 3.9 GB", (0.15, 0.4),
)  # fmt: skip
PICKSCORE = PublicModel(
    "PickScore v1", "pickscore", "clip", f"model.safetensors from yuvalkirstain/PickScore_v1 {_HUB}, 3.9 GB",
    (19, 22), fit="centre low", sizes=("ViT-H",), with_logit_scale=True, tokens="transformers",
)  # fmt: skip
HPS_2_0 = PublicModel(
    "HPS v2.0", "hps", "clip", f"HPS_v2_compressed.pt from xswu/HPSv2 {_HUB}, about 2 GB", (0.15, 0.31),
    fit="pad", sizes=("ViT-H",),
)  # fmt: skip
HPS_2_1 = PublicModel(
    "HPS v2.1", "hps", "clip", f"HPS_v2.1_compressed.pt from xswu/HPSv2 {_HUB}, about 2 GB", (0.15, 0.31),
    fit="pad", sizes=("ViT-H",),
)  # fmt: skip
IMAGE_REWARD = PublicModel(
    "ImageReward", "imagereward", "ImageReward", f"ImageReward.pt from THUDM/ImageReward {_HUB}, 1.8 GB", (-2.3, 2)
)
AESTHETIC = PublicModel(
    "LAION aesthetic v2", "aesthetic", "aesthetic",
    "sac+logos+ava1-l14-linearMSE.pth from christophschuhmann/improved-aesthetic-predictor on GitHub, 4 MB", (4.5, 7),
)  # fmt: skip
MODELS = (OPENAI_CLIP, LAION_CLIP, PICKSCORE, HPS_2_0, HPS_2_1, IMAGE_REWARD, AESTHETIC)
MODEL_TYPES = (AUTO, *(model.name for model in MODELS))

# Names under which files are published, with folders that people keep them in: for labels and advice only.
_PUBLISHED: tuple[tuple[str, PublicModel], ...] = (
    (r"hps_v2\.1_compressed\.\w+$", HPS_2_1),
    (r"(hps_v2_compressed|hps_v2_1)\.\w+$", HPS_2_0),
    (r"pickscore_v1\.\w+$|pickscore_v1/[^/]+$", PICKSCORE),
    (r"sac\+logos\+ava1-l14-linearmse\.\w+$", AESTHETIC),
    (r"imagereward\.\w+$", IMAGE_REWARD),
    (r"clip-vit-large-patch14(\.\w+$|/[^/]+$)|vit-l-14\.\w+$", OPENAI_CLIP),
    (r"clip-vit-h-14-laion2b-s32b-b79k(\.\w+$|/[^/]+$)", LAION_CLIP),
)


@dataclass(frozen=True)
class Decision:
    """What a file is taken for.

    Attributes:
        model: the public model.
        name: what may be shown.
        picture: the picture network of a CLIP; None for the other forms.
        kind: "clip-hf" or "clip-open_clip" for a CLIP, else the form.
        config: the library's configuration of a CLIP.
        reads_config: whether the config.json beside the file had a part in it.
    """

    model: PublicModel
    name: str
    picture: PictureTower | None
    kind: str
    config: Mapping[str, Any]
    reads_config: bool = False


def published_as(path: Path | str) -> PublicModel | None:
    """The model that is published under this file's name (and folder); says nothing about the content."""
    text = "/".join(Path(path).parts[-2:]).lower()
    return next((model for pattern, model in _PUBLISHED if re.search(rf"(^|/)({pattern})", text)), None)


def where_to_get(name: Path | str) -> str:
    """Where a missing file comes from, as sentences that begin with a space; empty if its name tells nothing."""
    model = published_as(name)
    if model is None:
        return ""
    text = f" {model.name} is {model.source}."
    if model is LAION_CLIP:
        # In the layout of transformers it cannot be told from PickScore.
        text += f" Then set model_type to '{model.name}', since auto scores it as {PICKSCORE.name}."
    return text


def decide(
    shapes: Mapping[str, tuple[int, ...]], path: Path, *, model_type: str = AUTO, nested: bool = False
) -> Decision:
    """What a file is, by the table of the module.

    Args:
        shapes: of all its tensors.
        path: for labels, and for a config.json beside it.
        model_type: one of `MODEL_TYPES`.
        nested: whether the tensors lie under "state_dict".

    Raises:
        RewardError: nothing that is known, or the chosen type contradicts the content; then the message says both.
    """
    chosen = _model_of(model_type)
    layout = detect(shapes)
    if layout is None:
        raise RewardError(_unknown(path, shapes))
    if chosen and chosen.form != _form(layout):
        raise RewardError(
            f"{path.name} is {TITLES[layout]}, by the keys of its tensors, but model_type is '{chosen.name}'. "
            "Set model_type to auto, or choose another file."
        )
    if layout in ("ImageReward", "aesthetic"):
        model = IMAGE_REWARD if layout == "ImageReward" else AESTHETIC
        return Decision(model, _label(model, chosen, path), None, layout, {})
    return _decide_clip(shapes, path, layout, chosen, nested)


def _decide_clip(
    shapes: Mapping[str, tuple[int, ...]], path: Path, layout: Layout, chosen: PublicModel | None, nested: bool
) -> Decision:
    stated = stated_beside(path, shapes) if layout == "transformers" else None
    heads = stated.heads if stated else {}
    picture = picture_tower(shapes, layout, path.name, heads.get("vision_config"))
    text = text_tower(shapes, layout, path.name, heads.get("text_config"))
    model = chosen or _auto(picture, layout, nested, stated.activation if stated else None)
    if model is None:
        raise RewardError(
            f"{path.name} is {TITLES[layout]}, {picture.title} with {picture.projection} image features. Its tensors "
            "do not tell which reward it is. Choose its model_type."
        )
    if chosen and picture.size and model.sizes and picture.size not in model.sizes:
        raise RewardError(
            f"{path.name} holds a {picture.title}, by the shapes of its tensors, but {model.name} is a "
            f"{' or '.join(model.sizes)}. Set model_type to auto, or choose another file."
        )
    if stated and stated.activation != model.activation:
        raise RewardError(
            f"{path.name}: the {CONFIG} beside it says hidden_act '{stated.activation}', but {model.name} is computed "
            f"with '{model.activation}'. Set model_type to auto, or remove that {CONFIG} if it belongs to another "
            "model."
        )
    name = _label(model, chosen, path, picture)
    if layout == "open_clip":
        own = open_clip_config(picture, text, model.activation)
        return Decision(model, name, picture, "clip-open_clip", own)
    own = transformers_config(picture, text, model.activation)
    for part, epsilon in (stated.epsilon if stated else {}).items():
        own[part]["layer_norm_eps"] = epsilon
    return Decision(model, name, picture, "clip-hf", own, stated is not None)


def _auto(picture: PictureTower, layout: Layout, nested: bool, stated: Activation | None) -> PublicModel | None:
    if stated == "quick_gelu":
        return OPENAI_CLIP
    if picture.size == "ViT-H":
        if layout == "transformers":
            return PICKSCORE
        return HPS_2_1 if nested else LAION_CLIP
    if stated == "gelu":
        return LAION_CLIP
    if (picture.size, picture.patch, picture.projection) == ("ViT-L", 14, 768):
        return OPENAI_CLIP
    return None


def _label(model: PublicModel, chosen: PublicModel | None, path: Path, picture: PictureTower | None = None) -> str:
    published = published_as(path)
    if chosen:
        return chosen.name
    if published and published.key == model.key:
        return published.name
    rival = published if published and _may_be(published, picture) else None
    if published:
        advice = f"; if it is one, set model_type to {published.name}" if rival else ""
        log.warning(
            "Attune: %s has the name of %s, but its content is taken for %s%s.", path.name, published.name, model.name,
            advice,
        )  # fmt: skip
    if picture is None:
        return "aesthetic predictor" if model is AESTHETIC else model.name
    if model is PICKSCORE:
        rival = rival or LAION_CLIP
        name = f"{picture.title} scored as PickScore"
    elif model.key == "hps":
        name = "HPS v2 (version not known)"
    else:
        name = f"CLIPScore {picture.title} ({'QuickGELU' if model.activation == 'quick_gelu' else 'GELU'})"
    asked = "a plain CLIP" if rival is LAION_CLIP else rival.name if rival else ""
    return f"{name} ({asked}? Set model_type to {rival.name})" if rival else name


def _may_be(model: PublicModel, picture: PictureTower | None) -> bool:
    """Whether a CLIP of this size may be that model, so that choosing it would be no contradiction."""
    return picture is not None and model.form == "clip" and (not model.sizes or picture.size in model.sizes)


def _model_of(model_type: str) -> PublicModel | None:
    if model_type == AUTO:
        return None
    for model in MODELS:
        if model.name == model_type:
            return model
    raise RewardError(f"There is no model_type {model_type!r}; choose one of: {', '.join(MODEL_TYPES)}.")


def _form(layout: Layout) -> Form:
    return "clip" if layout in ("transformers", "open_clip") else layout


def _unknown(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> str:
    others = (
        ("model.diffusion_model.", "a checkpoint of an image model"),
        ("lora_unet_", "a LoRA"),
        ("text.transformer.", "a CLIP with a text network of its own kind"),
    )
    guess = next((what for mark, what in others if any(key.startswith(mark) for key in shapes)), None)
    looks = f"It looks like {guess}" if guess else f"Its first keys are {sorted(shapes)[:3]}"
    return (
        f"{path.name} cannot be loaded as a reward. {looks}. Supported are {', '.join(m.name for m in MODELS)} in the "
        "layouts of transformers and open_clip, and files whose header has an 'attune.reward' description (kinds "
        "clip-hf and clip-open_clip; the demo rewards are such files). Choose another file."
    )
