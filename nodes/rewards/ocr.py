"""Text in the picture: how much of the words that a prompt puts in quotation marks can be read in it.

The reader is RapidOCR (PP-OCR networks for finding and reading lines, on onnxruntime, on the CPU). Its package is
optional, ships its networks, and nothing is downloaded: see `missing_reader`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from ...training.interfaces import RewardContext, RewardError
from .pictures import to_rgb
from .quotes import find_texts, quoted_texts

# The older package has the older networks and wants Python below 3.13; either does.
PACKAGES = ("rapidocr_onnxruntime", "rapidocr")
Unquoted = Literal["stop with an error", "score 1", "score 0"]

# Short side in pixels up to which a picture is enlarged, the margin around it as a share of the short side, and the
# longest side that the reader looks at: what read best among rendered words (tests/evidence/ocr_reward.py).
ENLARGE_TO = 736
MARGIN = 0.1
LONGEST_SIDE = 2000
# The reader scales a thin picture up until its short side can be read, without a bound; a strip of 2×500 pixels would
# fill the memory. Margins make it no thinner than this.
LARGEST_RATIO = 4
# What the reader itself is less sure of is dropped.
LEAST_CONFIDENCE = 0.5
# Stands in the id, by which scores are kept on the disk. Raise it whenever a change here or in `quotes` gives others.
VERSION = 1


@dataclass(frozen=True)
class Line:
    """One piece of a line as the reader returns it; the box as left, top, right, bottom in pixels."""

    text: str
    box: tuple[float, float, float, float]


def reading_order(pieces: Sequence[Line]) -> list[str]:
    """Lines from top to bottom, each from left to right.

    A piece belongs to the line whose height it shares by more than half of the smaller height.
    """
    lines: list[list[Line]] = []
    for piece in sorted(pieces, key=lambda piece: piece.box[1] + piece.box[3]):
        for line in lines:
            top, bottom = line[0].box[1], line[0].box[3]
            common = min(bottom, piece.box[3]) - max(top, piece.box[1])
            if common > 0.5 * min(bottom - top, piece.box[3] - piece.box[1]):
                line.append(piece)
                break
        else:
            lines.append([piece])
    return [" ".join(piece.text for piece in sorted(line, key=lambda piece: piece.box[0])) for line in lines]


def missing_reader() -> str:
    """What to install so that pictures can be read; "" if it is there."""
    if any(importlib.util.find_spec(name) for name in PACKAGES):
        return ""
    package = "rapidocr-onnxruntime" if sys.version_info < (3, 13) else "rapidocr onnxruntime"
    return (
        f"Reading text in images needs the optional package {package.split()[0]}, which this Python does not have. "
        f'Install it with  "{sys.executable}" -m pip install {package}  and start ComfyUI again.'
    )


class TextReader:
    """RapidOCR, made when first asked, one picture at a time, safe between threads.

    Raises:
        RewardError: the package or its network files are missing, or it cannot be started.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engine: Callable[[np.ndarray], list[Line]] | None = None

    @property
    def identity(self) -> str:
        """Package and version: another one reads differently."""
        for name in PACKAGES:
            if importlib.util.find_spec(name):
                return f"{name}-{importlib.metadata.version(name.replace('_', '-'))}"
        raise RewardError(missing_reader())

    def __call__(self, pixels: np.ndarray) -> list[str]:
        """Pixels uint8 [h, w, 3], RGB → the lines in reading order, [] where nothing can be read."""
        with self._lock:
            if self._engine is None:
                self._engine = _start_engine()
            return reading_order(self._engine(_prepared(pixels)))


READER = TextReader()


def _start_engine() -> Callable[[np.ndarray], list[Line]]:
    if problem := missing_reader():
        raise RewardError(problem)
    name = next(name for name in PACKAGES if importlib.util.find_spec(name))
    try:
        return _classic_engine() if name == PACKAGES[0] else _new_engine()
    except RewardError:
        raise
    except Exception as error:
        # Whatever a half-installed or incompatible package throws while it is imported.
        raise RewardError(
            f"The text reader {name} is installed but does not start: {error}. Install it afresh with  "
            f'"{sys.executable}" -m pip install --force-reinstall --no-deps {name.replace("_", "-")}  and start '
            "ComfyUI again."
        ) from error


def _classic_engine() -> Callable[[np.ndarray], list[Line]]:
    from rapidocr_onnxruntime import RapidOCR

    threads = torch.get_num_threads()
    engine = RapidOCR(max_side_len=LONGEST_SIDE, text_score=LEAST_CONFIDENCE, intra_op_num_threads=threads)

    def read(pixels: np.ndarray) -> list[Line]:
        found, _ = engine(pixels[..., ::-1], use_cls=False)
        return [Line(text, _box(corners)) for corners, text, _ in found or ()]

    return read


def _new_engine() -> Callable[[np.ndarray], list[Line]]:
    import rapidocr

    # Given by path, a network is never fetched from the network.
    folder = Path(rapidocr.__file__).parent / "models"
    networks = {part: sorted(folder.glob(f"*_{part.lower()}_*.onnx")) for part in ("Det", "Rec")}
    if absent := [part for part, files in networks.items() if not files]:
        raise RewardError(
            f"The package rapidocr lacks its network files ({', '.join(absent)}) in {folder}. Install it afresh from "
            "PyPI, whose package contains them."
        )
    paths = {f"{part}.model_path": str(files[0]) for part, files in networks.items()}
    engine = rapidocr.RapidOCR(
        params=paths
        | {"Global.log_level": "error", "Global.use_cls": False, "Global.text_score": LEAST_CONFIDENCE,
           "Global.max_side_len": LONGEST_SIDE,
           "EngineConfig.onnxruntime.intra_op_num_threads": torch.get_num_threads()}
    )  # fmt: skip

    def read(pixels: np.ndarray) -> list[Line]:
        found = engine(np.ascontiguousarray(pixels[..., ::-1]))
        texts, boxes = getattr(found, "txts", None), getattr(found, "boxes", None)
        return [Line(text, _box(corners)) for corners, text in zip(boxes, texts, strict=True)] if texts else []

    return read


def _box(corners: Any) -> tuple[float, float, float, float]:
    """Four corners → left, top, right, bottom."""
    points = np.asarray(corners, dtype=float)
    return (*points.min(0).tolist(), *points.max(0).tolist())


def _prepared(pixels: np.ndarray) -> np.ndarray:
    """A small picture enlarged, with margins in the colours of its edge, which make a thin picture less thin."""
    from PIL import Image

    height, width = pixels.shape[:2]
    scale = min(ENLARGE_TO / min(height, width), LONGEST_SIDE / max(height, width))
    if scale > 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
    height, width = pixels.shape[:2]
    margin = round(MARGIN * min(height, width))
    least = max(height, width) / LARGEST_RATIO
    rows, columns = (max(margin, math.ceil((least - side) / 2)) for side in (height, width))
    return np.pad(pixels, ((rows, rows), (columns, columns), (0, 0)), mode="edge")


@dataclass(frozen=True)
class TextInImageReward:
    """How much of the quoted words can be read in the picture, 0 … 1. Ours.

    score = max(0, mean over the quoted texts of s − penalty · o), with s the similarity of a text and its best place in
    what was read, and o the share of other characters among those read (`quotes.find_texts`).

    Attributes:
        case_sensitive: capitals must be capitals.
        penalty_for_other_text: 0 … 1, what a picture loses that holds nothing but other text; 0 allows it.
        without_quotes: what happens to a picture whose prompt quotes nothing.
        reader: pixels uint8 [h, w, 3] → lines in reading order; `identity` names it.
        between: called before every picture and while its words are compared; what it raises ends the scoring (the
            host's Cancel).
    """

    case_sensitive: bool = False
    penalty_for_other_text: float = 0.0
    without_quotes: Unquoted = "stop with an error"
    reader: Any = READER
    between: Callable[[], None] = lambda: None

    name = "Text in image"
    differentiable = False
    higher_is_better = True
    uses_prompt = True

    def __post_init__(self) -> None:
        if self.without_quotes not in get_args(Unquoted):
            raise RewardError(
                f"There is no way {self.without_quotes!r} to treat prompts without quotation marks; choose one of: "
                f"{', '.join(get_args(Unquoted))}."
            )
        if not 0 <= self.penalty_for_other_text <= 1:
            raise RewardError(f"The penalty for other text is from 0 to 1, not {self.penalty_for_other_text}.")

    @property
    def reward_id(self) -> str:
        return (
            f"ocr:v{VERSION}:{self.reader.identity}:{ENLARGE_TO}:{MARGIN}:{LONGEST_SIDE}:{LEAST_CONFIDENCE}:"
            f"{self.case_sensitive}:{self.penalty_for_other_text!r}:{self.without_quotes}"
        )

    @property
    def formula(self) -> str:
        other = f" − {self.penalty_for_other_text:g} · share of other text" if self.penalty_for_other_text else ""
        case = ", capitals count" if self.case_sensitive else ""
        return f"similarity of quoted and read text{case}{other}, 0 … 1"

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], context: RewardContext | None = None
    ) -> torch.Tensor:
        """Images [B, h, w, c] in [0, 1] and B prompts with quoted words → scores float32 [B].

        Raises:
            RewardError: a prompt quotes nothing and that is to be an error, before any picture is read; or there is no
                reader.
        """
        asked = [self._asked(prompt) for prompt in prompts]
        pictures = (to_rgb(images).detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        scores = []
        for picture, texts in zip(pictures, asked, strict=True):
            self.between()
            scores.append(self._score(picture, texts))
        return torch.tensor(scores, dtype=torch.float32, device=images.device)

    def _asked(self, prompt: str) -> list[str]:
        # By its prompt, not by a number: a cache in front of this asks only for some of a batch.
        if problem := self.refusal(prompt, "the image"):
            raise RewardError(problem)
        return quoted_texts(prompt)

    def refusal(self, prompt: str, image: str) -> str:
        """Why a picture with this prompt cannot be scored, naming the picture as `image`; "" if it can."""
        if self.without_quotes != "stop with an error" or quoted_texts(prompt):
            return ""
        return (
            f"{self.name} reads the words that a prompt puts in quotation marks, and {image} with the prompt "
            f'{prompt[:200]!r} has none to look for. Write for example  a sign that says "OPEN"  or set '
            "without_quotes of the reward to a score for such prompts."
        )

    def _score(self, picture: np.ndarray, texts: list[str]) -> float:
        if not texts and (self.without_quotes == "score 0" or not self.penalty_for_other_text):
            return float(self.without_quotes == "score 1")
        found = find_texts(texts, self.reader(picture), case_sensitive=self.case_sensitive, between=self.between)
        wanted = sum(found.shares) / len(texts) if texts else 1.0
        return max(0.0, wanted - self.penalty_for_other_text * found.other)
