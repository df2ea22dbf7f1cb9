"""Reward model files: what can be read, and a clear word about what cannot."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...training.checkpoint import CheckpointError, read_tensors
from ...training.interfaces import RewardError
from .cache import CachedReward
from .clip import KINDS, ClipHeader, ClipReward, build_network, whole_token_table

HEADER = "attune.reward"
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

# Recognised by their keys, to say what a file is rather than only that it is not understood.
_KNOWN_LAYOUTS = (
    ("blip.", "an ImageReward model"),
    ("vision_model.", "a CLIP model in the layout of transformers (such as PickScore)"),
    ("visual.", "a CLIP model in the layout of open_clip (such as HPS)"),
    ("layers.0.weight", "a LAION aesthetic predictor"),
    ("model.diffusion_model.", "a checkpoint of an image model"),
    ("lora_unet_", "a LoRA"),
)

_hashes: dict[tuple[str, int, int], str] = {}


def file_digest(path: Path) -> str:
    """sha256 of the content, 64 hex digits. Read again only when size or time of the file has changed."""
    path = Path(path).resolve()
    status = path.stat()
    key = (str(path), status.st_mtime_ns, status.st_size)
    if key not in _hashes:
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
        _hashes[key] = digest.hexdigest()
    return _hashes[key]


def load_reward(path: Path | str, device: torch.device | str = "auto", *, dtype: str = "fp32") -> CachedReward:
    """Load a reward model.

    Args:
        path: a safetensors file whose header holds "attune.reward" (see `ClipHeader`), or a .pt/.pth/.bin file of
            tensors and plain values only: {"attune.reward": the same JSON, "state_dict": weights}.
        device: where to compute; "auto" takes an accelerator if torch has one.
        dtype: arithmetic of the network, one of `DTYPES`.

    Returns:
        A cached, differentiable reward; `.reward` is the bare `ClipReward`.

    Raises:
        RewardError: the file is missing, damaged, or of a layout that cannot be loaded; then the message lists those
            that can.
    """
    path = Path(path)
    if dtype not in DTYPES:
        raise RewardError(f"There is no precision {dtype!r}; choose one of: {', '.join(DTYPES)}.")
    tensors, text = _read(path)
    if text is None:
        raise RewardError(_unknown_layout(path, tensors))
    try:
        document = json.loads(text) if isinstance(text, str) else text
    except json.JSONDecodeError as error:
        raise RewardError(f"{path.name}: the header '{HEADER}' is not JSON ({error}). Save the file again.") from error
    header = ClipHeader.read(document, path.name)
    network = build_network(header, whole_token_table(tensors, header, path.name), path.name)
    reward_id = f"{header.kind}:{file_digest(path)[:16]}:{dtype}"
    reward = ClipReward(header, network, reward_id=reward_id, device=resolve_device(device), dtype=DTYPES[dtype])
    return CachedReward(reward)


def resolve_device(device: torch.device | str) -> torch.device:
    """A torch device; "auto" is the accelerator if torch has one, else the CPU."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _read(path: Path) -> tuple[dict[str, torch.Tensor], Any]:
    """Weights, and the header or None."""
    if not path.is_file():
        raise RewardError(
            f"The reward model {path.name} is not in {path.parent}. Put the file there and refresh the node "
            "definitions (press R), or choose another file."
        )
    if path.suffix.lower() == ".safetensors":
        try:
            tensors, metadata = read_tensors(path)
        except CheckpointError as error:
            raise RewardError(str(error)) from error
        return tensors, metadata.get(HEADER)
    if path.suffix.lower() not in SUFFIXES:
        raise RewardError(f"{path.name} is no reward model file; these endings can be read: {', '.join(SUFFIXES)}.")
    return _read_pickle(path)


def _read_pickle(path: Path) -> tuple[dict[str, torch.Tensor], Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RewardError(
            f"{path.name} was not opened: it is damaged, or holds more than tensors and plain values, and then loading "
            "it could run a stranger's program. Ask its author for a .safetensors file."
        ) from error
    except Exception as error:  # torch takes any bytes for a pickle's commands, which then fail in every way there is
        raise RewardError(f"{path.name} is damaged or no torch file ({error}). Get the file again.") from error
    if not isinstance(content, Mapping):
        raise RewardError(f"{path.name} holds a {type(content).__name__}, not a table of weights. Choose another file.")
    weights = content.get("state_dict", content)
    if not isinstance(weights, Mapping):
        raise RewardError(f"{path.name}: its 'state_dict' is a {type(weights).__name__}, not a table of weights.")
    return {key: value for key, value in weights.items() if isinstance(value, torch.Tensor)}, content.get(HEADER)


def _unknown_layout(path: Path, tensors: Mapping[str, torch.Tensor]) -> str:
    guess = next((what for mark, what in _KNOWN_LAYOUTS if any(key.startswith(mark) for key in tensors)), None)
    looks = f"It looks like {guess}" if guess else f"Its first keys are {sorted(tensors)[:3]}"
    return (
        f"{path.name} cannot be loaded as a reward: its header has no '{HEADER}' description. {looks}. Supported are "
        f"files with that description, of the kinds {' and '.join(KINDS)} (the demo rewards are such files). "
        "Choose another file."
    )


def describes_reward(path: Path) -> bool:
    """Whether the header of a safetensors file holds a reward's description; reads the header alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return HEADER in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False
