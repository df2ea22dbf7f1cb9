"""Vision-language models from local folders: checked, identified, and loaded in 32, 16 or 4 bits.

A folder is one of `transformers`' own layout: config.json, safetensors weights, tokenizer and processor files. Nothing
is downloaded and no code of the folder is run.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from .digests import file_digests
from .interfaces import RewardError
from .libraries import no_kernels, quiet_transformers
from .memory import ran_out, telling

Precision = Literal["fp32", "bf16", "fp16", "nf4"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_SMALLER = "Choose nf4 (a quarter of 16 bit), or a smaller model."
# What decides what a model computes. Read-me files and pictures beside it do not.
_CONTENT = {".json", ".safetensors", ".txt", ".model", ".jinja"}
# Networks that see pictures and read words, but side by side: nothing in them reads a question about a picture.
_TWO_TOWERS = {
    "align", "altclip", "chinese_clip", "clip", "clipseg", "flava", "groupvit", "metaclip_2", "siglip", "siglip2",
    "vision-text-dual-encoder",
}  # fmt: skip
_SEES = ("vision", "image", "img", "vq_config")
_READS = ("text_config", "llm_config", "language_config", "vocab_size")


@dataclass
class VlmBase:
    """A loaded model.

    Attributes:
        name: of the folder.
        digest: of the folder's content, 64 hex digits; the precision is not part of it.
        precision: of the stored weights.
        dtype: of the arithmetic.
        processor: makes the model's inputs from pictures and texts.
        body: the network up to the last hidden state, frozen, in eval mode.
        hidden_size: width of the last hidden state.
        model: the body with its language head, which writes; None unless it was asked for.
    """

    name: str
    digest: str
    precision: Precision
    dtype: torch.dtype
    processor: Any
    body: nn.Module
    hidden_size: int
    model: nn.Module | None = None

    @property
    def language_model(self) -> nn.Module:
        """The part of the body that reads text; the body itself where the model has no such part."""
        return self.body.get_decoder() if hasattr(self.body, "get_decoder") else self.body


def check_folder(folder: Path) -> None:
    """Refuse what cannot be loaded, before any library is imported.

    Raises:
        RewardError: no folder, no model in it, only pickled weights, or a model that needs a stranger's code.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RewardError(f"{folder} is not a folder. Choose the folder of a vision-language model.")
    if not (folder / "config.json").is_file():
        raise RewardError(
            f"{folder.name} is not a model folder: it has no config.json. Put the whole model there: config.json, the "
            "*.safetensors weights, and the tokenizer and processor files."
        )
    config = read_json(folder / "config.json")
    if not list(folder.glob("*.safetensors")):
        pickles = sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
        if pickles:
            raise RewardError(
                f"{folder.name} holds its weights only as {pickles[0].name}, a pickle, and opening one can run a "
                "stranger's program. Get the model's *.safetensors files, or convert it in a safe place: load it with "
                "transformers and call save_pretrained."
            )
        raise RewardError(f"{folder.name} has a config.json but no *.safetensors weights. Get the model's weights too.")
    if "auto_map" in config:
        raise RewardError(
            f"{folder.name} needs program code that comes with the model, which is never run here. Choose a model that "
            "transformers knows by itself, such as Qwen2-VL, Qwen2.5-VL, LLaVA, Idefics3 or SmolVLM."
        )


def is_vision_language(folder: Path) -> bool | None:
    """Whether a model folder holds a vision-language model, by its config.json; None where that cannot be told."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    sees = any(mark in key for key in config for mark in _SEES)
    return sees and any(key in config for key in _READS) and config.get("model_type") not in _TWO_TOWERS


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file.

    Raises:
        RewardError: unreadable, or something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RewardError(f"{path} is not readable as JSON ({error}). Get the file again.") from error
    if not isinstance(content, dict):
        raise RewardError(f"{path} is not a JSON object. Get the file again.")
    return content


def folder_digest(folder: Path) -> str:
    """sha256 over the names and contents of the files that decide what the model computes; 64 hex digits.

    A file is read again only when its size or time has changed; see `digests`.
    """
    files = sorted(Path(folder).iterdir(), key=lambda file: file.name)
    files = [file for file in files if file.is_file() and file.suffix in _CONTENT]
    digest = hashlib.sha256()
    for file, content in zip(files, file_digests(files), strict=True):
        digest.update(f"{file.name}:{content}\n".encode())
    return digest.hexdigest()


def arithmetic(precision: Precision, device: torch.device) -> torch.dtype:
    """The number format of the arithmetic; of 4-bit weights it is the best 16-bit type of a GPU, else fp32."""
    if precision != "nf4":
        return _DTYPES[precision]
    if device.type != "cuda":
        return torch.float32  # 16-bit arithmetic on a CPU is many times slower
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def load_base(
    folder: Path, *, precision: Precision = "fp32", device: torch.device | str = "cpu", head: bool = False
) -> VlmBase:
    """Load a model folder.

    Args:
        folder: see the module.
        precision: of the stored weights. "nf4": every linear layer but the language head in 4-bit NormalFloat with
            quantised scales (Dettmers et al. 2023, QLoRA, section 3), by bitsandbytes; all else in the arithmetic's
            own type.
        device: where the weights go.
        head: whether to keep the language head, for a model that is to write.

    Raises:
        RewardError: as `check_folder`; or a file is missing, a library is missing, or transformers refuses the model.
    """
    folder, device = Path(folder), torch.device(device)
    if precision not in PRECISIONS:
        raise RewardError(f"There is no precision {precision!r}; choose one of: {', '.join(PRECISIONS)}.")
    check_folder(folder)
    # Ordinary tensors, also where the caller is in inference mode: adapters will be trained on them.
    library = _transformers()
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]), quiet_transformers(library), no_kernels():
        processor = _processor(folder, library)
        dtype = arithmetic(precision, device)
        model = _model(folder, library, precision, dtype, device, head)
    model.eval().requires_grad_(False)
    body = getattr(model, "base_model", model)
    if precision != "nf4":
        with telling(f"{folder.name} does not fit into memory as {precision}. {_SMALLER}"):
            (model if head else body).to(device)
    hidden_size = int(text_config(model.config).hidden_size)
    digest, kept = folder_digest(folder), model if head else None
    return VlmBase(folder.name, digest, precision, dtype, processor, body, hidden_size, kept)


def text_config(config: Any) -> Any:
    """The part of a model's configuration that describes its language model."""
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def read_config(folder: Path) -> Any:
    """The model's configuration, without its weights.

    Raises:
        RewardError: as `check_folder`, or transformers does not know the model.
    """
    check_folder(folder)
    library = _transformers()
    try:
        with quiet_transformers(library):
            return library.AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a wrong file fails in as many ways as there are models
        raise RewardError(
            f"The config.json of {Path(folder).name} is of no model that this version of transformers knows "
            f"({_first_line(error)}). Choose another folder, or update transformers."
        ) from error


def _transformers() -> Any:
    try:
        with no_kernels():
            import transformers
            from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: F401 — old ones lack the first
    except ImportError as error:
        raise RewardError(
            f"Vision-language models need a newer version of the Python package transformers ({error}). Update it with "
            "the host's Python, then restart."
        ) from error
    return transformers


def _processor(folder: Path, library: Any) -> Any:
    try:
        processor = library.AutoProcessor.from_pretrained(folder, local_files_only=True)
    except ImportError as error:
        raise RewardError(
            f"The processor of {folder.name} needs a Python package that is not there ({_first_line(error)}). Install "
            "it with the host's Python, then restart."
        ) from error
    except Exception as error:  # every kind of processor fails in its own way
        raise RewardError(
            f"The processor of {folder.name} cannot be loaded ({_first_line(error)}). Put the model's tokenizer and "
            "processor files (tokenizer.json, processor_config.json or preprocessor_config.json, …) beside config.json."
        ) from error
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise RewardError(
            f"{folder.name} has no processor for pictures. Put the model's preprocessor_config.json (and "
            "processor_config.json, if it has one) beside config.json."
        )
    tokenizer = processor.tokenizer
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return processor


def _model(
    folder: Path, library: Any, precision: Precision, dtype: torch.dtype, device: torch.device, head: bool
) -> nn.Module:
    # Versions of transformers before 4.56 call it torch_dtype.
    options: dict[str, Any] = {"dtype" if hasattr(library.PretrainedConfig(), "dtype") else "torch_dtype": dtype}
    if precision == "nf4":
        options |= {"quantization_config": _nf4(library, dtype), "device_map": {"": device}}
    try:
        model, found = library.AutoModelForImageTextToText.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
        )
    except Exception as error:  # a wrong folder fails in as many ways as there are models
        if ran_out(error):
            raise RewardError(f"{folder.name} does not fit into memory as {precision}. {_SMALLER}") from error
        raise RewardError(
            f"{folder.name} cannot be loaded as a vision-language model: {_first_line(error)}. Choose a folder of an "
            "image-text-to-text model that this version of transformers knows, or update transformers."
        ) from error
    missing = sorted(key for key in found["missing_keys"] if head or not key.startswith("lm_head"))
    if missing:
        raise RewardError(
            f"{folder.name} lacks {len(missing)} of its weights, such as {missing[0]}, so what it says would be noise. "
            "Get all *.safetensors files of the model."
        )
    if precision == "nf4":
        _keep_differentiable(model)
    return model


def _nf4(library: Any, dtype: torch.dtype) -> Any:
    try:
        import accelerate  # noqa: F401 — places quantised weights
        import bitsandbytes  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise RewardError(
            f"The precision nf4 needs the Python packages bitsandbytes and accelerate, which cannot be imported "
            f"({_first_line(error)}). Install them with the host's Python and restart, or choose another precision."
        ) from error
    return library.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def _keep_differentiable(model: nn.Module) -> None:
    """Have 4-bit layers always take the same path.

    In eval mode, on processors with 16-bit matrix instructions, bitsandbytes repacks the weights for a kernel without a
    backward pass, for ever: adapters below that layer would get no gradient from then on, without a word.
    """
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__
