"""LoRA files that the host's stock loader and other tools read: kohya keys, float tensors, plain-text metadata."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import read_tensors, write_atomically
from ..interfaces import TrainingError

PREFIX = "lora_unet_"
# The two ways of naming a layer's halves, up and down: kohya's, and that of peft and diffusers.
HALVES = ((".lora_up.weight", ".lora_down.weight"), (".lora_B.weight", ".lora_A.weight"))
# Of whole weights: the difference of a layer's weight, and of its bias.
DIFFERENCES = (".diff", ".diff_b")
UNMOVED = 16 * "f"  # the greatest identity, so that it is none's where there is another
_ENDINGS = (".lora_down.weight", ".lora_up.weight", ".alpha", *DIFFERENCES)
# What every layer has one of.
LAYERS = (".lora_down.weight", ".diff")


@dataclass(frozen=True)
class LoraParent:
    """A LoRA that went into another one: merged into it, or on the model that the other was trained on.

    Attributes:
        weights_id: see `weights_id`; stays the same when the file is renamed.
        name: of its file at that time; "" if it was in none of this pack's.
        strength: with which it went in.
    """

    weights_id: str
    name: str = ""
    strength: float = 1.0


@dataclass(frozen=True)
class LoraMetadata:
    """What a LoRA file says about itself. Empty values are left out.

    Attributes:
        title: shown by model browsers.
        architecture: as Stability's model spec writes it, e.g. "stable-diffusion-v1/lora".
        method: the training method, e.g. "ddpo".
        base_model: name of the checkpoint it was trained on.
        base_hash: identity of that checkpoint's weights.
        data_hash: identity of pictures, captions, prompts and rewards.
        parents: the LoRAs that went into it.
        prediction: "eps", "v" or "flow".
        resolution: width and height of the pictures.
        steps: optimizer updates.
        metrics: final figures.
        version: of this pack.
        date: ISO 8601; the moment of writing if empty.
        reward: formula or name of the reward it was trained to raise.
        reward_id: identity of that reward.
        run: name of the training run; its LoRAs are versions of one another.
        settings: of method, LoRA and training, JSON-able; no prompts.
        base_precision: how the base weights were stored while it trained, "nf4" or "int8"; empty: as they were loaded.
    """

    title: str
    architecture: str = ""
    method: str = ""
    base_model: str = ""
    base_hash: str = ""
    data_hash: str = ""
    parents: Sequence[LoraParent] = ()
    prediction: str = ""
    resolution: tuple[int, int] | None = None
    steps: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    version: str = ""
    date: str = ""
    reward: str = ""
    reward_id: str = ""
    run: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    base_precision: str = ""

    def entries(self, *, rank: int = 0, alpha: float = 0.0) -> dict[str, str]:
        """The header's key-value pairs: modelspec.* (model browsers), ss_* (kohya's tools), attune.* (this pack).

        Args:
            rank: 0 of whole weights, which are none of kohya's networks.
        """
        date = self.date or datetime.now(timezone.utc).isoformat(timespec="seconds")
        size = f"{self.resolution[0]}x{self.resolution[1]}" if self.resolution else ""
        entries = {
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.title": self.title,
            "modelspec.architecture": self.architecture,
            "modelspec.date": date,
            "modelspec.resolution": size,
            "modelspec.prediction_type": {"eps": "epsilon"}.get(self.prediction, self.prediction),
            "ss_network_module": "networks.lora" if rank else "",
            "ss_network_dim": str(rank) if rank else "",
            "ss_network_alpha": str(alpha) if rank else "",
            "ss_output_name": self.title,
            "ss_sd_model_name": self.base_model,
            "ss_base_model_version": self.architecture.removesuffix("/lora"),
            "ss_steps": str(self.steps) if self.steps else "",
            "attune.method": self.method,
            "attune.base_hash": self.base_hash,
            "attune.data_hash": self.data_hash,
            "attune.run": self.run,
            "attune.parents": json.dumps([asdict(parent) for parent in self.parents]) if self.parents else "",
            "attune.reward": self.reward,
            "attune.reward_id": self.reward_id,
            "attune.settings": json.dumps(dict(self.settings)) if self.settings else "",
            "attune.metrics": json.dumps(dict(self.metrics)) if self.metrics else "",
            "attune.base_precision": self.base_precision,
            "attune.version": self.version,
        }
        return {name: value for name, value in entries.items() if value}


def layer_id(*parts: torch.Tensor) -> str:
    """Identity of one layer's two matrices, up and down, or of the difference of its weight, whatever the layer is
    called: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def weights_id(tensors: Mapping[str, torch.Tensor]) -> str:
    """Identity of a LoRA's weights, whatever its layers and its file are called: the least of its `layer_id`.

    So a LoRA that a model carries can be recognised: its identity is among those of the model's patches. "" if there is
    no layer.
    """
    return weights_id_of(tensors.keys(), tensors.__getitem__)


def weights_id_of(names: Collection[str], read: Callable[[str], torch.Tensor]) -> str:
    """`weights_id` of a file, with one layer in memory at a time.

    By its pairs of `HALVES`; by the differences of weights, one each, where there is no pair.

    Args:
        names: of all its tensors; read: gives one of them.
    """
    names = frozenset(names)
    pairs = [
        (key, key.removesuffix(up) + down)
        for up, down in HALVES
        for key in names
        if key.endswith(up) and key.removesuffix(up) + down in names
    ]
    if pairs:
        return min(layer_id(read(up), read(down)) for up, down in pairs)
    return min((difference_id(read(key)) for key in names if key.endswith(DIFFERENCES[0])), default="")


def difference_id(difference: torch.Tensor) -> str:
    """`layer_id` of a difference of a weight. One that nothing has moved would be the same in many files: `UNMOVED`."""
    return layer_id(difference) if difference.count_nonzero() else UNMOVED


def _split(name: str) -> tuple[str, str]:
    for ending in _ENDINGS:
        if name.endswith(ending):
            return name.removesuffix(ending), ending
    raise TrainingError(f"{name!r} is not a LoRA tensor: it ends in none of {', '.join(_ENDINGS)}.")


def lora_file_tensors(
    tensors: Mapping[str, torch.Tensor], module_prefix: str = PREFIX, rename: Mapping[str, str] | None = None
) -> dict[str, torch.Tensor]:
    """`Policy.tensors` with the keys of a LoRA file.

    Args:
        tensors: `<module path>.lora_down.weight`, `.lora_up.weight`, `.alpha`; `.diff`, `.diff_b`.
        module_prefix: put before a path whose dots become underscores.
        rename: module path → whole file key, where that rule does not hold.

    Raises:
        TrainingError: two layers would get the same key.
    """
    rename, owners, result = rename or {}, {}, {}
    for name, value in tensors.items():
        path, ending = _split(name)
        key = rename.get(path, module_prefix + path.replace(".", "_"))
        if owners.setdefault(key, path) != path:
            raise TrainingError(f"{owners[key]} and {path} would both be saved as {key!r}.")
        result[key + ending] = value
    return result


def module_tensors(
    file_tensors: Mapping[str, torch.Tensor],
    paths: Iterable[str],
    module_prefix: str = PREFIX,
    rename: Mapping[str, str] | None = None,
) -> dict[str, torch.Tensor]:
    """The inverse of `lora_file_tensors`, for `Policy.load_tensors`.

    Args:
        paths: of the layers that may appear (`Policy.paths`); keys of other layers are kept as they are, so that
            `Policy.load_tensors` names them when it refuses.
    """
    known = {(rename or {}).get(path, module_prefix + path.replace(".", "_")): path for path in paths}
    result = {}
    for name, value in file_tensors.items():
        key, ending = _split(name)
        result[known.get(key, key) + ending] = value
    return result


def save_lora(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    *,
    metadata: LoraMetadata,
    rename: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a LoRA file, whole or not at all.

    Args:
        path: ends in .safetensors; an existing file is replaced.
        tensors: as `Policy.tensors` gives them.
        rename: see `lora_file_tensors`.
        dtype: of the stored weights; None keeps theirs.

    Raises:
        TrainingError: the name has another ending, there is nothing to save, or a tensor is not finite.
        CheckpointError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    if Path(path).suffix != ".safetensors":
        raise TrainingError(f"A LoRA file must end in .safetensors, not {Path(path).name!r}.")
    if not any(name.endswith(LAYERS) for name in tensors):
        raise TrainingError("There is nothing to save: the LoRA has no layers.")
    broken = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
    if broken:
        raise TrainingError(f"The LoRA is not saved: {broken[0]} holds values that are not finite.")
    ranks = [value.shape[0] for name, value in tensors.items() if name.endswith(".lora_down.weight")]
    alphas = [float(value) for name, value in tensors.items() if name.endswith(".alpha")]
    entries = metadata.entries(rank=ranks[0], alpha=(alphas or ranks)[0]) if ranks else metadata.entries()
    stored = lora_file_tensors(tensors, rename=rename)
    if dtype is not None:
        stored = {name: value.to(dtype) for name, value in stored.items()}
    write_atomically(path, stored, entries | {"attune.weights_id": weights_id(stored)})


def load_lora(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a LoRA file, one of whole weights too: its tensors by their keys in the file, and its metadata.

    Raises:
        CheckpointError: missing or unreadable.
        TrainingError: a safetensors file without LoRA layers.
    """
    tensors, metadata = read_tensors(path)
    if not any(name.endswith(LAYERS) for name in tensors):
        raise TrainingError(f"{path} holds no LoRA layers (no key ends in {' or '.join(LAYERS)}). Choose a LoRA file.")
    return tensors, metadata
