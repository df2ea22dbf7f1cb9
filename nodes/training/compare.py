"""Two models on the same prompts and seeds: pictures, scores, diversity, and the picture that shows them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from ...training.interfaces import AttuneError, Reward, checked_scores
from ..drawing import short_number
from .grid import Side, comparison_grid

Features = Callable[[torch.Tensor], torch.Tensor]
# One sampler call; bounds memory without a setting.
_AT_ONCE = 8


@dataclass(frozen=True)
class SamplingSettings:
    """The host's KSampler settings, the same for both models."""

    steps: int
    guidance: float
    sampler: str
    scheduler: str


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        figures: JSON-able; means per side, deviations, diversity, win rate, seconds, pictures per side.
        grid: the picture.
        before, after: pictures and scores, prompts outermost.
    """

    figures: dict[str, Any]
    grid: Image.Image
    before: Side
    after: Side


def feature_source(reward: Reward | None) -> Features | None:
    """The picture features of a reward's own encoder, if it has one: images [B, h, w, 3] → [B, D]."""
    # A cached reward keeps the one that does the work in `reward`.
    for candidate in (reward, getattr(reward, "reward", None)):
        features = getattr(candidate, "image_features", None)
        if callable(features):
            return features
    return None


def pixel_features(images: torch.Tensor) -> torch.Tensor:
    """Features for want of better: every picture shrunk to 16×16 and centred, [B, 768]."""
    small = torch.nn.functional.interpolate(images[..., :3].movedim(-1, 1), size=(16, 16), mode="area")
    flat = small.flatten(1)
    return flat - flat.mean(1, keepdim=True)


@torch.no_grad()
def diversity(images: torch.Tensor, features: Features, *, group: int) -> float:
    """Mean pairwise 1 − cos of the features within a prompt, averaged over prompts.

    Args:
        images: [prompts·group, h, w, 3].
        group: pictures per prompt; with fewer than 2 there is no pair and the result is NaN.
    """
    if group < 2:
        return math.nan
    vectors = torch.nn.functional.normalize(features(images).float(), dim=1)
    vectors = vectors.reshape(len(images) // group, group, -1)  # (prompts, group, D)
    cosines = vectors @ vectors.transpose(1, 2)
    pairs = group * (group - 1)
    return float(1 - (cosines.sum((1, 2)) - cosines.diagonal(dim1=1, dim2=2).sum(1)).mean() / pairs)


def win_rate(before: Sequence[float], after: Sequence[float], *, higher_is_better: bool) -> float:
    """Share of prompt-seed pairs in which `after` scores better; ties count half."""
    gains = [(b - a) * (1 if higher_is_better else -1) for a, b in zip(before, after, strict=True)]
    return sum(1.0 if gain > 0 else 0.5 if gain == 0 else 0.0 for gain in gains) / len(gains)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (of the sample; 0 for a single value)."""
    tensor = torch.tensor(list(values), dtype=torch.float64)
    return tensor.mean().item(), tensor.std().item() if len(tensor) > 1 else 0.0


def paired_change(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """Mean change of the same prompts and seeds, and its 95 % error: 1.96·s/√N of the differences (0 for N = 1)."""
    mean, deviation = mean_and_deviation([b - a for a, b in zip(before, after, strict=True)])
    return mean, 1.96 * deviation / len(before) ** 0.5


def sample_all(
    model: Any,
    vae: Any,
    latent: Mapping[str, Any],
    positives: Sequence[Any],
    negative: Any,
    seeds: Sequence[int],
    settings: SamplingSettings,
    on_step: Callable[[], None],
) -> torch.Tensor:
    """Every prompt with every seed through the host's sampler: images [prompts·seeds, h, w, 3], prompts outermost."""
    from ..host.sampling import decode_latents, empty_latent, sample_latents, seeded_noise

    noise = seeded_noise(empty_latent(model, latent), seeds)
    images = []
    for positive in positives:
        for start in range(0, len(seeds), _AT_ONCE):
            latents = sample_latents(
                model,
                noise[start : start + _AT_ONCE],
                positive,
                negative,
                steps=settings.steps,
                guidance=settings.guidance,
                sampler=settings.sampler,
                scheduler=settings.scheduler,
                seed=seeds[start],
                on_step=on_step,
            )
            images.append(decode_latents(vae, latents))
    return torch.cat(images)


def check_different(before: torch.Tensor, after: torch.Tensor) -> None:
    """The stock loader takes any LoRA, and of one for another architecture it applies nothing: only here it shows.

    Raises:
        AttuneError: the pictures are the same, bit for bit.
    """
    if torch.equal(before, after):
        raise AttuneError(
            "Model A and model B draw the same pictures, bit for bit: they are the same model. If one of them carries "
            "a LoRA, it was not applied: it was trained for another architecture (ComfyUI's console then lists its "
            'keys as "lora key not loaded"), its strength is 0, or it has not learned anything yet. Choose a LoRA for '
            "this checkpoint, raise its strength, or connect another model."
        )


def compare(
    model_a: Any,
    model_b: Any,
    clip: Any,
    vae: Any,
    latent: Mapping[str, Any],
    *,
    prompts: Sequence[str],
    negative: str,
    reward: Reward,
    held_out: Reward | None,
    first_seed: int,
    seeds_per_prompt: int,
    settings: SamplingSettings,
) -> Comparison:
    """Sample both models alike and judge them.

    Raises:
        AttuneError: no prompts, no seeds, models that draw the same pictures, or a reward that cannot score them.
    """
    from ..host.sampling import encode_prompts, progress_bar

    if not prompts or seeds_per_prompt < 1:
        raise AttuneError("Nothing to compare: give at least one prompt and one picture per prompt.")
    began = time.monotonic()
    *positives, empty = encode_prompts(clip, [*prompts, negative])
    seeds = [first_seed + index for index in range(seeds_per_prompt)]
    texts = [prompt for prompt in prompts for _ in seeds]
    on_step = progress_bar(2 * len(prompts) * -(-len(seeds) // _AT_ONCE) * settings.steps)
    pictures = [
        sample_all(model, vae, latent, positives, empty, seeds, settings, on_step) for model in (model_a, model_b)
    ]
    check_different(*pictures)
    sides = []
    for images in pictures:
        scores = checked_scores(reward, images, texts).tolist()
        judged = checked_scores(held_out, images, texts).tolist() if held_out is not None else None
        sides.append(Side(images, scores, judged))
    before, after = sides
    source = held_out if feature_source(held_out) else reward
    features = feature_source(source)
    figures = _figures(before, after, reward=reward, held_out=held_out, group=len(seeds), features=features)
    figures["diversity_features"] = source.name if features else "16 by 16 pixels"
    figures["seconds"] = round(time.monotonic() - began, 2)
    title = f"Before and after: {_count(len(prompts), 'prompt')}, {_count(len(seeds), 'seed')} each"
    grid = comparison_grid(
        before,
        after,
        prompts=prompts,
        seeds=seeds,
        title=title,
        summary=_summary(figures, reward, held_out),
        higher_is_better=reward.higher_is_better,
    )
    return Comparison(figures, grid, before, after)


def _figures(
    before: Side, after: Side, *, reward: Reward, held_out: Reward | None, group: int, features: Features | None
) -> dict[str, Any]:
    figures: dict[str, Any] = {"reward_name": reward.name, "held_out_name": held_out.name if held_out else ""}
    for name, side in (("before", before), ("after", after)):
        figures[f"reward_{name}"], figures[f"reward_{name}_deviation"] = mean_and_deviation(side.scores)
        if side.held_out is not None:
            figures[f"held_out_{name}"], figures[f"held_out_{name}_deviation"] = mean_and_deviation(side.held_out)
        else:
            figures[f"held_out_{name}"] = None
        spread = diversity(side.images, features or pixel_features, group=group)
        figures[f"diversity_{name}"] = None if math.isnan(spread) else spread
    pairs = {"reward": (before.scores, after.scores), "held_out": (before.held_out, after.held_out)}
    for key, (one, two) in pairs.items():
        if one is not None and two is not None:
            figures[f"{key}_change"], figures[f"{key}_change_error"] = paired_change(one, two)
    figures["win_rate"] = win_rate(before.scores, after.scores, higher_is_better=reward.higher_is_better)
    figures["images"] = len(before.images)
    return figures


def _summary(figures: Mapping[str, Any], reward: Reward, held_out: Reward | None) -> list[tuple[str, str, str]]:
    """The header's cells: (name, figure, verdict)."""
    cells = []
    for key, label, judge in (("reward", f"Reward: {reward.name}", reward), ("held_out", "Held-out: ", held_out)):
        if judge is None:
            continue
        one, two = figures[f"{key}_before"], figures[f"{key}_after"]
        change, error = figures[f"{key}_change"], figures[f"{key}_change_error"]
        text = f"{short_number(round(one, 4))} to {short_number(round(two, 4))}"
        # A change within its error says nothing, and a colour would say something.
        clear = round(one, 4) != round(two, 4) and abs(change) > error
        verdict = "" if not clear else "good" if (change > 0) == judge.higher_is_better else "bad"
        cells.append((label if key == "reward" else label + judge.name, text, verdict))
    rate = figures["win_rate"]
    verdict = "good" if rate > 0.5 else "bad" if rate < 0.5 else ""
    cells.append(("After beats before", f"{100 * rate:.0f} % of {figures['images']}", verdict))
    if figures["diversity_before"] is not None:
        one, two = figures["diversity_before"], figures["diversity_after"]
        label = f"Diversity ({figures['diversity_features']})"
        cells.append((label, f"{short_number(round(one, 4))} to {short_number(round(two, 4))}", ""))
    cells.append(("Time", f"{figures['seconds']:.1f} s", ""))
    return cells


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
