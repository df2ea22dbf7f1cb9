"""The plan of Diffusion-DPO: pairs of pictures, wherever they come from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from ...training.interfaces import AttuneError, LatentDecoder, Objective
from ...training.objectives.diffusion_dpo import DiffusionDPOConfig, DiffusionDPOObjective, Pair, Verdict
from ...training.pair_split import split_pairs
from ...training.preference_pairs import make_pairs
from .plans import (
    EncodedText,
    OnPhase,
    PreviewSettings,
    TrainingDenoiser,
    caption_lines,
    ignore_phase,
    picture_key,
    training_images,
)

# Which pairs are held out depends on the pairs alone, so that runs with other seeds compare.
SPLIT_SEED = 0
HELD_OUT = 0.15
_PREVIEWS = 4


@dataclass(frozen=True)
class PicturePair:
    """One judgement on two pictures.

    Attributes:
        chosen, rejected: [h, w, 3] of one size.
        caption: what both were made for.
        weight, verdict: see `training.objectives.diffusion_dpo.Pair`.
    """

    chosen: torch.Tensor = field(repr=False)
    rejected: torch.Tensor = field(repr=False)
    caption: EncodedText
    weight: float = 1.0
    verdict: Verdict = "preferred"

    @property
    def keys(self) -> tuple[str, str]:
        """Identities of the two pictures."""
        return picture_key(self.chosen), picture_key(self.rejected)


@dataclass(frozen=True)
class PreferencePlan:
    """Learn a preference from pairs.

    Attributes:
        pairs: from images (`image_pairs`) or from any other source: ties and skipped ones may be among them.
        held_out_share: share of the pairs that is measured and never learned from, 0 … 0.9.
    """

    pairs: Sequence[PicturePair] = field(repr=False)
    previews: Sequence[EncodedText]
    negative: EncodedText
    vae: Any = field(repr=False)
    text_encoder: str
    config: DiffusionDPOConfig
    held_out_share: float = HELD_OUT
    preview: PreviewSettings = field(default_factory=PreviewSettings)
    method: str = "diffusion-dpo"
    title: str = "Diffusion-DPO"

    @property
    def curve_titles(self) -> Mapping[str, str]:
        return {"loss": "Preference loss (0.693 at the start)"}

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
        digest = hashlib.sha256(f"held out {self.held_out_share!r}\n".encode())
        for pair in self.pairs:
            digest.update("\0".join([*pair.keys, pair.caption.text, repr(pair.weight), pair.verdict, ""]).encode())
        return digest.hexdigest()[:16]

    def settings(self) -> dict[str, Any]:
        return asdict(self.config) | {"held_out": self.held_out_share, "pairs": len(self.pairs)}

    def load(self, decoder: LatentDecoder, on_phase: OnPhase = ignore_phase) -> list[torch.Tensor]:
        """Latents of the chosen and the rejected picture of every pair, in turn; equal pictures are encoded once."""
        pictures = {key: picture for pair in self.pairs
                    for key, picture in zip(pair.keys, (pair.chosen, pair.rejected), strict=True)}  # fmt: skip
        latents: dict[str, torch.Tensor] = {}
        on_phase("encode", 0, len(pictures))
        for key, picture in pictures.items():
            latents[key] = decoder.encode(picture[None])[0]
            on_phase("encode", len(latents), len(pictures))
        return [latents[key] for pair in self.pairs for key in pair.keys]

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
        texts = {text.text: text for text in (*(pair.caption for pair in self.pairs), *self.previews)}
        prompts = {name: denoiser.prompt(text.text, text.conditioning) for name, text in texts.items()}
        pairs = [
            Pair(chosen, rejected, prompts[pair.caption.text], pair.weight, pair.verdict)
            for pair, chosen, rejected in zip(self.pairs, loaded[::2], loaded[1::2], strict=True)
        ]
        learned, measured = split_pairs(
            [pair.caption.text for pair in self.pairs], [pair.keys for pair in self.pairs], self.held_out_share,
            seed=SPLIT_SEED,
        )  # fmt: skip
        return DiffusionDPOObjective(
            [pairs[index] for index in learned],
            self.config,
            held_out=[pairs[index] for index in measured],
            previews=[prompts[preview.text] for preview in self.previews],
            on_phase=on_phase,
        )


def image_pairs(
    chosen: Sequence[torch.Tensor], rejected: Sequence[torch.Tensor], captions: Sequence[str], *, resolution: int
) -> list[tuple[torch.Tensor, torch.Tensor, str]]:
    """Pictures in equal number as (chosen, rejected, caption), fit for training.

    Args:
        chosen, rejected: the host's IMAGE values [B, h, w, 3 or 4]; the n-th of one belongs to the n-th of the other.
        captions: one per pair, or one for all; see `caption_lines`.
        resolution: as in `training_images`.

    Raises:
        AttuneError: the numbers differ, a caption is missing, there are too few pairs, or the two pictures of one are
            the same or of different sizes.
    """
    better, worse = (training_images(batches, resolution=resolution) for batches in (chosen, rejected))
    if len(better) != len(worse):
        raise AttuneError(
            f"There are {len(better)} chosen pictures but {len(worse)} rejected ones. Give both in equal number and in "
            "the same order: the first of one is compared with the first of the other."
        )
    texts = caption_lines(captions, len(better), trigger="")
    for number, (one, other) in enumerate(zip(better, worse, strict=True), 1):
        if one.shape != other.shape:
            sizes = [f"{picture.shape[1]}×{picture.shape[0]}" for picture in (one, other)]
            raise AttuneError(
                f"The pictures of pair {number} have different sizes ({sizes[0]} chosen, {sizes[1]} rejected), even "
                "after scaling to the resolution. Crop them alike, or leave the pair out."
            )
    return [(pair.chosen, pair.rejected, pair.prompt) for pair in make_pairs(texts, better, worse)]


def preference_plan(
    pairs: Sequence[tuple[torch.Tensor, torch.Tensor, str]],
    clip: Any,
    vae: Any,
    *,
    held_out: float,
    preview_prompts: str,
    preview: PreviewSettings,
    config: DiffusionDPOConfig,
) -> PreferencePlan:
    """Pairs (chosen, rejected, caption) as a plan. Their order does not matter.

    Raises:
        AttuneError: there is no text encoder, or the pairs cannot be split.
    """
    from ..host.hashing import text_encoder_hash
    from ..host.sampling import encode_prompts

    distinct = list(dict.fromkeys(caption for _, _, caption in pairs))
    shown = [line.strip() for line in preview_prompts.splitlines() if line.strip()] or distinct
    shown = shown[:_PREVIEWS]
    texts = ["", *distinct, *shown]
    known = {text: EncodedText(text, item) for text, item in zip(texts, encode_prompts(clip, texts), strict=True)}
    made = [PicturePair(chosen, rejected, known[caption]) for chosen, rejected, caption in pairs]
    made.sort(key=lambda pair: (pair.caption.text, pair.keys))
    # Now, and not after the pictures are encoded.
    split_pairs([pair.caption.text for pair in made], [pair.keys for pair in made], held_out, seed=SPLIT_SEED)
    return PreferencePlan(
        pairs=made,
        previews=[known[text] for text in shown],
        negative=known[""],
        vae=vae,
        text_encoder=text_encoder_hash(clip),
        config=config,
        held_out_share=held_out,
        preview=preview,
    )
