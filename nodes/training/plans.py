"""What an ATTUNE_OBJECTIVE wire carries: a method and its data, ready to become an `Objective` once a network is there.

The text encoder runs in the objective's node; pictures are encoded when training starts, since their latent space is
that of the model to be trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch

from ...training.interfaces import AttuneError, LatentDecoder, Objective, Prompt
from ...training.objectives.supervised import SupervisedConfig, SupervisedObjective

OnPhase = Callable[[str, int, int], None]


def ignore_phase(text: str, done: int, total: int) -> None:
    """Where nobody looks."""


@dataclass(frozen=True)
class EncodedText:
    """A text and the host's CONDITIONING of it."""

    text: str
    conditioning: Any = field(repr=False)


@dataclass(frozen=True)
class PreviewSettings:
    """How the sample pictures shown during training are made: sampler steps and guidance scale."""

    steps: int = 20
    guidance: float = 4.0


class TrainingDenoiser(Protocol):
    """The part of the host's denoiser that a plan needs."""

    def prompt(self, text: str, conditioning: Any) -> Prompt: ...


class ObjectivePlan(Protocol):
    """A training method with its data.

    Attributes:
        method: short name, stored in the LoRA's metadata.
        title: what people read.
        vae: the host's VAE, for the decoder.
        text_encoder: identity of what made the conditionings, see `host.hashing.text_encoder_hash`.
        negative: conditioning of the empty side of guidance.
        preview: of the sample pictures.
        curve_titles: names of the figures in the report, where they differ from the usual.
        batch: how many pictures one network call trains on, for the memory estimate.
        batch_knob: the widget that sets `batch`, with its value and what lowering it changes.
        training_guidance: guidance scale of those calls; 1 = one evaluation per picture.

    What a plan may have besides:
        product: what a run makes, one of `products`; a LoRA without.
        fixed: names → identities of what else a resume must find the same.
        evaluations: of a run that is not told how often to evaluate; 0 without.
        passes: of the network, guided as above, whose activations are kept at the same time; 1 without.
        check_models(model, start): raises an AttuneError where the host's MODEL, or the LoRA to begin with (a
            LORA_MODEL; None without), will not do.
        trainer: fields of `TrainerConfig` that the method sets itself, and no widget does.
    """

    method: str
    title: str
    vae: Any
    text_encoder: str
    negative: EncodedText
    preview: PreviewSettings

    @property
    def curve_titles(self) -> Mapping[str, str]: ...

    @property
    def batch(self) -> int: ...

    @property
    def batch_knob(self) -> str: ...

    @property
    def training_guidance(self) -> float: ...

    def data_hash(self) -> str:
        """Identity of everything that is learned from: 16 hex digits."""
        ...

    def settings(self) -> dict[str, Any]:
        """The method's knobs; JSON-able."""
        ...

    def load(self, decoder: LatentDecoder, on_phase: OnPhase = ignore_phase) -> list[torch.Tensor]:
        """What must be computed before the network is made ready: the latents of the pictures, if there are any.

        `on_phase` is called before the first picture and after each; it may raise to cancel.
        """
        ...

    def latent_shape(self, model: Any, loaded: Sequence[torch.Tensor]) -> tuple[int, ...]:
        """Shape [C, H, W] of the latents of the pictures that are played and shown, on the host's MODEL."""
        ...

    def build(
        self,
        denoiser: TrainingDenoiser,
        decoder: LatentDecoder,
        loaded: Sequence[torch.Tensor],
        shape: Sequence[int],
        on_phase: OnPhase,
    ) -> Objective:
        """The objective; `loaded` and `shape` come from the two functions above."""
        ...


@dataclass(frozen=True)
class SupervisedPlan:
    """Learn the look of pictures. `images` are [h, w, 3], one caption each."""

    images: Sequence[torch.Tensor] = field(repr=False)
    captions: Sequence[EncodedText]
    previews: Sequence[EncodedText]
    negative: EncodedText
    vae: Any = field(repr=False)
    text_encoder: str
    config: SupervisedConfig
    preview: PreviewSettings = PreviewSettings()
    method: str = "supervised"
    title: str = "Supervised"

    @property
    def curve_titles(self) -> Mapping[str, str]:
        return {"loss": "Denoising loss"}

    @property
    def batch(self) -> int:
        return self.config.batch

    @property
    def batch_knob(self) -> str:
        return f"batch_size (now {self.batch}; raise accumulation as much, and an update learns from as many pictures)"

    @property
    def training_guidance(self) -> float:
        return 1.0

    def data_hash(self) -> str:
        digest = hashlib.sha256()
        for image, caption in zip(self.images, self.captions, strict=True):
            digest.update(picture_key(image).encode() + caption.text.encode() + b"\0")
        return digest.hexdigest()[:16]

    def settings(self) -> dict[str, Any]:
        return asdict(self.config)

    def load(self, decoder: LatentDecoder, on_phase: OnPhase = ignore_phase) -> list[torch.Tensor]:
        # One at a time: sizes may differ, and the host's VAE bounds its own memory.
        latents, count = [], len(self.images)
        on_phase("encode", 0, count)
        for image in self.images:
            latents.append(decoder.encode(image[None])[0])
            on_phase("encode", len(latents), count)
        return latents

    def latent_shape(self, model: Any, loaded: Sequence[torch.Tensor]) -> tuple[int, ...]:
        # Of the largest: a step on it must fit into memory too.
        return tuple(max(loaded, key=torch.numel).shape)

    def build(
        self,
        denoiser: TrainingDenoiser,
        decoder: LatentDecoder,
        loaded: Sequence[torch.Tensor],
        shape: Sequence[int],
        on_phase: OnPhase,
    ) -> Objective:
        texts = {text.text: text.conditioning for text in (*self.captions, *self.previews)}
        prompts = {text: denoiser.prompt(text, conditioning) for text, conditioning in texts.items()}
        return SupervisedObjective(
            loaded,
            [prompts[caption.text] for caption in self.captions],
            self.config,
            previews=[prompts[preview.text] for preview in self.previews],
        )


# ---- what the widgets hold -------------------------------------------------------------------------------------------


def prompt_lines(text: str) -> list[str]:
    """One prompt per line; blank lines do not count.

    Raises:
        AttuneError: there is none.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise AttuneError("There are no prompts. Write at least one in the prompts box, one per line.")
    return lines


def caption_lines(captions: Sequence[str], count: int, *, trigger: str) -> list[str]:
    """One caption per picture.

    Args:
        captions: a list with one entry per picture (a caption file each), or one text: a line per picture, or one line
            for all.
        count: number of pictures.
        trigger: put before every caption; "" = nothing.

    Raises:
        AttuneError: the numbers differ, or a picture is left without any word.
    """
    entries = [" ".join(caption.split()) for caption in captions]
    if len(entries) == 1 and count > 1:
        entries = [line.strip() for line in captions[0].splitlines() if line.strip()] or [""]
        entries = entries * count if len(entries) == 1 else entries
    if len(entries) != count:
        raise AttuneError(
            f"There are {count} pictures but {len(entries)} captions. Give one caption per picture (one per line, or "
            f"one text file per picture), or a single caption for all."
        )
    joined = [", ".join(part for part in (trigger.strip(), entry) if part) for entry in entries]
    for number, caption in enumerate(joined, 1):
        if not caption:
            raise AttuneError(
                f"Picture {number} of {count} has no caption. Write one, or set a trigger word, which is put before "
                f"every caption."
            )
    return joined


def picture_key(image: torch.Tensor) -> str:
    """Identity of a picture's 8-bit content and size."""
    pixels = (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().contiguous()
    return hashlib.sha256(str(tuple(pixels.shape)).encode() + pixels.numpy().tobytes()).hexdigest()


def training_images(batches: Sequence[torch.Tensor], *, resolution: int) -> list[torch.Tensor]:
    """Single pictures [h, w, 3] of about resolution² pixels, proportions kept, cropped to what the network can take.

    Args:
        batches: the host's IMAGE values [B, h, w, 3 or 4].
        resolution: side of the square whose area every picture is scaled to; 0 = leave sizes as they are.

    Raises:
        AttuneError: there are no pictures, or one is not a picture.
    """
    pictures = []
    for batch in batches:
        if batch.ndim != 4 or batch.shape[-1] < 3:
            raise AttuneError(
                f"An image input has shape {tuple(batch.shape)}; expected pictures: (count, height, width, 3)."
            )
        pictures += list(batch[..., :3].detach().float().cpu())
    if not pictures:
        raise AttuneError(
            "There are no pictures to learn from. Put at least one into the folder that the image loader reads."
        )
    return [_fitted(picture, resolution) for picture in pictures]


def _fitted(picture: torch.Tensor, resolution: int) -> torch.Tensor:
    height, width = picture.shape[:2]
    # Networks halve a latent several times; small pictures would lose too much to a coarse crop.
    step = 64 if min(resolution or height, resolution or width) >= 256 else 8
    if resolution:
        scale = resolution / (height * width) ** 0.5
        target_height = max(step, round(height * scale / step) * step)
        target_width = max(step, round(width * scale / step) * step)
        cover = max(target_height / height, target_width / width)
        size = (max(target_height, round(height * cover)), max(target_width, round(width * cover)))
        if size != (height, width):
            channels = picture.movedim(-1, 0)[None]
            resized = torch.nn.functional.interpolate(channels, size=size, mode="bicubic", antialias=True)
            picture = resized[0].movedim(0, -1).clamp(0, 1)
    else:
        target_height, target_width = height // step * step, width // step * step
        if not target_height or not target_width:
            raise AttuneError(f"A picture of {width}×{height} pixels is too small to learn from. Set a resolution.")
    top, left = (picture.shape[0] - target_height) // 2, (picture.shape[1] - target_width) // 2
    return picture[top : top + target_height, left : left + target_width].contiguous()
