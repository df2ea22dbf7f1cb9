"""Where things are: the host's folders that the pack reads and writes. Names from a workflow never leave them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

import folder_paths

from ...training.interfaces import AttuneError

log = logging.getLogger("attune")

REWARDS = "rewards"
# User adapters, and the set encoders that belong to them.
USER_ADAPTERS = "user_adapters"
# Language models; the name that other packs use as well.
LANGUAGE_MODELS = "LLM"
REWARD_EXTENSIONS = {".safetensors", ".pt", ".pth", ".bin"}
DEMO_FOLDER = Path(__file__).parents[2] / "workflows" / "demo"
DEMO_LORAS = DEMO_FOLDER / "loras"

_WINDOWS_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


def register_folders() -> None:
    """Add our model folders, and the pack's demo files to them and to the host's checkpoints and LoRAs. Idempotent."""
    for name, extensions in ((REWARDS, REWARD_EXTENSIONS), (USER_ADAPTERS, {".safetensors"})):
        folder = Path(folder_paths.models_dir) / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            log.warning("Attune: %s cannot be made (%s); only other folders of its kind are read.", folder, error)
        _add(name, folder)
        _add(name, DEMO_FOLDER)
        # A folder that is new to the host has an empty extension set, which would let every file through.
        paths, known = folder_paths.folder_names_and_paths[name]
        folder_paths.folder_names_and_paths[name] = (paths, set(known) | extensions)
    _add(LANGUAGE_MODELS, Path(folder_paths.models_dir) / LANGUAGE_MODELS)
    _add("checkpoints", DEMO_FOLDER)
    _add("loras", DEMO_LORAS)


def _add(name: str, folder: Path) -> None:
    if str(folder) not in folder_paths.folder_names_and_paths.get(name, ([],))[0]:
        folder_paths.add_model_folder_path(name, str(folder))


def safe_name(name: str, *, room: int = 0) -> str:
    """Turn any text into a plain file name: no separators, no leading dots, no device names, at most 80 characters.

    And at most 160 bytes, since most file systems end a name at 255 bytes, of which a Chinese letter takes three.

    Args:
        room: characters and bytes to leave free for what will stand behind the name.

    Raises:
        AttuneError: nothing usable is left of the name.
    """
    plain = re.sub(r"[^\w\-. ()\[\]]+", "_", name, flags=re.UNICODE)[: 80 - room]
    plain = plain.encode()[: 160 - room].decode(errors="ignore").strip(" ._")
    if not plain:
        raise AttuneError(f"{name!r} cannot be a file name. Use letters, digits, spaces, - or _.")
    return f"_{plain}" if _WINDOWS_DEVICES.match(plain) else plain


def lora_folder() -> Path:
    """The folder of our LoRAs, inside the host's first LoRA folder."""
    return Path(folder_paths.get_folder_paths("loras")[0]) / "attune"


def free_path(folder: Path, name: str, ending: str = "", *, beside: Callable[[Path], Path] | None = None) -> Path:
    """A path for a new file in `folder`: `<name><ending>_<number>.safetensors`, the first number that is free.

    Args:
        name: of the run; a long one is cut, the ending and the number never are.
        ending: plain letters, e.g. "_stopped".
        beside: names a second file that belongs to the first, and must be free too.

    Raises:
        AttuneError: the name is empty or consists of separators only.
    """
    stem, number = safe_name(name, room=len(f"{ending}_001")) + ending, 1
    while True:
        path = folder / f"{stem}_{number:03d}.safetensors"
        if not path.exists() and not (beside and beside(path).exists()):
            return path
        number += 1


def lora_output_path(name: str, ending: str = "") -> Path:
    """A path for a new LoRA file in `lora_folder()`, as `free_path`."""
    return free_path(lora_folder(), name, ending)


def trained_reward_folder() -> Path:
    """The folder of the rewards that are trained here, inside the host's first reward folder."""
    return Path(folder_paths.get_folder_paths(REWARDS)[0]) / "attune"


def user_adapter_folder() -> Path:
    """The folder of the user adapters that are trained here, inside the host's first one of them."""
    return Path(folder_paths.get_folder_paths(USER_ADAPTERS)[0]) / "attune"


def lora_name(path: Path) -> str:
    """A LoRA file's name as the stock LoRA loader lists it, e.g. "attune/warm.safetensors"."""
    return os.path.relpath(path, folder_paths.get_folder_paths("loras")[0])


def user_folder() -> Path:
    """What the pack keeps for the user: `<host's user directory>/attune`. Not created here."""
    return Path(folder_paths.get_user_directory()) / "attune"


def run_folder(name: str) -> Path:
    """The folder of the training run `name`. Not created here.

    Raises:
        AttuneError: the name is empty or consists of separators only.
    """
    return user_folder() / "runs" / safe_name(name)
