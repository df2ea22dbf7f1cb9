"""The test bed of qlora-reward: a small vision-language model that is really trained, and preference pairs of drawings.

The base is a LLaVA of transformers' own classes (CLIP vision tower, projector, Llama), made here: it learns to caption
the demo data set's drawings. Nothing of it is kept. The pairs are choices of a simulated person with a taste in styles
and backgrounds, about concepts that are prompts.

(Pairs of which one picture fits the prompt and the other does not would be the harder test, and were tried first: in a
few minutes on one core this base does not learn to compare a text with a picture, at any precision.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from attune.tests.tiny_vlm import make_model, make_processor, make_tokenizer
from attune.training.demo import data
from attune.training.preference_pairs import Pair
from attune.training.vlm_reward import WORDING

SIZE, PATCH = 64, 16
VISION, LANGUAGE = (256, 4, 4), (256, 4, 4)
IGNORED = -100
CONCEPTS = 32  # of the demo's 113: what a few minutes on one core can learn to tell apart


@dataclass
class Drawings:
    """The demo drawings, and sentences about them."""

    library: data.Library

    @cached_property
    def choices(self) -> list[tuple[str, str]]:
        """The concepts and styles that there are drawings of; every third concept or so, so that all kinds are in."""
        kept = set(data.CONCEPT_NAMES[:: len(data.CONCEPT_NAMES) // CONCEPTS][:CONCEPTS])
        return [pair for pair in self.library.pairs() if pair[0] in kept]

    def attributes(self, rng: np.random.Generator) -> data.Attributes:
        concept, style = self.choices[rng.integers(len(self.choices))]
        return data.Attributes(concept, style, str(rng.choice(list(data.BACKGROUNDS))))

    def picture(self, attributes: data.Attributes, rng: np.random.Generator) -> Image.Image:
        return Image.fromarray(data.compose(self.library, attributes, rng, placement_jitter=0.5))


def sentence(attributes: data.Attributes) -> str:
    """One wording for all, every attribute in it."""
    subject = attributes.concept if attributes.concept in data.PLURALS else data.with_article(attributes.concept)
    return f"{subject}, {attributes.style} style, {attributes.background} background"


def train_tower(tower: nn.Module, processor: Any, drawings: Drawings, *, steps: int, batch: int, seed: int) -> None:
    """Teach the vision tower to name concept, style and background, as every LLaVA's tower has been taught before."""
    concepts = sorted({concept for concept, _ in drawings.choices})
    tables = {"concept": concepts, "style": list(data.STYLES), "background": list(data.BACKGROUNDS)}
    heads = nn.ModuleDict({name: nn.Linear(VISION[0], len(words)) for name, words in tables.items()})
    optimizer, schedule = optimizer_of([*tower.parameters(), *heads.parameters()], steps)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        shown = [drawings.attributes(rng) for _ in range(batch)]
        pictures = [drawings.picture(attributes, rng) for attributes in shown]
        pixels = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
        seen = tower(pixel_values=pixels).last_hidden_state[:, 1:].mean(1)
        loss = sum(
            F.cross_entropy(heads[name](seen), torch.tensor([words.index(getattr(a, name)) for a in shown]))
            for name, words in tables.items()
        )
        update(loss, optimizer, schedule)
    print(f"tower: loss {loss.item():.3f}", flush=True)


def optimizer_of(parameters: list[nn.Parameter], steps: int) -> tuple[Any, Any]:
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01, fused=True)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.1)


def update(loss: torch.Tensor, optimizer: Any, schedule: Any) -> None:
    optimizer.zero_grad()
    loss.backward()
    for group in optimizer.param_groups:
        nn.utils.clip_grad_norm_(group["params"], 1.0)
    optimizer.step()
    schedule.step()


def write_base(folder: Path, drawings: Drawings, *, tower_steps: int, steps: int, batch: int, seed: int) -> list[float]:
    """Train the base and save it in the library's own layout; returns the losses.

    First the tower alone, then all of it, on captions: "<image> a cat, flat style, blue background".
    """
    from transformers.utils.logging import disable_progress_bar

    tokenizer = make_tokenizer([*data.vocabulary(), WORDING])
    processor = make_processor(tokenizer, image_size=SIZE, patch=PATCH)
    torch.manual_seed(seed)
    model = make_model(tokenizer, image_size=SIZE, patch=PATCH, vision=VISION, language=LANGUAGE).train()
    train_tower(model.model.vision_tower, processor, drawings, steps=tower_steps, batch=2 * batch, seed=seed)
    optimizer, schedule = optimizer_of(list(model.parameters()), steps)
    rng = np.random.default_rng(seed + 1)
    losses = []
    for step in range(steps):
        loss = caption_loss(model, processor, drawings, batch, rng)
        update(loss, optimizer, schedule)
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            print(f"base: step {step + 1}/{steps}, loss {np.mean(losses[-50:]):.3f}", flush=True)
    disable_progress_bar()
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return losses


def caption_loss(model: Any, processor: Any, drawings: Drawings, batch: int, rng: np.random.Generator) -> torch.Tensor:
    """Mean cross-entropy of a caption's tokens."""
    shown = [drawings.attributes(rng) for _ in range(batch)]
    texts = [f"<image> {sentence(attributes)} </s>" for attributes in shown]
    pictures = [drawings.picture(attributes, rng) for attributes in shown]
    inputs = processor(text=texts, images=pictures, padding=True, return_tensors="pt")
    tokens = inputs["input_ids"]
    labels = tokens.masked_fill((inputs["attention_mask"] == 0) | (tokens == model.config.image_token_id), IGNORED)
    logits = model(**inputs, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)


@dataclass(frozen=True)
class Person:
    """A simulated person: how much they like every style and every background, in numbers nobody is told.

    Of two pictures of what the prompt asks for they choose the one with the larger sum; ones they like about equally
    are not shown to them.
    """

    styles: dict[str, float]
    backgrounds: dict[str, float]
    indifference: float = 0.2

    @classmethod
    def of(cls, seed: int) -> Person:
        rng = np.random.default_rng(seed)
        return cls(
            {name: float(rng.normal()) for name in data.STYLES},
            {name: float(rng.normal()) for name in data.BACKGROUNDS},
        )

    def liking(self, attributes: data.Attributes) -> float:
        return self.styles[attributes.style] + self.backgrounds[attributes.background]


def make_pairs(drawings: Drawings, person: Person, count: int, *, seed: int, unseen: bool) -> list[Pair]:
    """The person's choices between two pictures of the same thing, whose name is the prompt.

    Args:
        unseen: of the quarter of the concepts that is never trained on, or else of the others.
    """
    rng = np.random.default_rng(seed)
    concepts = list(dict.fromkeys(concept for concept, _ in drawings.choices))
    kept = {concept for index, concept in enumerate(concepts) if (index % 4 == 3) == unseen}
    pairs: list[Pair] = []
    while len(pairs) < count:
        first = drawings.attributes(rng)
        second = replace(drawings.attributes(rng), concept=first.concept)
        difference = person.liking(first) - person.liking(second)
        drawn = drawings.library.find(second.concept, second.style) is not None
        if first.concept not in kept or not drawn or abs(difference) < person.indifference:
            continue
        better, worse = (first, second) if difference > 0 else (second, first)
        prompt = first.concept if first.concept in data.PLURALS else data.with_article(first.concept)
        pairs.append(Pair(prompt, *(tensor_of(drawings.picture(a, rng)) for a in (better, worse))))
    return pairs


def tensor_of(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)
