"""Reading reward model files: tensors and plain values, never a program."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import torch

from ...training.interfaces import RewardError
from ...training.vlm_base import is_vision_language
from ...training.vlm_reward import is_trained

HEADER = "attune.reward"
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
PARALLEL = "module."

_SHARD = re.compile(r"-\d{5}-of-\d{5}\.")


@dataclass(frozen=True)
class RewardFile:
    """What a file holds.

    Attributes:
        path: where it lies.
        tensors: on the CPU, most of them still on the disk until they are used; emptied by whoever builds the network.
        header: the description that our own files have, as text or parsed; None for all others.
        nested: whether the tensors lay under "state_dict" instead of at the top.
    """

    path: Path
    tensors: dict[str, torch.Tensor]
    header: Any = None
    nested: bool = False

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {key: tuple(tensor.shape) for key, tensor in self.tensors.items()}


def read_file(path: Path, keep: Callable[[str], bool] = lambda key: True) -> RewardFile:
    """Read a file whose existence has been checked.

    Args:
        path: a .safetensors, .pt, .pth or .bin file.
        keep: which tensors are wanted, by their keys without the prefix that parallel training puts before them.

    Raises:
        RewardError: another ending, damaged, or holding more than tensors and plain values.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise RewardError(f"{path.name} is no reward model file; these endings can be read: {', '.join(SUFFIXES)}.")
    found = _read_safetensors(path, keep) if suffix == ".safetensors" else _read_pickle(path)
    return RewardFile(path, _plain_keys(found.tensors, keep), found.header, found.nested)


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a safetensors file from its header alone; empty for any other file."""
    from safetensors import SafetensorError, safe_open

    if Path(path).suffix.lower() != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            keys = file.keys()
            return {key.removeprefix(PARALLEL): tuple(file.get_slice(key).get_shape()) for key in keys}
    except (SafetensorError, OSError):
        return {}


def describes_reward(path: Path) -> bool:
    """Whether the header of a safetensors file holds a reward's description; reads the header alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return HEADER in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def offered(files: Mapping[str, Path], demo_folder: Path) -> list[str]:
    """Those of the files in reward folders that may be a reward of their own.

    Not: what else lies among the pack's demo files, trained rewards of vision-language models and the weights of such
    models, which other nodes load, and parts of weights, which are nothing alone.

    Args:
        files: by their names relative to the reward folder.
        demo_folder: the pack's, which is a folder of checkpoints too.
    """
    demo, big = demo_folder.resolve(), cache(is_vision_language)

    def loadable(name: str, path: Path) -> bool:
        if path.resolve().is_relative_to(demo):
            return describes_reward(path)
        inside = path.parents[: len(PurePath(name).parts) - 1]
        if any(big(folder) for folder in inside):
            return False
        if _SHARD.search(path.name) and any(path.parent.glob("*.index.json")):
            return False
        return not (path.suffix.lower() == ".safetensors" and is_trained(path))

    return [name for name, path in files.items() if loadable(name, path)]


def listed_name(path: PurePath, folder: PurePath) -> str:
    """A file's name as the host lists it: relative to the folder, with the system's own separators."""
    return str(path.relative_to(folder))


def _plain_keys(tensors: dict[str, torch.Tensor], keep: Callable[[str], bool]) -> dict[str, torch.Tensor]:
    if tensors and all(key.startswith(PARALLEL) for key in tensors):
        tensors = {key.removeprefix(PARALLEL): tensor for key, tensor in tensors.items()}
    return {key: tensor for key, tensor in tensors.items() if keep(key)}


def _read_safetensors(path: Path, keep: Callable[[str], bool]) -> RewardFile:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            wanted = [key for key in file.keys() if keep(key.removeprefix(PARALLEL))]  # noqa: SIM118
            tensors = {key: file.get_tensor(key) for key in wanted}
            return RewardFile(path, tensors, (file.metadata() or {}).get(HEADER))
    except (SafetensorError, OSError) as error:
        raise RewardError(
            f"{path} is not a readable safetensors file ({error}). Get the file again, or choose another."
        ) from error


def _read_pickle(path: Path) -> RewardFile:
    _refuse_programs(path)
    try:
        # Mapped tensors cost memory only when they are copied into the network; old files cannot be mapped.
        mapped = zipfile.is_zipfile(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
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
    tensors = {key: value for key, value in weights.items() if isinstance(value, torch.Tensor)}
    nameless = [key for key in tensors if not isinstance(key, str)]
    if nameless:
        raise RewardError(
            f"{path.name} holds tensors under {nameless[0]!r} instead of a name, so it is no table of a network's "
            "weights. Choose another file."
        )
    return RewardFile(path, tensors, content.get(HEADER), "state_dict" in content)


def _refuse_programs(path: Path) -> None:
    """TorchScript archives, such as OpenAI's ViT-L-14.pt, are programs."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise RewardError(f"{path.name} is damaged or no torch file ({error}). Get the file again.") from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise RewardError(
            f"{path.name} is a TorchScript archive, which holds a program, and is not opened. OpenAI's ViT-L-14.pt "
            "is such a file: take model.safetensors from openai/clip-vit-large-patch14 on the Hugging Face Hub "
            "instead; it holds the same weights."
        )
