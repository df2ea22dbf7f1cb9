"""The demo rewards: two small CLIP-type dual encoders trained on the demo data.

*demo reward* may be optimised; *demo judge* is held out and never is. They share nothing but the vocabulary: other
network families (CLIP's attention-pooled ResNet, timm's ResNet-10-T), other seeds, other augmentation, other training
pairs. When a run raises the reward but not the judge, it has learned to please a network and not a person.

Loss: the symmetric cross-entropy of CLIP (Radford et al. 2021), where captions of the same picture attributes are not
pushed apart: targets are spread over the equal captions of a batch (ours).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..checkpoint import write_atomically
from . import data, networks
from .stages import Pictures, StageConfig, run_stage

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
EMBEDDING = 128


@dataclass(frozen=True)
class RewardRecipe:
    """One of the two encoders."""

    name: str
    title: str
    vision: str
    seed: int
    split: str
    colour_jitter: float
    noise: float
    blur: float


REWARD = RewardRecipe("demo_reward", "Demo CLIP", "clip-resnet", 11, "reward-test", 4.0, 0.03, 0.5)
JUDGE = RewardRecipe("demo_judge", "Demo Judge", "timm-resnet10t", 12, "judge-test", 10.0, 0.06, 0.3)
TEST_FRACTION = 0.12


def network_config(vision: str) -> dict[str, Any]:
    """open_clip's own configuration of the network, as it is written into the file."""
    towers = {
        "clip-resnet": {"layers": [1, 1, 2, 1], "width": 24, "head_width": 32, "image_size": data.IMAGE_SIZE},
        "timm-resnet10t": {
            "timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": "linear", "image_size": data.IMAGE_SIZE,
        },
    }  # fmt: skip
    text = {"context_length": networks.TOKENS, "vocab_size": networks.VOCABULARY, "width": 64, "heads": 2, "layers": 2}
    return {"embed_dim": EMBEDDING, "vision_cfg": towers[vision], "text_cfg": text}


class DualEncoder(nn.Module):
    """An open_clip network with the demo data's preprocessing, for training."""

    def __init__(self, vision: str) -> None:
        super().__init__()
        import open_clip

        self.network = open_clip.CLIP(**network_config(vision))
        self.register_buffer("mean", torch.tensor(MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).reshape(3, 1, 1), persistent=False)

    def images(self, images: torch.Tensor) -> torch.Tensor:
        """[B, 3, 64, 64] in [0, 1] → unit vectors [B, 128]."""
        return self.network.encode_image((images - self.mean) / self.deviation, normalize=True)

    def texts(self, texts: list[str]) -> torch.Tensor:
        """B texts → unit vectors [B, 128]."""
        import open_clip

        return self.network.encode_text(open_clip.tokenize(texts, context_length=networks.TOKENS), normalize=True)

    def forward(self, images: torch.Tensor, texts: list[str]) -> torch.Tensor:
        """Logits [B, B]: images × texts."""
        scale = self.network.logit_scale.clamp(max=4.0).exp()
        return scale * self.images(images) @ self.texts(texts).T


def augment(images: torch.Tensor, recipe: RewardRecipe, rng: np.random.Generator) -> torch.Tensor:
    """Noise and blur, so that the softness of generated pictures is not mistaken for content."""
    if rng.random() < recipe.blur:
        size = int(rng.integers(24, 56))
        images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
        images = F.interpolate(images, (data.IMAGE_SIZE,) * 2, mode="bicubic")
    noise = torch.from_numpy(rng.standard_normal(images.shape, dtype=np.float32))
    return (images + recipe.noise * float(rng.random()) * noise).clamp(0, 1)


def contrastive_loss(logits: torch.Tensor, texts: list[str]) -> torch.Tensor:
    """Symmetric cross-entropy; equal captions share their target."""
    ids = {text: index for index, text in enumerate(texts)}
    labels = torch.tensor([ids[text] for text in texts])
    target = (labels[:, None] == labels[None]).float()
    target = target / target.sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def train_reward(library: data.Library, folder: Path, recipe: RewardRecipe, *, seconds: float) -> DualEncoder:
    """Train one encoder. Pairs of its test split, and those held out from the diffusion model, are never shown."""
    torch.manual_seed(recipe.seed)
    model = DualEncoder(recipe.vision)
    networks.keep_token_rows(model.network.token_embedding.weight, data.vocabulary())
    pictures = Pictures(
        library,
        lambda concept, style: not data.in_split(recipe.split, concept, style, TEST_FRACTION),
        colour_jitter=recipe.colour_jitter,
        placement_jitter=1.0,
        mirror=True,
    )

    def loss_of_step(rng: np.random.Generator, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        images, attributes = pictures.draw(config.batch, rng)
        texts = [data.caption(a, rng, drop=0.25) for a in attributes]
        logits = model(augment(images, recipe, rng), texts)
        accuracy = (logits.argmax(1) == torch.arange(len(texts))).float().mean().item()
        return contrastive_loss(logits, texts), {"batch_accuracy": round(accuracy, 4)}

    config = StageConfig(
        recipe.name, seconds, 1e-3, batch=128, weight_decay=0.02, ema=0.998, seed=recipe.seed, checkpoint_seconds=90
    )
    return run_stage(config, {"encoder": model}, loss_of_step, folder)["encoder"]


@torch.no_grad()
def retrieval(
    model: DualEncoder, library: data.Library, recipe: RewardRecipe, *, count: int = 1000
) -> dict[str, float]:
    """Zero-shot accuracy on pictures whose drawings the encoder never saw; shares 0…1, with `images` their number.

    concept: among all concepts, from the bare word. style, background: the right one, given the others' true values.
    """
    pictures = Pictures(library, lambda concept, style: data.in_split(recipe.split, concept, style, TEST_FRACTION))
    images, attributes = pictures.draw(count, np.random.default_rng(999))
    features = torch.cat([model.images(part) for part in images.split(100)])
    subjects = {name: name if name in data.PLURALS else data.with_article(name) for name in data.CONCEPT_NAMES}

    def text(concept: str, style: str, background: str) -> str:
        return f"{subjects[concept]}, {style} style, on {data.with_article(background)} background"

    def share_right(choices: Sequence[str], texts_of: Callable[[data.Attributes], list[str]], field: str) -> float:
        cache: dict[tuple[str, ...], torch.Tensor | None] = {}
        right = 0
        for feature, shown in zip(features, attributes, strict=True):
            texts = texts_of(shown)
            embedded = cache.setdefault(tuple(texts), None)
            if embedded is None:
                embedded = cache[tuple(texts)] = model.texts(texts)
            right += choices[int((embedded @ feature).argmax())] == getattr(shown, field)
        return right / count

    styles, backgrounds = data.STYLES, list(data.BACKGROUNDS)
    return {
        "concept": share_right(data.CONCEPT_NAMES, lambda a: list(subjects.values()), "concept"),
        "style": share_right(styles, lambda a: [text(a.concept, s, a.background) for s in styles], "style"),
        "background": share_right(
            backgrounds, lambda a: [text(a.concept, a.style, b) for b in backgrounds], "background"
        ),
        "images": float(count),
    }


def save_reward(model: DualEncoder, path: Path, recipe: RewardRecipe, figures: dict[str, float]) -> None:
    """Write the file that Load Reward Model reads: the library's own keys, and its configuration in the header.

    Of the token table only the rows that the vocabulary uses are stored, with their numbers in `token_rows`.
    """
    header = {
        "kind": "clip-open_clip",
        "name": recipe.title,
        "image_size": data.IMAGE_SIZE,
        "mean": MEAN,
        "std": DEVIATION,
        "config": network_config(recipe.vision),
        "recipe": asdict(recipe),
        "retrieval": figures,
    }
    tensors = {
        key: value.half() if value.is_floating_point() else value for key, value in model.network.state_dict().items()
    }
    rows = networks.used_tokens(data.vocabulary())
    tensors |= {"token_rows": rows, "token_embedding.weight": tensors["token_embedding.weight"][rows]}
    write_atomically(path, tensors, {"attune.reward": json.dumps(header), "license": "see MODEL_CARD.md"})
