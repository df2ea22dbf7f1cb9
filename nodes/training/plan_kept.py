"""The plan of learning what a session keeps: pictures of rounds that are over, by their latents as they were made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ...training.interfaces import AttuneError, LatentDecoder, Objective
from ...training.objectives.kept_pictures import KeptConfig, KeptObjective, KeptRound
from ..round_lesson import KeptPictures
from .plans import EncodedText, OnPhase, PreviewSettings, TrainingDenoiser, ignore_phase

if TYPE_CHECKING:
    from ..host.decoder import HostDecoder


@dataclass(frozen=True)
class KeptPlan:
    """Learn what is kept.

    Attributes:
        rounds: of which something is kept, with their encoded prompts; may be empty, and then nothing can be built.
        shown: prompt of the sample pictures.
    """

    rounds: Sequence[tuple[EncodedText, KeptPictures]] = field(repr=False)
    shown: EncodedText
    negative: EncodedText
    vae: Any = field(repr=False)
    text_encoder: str
    config: KeptConfig
    preview: PreviewSettings = field(default_factory=PreviewSettings)

    curve_titles: ClassVar[Mapping[str, str]] = {"loss": "Preference loss (0.693 at the start)"}

    @property
    def batch(self) -> int:
        return 2 * min(self.config.chunk, self.config.batch)

    @property
    def batch_knob(self) -> str:
        return f"chunk (now {self.config.chunk}; the method stays the same, and a run that has begun goes on)"

    @property
    def training_guidance(self) -> float:
        return 1.0

    def data_hash(self) -> str:
        digest = hashlib.sha256(self.shown.text.encode() + b"\0" + self.negative.text.encode())
        for _, past in self.rounds:
            digest.update(f"\0{past.prompt}\0{tuple(past.liked.shape)} {tuple(past.others.shape)}\0".encode())
            for part in (past.liked, past.others):
                digest.update(part.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def settings(self) -> dict[str, Any]:
        return asdict(self.config) | {"rounds": len(self.rounds)}

    def load(self, decoder: HostDecoder, on_phase: OnPhase = ignore_phase) -> list[torch.Tensor]:
        """The liked and the other latents of every round, in turn, for the network."""
        return [decoder.inward(part) for _, past in self.rounds for part in (past.liked, past.others)]

    def latent_shape(self, model: Any, loaded: Sequence[torch.Tensor]) -> tuple[int, ...]:
        """
        Raises:
            AttuneError: the pictures are those of another kind of model.
        """
        shape, channels = tuple(loaded[-1].shape[1:]), model.model.latent_format.latent_channels
        if shape[0] != channels:
            raise AttuneError(
                f"The pictures of this session were drawn by another kind of model: their latents have {shape[0]} "
                f"channels, and this model's have {channels}. Load that model again, or begin a new session."
            )
        return shape

    def build(
        self,
        denoiser: TrainingDenoiser,
        decoder: LatentDecoder,
        loaded: Sequence[torch.Tensor],
        shape: Sequence[int],
        on_phase: OnPhase,
    ) -> Objective:
        rounds = [
            KeptRound(denoiser.prompt(text.text, text.conditioning), liked, others)
            for (text, _), liked, others in zip(self.rounds, loaded[::2], loaded[1::2], strict=True)
        ]
        preview = denoiser.prompt(self.shown.text, self.shown.conditioning)
        return KeptObjective(rounds, self.config, preview=preview)


def kept_texts(clip: Any, prompt: str, negative: str, rounds: Sequence[KeptPictures]) -> list[EncodedText]:
    """The round's prompt, its negative and those of the rounds, encoded in this order."""
    from ..host.sampling import encode_prompts

    texts = [prompt, negative, *(past.prompt for past in rounds)]
    return [EncodedText(text, found) for text, found in zip(texts, encode_prompts(clip, texts), strict=True)]
