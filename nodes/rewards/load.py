"""From a reward model file to a reward: our own files by their description, public ones by what is in them."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...training.digests import file_digest
from ...training.interfaces import RewardError
from ...training.preference.set_encoder import features_id
from . import aesthetic, image_reward
from .cache import CachedReward
from .clip import ClipHeader, ClipReward, build_network, whole_token_table
from .config_beside import config_path
from .files import HEADER, SUFFIXES, RewardFile, describes_reward, read_file
from .networks import NetworkReward, linear_head
from .preprocessing import OPENAI_MEAN, OPENAI_STD, Preprocessing
from .public import AUTO, SCORING_VERSION, Decision, decide, where_to_get

__all__ = ["DTYPES", "Companions", "describes_reward", "file_digest", "fingerprint", "load_reward", "missing_file"]

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Predictors have 4 MB; a file beyond this is not read to find out whether it is one.
LARGEST_PREDICTOR = 64 << 20

log = logging.getLogger("attune")


@dataclass(frozen=True)
class Companions:
    """Where the other files lie that some models need.

    Attributes:
        folders: folders of reward models, searched for the word list of ImageReward.
        clip: the CLIP of the aesthetic predictor; None for the first of `candidates` that fits.
        candidates: files that may hold one, in the order of preference.
    """

    folders: tuple[Path, ...] = ()
    clip: Path | None = None
    candidates: tuple[Path, ...] = ()

    @classmethod
    def beside(cls, path: Path) -> Companions:
        """Whatever lies in the folder of a reward file."""
        files = sorted(file for file in path.parent.glob("*") if file.suffix.lower() in SUFFIXES and file != path)
        return cls(candidates=tuple(files))


def load_reward(
    path: Path | str,
    device: torch.device | str = "auto",
    *,
    dtype: str = "fp32",
    model_type: str = AUTO,
    companions: Companions | None = None,
) -> CachedReward:
    """Load a reward model.

    Args:
        path: a .safetensors, .pt, .pth or .bin file: either one whose header holds "attune.reward" (see `ClipHeader`;
            in a torch file: {"attune.reward": the same JSON, "state_dict": weights}), or a public model (see `public`).
        device: where to compute; "auto" takes an accelerator if torch has one.
        dtype: arithmetic of the network, one of `DTYPES`.
        model_type: what a public file is, one of `public.MODEL_TYPES`.
        companions: other files; by default those in the same folder.

    Returns:
        A cached, differentiable reward; `.reward` is the bare one.

    Raises:
        RewardError: the file or a companion is missing, damaged, or of a layout that cannot be loaded; then the message
            says what to do.
    """
    path = Path(path)
    if dtype not in DTYPES:
        raise RewardError(f"There is no precision {dtype!r}; choose one of: {', '.join(DTYPES)}.")
    if not path.is_file():
        raise missing_file(path.name, [path.parent])
    file, where = read_file(path), resolve_device(device)
    if file.header is None:
        companions = Companions.beside(path) if companions is None else companions
        return CachedReward(_load_public(file, model_type, companions, where, dtype))
    if model_type != AUTO:
        raise RewardError(
            f"{path.name} describes itself in its header, but model_type is '{model_type}'. Set model_type to auto."
        )
    return CachedReward(_load_own(file, where, dtype))


def missing_file(name: str, folders: Sequence[Path | str]) -> RewardError:
    """The error for a file that is in none of the folders."""
    advice = where_to_get(Path(folders[0], name)) or (
        " The help page of Load Reward Model has a table of the public models: what their files are called, and who "
        "has them."
    )
    return RewardError(
        f"The reward model '{name}' is not in {' or '.join(map(str, folders))}.{advice} Put the file there and refresh "
        "the node definitions (press R), or choose another file."
    )


def resolve_device(device: torch.device | str) -> torch.device:
    """A torch device; "auto" is the accelerator if torch has one, else the CPU."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def fingerprint(path: Path, companions: Companions) -> str:
    """Changes whenever loading this file could give another reward: with its content, and with what belongs to it."""
    parts = [file_digest(path)]
    small = [config_path(path)]
    small += [path.parent / name for name in image_reward.VOCABULARY_FILES]
    for folder in (path.parent, *companions.folders):
        small += [folder / image_reward.VOCABULARY_FOLDER / name for name in image_reward.VOCABULARY_FILES]
    parts += [file_digest(file) for file in small if file.is_file()]
    if path.stat().st_size <= LARGEST_PREDICTOR:
        try:
            parts.append(file_digest(_clip_of(read_file(path), companions)))
        except RewardError:
            parts.append("no predictor")
    return "-".join(parts)


def _load_own(file: RewardFile, device: torch.device, dtype: str) -> ClipReward:
    name, text = file.path.name, file.header
    try:
        document = json.loads(text) if isinstance(text, str) else text
    except json.JSONDecodeError as error:
        raise RewardError(f"{name}: the header '{HEADER}' is not JSON ({error}). Save the file again.") from error
    header = ClipHeader.read(document, name)
    tensors = whole_token_table(file.tensors, header, name)
    file.tensors.clear()
    network = build_network(header, tensors, name, dtype=DTYPES[dtype])
    reward_id = f"{header.kind}:v{SCORING_VERSION}:{file_digest(file.path)[:16]}:{dtype}"
    return ClipReward(
        header, network, reward_id=reward_id, device=device, dtype=DTYPES[dtype], features_id=features_id(file.path)
    )


def _load_public(
    file: RewardFile, model_type: str, companions: Companions, device: torch.device, dtype: str
) -> NetworkReward:
    decision = decide(file.shapes, file.path, model_type=model_type, nested=file.nested)
    typical = "most scores lie between {:g} and {:g}".format(*decision.model.typical)
    log.info("Attune: %s is loaded as %s; %s.", file.path.name, decision.name, typical)
    arguments = {"device": device, "dtype": DTYPES[dtype]}
    identity = [decision.model.key, f"v{SCORING_VERSION}", file_digest(file.path)[:16], dtype]
    if decision.model.form == "ImageReward":
        return _load_image_reward(file, decision, companions, identity, arguments)
    if decision.model.form == "aesthetic":
        return _load_aesthetic(file, decision, companions, identity, arguments)
    return _load_clip(file, decision, identity, arguments)


def _load_clip(file: RewardFile, decision: Decision, identity: list[str], arguments: dict[str, Any]) -> ClipReward:
    size, model = decision.picture.image_size, decision.model
    header = ClipHeader(decision.kind, decision.name, size, OPENAI_MEAN, OPENAI_STD, decision.config)
    network = build_network(
        header, file.tensors, file.path.name, dtype=arguments["dtype"], described_by="tensor shapes"
    )
    if decision.reads_config:
        identity.append(file_digest(config_path(file.path))[:16])
    return ClipReward(
        header,
        network,
        reward_id=":".join(identity),
        prepare=Preprocessing(size, model.fit),
        with_logit_scale=model.with_logit_scale,
        tokens=model.tokens,
        # What a file cannot tell, how pictures and texts are brought to the network, is part of the features.
        features_id=f"{features_id(file.path)}:{model.key}",
        **arguments,
    )


def _load_image_reward(
    file: RewardFile, decision: Decision, companions: Companions, identity: list[str], arguments: dict[str, Any]
) -> image_reward.ImageReward:
    name = file.path.name
    vocabulary = image_reward.find_vocabulary(file.path, companions.folders)
    network = image_reward.build(file.tensors, name, arguments["dtype"])
    tokenizer = image_reward.load_tokenizer(vocabulary, network["text"].config.vocab_size, name)
    reward_id = ":".join([*identity, file_digest(vocabulary)[:16]])
    return image_reward.ImageReward(decision.name, network, tokenizer, reward_id=reward_id, **arguments)


def _load_aesthetic(
    file: RewardFile, decision: Decision, companions: Companions, identity: list[str], arguments: dict[str, Any]
) -> aesthetic.AestheticReward:
    clip = _clip_of(file, companions)
    width = file.shapes["layers.0.weight"][1]
    head = linear_head(file.tensors, file.path.name)
    layout, picture, network = aesthetic.load_clip(clip, width, arguments["dtype"])
    log.info("Attune: %s scores the image features of %s.", file.path.name, clip)
    return aesthetic.AestheticReward(
        f"{decision.name} (on {clip.name})",
        aesthetic.encoder_of(layout),
        nn.ModuleDict({"clip": network, "head": head}),
        Preprocessing(picture.image_size, decision.model.fit),
        reward_id=":".join([*identity, file_digest(clip)[:16]]),
        **arguments,
    )


def _clip_of(file: RewardFile, companions: Companions) -> Path:
    """The CLIP that an aesthetic predictor uses.

    Raises:
        RewardError: the file is no predictor, or there is no CLIP for it.
    """
    shape = file.shapes.get("layers.0.weight", ())
    if len(shape) != 2:
        raise RewardError(
            f"{file.path.name}: layers.0.weight is no matrix (shape {list(shape)}), so this is no aesthetic predictor. "
            "Get the file again, or choose another."
        )
    if companions.clip is not None:
        return companions.clip
    return aesthetic.find_clip(companions.candidates, shape[1], file.path)
