"""Language models from local files: which there are, and how they are loaded. Nothing is downloaded.

A model is a folder of `transformers`' own layout (config.json, *.safetensors, tokenizer files) or one GGUF file, which
holds weights and tokenizer and is dequantised while it is loaded; that needs the Python package `gguf`. No code of a
model's folder is run, and no pickle is opened.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...training.digests import file_digests
from ...training.libraries import no_kernels, quiet_transformers
from .checks import RefinementError

GGUF = ".gguf"
_CONTENT = {".json", ".safetensors", ".txt", ".model", ".jinja", GGUF}


@dataclass
class LanguageModel:
    """A loaded model.

    Attributes:
        name: of the folder or file.
        digest: of its content, 64 hex digits.
        tokenizer: with or without a chat template.
        model: a causal language model, frozen, in eval mode.
        texts: what each token says, made when first asked for.
    """

    name: str
    digest: str
    tokenizer: Any
    model: nn.Module
    texts: list[str] = field(default_factory=list, repr=False)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def language_models(roots: Iterable[Path]) -> dict[str, Path]:
    """The models that lie directly in these folders, by name: GGUF files, and folders of either kind."""
    found: dict[str, Path] = {}
    for root in roots:
        for entry in sorted(root.iterdir()) if root.is_dir() else []:
            if entry.suffix.lower() == GGUF or (entry.is_dir() and _is_model(entry)):
                found.setdefault(entry.name, entry)
    return found


def _is_model(folder: Path) -> bool:
    if any(folder.glob(f"*{GGUF}")):
        return True
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    architectures = config.get("architectures") if isinstance(config, dict) else None
    return not architectures or any("CausalLM" in str(name) or "LMHead" in str(name) for name in architectures)


def check_model(path: Path) -> tuple[Path, str | None]:
    """Refuse what cannot be loaded, before any library is imported.

    Returns:
        (folder, name of the GGUF file in it or None).

    Raises:
        RefinementError: nothing there, no model, only pickles, or a model that needs a stranger's code.
    """
    path = Path(path)
    if path.is_file():
        if path.suffix.lower() != GGUF:
            raise RefinementError(f"{path.name} is no GGUF file. Choose a *.gguf file, or a model's folder.")
        return path.parent, path.name
    if not path.is_dir():
        raise RefinementError(f"There is no language model {path.name!r}. Choose a folder or a *.gguf file.")
    if not (path / "config.json").is_file():
        files = sorted(path.glob(f"*{GGUF}"))
        if len(files) == 1:
            return path, files[0].name
        if files:
            raise RefinementError(f"{path.name} holds {len(files)} GGUF files. Choose one of them: {files[0].name}, …")
        raise RefinementError(
            f"{path.name} is no language model: it has neither a config.json nor a *.gguf file. Put the whole model "
            "there."
        )
    if not any(path.glob("*.safetensors")):
        raise RefinementError(
            f"{path.name} has no *.safetensors weights; other kinds can run a stranger's program when they are opened. "
            "Get the model's *.safetensors files, or a *.gguf file of it."
        )
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RefinementError(
            f"The config.json of {path.name} is not readable ({error}). Get the file again."
        ) from None
    if not isinstance(config, dict):
        raise RefinementError(f"The config.json of {path.name} holds no settings of a model. Get the file again.")
    if "auto_map" in config:
        raise RefinementError(
            f"{path.name} needs program code that comes with the model, which is never run here. Choose a model that "
            "transformers knows by itself, such as Llama, Qwen, Gemma, Mistral, Phi or SmolLM."
        )
    return path, None


def model_digest(path: Path) -> str:
    """sha256 over the files that decide what a model writes; 64 hex digits."""
    folder, gguf = check_model(path)
    files = [folder / gguf] if gguf else sorted(file for file in folder.iterdir() if file.suffix in _CONTENT)
    digest = hashlib.sha256()
    for file, content in zip(files, file_digests(files), strict=True):
        digest.update(f"{file.name}:{content}\n".encode())
    return digest.hexdigest()


def load_language_model(
    path: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> LanguageModel:
    """Load a model.

    Args:
        path: a folder, or a *.gguf file.
        device: where it computes.
        dtype: of weights and arithmetic.

    Raises:
        RefinementError: see `check_model`; or a package is missing, or transformers refuses the model.
    """
    folder, gguf = check_model(path)
    if gguf:
        _need_gguf()
    with no_kernels():
        try:
            import transformers
        except ImportError as error:
            raise RefinementError(f"Language models need the Python package transformers ({error}).") from error
    # Versions of transformers before 4.56 call it torch_dtype.
    precision = {"dtype" if hasattr(transformers.PretrainedConfig(), "dtype") else "torch_dtype": dtype}
    # Left out, transformers would ask at the console whether to run a tokenizer's own program.
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False} | (
        {"gguf_file": gguf} if gguf else {}
    )
    name = gguf or folder.name
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]), quiet_transformers(transformers), _no_bars():
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
        except Exception as error:  # every kind of tokenizer fails in its own way
            raise RefinementError(f"The tokenizer of {name} cannot be loaded ({_first_line(error)}).") from error
        weights = {} if gguf else {"use_safetensors": True}
        try:
            model, found = transformers.AutoModelForCausalLM.from_pretrained(
                folder, output_loading_info=True, **options, **precision, **weights
            )
        except Exception as error:  # a wrong model fails in as many ways as there are models
            raise RefinementError(
                f"{name} cannot be loaded as a language model ({_first_line(error)}). Choose another one, or update "
                "the Python package transformers."
            ) from error
    missing = sorted(found["missing_keys"])
    if missing:
        raise RefinementError(f"{name} lacks {len(missing)} weights, such as {missing[0]}. Get the whole model.")
    model.eval().requires_grad_(False).to(device)
    return LanguageModel(name, model_digest(path), tokenizer, model)


def _need_gguf() -> None:
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise RefinementError(
            "GGUF files need the Python package gguf, which is not there. Install it with the host's Python (pip "
            "install gguf) and restart, or use a model folder with *.safetensors."
        ) from error


@contextmanager
def _no_bars() -> Iterator[None]:
    """No progress bars while GGUF weights are dequantised; transformers' own switch does not reach them."""
    try:
        import transformers.modeling_gguf_pytorch_utils as module
    except ImportError:
        yield
        return
    bar = getattr(module, "tqdm", None)
    if bar is None:
        yield
        return
    module.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        module.tqdm = bar


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__
